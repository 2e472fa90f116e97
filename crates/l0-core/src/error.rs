//! Error: how a run fails, with the source's own error.

use std::error::Error as StdError;
use std::fmt;

use crate::end::{Cause, End, LimitKind, TimeoutKind};
use crate::failure::{Beginning, Failure, NetworkErrorKind};
use crate::redact;
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
/// After it the stream is at its end, and telemetry and outcome are final. It displays what is known
/// of the failure, and never the source's own words: those are in [`source()`](StdError::source).
/// `Debug` keeps to that, too.
#[non_exhaustive]
pub enum Error<E> {
    /// The source failed, and was not, or not once more, retried.
    #[non_exhaustive]
    Source {
        /// The source's own error, from the last attempt.
        source: E,
        /// What was read from it.
        failure: Failure,
        /// How many attempts were made.
        attempts: u32,
    },
    /// A rule stopped the run; the item at fault is withheld.
    Guardrail(Violation),
    /// The answer has no visible text, no media and no tool call, for no reason that the provider
    /// gave, after all retries.
    ZeroOutput,
    /// The source ended without the finish reason that it always sends, after all retries.
    Truncated,
    /// A timeout of the run expired, after all retries.
    Timeout(TimeoutKind),
    /// A limit of the run was reached.
    Limit(LimitKind),
    /// The run was stopped through its handle or by one of its `until` futures.
    Aborted,
    /// An interceptor refused the run, or its budget was spent; the source was never called.
    Refused(Refusal),
    /// The run has to wait, but there is no Tokio runtime with its timer enabled to wait with.
    NoTimer,
    /// The run had ended before, so: what [`Run::text`](crate::Run::text) gives of a run that did not
    /// complete.
    Ended(End),
}

/// No text stands twice in an error's chain: what another link says already is left out here, or said in
/// another word.
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
                // The source may be a run itself.
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

/// Without the source's own error, which may hold a prompt or a key.
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

/// The beginnings of the texts of an error and of its source chain, in lower case.
fn links(error: &(dyn StdError + 'static)) -> Vec<String> {
    // A chain that leads back to itself would have no end.
    const MAX: usize = 32;
    let chain = std::iter::successors(Some(error), |link| (*link).source());
    let texts = chain.take(MAX).map(|link| Beginning::of(link).into_text());
    texts.map(|text| text.to_lowercase()).collect()
}

/// Whether a link holds the text of an [`Error::Source`].
fn is_of_run(link: &str) -> bool {
    link.contains("the source failed after ") || link.contains(" deep, failed after ")
}

/// Whether the text holds all that a link says.
fn repeats(text: &str, links: &[String]) -> bool {
    let text = text.to_lowercase();
    let said = |link: &String| !link.is_empty() && text.contains(&**link);
    links.iter().any(said)
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
    /// Returns how a run that fails with this error ended.
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

    /// Returns the source's own error, if that is what failed.
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
    /// The reason, for the caller. It reaches observers redacted, like every message.
    pub message: String,
}

impl Refusal {
    /// Creates a refusal for this reason.
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
