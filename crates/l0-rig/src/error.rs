//! How a request through `rig` fails, and what that means.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use l0_core::{Failure, FailureKind, NetworkErrorKind, redact};
use l0_providers::ApiError;
use rig_core::error::{ErrorKind, ErrorReport};
use rig_core::{ProviderError, ProviderResponseError, http_client};

/// Why a request through `rig` failed: the client's own error, and what was read from it.
///
/// `E` is the client's: [`ProviderError`], or of agents `PromptError`. The
/// [`source()`](StdError::source) chain ends in a [`Failure`], or in the transport's error, from which
/// `l0_core` reads whether to try again. No prompt, no answer and no body is in what `Display` and
/// `Debug` print: of a provider's error that is its status. Its type, its code and its message, which may
/// repeat a credential that only the client knows, are in [`api`](Self::api), and in what `{:#}` prints.
/// `rig`'s own error, which holds whole bodies, is in [`get_ref`](Self::get_ref).
pub struct Error<E = ProviderError> {
    error: Box<E>,
    read: Read,
}

/// What was read from an error.
pub(crate) enum Read {
    /// The provider reports it.
    Api(Box<ApiError>),
    /// It is known by its type.
    Known(&'static str, Failure),
    /// It is the transport's, from which core reads.
    Transport(Arc<http_client::Error>),
    /// The answer was cut.
    Truncated,
}

static CUT: Failure = Failure::network(NetworkErrorKind::PartialChunks);

impl<E> Error<E> {
    pub(crate) fn new(error: E, read: Read) -> Self {
        let error = Box::new(error);
        Self { error, read }
    }

    /// What the error means for a run.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match &self.read {
            Read::Api(error) => error.failure(),
            Read::Known(_, failure) => *failure,
            Read::Transport(error) => Failure::read(transport(error)),
            Read::Truncated => CUT,
        }
    }

    /// What the provider reports; `None` if it is not the provider that does.
    #[must_use]
    pub fn api(&self) -> Option<&ApiError> {
        match &self.read {
            Read::Api(error) => Some(error),
            _ => None,
        }
    }

    /// Returns the client's own error. What it displays may hold prompts, answers and bodies.
    #[must_use]
    pub fn get_ref(&self) -> &E {
        &self.error
    }

    /// Returns the client's own error.
    #[must_use]
    pub fn into_inner(self) -> E {
        *self.error
    }

    /// Whether the answer ended before the provider ended it.
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

pub(crate) fn read(error: &ProviderError) -> Read {
    use ProviderError as E;
    match error {
        E::Http(error) => match &**error {
            http_client::Error::Instance(_) => Read::Transport(Arc::clone(error)),
            http_client::Error::StreamEnded => {
                let dropped = Failure::network(NetworkErrorKind::ConnectionDropped);
                Read::Known("the connection to the provider failed", dropped)
            }
            // What it says is the provider's.
            http_client::Error::InvalidContentType(_) => {
                Read::Known("the response is no answer of the API", Failure::fatal())
            }
            _ => Read::Known(NOT_SENT, Failure::fatal()),
        },
        // Bytes that are no JSON inside of a whole event were mangled on the way.
        E::Json(_) => Read::Known("a part of the answer is no JSON", CUT),
        E::Truncated => Read::Truncated,
        E::ProviderResponse(response)
        | E::InvalidAuthentication(response)
        | E::CacheExpired { response, .. } => read_response(response),
        E::Relayed(report) => read_report(report),
        E::Response(_) => Read::Known("the answer does not fit the request", Failure::model()),
        E::Provider(_) => Read::Known("the provider reports an error", Failure::fatal()),
        E::MismatchedDimensions { .. } => {
            let words = "the vectors have another number of dimensions";
            Read::Known(words, Failure::fatal())
        }
        E::Url(_) | E::Request(_) | E::UnsupportedOption(_) => {
            Read::Known(NOT_SENT, Failure::fatal())
        }
        // Of a later version.
        error => read_report(&error.report()),
    }
}

fn read_response(response: &ProviderResponseError) -> Read {
    // An error in an answer of success has no status of its own.
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
        Read::Known("the provider refuses to answer", Failure::fatal())
    } else if knows_nothing && response.transient == Some(true) {
        Read::Known("the provider reports an error", Failure::server())
    } else {
        Read::Api(Box::new(error))
    }
}

/// What an agent relays of an error.
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
            let words = "the answer does not fit the request";
            return Read::Known(words, Failure::model());
        }
        ErrorKind::Http => (
            "the connection to the provider failed",
            Failure::network(NetworkErrorKind::ConnectionDropped),
        ),
        ErrorKind::Timeout => (
            "a timeout of the client expired",
            Failure::network(NetworkErrorKind::Timeout),
        ),
        ErrorKind::Json => ("a part of the answer is no JSON", CUT),
        ErrorKind::Url | ErrorKind::Request => (NOT_SENT, Failure::fatal()),
        _ => ("the agent failed", Failure::server()),
    };
    // Of a connection, the text is all that is left.
    let mut failure = Failure::read(report);
    if failure.kind == FailureKind::Fatal && (report.retryable || report.kind == ErrorKind::Json) {
        failure = otherwise;
    }
    Read::Known(words, failure)
}

/// The transport's error in the client's: what is below the HTTP client's own, which prints the address,
/// with what a redirect put there.
fn transport(error: &http_client::Error) -> &(dyn StdError + 'static) {
    match error {
        http_client::Error::Instance(error) => error.source().unwrap_or(&**error),
        error => error,
    }
}

/// Without the text of the transport's error, which [`source()`](StdError::source) gives.
impl<E> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.read {
            Read::Api(error) if f.alternate() => error.fmt(f),
            Read::Api(error) => {
                f.write_str("the provider reports an error")?;
                error
                    .status
                    .map_or(Ok(()), |status| write!(f, " (status {status})"))
            }
            Read::Known(words, _) => f.write_str(words),
            Read::Transport(_) => f.write_str("the connection to the provider failed"),
            Read::Truncated => f.write_str("the answer was cut"),
        }
    }
}

/// Without the client's own error.
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
