//! Shared parts of the benches: a source that costs almost nothing, functions that drain a stream, telemetry of
//! plausible runs, and bodies as providers send them.

use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;
use futures_core::Stream;
use l0_core::testing::ScriptedError;
use l0_core::{
    Cause, Distribution, End, ErrorRecord, Failure, Network, Telemetry, TimeoutKind, Timestamp,
};

pub mod bodies;

/// An answer in Markdown with some JSON in it, plain ASCII.
pub const ANSWER: &str = "## How a stream works\n\nA token stream sends an answer piece by piece. \
    Each piece is short, often a part of a word, and the reader shows it at once. The server \
    keeps the connection open until the model stops.\n\n- The client asks with **one** request.\n\
    - The server answers with events, one after another.\n- The last event says why it ended.\n\n\
    ```json\n{\"model\": \"example\", \"stream\": true, \"messages\": [{\"role\": \"user\"}]}\n```\n\n\
    | part | meaning |\n|---|---|\n| delta | what is new |\n| usage | what it cost |\n\nIf the \
    connection breaks, a client that can ask again should do so, and should tell its reader that \
    what was shown so far is void.\n\n";

/// A JSON document, plain ASCII, built from the inside of one array.
pub const DOCUMENT: &str = "{\"id\": 12345, \"name\": \"a plain \\\"quoted\\\" name\", \"tags\": \
    [\"one\", \"two\", \"three\"], \"score\": -12.5e3, \"nested\": {\"ok\": true, \"none\": null}},\n";

/// The length of a token, in bytes.
pub const TOKEN: usize = 5;

/// A source that is always ready: a repeated text, in tokens of [`TOKEN`] bytes.
#[derive(Debug)]
pub struct Tokens {
    text: &'static str,
    at: usize,
    left: u64,
}

impl Tokens {
    /// Creates a source of this many tokens of the text, which must be ASCII.
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

/// A source as clients return it, whose type the compiler cannot see through.
pub type Source = Pin<Box<dyn Stream<Item = io::Result<&'static str>> + Send>>;

/// Returns a source of this many tokens of the text, which must be ASCII.
#[must_use]
pub fn source(text: &'static str, tokens: u64) -> Source {
    Box::pin(Tokens::new(text, tokens))
}

/// Returns a source that is pending once before every item, as a network is.
#[must_use]
pub fn waiting(text: &'static str, tokens: u64) -> Source {
    Box::pin(Waiting {
        tokens: Tokens::new(text, tokens),
        waited: false,
    })
}

struct Waiting {
    tokens: Tokens,
    waited: bool,
}

impl Stream for Waiting {
    type Item = io::Result<&'static str>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.waited = !self.waited;
        if self.waited {
            return Poll::Pending;
        }
        Pin::new(&mut self.tokens).poll_next(cx)
    }
}

/// Polls a stream that never waits to its end, and calls `each` for every item.
pub fn drain_with<S: Stream + Unpin>(mut stream: S, mut each: impl FnMut()) {
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match Pin::new(&mut stream).poll_next(&mut cx) {
            Poll::Ready(Some(item)) => {
                black_box(item);
                each();
            }
            Poll::Ready(None) => return,
            Poll::Pending => {}
        }
    }
}

/// Polls a stream that never waits to its end.
pub fn drain<S: Stream + Unpin>(stream: S) {
    drain_with(stream, || {});
}

/// Returns the telemetry of one of many runs: 20 to 400 tokens with gaps around 20 ms, from one of four models.
/// One run in ten was retried, one in fifty failed.
pub fn telemetry(rng: &mut Rng, number: u64) -> Telemetry {
    const MODELS: [&str; 4] = ["gpt-4o", "gpt-4o-mini", "claude-sonnet", "gemini-flash"];

    // Returns a random duration with this median and a long tail, like those of networks.
    let spread = |rng: &mut Rng, median: f64, spread: f64| {
        let normal: f64 = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
        Duration::from_secs_f64(median / 1e3 * (normal * spread).exp())
    };
    let mut telemetry = Telemetry::example();
    telemetry.start_time = Timestamp::from_millis(1_700_000_000_000 + number * 37);
    telemetry.session_id = format!("l0_{}_{number:013x}", telemetry.start_time.as_millis());

    let tokens = rng.u64(20..=400);
    let mut gaps = Distribution::new();
    for _ in 1..tokens {
        gaps.record(spread(rng, 20.0, 0.7));
    }
    let first = spread(rng, 400.0, 0.5);
    let duration = first + gaps.sum();
    telemetry.duration = Some(duration);
    let metrics = &mut telemetry.metrics;
    metrics.total_tokens = tokens;
    (metrics.time_to_first_token, metrics.time_to_first_text) = (Some(first), Some(first));
    metrics.avg_inter_token_time = gaps.mean();
    let per_second =
        |count: u64, over: Duration| Some((count as f64 / over.as_secs_f64() * 1e3).round() / 1e3);
    metrics.tokens_per_second = per_second(tokens, duration);
    metrics.output_tokens_per_second = per_second(gaps.count(), gaps.sum());
    metrics.inter_token = Some(gaps);
    if rng.u8(..10) > 0 {
        telemetry.network = Network::default();
        (metrics.attempts, metrics.wasted_tokens) = (1, 0);
        (metrics.total_retries, metrics.network_retries) = (0, 0);
        telemetry.attempts.remove(0);
    }
    if rng.u8(..50) == 0 {
        let end = match number % 3 {
            0 => End::failed(&ScriptedError::new(Failure::status(503))),
            1 => End::of(Cause::Timeout(TimeoutKind::InterToken)),
            _ => End::of(Cause::ZeroOutput),
        };
        telemetry.outcome = Some(end.outcome());
        telemetry.error = ErrorRecord::of(&end);
    }
    let model = MODELS[rng.usize(..MODELS.len())];
    for attempt in &mut telemetry.attempts {
        attempt.model = Some(model.to_owned());
    }
    if let Some(last) = telemetry.attempts.last_mut() {
        last.tokens = tokens - telemetry.metrics.wasted_tokens;
        last.outcome = telemetry.outcome;
        last.error.clone_from(&telemetry.error);
        // With one attempt, they are those of the run.
        last.inter_token = None;
    }
    telemetry.metadata.insert("model".to_owned(), model.into());
    telemetry
}
