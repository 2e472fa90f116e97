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
//! [`ProviderError::Api`](crate::ProviderError::Api); what the same payload says besides (text, counts) comes before it. It
//! is the last item. So are finish reasons by which a provider says that it failed, such as `error`,
//! `network_error` and `insufficient_system_resource`.

use std::borrow::Cow;

use bytes::Bytes;
use futures_core::Stream;
use l0_core::{FinishReason, TokenKind, Usage};

use crate::decode::{Decoder, Dialect, Out, Unreadable, other, parse};
use crate::error::ApiError;
use crate::finish::Finish;
use crate::lenient::{Count, Object, Text};
use crate::report::{ErrorObject, api_error, read_error};
use crate::response::{Choice as ChoiceState, Choices, Identity, fingerprint, small};
use crate::token::{ProviderToken, ToolCall};
use crate::usage::Counted;

#[cfg(feature = "reqwest")]
mod client;
mod payload;
mod request;
#[cfg(feature = "responses")]
pub mod responses;

#[cfg(feature = "reqwest")]
pub use client::{Client, OpenAi, from_response};
pub use request::ChatRequest;

use payload::{CallDelta, Choice, Delta, Function, Payload, append};

/// Decodes the body of a Chat Completions response, as its bytes arrive.
///
/// `body` is any stream of chunks, such as `reqwest::Response::bytes_stream()`; where it is cut
/// into chunks does not matter. Its errors come out typed, as
/// [`ProviderError::Transport`](crate::ProviderError::Transport).
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

/// What one response said so far.
#[derive(Default)]
struct Chat {
    identity: Identity,
    choices: Choices,
    counted: Counted,
    finish_sent: bool,
}

impl Dialect for Chat {
    fn payload(&mut self, name: &str, json: &str, out: &mut Out) -> Result<(), Unreadable> {
        let payload: Payload<'_> = parse(json)?;
        let beside_choices = !payload.choices.is_empty();
        let words = [name, payload.object.as_str(), payload.kind.as_str()];
        let is_error = words.contains(&"error");

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
            let counts = x_groq.usage.0.and_then(|counts| self.counted.add(&counts));
            usage = counts.or(usage);
            error = error.or(x_groq.error.error(beside_choices));
        }

        let mut said = self
            .identity
            .news(payload.model.as_str(), payload.id.as_str());
        let counts = payload.usage.0;
        said.usage = counts
            .and_then(|counts| self.counted.add(&counts))
            .or(usage);
        if failed_finish.is_none() && finished && self.choices.all_finished() {
            said.finish = self.choices.first_finish();
            self.finish_sent = true;
        }
        out.say(said);

        match (error, failed_finish) {
            // Without choices, the status and more may stand beside the error object.
            (Some(error), _) if beside_choices => out.fail(error.into_api_error(None)),
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
        if !self.finish_sent {
            let finish = self.choices.first_finish().unwrap_or(FinishReason::Other);
            out.push(other(0)).finish = Some(finish);
        }
    }
}

impl Chat {
    fn choice<'a>(&mut self, choice: Choice<'a>, out: &mut Out) -> ReadChoice<'a> {
        let index = small(choice.index.0);
        let first = out.len();
        let delta = match choice.delta.0 {
            Some(delta) => delta,
            None => choice.message.0.map(|message| *message).unwrap_or_default(),
        };
        let Delta {
            content,
            reasoning_content,
            reasoning,
            reasoning_details,
            refusal,
            tool_calls,
            function_call,
        } = delta;

        // Some servers send the same reasoning under several names.
        let reasoning = reasoning_content.filled().or_else(|| reasoning.filled());
        let reasoning = reasoning.or_else(|| {
            let mut all = Text::default();
            for detail in reasoning_details {
                append(&mut all, detail.text);
            }
            all.filled()
        });
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
        let mut state = self.choices.of(index);
        for call in tool_calls {
            out.push(tool_call(index, state.as_deref_mut(), call));
        }
        if function_call.0.is_some() {
            let call = CallDelta {
                index: Count(Some(0)),
                function: Object(function_call.0.map(|function| *function)),
                ..CallDelta::default()
            };
            out.push(tool_call(index, state.as_deref_mut(), call));
        }

        let reason = choice.finish_reason.filled();
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
            usage: choice.usage.0.and_then(|counts| self.counted.add(&counts)),
            error: choice.error.error(true),
        }
    }
}

/// What a choice says besides its tokens.
struct ReadChoice<'a> {
    finished: bool,
    /// The finish reason, if it says that the provider failed.
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
            // Ollama and some proxies give all calls the number 0. Only with a name, as there are
            // servers that send another id with each piece of a call.
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
            // A new id begins a new call; without any id, a name does.
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
