//! Source: what a run calls for each attempt, and how its items are read.

use std::fmt;
use std::future::Future;

use crate::error::SourceError;
use crate::token::{Token, TokenView};

/// Which attempt a source is called for.
#[derive(Debug, Clone)]
pub struct Attempt {
    number: u32,
}

impl Attempt {
    pub(crate) const fn new(number: u32) -> Self {
        Self { number }
    }

    /// Returns the number of the attempt, from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }
}

/// What a run calls for each attempt.
///
/// A closure becomes one in [`L0::stream`](crate::L0::stream).
pub trait Source: Send {
    /// What an attempt gives: a stream of items.
    type Answer;
    /// How it fails.
    type Error: SourceError;
    /// Connects.
    type Connecting: Future<Output = Result<Self::Answer, Self::Error>> + Send;
    /// How the items are read: see [`View`].
    type View: Clone + Send;

    /// Begins an attempt. Called once per attempt, inside the run's poll.
    fn connect(&mut self, attempt: Attempt) -> Self::Connecting;

    /// Returns how the items are read.
    fn view(&self) -> Self::View;
}

/// A source that is a closure: made by [`L0::stream`](crate::L0::stream).
#[derive(Clone)]
pub struct FnSource<F>(F);

impl<F> FnSource<F> {
    pub(crate) const fn new(factory: F) -> Self {
        Self(factory)
    }
}

impl<F, Fut, A, E> Source for FnSource<F>
where
    F: FnMut(Attempt) -> Fut + Send,
    Fut: Future<Output = Result<A, E>> + Send,
    E: SourceError,
{
    type Answer = A;
    type Error = E;
    type Connecting = Fut;
    type View = ByToken;

    fn connect(&mut self, attempt: Attempt) -> Fut {
        (self.0)(attempt)
    }

    fn view(&self) -> ByToken {
        ByToken
    }
}

impl<F> fmt::Debug for FnSource<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnSource").finish_non_exhaustive()
    }
}

/// A source whose items are read in another way: made by `view_with`.
#[derive(Debug, Clone)]
pub struct WithView<S, V> {
    pub(crate) source: S,
    pub(crate) view: V,
}

impl<S: Source, V: Clone + Send> Source for WithView<S, V> {
    type Answer = S::Answer;
    type Error = S::Error;
    type Connecting = S::Connecting;
    type View = V;

    fn connect(&mut self, attempt: Attempt) -> S::Connecting {
        self.source.connect(attempt)
    }

    fn view(&self) -> V {
        self.view.clone()
    }
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::ByToken {}

    impl<F> Sealed for super::ByFn<F> {}
}

/// How items of type `T` are read: by their own [`Token`], or by a function. There are these two.
pub trait View<T>: sealed::Sealed + Clone {
    /// Whether a source of these items always says why it ended.
    const SENDS_FINISH: bool;

    /// Reads an item.
    fn view<'t>(&self, item: &'t T) -> TokenView<'t>;
}

/// Reads items as the [`Token`]s that they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByToken;

/// Reads items by a function: what `view_with` makes of a builder.
#[derive(Clone, Copy)]
pub struct ByFn<F>(pub(crate) F);

impl<T: Token> View<T> for ByToken {
    const SENDS_FINISH: bool = T::SENDS_FINISH;

    #[inline]
    fn view<'t>(&self, item: &'t T) -> TokenView<'t> {
        item.view()
    }
}

impl<T, F: Fn(&T) -> TokenView<'_> + Clone> View<T> for ByFn<F> {
    const SENDS_FINISH: bool = false;

    #[inline]
    fn view<'t>(&self, item: &'t T) -> TokenView<'t> {
        (self.0)(item)
    }
}

impl<F> fmt::Debug for ByFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByFn").finish_non_exhaustive()
    }
}
