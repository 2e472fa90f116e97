//! What the client gives, with the reading of it.

use std::ops::{Deref, DerefMut};

/// What the client gives, an item of a stream or a whole answer, which L0 knows how to read.
///
/// It is the client's own type by `Deref`, and [`into_inner`](Self::into_inner) gives that.
#[derive(Debug, Clone, PartialEq)]
pub struct Viewed<T> {
    inner: T,
    /// The text of an answer that comes in several parts.
    pub(crate) joined: Option<Box<str>>,
    /// Whether a call came before in the stream, which its last item may not repeat.
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

    /// Returns what the client gave.
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
