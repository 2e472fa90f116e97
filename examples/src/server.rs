//! A server inside the process for the APIs of all providers, with the faults of a real one.
//!
//! It serves HTTP on a loopback port and streams answers at a realistic pace. Models whose names end in
//! `-mini` are three times as fast. Its first connections can break mid-stream, and
//! [`Server::fail_next`] injects other [`Fault`]s.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use l0_core::Usage;
use l0_providers::testing::{Answer, ScriptedProvider};

const ANSWER: &str = "A token stream is a promise kept one word at a time. L0 listens while it is \
    kept: it notes when the first word came, how long each pause was, and what went wrong on the \
    way. If the connection breaks, it asks again. And when the stream is over, however it ended, \
    it tells you what happened.";

/// An answer that talks about the model, and leaves a code block open.
const BAD_ANSWER: &str =
    "Sure!\n\nAs an AI language model, I would write it like this:\n\n```rust\nfn main() {";

/// The number of words before a fault mid-stream.
const MIDDLE: usize = 12;

/// A fault of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks mid-stream.
    Break,
    /// The answer ends mid-stream.
    Cut,
    /// The stream falls silent in the middle.
    Stall,
    /// The server accepts the request and sends nothing.
    Silence,
    /// The answer is empty.
    Empty,
    /// The answer violates rules, and drifts.
    Bad,
    /// The server returns status 429.
    RateLimited,
    /// The server returns status 503.
    Unavailable,
    /// The server returns status 403.
    Forbidden,
}

/// The faults of future requests.
#[derive(Debug, Default)]
struct Faults {
    /// The faults of the next requests, in order.
    next: VecDeque<Fault>,
    /// The share of the other requests that break, from 0 to 1.
    break_share: f64,
    /// The share of the unbroken requests that stall, from 0 to 1.
    stall_share: f64,
}

/// A running server. Dropping it stops the server.
#[derive(Debug)]
pub struct Server {
    provider: ScriptedProvider,
    faults: Arc<Mutex<Faults>>,
}

impl Server {
    /// Starts a server on a free loopback port. Its first `faults` connections break mid-stream.
    ///
    /// # Errors
    ///
    /// If no loopback port is available.
    pub async fn start(faults: usize) -> io::Result<Self> {
        let faults = Arc::new(Mutex::new(Faults {
            next: std::iter::repeat_n(Fault::Break, faults).collect(),
            ..Faults::default()
        }));
        let shared = Arc::clone(&faults);
        let provider = ScriptedProvider::answering(move |request| {
            let fault = lock(&shared).take();
            answer(request.model().unwrap_or_default(), fault)
        })
        .await?;
        Ok(Self { provider, faults })
    }

    /// Returns the base URL for a client of any of the APIs.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("{}/v1", self.provider.base_url())
    }

    /// Adds faults for the next requests, after those already added.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.faults).next.extend(faults);
    }

    /// Sets the share of the other connections that break mid-stream, from 0 to 1.
    pub fn break_share(&self, share: f64) {
        lock(&self.faults).break_share = share;
    }

    /// Sets the share of the unbroken connections that fall silent mid-stream, from 0 to 1.
    pub fn stall_share(&self, share: f64) {
        lock(&self.faults).stall_share = share;
    }
}

fn lock(faults: &Mutex<Faults>) -> MutexGuard<'_, Faults> {
    faults.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faults {
    /// Takes the fault of the current request.
    fn take(&mut self) -> Option<Fault> {
        let happens = |share| fastrand::f64() < share;
        let next = self.next.pop_front();
        next.or_else(|| happens(self.break_share).then_some(Fault::Break))
            .or_else(|| happens(self.stall_share).then_some(Fault::Stall))
    }
}

fn answer(model: &str, fault: Option<Fault>) -> Answer {
    let whole = |text| paced(model, text, usize::MAX);
    let middle = || paced(model, ANSWER, MIDDLE);
    match fault {
        None => whole(ANSWER),
        Some(Fault::Empty) => whole(""),
        Some(Fault::Bad) => whole(BAD_ANSWER),
        Some(Fault::Break) => middle().cut(),
        Some(Fault::Cut) => middle().end(),
        Some(Fault::Stall) => middle().hang(),
        Some(Fault::Silence) => Answer::new().connect_hang(),
        Some(Fault::RateLimited) => Answer::status(429),
        Some(Fault::Unavailable) => Answer::status(503),
        Some(Fault::Forbidden) => Answer::status(403),
    }
}

/// Returns the first words of a text at the pace of a hosted model.
fn paced(model: &str, text: &str, words: usize) -> Answer {
    let pace = if model.ends_with("-mini") { 3 } else { 1 };
    let usage = Usage::new().input(9);
    let usage = usage.output(text.split_inclusive(' ').count() as u64);
    let words = text.split_inclusive(' ').take(words).enumerate();
    words.fold(Answer::new().usage(usage), |answer, (index, word)| {
        let pause = match index {
            0 => 200,
            // A longer pause now and then, as of a model that reasons.
            _ if index % 17 == 0 => fastrand::u64(120..180),
            _ => fastrand::u64(12..40),
        };
        answer.wait(Duration::from_millis(pause / pace)).token(word)
    })
}
