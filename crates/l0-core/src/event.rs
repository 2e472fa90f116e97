//! Event: what happens to a run, in the one vocabulary that observers, adapters and tests share.

use std::error::Error as StdError;
use std::time::Duration;

use crate::failure::NetworkErrorKind;
use crate::telemetry::{Telemetry, Timestamp};
use crate::token::TokenView;
use crate::verdict::{DriftReport, Outcome, Violation};

/// Something that happened to a run. Borrowed: it lives for the call that delivers it.
///
/// The order within a run is [`Started`](Self::Started), then what happens, then exactly one
/// [`Finished`](Self::Finished). Times are absent in runs that are not measured; the events are
/// the same.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run started. Delivered inside `start()`, on the caller's thread.
    #[non_exhaustive]
    Started {
        /// When, by the wall clock; absent in a run that is not measured.
        at: Option<Timestamp>,
    },
    /// The source is about to be called. A watched stream is one attempt, which begins with it.
    #[non_exhaustive]
    AttemptStarted {
        /// Which attempt, from 1.
        number: u32,
    },
    /// The first token of the run arrived. At most once per run, before its
    /// [`Token`](Self::Token).
    #[non_exhaustive]
    FirstToken {
        /// The time since the start of the run.
        after: Option<Duration>,
    },
    /// A token arrived. Only for observers with [`Interest::TOKENS`](crate::Interest::TOKENS).
    #[non_exhaustive]
    Token {
        /// How many tokens of this run came before it, those of earlier attempts included.
        index: u64,
        /// The time since the token before; absent for the first of an attempt.
        gap: Option<Duration>,
        /// What the token says.
        view: TokenView<'a>,
    },
    /// A network error occurred, whether or not a retry follows.
    #[non_exhaustive]
    NetworkError {
        /// Its type.
        kind: NetworkErrorKind,
        /// Its redacted text.
        message: &'a str,
        /// Whether a retry follows.
        retried: bool,
        /// How long the run waits before the retry; absent without one.
        delay: Option<Duration>,
        /// Which attempt failed, from 1; absent if unknown.
        attempt: Option<u32>,
    },
    /// The run will try again, after a delay.
    #[non_exhaustive]
    Retry {
        /// The number of the attempt to come.
        attempt: u32,
        /// Why the attempt before failed.
        reason: RetryReason,
        /// How long the run waits before it.
        delay: Duration,
        /// Whether it is a network retry, which does not count toward the model retries.
        network: bool,
    },
    /// A rule found a violation. Each distinct one once per attempt.
    #[non_exhaustive]
    Violation {
        /// What was found.
        violation: &'a Violation,
    },
    /// Drift was found.
    #[non_exhaustive]
    Drift {
        /// What was found.
        report: &'a DriftReport,
    },
    /// The run ended: its last event, exactly once, before the last item is handed out.
    #[non_exhaustive]
    Finished {
        /// How it ended.
        outcome: Outcome,
        /// The final telemetry; absent in a run that is not measured.
        telemetry: Option<&'a Telemetry>,
        /// What went wrong: the source's own error, or else the run's. Absent if nothing did, and
        /// for a run that was dropped or that panicked. Its text may hold credentials: send the
        /// `message`.
        error: Option<&'a (dyn StdError + 'static)>,
        /// The redacted text of the error and of what caused it.
        message: Option<&'a str>,
        /// From the start to the end.
        duration: Option<Duration>,
        /// The model that answered the last attempt, as the provider names it, cut to 256 bytes;
        /// absent if the source did not say.
        response_model: Option<&'a str>,
        /// The provider's id of the last attempt's response, cut to 256 bytes; absent if the source
        /// did not say.
        response_id: Option<&'a str>,
    },
}

impl Event<'_> {
    /// The stable name of the kind of event, in snake case.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::AttemptStarted { .. } => "attempt_started",
            Self::FirstToken { .. } => "first_token",
            Self::Token { .. } => "token",
            Self::NetworkError { .. } => "network_error",
            Self::Retry { .. } => "retry",
            Self::Violation { .. } => "violation",
            Self::Drift { .. } => "drift",
            Self::Finished { .. } => "finished",
        }
    }
}

/// Why a run tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RetryReason {
    /// A network error that is none of the following.
    NetworkError,
    /// A timeout: the run's own or the source's.
    Timeout,
    /// The server said that it is asked too often.
    RateLimited,
    /// The server failed.
    ServerError,
    /// The stream ended without a finish reason.
    Truncated,
    /// The source called the model's answer faulty.
    ModelError,
    /// The answer was empty.
    ZeroOutput,
    /// A rule found a recoverable violation.
    GuardrailViolation,
    /// The answer drifted.
    Drift,
}

impl RetryReason {
    /// The stable label, in snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NetworkError => "network_error",
            Self::Timeout => "timeout",
            Self::RateLimited => "rate_limited",
            Self::ServerError => "server_error",
            Self::Truncated => "truncated",
            Self::ModelError => "model_error",
            Self::ZeroOutput => "zero_output",
            Self::GuardrailViolation => "guardrail_violation",
            Self::Drift => "drift",
        }
    }
}

impl std::fmt::Display for RetryReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
