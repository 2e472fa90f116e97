//! OpenAI Chat Completions, and everything compatible with it.
//!
//! Read as one: OpenAI, Azure, Groq, DeepSeek, Mistral, xAI, OpenRouter, vLLM, Ollama, LM Studio,
//! and other servers that speak the same format, legacy completions included.
//!
//! # When a response is complete
//!
//! A finish reason completes it, with or without `[DONE]` after it; so does `[DONE]` without a
//! finish reason, which gives a last token with [`FinishReason::Other`]. A stream that ends with
//! neither was cut: the decoder just ends, no token ever had [`finish`](ProviderToken::finish), and
//! `l0_core` reports it as truncated. After `[DONE]` the decoder ends at once.
//!
//! If the body ends inside of an event, that event counts if it is whole, and is dropped if not.
//!
//! # Errors
//!
//! An error that the provider reports, also in the middle of the stream, is a
//! [`ProviderError::Api`]; what the same payload says besides (text, counts) comes before it. It
//! is the last item. So are the finish reasons `error` and `insufficient_system_resource`, by which
//! a provider says that it failed.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use futures_core::stream::FusedStream;
use l0_core::{FinishReason, TokenKind, Usage};

use crate::decode::{Decode, Dialect, Out};
use crate::error::{ApiError, Fault, InvalidJson, ProviderError};
use crate::lenient::{Count, MAX_LIST, Object};
use crate::sse::Event;
use crate::token::{ProviderToken, ToolCall};

#[cfg(feature = "reqwest")]
mod client;
mod payload;
mod request;

#[cfg(feature = "reqwest")]
pub use client::{BodyStream, ChatStream, Client, ClientError, from_response};
pub use request::ChatRequest;

use payload::{CallDelta, Choice, Delta, Function, Payload, read_error};

/// Decodes the body of a Chat Completions response, as its bytes arrive.
///
/// `body` is any stream of chunks, such as `reqwest::Response::bytes_stream()`; where it is cut
/// into chunks does not matter. Its errors come out typed, as [`ProviderError::Transport`].
///
/// ```
/// use std::convert::Infallible;
///
/// use futures_util::{StreamExt, stream};
/// use l0_core::FinishReason;
/// use l0_providers::openai;
///
/// # futures_util::FutureExt::now_or_never(async {
/// let body = stream::iter([
///     Ok::<_, Infallible>("data: {\"choices\": [{\"delta\": {\"content\": \"Hel\"}}]}\n\nda"),
///     Ok("ta: {\"choices\": [{\"delta\": {\"content\": \"lo\"}, \"finish_reason\": \"stop\"}]}\n\n"),
/// ]);
/// let tokens: Vec<_> = openai::decode(body).map(Result::unwrap).collect().await;
/// assert_eq!(tokens[0].text, "Hel");
/// assert_eq!(tokens[1].text, "lo");
/// assert_eq!(tokens[1].finish, Some(FinishReason::Stop));
/// # }).unwrap();
/// ```
pub fn decode<S, B, E>(body: S) -> Decoder<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
{
    Decoder {
        inner: Decode::new(body, Chat::default()),
    }
}

pin_project_lite::pin_project! {
    /// The tokens of a Chat Completions response, made by [`decode`].
    ///
    /// The first error is the last item.
    #[must_use = "streams do nothing unless polled"]
    pub struct Decoder<S> {
        #[pin]
        inner: Decode<S, Chat>,
    }
}

impl<S> Decoder<S> {
    /// Sets the largest event allowed, in bytes: 8 MiB unless set. A larger one fails with
    /// [`ProviderError::EventTooLarge`], so this bounds the memory that a decoder takes.
    pub fn max_event_bytes(mut self, limit: usize) -> Self {
        self.inner.set_max_event_bytes(limit);
        self
    }

    /// The byte stream.
    pub fn get_ref(&self) -> &S {
        self.inner.get_ref()
    }
}

impl<S> fmt::Debug for Decoder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("terminated", &self.inner.is_terminated())
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
        self.project().inner.poll_next(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.size_hint()
    }
}

impl<S, B, E> FusedStream for Decoder<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
{
    fn is_terminated(&self) -> bool {
        self.inner.is_terminated()
    }
}

/// How many choices are told apart, so that a hostile server cannot make the state grow.
const MAX_CHOICES: usize = MAX_LIST;

/// What one response said so far.
#[derive(Default)]
struct Chat {
    model: String,
    response_id: String,
    /// In the order in which they were first seen; almost always one.
    choices: Vec<ChoiceState>,
    finish_sent: bool,
}

struct ChoiceState {
    index: u32,
    finish: Option<FinishReason>,
    /// How many tool calls there are, for providers that do not number them.
    calls: u32,
    /// The id of the last call that came without a number.
    call_id: Option<String>,
}

