//! How a body is cut into payloads: as server-sent events, or as lines.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;

use crate::lines::Lines;
use crate::sse::{Event, Events, FrameError};

/// What a dialect's payloads come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Events,
    /// A payload in each line.
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

    /// Something came of what was read.
    pub(crate) fn progress(self: Pin<&mut Self>) {
        match self.project() {
            FramesProjection::Events { events } => events.progress(),
            FramesProjection::Lines { lines } => lines.progress(),
        }
    }
}

impl<S, B, E> Stream for Frames<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
{
    type Item = Result<Event, FrameError<E>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.project() {
            FramesProjection::Events { events } => events.poll_next(cx),
            FramesProjection::Lines { lines } => lines.poll_next(cx),
        }
    }
}
