//! Anthropic's Messages API.
//!
//! # When a response is complete
//!
//! A stop reason completes it, with or without `message_stop` after it; so does `message_stop`
//! without a stop reason, which gives a last token with [`FinishReason::Other`]. A stream that ends
//! with neither was cut. After `message_stop` the decoder ends at once.
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
use crate::response::{Calls, Identity};
use crate::token::ProviderToken;
use crate::usage::Counted;

#[cfg(feature = "reqwest")]
mod client;
mod payload;

#[cfg(feature = "reqwest")]
pub use client::{Anthropic, Client, from_response};

use payload::{Block, Delta, Payload};

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
            "content_block_stop" => self.flush(out),
            "message_start" => {
                let message = payload.message.0.unwrap_or_default();
                // After calls from within code that Anthropic runs, a message comes whole: with the
                // next call, and without events for its blocks.
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
            "message_stop" => {
                self.flush(out);
                if !self.finish_sent {
                    out.say(Said {
                        finish: Some(FinishReason::Other),
                        ..Said::default()
                    });
                }
                out.end();
            }
            "error" => out.fail(api_error(json)),
            // Not an event of this API: a proxy's error.
            _ if payload.error.error(true).is_some() => out.fail(api_error(json)),
            _ => {}
        }
        Ok(())
    }
}

impl Messages {
    /// The beginning of a content block, almost always without content.
    fn start(&mut self, key: u64, block: Block<'_>, out: &mut Out) {
        self.flush(out);
        match block.kind.as_str() {
            "text" => text(TokenKind::Text, block.text, out),
            "thinking" => text(TokenKind::Reasoning, block.thinking, out),
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
            // Redacted thinking, results of tools.
            _ => {}
        }
    }

    fn delta(&mut self, key: u64, delta: Delta<'_>, out: &mut Out) {
        match delta.kind.as_str() {
            "text_delta" => text(TokenKind::Text, delta.text, out),
            "thinking_delta" => text(TokenKind::Reasoning, delta.thinking, out),
            "input_json_delta" => {
                out.push(self.calls.piece(key, delta.partial_json.as_str()));
            }
            // Signatures, citations.
            _ => {}
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

/// A token with this text, unless it is empty.
fn text(kind: TokenKind, text: Text<'_>, out: &mut Out) {
    if let Some(text) = text.filled() {
        out.push(ProviderToken::new(kind, text));
    }
}
