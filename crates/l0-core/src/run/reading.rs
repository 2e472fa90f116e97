//! Reading: the stream of one attempt together with the reading of its items, behind one call per
//! token that names neither.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::stream::Stream;
use pin_project_lite::pin_project;

use super::attempt::AttemptState;
use super::{Chunk, HandOut};
use crate::error::Error;
use crate::failure::Failure;
use crate::source::View;
use crate::token::TokenView;

/// A stream whose items are read, recorded and wrapped as they come.
pub(super) trait Read<T, E>: Send {
    /// Gives what is to be handed out: an item; or a violation that ends the run, in place of the item
    /// at fault. An error of the source comes as it is: what it means is up to the run.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        attempt: &mut AttemptState<'_>,
    ) -> Poll<HandOut<T, E>>;

    /// Reads an item again.
    fn view<'t>(&self, item: &'t T) -> TokenView<'t>;
}

/// The stream of one attempt, of whatever type it is.
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
    ) -> Poll<HandOut<T, E>> {
        let this = self.project();
        match ready!(this.stream.poll_next(cx)) {
            Some(Ok(item)) => {
                if attempt.item(&this.view.view(&item)) {
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

/// An answer that came as one, and how it is read.
pub(super) struct Whole<T, V> {
    /// Until it was handed out.
    answer: Option<T>,
    view: V,
}

impl<T, V> Whole<T, V> {
    pub(super) fn new(answer: T, view: V) -> Self {
        Self {
            answer: Some(answer),
            view,
        }
    }
}

// Nothing in it is pinned.
impl<T, V> Unpin for Whole<T, V> {}

/// A stream of one item, which is no token.
impl<T: Send, V: View<T> + Send, E> Read<T, E> for Whole<T, V> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        attempt: &mut AttemptState<'_>,
    ) -> Poll<HandOut<T, E>> {
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

/// A rule ends the run, in place of the item at fault.
#[cold]
fn halted<T, E>(attempt: &AttemptState<'_>) -> Poll<HandOut<T, E>> {
    let violation = attempt.halting();
    Poll::Ready(violation.map(|violation| Err(Error::Guardrail(violation))))
}

/// The source gave an error. What it means, the run reads.
#[cold]
fn failed<T, E>(source: E, attempt: &AttemptState<'_>) -> Poll<HandOut<T, E>> {
    Poll::Ready(Some(Err(Error::Source {
        source,
        failure: Failure::fatal(),
        attempts: attempt.number,
    })))
}
