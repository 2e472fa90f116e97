//! The monotonic clock: the one place where core reads it, so that reads can be counted.

use tokio::time::Instant;

#[cfg(test)]
thread_local! {
    static READS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Reads the clock: Tokio's, so that a paused clock is obeyed.
#[inline]
pub(crate) fn now() -> Instant {
    #[cfg(test)]
    READS.set(READS.get() + 1);
    Instant::now()
}

/// How often this thread has read the clock.
#[cfg(test)]
pub(crate) fn reads() -> u64 {
    READS.get()
}
