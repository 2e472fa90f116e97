//! What the benches share: a source that costs next to nothing, and a way to drain a stream.

use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

/// An answer in Markdown with some JSON in it, plain ASCII.
pub const ANSWER: &str = "## How a stream works\n\nA token stream sends an answer piece by piece. \
    Each piece is short, often a part of a word, and the reader shows it at once. The server \
    keeps the connection open until the model stops.\n\n- The client asks with **one** request.\n\
    - The server answers with events, one after another.\n- The last event says why it ended.\n\n\
    ```json\n{\"model\": \"example\", \"stream\": true, \"messages\": [{\"role\": \"user\"}]}\n```\n\n\
    | part | meaning |\n|---|---|\n| delta | what is new |\n| usage | what it cost |\n\nIf the \
    connection breaks, a client that can ask again should do so, and should tell its reader that \
    what was shown so far is void.\n\n";

/// A JSON document, plain ASCII, made of the inside of one array.
pub const DOCUMENT: &str = "{\"id\": 12345, \"name\": \"a plain \\\"quoted\\\" name\", \"tags\": \
    [\"one\", \"two\", \"three\"], \"score\": -12.5e3, \"nested\": {\"ok\": true, \"none\": null}},\n";

/// How long a token is, in bytes.
pub const TOKEN: usize = 5;

/// A source that is always ready: a text over and over, in tokens of [`TOKEN`] bytes.
#[derive(Debug)]
pub struct Tokens {
    text: &'static str,
    at: usize,
    left: u64,
}

impl Tokens {
    /// So many tokens of this text, which must be ASCII.
    #[must_use]
    pub fn new(text: &'static str, tokens: u64) -> Self {
        Self {
            text,
            at: 0,
            left: tokens,
        }
    }
}

impl Stream for Tokens {
    type Item = io::Result<&'static str>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(left) = self.left.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.left = left;
        let end = (self.at + TOKEN).min(self.text.len());
        let token = &self.text[self.at..end];
        self.at = if end == self.text.len() { 0 } else { end };
        Poll::Ready(Some(Ok(token)))
    }
}

/// Polls a stream to its end.
pub fn drain<T>(mut stream: Pin<Box<dyn Stream<Item = T> + '_>>) {
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(item)) = stream.as_mut().poll_next(&mut cx) {
        black_box(item);
    }
}
