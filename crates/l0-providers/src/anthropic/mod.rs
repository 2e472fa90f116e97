//! Anthropic's Messages API.
//!
//! # When a response is complete
//!
//! A stop reason completes it, with or without `message_stop` after it. `message_stop` without a stop reason completes
//! it too, and yields a last token with [`FinishReason::Other`]. A stream that ends with neither is truncated. The
//! decoder ends as soon as it has read `message_stop`.
//!
//! # Content blocks
//!
//! A block can arrive whole: at its start, at its end, or in a message that is not streamed. Its content is yielded
//! once. Files (`container_upload`) yield tokens of kind [`Media`](TokenKind::Media). So do images and audio from other
//! servers that speak this format.
//!
//! # Token counts
//!
//! Counts arrive in parts. Each token that carries them has all counts known so far. Anthropic's `input_tokens`
//! excludes tokens read from a cache or written to it; [`input`](l0_core::Usage::input) includes them. Tokens that are
//! billed in addition to Anthropic's own counts are added: the `iterations` that compact the conversation or call
//! another model.
//!
//! # Tool calls
//!
//! A call yields one token per piece of its input. The first token has the name and the id. A call without any piece
//! yields one token when its block ends. Calls of Anthropic's own tools (`server_tool_use`) and of MCP servers
//! (`mcp_tool_use`) are read like calls of your tools. Their results are not read.
//!
//! # Errors
//!
//! An `error` event is a [`ProviderError::Api`](crate::ProviderError::Api), and the last item. So is a stop reason with
//! which a gateway reports its own failure, such as `network_error`.

use std::mem::take;

use bytes::Bytes;
use futures_core::Stream;
use l0_core::{FinishReason, TokenKind};

use crate::decode::{Decoder, Dialect, Metadata, Out, Unreadable, parse};
use crate::error::ApiError;
use crate::finish::Finish;
use crate::lenient::Text;
use crate::report::api_error;
use crate::response::{Calls, Given, Identity, Place, is_media};
use crate::token::ProviderToken;
use crate::usage::Counted;

#[cfg(feature = "reqwest")]
mod client;
mod payload;

#[cfg(feature = "reqwest")]
pub use client::{Anthropic, Client, from_response};

use payload::{Block, Delta, Message, Payload};

/// Decodes the body of a streamed message, as its bytes arrive.
///
/// `body` is any stream of chunks, such as `reqwest::Response::bytes_stream()`. Chunks can end anywhere. Errors of the
/// body are yielded as [`ProviderError::Transport`](crate::ProviderError::Transport).
///
/// ```
/// use std::convert::Infallible;
///
/// use futures_util::{StreamExt, stream};
/// use l0_core::FinishReason;
/// use l0_providers::anthropic;
///
/// # futures_util::FutureExt::now_or_never(async {
/// let body = stream::iter([
///     Ok::<_, Infallible>("data: {\"type\": \"content_block_delta\", \"delta\": {\"type\": \"text_delta\", "),
///     Ok("\"text\": \"Hi\"}}\n\n"),
///     Ok("data: {\"type\": \"message_delta\", \"delta\": {\"stop_reason\": \"end_turn\"}}\n\n"),
/// ]);
/// let tokens: Vec<_> = anthropic::decode(body).map(Result::unwrap).collect().await;
/// assert_eq!(tokens[0].text, "Hi");
/// assert_eq!(tokens[1].finish, Some(FinishReason::Stop));
/// # }).unwrap();
/// ```
pub fn decode<S, B, E>(body: S) -> Decoder<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
{
    Decoder::new(body, Messages::default())
}

/// State of one response.
#[derive(Default)]
struct Messages {
    identity: Identity,
    counted: Counted,
    calls: Calls,
    given: Given,
    finish_sent: bool,
}

impl Dialect for Messages {
    fn payload(&mut self, name: &str, json: &str, out: &mut Out) -> Result<(), Unreadable> {
        let mut payload = Payload::default();
        parse(json, &mut payload)?;
        let kind = match payload.kind.as_str() {
            "" => name,
            kind => kind,
        };
        let key = payload.index.0.unwrap_or_default();
        match kind {
            "content_block_delta" => {
                if let Some(delta) = &mut payload.delta.0 {
                    self.delta(key, delta, out);
                }
            }
            "content_block_start" => self.start(key, *payload.block.0.unwrap_or_default(), out),
            "content_block_stop" => {
                // Some servers send whole blocks, sometimes after their pieces.
                match payload.block.0 {
                    Some(block) if !self.has_begun(key) => self.start(key, *block, out),
                    _ => {}
                }
                self.flush(out);
            }
            // An answer that is not streamed.
            "message" => {
                let mut message = Message::default();
                parse(json, &mut message)?;
                self.message(message, out);
            }
            "message_start" => {
                self.message(*payload.message.0.unwrap_or_default(), out);
            }
            "message_delta" => {
                self.flush(out);
                let counts = payload.usage.0;
                let usage = counts.and_then(|counts| self.counted.add(&counts));
                out.add_metadata(Metadata {
                    usage,
                    ..Metadata::default()
                });
                self.stopped(payload.delta.0.unwrap_or_default().stop_reason, out);
            }
            "message_stop" => self.over(out),
            // Gateways use other names for the last event.
            _ if kind.strip_prefix("message_").is_some_and(is_end) => self.over(out),
            "error" => out.fail(api_error(json)),
            // Not an event of this API, but an error from a proxy.
            _ if payload.error.error(true).is_some() => out.fail(api_error(json)),
            _ => {}
        }
        Ok(())
    }
}

