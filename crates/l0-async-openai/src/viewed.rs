//! The client's answers, as L0 reads them.

use std::ops::{Deref, DerefMut};

/// An item of a stream or a whole answer of the client that L0 can read.
///
/// It dereferences to the client's own type, which [`into_inner`](Self::into_inner) returns.
#[derive(Debug, Clone, PartialEq)]
pub struct Viewed<T> {
    inner: T,
    /// The text of an answer that has several parts.
    pub(crate) joined: Option<Box<str>>,
    /// `true` after a tool call in the stream, which the last item may not repeat.
    pub(crate) after_call: bool,
}

impl<T> Viewed<T> {
    pub(crate) const fn new(inner: T) -> Self {
        Self {
            inner,
            joined: None,
            after_call: false,
        }
    }

    /// Returns the client's own value.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T> Deref for Viewed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for Viewed<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}
