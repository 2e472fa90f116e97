//! Ollama's own API: `/api/chat` and `/api/generate`, whose answers are lines of JSON.
//!
//! Ollama speaks Chat Completions too, below `/v1`, which [`openai`](crate::openai) reads. Its own API
//! has what that one leaves out: options of the model (`options`), how long it stays loaded
//! (`keep_alive`), whether it thinks (`think`).
//!
//! # When a response is complete
//!
//! The line with `"done": true` completes it, and the decoder ends at once. A stream that ends without
//! one was cut. Its reason is [`finish`](ProviderToken::finish); without a reason, as older servers send
//! it, that is [`FinishReason::Other`]. Ollama says `stop` also where it asks for calls: the finish is
//! then [`FinishReason::ToolCalls`].
//!
//! A request without messages or prompt loads the model, or with `"keep_alive": 0` unloads it. Its answer
//! is empty and its reason `load` or `unload`. Make it as a call (`chat_once`, `generate_once`): a run
//! takes an answer without text for a failure.
//!
//! # Token counts
//!
//! They come with the last line. The thinking is in the [`output`](l0_core::Usage::output), and how much
//! of it there is, Ollama does not say. Without `prompt_eval_count`, which older servers leave out when
//! they have the prompt in their cache, [`input`](l0_core::Usage::input) is absent.
//!
//! # Tool calls
//!
//! Each is one token, with the name and all of the arguments. Older servers give them no id.
//!
//! # Errors
//!
//! An error in the stream is a [`ProviderError::Api`](crate::ProviderError::Api), and the last item. It
//! has neither a type nor a status, as Ollama tells the status only before the stream has begun. Unless
//! its words say otherwise it is read as the server's failure, which it is there: errors of the request
//! come before.

use std::borrow::Cow;

use bytes::Bytes;
use futures_core::Stream;
use l0_core::{Failure, FinishReason, TokenKind};

use crate::decode::{Decoder, Dialect, Out, Unreadable, parse};
use crate::error::ApiError;
use crate::finish::Finish;
use crate::frames::Framing;
use crate::report::api_error;
use crate::response::Identity;
use crate::token::{ProviderToken, ToolCall};
use crate::usage::Counted;

#[cfg(feature = "reqwest")]
mod client;
mod payload;

#[cfg(feature = "reqwest")]
pub use client::{Client, Ollama, from_response};

use payload::{Message, Payload};

/// Decodes the body of a response of `/api/chat` or `/api/generate`, as its bytes arrive.
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
/// use l0_providers::ollama;
///
/// # futures_util::FutureExt::now_or_never(async {
/// let body = stream::iter([
///     Ok::<_, Infallible>("{\"message\": {\"content\": \"Hi\"}, \"done\": false}\n{\"done\""),
///     Ok(": true, \"done_reason\": \"stop\"}\n"),
/// ]);
/// let tokens: Vec<_> = ollama::decode(body).map(Result::unwrap).collect().await;
/// assert_eq!(tokens[0].text, "Hi");
/// assert_eq!(tokens[1].finish, Some(FinishReason::Stop));
/// # }).unwrap();
/// ```
pub fn decode<S, B, E>(body: S) -> Decoder<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
{
    Decoder::new(body, Reply::default())
}

/// What one response said so far.
#[derive(Default)]
struct Reply {
    identity: Identity,
    counted: Counted,
    /// How many tool calls there are.
    calls: u32,
    heard: Heard,
}

/// Whose lines have come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Heard {
    #[default]
    Nothing,
    /// Lines that no answer of this API has.
    Strange,
    Answer,
}

impl Dialect for Reply {
    fn framing(&self) -> Framing {
        Framing::Lines
    }

    fn payload(&mut self, _: &str, json: &str, out: &mut Out) -> Result<(), Unreadable> {
        let payload: Payload<'_> = parse(json)?;
        if payload.is_answer {
            self.heard = Heard::Answer;
        } else if self.heard == Heard::Nothing {
            self.heard = Heard::Strange;
        }
        self.message(payload.own, out);
        self.message(payload.message.0.unwrap_or_default(), out);

        let mut said = self.identity.news(payload.model.as_str(), "");
        said.usage = self.counted.add(&payload.counts);
        let reason = payload.done_reason.filled();
        let finish = reason.as_deref().and_then(Finish::read);
        let is_error = payload.error.error(payload.is_answer).is_some();
        let failed = finish == Some(Finish::Failed);
        let done = payload.done.0 && !is_error && !failed;
        if done {
            said.finish = Some(match finish.map_or(FinishReason::Other, Finish::reason) {
                FinishReason::Stop if self.calls > 0 => FinishReason::ToolCalls,
                reason => reason,
            });
        }
        out.say(said);
        if is_error {
            out.fail(api_error(json).unless_told(Failure::server()));
        } else if let (true, Some(reason)) = (failed, &reason) {
            out.fail(ApiError::finish(reason));
        } else if done {
            out.last_or_other(0).finish_reason = reason.map(Cow::into_owned);
            out.end();
        }
        Ok(())
    }

    fn is_strange(&self) -> bool {
        self.heard == Heard::Strange
    }
}

impl Reply {
    fn message(&mut self, message: Message<'_>, out: &mut Out) {
        if let Some(text) = message.thinking.0.filled() {
            out.push(ProviderToken::new(TokenKind::Reasoning, text));
        }
        if let Some(text) = message.content.filled() {
            out.push(ProviderToken::new(TokenKind::Text, text));
        }
        if message.images {
            out.push(ProviderToken::new(TokenKind::Media, ""));
        }
        for call in message.tool_calls {
            let Some(function) = call.function.0 else {
                continue;
            };
            // Ollama's own numbers of calls begin anew with each line in some versions.
            let mut piece = ToolCall::new(self.calls);
            piece.id = call.id.filled().map(Cow::into_owned);
            piece.name = function.name.filled().map(Cow::into_owned);
            piece.arguments = function.arguments.0.into_owned();
            self.calls = self.calls.saturating_add(1);
            out.push(ProviderToken::tool_call(piece));
        }
    }
}
