//! Progress of a live run, readable from other tasks.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::label::label_enum;
use crate::stalls::Stalls;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

label_enum! {
    /// The state of a live run, as far as it is known without polling it.
    ///
    /// In [`Connecting`](Self::Connecting), [`Waiting`](Self::Waiting) and
    /// [`Streaming`](Self::Streaming) the run waits for its source. In [`Held`](Self::Held) it waits
    /// for its consumer.
    ///
    /// The state does not change during a poll that finds something ready. A source that blocks the
    /// thread therefore looks like the consumer. A source that has woken the run's task waits for that
    /// task to poll, but still looks like the source.
    pub enum RunState {
        /// The consumer has the last item, or a restart, and has not polled for the next one, or has
        /// not polled the run at all yet.
        Held = "held",
        /// The source of the attempt was called, and has not yet returned its stream or its answer.
        Connecting = "connecting",
        /// The attempt has its stream, which was found pending and has yielded no token yet.
        Waiting = "waiting",
        /// The attempt has yielded tokens, and its source was found pending since the last item.
        Streaming = "streaming",
        /// The run waits for the delay before a retry.
        BackingOff = "backing_off",
    }
}

/// The progress of a live run; see [`RunInfo::progress`](crate::RunInfo::progress).
///
/// The fields are read one after another while the run continues, so they can belong to two successive
/// items. `state` and `in_state` always belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The state of the run.
    pub state: RunState,
    /// The number of the latest attempt, from 1. 0 before the first.
    pub attempt: u32,
    /// The number of tokens of all attempts so far.
    pub tokens: u64,
    /// The time since the start of the run.
    pub age: Duration,
    /// The time since the run entered its state. For the first wait of an attempt, it counts from the
    /// call of the source. `None` if arrivals are not timed: the run is unmeasured, or measured without
    /// timings.
    pub in_state: Option<Duration>,
    /// The time from the start to the last arrival of an item, token or not. `None` before the first
    /// item, and if arrivals are not timed.
    pub last_arrival: Option<Duration>,
    /// The time from the start to the run's first token. `None` before it, and if arrivals are not
    /// timed.
    pub first_token: Option<Duration>,
}

impl Progress {
    /// Returns the time that the run has been waiting for its source without receiving anything.
    /// Returns `None` while it waits for its consumer or a retry, and if arrivals are not timed.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        match self.state {
            RunState::Connecting | RunState::Waiting | RunState::Streaming => self.in_state,
            RunState::Held | RunState::BackingOff => None,
        }
    }

    /// Returns `true` if the source has been [silent](Self::silence) for at least the threshold that
    /// applies: [`first_token_after`](Stalls::first_token_after) while the attempt has no token,
    /// [`after`](Stalls::after) from then on.
    #[must_use]
    pub fn is_stalled(&self, stalls: &Stalls) -> bool {
        let limit = match self.state {
            RunState::Streaming => stalls.after,
            _ => stalls.first_token_after,
        };
        self.silence().is_some_and(|silence| silence >= limit)
    }
}

/// The number of bits for the start of a state, in nanoseconds since the start of the run: 73 years.
/// The bits above hold the state.
const BITS: u32 = 61;
/// The consumer holds an item since its arrival. The value is 0, so an item stores its arrival
/// unchanged. If the arrival is [`NEVER`], all bits are set, which has the same meaning.
const HELD_ITEM: u64 = 0;
const HELD: u64 = 1 << BITS;
const CONNECTING: u64 = 2 << BITS;
const WAITING: u64 = 3 << BITS;
const STREAMING: u64 = 4 << BITS;
const BACKING_OFF: u64 = 5 << BITS;
const ENDED: u64 = 6 << BITS;
const UNTIMED_ITEM: u64 = 7 << BITS;

/// A time that is never reached.
pub(crate) const NEVER: u64 = u64::MAX;

/// The cells that hold a live run's progress. Only the run writes to them, so it reads its own writes.
pub(crate) struct Cells {
    started: Instant,
    is_timed: bool,
    state: AtomicU64,
    tokens: AtomicU64,
    attempt: AtomicU32,
    /// The last arrival, except that of the item held now.
    last_arrival: AtomicU64,
    first_token: AtomicU64,
}

