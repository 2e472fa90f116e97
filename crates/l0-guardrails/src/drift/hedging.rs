//! Hedging: a first line that is nothing but an opener such as "Certainly!".
//!
//! It is decided when the line ends: until then, "Sure, here it comes" may look like one.

use crate::wording::FirstLine;

/// Reads up to the end of the first line that is not blank.
#[derive(Debug)]
pub(super) struct Hedging {
    /// The first line, while it may still be a hedge.
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

    /// Whether the line is found to be a hedge now.
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

    /// The line ends, if it did not before. Whether it is a hedge.
    pub(super) fn end(&mut self) -> bool {
        if let Some(line) = self.line.take() {
            self.found = line.hedge().is_some();
        }
        self.found
    }
}
