//! Error: why a run failed, including the source's own error.

use std::error::Error as StdError;
use std::fmt;

use crate::end::{Cause, End, LimitKind, TimeoutKind};
use crate::failure::{Beginning, Failure, NetworkErrorKind};
use crate::redact;
use crate::verdict::{Outcome, Violation};

/// The bounds on a source's error type: a standard error that can cross threads.
///
/// Implemented for every such type. You never implement it manually.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a source's error type",
    label = "not a `std::error::Error + Send + Sync + 'static`",
    note = "for `anyhow::Error`, `Box<dyn Error + Send + Sync>` or `String`, first convert the errors of connecting and of the items: `.map_err(std::io::Error::other)`"
)]
pub trait SourceError: StdError + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<E: StdError + Send + Sync + 'static> SourceError for E {}

/// Why a run failed: the last item of a stream that did not complete.
///
/// The stream ends after it, and telemetry and outcome are final. `Display` and `Debug` print what is
/// known of the failure, never the source's own words. Those are available through
/// [`source()`](StdError::source).
#[non_exhaustive]
pub enum Error<E> {
    /// The source failed, and the error was not retried or the retries were used up.
    #[non_exhaustive]
    Source {
        /// The source's own error, from the last attempt.
        source: E,
        /// The classification read from it.
        failure: Failure,
        /// The number of attempts made.
        attempts: u32,
    },
    /// A rule stopped the run. The violating item is withheld.
    Guardrail(Violation),
    /// The answer has no visible text, no media and no tool call, the provider gave no reason for it,
    /// and all retries failed.
    ZeroOutput,
    /// The source ended without its usual finish reason, after all retries.
    Truncated,
    /// A timeout of the run expired, after all retries.
    Timeout(TimeoutKind),
    /// A limit of the run was reached.
    Limit(LimitKind),
    /// The run was stopped through its handle or by one of its `until` futures.
    Aborted,
    /// An interceptor refused the run, or its budget was spent. The source was never called.
    Refused(Refusal),
    /// The run has to wait, but no Tokio runtime with its timer enabled is running.
    NoTimer,
    /// The run had already ended. [`Run::text`](crate::Run::text) returns this for a run that did not
    /// complete, and so does a call that is awaited again.
    Ended(End),
}

/// No text appears twice in an error's chain: a text that another link already has is omitted or
/// reworded here.
impl<E: StdError + 'static> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source {
                source,
                failure,
                attempts,
            } => {
                let links = links(source);
                f.write_str("the source")?;
                // The source can be a run itself.
                match links.iter().filter(|link| is_of_run(link)).count() {
                    0 => {}
                    1 => f.write_str(", 1 run deep,")?,
                    depth => write!(f, ", {depth} runs deep,")?,
                }
                let plural = if *attempts == 1 { "" } else { "s" };
                write!(f, " failed after {attempts} attempt{plural}")?;
                let words = failure.describe();
                if words.is_empty() {
                    return Ok(());
                }
                let known = [words, failure.error_type().into_owned()];
                match known.iter().find(|known| !repeats(known, &links)) {
                    Some(known) => write!(f, " ({known})"),
                    None => Ok(()),
                }
            }
            Self::Refused(refusal) => write!(f, "refused: {}", redact::text(&refusal.message)),
            Self::Ended(end) => {
                write!(f, "the run had ended as {}", end.outcome())?;
                let links = self.source().map(links).unwrap_or_default();
                match end.message().filter(|message| !repeats(message, &links)) {
                    Some(message) => write!(f, ": {message}"),
                    None => Ok(()),
                }
            }
            Self::Guardrail(violation) => write!(f, "guardrail violation: {violation}"),
            Self::ZeroOutput => Cause::ZeroOutput.fmt(f),
            Self::Truncated => Cause::Truncated.fmt(f),
            Self::Timeout(kind) => Cause::Timeout(*kind).fmt(f),
            Self::Limit(kind) => Cause::Limit(*kind).fmt(f),
            Self::Aborted => Cause::Aborted.fmt(f),
            Self::NoTimer => Cause::NoTimer.fmt(f),
        }
    }
}

