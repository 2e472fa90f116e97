//! Splits a body into payloads: server-sent events, or lines.

use std::pin::Pin;
use std::str::Utf8Error;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;

use crate::lines::Lines;
use crate::opening::FrameError;
use crate::sse::{Event, Events};

/// The separation of a dialect's payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Events,
    /// One payload per line.
    Lines,
}

pin_project_lite::pin_project! {
    /// The payloads of a byte stream. The first error is the last item.
    #[project = FramesProjection]
    pub(crate) enum Frames<S> {
        Events { #[pin] events: Events<S> },
        Lines { #[pin] lines: Lines<S> },
    }
}

impl<S> Frames<S> {
    pub(crate) fn new(framing: Framing, source: S, max_event_bytes: usize) -> Self {
        match framing {
            Framing::Events => Self::Events {
                events: Events::new(source, max_event_bytes),
            },
            Framing::Lines => Self::Lines {
                lines: Lines::new(source, max_event_bytes),
            },
        }
    }

    pub(crate) fn set_max_event_bytes(&mut self, limit: usize) {
        match self {
            Self::Events { events } => events.set_max_event_bytes(limit),
            Self::Lines { lines } => lines.set_max_line_bytes(limit),
        }
    }

    pub(crate) fn get_ref(&self) -> &S {
        match self {
            Self::Events { events } => events.get_ref(),
            Self::Lines { lines } => lines.get_ref(),
        }
    }

    /// Reports that a payload yielded an item.
    pub(crate) fn progress(self: Pin<&mut Self>) {
        match self.project() {
            FramesProjection::Events { events } => events.progress(),
            FramesProjection::Lines { lines } => lines.progress(),
        }
    }

    /// Returns the payload that was found last. If it is not UTF-8, nothing after it counts.
    pub(crate) fn event(&self) -> Result<Event<'_>, Utf8Error> {
        match self {
            Self::Events { events } => events.event(),
            Self::Lines { lines } => lines.event(),
        }
    }
}

impl<S, B, E> Frames<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
{
    /// Finds the next payload. [`event`](Self::event) then returns it.
    pub(crate) fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(), FrameError<E>>>> {
        match self.project() {
            FramesProjection::Events { events } => events.poll_next(cx),
            FramesProjection::Lines { lines } => lines.poll_next(cx),
        }
    }
}
