//! OpenAI's Chat Completions, and compatible servers.
//!
//! One decoder reads OpenAI, Azure, Groq, DeepSeek, Mistral, xAI, OpenRouter, vLLM, Ollama, LM Studio and other servers
//! that speak the same format, including legacy completions.
//!
//! # When a response is complete
//!
//! A finish reason completes it, with or without `[DONE]` after it. `[DONE]` without a finish reason completes it too,
//! and yields a last token with [`FinishReason::Other`]. A stream that ends with neither is truncated: the decoder
//! ends, no token has [`finish`](ProviderToken::finish), and `l0_core` reports the stream as truncated. The decoder
//! ends as soon as it has read `[DONE]`.
//!
//! If the body ends inside an event, the event counts if it is whole and is discarded otherwise.
//!
//! # Content
//!
//! A whole `message` instead of deltas is read too. One that follows the deltas of its choice is not yielded again.
//! Reasoning is read under all of its names. Images and audio yield tokens of kind [`Media`](TokenKind::Media), and the
//! transcript of audio is text.
//!
//! # Errors
//!
//! An error that the provider reports, including in the middle of the stream, is a
//! [`ProviderError::Api`](crate::ProviderError::Api), and the last item. Other content of the same payload, such as
//! text and counts, comes before it. A finish reason with which a provider reports its own failure is an error too,
//! such as `error`, `network_error` and `insufficient_system_resource`.

use std::borrow::Cow;
use std::mem::take;

use bytes::Bytes;
use futures_core::Stream;
use l0_core::{FinishReason, TokenKind, Usage};

use crate::decode::{Decoder, Dialect, Out, Unreadable, other, parse};
use crate::error::ApiError;
use crate::finish::Finish;
use crate::lenient::{Count, Object};
use crate::report::{ErrorObject, api_error, read_error};
use crate::response::{Choice as ChoiceState, Choices, Identity, fingerprint, small};
use crate::token::{ProviderToken, ToolCall};
use crate::usage::{Counted, UsageFields};

#[cfg(feature = "reqwest")]
mod client;
mod payload;
mod request;
#[cfg(feature = "responses")]
pub mod responses;

#[cfg(feature = "reqwest")]
pub use client::{Client, OpenAi, from_response};
pub use request::ChatRequest;

use payload::{CallDelta, Choice, Delta, Function, Payload};

/// Decodes the body of a Chat Completions response, as its bytes arrive.
///
/// `body` is any stream of chunks, such as `reqwest::Response::bytes_stream()`. Chunks can end anywhere. Errors of the
/// body are yielded as [`ProviderError::Transport`](crate::ProviderError::Transport).
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
    Decoder::new(body, Chat::default())
}

/// State of one response.
#[derive(Default)]
struct Chat {
    identity: Identity,
    choices: Choices,
    counted: Counted,
    finish_sent: bool,
}

impl Dialect for Chat {
    fn payload(&mut self, name: &str, json: &str, out: &mut Out) -> Result<(), Unreadable> {
        let mut payload = Payload::default();
        parse(json, &mut payload)?;
        let has_choices = !payload.choices.is_empty();
        let words = [name, payload.object.as_str(), payload.kind.as_str()];
        let is_error = words.contains(&"error");

        let mut usage = None;
        let mut finished = false;
        let mut error = payload.error.error(has_choices);
        let mut failed_finish = None;
        for choice in payload.choices.iter_mut() {
            let read = self.choice(choice, out);
            finished |= read.finished;
            failed_finish = failed_finish.or(read.failed_finish);
            usage = read.usage.or(usage);
            error = error.or(read.error);
        }
        if let Some(x_groq) = payload.x_groq.0 {
            let counts = x_groq.usage.0.and_then(|counts| self.counted.add(&counts));
            usage = counts.or(usage);
            error = error.or(x_groq.error.error(has_choices));
        }

        let mut metadata = self
            .identity
            .update(payload.model.as_str(), payload.id.as_str());
        let counts = payload.usage.0;
        metadata.cost = counts.as_ref().and_then(UsageFields::cost);
        metadata.usage = counts
            .and_then(|counts| self.counted.add(&counts))
            .or(usage);
        if failed_finish.is_none() && finished && self.choices.all_finished() {
            metadata.finish = self.choices.first_finish();
            self.finish_sent = true;
        }
        out.add_metadata(metadata);

        // Gateways also give the last event a name.
        if !has_choices && Finish::read(name) == Some(Finish::Ended(FinishReason::Stop)) {
            self.done(out);
        }

        match (error, failed_finish) {
            // Without choices, the status and other details can be next to the error object.
            (Some(error), _) if has_choices => out.fail(error.into_api_error(None)),
            (Some(error), _) => {
                let error = read_error(json).unwrap_or(*error);
                out.fail(error.into_api_error(None));
            }
            (None, _) if is_error => out.fail(api_error(json)),
            (None, Some(reason)) => {
                out.fail(ApiError::finish(&reason));
            }
            (None, None) => {}
        }
        Ok(())
    }

    fn done(&mut self, out: &mut Out) {
        if !std::mem::replace(&mut self.finish_sent, true) {
            let finish = self.choices.first_finish().unwrap_or(FinishReason::Other);
            out.push(other(0)).finish = Some(finish);
        }
    }
}

