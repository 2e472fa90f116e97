//! A piece of the text, whose bytes are read once for all kinds of drift.

use crate::sentence::ends_sentence;

/// A piece of the text and its features.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delta<'a> {
    pub(super) text: &'a str,
    /// The number of characters of the text before the piece, and including the part of it that was
    /// read.
    pub(super) start: u64,
    pub(super) end: u64,
    /// The marks of the bytes read, and of the bytes that share a mark with an earlier one.
    pub(super) seen: Marks,
    pub(super) again: Marks,
}

/// The marks of bytes: a bit for each class, and one for each ASCII character. Some characters share a
/// bit. Ordinary text rarely has both of them in one piece.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Marks(u64);

impl Marks {
    /// A part of a non-ASCII character.
    const NOT_ASCII: u64 = 1;
    /// A character that can have a meaning in Markdown anywhere.
    const MARKUP: u64 = 2;
    /// A character that ends a word or a sentence.
    const BOUNDARY: u64 = 4;
    /// Whitespace, which is a boundary.
    const SPACE: u64 = 8;
    /// An uppercase letter. Its bit is the one that converts it to lowercase.
    const UPPER: u64 = (b'a' - b'A') as u64;
    /// The number of class bits.
    const CLASSES: u32 = 8;

    const OF_BYTES: [Self; 256] = {
        let mut marks = [Self(0); 256];
        let mut byte = 0;
        while byte < 256 {
            let class = match byte as u8 {
                128.. => Self::NOT_ASCII,
                b'\n' => Self::MARKUP | Self::BOUNDARY | Self::SPACE,
                b'`' | b'#' | b'*' | b'[' | b']' | b'(' | b')' => Self::MARKUP,
                b'\t'..=b'\r' | b' ' => Self::BOUNDARY | Self::SPACE,
                mark if ends_sentence(mark as char) => Self::BOUNDARY,
                b'A'..=b'Z' => Self::UPPER,
                _ => 0,
            };
            // Lowercase letters, the space and many others have their own bit.
            let own = 1 << (Self::CLASSES + byte as u32 % (u64::BITS - Self::CLASSES));
            marks[byte] = Self(class | own);
            byte += 1;
        }
        marks
    };

    #[inline]
    pub(super) fn of(byte: u8) -> Self {
        Self::OF_BYTES[usize::from(byte)]
    }

    #[inline]
    pub(super) fn union(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    #[inline]
    pub(super) fn intersection(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// Returns `true` if a byte belongs to a word or a sentence, and is ASCII.
    #[inline]
    pub(super) fn is_plain(self) -> bool {
        self.0 & (Self::NOT_ASCII | Self::BOUNDARY) == 0
    }

    /// Returns `true` for ASCII whitespace.
    #[inline]
    pub(super) fn is_space(self) -> bool {
        self.0 & Self::SPACE != 0
    }

    #[inline]
    pub(super) fn is_ascii(self) -> bool {
        self.0 & Self::NOT_ASCII == 0
    }

    #[inline]
    pub(super) fn has_markup(self) -> bool {
        self.0 & Self::MARKUP != 0
    }

    /// Returns the byte with these marks in lowercase.
    #[inline]
    pub(super) fn lower(self, byte: u8) -> u8 {
        byte | (self.0 & Self::UPPER) as u8
    }
}

impl<'a> Delta<'a> {
    /// Creates an unread piece, after this many characters.
    #[inline]
    pub(super) fn new(text: &'a str, start: u64) -> Self {
        Self {
            text,
            start,
            end: start,
            seen: Marks::default(),
            again: Marks::default(),
        }
    }

    /// Creates a piece and reads it.
    #[cfg(test)]
    pub(super) fn read(text: &'a str, start: u64) -> Self {
        let mut delta = Self::new(text, start);
        for byte in text.bytes() {
            let marks = Marks::of(byte);
            delta.again = delta.again.union(delta.seen.intersection(marks));
            delta.seen = delta.seen.union(marks);
        }
        delta.end += text.chars().count() as u64;
        delta
    }

    #[inline]
    pub(super) fn is_ascii(&self) -> bool {
        self.seen.is_ascii()
    }

    #[inline]
    pub(super) fn has_markup(&self) -> bool {
        self.seen.has_markup()
    }

    /// Returns the number of characters.
    #[inline]
    pub(super) fn characters(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Returns `true` if no character occurs twice, for an ASCII piece. Can return `false` even so.
    #[inline]
    pub(super) fn all_differ(&self) -> bool {
        self.again.0 >> Marks::CLASSES == 0
    }
}
