//! Reading: the stream of one attempt and how its items are read, behind one dynamic call per
//! token.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::stream::Stream;
use pin_project_lite::pin_project;

use super::attempt::AttemptState;
use super::{Chunk, NextChunk};
use crate::error::Error;
use crate::failure::Failure;
use crate::source::View;
use crate::token::TokenView;

/// A stream whose items are read, recorded and wrapped as they arrive.
pub(super) trait Read<T, E>: Send {
    /// Polls for an item, or for a violation that ends the run and replaces the item at fault.
    /// Errors of the source are returned as they are. The run classifies them.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        attempt: &mut AttemptState<'_>,
    ) -> Poll<NextChunk<T, E>>;

    /// Reads an item again.
    fn view<'t>(&self, item: &'t T) -> TokenView<'t>;
}

/// The stream of one attempt, with its type erased.
pub(super) type BoxedReading<'a, T, E> = Pin<Box<dyn Read<T, E> + 'a>>;

pin_project! {
    /// A stream, and how its items are read.
    pub(super) struct Reading<S, V> {
        #[pin]
        stream: S,
        view: V,
    }
}

impl<S, V> Reading<S, V> {
    pub(super) fn new(stream: S, view: V) -> Self {
        Self { stream, view }
    }
}

impl<S, V, T, E> Read<T, E> for Reading<S, V>
where
    S: Stream<Item = Result<T, E>> + Send,
    V: View<T> + Send,
{
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        attempt: &mut AttemptState<'_>,
    ) -> Poll<NextChunk<T, E>> {
        let this = self.project();
        match ready!(this.stream.poll_next(cx)) {
            Some(Ok(item)) => {
                let view = this.view.view(&item);
                let yields = attempt.token(&view)
                    || match attempt.checked_token(&view) {
                        Some(yields) => yields,
                        // The view is copied for items that are not plain tokens, so only those
                        // need it in memory.
                        None => attempt.item(&{ view }),
                    };
                if yields {
                    Poll::Ready(Some(Ok(Chunk::Item(item))))
                } else {
                    halted(attempt)
                }
            }
            Some(Err(source)) => failed(source, attempt),
            None => Poll::Ready(None),
        }
    }

    fn view<'t>(&self, item: &'t T) -> TokenView<'t> {
        self.view.view(item)
    }
}

/// The single answer of a call, and how it is read.
pub(super) struct SingleAnswer<T, V> {
    /// Present until it is yielded.
    answer: Option<T>,
    view: V,
}

impl<T, V> SingleAnswer<T, V> {
    pub(super) fn new(answer: T, view: V) -> Self {
        Self {
            answer: Some(answer),
            view,
        }
    }
}

// Nothing in it is pinned.
impl<T, V> Unpin for SingleAnswer<T, V> {}

/// A stream of one item, which is not a token.
impl<T: Send, V: View<T> + Send, E> Read<T, E> for SingleAnswer<T, V> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        attempt: &mut AttemptState<'_>,
    ) -> Poll<NextChunk<T, E>> {
        let Some(answer) = self.answer.take() else {
            return Poll::Ready(None);
        };
        if attempt.answer(&self.view.view(&answer)) {
            Poll::Ready(Some(Ok(Chunk::Item(answer))))
        } else {
            halted(attempt)
        }
    }

    fn view<'t>(&self, answer: &'t T) -> TokenView<'t> {
        self.view.view(answer)
    }
}

/// Ends the run with the violation, in place of the item at fault.
#[cold]
fn halted<T, E>(attempt: &AttemptState<'_>) -> Poll<NextChunk<T, E>> {
    let violation = attempt.halting();
    Poll::Ready(violation.map(|violation| Err(Error::Guardrail(violation))))
}

/// Returns an error of the source, which the run classifies later.
#[cold]
fn failed<T, E>(source: E, attempt: &AttemptState<'_>) -> Poll<NextChunk<T, E>> {
    Poll::Ready(Some(Err(Error::Source {
        source,
        failure: Failure::fatal(),
        attempts: attempt.number,
    })))
}
