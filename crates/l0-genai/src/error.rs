//! How a request through `genai` fails, and what that means.

use std::error::Error as StdError;
use std::fmt;
use std::str::Utf8Error;
use std::string::FromUtf8Error;

use genai::webc::{Error as WebError, StreamTimeout};
use l0_core::{Failure, NetworkErrorKind, redact};
use l0_providers::ApiError;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::json;

/// Why a request through `genai` failed: the client's own error, and what was read from it.
///
/// The [`source()`](StdError::source) chain ends in a [`Failure`], or in the transport's error, from
/// which `l0_core` reads whether to try again. No prompt, no answer and no body is in what `Display` and
/// `Debug` print: of a provider's error that is its status. Its type, its code and its message, which may
/// repeat a credential that only the client knows, are in [`api`](Self::api), and in what `{:#}` prints.
/// `genai`'s own error, which holds whole bodies and may hold the request, is in
/// [`get_ref`](Self::get_ref).
pub struct Error {
    error: Box<genai::Error>,
    read: Read,
}

/// What was read from an error.
enum Read {
    /// The provider reports it.
    Api(Box<ApiError>),
    /// It is known by its type.
    Known(&'static str, Failure),
    /// It is the transport's, from which core reads.
    Transport,
}

const CUT: Failure = Failure::network(NetworkErrorKind::PartialChunks);

impl Error {
    /// What the error means for a run.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match &self.read {
            Read::Api(error) => error.failure(),
            Read::Known(_, failure) => *failure,
            Read::Transport => transport(&self.error).map_or(Failure::fatal(), Failure::read),
        }
    }

    /// What the provider reports; `None` if it is not the provider that does.
    #[must_use]
    pub fn api(&self) -> Option<&ApiError> {
        match &self.read {
            Read::Api(error) => Some(error),
            Read::Known(..) | Read::Transport => None,
        }
    }

    /// Returns the client's own error. What it displays may hold prompts, answers and bodies.
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

/// Takes the address out of the transport's error, which would print it, with what a redirect put there.
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

fn read(error: &genai::Error) -> Read {
    use genai::Error as E;
    const NO_ANSWER: &str = "the response is no answer of the API";
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
        // An object, or a text; beside Anthropic's, its type and the request's id.
        E::ChatResponse { body, .. } => {
            let body = json!({ "error": body }).to_string();
            Read::Api(Box::new(ApiError::read(None, [], &body)))
        }
        // Bytes that are no JSON inside of a whole event were mangled on the way.
        E::StreamParse { .. } => Read::Known("an event of the answer is no JSON", CUT),
        E::NoChatResponse { .. } => Read::Known("the response has no answer", Failure::model()),
        E::ChatResponseGeneration { .. }
        | E::InvalidJsonResponseElement { .. }
        | E::JsonValueExt(_)
        | E::SerdeJson(_) => Read::Known(NO_ANSWER, Failure::fatal()),
        // The request is at fault, or what the client was built with.
        _ => Read::Known("the request was not sent", Failure::fatal()),
    }
}

fn read_web(error: &WebError) -> Read {
    match error {
        WebError::ResponseFailedStatus {
            status,
            headers,
            body,
        } => api(*status, headers, body),
        WebError::ResponseFailedInvalidJson { .. } => Read::Known("the answer is no JSON", CUT),
        WebError::ResponseFailedNotJson { .. } | WebError::JsonValueExt(_) => {
            Read::Known("the response is no answer of the API", Failure::fatal())
        }
        WebError::Reqwest(_) => Read::Transport,
    }
}

/// What a stream fails with: the client's own errors, in a box, or those of what is below it.
fn read_boxed(error: &(dyn StdError + 'static)) -> Read {
    if let Some(error) = error.downcast_ref() {
        read(error)
    } else if let Some(error) = error.downcast_ref() {
        read_web(error)
    } else if error.is::<FromUtf8Error>() || error.is::<Utf8Error>() {
        Read::Known("the answer is no UTF-8", CUT)
    } else if error.is::<StreamTimeout>() {
        let timeout = Failure::network(NetworkErrorKind::Timeout);
        Read::Known("a timeout of the client expired", timeout)
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

/// The transport's error in the client's.
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

/// Without the text of the transport's error, which [`source()`](StdError::source) gives.
impl fmt::Display for Error {
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
            Read::Transport => f.write_str("the connection to the provider failed"),
        }
    }
}

/// Without the client's own error.
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
