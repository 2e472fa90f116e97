//! View: how a builder knows to read a source's items.

use std::fmt;

use crate::token::{Token, TokenView};

/// Reads one item.
pub(super) type ReadItem<T> = for<'t> fn(&'t T) -> TokenView<'t>;

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::ByToken {}

    impl<T> Sealed for super::ByFn<T> {}
}

/// How items of type `T` are read: by their own [`Token`], or by a function. There are these two.
pub trait View<T>: sealed::Sealed + Sized {
    /// Whether a source of these items always says why it ended.
    const SENDS_FINISH: bool;

    /// The function that reads an item.
    fn into_fn(self) -> fn(&T) -> TokenView<'_>;

    /// Reads an item, where the function that does it is known by its type or is given.
    fn read(function: fn(&T) -> TokenView<'_>, item: &T) -> TokenView<'_>;
}

/// Items are [`Token`]s and read as such.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByToken;

/// Items are read by a function: what `view_with` makes of a builder.
pub struct ByFn<T>(pub(super) ReadItem<T>);

impl<T: Token> View<T> for ByToken {
    const SENDS_FINISH: bool = T::SENDS_FINISH;

    fn into_fn(self) -> fn(&T) -> TokenView<'_> {
        T::view
    }

    #[inline]
    fn read(_: fn(&T) -> TokenView<'_>, item: &T) -> TokenView<'_> {
        item.view()
    }
}

impl<T> View<T> for ByFn<T> {
    const SENDS_FINISH: bool = false;

    fn into_fn(self) -> fn(&T) -> TokenView<'_> {
        self.0
    }

    #[inline]
    fn read(function: fn(&T) -> TokenView<'_>, item: &T) -> TokenView<'_> {
        function(item)
    }
}

impl<T> fmt::Debug for ByFn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByFn").finish_non_exhaustive()
    }
}
