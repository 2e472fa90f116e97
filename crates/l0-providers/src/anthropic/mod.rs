//! Anthropic's Messages API.
//!
//! # When a response is complete
//!
//! A stop reason completes it, with or without `message_stop` after it; so does `message_stop`
//! without a stop reason, which gives a last token with [`FinishReason::Other`]. A stream that ends
//! with neither was cut. After `message_stop` the decoder ends at once.
//!
//! # What counts
//!
//! Blocks that come whole, at their beginning, at their end or in a message that is not streamed, are
//! given once. Files (`container_upload`), and the images and audio of servers that speak this
//! format, give tokens of kind [`Media`](TokenKind::Media).
//!
//! # Token counts
//!
//! They come in parts, and each token that carries them has all that are known so far. Anthropic's
//! `input_tokens` leaves out what was read from a cache or written to it;
//! [`input`](l0_core::Usage::input) has it. What is billed beside Anthropic's own counts
//! (the `iterations` that shorten the conversation or ask another model) is added.
//!
//! # Tool calls
//!
//! A call gives one token per piece of its input, the first of them with the name and the id. A call
//! without any piece gives one token when its block ends. Calls of Anthropic's own tools
//! (`server_tool_use`) and of MCP servers (`mcp_tool_use`) are read like those of the user's; their
//! results are not.
//!
//! # Errors
//!
//! An `error` event is a [`ProviderError::Api`](crate::ProviderError::Api), and the last item. So is
//! a stop reason by which a gateway says that it failed, such as `network_error`.

use bytes::Bytes;
use futures_core::Stream;
use l0_core::{FinishReason, TokenKind};

use crate::decode::{Decoder, Dialect, Out, Said, Unreadable, parse};
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
/// `body` is any stream of chunks, such as `reqwest::Response::bytes_stream()`; where it is cut
/// into chunks does not matter. Its errors come out typed, as
/// [`ProviderError::Transport`](crate::ProviderError::Transport).
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

/// What one response said so far.
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
        let payload: Payload<'_> = parse(json)?;
        let kind = match payload.kind.as_str() {
            "" => name,
            kind => kind,
        };
        let key = payload.index.0.unwrap_or_default();
        match kind {
            "content_block_delta" => self.delta(key, payload.delta.0.unwrap_or_default(), out),
            "content_block_start" => self.start(key, payload.block.0.unwrap_or_default(), out),
            "content_block_stop" => {
                // From servers that send blocks whole, perhaps after their pieces.
                match payload.block.0 {
                    Some(block) if !self.has_begun(key) => self.start(key, block, out),
                    _ => {}
                }
                self.flush(out);
            }
            // An answer that is not streamed.
            "message" => {
                let message: Message<'_> = parse(json)?;
                self.message(message, out);
            }
            "message_start" => {
                self.message(payload.message.0.unwrap_or_default(), out);
            }
            "message_delta" => {
                self.flush(out);
                let counts = payload.usage.0;
                let usage = counts.and_then(|counts| self.counted.add(&counts));
                out.say(Said {
                    usage,
                    ..Said::default()
                });
                self.stopped(payload.delta.0.unwrap_or_default().stop_reason, out);
            }
            "message_stop" => self.over(out),
            // Gateways name the last event otherwise.
            _ if kind.strip_prefix("message_").is_some_and(is_end) => self.over(out),
            "error" => out.fail(api_error(json)),
            // Not an event of this API: a proxy's error.
            _ if payload.error.error(true).is_some() => out.fail(api_error(json)),
            _ => {}
        }
        Ok(())
    }
}

impl Messages {
    /// A message at its beginning, almost always without content; or all of it.
    fn message(&mut self, message: Message<'_>, out: &mut Out) {
        // After calls from within code that Anthropic runs, a message comes whole: with the next
        // call, and without events for its blocks.
        for (key, block) in (0..).zip(message.content) {
            self.start(key, block, out);
        }
        if message.stop_reason.0.is_some() {
            self.flush(out);
        }
        let said = self
            .identity
            .news(message.model.as_str(), message.id.as_str());
        let counts = message.usage.0;
        let usage = counts.and_then(|counts| self.counted.add(&counts));
        out.say(Said { usage, ..said });
        self.stopped(message.stop_reason, out);
    }

