//! Events of a completion's stream, as L0 reads them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use l0_core::{FinishReason, Token, TokenKind, TokenView, Usage};
use rig_core::ProviderError;
use rig_core::completion::{self, CompletionResponse};
use rig_core::message::AssistantContent;
use rig_core::streaming::{CompletionStream, Item, StreamEvent};

use crate::error::Error;

/// An event of a completion's stream: one of the client's items, or, once the provider has ended the answer, the
/// client's response with the usage and the finish reason.
///
/// `Debug` does not print its text.
#[derive(Clone)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "tokens are not boxed")]
pub enum Event {
    /// An item of the client's stream.
    Item(Item<StreamEvent>),
    /// The whole answer, as the client's own call returns it. The last event.
    Done(Box<CompletionResponse>),
}

impl Token for Event {
    const SENDS_FINISH: bool = true;

    fn view(&self) -> TokenView<'_> {
        match self {
            Self::Item(item) => view_item(item),
            Self::Done(response) => {
                let mut view = TokenView::other();
                add_end(&mut view, response);
                // The provider has ended the answer.
                view.finish = view.finish.or(Some(FinishReason::Other));
                view
            }
        }
    }
}

pub(crate) fn view_item(item: &Item<StreamEvent>) -> TokenView<'_> {
    let Item::Event(event) = item else {
        return TokenView::other();
    };
    match event {
        StreamEvent::Text { text, .. } => TokenView::text(text),
        StreamEvent::Reasoning { text, .. } => TokenView::reasoning(text),
        StreamEvent::Start {
            name: Some(name), ..
        } => TokenView::tool_call(name.as_str()),
        StreamEvent::Arguments { json, .. } => TokenView::tool_call(json),
        StreamEvent::End {
            content: AssistantContent::Image(_),
            ..
        } => TokenView::media(),
        StreamEvent::Start { .. } | StreamEvent::End { .. } => TokenView::other(),
    }
}

/// Returns the view of a whole answer.
pub(crate) fn view_whole(response: &CompletionResponse) -> TokenView<'_> {
    let views = response.choice.iter().filter_map(|part| match part {
        AssistantContent::Text(text) => Some(TokenView::text(&text.text)),
        AssistantContent::ToolCall(call) => Some(TokenView::tool_call(call.function.name.as_str())),
        AssistantContent::Image(_) => Some(TokenView::media()),
        _ => None,
    });
    // The text, if there is one.
    let mut view = views
        .min_by_key(|view| view.kind != TokenKind::Text)
        .unwrap_or(TokenView::text(""));
    add_end(&mut view, response);
    view
}

fn add_end<'r>(view: &mut TokenView<'r>, response: &'r CompletionResponse) {
    view.usage = usage(&response.usage);
    view.finish = response.finish_reason().as_ref().map(finish);
    view.model = response.model();
    view.response_id = response.response_id();
}

pub(crate) fn finish(reason: &completion::FinishReason) -> FinishReason {
    use completion::FinishReason as Reason;
    match reason {
        Reason::Stop => FinishReason::Stop,
        Reason::Length => FinishReason::Length,
        Reason::ToolCalls => FinishReason::ToolCalls,
        Reason::ContentFilter => FinishReason::ContentFilter,
        Reason::Other(raw) if raw == "refusal" => FinishReason::Refusal,
        _ => FinishReason::Other,
    }
}

/// Reads the counts, which have the same meaning in both; `None` if there are none.
pub(crate) fn usage(counts: &completion::Usage) -> Option<Usage> {
    let mut usage = Usage::new();
    usage.input = counts.input_tokens;
    usage.output = counts.output_tokens;
    usage.total = counts.total_tokens;
    usage.cached_input = counts.cached_input_tokens;
    usage.cache_write_input = counts.cache_creation_input_tokens;
    usage.reasoning = counts.reasoning_tokens;
    (usage != Usage::new()).then_some(usage)
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

/// The events of one attempt of a [`Completion`](crate::Completion).
///
/// A truncated answer ends without [`Event::Done`].
#[must_use = "streams do nothing unless polled"]
pub struct Events(State);

enum State {
    Reading(Box<CompletionStream>),
    Finishing(Finishing),
    Ended,
}

type Finishing = Pin<Box<dyn Future<Output = Result<CompletionResponse, ProviderError>> + Send>>;

impl Events {
    pub(crate) fn new(stream: CompletionStream) -> Self {
        Self(State::Reading(Box::new(stream)))
    }
}

impl Stream for Events {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let ended = match &mut self.0 {
                State::Reading(stream) => match ready!(Pin::new(&mut **stream).poll_next(cx)) {
                    Some(Ok(item)) => return Poll::Ready(Some(Ok(Event::Item(item)))),
                    Some(Err(error)) => Err(error),
                    None => {
                        let State::Reading(stream) = std::mem::replace(&mut self.0, State::Ended)
                        else {
                            return Poll::Ready(None);
                        };
                        self.0 = State::Finishing(Box::pin(stream.finish()));
                        continue;
                    }
                },
                State::Finishing(finishing) => ready!(finishing.as_mut().poll(cx)),
                State::Ended => return Poll::Ready(None),
            };
            self.0 = State::Ended;
            return Poll::Ready(match ended.map_err(Error::from) {
                Ok(response) => Some(Ok(Event::Done(Box::new(response)))),
                // Ends without the finish reason of the last event.
                Err(error) if error.is_truncated() => None,
                Err(error) => Some(Err(error)),
            });
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}
