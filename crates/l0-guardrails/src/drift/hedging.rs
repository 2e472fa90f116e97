//! Hedging: a first line that is only an opener such as "Certainly!".
//!
//! The decision is made at the end of the line, because "Sure, here it comes" looks like a hedge until
//! then.

use crate::wording::FirstLine;

/// Reads up to the end of the first non-blank line.
#[derive(Debug)]
pub(super) struct Hedging {
    /// The first line, while it can still be a hedge.
    line: Option<FirstLine>,
    found: bool,
}

impl Hedging {
    pub(super) fn new() -> Self {
        Self {
            line: Some(FirstLine::default()),
            found: false,
        }
    }

    /// Returns `true` if the line is now known to be a hedge.
    #[inline]
    pub(super) fn text(&mut self, delta: &str) -> bool {
        self.line.is_some() && self.first_line(delta)
    }

    #[cold]
    fn first_line(&mut self, delta: &str) -> bool {
        for c in delta.chars() {
            let Some(line) = &mut self.line else {
                break;
            };
            if c == '\n' && !line.is_blank() {
                return self.end();
            }
            if !line.read(c) {
                self.line = None;
            }
        }
        false
    }

    /// Ends the line, if it has not ended. Returns `true` if it is a hedge.
    pub(super) fn end(&mut self) -> bool {
        if let Some(line) = self.line.take() {
            self.found = line.hedge().is_some();
        }
        self.found
    }
}
