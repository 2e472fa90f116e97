//! How items are read.

use std::fmt;

use crate::token::{Token, TokenView};

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::ByToken {}

    impl<F> Sealed for super::ByFn<F> {}
}

/// A way to read items of type `T`: as their own [`Token`], or by a function. These are the only
/// two implementations.
pub trait View<T>: sealed::Sealed + Clone {
    /// `true` if a source of these items always sends a finish reason.
    const SENDS_FINISH: bool;

    /// Reads an item.
    fn view<'t>(&self, item: &'t T) -> TokenView<'t>;
}

/// Reads items that implement [`Token`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ByToken;

/// Reads items by a function, set by `view_with` of a builder.
#[derive(Clone, Copy)]
pub struct ByFn<F>(pub(crate) F);

/// Reads answers of one type by a function, for a [`Source`](crate::Source) that names its view.
pub type ByAnswer<A> = ByFn<fn(&A) -> TokenView<'_>>;

impl<F> ByFn<F> {
    /// Creates the view of a [`Source`](crate::Source) whose answers are types of another crate, to
    /// return from [`view`](crate::Source::view).
    pub const fn new(view: F) -> Self {
        Self(view)
    }
}

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