impl Messages {
    /// Reads a message: its start, almost always without content, or all of it.
    fn message(&mut self, message: Message<'_>, out: &mut Out) {
        // After calls from code that Anthropic runs, a message arrives whole: with the next call, and without events
        // for its blocks.
        for (key, block) in (0..).zip(message.content) {
            self.start(key, block, out);
        }
        if message.stop_reason.0.is_some() {
            self.flush(out);
        }
        let metadata = self
            .identity
            .update(message.model.as_str(), message.id.as_str());
        let counts = message.usage.0;
        let usage = counts.and_then(|counts| self.counted.add(&counts));
        out.add_metadata(Metadata { usage, ..metadata });
        self.stopped(message.stop_reason, out);
    }

    /// Handles the last event.
    fn over(&mut self, out: &mut Out) {
        self.flush(out);
        if !self.finish_sent {
            out.add_metadata(Metadata {
                finish: Some(FinishReason::Other),
                ..Metadata::default()
            });
        }
        out.end();
    }

    /// Returns `true` if a part of this block was yielded.
    fn has_begun(&self, key: u64) -> bool {
        let any = |kind| Place {
            kind,
            item: Some(key),
            part: None,
        };
        let kinds = [TokenKind::Text, TokenKind::Reasoning, TokenKind::Media];
        !self.calls.is_new(key) || kinds.into_iter().any(|kind| self.given.has(any(kind)))
    }

    /// Reads a content block: its start, almost always without content, or all of it.
    fn start(&mut self, key: u64, block: Block<'_>, out: &mut Out) {
        self.flush(out);
        match block.kind.as_str() {
            "text" => self.push_text(TokenKind::Text, key, block.text, out),
            "tool_use" | "server_tool_use" | "mcp_tool_use" => {
                let hosted = block.kind.as_str() != "tool_use";
                let id = block.id.filled().map(|id| id.into_owned());
                let name = block.name.filled().map(|name| name.into_owned());
                self.calls.announce(key, id, name, hosted);
                // Some servers send the whole call at once.
                if !matches!(&*block.input.0, "" | "{}") {
                    out.push(self.calls.piece(key, &block.input.0));
                }
            }
            // Encrypted text.
            "redacted_thinking" => {}
            kind if is_reasoning(kind) => {
                let text = block.thinking.0.or(block.text);
                self.push_text(TokenKind::Reasoning, key, text, out);
            }
            kind if is_media(kind) => {
                self.note(TokenKind::Media, key);
                out.push(ProviderToken::new(TokenKind::Media, ""));
            }
            // Results of tools.
            _ => {}
        }
    }

    fn delta(&mut self, key: u64, delta: &mut Delta<'_>, out: &mut Out) {
        match delta.kind.as_str() {
            "text_delta" => self.push_text(TokenKind::Text, key, take(&mut delta.text), out),
            "input_json_delta" => {
                out.push(self.calls.piece(key, delta.partial_json.as_str()));
            }
            kind if is_reasoning(kind) => {
                let text = take(&mut delta.thinking.0).or(take(&mut delta.text));
                self.push_text(TokenKind::Reasoning, key, text, out);
            }
            kind if is_media(kind) => {
                self.note(TokenKind::Media, key);
                out.push(ProviderToken::new(TokenKind::Media, ""));
            }
            // Some servers do not send the type.
            "" => {
                self.push_text(TokenKind::Reasoning, key, take(&mut delta.thinking.0), out);
                self.push_text(TokenKind::Text, key, take(&mut delta.text), out);
                if let Some(json) = take(&mut delta.partial_json).filled() {
                    out.push(self.calls.piece(key, &json));
                }
            }
            // Signatures and citations.
            _ => {}
        }
    }

    fn note(&mut self, kind: TokenKind, key: u64) {
        self.given.note(Place {
            kind,
            item: Some(key),
            part: None,
        });
    }

    /// Pushes a token with this text, unless it is empty.
    fn push_text(&mut self, kind: TokenKind, key: u64, text: Text<'_>, out: &mut Out) {
        if let Some(text) = text.filled() {
            self.note(kind, key);
            out.push(ProviderToken::new(kind, text));
        }
    }

    /// Pushes a call that received no piece.
    fn flush(&mut self, out: &mut Out) {
        if let Some(call) = self.calls.flush() {
            out.push(call);
        }
    }

    fn stopped(&mut self, reason: Text<'_>, out: &mut Out) {
        let Some(reason) = reason.filled() else {
            return;
        };
        // `pause_turn` is another reason: the turn continues with a further request.
        let Some(finish) = Finish::read(&reason) else {
            return;
        };
        self.finish_sent = true;
        let last = out.last_or_other(0);
        if finish == Finish::Failed {
            let error = ApiError::finish(&reason);
            last.finish_reason = Some(reason.into_owned());
            out.fail(error);
            return;
        }
        last.finish = Some(finish.reason());
        last.finish_reason = Some(reason.into_owned());
    }
}

/// Returns `true` if a block of this kind, or a piece of it, is reasoning.
fn is_reasoning(kind: &str) -> bool {
    kind.contains("thinking") || kind.contains("reasoning")
}

/// Returns `true` if this word means that the message has ended.
fn is_end(word: &str) -> bool {
    Finish::read(word) == Some(Finish::Ended(FinishReason::Stop))
}
