//! The decoder: turns the bytes of a body into tokens. A [`Dialect`] is the part that differs between providers.

use std::collections::VecDeque;
use std::fmt;
#[cfg(feature = "reqwest")]
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use futures_core::stream::FusedStream;
use l0_core::{Cost, FinishReason, Token, TokenKind, Usage};

use crate::error::{
    ApiError, EventTooLarge, Fault, InvalidJson, InvalidUtf8, NotAnAnswer, ProviderError,
};
use crate::frames::{Frames, Framing};
use crate::lenient::{Fields, read_fields};
use crate::opening::{FrameError, begins_like_events};
use crate::repair::{Halves, mark_halves, without_infinite};
use crate::report::{bare_error, in_band_error};
use crate::secrets::Secrets;
use crate::sse::Event;
use crate::token::ProviderToken;

/// Default limit on one event: 8 MiB.
pub(crate) const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;

/// One provider's format. Reads the payloads of one response, in order.
pub(crate) trait Dialect: Send + Sync {
    /// Returns the separator of payloads.
    fn framing(&self) -> Framing {
        Framing::Events
    }

    /// Reads one payload. `name` is the name of its event, or empty.
    fn payload(&mut self, name: &str, json: &str, out: &mut Out) -> Result<(), Unreadable>;

    /// Handles the end mark `[DONE]`, which ends the response. It shows that the response is complete only in formats
    /// that define it.
    fn done(&mut self, _: &mut Out) {}

    /// Returns `true` if the provider has reported an error to which later payloads may add. The decoder does not wait
    /// for them.
    fn failing(&self) -> bool {
        false
    }

    /// Returns `true` if payloads arrived and none of them belongs to an answer of this API.
    fn is_foreign(&self) -> bool {
        false
    }

    /// Handles the end of the body, complete or not.
    fn end(&mut self, _: &mut Out) {}
}

/// A payload that is not a JSON object. Holds no error if it is another JSON value.
pub(crate) struct Unreadable(Option<serde_json::Error>);

/// Reads the fields of a payload.
pub(crate) fn parse<'a>(json: &'a str, fields: &mut impl Fields<'a>) -> Result<(), Unreadable> {
    match read_fields(json, fields) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Unreadable(None)),
        Err(error) => Err(Unreadable(Some(error))),
    }
}

/// The output of a [`Dialect`]. Empty when a payload is read, as the tokens of earlier payloads have been yielded.
#[derive(Debug, Default)]
pub(crate) struct Out {
    tokens: VecDeque<ProviderToken>,
    halves: Halves,
    end: Option<Option<Fault>>,
}

/// Metadata of a payload.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    pub(crate) model: Option<String>,
    pub(crate) response_id: Option<String>,
    pub(crate) usage: Option<Usage>,
    pub(crate) cost: Option<Box<Cost>>,
    pub(crate) finish: Option<FinishReason>,
}

impl Out {
    pub(crate) fn push(&mut self, token: ProviderToken) -> &mut ProviderToken {
        self.tokens.push_back(token);
        let last = self.tokens.len() - 1;
        &mut self.tokens[last]
    }

    /// Number of tokens from this payload so far.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Returns the payload's last token, or a new one of this choice without text.
    pub(crate) fn last_or_other(&mut self, choice: u32) -> &mut ProviderToken {
        if self.tokens.is_empty() {
            self.push(other(choice));
        }
        let last = self.tokens.len() - 1;
        &mut self.tokens[last]
    }

    /// Adds a payload's metadata to its tokens, or to a new token without text.
    pub(crate) fn add_metadata(&mut self, metadata: Metadata) {
        let Metadata {
            model,
            response_id,
            usage,
            cost,
            finish,
        } = metadata;
        if model.is_some() || response_id.is_some() {
            self.last_or_other(0);
            let first = &mut self.tokens[0];
            first.model = model;
            first.response_id = response_id;
        }
        if usage.is_some() {
            self.last_or_other(0).usage = usage;
        }
        if cost.is_some() {
            self.last_or_other(0).cost = cost;
        }
        if finish.is_some() {
            self.last_or_other(0).finish = finish;
        }
    }

    /// Ends the response. Nothing after this is read.
    pub(crate) fn end(&mut self) {
        self.end.get_or_insert(None);
    }

    /// Ends the response with an error, which follows the tokens before it.
    pub(crate) fn fail(&mut self, fault: impl Into<Fault>) {
        self.end = Some(Some(fault.into()));
    }
}