impl Cells {
    pub(crate) fn new(started: Instant, is_timed: bool) -> Self {
        Self {
            started,
            is_timed,
            state: AtomicU64::new(HELD),
            tokens: AtomicU64::new(0),
            attempt: AtomicU32::new(0),
            last_arrival: AtomicU64::new(NEVER),
            first_token: AtomicU64::new(NEVER),
        }
    }

    /// An item arrived this many nanoseconds after the start and is yielded to the consumer. `tokens`
    /// counts the run's tokens so far.
    #[inline]
    pub(crate) fn item(&self, tokens: u64, at: u64) {
        self.tokens.store(tokens, Ordering::Relaxed);
        self.state.store(at, Ordering::Relaxed);
    }

    pub(crate) fn first_token(&self, at: Duration) {
        self.first_token.store(nanos(at), Ordering::Relaxed);
    }

    /// The consumer receives something other than an item.
    pub(crate) fn yielded(&self, at: u64) {
        self.enter(HELD, at);
    }

    pub(crate) fn attempt(&self, number: u32) {
        self.attempt.store(number, Ordering::Relaxed);
    }

    /// The source was called this many nanoseconds after the start.
    pub(crate) fn connecting(&self, at: u64) {
        self.enter(CONNECTING, at);
    }

    /// The source has returned its stream.
    pub(crate) fn connected(&self) {
        let state = self.state.load(Ordering::Relaxed);
        if state & !TIME == CONNECTING {
            // Keep the time of the call, from which the first-token timeout counts too.
            self.state
                .store((state & TIME) | WAITING, Ordering::Relaxed);
        }
    }

    /// The run starts to wait: for its source, with or without tokens so far, or in a back-off.
    pub(crate) fn pending(&self, backs_off: bool, has_tokens: bool, at: u64) {
        let before = self.state.load(Ordering::Relaxed) & !TIME;
        let state = match before {
            _ if backs_off => BACKING_OFF,
            // These states last since the call of the source.
            CONNECTING | WAITING => return,
            _ if has_tokens => STREAMING,
            _ => WAITING,
        };
        self.enter(state, at);
    }

    pub(crate) fn end(&self) {
        self.enter(ENDED, 0);
    }

    fn enter(&self, state: u64, at: u64) {
        let before = self.state.load(Ordering::Relaxed);
        if before & !TIME == HELD_ITEM && self.is_timed {
            self.last_arrival.store(before, Ordering::Relaxed);
        }
        // Release: a reader that sees the state also sees the arrival before it.
        self.state.store((at & TIME) | state, Ordering::Release);
    }

    /// Returns the progress of the run, or `None` once it has ended.
    pub(crate) fn read(&self) -> Option<Progress> {
        let cell = self.state.load(Ordering::Acquire);
        let (state, since) = (cell & !TIME, cell & TIME);
        let last = match state {
            HELD_ITEM if self.is_timed => since,
            _ => self.last_arrival.load(Ordering::Relaxed),
        };
        // Read the clock last, so no other time read is later.
        let age = clock::now().saturating_duration_since(self.started);
        let time = |nanos| (nanos != NEVER).then(|| Duration::from_nanos(nanos));
        Some(Progress {
            state: match state {
                HELD | HELD_ITEM | UNTIMED_ITEM => RunState::Held,
                CONNECTING => RunState::Connecting,
                WAITING => RunState::Waiting,
                STREAMING => RunState::Streaming,
                BACKING_OFF => RunState::BackingOff,
                _ => return None,
            },
            attempt: self.attempt.load(Ordering::Relaxed),
            tokens: self.tokens.load(Ordering::Relaxed),
            age,
            in_state: self
                .is_timed
                .then(|| age.saturating_sub(Duration::from_nanos(since))),
            last_arrival: time(last),
            first_token: time(self.first_token.load(Ordering::Relaxed)),
        })
    }
}

const TIME: u64 = (1 << BITS) - 1;

fn nanos(time: Duration) -> u64 {
    time.as_secs() * 1_000_000_000 + u64::from(time.subsec_nanos())
}

impl fmt::Debug for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read().fmt(f)
    }
}
