//! Errors of requests through `rig`, and their meaning for a run.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use l0_core::{Failure, FailureKind, NetworkErrorKind, redact};
use l0_providers::ApiError;
use rig_core::error::{ErrorKind, ErrorReport};
use rig_core::{ProviderError, ProviderResponseError, http_client};

/// An error of a request through `rig`: the client's own error and its meaning.
///
/// `E` is the client's error: [`ProviderError`], or `PromptError` for agents. The [`source()`](StdError::source) chain
/// ends in a [`Failure`] or in the transport's error, from which `l0_core` reads whether to retry. `Display` and
/// `Debug` print no prompt, no answer and no body. Of a provider's error they print the status. Its type, code and
/// message may repeat a credential that only the client knows. They are in [`api`](Self::api), and `{:#}` prints them.
/// `rig`'s own error, which contains whole bodies, is in [`get_ref`](Self::get_ref).
pub struct Error<E = ProviderError> {
    error: Box<E>,
    read: Read,
}

/// The meaning of an error.
pub(crate) enum Read {
    /// Reported by the provider.
    Api(Box<ApiError>),
    /// Known by its type.
    Known(&'static str, Failure),
    /// The transport's error, which core reads.
    Transport(Arc<http_client::Error>),
    /// The answer was truncated.
    Truncated,
}

static CUT: Failure = Failure::network(NetworkErrorKind::PartialChunks);

impl<E> Error<E> {
    pub(crate) fn new(error: E, read: Read) -> Self {
        let error = Box::new(error);
        Self { error, read }
    }

    /// Returns the error's meaning for a run.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match &self.read {
            Read::Api(error) => error.failure(),
            Read::Known(_, failure) => *failure,
            Read::Transport(error) => Failure::read(transport(error)),
            Read::Truncated => CUT,
        }
    }

    /// Returns the error that the provider reports; `None` for any other error.
    #[must_use]
    pub fn api(&self) -> Option<&ApiError> {
        match &self.read {
            Read::Api(error) => Some(error),
            _ => None,
        }
    }

    /// Returns the client's own error. Its `Display` may print prompts, answers and bodies.
    #[must_use]
    pub fn get_ref(&self) -> &E {
        &self.error
    }

    /// Returns the client's own error.
    #[must_use]
    pub fn into_inner(self) -> E {
        *self.error
    }

    /// Returns `true` if the answer ended before the provider ended it.
    pub(crate) fn is_truncated(&self) -> bool {
        matches!(self.read, Read::Truncated)
    }
}

impl From<ProviderError> for Error {
    fn from(error: ProviderError) -> Self {
        let read = read(&error);
        Self::new(error, read)
    }
}

const NOT_SENT: &str = "the request was not sent";

const NO_ANSWER: &str = "the response is not an answer of the API";

/// Returns an error with fixed words. If the kind of the failure has none, the words are its detail, so that every
/// export of the run says why it failed.
pub(crate) fn known(words: &'static str, mut failure: Failure) -> Read {
    if matches!(failure.kind, FailureKind::Fatal | FailureKind::Model) {
        failure.detail = failure.detail.or(Some(words));
    }
    Read::Known(words, failure)
}

pub(crate) fn read(error: &ProviderError) -> Read {
    use ProviderError as E;
    match error {
        E::Http(error) => match &**error {
            http_client::Error::Instance(_) => Read::Transport(Arc::clone(error)),
            http_client::Error::StreamEnded => {
                let dropped = Failure::network(NetworkErrorKind::ConnectionDropped);
                known("the connection to the provider failed", dropped)
            }
            // Its text is the provider's.
            http_client::Error::InvalidContentType(_) => known(NO_ANSWER, Failure::fatal()),
            _ => known(NOT_SENT, Failure::fatal()),
        },
        // Invalid JSON inside a whole event was corrupted in transit.
        E::Json(_) => known("a part of the answer is not valid JSON", CUT),
        E::Truncated => Read::Truncated,
        E::ProviderResponse(response)
        | E::InvalidAuthentication(response)
        | E::CacheExpired { response, .. } => read_response(response),
        E::Relayed(report) => read_report(report),
        E::Response(_) => known("the answer does not match the request", Failure::model()),
        E::Provider(_) => known("the provider reports an error", Failure::fatal()),
        E::MismatchedDimensions { .. } => {
            let words = "the vectors have an unexpected number of dimensions";
            known(words, Failure::fatal())
        }
        E::Url(_) | E::Request(_) | E::UnsupportedOption(_) => known(NOT_SENT, Failure::fatal()),
        // Variants of later versions.
        error => read_report(&error.report()),
    }
}