/// Creates a token without text.
pub(crate) fn other(choice: u32) -> ProviderToken {
    let mut token = ProviderToken::new(TokenKind::Other, String::new());
    token.choice = choice;
    token
}

/// Reads one event: the part shared by all dialects.
fn read(event: &Event<'_>, dialect: &mut dyn Dialect, out: &mut Out) {
    let json = event.data.trim();
    let marked = mark_halves(json);
    read_payload(event, marked.as_deref().unwrap_or(json), dialect, out);
    if marked.is_some() || !out.halves.is_empty() {
        out.halves.join(&mut out.tokens);
        if out.end.is_some() {
            out.halves.give_up(&mut out.tokens, |_| true);
        }
    }
}

fn read_payload(event: &Event<'_>, json: &str, dialect: &mut dyn Dialect, out: &mut Out) {
    let name = event.name;
    if json.is_empty() || matches!(name, "ping" | "heartbeat" | "keepalive" | "keep-alive") {
        return;
    }
    if json == "[DONE]" {
        dialect.done(out);
        dialect.end(out);
        out.end();
        return;
    }
    let mut read = dialect.payload(name, json, out);
    if read.is_err() {
        if let Some(fixed) = without_infinite(json) {
            read = dialect.payload(name, &fixed, out);
        }
    }
    let Err(Unreadable(problem)) = read else {
        if out.tokens.is_empty() && out.end.is_none() && !dialect.failing() {
            if let Some(error) = bare_error(json) {
                out.fail(error);
            }
        }
        return;
    };
    if event.unterminated {
        // The body was cut inside this event.
        dialect.end(out);
        out.end();
    } else if name == "error" {
        out.fail(ApiError::new(None, None, Some(json), None));
    } else {
        out.fail(InvalidJson::new(json, problem.as_ref()));
    }
}

/// Reads a body that is one object: the whole answer, an error, or neither.
fn read_object(body: Vec<u8>, dialect: &mut dyn Dialect, out: &mut Out) {
    let data = match String::from_utf8(body) {
        Ok(data) => data,
        Err(error) => {
            let valid_up_to = error.utf8_error().valid_up_to();
            return out.fail(Fault::Utf8(InvalidUtf8 { valid_up_to }));
        }
    };
    let event = Event {
        name: "",
        data: &data,
        unterminated: false,
    };
    read(&event, dialect, out);
    dialect.end(out);
    if out.end.is_some() {
        return;
    }
    if !out.tokens.iter().any(has_content) {
        out.tokens.clear();
        out.fail(error_in(event.data).unwrap_or_else(|| NotAnAnswer::json().into()));
        return;
    }
    // The answer has ended, whether or not it says why.
    if out.tokens.iter().all(|token| token.finish.is_none()) {
        out.last_or_other(0).finish = Some(FinishReason::Other);
    }
    out.halves.give_up(&mut out.tokens, |_| true);
    out.end();
}

/// Returns `true` if a token has more than the identity of its response.
fn has_content(token: &ProviderToken) -> bool {
    token.view().is_token() || token.usage.is_some() || token.finish.is_some()
}

/// Returns the error in a body that is not a stream.
pub(crate) fn error_in(text: &str) -> Option<Fault> {
    let error = in_band_error(text).map(|error| error.into_api_error(None));
    error.or_else(|| bare_error(text)).map(Fault::from)
}

fn is_line(body: &[u8]) -> bool {
    memchr::memchr2(b'\n', b'\r', body) == body.len().checked_sub(1)
}

/// Classifies a body that is not an event stream: an error, or another protocol.
fn foreign(body: &[u8]) -> Fault {
    // The first header's name follows lengths and a checksum.
    let content_type = match body.first() {
        Some(0) if body.get(13) == Some(&b':') => "application/vnd.amazon.eventstream",
        Some(0) => "application/octet-stream",
        Some(b'<') => "text/html",
        _ if begins_like_events(body) => "text/event-stream",
        // Only the first line is kept, if it is whole.
        _ if is_line(body) => "application/x-ndjson",
        _ => "application/json",
    };
    error_in(&String::from_utf8_lossy(body)).unwrap_or_else(|| {
        let content_type = content_type.to_owned();
        NotAnAnswer { content_type }.into()
    })
}

pin_project_lite::pin_project! {
    /// The tokens of one response, created by a module's `decode`, such as `openai::decode`.
    ///
    /// The type is the same for all providers, so a provider can be chosen at run time. The first error is the last
    /// item.
    #[must_use = "streams do nothing unless polled"]
    pub struct Decoder<S> {
        #[pin]
        frames: Frames<S>,
        dialect: Box<dyn Dialect>,
        out: Out,
        secrets: Secrets,
        ended: bool,
    }
}

