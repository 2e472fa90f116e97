//! Errors of requests.

use std::error::Error as StdError;
use std::fmt;

use async_openai::error::OpenAIError;
use l0_core::{Failure, NetworkErrorKind, redact};
use l0_providers::ApiError;

/// An error of a request of the client, or of its stream.
///
/// The [`source()`](StdError::source) chain ends in a [`Failure`], from which `l0_core` reads whether to retry. For an
/// error of `reqwest` or of a middleware, it is the chain of that error. `Display` and `Debug` print no prompt, no
/// answer and no body. Of a provider's error they print the status. Its type, code and message may repeat a credential
/// that only the client knows. They are in [`Api`](Self::Api), and `{:#}` prints them, as well as the text of a client
/// error.
#[non_exhaustive]
pub enum Error {
    /// The provider answered with an error, instead of the answer or in the middle of it. Has the status, type, code
    /// and message, and the delay that the provider asks for.
    Api(Box<ApiError>),
    /// A successful response is a web page, or JSON instead of a stream. Fatal.
    NotAnAnswer,
    /// An error of the client itself: it could not send the request, the connection failed, or the client could not
    /// read the response.
    ///
    /// Invalid JSON is read as a network failure of type `partial_chunks`, and so is a stream that breaks off. Valid
    /// JSON that the client cannot read is fatal.
    Client(OpenAIError),
}

// Invalid JSON was cut or corrupted in transit. For a stream that breaks off, the client keeps no reason.
static BROKEN: Failure = Failure::network(NetworkErrorKind::PartialChunks);
static REJECTED: Failure = Failure::fatal().detail("the client rejected the request");
static FAILED: Failure = Failure::fatal().detail("the client failed");
static NOT_AN_ANSWER: Failure = Failure::fatal().detail("the response is not an answer of the API");
static UNREADABLE: Failure = Failure::fatal().detail("async-openai cannot read the answer");

/// An error response, as read by the client's service. It passes through the client.
#[derive(Debug)]
pub(crate) enum RejectedResponse {
    Api(ApiError),
    NotAnAnswer,
}

impl fmt::Display for RejectedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(error) => write_api(error, f),
            Self::NotAnAnswer => Error::NotAnAnswer.fmt(f),
        }
    }
}

/// Writes the parts that cannot contain a credential.
fn write_api(error: &ApiError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("the provider reports an error")?;
    let status = error.status();
    status.map_or(Ok(()), |status| write!(f, " (status {status})"))
}

impl StdError for RejectedResponse {}

impl Error {
    /// Returns the error's meaning for a run. For an error of `reqwest` or of a middleware, it is [`Failure::read`] of
    /// that error.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let known = self.failure_ref().copied();
        known.unwrap_or_else(|| Failure::read(self))
    }

    /// Returns the error that the provider reports; `None` for any other error.
    #[must_use]
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(error) => Some(error),
            Self::NotAnAnswer | Self::Client(_) => None,
        }
    }

    fn failure_ref(&self) -> Option<&Failure> {
        match self {
            Self::Api(error) => error.source()?.downcast_ref(),
            Self::NotAnAnswer => Some(&NOT_AN_ANSWER),
            Self::Client(OpenAIError::Reqwest(_) | OpenAIError::Boxed(_)) => None,
            Self::Client(OpenAIError::StreamError(_)) => Some(&BROKEN),
            Self::Client(OpenAIError::JSONDeserialize(error, _)) => Some(if error.is_data() {
                &UNREADABLE
            } else {
                &BROKEN
            }),
            Self::Client(OpenAIError::InvalidArgument(_)) => Some(&REJECTED),
            Self::Client(_) => Some(&FAILED),
        }
    }
}

/// Converts an error of the client. An error that the provider reports becomes an [`Error::Api`], wherever the client
/// put it.
impl From<OpenAIError> for Error {
    fn from(error: OpenAIError) -> Self {
        let api = match error {
            OpenAIError::Boxed(error) => match error.downcast::<RejectedResponse>() {
                Ok(refused) => match *refused {
                    RejectedResponse::Api(error) => Ok(error),
                    RejectedResponse::NotAnAnswer => return Self::NotAnAnswer,
                },
                Err(error) => Err(OpenAIError::Boxed(error)),
            },
            // From your own middleware.
            OpenAIError::ApiError(error) => {
                let json = serde_json::json!({ "error": &error.api_error }).to_string();
                ApiError::from_json(&json, Some(error.status_code.as_u16()))
                    .ok_or(OpenAIError::ApiError(error))
            }
            // The client does not detect errors in the middle of a stream.
            OpenAIError::JSONDeserialize(error, json) => {
                ApiError::from_json(&json, None).ok_or(OpenAIError::JSONDeserialize(error, json))
            }
            // The URL may contain a key.
            OpenAIError::Reqwest(error) => Err(OpenAIError::Reqwest(error.without_url())),
            error => Err(error),
        };
        match api {
            Ok(error) => Self::Api(Box::new(error)),
            Err(error) => Self::Client(error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (words, error) = match self {
            Self::Api(error) if f.alternate() => return error.fmt(f),
            Self::Api(error) => return write_api(error, f),
            Self::NotAnAnswer => return f.write_str("the response is not an answer of the API"),
            Self::Client(error) => match error {
                // Its own chain has the details.
                OpenAIError::Reqwest(_) => {
                    return f.write_str("the connection to the provider failed");
                }
                OpenAIError::Boxed(_) => return f.write_str("a middleware of the client failed"),
                OpenAIError::JSONDeserialize(..) => ("the client could not read the answer", error),
                OpenAIError::StreamError(_) => ("the stream broke", error),
                OpenAIError::InvalidArgument(_) => ("the client rejected the request", error),
                _ => ("the client failed", error),
            },
        };
        f.write_str(words)?;
        if f.alternate() {
            write!(f, ": {error}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(error) => f.debug_tuple("Api").field(&error.failure()).finish(),
            Self::NotAnAnswer => f.write_str("NotAnAnswer"),
            Self::Client(_) => f
                .debug_tuple("Client")
                .field(&redact::message(self))
                .finish(),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Client(OpenAIError::Reqwest(error)) => Some(error),
            Self::Client(OpenAIError::Boxed(error)) => Some(&**error),
            _ => self.failure_ref().map(|failure| failure as _),
        }
    }
}
