//! Events: what happens to a run, in the vocabulary shared by observers, adapters and tests.

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

/// Something that happened to a run. Borrows its data, so it lives only for the call that delivers it.
///
/// A run emits one [`Started`](Self::Started), then the other events, then exactly one
/// [`Finished`](Self::Finished). Unmeasured runs emit the same events, without times.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run started. Emitted inside `start()`, on the caller's thread.
    #[non_exhaustive]
    Started {
        /// The wall-clock time of the start. `None` in an unmeasured run.
        at: Option<Timestamp>,
    },
    /// A source is about to be called. A watched stream is one attempt, which starts with the stream.
    #[non_exhaustive]
    AttemptStarted {
        /// The number of the attempt, from 1, counted over all sources of the run.
        number: u32,
        /// The number of the source, from 1; see [`RunInfo::source`](crate::RunInfo::source).
        source: u32,
    },
    /// The first token of the run arrived. Emitted at most once per run, before its
    /// [`Token`](Self::Token).
    #[non_exhaustive]
    FirstToken {
        /// The time since the start of the run.
        after: Option<Duration>,
    },
    /// A token arrived. Sent only to observers with [`Interest::TOKENS`](crate::Interest::TOKENS).
    #[non_exhaustive]
    Token {
        /// The number of earlier tokens of this run, all attempts included.
        index: u64,
        /// The time since the previous token. `None` for the first token of an attempt.
        gap: Option<Duration>,
        /// The content of the token. Its model is the attempt's model, even if an earlier item reported
        /// it.
        view: TokenView<'a>,
    },
    /// The answer of a call arrived as a whole; it is not a token. Sent only to observers with
    /// [`Interest::TOKENS`](crate::Interest::TOKENS).
    #[non_exhaustive]
    Answer {
        /// The content of the answer. Its model is the attempt's model.
        view: TokenView<'a>,
    },
    /// A network error occurred, retried or not.
    #[non_exhaustive]
    NetworkError {
        /// The type of the error.
        kind: NetworkErrorKind,
        /// What happened. The text is redacted, and by default in L0's own words; see
        /// [`Monitoring::error_text`](crate::Monitoring::error_text).
        message: &'a str,
        /// The delay before the retry that follows. `None` if none follows.
        delay: Option<Duration>,
        /// The number of the attempt that failed, from 1. `None` if unknown.
        attempt: Option<u32>,
    },
    /// The run will retry after a delay.
    #[non_exhaustive]
    Retry {
        /// The number of the next attempt.
        attempt: u32,
        /// Why the previous attempt failed.
        reason: RetryReason,
        /// The delay before the next attempt.
        delay: Duration,
        /// The limit that the retry counts toward.
        kind: RetryKind,
    },
    /// The run will call its next source, without a delay.
    #[non_exhaustive]
    Fallback {
        /// The number of the abandoned source, from 1.
        from: u32,
        /// The number of the next source.
        to: u32,
    },
    /// An attempt ended. Emitted exactly once for each [`AttemptStarted`](Self::AttemptStarted), before
    /// the [`Retry`](Self::Retry), [`Fallback`](Self::Fallback) or [`Finished`](Self::Finished) that
    /// follows.
    #[non_exhaustive]
    AttemptFinished {
        /// The measurements of the attempt. In an unmeasured run, they have no times, gaps, usage or
        /// finish reason, and no counts of errors and violations.
        attempt: &'a AttemptStats,
    },
    /// A rule found a violation. Emitted once per attempt for each distinct violation.
    #[non_exhaustive]
    Violation {
        /// The violation.
        violation: &'a Violation,
    },
    /// Drift was found.
    #[non_exhaustive]
    Drift {
        /// The drift.
        report: &'a DriftReport,
    },
    /// The run ended. The last event of a run, emitted exactly once before the consumer receives the last
    /// item.
    #[non_exhaustive]
    Finished {
        /// How and why the run ended.
        end: &'a End,
        /// The final telemetry. `None` in an unmeasured run.
        telemetry: Option<&'a Telemetry>,
        /// The source's own error, if the run failed with one. Its text can contain prompts and
        /// credentials; send the [message](End::message) instead.
        error: Option<&'a (dyn StdError + 'static)>,
        /// The model that answered the last attempt, as named by the provider, truncated to 256 bytes.
        /// `None` if the source did not report it.
        response_model: Option<&'a str>,
        /// The provider's response id of the last attempt, truncated to 256 bytes. `None` if the source
        /// did not report it.
        response_id: Option<&'a str>,
        /// The metadata of the run, including entries [set](crate::RunHandle::set_metadata) while it was
        /// live.
        metadata: &'a Metadata,
        /// Why per-run exporters send this run. `None` if they do not send it. See
        /// [`Monitoring::keep`](crate::Monitoring::keep).
        kept: Option<KeepReason>,
    },
}

impl Event<'_> {
    /// Returns the stable name of the event's kind, in snake case.
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

/// Omits the text of tokens and answers, and the source's own error, which can contain a prompt or a key.
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
    /// Why a run retries.
    pub enum RetryReason {
        /// A network error of no other kind in this list.
        NetworkError = "network_error",
        /// A timeout, of the run or of the source.
        Timeout = "timeout",
        /// The server limited the rate of requests.
        RateLimited = "rate_limited",
        /// A server error.
        ServerError = "server_error",
        /// The stream ended without a finish reason.
        Truncated = "truncated",
        /// The source reported the model's answer as faulty.
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
    /// The limit that a retry counts toward.
    pub enum RetryKind {
        /// A retry for a network error, a rate limit or a server error.
        Network = "network",
        /// A retry because of the model's answer.
        Model = "model",
    }
}
