//! A piece of the text, read once for all kinds of drift.

/// A piece of the text, and what is in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delta<'a> {
    pub(super) text: &'a str,
    /// How many characters came before it.
    pub(super) start: u64,
    pub(super) characters: u64,
    /// The classes of all its bytes.
    classes: u8,
}

const NOT_ASCII: u8 = 1;
const MARKUP: u8 = 2;

/// The classes of each byte.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            128.. => NOT_ASCII,
            b'\n' | b'`' | b'#' | b'*' | b'[' | b']' | b'(' | b')' => MARKUP,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

impl<'a> Delta<'a> {
    #[inline]
    pub(super) fn new(text: &'a str, start: u64) -> Self {
        let mut classes = 0;
        for byte in text.bytes() {
            classes |= CLASSES[usize::from(byte)];
        }
        let characters = if classes & NOT_ASCII == 0 {
            text.len()
        } else {
            text.chars().count()
        };
        Self {
            text,
            start,
            characters: characters as u64,
            classes,
        }
    }

    /// How many characters the text has with it.
    pub(super) fn end(&self) -> u64 {
        self.start + self.characters
    }

    pub(super) fn is_ascii(&self) -> bool {
        self.classes & NOT_ASCII == 0
    }

    /// Whether it has a character that may mean something in Markdown wherever it stands.
    pub(super) fn has_markup(&self) -> bool {
        self.classes & MARKUP != 0
    }
}
