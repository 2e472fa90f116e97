//! Streams of the client, with L0's reading of their items and errors.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_openai::error::OpenAIError;
use async_openai::types::stream::StreamResponse;
use futures_core::Stream;

use crate::error::Error;
use crate::viewed::Viewed;

/// A stream of the client's items. The first error is the last item.
#[must_use = "streams do nothing unless polled"]
pub struct AnswerStream<T> {
    /// `None` after the end.
    items: Option<StreamResponse<T>>,
    /// `true` after a tool call.
    has_call: bool,
}

/// An item of one of the client's streams.
pub(crate) trait Item: Sized {
    /// Returns the item, or the failure that it reports.
    fn read(self, has_call: &mut bool) -> Result<Viewed<Self>, Error> {
        let _ = has_call;
        Ok(Viewed::new(self))
    }

    /// Returns `true` if the item is of a type that the client does not know, and can be skipped.
    fn may_pass_over(error: &OpenAIError) -> bool {
        let _ = error;
        false
    }
}

impl<T> AnswerStream<T> {
    pub(crate) const fn new(items: StreamResponse<T>) -> Self {
        Self {
            items: Some(items),
            has_call: false,
        }
    }
}

// The trait is only useful inside this crate.
#[allow(
    private_bounds,
    reason = "it is implemented for the items of this crate's functions"
)]
impl<T: Item> Stream for AnswerStream<T> {
    type Item = Result<Viewed<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let Some(items) = &mut this.items else {
                return Poll::Ready(None);
            };
            let item = match ready!(items.as_mut().poll_next(cx)) {
                Some(Err(error)) if T::may_pass_over(&error) => continue,
                Some(Ok(item)) => item.read(&mut this.has_call),
                Some(Err(error)) => Err(error.into()),
                None => {
                    this.items = None;
                    return Poll::Ready(None);
                }
            };
            if item.is_err() {
                this.items = None;
            }
            return Poll::Ready(Some(item));
        }
    }
}

impl<T> fmt::Debug for AnswerStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerStream")
            .field("ended", &self.items.is_none())
            .finish_non_exhaustive()
    }
}