impl Dialect for Chat {
    fn event(&mut self, event: Event, out: &mut Out) {
        let data = event.data.trim();
        let name = event.name.as_deref().unwrap_or_default();
        if data.is_empty() || matches!(name, "ping" | "heartbeat" | "keepalive" | "keep-alive") {
            return;
        }
        if data == "[DONE]" {
            self.done(out);
            return;
        }
        let is_error = name == "error";
        let problem = match serde_json::from_str(data) {
            Ok(Object(Some(payload))) => {
                if let Some(error) = self.payload(payload, data, is_error, out) {
                    out.fail(error);
                }
                return;
            }
            Ok(Object(None)) => None,
            Err(error) => Some(error),
        };
        if event.unterminated {
            // The body was cut inside of this event.
            out.end();
        } else if is_error {
            out.fail(ApiError::new(None, None, Some(data), None, &[]));
        } else {
            out.fail(Fault::Json(InvalidJson::new(data, problem.as_ref())));
        }
    }
}

impl Chat {
    /// The end mark. Without a finish reason before it, it is one.
    fn done(&mut self, out: &mut Out) {
        if !self.finish_sent {
            let finish = self.first_finish().unwrap_or(FinishReason::Other);
            out.push(other(0)).finish = Some(finish);
        }
        out.end();
    }

    /// Reads one payload's tokens, and the error that it reports after them.
    fn payload(
        &mut self,
        payload: Payload<'_>,
        data: &str,
        is_error: bool,
        out: &mut Out,
    ) -> Option<ApiError> {
        // Tokens of earlier payloads are handed out before the next one is read.
        let start = out.len();
        let beside_choices = !payload.choices.is_empty();
        let is_error = is_error || (payload.object.as_str() == "error");
        let is_error = is_error || (payload.kind.as_str() == "error");

        let mut usage = None;
        let mut finished = false;
        let mut error = payload.error.error(beside_choices);
        let mut failed_finish = None;
        for choice in payload.choices {
            let read = self.choice(choice, out);
            finished |= read.finished;
            failed_finish = failed_finish.or(read.failed_finish);
            usage = read.usage.or(usage);
            error = error.or(read.error);
        }
        if let Some(x_groq) = payload.x_groq.0 {
            usage = x_groq.usage.usage().or(usage);
            error = error.or(x_groq.error.error(beside_choices));
        }
        usage = payload.usage.usage().or(usage);

        let model = changed(&mut self.model, payload.model.as_str());
        let response_id = changed(&mut self.response_id, payload.id.as_str());
        let says_more = usage.is_some() || model.is_some() || response_id.is_some();
        if out.len() == start && says_more {
            out.push(other(0));
        }
        if let Some(first) = out.get_mut(start) {
            first.model = model;
            first.response_id = response_id;
        }
        if let Some(last) = out.last_mut() {
            last.usage = usage;
            if finished && self.choices.iter().all(|choice| choice.finish.is_some()) {
                last.finish = self.first_finish();
                self.finish_sent = true;
            }
        }

        match error {
            // The status and more may stand beside the error object.
            Some(error) if beside_choices => Some(error.into_api_error(None, &[])),
            Some(error) => Some(read_error(data).unwrap_or(*error).into_api_error(None, &[])),
            None if is_error => {
                let error = read_error(data).unwrap_or_default();
                Some(error.into_api_error(None, &[]))
            }
            None => failed_finish
                .map(|reason| ApiError::new(Some("server_error"), Some(reason), None, None, &[])),
        }
    }