fn read_response(response: &ProviderResponseError) -> Read {
    // An error in a successful response has no status of its own.
    let status = response.status.filter(|status| !status.is_success());
    let headers = response.headers.iter().flat_map(|headers| headers.iter());
    let headers = headers.filter_map(|(name, value)| {
        let value = value.to_str().ok()?;
        Some((name.as_str(), value))
    });
    let status = status.map(|status| status.as_u16());
    let error = ApiError::read(status, headers, &response.body);
    let knows_nothing = status.is_none() && error.failure() == Failure::fatal();
    if response.refusal {
        known("the provider refuses to answer", Failure::fatal())
    } else if knows_nothing && response.transient == Some(true) {
        known("the provider reports an error", Failure::server())
    } else {
        Read::Api(Box::new(error))
    }
}

/// Reads an error that an agent relays.
pub(crate) fn read_report(report: &ErrorReport) -> Read {
    if let Some(response) = &report.provider_response {
        return read_response(response);
    }
    let (words, otherwise) = match report.kind {
        // The client has no other mark for it.
        ErrorKind::Response if report.message == ProviderError::Truncated.to_string() => {
            return Read::Truncated;
        }
        ErrorKind::Response => {
            let words = "the answer does not match the request";
            return known(words, Failure::model());
        }
        ErrorKind::Http => (
            "the connection to the provider failed",
            Failure::network(NetworkErrorKind::ConnectionDropped),
        ),
        ErrorKind::Timeout => (
            "a timeout of the client expired",
            Failure::network(NetworkErrorKind::Timeout),
        ),
        ErrorKind::Json => ("a part of the answer is not valid JSON", CUT),
        ErrorKind::Url | ErrorKind::Request => (NOT_SENT, Failure::fatal()),
        _ => ("the agent failed", Failure::server()),
    };
    // Only the text is left of a connection error.
    let mut failure = Failure::read(report);
    if failure.kind == FailureKind::Fatal && (report.retryable || report.kind == ErrorKind::Json) {
        failure = otherwise;
    }
    known(words, failure)
}

/// Returns the transport's error inside the client's: the one below the HTTP client's own error, which prints the
/// address, including parts from a redirect.
fn transport(error: &http_client::Error) -> &(dyn StdError + 'static) {
    match error {
        http_client::Error::Instance(error) => error.source().unwrap_or(&**error),
        error => error,
    }
}

/// Omits the text of the transport's error, which [`source()`](StdError::source) returns.
impl<E> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.read {
            Read::Api(error) if f.alternate() => error.fmt(f),
            Read::Api(error) => {
                f.write_str("the provider reports an error")?;
                error
                    .status()
                    .map_or(Ok(()), |status| write!(f, " (status {status})"))
            }
            Read::Known(words, _) => f.write_str(words),
            Read::Transport(_) => f.write_str("the connection to the provider failed"),
            Read::Truncated => f.write_str("the answer was truncated"),
        }
    }
}

/// Omits the client's own error.
impl<E> fmt::Debug for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        match &self.read {
            Read::Api(error) => debug.field("failure", &error.failure()),
            Read::Known(words, failure) => debug.field("what", words).field("failure", failure),
            Read::Transport(error) => debug.field("transport", &redact::message(transport(error))),
            Read::Truncated => debug.field("failure", &CUT),
        };
        debug.finish_non_exhaustive()
    }
}

impl<E> StdError for Error<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.read {
            Read::Api(error) => error.source(),
            Read::Known(_, failure) => Some(failure),
            Read::Transport(error) => Some(transport(error)),
            Read::Truncated => Some(&CUT),
        }
    }
}
