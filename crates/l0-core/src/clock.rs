//! The monotonic clock. Core reads it only here, so tests can count the reads.

use tokio::time::Instant;

#[cfg(test)]
thread_local! {
    static READS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Reads Tokio's clock, which tests can pause.
#[inline]
pub(crate) fn now() -> Instant {
    #[cfg(test)]
    READS.set(READS.get() + 1);
    Instant::now()
}

/// Returns how often this thread has read the clock.
#[cfg(test)]
pub(crate) fn reads() -> u64 {
    READS.get()
}