    fn choice<'a>(&mut self, choice: Choice<'a>, out: &mut Out) -> ReadChoice<'a> {
        let index = small(choice.index.0);
        let first = out.len();
        let delta = choice.delta.0.or(choice.message.0).unwrap_or_default();
        let Delta {
            content,
            reasoning_content,
            reasoning,
            refusal,
            tool_calls,
            function_call,
        } = delta;

        // Some servers send the same reasoning under both names.
        let reasoning = reasoning_content.filled().or_else(|| reasoning.filled());
        let reasoning = match (reasoning, content.thinking.filled()) {
            (Some(mut text), Some(more)) => {
                text.to_mut().push_str(&more);
                Some(text)
            }
            (text, more) => text.or(more),
        };
        let token = |kind, text: Cow<'_, str>| {
            let mut token = ProviderToken::new(kind, text.into_owned());
            token.choice = index;
            token
        };
        if let Some(text) = reasoning {
            out.push(token(TokenKind::Reasoning, text));
        }
        if let Some(text) = choice.text.filled().or_else(|| content.text.filled()) {
            out.push(token(TokenKind::Text, text));
        }
        if let Some(text) = refusal.filled() {
            out.push(token(TokenKind::Text, text)).refusal = true;
        }
        let mut state = self.state(index);
        for call in tool_calls {
            out.push(tool_call(index, state.as_deref_mut(), call));
        }
        if function_call.0.is_some() {
            let call = CallDelta {
                index: Count(Some(0)),
                function: function_call,
                ..CallDelta::default()
            };
            out.push(tool_call(index, state.as_deref_mut(), call));
        }

        let reason = choice.finish_reason.filled();
        if let Some(reason) = &reason {
            if out.len() == first {
                out.push(other(index));
            }
            if let Some(last) = out.last_mut() {
                last.finish_reason = Some(reason.clone().into_owned());
            }
            if let Some(state) = state {
                state.finish = Some(normalise(reason));
            }
        }
        ReadChoice {
            finished: reason.is_some(),
            failed_finish: match reason.as_deref() {
                Some("error") => Some("error"),
                Some("insufficient_system_resource") => Some("insufficient_system_resource"),
                _ => None,
            },
            usage: choice.usage.usage(),
            error: choice.error.error(true),
        }
    }

    /// The state of a choice; `None` if there are too many.
    fn state(&mut self, index: u32) -> Option<&mut ChoiceState> {
        let position = self.choices.iter().position(|known| known.index == index);
        let position = match position {
            Some(position) => position,
            None if self.choices.len() < MAX_CHOICES => {
                self.choices.push(ChoiceState {
                    index,
                    finish: None,
                    calls: 0,
                    call_id: None,
                });
                self.choices.len() - 1
            }
            None => return None,
        };
        self.choices.get_mut(position)
    }

    /// Why the lowest of the finished choices ended.
    fn first_finish(&self) -> Option<FinishReason> {
        let finished = self.choices.iter().filter(|choice| choice.finish.is_some());
        finished.min_by_key(|choice| choice.index)?.finish
    }
}

/// What a choice says besides its tokens.
struct ReadChoice<'a> {
    finished: bool,
    /// The finish reason, if it says that the provider failed.
    failed_finish: Option<&'static str>,
    usage: Option<Usage>,
    error: Option<Box<payload::ErrorObject<'a>>>,
}

/// A token without text.
fn other(choice: u32) -> ProviderToken {
    let mut token = ProviderToken::new(TokenKind::Other, String::new());
    token.choice = choice;
    token
}

fn tool_call(choice: u32, state: Option<&mut ChoiceState>, call: CallDelta<'_>) -> ProviderToken {
    let id = call.id.filled();
    let Function { name, arguments } = call.function.0.or(call.custom.0).unwrap_or_default();
    let name = name.filled();
    let index = match (call.index.0, state) {
        (Some(index), Some(state)) => {
            let index = small(Some(index));
            state.calls = state.calls.max(index.saturating_add(1));
            index
        }
        (None, Some(state)) => {
            // A new id begins a new call; without any id, a name does.
            let begins = match &id {
                Some(id) => state.call_id.as_deref() != Some(id),
                None => name.is_some(),
            };
            if begins || state.calls == 0 {
                state.calls = state.calls.saturating_add(1);
                state.call_id = id.as_deref().map(str::to_owned);
            }
            state.calls - 1
        }
        (index, None) => small(index),
    };
    let name = name.map(Cow::into_owned);
    let text = match &name {
        None => arguments.0.into_owned(),
        Some(name) => [name, arguments.0.as_ref()].concat(),
    };
    let mut token = ProviderToken::new(TokenKind::ToolCall, text);
    token.choice = choice;
    let mut identity = ToolCall::new(index);
    identity.id = id.map(Cow::into_owned);
    identity.name = name;
    token.tool_call = Some(identity);
    token
}

/// Takes over a value that is there and new.
fn changed(known: &mut String, new: &str) -> Option<String> {
    if new.is_empty() || known == new {
        return None;
    }
    new.clone_into(known);
    Some(new.to_owned())
}

/// An index from the provider; 0 if it sends none.
fn small(index: Option<u64>) -> u32 {
    index.map_or(0, |index| u32::try_from(index).unwrap_or(u32::MAX))
}

fn normalise(reason: &str) -> FinishReason {
    match reason {
        "stop" | "eos" | "eos_token" | "stop_sequence" | "end_turn" => FinishReason::Stop,
        "length" | "max_tokens" | "model_length" => FinishReason::Length,
        "tool_calls" | "tool_use" | "function_call" => FinishReason::ToolCalls,
        "content_filter" | "safety" => FinishReason::ContentFilter,
        _ => FinishReason::Other,
    }
}
