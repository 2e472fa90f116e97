//! Gaps between tokens that are not recorded yet. They are recorded in small batches: not one by one between
//! tokens, and never all of a long answer at once.

use std::time::Duration;

/// The maximum number of gaps recorded at once.
const AT_ONCE: usize = 64;

/// The gaps that are not recorded yet, in seconds.
pub(crate) struct Gaps {
    all: [f64; AT_ONCE],
    len: usize,
}

impl Gaps {
    pub(crate) const fn new() -> Self {
        Self {
            all: [0.0; AT_ONCE],
            len: 0,
        }
    }

    /// Adds a gap. Returns `true` if the gaps are to be recorded now.
    pub(crate) fn push(&mut self, gap: Duration) -> bool {
        if let Some(place) = self.all.get_mut(self.len) {
            *place = gap.as_secs_f64();
            self.len += 1;
        }
        self.len >= AT_ONCE
    }

    /// Takes all gaps out.
    pub(crate) fn take(&mut self) -> &[f64] {
        let len = std::mem::take(&mut self.len);
        &self.all[..len]
    }
}