/// Omits the source's own error, which can contain a prompt or a key.
impl<E> fmt::Debug for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source {
                failure, attempts, ..
            } => f
                .debug_struct("Source")
                .field("failure", failure)
                .field("attempts", attempts)
                .finish_non_exhaustive(),
            Self::Guardrail(violation) => f.debug_tuple("Guardrail").field(violation).finish(),
            Self::ZeroOutput => f.write_str("ZeroOutput"),
            Self::Truncated => f.write_str("Truncated"),
            Self::Timeout(kind) => f.debug_tuple("Timeout").field(kind).finish(),
            Self::Limit(kind) => f.debug_tuple("Limit").field(kind).finish(),
            Self::Aborted => f.write_str("Aborted"),
            Self::Refused(refusal) => f
                .debug_tuple("Refused")
                .field(&redact::text(&refusal.message))
                .finish(),
            Self::NoTimer => f.write_str("NoTimer"),
            Self::Ended(end) => f.debug_tuple("Ended").field(end).finish(),
        }
    }
}

/// Returns the beginnings of the texts of an error and its source chain, in lower case.
fn links(error: &(dyn StdError + 'static)) -> Vec<String> {
    // A chain that leads back to itself would never end.
    const MAX: usize = 32;
    let chain = std::iter::successors(Some(error), |link| (*link).source());
    let texts = chain.take(MAX).map(|link| Beginning::of(link).into_text());
    texts.map(|text| text.to_lowercase()).collect()
}

/// Returns `true` if a link is the text of an [`Error::Source`].
fn is_of_run(link: &str) -> bool {
    link.contains("the source failed after ") || link.contains(" deep, failed after ")
}

/// Returns `true` if the text contains a whole link.
fn repeats(text: &str, links: &[String]) -> bool {
    let text = text.to_lowercase();
    let said = |link: &String| !link.is_empty() && text.contains(&**link);
    links.iter().any(said)
}

/// Returns the source's own error, or a [`Failure`] that tells an outer run how to treat this one.
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
            Self::Guardrail(_)
            | Self::Limit(_)
            | Self::Aborted
            | Self::Refused(_)
            | Self::NoTimer
            | Self::Ended(_) => &FATAL,
        })
    }
}

impl<E> Error<E> {
    /// Returns the outcome of a run that fails with this error.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Truncated => Outcome::Truncated,
            Self::Timeout(_) => Outcome::TimedOut,
            Self::Limit(_) => Outcome::Limited,
            Self::Aborted => Outcome::Aborted,
            Self::Ended(end) => end.outcome(),
            Self::Source { .. }
            | Self::Guardrail(_)
            | Self::ZeroOutput
            | Self::Refused(_)
            | Self::NoTimer => Outcome::Failed,
        }
    }

    /// Returns the source's own error, or `None` if the source did not fail.
    #[must_use]
    pub fn into_source(self) -> Option<E> {
        match self {
            Self::Source { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl<E: StdError + 'static> Error<E> {
    /// Returns the end of a run that fails with this error, with a message in L0's own words.
    #[must_use]
    pub fn end(&self) -> End {
        End::of(match self {
            Self::Source {
                source, failure, ..
            } => return End::of_source(*failure, &redact::message_of(source, failure)),
            Self::Refused(refusal) => return End::refused(&refusal.message),
            Self::Ended(end) => return end.clone(),
            Self::Guardrail(violation) => Cause::Violation(violation.clone()),
            Self::ZeroOutput => Cause::ZeroOutput,
            Self::Truncated => Cause::Truncated,
            Self::Timeout(kind) => Cause::Timeout(*kind),
            Self::Limit(kind) => Cause::Limit(*kind),
            Self::Aborted => Cause::Aborted,
            Self::NoTimer => Cause::NoTimer,
        })
    }
}

/// Why an interceptor's [`before`](crate::Interceptor::before), or a [budget](crate::Budget), refused a
/// run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The reason, for the caller. Observers receive it redacted, like every message.
    pub message: String,
}

impl Refusal {
    /// Creates a refusal with a reason.
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
