//! Sources: those of a run, in the order in which they are asked. Their own types are forgotten.

use std::future::Future;
use std::pin::Pin;

use futures_core::stream::Stream;
use serde_json::Value;

use super::reading::{BoxedReading, Reading, Whole};
use crate::error::SourceError;
use crate::failure::Failure;
use crate::source::{Attempt, Description, Source, View};

/// Connects a source, and gives what it answers with the reading of it.
pub(super) type Connecting<'a, T, E> =
    Pin<Box<dyn Future<Output = Result<BoxedReading<'a, T, E>, E>> + Send + 'a>>;

/// A source of items of type `T`, whatever else its types are.
pub(super) trait Ask<'a, T, E>: Send {
    fn connect(&mut self, attempt: Attempt) -> Connecting<'a, T, E>;

    fn describe(&self) -> Description;

    fn input(&self) -> Option<Value>;

    fn classify(&self, error: &E) -> Option<Failure>;

    /// Whether it always says why it ended.
    fn sends_finish(&self) -> bool;
}

pub(super) type BoxedSource<'a, T, E> = Box<dyn Ask<'a, T, E> + 'a>;

/// A source whose answers are streams of items.
pub(super) struct Streams<S>(pub(super) S);

impl<'a, S, T> Ask<'a, T, S::Error> for Streams<S>
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

/// A source whose answers come as one.
pub(super) struct Answers<S>(pub(super) S);

impl<'a, S> Ask<'a, S::Answer, S::Error> for Answers<S>
where
    S: Source<Answer: Send + 'a, View: View<S::Answer> + 'a> + 'a,
{
    fn connect(&mut self, attempt: Attempt) -> Connecting<'a, S::Answer, S::Error> {
        let view = self.0.view();
        let connecting = self.0.connect(attempt);
        Box::pin(async move {
            let answer = connecting.await?;
            Ok(Box::pin(Whole::new(answer, view)) as BoxedReading<'a, S::Answer, S::Error>)
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

    /// An answer that came as one is not cut, whether or not it says why it ended.
    fn sends_finish(&self) -> bool {
        false
    }
}

/// The sources of a run: the present one, and those that are asked when it is given up.
pub(super) struct Sources<'a, T, E> {
    present: BoxedSource<'a, T, E>,
    rest: std::vec::IntoIter<BoxedSource<'a, T, E>>,
    /// The number of the present one, from 1.
    number: u32,
}

impl<'a, T, E: SourceError> Sources<'a, T, E> {
    pub(super) fn new(first: BoxedSource<'a, T, E>, fallbacks: Vec<BoxedSource<'a, T, E>>) -> Self {
        Self {
            present: first,
            rest: fallbacks.into_iter(),
            number: 1,
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn present(&mut self) -> &mut BoxedSource<'a, T, E> {
        &mut self.present
    }

    pub(super) fn classify(&self, error: &E) -> Option<Failure> {
        self.present.classify(error)
    }

    /// Whether there is one to ask next.
    pub(super) fn has_next(&self) -> bool {
        self.rest.len() > 0
    }

    /// Gives the present one up for the next, if there is one.
    pub(super) fn go_on(&mut self) {
        if let Some(next) = self.rest.next() {
            self.present = next;
            self.number += 1;
        }
    }
}
