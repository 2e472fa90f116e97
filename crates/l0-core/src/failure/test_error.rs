//! An error for the tests, with any text and source.

use std::error::Error as StdError;

/// An error with a text and an optional source.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct TestError(String, #[source] Option<Box<dyn StdError + Send + Sync>>);

pub(super) fn say(text: &str) -> TestError {
    TestError(text.to_owned(), None)
}

pub(super) fn say_over(text: &str, source: impl StdError + Send + Sync + 'static) -> TestError {
    TestError(text.to_owned(), Some(Box::new(source)))
}
