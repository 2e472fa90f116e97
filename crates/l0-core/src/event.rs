//! Event: what happens to a run, in the one vocabulary that observers, adapters and tests share.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::attempt_stats::AttemptStats;
use crate::end::End;
use crate::failure::NetworkErrorKind;
use crate::keep::KeepReason;
use crate::label::label_enum;
use crate::metadata::Metadata;
use crate::telemetry::{Telemetry, Timestamp};
use crate::token::TokenView;
use crate::verdict::{DriftReport, Violation};

/// Something that happened to a run. Borrowed: it lives for the call that delivers it.
///
/// The order within a run is [`Started`](Self::Started), then what happens, then exactly one
/// [`Finished`](Self::Finished). Times are absent in runs that are not measured; the events are
/// the same.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run started. Delivered inside `start()`, on the caller's thread.
    #[non_exhaustive]
    Started {
        /// When, by the wall clock; absent in a run that is not measured.
        at: Option<Timestamp>,
    },
    /// A source is about to be called. A watched stream is one attempt, which begins with it.
    #[non_exhaustive]
    AttemptStarted {
        /// Which attempt, from 1. It counts the attempts of all sources of the run.
        number: u32,
        /// Which source, from 1: see [`RunInfo::source`](crate::RunInfo::source).
        source: u32,
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
        /// What the token says. Its model is that of the attempt, also if an item before told it.
        view: TokenView<'a>,
    },
    /// The answer of a call arrived, as one: it is no token. Only for observers with
    /// [`Interest::TOKENS`](crate::Interest::TOKENS).
    #[non_exhaustive]
    Answer {
        /// What the answer says. Its model is that of the attempt.
        view: TokenView<'a>,
    },
    /// A network error occurred, whether or not a retry follows.
    #[non_exhaustive]
    NetworkError {
        /// Its type.
        kind: NetworkErrorKind,
        /// What happened, redacted and by default in L0's own words: see
        /// [`Monitoring::error_text`](crate::Monitoring::error_text).
        message: &'a str,
        /// How long the run waits before the retry that follows; absent if none follows.
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
        /// Which limit the retry counts toward.
        kind: RetryKind,
    },
    /// The run will ask its next source, without a delay.
    #[non_exhaustive]
    Fallback {
        /// Which source is given up, from 1.
        from: u32,
        /// Which is asked next.
        to: u32,
    },
    /// An attempt ended: exactly once for each [`AttemptStarted`](Self::AttemptStarted), before the
    /// [`Retry`](Self::Retry), the [`Fallback`](Self::Fallback) or the [`Finished`](Self::Finished) that
    /// follows it.
    #[non_exhaustive]
    AttemptFinished {
        /// What it measured. Of a run that is not measured: everything but times, gaps, usage, the
        /// finish reason, and counts of errors and violations.
        attempt: &'a AttemptStats,
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
        /// How and why it ended.
        end: &'a End,
        /// The final telemetry; absent in a run that is not measured.
        telemetry: Option<&'a Telemetry>,
        /// The source's own error, if that is what the run failed with. Its text may hold prompts and
        /// credentials: send the [message](End::message).
        error: Option<&'a (dyn StdError + 'static)>,
        /// The model that answered the last attempt, as the provider names it, cut to 256 bytes;
        /// absent if the source did not say.
        response_model: Option<&'a str>,
        /// The provider's id of the last attempt's response, cut to 256 bytes; absent if the source
        /// did not say.
        response_id: Option<&'a str>,
        /// The metadata of the run, with what was [set](crate::RunHandle::set_metadata) while it was
        /// live.
        metadata: &'a Metadata,
        /// Why the run is to be told by itself; absent if it is not: see
        /// [`Monitoring::keep`](crate::Monitoring::keep).
        kept: Option<KeepReason>,
    },
}

impl Event<'_> {
    /// Returns the stable name of the kind of event, in snake case.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::AttemptStarted { .. } => "attempt_started",
            Self::FirstToken { .. } => "first_token",
            Self::Token { .. } => "token",
            Self::Answer { .. } => "answer",
            Self::NetworkError { .. } => "network_error",
            Self::Retry { .. } => "retry",
            Self::Fallback { .. } => "fallback",
            Self::AttemptFinished { .. } => "attempt_finished",
            Self::Violation { .. } => "violation",
            Self::Drift { .. } => "drift",
            Self::Finished { .. } => "finished",
        }
    }
}

/// Without the text of a token or an answer, and the source's own error, which may hold a prompt or a key.
impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { at } => f.debug_struct("Started").field("at", at).finish(),
            Self::AttemptStarted { number, source } => f
                .debug_struct("AttemptStarted")
                .field("number", number)
                .field("source", source)
                .finish(),
            Self::Fallback { from, to } => f
                .debug_struct("Fallback")
                .field("from", from)
                .field("to", to)
                .finish(),
            Self::AttemptFinished { attempt } => f
                .debug_struct("AttemptFinished")
                .field("attempt", attempt)
                .finish(),
            Self::FirstToken { after } => {
                f.debug_struct("FirstToken").field("after", after).finish()
            }
            Self::Answer { view } => f
                .debug_struct("Answer")
                .field("kind", &view.kind)
                .finish_non_exhaustive(),
            Self::Token { index, gap, view } => f
                .debug_struct("Token")
                .field("index", index)
                .field("gap", gap)
                .field("kind", &view.kind)
                .finish_non_exhaustive(),
            Self::NetworkError {
                kind,
                message,
                delay,
                attempt,
            } => f
                .debug_struct("NetworkError")
                .field("kind", kind)
                .field("message", message)
                .field("delay", delay)
                .field("attempt", attempt)
                .finish(),
            Self::Retry {
                attempt,
                reason,
                delay,
                kind,
            } => f
                .debug_struct("Retry")
                .field("attempt", attempt)
                .field("reason", reason)
                .field("delay", delay)
                .field("kind", kind)
                .finish(),
            Self::Violation { violation } => f
                .debug_struct("Violation")
                .field("violation", violation)
                .finish(),
            Self::Drift { report } => f.debug_struct("Drift").field("report", report).finish(),
            Self::Finished {
                end,
                telemetry,
                response_model,
                response_id,
                metadata,
                kept,
                ..
            } => f
                .debug_struct("Finished")
                .field("end", end)
                .field("telemetry", telemetry)
                .field("response_model", response_model)
                .field("response_id", response_id)
                .field("metadata", metadata)
                .field("kept", kept)
                .finish_non_exhaustive(),
        }
    }
}

label_enum! {
    /// Why a run tries again.
    pub enum RetryReason {
        /// A network error that is none of the following.
        NetworkError = "network_error",
        /// A timeout: the run's own or the source's.
        Timeout = "timeout",
        /// The server said that it is asked too often.
        RateLimited = "rate_limited",
        /// The server failed.
        ServerError = "server_error",
        /// The stream ended without a finish reason.
        Truncated = "truncated",
        /// The source called the model's answer faulty.
        ModelError = "model_error",
        /// The answer was empty.
        ZeroOutput = "zero_output",
        /// A rule found a recoverable violation.
        GuardrailViolation = "guardrail_violation",
        /// The answer drifted.
        Drift = "drift",
    }
}

label_enum! {
    /// Which limit a retry counts toward.
    pub enum RetryKind {
        /// A retry for a network error, a rate limit or a server error.
        Network = "network",
        /// A retry for the model's answer.
        Model = "model",
    }
}
