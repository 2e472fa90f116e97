//! What a completion's stream gives, and how it is read.

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

/// What a completion's stream gives: the client's items, and when the provider has ended the answer,
/// the client's response, which has the usage and the reason.
///
/// `Debug` does not print its text.
#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "no token is put in a box")]
pub enum Event {
    /// An item of the client's stream.
    Item(Item<StreamEvent>),
    /// The whole answer, as the client's own call gives it: the last event.
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

/// What a whole answer says.
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

/// The counts, which mean the same in both; `None` if there are none.
pub(crate) fn usage(told: &completion::Usage) -> Option<Usage> {
    let mut usage = Usage::new();
    usage.input = told.input_tokens;
    usage.output = told.output_tokens;
    usage.total = told.total_tokens;
    usage.cached_input = told.cached_input_tokens;
    usage.cache_write_input = told.cache_creation_input_tokens;
    usage.reasoning = told.reasoning_tokens;
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
/// An answer that is cut ends without [`Event::Done`].
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
                // Without the reason that would be its last event.
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
