//! The decoder: a body's bytes in, tokens out. What differs between providers is a [`Dialect`].

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
use crate::lenient::{Fields, Object};
use crate::repair::{Halves, mark_halves, without_nan};
use crate::report::{bare_error, in_band_error};
use crate::secrets::Secrets;
use crate::sse::{Event, FrameError, begins_like_events};
use crate::token::ProviderToken;

/// The largest event allowed unless the user says otherwise: 8 MiB.
pub(crate) const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;

/// One provider's format: reads the payloads of one response, in order.
pub(crate) trait Dialect: Send + Sync {
    /// What its payloads come in.
    fn framing(&self) -> Framing {
        Framing::Events
    }

    /// Reads one payload. `name` is its event's name, empty if it has none.
    fn payload(&mut self, name: &str, json: &str, out: &mut Out) -> Result<(), Unreadable>;

    /// The end mark `[DONE]`, which ends the response. That it is complete, the mark only says where
    /// it belongs to the format.
    fn done(&mut self, _: &mut Out) {}

    /// Whether the provider told of an error that more may follow, but that need not wait for it.
    fn failing(&self) -> bool {
        false
    }

    /// Whether payloads have come, and none that an answer of this API has.
    fn is_strange(&self) -> bool {
        false
    }

    /// The body is at its end, or broke off.
    fn end(&mut self, _: &mut Out) {}
}

/// A payload that is no JSON object; without an error if it is other JSON.
pub(crate) struct Unreadable(Option<serde_json::Error>);

/// The fields of a payload.
pub(crate) fn parse<'a, T: Fields<'a>>(json: &'a str) -> Result<T, Unreadable> {
    match serde_json::from_str(json) {
        Ok(Object(Some(fields))) => Ok(fields),
        Ok(Object(None)) => Err(Unreadable(None)),
        Err(error) => Err(Unreadable(Some(error))),
    }
}

/// Where a [`Dialect`] puts what it read. Empty whenever a payload is read: the tokens of earlier
/// ones have been handed out.
#[derive(Debug, Default)]
pub(crate) struct Out {
    tokens: VecDeque<ProviderToken>,
    halves: Halves,
    end: Option<Option<Fault>>,
}

/// What a payload says besides its texts.
#[derive(Debug, Default)]
pub(crate) struct Said {
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

    /// How many tokens the payload has given so far.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The payload's last token, or one without text, of this choice.
    pub(crate) fn last_or_other(&mut self, choice: u32) -> &mut ProviderToken {
        if self.tokens.is_empty() {
            self.push(other(choice));
        }
        let last = self.tokens.len() - 1;
        &mut self.tokens[last]
    }

