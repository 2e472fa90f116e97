//! Sources: the sources of a run in the order of their use, with their types erased.

use std::future::Future;
use std::pin::Pin;

use futures_core::stream::Stream;
use serde_json::Value;

use super::reading::{BoxedReading, Reading, SingleAnswer};
use crate::error::SourceError;
use crate::failure::Failure;
use crate::source::{Attempt, Description, Source, View};

/// A future that connects a source, and returns its answer with how it is read.
pub(super) type Connecting<'a, T, E> =
    Pin<Box<dyn Future<Output = Result<BoxedReading<'a, T, E>, E>> + Send + 'a>>;

/// A source of items of type `T`, with its other types erased.
pub(super) trait ErasedSource<'a, T, E>: Send {
    fn connect(&mut self, attempt: Attempt) -> Connecting<'a, T, E>;

    fn describe(&self) -> Description;

    fn input(&self) -> Option<Value>;

    fn classify(&self, error: &E) -> Option<Failure>;

    /// `true` if it always sends a finish reason.
    fn sends_finish(&self) -> bool;
}

pub(super) type BoxedSource<'a, T, E> = Box<dyn ErasedSource<'a, T, E> + 'a>;

/// A source that answers with a stream of items.
pub(super) struct Streams<S>(pub(super) S);

impl<'a, S, T> ErasedSource<'a, T, S::Error> for Streams<S>
where
    S: Source<Answer: Stream<Item = Result<T, S::Error>> + Send + 'a, View: View<T> + 'a> + 'a,
    T: 'a,
{
    fn connect(&mut self, attempt: Attempt) -> Connecting<'a, T, S::Error> {
        let view = self.0.view();
        let connecting = self.0.connect(attempt);
        Box::pin(async move {
            let stream = connecting.await?;
            Ok(Box::pin(Reading::new(stream, view)) as BoxedReading<'a, T, S::Error>)
        })
    }

    fn describe(&self) -> Description {
        self.0.describe()
    }

    fn input(&self) -> Option<Value> {
        self.0.input()
    }

    fn classify(&self, error: &S::Error) -> Option<Failure> {
        self.0.classify(error)
    }

    fn sends_finish(&self) -> bool {
        <S::View as View<T>>::SENDS_FINISH
    }
}

/// A source that answers with a single value.
pub(super) struct Answers<S>(pub(super) S);

impl<'a, S> ErasedSource<'a, S::Answer, S::Error> for Answers<S>
where
    S: Source<Answer: Send + 'a, View: View<S::Answer> + 'a> + 'a,
{
    fn connect(&mut self, attempt: Attempt) -> Connecting<'a, S::Answer, S::Error> {
        let view = self.0.view();
        let connecting = self.0.connect(attempt);
        Box::pin(async move {
            let answer = connecting.await?;
            Ok(Box::pin(SingleAnswer::new(answer, view)) as BoxedReading<'a, S::Answer, S::Error>)
        })
    }

    fn describe(&self) -> Description {
        self.0.describe()
    }

    fn input(&self) -> Option<Value> {
        self.0.input()
    }

    fn classify(&self, error: &S::Error) -> Option<Failure> {
        self.0.classify(error)
    }

    /// A single answer is never cut, with or without a finish reason.
    fn sends_finish(&self) -> bool {
        false
    }
}

/// The sources of a run: the current one, and the fallbacks after it.
pub(super) struct Sources<'a, T, E> {
    current: BoxedSource<'a, T, E>,
    rest: std::vec::IntoIter<BoxedSource<'a, T, E>>,
    /// The number of the current source, from 1.
    number: u32,
}

impl<'a, T, E: SourceError> Sources<'a, T, E> {
    pub(super) fn new(first: BoxedSource<'a, T, E>, fallbacks: Vec<BoxedSource<'a, T, E>>) -> Self {
        Self {
            current: first,
            rest: fallbacks.into_iter(),
            number: 1,
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn current(&mut self) -> &mut BoxedSource<'a, T, E> {
        &mut self.current
    }

    pub(super) fn classify(&self, error: &E) -> Option<Failure> {
        self.current.classify(error)
    }

    /// `true` if another source follows.
    pub(super) fn has_next(&self) -> bool {
        self.rest.len() > 0
    }

    /// Switches to the next source, if there is one.
    pub(super) fn advance(&mut self) {
        if let Some(next) = self.rest.next() {
            self.current = next;
            self.number += 1;
        }
    }
}
