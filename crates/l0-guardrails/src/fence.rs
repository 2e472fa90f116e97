//! Fences: the shared reader of lines that open and close code fences in Markdown.
//!
//! A fence is a run of three or more backticks or tildes. An opening fence can be followed by an info
//! string. After backticks, the info string must not contain a backtick, or the line is inline code. A
//! closing fence uses the same mark, is at least as long, and is followed only by blanks.
//!
//! Callers decide where a line's content begins, and after which list and quote markers. They pass the
//! bytes from there on.

/// An open code fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fence {
    mark: u8,
    length: u32,
}

/// A line that may open a fence or close the open one, as far as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FenceLine {
    mark: u8,
    /// `true` once the run of marks has ended.
    behind: bool,
    length: u32,
}

impl FenceLine {
    /// The minimum length of a fence's run of marks.
    const MIN: u32 = 3;

    /// Starts with the first byte of a line's content, or returns `None` if it is not a mark.
    #[inline]
    pub(crate) fn begin(byte: u8) -> Option<Self> {
        matches!(byte, b'`' | b'~').then_some(Self {
            mark: byte,
            behind: false,
            length: 1,
        })
    }

    /// Reads the next byte of the line, excluding its end, while `open` is the open fence. Returns
    /// `None` if the line neither opens nor closes a fence.
    #[inline]
    pub(crate) fn next(mut self, byte: u8, open: Option<Fence>) -> Option<Self> {
        if byte == self.mark && !self.behind {
            self.length = self.length.saturating_add(1);
            return Some(self);
        }
        let goes_on = match open {
            Some(open) => self.closes(open) && matches!(byte, b' ' | b'\t' | b'\r'),
            None => self.opens() && !(byte == b'`' && self.mark == b'`'),
        };
        self.behind = true;
        goes_on.then_some(self)
    }

    /// Returns the fence that is open after the line.
    pub(crate) fn end(self, open: Option<Fence>) -> Option<Fence> {
        match open {
            Some(open) => (!self.closes(open)).then_some(open),
            None => self.opens().then_some(Fence {
                mark: self.mark,
                length: self.length,
            }),
        }
    }

    /// Returns the mark and its count, if nothing follows them so far.
    pub(crate) fn run(self) -> Option<(u8, u32)> {
        (!self.behind).then_some((self.mark, self.length))
    }

    fn opens(self) -> bool {
        self.length >= Self::MIN
    }

    fn closes(self, open: Fence) -> bool {
        self.mark == open.mark && self.length >= open.length
    }
}

/// Returns `true` if a byte can precede any fence in its line: indent and quote markers.
pub(crate) fn is_indent(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'>')
}

/// Returns `true` if a byte can belong to a list item marker, which can precede an opening fence.
pub(crate) fn is_item_marker(byte: u8) -> bool {
    matches!(byte, b'-' | b'*' | b'+' | b'0'..=b'9' | b'.' | b')')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the fence that is open after a line, which starts with its content.
    fn after(line: &str, open: Option<Fence>) -> Option<Fence> {
        let mut bytes = line.bytes();
        let mut read = bytes.next().and_then(FenceLine::begin);
        for byte in bytes {
            read = read.and_then(|line| line.next(byte, open));
        }
        read.map_or(open, |line| line.end(open))
    }

    #[test]
    fn lines_open_fences() {
        let open = |mark, length| Some(Fence { mark, length });
        for (line, expected) in [
            ("```", open(b'`', 3)),
            ("`````", open(b'`', 5)),
            ("~~~~", open(b'~', 4)),
            ("```rust", open(b'`', 3)),
            ("``` rust, no_run \t", open(b'`', 3)),
            ("~~~ `a` ~~~ b", open(b'~', 3)),
            ("```~~~", open(b'`', 3)),
            ("```日本語", open(b'`', 3)),
            ("", None),
            ("``", None),
            ("`` `", None),
            ("~~", None),
            ("~~ ~", None),
            ("``~", None),
            ("```a```", None),
            ("``` a ` b", None),
            ("code", None),
            (" ```", None),
        ] {
            assert_eq!(after(line, None), expected, "{line:?}");
        }
    }

    #[test]
    fn lines_close_fences() {
        for (opening, line, closes) in [
            ("```", "```", true),
            ("```", "`````", true),
            ("```rust", "``` \t\r", true),
            ("~~~", "~~~", true),
            ("````", "```", false),
            ("````", "``` `", false),
            ("```", "~~~", false),
            ("~~~", "```", false),
            ("```", "```rust", false),
            ("```", "``` rust", false),
            ("```", "``` `", false),
            ("```", "``", false),
            ("```", "code", false),
            ("```", "", false),
        ] {
            let open = after(opening, None);
            assert!(open.is_some(), "{opening:?}");
            let expected = if closes { None } else { open };
            assert_eq!(after(line, open), expected, "{opening:?}, {line:?}");
        }
    }
}