    /// Adds what a payload says besides its texts to its tokens, or to one without text.
    pub(crate) fn say(&mut self, said: Said) {
        let Said {
            model,
            response_id,
            usage,
            cost,
            finish,
        } = said;
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

    /// The response is over; what follows is not read.
    pub(crate) fn end(&mut self) {
        self.end.get_or_insert(None);
    }

    /// The response is over with an error, once the tokens before it are handed out.
    pub(crate) fn fail(&mut self, fault: impl Into<Fault>) {
        self.end = Some(Some(fault.into()));
    }
}

/// A token without text.
pub(crate) fn other(choice: u32) -> ProviderToken {
    let mut token = ProviderToken::new(TokenKind::Other, String::new());
    token.choice = choice;
    token
}

/// Reads one event: what all dialects have in common.
fn read(event: &Event, dialect: &mut dyn Dialect, out: &mut Out) {
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

fn read_payload(event: &Event, json: &str, dialect: &mut dyn Dialect, out: &mut Out) {
    let name = event.name.as_deref().unwrap_or_default();
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
        if let Some(fixed) = without_nan(json) {
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
        // The body was cut inside of this event.
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
        name: None,
        data,
        unterminated: false,
    };
    read(&event, dialect, out);
    dialect.end(out);
    if out.end.is_some() {
        return;
    }
    if !out.tokens.iter().any(says_something) {
        out.tokens.clear();
        out.fail(error_in(&event.data).unwrap_or_else(|| NotAnAnswer::json().into()));
        return;
    }
    // It has an end, whether it says why or not.
    if out.tokens.iter().all(|token| token.finish.is_none()) {
        out.last_or_other(0).finish = Some(FinishReason::Other);
    }
    out.halves.give_up(&mut out.tokens, |_| true);
    out.end();
}

/// Whether a token tells more than which response it is of.
fn says_something(token: &ProviderToken) -> bool {
    token.view().is_token() || token.usage.is_some() || token.finish.is_some()
}

/// The error in a body that is no stream.
pub(crate) fn error_in(text: &str) -> Option<Fault> {
    let error = in_band_error(text).map(|error| error.into_api_error(None));
    error.or_else(|| bare_error(text)).map(Fault::from)
}

fn is_line(body: &[u8]) -> bool {
    memchr::memchr2(b'\n', b'\r', body) == body.len().checked_sub(1)
}

/// What a body that is no event stream is: an error, or another protocol.
fn foreign(body: &[u8]) -> Fault {
    // The first header's name follows lengths and a checksum.
    let content_type = match body.first() {
        Some(0) if body.get(13) == Some(&b':') => "application/vnd.amazon.eventstream",
        Some(0) => "application/octet-stream",
        Some(b'<') => "text/html",
        _ if begins_like_events(body) => "text/event-stream",
        // A first line that is whole is all that is kept.
        _ if is_line(body) => "application/x-ndjson",
        _ => "application/json",
    };
    error_in(&String::from_utf8_lossy(body)).unwrap_or_else(|| {
        let content_type = content_type.to_owned();
        NotAnAnswer { content_type }.into()
    })
}

pin_project_lite::pin_project! {
    /// The tokens of one response, made by a module's `decode`, such as `openai::decode`.
    ///
    /// The same type for all providers, so which one answers can be chosen at run time. The first
    /// error is the last item.
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

    /// Sets what must show neither in the error nor in the names that tokens carry.
    #[cfg(feature = "reqwest")]
    pub(crate) fn hiding(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    /// Waits for the first item; it comes again unless it is an error.
    #[cfg(feature = "reqwest")]
    pub(crate) async fn first<B, E>(&mut self) -> Option<Result<(), ProviderError<E>>>
    where
        S: Stream<Item = Result<B, E>> + Unpin,
        B: Into<Bytes>,
    {
        let item = poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await?;
        Some(item.map(|token| self.out.tokens.push_front(token)))
    }

    /// Sets the largest event allowed, in bytes: 8 MiB unless set. A larger one fails with
    /// [`ProviderError::EventTooLarge`], so this bounds the memory that a decoder takes. A body that is
    /// no stream, but the whole answer as JSON, counts as one event.
    pub fn max_event_bytes(mut self, limit: usize) -> Self {
        self.frames.set_max_event_bytes(limit);
        self
    }

    /// The byte stream.
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
            let Poll::Ready(event) = this.frames.as_mut().poll_next(cx) else {
                if this.dialect.failing() {
                    this.dialect.end(this.out);
                    continue;
                }
                return Poll::Pending;
            };
            let error = match event {
                Some(Ok(event)) => {
                    read(&event, &mut **this.dialect, this.out);
                    continue;
                }
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
                    .is_strange()
                    .then(|| NotAnAnswer::json().into())
                    .map(Fault::widen),
            };
            this.dialect.end(this.out);
            if error.is_none() && this.out.end.is_none() && !this.out.halves.is_empty() {
                this.out.halves.give_up(&mut this.out.tokens, |_| true);
                this.out.end();
                continue;
            }
            // An error that the provider told of before says more than how the body ended.
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
