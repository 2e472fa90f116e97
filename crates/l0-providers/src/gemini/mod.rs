//! Google's Gemini API: `streamGenerateContent?alt=sse`, including Vertex AI's.
//!
//! # When a response is complete
//!
//! It is complete when every candidate seen so far has a finish reason. A blocked prompt completes it too: the block
//! reason is then the finish reason. A stream that ends without either is truncated. The decoder reads to the end of
//! the body.
//!
//! Gemini sends `STOP` even if it asks for tool calls. [`finish`](ProviderToken::finish) is then
//! [`FinishReason::ToolCalls`].
//!
//! # Media
//!
//! Images, audio and other files, inline or by address, yield tokens of kind [`Media`](TokenKind::Media).
//!
//! # Token counts
//!
//! Counts arrive with every payload and are cumulative. Gemini's `candidatesTokenCount` excludes the thinking, and its
//! `promptTokenCount` the results of its own tools, unless `totalTokenCount` shows otherwise.
//! [`output`](l0_core::Usage::output) and [`input`](l0_core::Usage::input) include them.
//!
//! # Tool calls
//!
//! Each `functionCall` part is one token, with the name and all arguments. Vertex AI can stream the arguments. The
//! first token then has the name, and each token has the `partialArgs` as sent.
//!
//! # Errors
//!
//! An error in the stream is a [`ProviderError::Api`](crate::ProviderError::Api), and the last item. Other content of
//! the same payload comes before it. A finish reason with which a gateway reports its own failure, such as `ERROR`, is
//! an error too.

use std::borrow::Cow;
use std::mem::take;

use bytes::Bytes;
use futures_core::Stream;
use l0_core::{FinishReason, TokenKind};

use crate::decode::{Decoder, Dialect, Out, Unreadable, other, parse};
use crate::error::ApiError;
use crate::finish::Finish;
use crate::report::api_error;
use crate::response::{Choice, Choices, Identity, small};
use crate::token::{ProviderToken, ToolCall};
use crate::usage::Counted;

#[cfg(feature = "reqwest")]
mod client;
mod payload;

#[cfg(feature = "reqwest")]
pub use client::{Client, Gemini, from_response};

use payload::{Candidate, FunctionCall, Payload};

/// Decodes the body of a streamed response, as its bytes arrive.
///
/// `body` is any stream of chunks, such as `reqwest::Response::bytes_stream()`. Chunks can end anywhere. Errors of the
/// body are yielded as [`ProviderError::Transport`](crate::ProviderError::Transport).
///
/// ```
/// use std::convert::Infallible;
///
/// use futures_util::{StreamExt, stream};
/// use l0_core::FinishReason;
/// use l0_providers::gemini;
///
/// # futures_util::FutureExt::now_or_never(async {
/// let body = stream::iter([
///     Ok::<_, Infallible>("data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"Hi\"}]}}]}\n\n"),
///     Ok("data: {\"candidates\": [{\"finishReason\": \"STOP\"}]}\n\n"),
/// ]);
/// let tokens: Vec<_> = gemini::decode(body).map(Result::unwrap).collect().await;
/// assert_eq!(tokens[0].text, "Hi");
/// assert_eq!(tokens[1].finish, Some(FinishReason::Stop));
/// # }).unwrap();
/// ```
pub fn decode<S, B, E>(body: S) -> Decoder<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
{
    Decoder::new(body, Generate::default())
}

/// State of one response.
#[derive(Default)]
struct Generate {
    identity: Identity,
    choices: Choices,
    counted: Counted,
}

