//! Ollama's own API: `/api/chat` and `/api/generate`, which answer with lines of JSON.
//!
//! Ollama also speaks Chat Completions below `/v1`, which [`openai`](crate::openai) reads. Its own API has more:
//! options of the model (`options`), how long it stays loaded (`keep_alive`), and thinking (`think`).
//!
//! # When a response is complete
//!
//! The line with `"done": true` completes it, and the decoder ends at once. A stream that ends without one is
//! truncated. The reason in the line is [`finish`](ProviderToken::finish). Older servers send no reason; the finish is
//! then [`FinishReason::Other`]. Ollama sends `stop` even if it asks for tool calls; the finish is then
//! [`FinishReason::ToolCalls`].
//!
//! A request without messages or a prompt loads the model, or unloads it with `"keep_alive": 0`. Its answer is empty,
//! and its reason is `load` or `unload`. Send it as a call (`chat_once`, `generate_once`), as a run reports an answer
//! without text as a failure.
//!
//! # Token counts
//!
//! Counts arrive with the last line. The [`output`](l0_core::Usage::output) includes the thinking, but Ollama does not
//! report its share. Older servers omit `prompt_eval_count` if the prompt is in their cache;
//! [`input`](l0_core::Usage::input) is then absent.
//!
//! # Tool calls
//!
//! Each call is one token, with the name and all arguments. Calls of older servers have no id.
//!
//! # Errors
//!
//! An error in the stream is a [`ProviderError::Api`](crate::ProviderError::Api), and the last item. It has neither a
//! type nor a status, as Ollama sends the status before the stream begins. Errors of the request are reported before
//! the stream, so an error in it is read as a server failure unless its message says otherwise.

use std::borrow::Cow;
use std::mem::take;

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
/// `body` is any stream of chunks, such as `reqwest::Response::bytes_stream()`. Chunks can end anywhere. Errors of the
/// body are yielded as [`ProviderError::Transport`](crate::ProviderError::Transport).
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

/// State of one response.
#[derive(Default)]
struct Reply {
    identity: Identity,
    counted: Counted,
    /// Number of tool calls.
    calls: u32,
    lines: Lines,
}

/// The protocol of the lines so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Lines {
    #[default]
    Nothing,
    /// Lines that do not belong to an answer of this API.
    Foreign,
    Answer,
}

impl Dialect for Reply {
    fn framing(&self) -> Framing {
        Framing::Lines
    }

    fn payload(&mut self, _: &str, json: &str, out: &mut Out) -> Result<(), Unreadable> {
        let mut payload = Payload::default();
        parse(json, &mut payload)?;
        if payload.is_answer {
            self.lines = Lines::Answer;
        } else if self.lines == Lines::Nothing {
            self.lines = Lines::Foreign;
        }
        self.message(&mut payload.own, out);
        if let Some(message) = &mut payload.message.0 {
            self.message(message, out);
        }

        let mut metadata = self.identity.update(payload.model.as_str(), "");
        metadata.usage = self.counted.add(&payload.counts);
        let reason = payload.done_reason.filled();
        let finish = reason.as_deref().and_then(Finish::read);
        let is_error = payload.error.error(payload.is_answer).is_some();
        let failed = finish == Some(Finish::Failed);
        let done = payload.done.0 && !is_error && !failed;
        if done {
            metadata.finish = Some(match finish.map_or(FinishReason::Other, Finish::reason) {
                FinishReason::Stop if self.calls > 0 => FinishReason::ToolCalls,
                reason => reason,
            });
        }
        out.add_metadata(metadata);
        if is_error {
            out.fail(api_error(json).unless_classified(Failure::server()));
        } else if let (true, Some(reason)) = (failed, &reason) {
            out.fail(ApiError::finish(reason));
        } else if done {
            out.last_or_other(0).finish_reason = reason.map(Cow::into_owned);
            out.end();
        }
        Ok(())
    }

    fn is_foreign(&self) -> bool {
        self.lines == Lines::Foreign
    }
}

impl Reply {
    fn message(&mut self, message: &mut Message<'_>, out: &mut Out) {
        if let Some(text) = take(&mut message.thinking.0).filled() {
            out.push(ProviderToken::new(TokenKind::Reasoning, text));
        }
        if let Some(text) = take(&mut message.content).filled() {
            out.push(ProviderToken::new(TokenKind::Text, text));
        }
        if message.images {
            out.push(ProviderToken::new(TokenKind::Media, ""));
        }
        for call in take(&mut message.tool_calls) {
            let Some(function) = call.function.0 else {
                continue;
            };
            // Some versions of Ollama restart the numbers of calls on each line.
            let mut piece = ToolCall::new(self.calls);
            piece.id = call.id.filled().map(Cow::into_owned);
            piece.name = function.name.filled().map(Cow::into_owned);
            piece.arguments = function.arguments.0.into_owned();
            self.calls = self.calls.saturating_add(1);
            out.push(ProviderToken::tool_call(piece));
        }
    }
}
