//! Gaps: those between tokens, until they are recorded: some at a time, not one between each two
//! tokens, and never all of a long answer at once.

use std::time::Duration;

/// How many are recorded at once, at most.
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

    /// Adds one. Returns whether they are to be recorded now.
    pub(crate) fn push(&mut self, gap: Duration) -> bool {
        if let Some(place) = self.all.get_mut(self.len) {
            *place = gap.as_secs_f64();
            self.len += 1;
        }
        self.len >= AT_ONCE
    }

    /// Takes them out.
    pub(crate) fn take(&mut self) -> &[f64] {
        let len = std::mem::take(&mut self.len);
        &self.all[..len]
    }
}
