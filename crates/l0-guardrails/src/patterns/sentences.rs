//! The sentences of an answer: which of them come again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use l0_core::{Findings, Severity, Violation};

use crate::hash::MULTIPLIER;
use crate::sentence::{self, ends_sentence};

/// The sentences of an answer, as hashes.
#[derive(Debug, Default)]
pub(super) struct Sentences {
    /// The sentence that is being read; empty before its first letter or digit.
    current: Sentence,
    /// Whether whitespace follows it so far.
    spaced: bool,
    first: Option<Sentence>,
    /// The last one of several.
    last: Option<Sentence>,
    /// Where the last one ends.
    last_end: u64,
    /// How often sentences were seen, of those that are long enough to count.
    seen: HashMap<u64, u8>,
    /// Where the first sentence that occurs too often ends.
    repeated: Option<u64>,
    /// How many characters the answer has, exact up to [`Sentences::LONG_ANSWER`].
    characters: usize,
}

/// A sentence that is told from others by its hash.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sentence {
    hash: u64,
    /// In characters.
    length: u64,
}

impl Sentence {
    /// Adds a character. A polynomial is all it takes, and does not hold up the hot path: the map
    /// hashes once more, and nobody gains by making two sentences collide.
    #[inline]
    fn push(&mut self, symbol: u32, spaced: bool) {
        let symbol = u64::from(symbol) + (u64::from(spaced) << 32);
        self.hash = self.hash.wrapping_mul(MULTIPLIER).wrapping_add(symbol);
        self.length += 1 + u64::from(spaced);
    }
}

impl Sentences {
    /// How often a longer one may occur.
    const MAX_OCCURRENCES: u8 = 2;
    /// How many different sentences are kept.
    const MAX_SEEN: usize = 4096;
    /// A first sentence that is no longer may be the last one too.
    const SHORT_FRAME: u64 = 10;
    /// From how many characters on the first and the last sentence are compared.
    const LONG_ANSWER: usize = 100;

    pub(super) fn read(&mut self, delta: &str, start: u64) {
        if self.characters < Self::LONG_ANSWER {
            self.characters += delta.chars().count();
        }
        for (at, c) in delta.char_indices() {
            if c.is_ascii() {
                match ASCII[c as usize] {
                    END => self.finish(start + at as u64),
                    b' ' => self.spaced = true,
                    symbol => self.push(u32::from(symbol), c.is_ascii_alphanumeric()),
                }
            } else if ends_sentence(c) {
                self.finish(start + at as u64);
            } else if c.is_whitespace() {
                self.spaced = true;
            } else {
                for lower in c.to_lowercase() {
                    self.push(lower.into(), c.is_alphanumeric());
                }
            }
        }
    }

    #[inline]
    fn push(&mut self, symbol: u32, begins: bool) {
        let spaced = std::mem::take(&mut self.spaced);
        if self.current.length > 0 {
            self.current.push(symbol, spaced);
        } else if begins {
            self.current.push(symbol, false);
        }
    }

    /// The sentence ends, if there is one.
    #[cold]
    fn finish(&mut self, end: u64) {
        let sentence = std::mem::take(&mut self.current);
        if sentence.length == 0 {
            return;
        }
        if self.first.is_some() {
            self.last = Some(sentence);
            self.last_end = end;
        } else {
            self.first = Some(sentence);
        }
        if sentence.length > sentence::SHORT && self.repeated.is_none() {
            let has_room = self.seen.len() < Self::MAX_SEEN;
            let times = match self.seen.entry(sentence.hash) {
                Entry::Vacant(_) if !has_room => 0,
                times => *times.and_modify(|times| *times += 1).or_insert(1),
            };
            if times > Self::MAX_OCCURRENCES {
                self.repeated = Some(end);
                // They are not looked at again.
                self.seen = HashMap::new();
            }
        }
    }

    pub(super) fn end(&mut self, end: u64, findings: &mut Findings) {
        self.finish(end);
        if let Some(position) = self.repeated {
            let message = "A sentence occurs more than twice";
            let violation = Violation::new("pattern-repetition", Severity::Error, message);
            findings.report(violation.position(position));
        }
        let is_long = |first: &Sentence| first.length > Self::SHORT_FRAME;
        if self.characters >= Self::LONG_ANSWER
            && self.first.as_ref().is_some_and(is_long)
            && self.first == self.last
        {
            let message = "The last sentence is the first once more";
            let rule = "pattern-first-last-duplicate";
            let violation = Violation::new(rule, Severity::Error, message);
            findings.report(violation.position(self.last_end));
        }
    }
}

/// Stands for what ends a sentence.
const END: u8 = 0;

/// What a sentence is made of, for each ASCII character.
static ASCII: [u8; 128] = {
    let mut symbols = [b' '; 128];
    let mut byte = 0_u8;
    while byte < 128 {
        symbols[byte as usize] = match byte {
            mark if ends_sentence(mark as char) => END,
            // Control characters are blanks too: END stands for something else.
            b'\0'..=b' ' => b' ',
            _ => byte.to_ascii_lowercase(),
        };
        byte += 1;
    }
    symbols
};