    /// The last event.
    fn over(&mut self, out: &mut Out) {
        self.flush(out);
        if !self.finish_sent {
            out.say(Said {
                finish: Some(FinishReason::Other),
                ..Said::default()
            });
        }
        out.end();
    }

    /// Whether something of this block was given.
    fn has_begun(&self, key: u64) -> bool {
        let any = |kind| Place {
            kind,
            item: Some(key),
            part: None,
        };
        let kinds = [TokenKind::Text, TokenKind::Reasoning, TokenKind::Media];
        !self.calls.is_new(key) || kinds.into_iter().any(|kind| self.given.has(any(kind)))
    }

    /// A content block at its beginning, almost always without content; or all of it.
    fn start(&mut self, key: u64, block: Block<'_>, out: &mut Out) {
        self.flush(out);
        match block.kind.as_str() {
            "text" => self.give(TokenKind::Text, key, block.text, out),
            "tool_use" | "server_tool_use" | "mcp_tool_use" => {
                let hosted = block.kind.as_str() != "tool_use";
                let id = block.id.filled().map(|id| id.into_owned());
                let name = block.name.filled().map(|name| name.into_owned());
                self.calls.announce(key, id, name, hosted);
                // From servers that send the whole call at once.
                if !matches!(&*block.input.0, "" | "{}") {
                    out.push(self.calls.piece(key, &block.input.0));
                }
            }
            // Its text is encrypted.
            "redacted_thinking" => {}
            kind if is_reasoning(kind) => {
                let text = block.thinking.0.or(block.text);
                self.give(TokenKind::Reasoning, key, text, out);
            }
            kind if is_media(kind) => {
                self.note(TokenKind::Media, key);
                out.push(ProviderToken::new(TokenKind::Media, ""));
            }
            // Results of tools.
            _ => {}
        }
    }

    fn delta(&mut self, key: u64, delta: Delta<'_>, out: &mut Out) {
        match delta.kind.as_str() {
            "text_delta" => self.give(TokenKind::Text, key, delta.text, out),
            "input_json_delta" => {
                out.push(self.calls.piece(key, delta.partial_json.as_str()));
            }
            kind if is_reasoning(kind) => {
                let text = delta.thinking.0.or(delta.text);
                self.give(TokenKind::Reasoning, key, text, out);
            }
            kind if is_media(kind) => {
                self.note(TokenKind::Media, key);
                out.push(ProviderToken::new(TokenKind::Media, ""));
            }
            // From servers that do not say what it is.
            "" => {
                self.give(TokenKind::Reasoning, key, delta.thinking.0, out);
                self.give(TokenKind::Text, key, delta.text, out);
                if let Some(json) = delta.partial_json.filled() {
                    out.push(self.calls.piece(key, &json));
                }
            }
            // Signatures, citations.
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

    /// A token with this text, unless it is empty.
    fn give(&mut self, kind: TokenKind, key: u64, text: Text<'_>, out: &mut Out) {
        if let Some(text) = text.filled() {
            self.note(kind, key);
            out.push(ProviderToken::new(kind, text));
        }
    }

    /// Gives a call that got no piece.
    fn flush(&mut self, out: &mut Out) {
        if let Some(call) = self.calls.flush() {
            out.push(call);
        }
    }

    fn stopped(&mut self, reason: Text<'_>, out: &mut Out) {
        let Some(reason) = reason.filled() else {
            return;
        };
        // `pause_turn` is another reason: the turn goes on with a further request.
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

/// Whether a block or a piece of it is of reasoning.
fn is_reasoning(kind: &str) -> bool {
    kind.contains("thinking") || kind.contains("reasoning")
}

/// Whether a word says that the message is over.
fn is_end(word: &str) -> bool {
    Finish::read(word) == Some(Finish::Ended(FinishReason::Stop))
}
