//! What the decoders of all dialects have in common: events in, tokens out.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;

use crate::error::{EventTooLarge, Fault, InvalidUtf8, ProviderError};
use crate::sse::{Event, Events, SseError};
use crate::token::ProviderToken;

/// The largest event allowed unless the user says otherwise: 8 MiB.
pub(crate) const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;

/// One provider's format: reads the events of one response, in order.
pub(crate) trait Dialect {
    fn event(&mut self, event: Event, out: &mut Out);
}

/// Where a [`Dialect`] puts what it read.
#[derive(Debug, Default)]
pub(crate) struct Out {
    tokens: VecDeque<ProviderToken>,
    end: Option<Option<Fault>>,
}

impl Out {
    pub(crate) fn push(&mut self, token: ProviderToken) -> &mut ProviderToken {
        self.tokens.push_back(token);
        let last = self.tokens.len() - 1;
        &mut self.tokens[last]
    }

    /// How many tokens wait to be handed out.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut ProviderToken> {
        self.tokens.get_mut(index)
    }

    pub(crate) fn last_mut(&mut self) -> Option<&mut ProviderToken> {
        self.tokens.back_mut()
    }

    /// The response is over; what follows is not read.
    pub(crate) fn end(&mut self) {
        self.end = Some(None);
    }

    /// The response is over with an error, once the tokens before it are handed out.
    pub(crate) fn fail(&mut self, fault: impl Into<Fault>) {
        self.end = Some(Some(fault.into()));
    }
}

pin_project_lite::pin_project! {
    /// The tokens of one response.
    pub(crate) struct Decode<S, D> {
        #[pin]
        events: Events<S>,
        dialect: D,
        out: Out,
        ended: bool,
    }
}

impl<S, D: Dialect> Decode<S, D> {
    pub(crate) fn new(source: S, dialect: D) -> Self {
        Self {
            events: Events::new(source, MAX_EVENT_BYTES),
            dialect,
            out: Out::default(),
            ended: false,
        }
    }

    pub(crate) fn set_max_event_bytes(&mut self, limit: usize) {
        self.events.set_max_event_bytes(limit);
    }

    pub(crate) fn get_ref(&self) -> &S {
        self.events.get_ref()
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.ended
    }
}

impl<S, B, E, D> Stream for Decode<S, D>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
    D: Dialect,
{
    type Item = Result<ProviderToken, ProviderError<E>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        let fault = loop {
            if let Some(token) = this.out.tokens.pop_front() {
                return Poll::Ready(Some(Ok(token)));
            }
            if *this.ended {
                return Poll::Ready(None);
            }
            if let Some(fault) = this.out.end.take() {
                break fault.map(Fault::widen);
            }
            match ready!(this.events.as_mut().poll_next(cx)) {
                Some(Ok(event)) => this.dialect.event(event, this.out),
                Some(Err(error)) => {
                    break Some(match error {
                        SseError::Source(error) => ProviderError::Transport(error),
                        SseError::Utf8 { valid_up_to } => {
                            ProviderError::Utf8(InvalidUtf8 { valid_up_to })
                        }
                        SseError::TooLarge { limit } => {
                            ProviderError::EventTooLarge(EventTooLarge { limit })
                        }
                    });
                }
                None => break None,
            }
        };
        *this.ended = true;
        Poll::Ready(fault.map(Err))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let waiting = self.out.tokens.len();
        (waiting, self.ended.then_some(0))
    }
}
