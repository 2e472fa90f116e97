//! A server of all providers' APIs inside the process, with the faults of a real one.
//!
//! It speaks HTTP on a loopback port and streams answers at a realistic pace, that of models whose
//! names end in `-mini` being three times as fast. Its first connections break in mid-stream, as
//! they do; other [`Fault`]s it has when it is told.

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

/// An answer that is about the model, and that leaves a block of code open.
const BAD_ANSWER: &str =
    "Sure!\n\nAs an AI language model, I would write it like this:\n\n```rust\nfn main() {";

/// How many words of an answer come before a fault in mid-stream.
const MIDDLE: usize = 12;

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks in mid-stream.
    Break,
    /// The answer ends in mid-stream.
    Cut,
    /// Nothing more comes from mid-stream on.
    Stall,
    /// Nothing comes at all.
    Silence,
    /// The answer is empty.
    Empty,
    /// The answer breaks rules, and drifts.
    Bad,
    /// The server is asked too often.
    RateLimited,
    /// The server is down.
    Unavailable,
    /// The request is not allowed.
    Forbidden,
}

/// The faults that are to come.
#[derive(Debug, Default)]
struct Faults {
    /// Of the next requests.
    next: VecDeque<Fault>,
    /// How many of all others break, as a share of 1.
    break_share: f64,
}

/// A running server. It stops when this is dropped.
#[derive(Debug)]
pub struct Server {
    provider: ScriptedProvider,
    faults: Arc<Mutex<Faults>>,
}

impl Server {
    /// Starts a server on a free loopback port, whose first `faults` connections break in
    /// mid-stream.
    ///
    /// # Errors
    ///
    /// If no loopback port can be had.
    pub async fn start(faults: usize) -> io::Result<Self> {
        let faults = Arc::new(Mutex::new(Faults {
            next: std::iter::repeat_n(Fault::Break, faults).collect(),
            break_share: 0.0,
        }));
        let shared = Arc::clone(&faults);
        let provider = ScriptedProvider::answering(move |request| {
            let fault = lock(&shared).take();
            answer(request.model().unwrap_or_default(), fault)
        })
        .await?;
        Ok(Self { provider, faults })
    }

    /// What a client of any of the APIs takes as its base URL.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("{}/v1", self.provider.base_url())
    }

    /// Lets the next requests go wrong, after those that are to go wrong already.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.faults).next.extend(faults);
    }

    /// Lets a share of all other connections break in mid-stream, from 0, none, to 1, all.
    pub fn break_share(&self, share: f64) {
        lock(&self.faults).break_share = share;
    }
}

fn lock(faults: &Mutex<Faults>) -> MutexGuard<'_, Faults> {
    faults.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faults {
    /// What goes wrong with the request that comes now.
    fn take(&mut self) -> Option<Fault> {
        let next = self.next.pop_front();
        next.or_else(|| (fastrand::f64() < self.break_share).then_some(Fault::Break))
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

/// The first words of a text, at the pace of a hosted model.
fn paced(model: &str, text: &str, words: usize) -> Answer {
    let pace = if model.ends_with("-mini") { 3 } else { 1 };
    let usage = Usage::new().input(9);
    let usage = usage.output(text.split_inclusive(' ').count() as u64);
    let words = text.split_inclusive(' ').take(words).enumerate();
    words.fold(Answer::new().usage(usage), |answer, (index, word)| {
        let pause = match index {
            0 => 200,
            // Now and then the model has to think.
            _ if index % 17 == 0 => fastrand::u64(120..180),
            _ => fastrand::u64(12..40),
        };
        answer.wait(Duration::from_millis(pause / pace)).token(word)
    })
}