impl Dialect for Generate {
    fn payload(&mut self, name: &str, json: &str, out: &mut Out) -> Result<(), Unreadable> {
        let mut payload = Payload::default();
        parse(json, &mut payload)?;
        let has_candidates = !payload.candidates.is_empty();
        let mut finished = false;
        let mut failed = None;
        for candidate in payload.candidates.iter_mut() {
            match self.candidate(candidate, out) {
                Some((Finish::Failed, reason)) => failed = failed.or(Some(reason)),
                Some(_) => finished = true,
                None => {}
            }
        }
        let model = payload.model.as_str();
        let mut metadata = self.identity.update(model, payload.response_id.as_str());
        let counts = payload.usage.0;
        metadata.usage = counts.and_then(|counts| self.counted.add(&counts));
        let feedback = payload.feedback.0.unwrap_or_default();
        let blocked = feedback.block_reason.filled().map(Cow::into_owned);
        let blocked = blocked.filter(|reason| Finish::read(reason).is_some());
        if blocked.is_some() {
            metadata.finish = Some(FinishReason::ContentFilter);
        } else if failed.is_none() && finished && self.choices.all_finished() {
            metadata.finish = self.choices.first_finish();
        }
        out.add_metadata(metadata);
        if blocked.is_some() {
            out.last_or_other(0).finish_reason = blocked;
        }
        if name == "error" || payload.error.error(has_candidates).is_some() {
            out.fail(api_error(json));
        } else if let Some(reason) = failed {
            out.fail(ApiError::finish(&reason));
        }
        Ok(())
    }
}

impl Generate {
    /// Reads one candidate's parts and returns its finish reason.
    fn candidate<'a>(
        &mut self,
        candidate: &mut Candidate<'a>,
        out: &mut Out,
    ) -> Option<(Finish, Cow<'a, str>)> {
        let index = small(candidate.index.0);
        let first = out.len();
        let mut choice = self.choices.of(index);
        let content = candidate.content.0.as_mut();
        for part in content
            .into_iter()
            .flat_map(|content| content.parts.iter_mut())
        {
            if let Some(call) = part.function_call.0.take() {
                out.push(tool_call(index, choice.as_deref_mut(), call));
            }
            if part.media {
                out.push(ProviderToken::new(TokenKind::Media, "")).choice = index;
            }
            let kind = match part.thought.0 {
                true => TokenKind::Reasoning,
                false => TokenKind::Text,
            };
            let texts = [
                (TokenKind::Reasoning, take(&mut part.reasoning.0)),
                (kind, take(&mut part.text)),
            ];
            for (kind, text) in texts {
                let Some(text) = text.filled() else { continue };
                // Consecutive parts of one kind form one text, and so one token.
                let before = (out.len() > first).then(|| out.last_or_other(index));
                match before.filter(|token| token.kind == kind) {
                    Some(token) => token.text.push_str(&text),
                    None => out.push(ProviderToken::new(kind, text)).choice = index,
                }
            }
        }
        let reason = take(&mut candidate.finish_reason).filled()?;
        let finish = Finish::read(&reason)?;
        if out.len() == first {
            out.push(other(index));
        }
        let calls = choice.as_ref().is_some_and(|choice| choice.calls > 0);
        if let Some(choice) = choice {
            choice.finish = Some(match finish.reason() {
                FinishReason::Stop if calls => FinishReason::ToolCalls,
                reason => reason,
            });
        }
        out.last_or_other(index).finish_reason = Some(reason.clone().into_owned());
        Some((finish, reason))
    }
}

fn tool_call(index: u32, choice: Option<&mut Choice>, call: FunctionCall<'_>) -> ProviderToken {
    let name = call.name.filled().map(Cow::into_owned);
    let id = call.id.filled().map(Cow::into_owned);
    let number = choice.map_or(0, |choice| {
        // Without a name, it is another piece of the previous call.
        if name.is_some() || choice.calls == 0 {
            choice.calls = choice.calls.saturating_add(1);
        }
        choice.calls - 1
    });
    let arguments = match &*call.args.0 {
        "" => call.partial_args.0,
        _ => call.args.0,
    };
    let mut piece = ToolCall::new(number);
    piece.id = id;
    piece.name = name;
    piece.arguments = arguments.into_owned();
    let mut token = ProviderToken::tool_call(piece);
    token.choice = index;
    token
}
