//! Errors of requests through `genai`, and their meaning for a run.

use std::error::Error as StdError;
use std::fmt;
use std::str::Utf8Error;
use std::string::FromUtf8Error;

use genai::webc::{Error as WebError, StreamTimeout};
use l0_core::{Failure, FailureKind, NetworkErrorKind, redact};
use l0_providers::ApiError;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::json;

/// An error of a request through `genai`: the client's own error and its meaning.
///
/// The [`source()`](StdError::source) chain ends in a [`Failure`] or in the transport's error, from which `l0_core`
/// reads whether to retry. `Display` and `Debug` print no prompt, no answer and no body. Of a provider's error they
/// print the status. Its type, code and message may repeat a credential that only the client knows. They are in
/// [`api`](Self::api), and `{:#}` prints them. `genai`'s own error, which contains whole bodies and may contain the
/// request, is in [`get_ref`](Self::get_ref).
pub struct Error {
    error: Box<genai::Error>,
    read: Read,
}

/// The meaning of an error.
enum Read {
    /// Reported by the provider.
    Api(Box<ApiError>),
    /// Known by its type.
    Known(&'static str, Failure),
    /// The transport's error, which core reads.
    Transport,
}

const CUT: Failure = Failure::network(NetworkErrorKind::PartialChunks);

impl Error {
    /// Returns the error's meaning for a run.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match &self.read {
            Read::Api(error) => error.failure(),
            Read::Known(_, failure) => *failure,
            Read::Transport => transport(&self.error).map_or(Failure::fatal(), Failure::read),
        }
    }

    /// Returns the error that the provider reports; `None` for any other error.
    #[must_use]
    pub fn api(&self) -> Option<&ApiError> {
        match &self.read {
            Read::Api(error) => Some(error),
            Read::Known(..) | Read::Transport => None,
        }
    }

    /// Returns the client's own error. Its `Display` may print prompts, answers and bodies.
    #[must_use]
    pub fn get_ref(&self) -> &genai::Error {
        &self.error
    }

    /// Returns the client's own error.
    #[must_use]
    pub fn into_inner(self) -> genai::Error {
        *self.error
    }
}

impl From<genai::Error> for Error {
    fn from(error: genai::Error) -> Self {
        let error = without_url(error);
        let read = read(&error);
        let error = Box::new(error);
        Self { error, read }
    }
}

/// Removes the address from the transport's error, which would print it, including parts from a redirect.
fn without_url(error: genai::Error) -> genai::Error {
    use genai::Error as E;
    match error {
        E::WebModelCall {
            model_iden,
            webc_error: WebError::Reqwest(error),
        } => E::WebModelCall {
            model_iden,
            webc_error: WebError::Reqwest(error.without_url()),
        },
        E::WebStream {
            model_iden,
            cause,
            error,
        } => E::WebStream {
            model_iden,
            cause,
            error: match error.downcast::<reqwest::Error>() {
                Ok(error) => Box::new(error.without_url()),
                Err(error) => error,
            },
        },
        error => error,
    }
}

const NO_ANSWER: &str = "the response is not an answer of the API";

/// Returns an error with fixed words. If the kind of the failure has none, the words are its detail, so that every
/// export of the run says why it failed.
fn known(words: &'static str, mut failure: Failure) -> Read {
    if matches!(failure.kind, FailureKind::Fatal | FailureKind::Model) {
        failure.detail = failure.detail.or(Some(words));
    }
    Read::Known(words, failure)
}

fn read(error: &genai::Error) -> Read {
    use genai::Error as E;
    match error {
        E::HttpError {
            status,
            headers,
            body,
            ..
        } => api(*status, headers, body),
        E::WebModelCall { webc_error, .. } | E::WebAdapterCall { webc_error, .. } => {
            read_web(webc_error)
        }
        E::WebStream { error, .. } => read_boxed(&**error),
        // An object or a text. Anthropic sends its type and the request's id next to it.
        E::ChatResponse { body, .. } => {
            let body = json!({ "error": body }).to_string();
            Read::Api(Box::new(ApiError::read(None, [], &body)))
        }
        // Invalid JSON inside a whole event was corrupted in transit.
        E::StreamParse { .. } => known("an event of the answer is not valid JSON", CUT),
        E::NoChatResponse { .. } => known("the response has no answer", Failure::model()),
        E::ChatResponseGeneration { .. }
        | E::InvalidJsonResponseElement { .. }
        | E::JsonValueExt(_)
        | E::SerdeJson(_) => known(NO_ANSWER, Failure::fatal()),
        // The request is invalid, or the client is not configured for it.
        _ => known("the request was not sent", Failure::fatal()),
    }
}

fn read_web(error: &WebError) -> Read {
    match error {
        WebError::ResponseFailedStatus {
            status,
            headers,
            body,
        } => api(*status, headers, body),
        WebError::ResponseFailedInvalidJson { .. } => known("the answer is not valid JSON", CUT),
        WebError::ResponseFailedNotJson { .. } | WebError::JsonValueExt(_) => {
            known(NO_ANSWER, Failure::fatal())
        }
        WebError::Reqwest(_) => Read::Transport,
    }
}

/// Reads the error of a stream: a boxed error of the client or of a layer below it.
fn read_boxed(error: &(dyn StdError + 'static)) -> Read {
    if let Some(error) = error.downcast_ref() {
        read(error)
    } else if let Some(error) = error.downcast_ref() {
        read_web(error)
    } else if error.is::<FromUtf8Error>() || error.is::<Utf8Error>() {
        known("the answer is not UTF-8", CUT)
    } else if error.is::<StreamTimeout>() {
        let timeout = Failure::network(NetworkErrorKind::Timeout);
        known("a timeout of the client expired", timeout)
    } else {
        Read::Transport
    }
}

fn api(status: StatusCode, headers: &HeaderMap, body: &str) -> Read {
    let headers = headers.iter().filter_map(|(name, value)| {
        let value = value.to_str().ok()?;
        Some((name.as_str(), value))
    });
    let error = ApiError::read(Some(status.as_u16()), headers, body);
    Read::Api(Box::new(error))
}

/// Returns the transport's error inside the client's.
fn transport(error: &genai::Error) -> Option<&(dyn StdError + 'static)> {
    let web = match error {
        genai::Error::WebModelCall { webc_error, .. }
        | genai::Error::WebAdapterCall { webc_error, .. } => webc_error,
        genai::Error::WebStream { error, .. } => {
            let error: &(dyn StdError + 'static) = &**error;
            return match error.downcast_ref::<WebError>() {
                Some(WebError::Reqwest(error)) => Some(error),
                _ => Some(error),
            };
        }
        _ => return None,
    };
    match web {
        WebError::Reqwest(error) => Some(error),
        _ => None,
    }
}

/// Omits the text of the transport's error, which [`source()`](StdError::source) returns.
impl fmt::Display for Error {
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
            Read::Transport => f.write_str("the connection to the provider failed"),
        }
    }
}

/// Omits the client's own error.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        match &self.read {
            Read::Api(error) => debug.field("failure", &error.failure()),
            Read::Known(words, failure) => debug.field("what", words).field("failure", failure),
            Read::Transport => {
                debug.field("transport", &transport(&self.error).map(redact::message))
            }
        };
        debug.finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.read {
            Read::Api(error) => error.source(),
            Read::Known(_, failure) => Some(failure),
            Read::Transport => transport(&self.error),
        }
    }
}
