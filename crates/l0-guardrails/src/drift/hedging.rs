//! Hedging: a first line that is nothing but an opener such as "Certainly!".
//!
//! It is decided when the line ends: until then, "Sure, here it comes" may look like one.

const OPENERS: [&str; 4] = ["sure", "certainly", "of course", "absolutely"];

/// The longest opener, with its exclamation mark.
const MAX: usize = 11;

/// Reads up to the end of the first line that is not blank.
#[derive(Debug, Default)]
pub(super) struct Hedging {
    /// The line so far, trimmed, in lower case.
    line: [u8; MAX],
    length: usize,
    /// Whether whitespace came after it.
    space: bool,
    /// Whether the line is an opener; `None` while it may become one.
    decided: Option<bool>,
}

impl Hedging {
    /// Whether the line is found to be an opener now.
    #[inline]
    pub(super) fn text(&mut self, delta: &str) -> bool {
        self.decided.is_none() && self.first_line(delta)
    }

    #[cold]
    fn first_line(&mut self, delta: &str) -> bool {
        for c in delta.chars() {
            if c == '\n' && self.length > 0 {
                return self.end();
            }
            if c.is_whitespace() {
                self.space = self.length > 0;
                continue;
            }
            if std::mem::take(&mut self.space) {
                self.push(' ');
            }
            self.push(c);
            if self.decided.is_some() {
                return false;
            }
        }
        false
    }

    fn push(&mut self, c: char) {
        match self.line.get_mut(self.length) {
            Some(byte) if c.is_ascii() => {
                *byte = c.to_ascii_lowercase() as u8;
                self.length += 1;
            }
            // No opener has such a character, or is so long.
            _ => self.decided = Some(false),
        }
    }

    /// The line ends, if it did not before. Whether it is an opener.
    pub(super) fn end(&mut self) -> bool {
        let line = &self.line[..self.length];
        let words = line.strip_suffix(b"!").unwrap_or(line);
        let is_opener = || OPENERS.iter().any(|opener| opener.as_bytes() == words);
        *self.decided.get_or_insert_with(is_opener)
    }
}
