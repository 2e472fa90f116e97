//! Answers of a scripted provider.

use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::StatusCode;
use l0_core::{FinishReason, Usage};
use serde_json::Value;

/// One answer of a [`ScriptedProvider`](super::ScriptedProvider), in the format of the API that is called.
///
/// It is a stream, unless it has a [`body`](Self::body) or a [`status`](Self::status) that is not a success, or is one
/// of [`embeddings`](Self::embeddings). Steps run in the order in which they are added. After the last one, the stream
/// ends as the API's streams do: with a finish reason, the token counts and its end mark. The steps
/// [`error`](Self::error), [`end`](Self::end), [`cut`](Self::cut) and [`hang`](Self::hang) end it in other ways; later
/// steps never run.
///
/// A request that does not stream gets the same answer whole, as JSON: after all of its waits, and without
/// [`raw`](Self::raw) bytes. [`error`](Self::error) is then the status of the response. [`end`](Self::end),
/// [`cut`](Self::cut) and [`hang`](Self::hang) send only half of the JSON.
#[derive(Debug, Clone)]
#[must_use]
pub struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) connect: Vec<Connect>,
    pub(super) steps: Vec<Step>,
    pub(super) usage: Option<Usage>,
    pub(super) finish: Option<FinishReason>,
    pub(super) message: Option<String>,
    /// The vectors of an answer to a request for embeddings.
    pub(super) vectors: Option<Vec<Vec<f32>>>,
    /// The content type and the body, sent unchanged.
    pub(super) body: Option<(HeaderValue, Bytes)>,
}

/// A step before the status is sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Connect {
    Wait(Duration),
    Hang,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Text(String),
    Reasoning(String),
    Call {
        id: String,
        name: String,
        pieces: Vec<String>,
    },
    Raw(Bytes),
    Wait(Duration),
    Error(StatusCode, String),
    End,
    Cut,
    Hang,
}

impl Answer {
    /// Creates a stream without text.
    pub fn new() -> Self {
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            connect: Vec::new(),
            steps: Vec::new(),
            usage: None,
            finish: None,
            message: None,
            vectors: None,
            body: None,
        }
    }

    /// Creates a stream of these pieces of text, one token each.
    pub fn text<I>(tokens: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self::new().tokens(tokens)
    }

    /// Creates an answer to a request for embeddings: one vector per input. A request for a single embedding gets the
    /// first vector.
    pub fn embeddings<I>(vectors: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Vec<f32>>,
    {
        let mut answer = Self::new();
        answer.vectors = Some(vectors.into_iter().map(Into::into).collect());
        answer
    }

    /// Creates an answer with this status. If it is not a success, the body is an error in the API's format.
    ///
    /// # Panics
    ///
    /// Panics if the status is not final, which means from 200 to 999.
    pub fn status(status: u16) -> Self {
        let mut answer = Self::new();
        answer.status = final_status(status);
        answer
    }

    /// Creates an answer with this JSON as its body.
    pub fn json(body: &Value) -> Self {
        Self::new().body("application/json", body.to_string())
    }

    /// Sets the body, which is sent unchanged, without any steps.
    ///
    /// # Panics
    ///
    /// Panics if the content type is not a valid header value.
    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = Some((header_value(content_type), body.into()));
        self
    }

    /// Sets the message of the error for a status that is not a success.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Adds a header.
    ///
    /// # Panics
    ///
    /// Panics if the name or the value is not allowed in a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            panic!("`{name}` is not a valid header name");
        };
        self.headers.append(header, header_value(value));
        self
    }

    /// Waits before the status is sent.
    pub fn connect_wait(mut self, duration: Duration) -> Self {
        self.connect.push(Connect::Wait(duration));
        self
    }

    /// Hangs before the status: the connection stays open, and nothing is sent.
    pub fn connect_hang(mut self) -> Self {
        self.connect.push(Connect::Hang);
        self
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Sends a piece of text.
    pub fn token(self, text: impl Into<String>) -> Self {
        self.step(Step::Text(text.into()))
    }

    /// Sends pieces of text.
    pub fn tokens<I>(self, texts: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        texts.into_iter().fold(self, Self::token)
    }

    /// Sends a piece of reasoning.
    pub fn reasoning(self, text: impl Into<String>) -> Self {
        self.step(Step::Reasoning(text.into()))
    }

    /// Sends a tool call with its arguments in these pieces. For Gemini and Ollama, they are sent whole.
    pub fn tool_call<I>(self, id: impl Into<String>, name: impl Into<String>, arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.step(Step::Call {
            id: id.into(),
            name: name.into(),
            pieces: arguments.into_iter().map(Into::into).collect(),
        })
    }

    /// Sends these bytes unchanged, such as `": a comment\n\n"`.
    pub fn raw(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Raw(bytes.into()))
    }

    /// Waits before the next step.
    pub fn wait(self, duration: Duration) -> Self {
        self.step(Step::Wait(duration))
    }

    /// Reports an error in the stream, in the API's format for an error with this status.
    ///
    /// # Panics
    ///
    /// Panics if the status is not final, which means from 200 to 999.
    pub fn error(self, status: u16, message: impl Into<String>) -> Self {
        self.step(Step::Error(final_status(status), message.into()))
    }

    /// Ends the stream without a finish reason and an end mark, so it is truncated.
    pub fn end(self) -> Self {
        self.step(Step::End)
    }

    /// Closes the connection in the middle of the stream.
    pub fn cut(self) -> Self {
        self.step(Step::Cut)
    }

    /// Hangs: the connection stays open, and nothing more is sent.
    pub fn hang(self) -> Self {
        self.step(Step::Hang)
    }

    /// Sets the token counts, which are sent where the API sends them. Without this, none are sent. Counts that an API
    /// does not have are omitted.
    pub const fn usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Sets the finish reason. The default is [`FinishReason::ToolCalls`] if the answer has a tool call, and
    /// [`FinishReason::Stop`] otherwise.
    pub const fn finish(mut self, finish: FinishReason) -> Self {
        self.finish = Some(finish);
        self
    }

    /// Returns `true` if the steps or the vectors are sent.
    pub(super) fn is_scripted(&self) -> bool {
        self.body.is_none() && self.status.is_success()
    }
}

impl Default for Answer {
    fn default() -> Self {
        Self::new()
    }
}

fn final_status(status: u16) -> StatusCode {
    let known = StatusCode::from_u16(status).ok();
    let Some(status) = known.filter(|status| !status.is_informational()) else {
        panic!("{status} is not a final status");
    };
    status
}

fn header_value(value: &str) -> HeaderValue {
    let Ok(value) = HeaderValue::from_str(value) else {
        panic!("the value of a header has characters that are not allowed in a header");
    };
    value
}