impl<S> Decoder<S> {
    pub(crate) fn new(body: S, dialect: impl Dialect + 'static) -> Self {
        Self::of(body, Box::new(dialect))
    }

    pub(crate) fn of(body: S, dialect: Box<dyn Dialect>) -> Self {
        Self {
            frames: Frames::new(dialect.framing(), body, MAX_EVENT_BYTES),
            dialect,
            out: Out::default(),
            secrets: Secrets::default(),
            ended: false,
        }
    }

    /// Sets the secrets that are removed from the error and from the names in tokens.
    #[cfg(feature = "reqwest")]
    pub(crate) fn hiding(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    /// Waits for the first item. A token is yielded again by the next poll; an error is not.
    #[cfg(feature = "reqwest")]
    pub(crate) async fn first<B, E>(&mut self) -> Option<Result<(), ProviderError<E>>>
    where
        S: Stream<Item = Result<B, E>> + Unpin,
        B: Into<Bytes>,
    {
        let item = poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await?;
        Some(item.map(|token| self.out.tokens.push_front(token)))
    }

    /// Sets the limit on one event, in bytes. The default is 8 MiB. A larger event fails with
    /// [`ProviderError::EventTooLarge`], so the limit bounds the decoder's memory. A body that is one JSON answer
    /// instead of a stream counts as one event.
    pub fn max_event_bytes(mut self, limit: usize) -> Self {
        self.frames.set_max_event_bytes(limit);
        self
    }

    /// Returns the byte stream.
    pub fn get_ref(&self) -> &S {
        self.frames.get_ref()
    }
}

impl<S> fmt::Debug for Decoder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("terminated", &self.ended)
            .finish_non_exhaustive()
    }
}

impl<S, B, E> Stream for Decoder<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
{
    type Item = Result<ProviderToken, ProviderError<E>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        let error = loop {
            if let Some(mut token) = this.out.tokens.pop_front() {
                this.frames.as_mut().progress();
                this.secrets.hide_in_names(&mut token);
                return Poll::Ready(Some(Ok(token)));
            }
            if *this.ended {
                return Poll::Ready(None);
            }
            if let Some(fault) = this.out.end.take() {
                break fault.map(Fault::widen);
            }
            let Poll::Ready(found) = this.frames.as_mut().poll_next(cx) else {
                if this.dialect.failing() {
                    this.dialect.end(this.out);
                    continue;
                }
                return Poll::Pending;
            };
            let error = match found {
                Some(Ok(())) => match this.frames.event() {
                    Ok(event) => {
                        read(&event, &mut **this.dialect, this.out);
                        continue;
                    }
                    Err(error) => {
                        let valid_up_to = error.valid_up_to();
                        Some(ProviderError::Utf8(InvalidUtf8 { valid_up_to }))
                    }
                },
                Some(Err(FrameError::Source(error))) => Some(ProviderError::Transport(error)),
                Some(Err(FrameError::Utf8 { valid_up_to })) => {
                    Some(ProviderError::Utf8(InvalidUtf8 { valid_up_to }))
                }
                Some(Err(FrameError::TooLarge { limit })) => {
                    Some(ProviderError::EventTooLarge(EventTooLarge { limit }))
                }
                Some(Err(FrameError::Object(body))) => {
                    read_object(body, &mut **this.dialect, this.out);
                    continue;
                }
                Some(Err(FrameError::Foreign(body))) => Some(foreign(&body).widen()),
                None => this
                    .dialect
                    .is_foreign()
                    .then(|| NotAnAnswer::json().into())
                    .map(Fault::widen),
            };
            this.dialect.end(this.out);
            if error.is_none() && this.out.end.is_none() && !this.out.halves.is_empty() {
                this.out.halves.give_up(&mut this.out.tokens, |_| true);
                this.out.end();
                continue;
            }
            // An error that the provider reported earlier is more precise than the end of the body.
            match this.out.end.take() {
                Some(Some(fault)) => break Some(fault.widen()),
                _ => break error,
            }
        };
        *this.ended = true;
        Poll::Ready(error.map(|error| Err(this.secrets.hide_in_error(error))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.out.tokens.len(), self.ended.then_some(0))
    }
}

impl<S, B, E> FusedStream for Decoder<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
{
    fn is_terminated(&self) -> bool {
        self.ended
    }
}
