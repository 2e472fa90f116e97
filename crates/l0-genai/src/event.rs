//! Events of a chat's stream, as L0 reads them.

use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use genai::adapter::AdapterKind;
use genai::chat::{ChatStreamEvent, ChatStreamResponse, StopReason, StreamEnd, ToolCall};
use l0_core::{FinishReason, Token, TokenKind, TokenView};
use serde_json::Value;

use crate::error::Error;
use crate::usage;

/// An event of a chat's stream. Dereferences to `genai`'s own event.
///
/// `Debug` does not print its text.
pub struct Event {
    event: ChatStreamEvent,
    /// Length of a tool call's arguments in earlier events; `None` in the call's first event.
    known: Option<usize>,
    /// `true` if an end without a reason is the provider's end mark.
    marks_end: bool,
}

impl Event {
    /// Returns the client's own event.
    #[must_use]
    pub fn into_inner(self) -> ChatStreamEvent {
        self.event
    }
}

impl Deref for Event {
    type Target = ChatStreamEvent;

    fn deref(&self) -> &ChatStreamEvent {
        &self.event
    }
}

impl Token for Event {
    const SENDS_FINISH: bool = true;

    fn view(&self) -> TokenView<'_> {
        match &self.event {
            ChatStreamEvent::Chunk(chunk) => TokenView::text(&chunk.content),
            ChatStreamEvent::ReasoningChunk(chunk) => TokenView::reasoning(&chunk.content),
            ChatStreamEvent::ToolCallChunk(chunk) => {
                TokenView::tool_call(piece(&chunk.tool_call, self.known))
            }
            ChatStreamEvent::End(end) => self.view_end(end),
            ChatStreamEvent::Start
            | ChatStreamEvent::ThoughtSignatureChunk(_)
            | ChatStreamEvent::Heartbeat => TokenView::other(),
        }
    }
}

impl Event {
    fn view_end<'e>(&self, end: &'e StreamEnd) -> TokenView<'e> {
        let mut view = TokenView::other();
        view.finish = match &end.captured_stop_reason {
            Some(reason) => Some(finish(reason)),
            None => self.marks_end.then_some(FinishReason::Other),
        };
        view.usage = end.captured_usage.as_ref().and_then(usage::read);
        view.response_id = end.captured_response_id.as_deref();
        view
    }
}

/// Returns the new piece of a call: first its name, then its arguments.
fn piece(call: &ToolCall, known: Option<usize>) -> &str {
    match (known, &call.fn_arguments) {
        (None, _) => &call.fn_name,
        (Some(known), Value::String(arguments)) => arguments.get(known..).unwrap_or_default(),
        (Some(_), _) => "",
    }
}

pub(crate) fn finish(reason: &StopReason) -> FinishReason {
    match reason {
        StopReason::Completed(_) | StopReason::StopSequence(_) => FinishReason::Stop,
        StopReason::MaxTokens(_) => FinishReason::Length,
        StopReason::ToolCall(_) => FinishReason::ToolCalls,
        StopReason::ContentFilter(raw) if raw == "refusal" => FinishReason::Refusal,
        StopReason::ContentFilter(_) => FinishReason::ContentFilter,
        StopReason::Other(_) => FinishReason::Other,
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.view();
        f.debug_struct("Event")
            .field("kind", &view.kind)
            .field("bytes", &view.text.len())
            .field("finish", &view.finish)
            .field("usage", &view.usage)
            .finish_non_exhaustive()
    }
}

/// The events of one attempt of a [`Chat`](crate::Chat).
#[must_use = "streams do nothing unless polled"]
pub struct Events {
    stream: genai::chat::ChatStream,
    marks_end: bool,
    calls: Calls,
}

impl Events {
    pub(crate) fn new(response: ChatStreamResponse) -> Self {
        Self {
            marks_end: marks_end(response.model_iden.adapter_kind),
            stream: response.stream,
            calls: Calls::default(),
        }
    }
}

/// Returns `true` if the client reports an end only if the provider did. For the other providers, it also reports an
/// end of a truncated stream, without a reason.
fn marks_end(kind: AdapterKind) -> bool {
    !matches!(
        kind,
        AdapterKind::Gemini
            | AdapterKind::GeminiIx
            | AdapterKind::Vertex
            | AdapterKind::Ollama
            | AdapterKind::OllamaCloud
            | AdapterKind::OpenAIResp
            | AdapterKind::GithubCopilot
            | AdapterKind::OpenCodeGo
    )
}

impl Stream for Events {
    type Item = Result<Event, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let event = ready!(Pin::new(&mut this.stream).poll_next(cx));
        Poll::Ready(event.map(|event| {
            let event = event?;
            let known = match &event {
                ChatStreamEvent::ToolCallChunk(chunk) => this.calls.known(&chunk.tool_call),
                _ => None,
            };
            Ok(Event {
                event,
                known,
                marks_end: this.marks_end,
            })
        }))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// The length of each call's arguments so far. If arguments are captured, and for some providers, each event has all of
/// the arguments up to that point.
#[derive(Default)]
struct Calls(Vec<(String, usize)>);

/// Limit on the calls that are distinguished. Each event of a further call counts as new.
const MAX_CALLS: usize = 128;

impl Calls {
    /// Returns the length of this event's arguments in earlier events; `None` for the call's first event.
    fn known(&mut self, call: &ToolCall) -> Option<usize> {
        // A single piece: the client repeats the name only in joined pieces.
        if call.fn_name.is_empty() {
            return Some(0);
        }
        if let Some((_, known)) = self.0.iter_mut().find(|(id, _)| *id == call.call_id) {
            let length = call.fn_arguments.as_str().map_or(0, str::len);
            return Some(std::mem::replace(known, length));
        }
        if self.0.len() < MAX_CALLS {
            // Arguments that arrive with the name are reported with the next piece.
            self.0.push((call.call_id.clone(), 0));
        }
        None
    }
}

/// Returns the view of a whole answer.
pub(crate) fn view_whole(answer: &genai::chat::ChatResponse) -> TokenView<'_> {
    let text = answer.first_text();
    let mut view = TokenView::text(text.unwrap_or_default());
    if let (None, Some(call)) = (text, answer.tool_calls().first()) {
        view.kind = TokenKind::ToolCall;
        view.text = &call.fn_name;
    }
    view.finish = answer.stop_reason.as_ref().map(finish);
    view.usage = usage::read(&answer.usage);
    view.model = Some(&answer.provider_model_iden.model_name);
    view.response_id = answer.response_id.as_deref();
    view
}
