//! How a run fails.

use std::error::Error as StdError;
use std::fmt;

use crate::failure::{Failure, NetworkErrorKind};
use crate::verdict::{Outcome, Violation};

/// What a source's error type must be: a standard error that can cross threads.
///
/// Implemented for every such type; there is nothing to implement by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a source's error type",
    label = "not a `std::error::Error + Send + Sync + 'static`",
    note = "for `anyhow::Error`, `Box<dyn Error + Send + Sync>` or `String`, convert the errors first, of connecting and of the items: `.map_err(std::io::Error::other)`"
)]
pub trait SourceError: StdError + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<E: StdError + Send + Sync + 'static> SourceError for E {}

/// Why a run failed: the last item of a stream that did not complete.
///
/// After it the stream is at its end, and telemetry and outcome are final.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error<E> {
    /// The source failed, and was not, or not once more, retried.
    Source {
        /// The source's own error, from the last attempt.
        source: E,
        /// How many attempts were made.
        attempts: u32,
    },
    /// A rule stopped the run; the item at fault is withheld.
    Guardrail(Violation),
    /// The answer has no text with a letter or digit and no tool call, after all retries.
    ZeroOutput,
    /// The source ended without the finish reason that it always sends, after all retries.
    Truncated,
    /// A timeout of the run expired, after all retries.
    Timeout(TimeoutKind),
    /// The run was stopped through its handle or by one of its `until` futures.
    Aborted,
    /// An interceptor refused the run; the source was never called.
    Refused(Refusal),
    /// A timeout is set, but there is no Tokio runtime with its timer enabled to keep it.
    NoTimer,
}

impl<E> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source { attempts, .. } => {
                let plural = if *attempts == 1 { "" } else { "s" };
                write!(f, "the source failed, after {attempts} attempt{plural}")
            }
            Self::Guardrail(violation) => write!(f, "guardrail violation: {violation}"),
            Self::ZeroOutput => {
                f.write_str("the answer is empty: no text with a letter or digit, and no tool call")
            }
            Self::Truncated => f.write_str("the stream ended without a finish reason"),
            Self::Timeout(kind) => write!(f, "{kind} timeout"),
            Self::Aborted => f.write_str("Stream aborted"),
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            Self::NoTimer => f.write_str(
                "timeouts need a Tokio runtime with its timer enabled (`Builder::enable_time`)",
            ),
        }
    }
}

/// The source is the source's own error, or a [`Failure`] that says what this one means for a run
/// whose source is a run itself.
impl<E: StdError + 'static> StdError for Error<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        static TRUNCATED: Failure = Failure::network(NetworkErrorKind::PartialChunks);
        static TIMEOUT: Failure = Failure::network(NetworkErrorKind::Timeout);
        static ZERO_OUTPUT: Failure = Failure::model();
        static FATAL: Failure = Failure::fatal();

        Some(match self {
            Self::Source { source, .. } => source,
            Self::Truncated => &TRUNCATED,
            Self::Timeout(_) => &TIMEOUT,
            Self::ZeroOutput => &ZERO_OUTPUT,
            Self::Guardrail(_) | Self::Aborted | Self::Refused(_) | Self::NoTimer => &FATAL,
        })
    }
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
