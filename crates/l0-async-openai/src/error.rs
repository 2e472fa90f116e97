//! How a request fails.

use std::error::Error as StdError;
use std::fmt;

use async_openai::error::OpenAIError;
use l0_core::{Failure, NetworkErrorKind, redact};
use l0_providers::ApiError;

/// Why a request of the client failed, or the stream that it gave.
///
/// The [`source()`](StdError::source) chain ends in a [`Failure`], from which `l0_core` reads whether to
/// try again; for an error of `reqwest` or of a middleware it is that error's own chain. No prompt, no
/// answer and no body is in what `Display` and `Debug` print: of a provider's error that is its status. Its
/// type, its code and its message, which may repeat a credential that only the client knows, are in
/// [`Api`](Self::Api), and in what `{:#}` prints, as is what the client said.
#[non_exhaustive]
pub enum Error {
    /// The provider answered with an error, in place of the answer or in the middle of it. Its status,
    /// type, code and message are in it, and how long it asks to wait.
    Api(Box<ApiError>),
    /// A successful response is a web page, or JSON in place of a stream. Fatal.
    NotAnAnswer,
    /// An error of the client itself: it could not send the request, the connection failed, or the
    /// client could not read what came.
    ///
    /// What is no JSON is read as a network failure of type `partial_chunks`, and so is a stream that
    /// breaks; JSON that the client has no type for is fatal.
    Client(OpenAIError),
}

// What is no JSON was cut or mangled on the way, and of a stream that breaks, the client keeps no more
// than that it broke.
static BROKEN: Failure = Failure::network(NetworkErrorKind::PartialChunks);
static FATAL: Failure = Failure::fatal();
static UNREADABLE: Failure = Failure::fatal().detail("async-openai cannot read the answer");

/// What the client's own service made of a response that is no answer. It passes through the client.
#[derive(Debug)]
pub(crate) enum Refused {
    Api(ApiError),
    NotAnAnswer,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(error) => write_api(error, f),
            Self::NotAnAnswer => Error::NotAnAnswer.fmt(f),
        }
    }
}

/// Writes what no provider can put a credential into.
fn write_api(error: &ApiError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("the provider reports an error")?;
    let status = error.status;
    status.map_or(Ok(()), |status| write!(f, " (status {status})"))
}

impl StdError for Refused {}

impl Error {
    /// Returns what the error means for a run; `None` if only the error of `reqwest` or of a middleware
    /// tells.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.failure_ref().copied()
    }

    fn failure_ref(&self) -> Option<&Failure> {
        match self {
            Self::Api(error) => error.source()?.downcast_ref(),
            Self::NotAnAnswer => Some(&FATAL),
            Self::Client(OpenAIError::Reqwest(_) | OpenAIError::Boxed(_)) => None,
            Self::Client(OpenAIError::StreamError(_)) => Some(&BROKEN),
            Self::Client(OpenAIError::JSONDeserialize(error, _)) => Some(if error.is_data() {
                &UNREADABLE
            } else {
                &BROKEN
            }),
            Self::Client(_) => Some(&FATAL),
        }
    }
}

/// Reads an error that the client gave away: one that the provider reports becomes an
/// [`Error::Api`], wherever the client has put it.
impl From<OpenAIError> for Error {
    fn from(error: OpenAIError) -> Self {
        let api = match error {
            OpenAIError::Boxed(error) => match error.downcast::<Refused>() {
                Ok(refused) => match *refused {
                    Refused::Api(error) => Ok(error),
                    Refused::NotAnAnswer => return Self::NotAnAnswer,
                },
                Err(error) => Err(OpenAIError::Boxed(error)),
            },
            // From an application's own middleware.
            OpenAIError::ApiError(error) => {
                let json = serde_json::json!({ "error": &error.api_error }).to_string();
                ApiError::from_json(&json, Some(error.status_code.as_u16()))
                    .ok_or(OpenAIError::ApiError(error))
            }
            // The client looks for no error in the middle of a stream.
            OpenAIError::JSONDeserialize(error, json) => {
                ApiError::from_json(&json, None).ok_or(OpenAIError::JSONDeserialize(error, json))
            }
            // It may have a key in it.
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
            Self::NotAnAnswer => return f.write_str("the response is no answer of the API"),
            Self::Client(error) => match error {
                // Its own chain says the rest.
                OpenAIError::Reqwest(_) => {
                    return f.write_str("the connection to the provider failed");
                }
                OpenAIError::Boxed(_) => return f.write_str("a middleware of the client failed"),
                OpenAIError::JSONDeserialize(..) => ("the client could not read the answer", error),
                OpenAIError::StreamError(_) => ("the stream broke", error),
                OpenAIError::InvalidArgument(_) => ("the client refused the request", error),
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