impl Chat {
    /// Reads the part of the answer in a choice, or all of it.
    fn delta(&mut self, index: u32, delta: &mut Delta<'_>, out: &mut Out) {
        let content = &mut delta.content;
        let mut reasoning = take(&mut delta.reasoning.0);
        reasoning.append(take(&mut content.thinking));
        if let Some(text) = reasoning.filled() {
            push(TokenKind::Reasoning, index, text, out);
        }
        if let Some(text) = take(&mut content.text).filled() {
            push(TokenKind::Text, index, text, out);
        }
        let mut has_audio = false;
        if let Some(audio) = delta.audio.0.take() {
            if let Some(text) = audio.transcript.filled() {
                push(TokenKind::Text, index, text, out);
            }
            has_audio = audio.data.filled().is_some();
        }
        if let Some(text) = take(&mut delta.refusal).filled() {
            push(TokenKind::Text, index, text, out).refusal = true;
        }
        if has_audio || delta.images || content.media {
            push(TokenKind::Media, index, "".into(), out);
        }
        if !delta.tool_calls.is_empty() {
            let mut state = self.choices.of(index);
            for call in take(&mut delta.tool_calls) {
                out.push(tool_call(index, state.as_deref_mut(), call));
            }
        }
        if let Some(function) = delta.function_call.0.take() {
            let call = CallDelta {
                index: Count(Some(0)),
                function: Object(Some(*function)),
                ..CallDelta::default()
            };
            out.push(tool_call(index, self.choices.of(index), call));
        }
    }

    fn choice<'a>(&mut self, choice: &mut Choice<'a>, out: &mut Out) -> ReadChoice<'a> {
        let index = small(choice.index.0);
        let first = out.len();
        if let Some(delta) = &mut choice.delta.0 {
            self.delta(index, delta, out);
        }
        if let Some(text) = take(&mut choice.text).filled() {
            push(TokenKind::Text, index, text, out);
        }
        let streamed = out.len() > first;
        if let Some(message) = &mut choice.message.0 {
            // Some servers send the whole answer, sometimes after its pieces.
            let given = |state: &mut ChoiceState| state.given;
            if !streamed && !self.choices.of(index).is_some_and(given) {
                self.delta(index, message, out);
            }
        }
        let mut state = self.choices.of(index);
        if let Some(state) = &mut state {
            state.given |= streamed;
        }

        let reason = take(&mut choice.finish_reason).filled();
        let reason = reason.and_then(|reason| Some((Finish::read(&reason)?, reason)));
        if let Some((finish, reason)) = &reason {
            if out.len() == first {
                out.push(other(index));
            }
            out.last_or_other(index).finish_reason = Some(reason.clone().into_owned());
            if let Some(state) = state {
                state.finish = Some(finish.reason());
            }
        }
        ReadChoice {
            finished: reason.is_some(),
            failed_finish: reason
                .filter(|(finish, _)| *finish == Finish::Failed)
                .map(|(_, reason)| reason),
            usage: choice
                .usage
                .0
                .take()
                .and_then(|counts| self.counted.add(&counts)),
            error: take(&mut choice.error).error(true),
        }
    }
}

/// Pushes a piece of a choice's text.
fn push<'o>(
    kind: TokenKind,
    index: u32,
    text: Cow<'_, str>,
    out: &'o mut Out,
) -> &'o mut ProviderToken {
    let token = out.push(ProviderToken::new(kind, text));
    token.choice = index;
    token
}

/// The metadata of a choice.
struct ReadChoice<'a> {
    finished: bool,
    /// The finish reason, if it reports a failure of the provider.
    failed_finish: Option<Cow<'a, str>>,
    usage: Option<Usage>,
    error: Option<Box<ErrorObject<'a>>>,
}

fn tool_call(choice: u32, state: Option<&mut ChoiceState>, call: CallDelta<'_>) -> ProviderToken {
    let id = call.id.filled();
    let Function { name, arguments } = call.function.0.or(call.custom.0).unwrap_or_default();
    let name = name.filled();
    let call_id = id.as_deref().map(fingerprint);
    let index = match (call.index.0, state) {
        (Some(index), Some(state)) => {
            let index = small(Some(index));
            if state.call_index != Some(index) {
                state.call_index = Some(index);
                state.call_id = None;
            }
            // Ollama and some proxies number all calls 0. This needs a name, as some servers send another id with each
            // piece of a call.
            let known = state.call_id.is_some() && call_id.is_some();
            if known && state.call_id != call_id && name.is_some() {
                state.reused = state.reused.saturating_add(1);
            }
            state.call_id = call_id.or(state.call_id);
            let index = index.saturating_add(state.reused);
            state.calls = state.calls.max(index.saturating_add(1));
            index
        }
        (None, Some(state)) => {
            // A new id begins a new call. Without any id, a name does.
            let begins = match call_id {
                Some(_) => state.call_id != call_id,
                None => name.is_some(),
            };
            if begins || state.calls == 0 {
                state.calls = state.calls.saturating_add(1);
                state.call_id = call_id;
            }
            state.calls - 1
        }
        (index, None) => small(index),
    };
    let mut piece = ToolCall::new(index);
    piece.id = id.map(Cow::into_owned);
    piece.name = name.map(Cow::into_owned);
    piece.arguments = arguments.0.into_owned();
    let mut token = ProviderToken::tool_call(piece);
    token.choice = choice;
    token
}
