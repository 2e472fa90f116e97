//! Google's Gemini API: `streamGenerateContent?alt=sse`, also of Vertex AI.
//!
//! # When a response is complete
//!
//! A finish reason of every candidate seen so far completes it; so does a prompt that is blocked,
//! whose block reason is then the finish reason. A stream that ends without either was cut. The
//! decoder reads to the end of the body.
//!
//! Gemini says `STOP` also where it asks for calls:
//! [`finish`](ProviderToken::finish) is then [`FinishReason::ToolCalls`].
//!
//! # Media
//!
//! Images, audio and other files, inline or by their address, give tokens of kind
//! [`Media`](TokenKind::Media).
//!
//! # Token counts
//!
//! They come with every payload and are cumulative. Gemini's `candidatesTokenCount` leaves out the
//! thinking, and its `promptTokenCount` the results of its own tools, unless `totalTokenCount` says
//! otherwise; [`output`](l0_core::Usage::output) and [`input`](l0_core::Usage::input) have them.
//!
//! # Tool calls
//!
//! Each `functionCall` part is one token, with the name and all of the arguments. Where the
//! arguments are streamed (Vertex AI, on request), the first token has the name, and each has the
//! `partialArgs` as Gemini sends them.
//!
//! # Errors
//!
//! An error in the stream is a [`ProviderError::Api`](crate::ProviderError::Api); what the same
//! payload says besides comes before it. It is the last item. So is a finish reason by which a
//! gateway says that it failed, such as `ERROR`.

use std::borrow::Cow;

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
/// `body` is any stream of chunks, such as `reqwest::Response::bytes_stream()`; where it is cut
/// into chunks does not matter. Its errors come out typed, as
/// [`ProviderError::Transport`](crate::ProviderError::Transport).
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

/// What one response said so far.
#[derive(Default)]
struct Generate {
    identity: Identity,
    choices: Choices,
    counted: Counted,
}

impl Dialect for Generate {
    fn payload(&mut self, name: &str, json: &str, out: &mut Out) -> Result<(), Unreadable> {
        let payload: Payload<'_> = parse(json)?;
        let beside = !payload.candidates.is_empty();
        let mut finished = false;
        let mut failed = None;
        for candidate in payload.candidates {
            match self.candidate(candidate, out) {
                Some((Finish::Failed, reason)) => failed = failed.or(Some(reason)),
                Some(_) => finished = true,
                None => {}
            }
        }
        let model = payload.model.as_str();
        let mut said = self.identity.news(model, payload.response_id.as_str());
        let counts = payload.usage.0;
        said.usage = counts.and_then(|counts| self.counted.add(&counts));
        let feedback = payload.feedback.0.unwrap_or_default();
        let blocked = feedback.block_reason.filled().map(Cow::into_owned);
        let blocked = blocked.filter(|reason| Finish::read(reason).is_some());
        if blocked.is_some() {
            said.finish = Some(FinishReason::ContentFilter);
        } else if failed.is_none() && finished && self.choices.all_finished() {
            said.finish = self.choices.first_finish();
        }
        out.say(said);
        if blocked.is_some() {
            out.last_or_other(0).finish_reason = blocked;
        }
        if name == "error" || payload.error.error(beside).is_some() {
            out.fail(api_error(json));
        } else if let Some(reason) = failed {
            out.fail(ApiError::finish(&reason));
        }
        Ok(())
    }
}

impl Generate {
    /// Reads one candidate's parts; says why it has finished.
    fn candidate<'a>(
        &mut self,
        candidate: Candidate<'a>,
        out: &mut Out,
    ) -> Option<(Finish, Cow<'a, str>)> {
        let index = small(candidate.index.0);
        let first = out.len();
        let mut choice = self.choices.of(index);
        for part in candidate.content.0.unwrap_or_default().parts {
            if let Some(call) = part.function_call.0 {
                out.push(tool_call(index, choice.as_deref_mut(), call));
            }
            if part.media {
                out.push(ProviderToken::new(TokenKind::Media, "")).choice = index;
            }
            let kind = match part.thought.0 {
                true => TokenKind::Reasoning,
                false => TokenKind::Text,
            };
            let texts = [(TokenKind::Reasoning, part.reasoning.0), (kind, part.text)];
            for (kind, text) in texts {
                let Some(text) = text.filled() else { continue };
                // Consecutive parts of one kind are one token, as they are one piece of text.
                let before = (out.len() > first).then(|| out.last_or_other(index));
                match before.filter(|token| token.kind == kind) {
                    Some(token) => token.text.push_str(&text),
                    None => out.push(ProviderToken::new(kind, text)).choice = index,
                }
            }
        }
        let reason = candidate.finish_reason.filled()?;
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
        // Without a name, it is a further piece of the call before.
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
