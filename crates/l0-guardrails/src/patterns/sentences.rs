//! The sentences of an answer, to detect repetition.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use l0_core::{Findings, Severity, Violation};

use crate::hash::MULTIPLIER;
use crate::sentence::{self, ends_sentence};

/// The sentences of an answer, as hashes.
#[derive(Debug, Default)]
pub(super) struct Sentences {
    /// The sentence being read. Empty before its first letter or digit.
    current: Sentence,
    /// `true` if whitespace follows it so far.
    spaced: bool,
    first: Option<Sentence>,
    /// The last sentence, if there are several.
    last: Option<Sentence>,
    /// The end of the last sentence.
    last_end: u64,
    /// The number of occurrences of each sentence that is long enough to count.
    seen: HashMap<u64, u8>,
    /// The end of the first sentence that occurs too often.
    repeated: Option<u64>,
    /// The number of characters of the answer, exact up to [`Sentences::LONG_ANSWER`].
    characters: usize,
}

/// A sentence, identified by its hash.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sentence {
    hash: u64,
    /// In characters.
    length: u64,
}

impl Sentence {
    /// Adds a character. A polynomial is enough and fast on the hot path. The map hashes again, and a
    /// deliberate collision gains nothing.
    #[inline]
    fn push(&mut self, symbol: u32, spaced: bool) {
        let symbol = u64::from(symbol) + (u64::from(spaced) << 32);
        self.hash = self.hash.wrapping_mul(MULTIPLIER).wrapping_add(symbol);
        self.length += 1 + u64::from(spaced);
    }
}

impl Sentences {
    /// The maximum number of occurrences of a longer sentence.
    const MAX_OCCURRENCES: u8 = 2;
    /// The maximum number of different sentences kept.
    const MAX_SEEN: usize = 4096;
    /// The length up to which the first sentence may also be the last one.
    const SHORT_FRAME: u64 = 10;
    /// The length of an answer from which the first and the last sentence are compared.
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

    /// Ends the current sentence, if there is one.
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
                // They are not needed again.
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
            let message = "The last sentence repeats the first";
            let rule = "pattern-first-last-duplicate";
            let violation = Violation::new(rule, Severity::Error, message);
            findings.report(violation.position(self.last_end));
        }
    }
}

/// Stands for a character that ends a sentence.
const END: u8 = 0;

/// The symbol of each ASCII character in a sentence.
static ASCII: [u8; 128] = {
    let mut symbols = [b' '; 128];
    let mut byte = 0_u8;
    while byte < 128 {
        symbols[byte as usize] = match byte {
            mark if ends_sentence(mark as char) => END,
            // Control characters count as blanks too, because END has another meaning.
            b'\0'..=b' ' => b' ',
            _ => byte.to_ascii_lowercase(),
        };
        byte += 1;
    }
    symbols
};
