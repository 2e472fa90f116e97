//! How a run fails.

use std::error::Error as StdError;
use std::fmt;

use crate::verdict::{Outcome, Violation};

/// What a source's error type must be: a standard error that can cross threads.
///
/// Implemented for every such type; there is nothing to implement by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a source's error type",
    label = "not a `std::error::Error + Send + Sync + 'static`",
    note = "for `anyhow::Error`, `Box<dyn Error + Send + Sync>` or `String`, convert the errors first: `.map_err(std::io::Error::other)`"
)]
pub trait SourceError: StdError + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<E: StdError + Send + Sync + 'static> SourceError for E {}

/// Why a run failed: the last item of a stream that did not complete.
///
/// After it the stream is at its end, and telemetry and outcome are final.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error<E> {
    /// The source failed, and was not, or not once more, retried.
    #[error("the source failed, after {attempts} attempt{}", if *attempts == 1 { "" } else { "s" })]
    Source {
        /// The source's own error, from the last attempt.
        source: E,
        /// How many attempts were made.
        attempts: u32,
    },
    /// A rule stopped the run; the item at fault is withheld.
    #[error("guardrail violation: {0}")]
    Guardrail(Violation),
    /// The answer has no text with a letter or digit and no tool call, after all retries.
    #[error("the answer is empty: no text with a letter or digit, and no tool call")]
    ZeroOutput,
    /// The source ended without the finish reason that it always sends, after all retries.
    #[error("the stream ended without a finish reason")]
    Truncated,
    /// A timeout of the run expired, after all retries.
    #[error("{0} timeout")]
    Timeout(TimeoutKind),
    /// The run was stopped through its handle or by one of its `until` futures.
    #[error("Stream aborted")]
    Aborted,
    /// An interceptor refused the run; the source was never called.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// A timeout is set, but there is no Tokio runtime with its timer enabled to keep it.
    #[error("timeouts need a Tokio runtime with its timer enabled (`Builder::enable_time`)")]
    NoTimer,
}

impl<E> Error<E> {
    /// How a run that fails with this error ended.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Truncated => Outcome::Truncated,
            Self::Timeout(_) => Outcome::TimedOut,
            Self::Aborted => Outcome::Aborted,
            _ => Outcome::Failed,
        }
    }

    /// The source's own error, if that is what failed.
    #[must_use]
    pub fn into_source(self) -> Option<E> {
        match self {
            Self::Source { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl<E: StdError + 'static> Error<E> {
    /// The error that says what happened: the source's own, or else this one.
    pub(crate) fn cause(&self) -> &(dyn StdError + 'static) {
        match self {
            Self::Source { source, .. } => source,
            other => other,
        }
    }
}

/// Which timeout expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeoutKind {
    /// The wait for an attempt's first item, the factory's work included.
    FirstToken,
    /// The wait between two items.
    InterToken,
    /// The wait of the whole run, retries and back-off included.
    Total,
}

impl TimeoutKind {
    /// The stable name, in snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstToken => "first_token",
            Self::InterToken => "inter_token",
            Self::Total => "total",
        }
    }
}

impl fmt::Display for TimeoutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FirstToken => "first-token",
            Self::InterToken => "inter-token",
            Self::Total => "total",
        })
    }
}

/// Why an interceptor's [`before`](crate::Interceptor::before) refused a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The reason, for the caller. It reaches observers redacted, like every message.
    pub message: String,
}

impl Refusal {
    /// A refusal for this reason.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Refusal {}
