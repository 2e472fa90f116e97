//! Sources with converted items, answers and errors.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::stream::Stream;
use pin_project_lite::pin_project;
use serde_json::Value;

use super::source::{Attempt, Description, Source};
use super::view::ByToken;
use crate::error::SourceError;

/// A source with converted items and errors. Created by [`Source::map`].
#[derive(Clone)]
pub struct Map<S, I, F> {
    pub(super) source: S,
    pub(super) item: I,
    pub(super) error: F,
}

impl<S, T, U, X, I, F> Source for Map<S, I, F>
where
    S: Source<Answer: Stream<Item = Result<T, S::Error>>>,
    I: Fn(T) -> U + Clone + Send,
    F: Fn(S::Error) -> X + Clone + Send,
    X: SourceError,
{
    type Answer = MapStream<S::Answer, I, F>;
    type Error = X;
    type Connecting = MapConnecting<S::Connecting, I, F>;
    type View = ByToken;

    fn connect(&mut self, attempt: Attempt) -> Self::Connecting {
        MapConnecting {
            connecting: self.source.connect(attempt),
            map: Some((self.item.clone(), self.error.clone())),
        }
    }

    fn view(&self) -> ByToken {
        ByToken
    }

    fn describe(&self) -> Description {
        self.source.describe()
    }

    fn input(&self) -> Option<Value> {
        self.source.input()
    }
}

/// A source with converted answers and errors. Created by [`Source::map_answer`].
#[derive(Clone)]
pub struct MapAnswer<S, I, F> {
    pub(super) source: S,
    pub(super) answer: I,
    pub(super) error: F,
}

impl<S, U, X, I, F> Source for MapAnswer<S, I, F>
where
    S: Source,
    I: Fn(S::Answer) -> U + Clone + Send,
    F: Fn(S::Error) -> X + Clone + Send,
    X: SourceError,
{
    type Answer = U;
    type Error = X;
    type Connecting = MapAnswerConnecting<S::Connecting, I, F>;
    type View = ByToken;

    fn connect(&mut self, attempt: Attempt) -> Self::Connecting {
        MapAnswerConnecting {
            connecting: self.source.connect(attempt),
            answer: self.answer.clone(),
            error: self.error.clone(),
        }
    }

    fn view(&self) -> ByToken {
        ByToken
    }

    fn describe(&self) -> Description {
        self.source.describe()
    }

    fn input(&self) -> Option<Value> {
        self.source.input()
    }
}

impl<S, I, F> fmt::Debug for Map<S, I, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").finish_non_exhaustive()
    }
}

impl<S, I, F> fmt::Debug for MapAnswer<S, I, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapAnswer").finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`Map`]: connects the source.
    #[must_use = "futures do nothing unless polled"]
    pub struct MapConnecting<C, I, F> {
        #[pin]
        connecting: C,
        map: Option<(I, F)>,
    }
}

impl<C, S, E, X, I, F> Future for MapConnecting<C, I, F>
where
    C: Future<Output = Result<S, E>>,
    F: Fn(E) -> X,
{
    type Output = Result<MapStream<S, I, F>, X>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let connected = ready!(this.connecting.poll(cx));
        let (item, error) = this.map.take().expect("not polled after it was ready");
        Poll::Ready(match connected {
            Ok(stream) => Ok(MapStream {
                stream,
                item,
                error,
            }),
            Err(source) => Err(error(source)),
        })
    }
}

pin_project! {
    /// The future of [`MapAnswer`]: waits for the answer, and converts it.
    #[must_use = "futures do nothing unless polled"]
    pub struct MapAnswerConnecting<C, I, F> {
        #[pin]
        connecting: C,
        answer: I,
        error: F,
    }
}

impl<C, A, E, U, X, I, F> Future for MapAnswerConnecting<C, I, F>
where
    C: Future<Output = Result<A, E>>,
    I: Fn(A) -> U,
    F: Fn(E) -> X,
{
    type Output = Result<U, X>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let connected = ready!(this.connecting.poll(cx));
        Poll::Ready(connected.map(&*this.answer).map_err(&*this.error))
    }
}

pin_project! {
    /// The stream of [`Map`]: its items and errors are converted.
    #[must_use = "streams do nothing unless polled"]
    pub struct MapStream<S, I, F> {
        #[pin]
        stream: S,
        item: I,
        error: F,
    }
}

impl<S, T, E, U, X, I, F> Stream for MapStream<S, I, F>
where
    S: Stream<Item = Result<T, E>>,
    I: Fn(T) -> U,
    F: Fn(E) -> X,
{
    type Item = Result<U, X>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        let item = ready!(this.stream.poll_next(cx));
        Poll::Ready(item.map(|item| item.map(&*this.item).map_err(&*this.error)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}

impl<S, I, F> fmt::Debug for MapStream<S, I, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapStream").finish_non_exhaustive()
    }
}

impl<C, I, F> fmt::Debug for MapConnecting<C, I, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapConnecting").finish_non_exhaustive()
    }
}

impl<C, I, F> fmt::Debug for MapAnswerConnecting<C, I, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapAnswerConnecting")
            .finish_non_exhaustive()
    }
}
