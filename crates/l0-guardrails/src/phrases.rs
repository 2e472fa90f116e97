//! Phrases: where fixed phrases end in a text that comes in pieces.
//!
//! The text itself is not kept: an automaton goes from state to state with each byte, so a phrase
//! that spans pieces is found like any other. What a text and a phrase are compared by is a
//! sequence of *symbols*, which forgets what does not matter, and marks where words begin:
//!
//! - an ASCII letter that begins a word is written in upper case, all others in lower case;
//! - any other character that begins a word has a mark before it;
//! - a run of whitespace is one space, and a typographic apostrophe is a plain one.
//!
//! So a phrase that begins with a word cannot be found inside of one. That a phrase which ends with
//! a word is followed by the word's end is not in the symbols: it is seen at the next character.

use std::fmt;

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, BuildError, dfa::DFA};

/// A set of phrases, compiled: made once, and shared by all searches.
///
/// Case is ignored for ASCII letters. A phrase that begins or ends with a letter or digit is found
/// only where a word begins or ends. That holds for scripts that put spaces between words: in
/// others, such as Chinese or Thai, a phrase is found anywhere.
pub(crate) struct Phrases {
    automaton: Compiled,
    start: StateID,
}

enum Compiled {
    Table(DFA),
    /// Slower, but its size is in proportion to the phrases.
    Sparse(NFA),
}

impl Phrases {
    /// Up to so many symbols, a table of all transitions takes less than a megabyte or two.
    const MAX_TABLE: usize = 4096;

    /// Compiles phrases. They are told apart by their place in the list. A phrase without anything
    /// but whitespace is never found.
    pub(crate) fn new<P: AsRef<str>>(
        phrases: impl IntoIterator<Item = P>,
    ) -> Result<Self, BuildError> {
        let phrases: Vec<Vec<u8>> = phrases
            .into_iter()
            .map(|one| encode(one.as_ref()))
            .collect();
        let symbols: usize = phrases.iter().map(Vec::len).sum();
        let unanchored = "automata search unanchored unless told otherwise";
        if symbols <= Self::MAX_TABLE {
            let dfa = DFA::builder().prefilter(false).build(&phrases)?;
            let start = dfa.start_state(Anchored::No).expect(unanchored);
            let automaton = Compiled::Table(dfa);
            Ok(Self { automaton, start })
        } else {
            let nfa = NFA::builder().prefilter(false).build(&phrases)?;
            let start = nfa.start_state(Anchored::No).expect(unanchored);
            let automaton = Compiled::Sparse(nfa);
            Ok(Self { automaton, start })
        }
    }
}

/// Without the automaton, which would fill pages.
impl fmt::Debug for Phrases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phrases").finish_non_exhaustive()
    }
}

/// Phrases of ours, each with what it means.
pub(crate) struct Table<T> {
    pub(crate) phrases: Phrases,
    meanings: Vec<T>,
}

impl<T> Table<T> {
    /// Compiles constant phrases, which are few and short.
    pub(crate) fn new(rows: impl IntoIterator<Item = (&'static str, T)>) -> Self {
        let (phrases, meanings): (Vec<_>, _) = rows.into_iter().unzip();
        let phrases = Phrases::new(phrases).expect("a few short phrases can be compiled");
        Self { phrases, meanings }
    }

    /// What a phrase means that was found.
    pub(crate) fn meaning(&self, found: Found) -> &T {
        &self.meanings[found.phrase]
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}

/// A phrase that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its place in the list that was compiled.
    pub(crate) phrase: usize,
    /// Where it ends, in bytes from the start of the text: right behind its last character.
    pub(crate) end: u64,
}

/// A search for phrases in one text. It must be given the same set of phrases in every call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search {
    state: StateID,
    before: Before,
    /// Whether the state is one of phrases that end with a word, of which the next character will
    /// tell whether it ends here.
    undecided: bool,
    /// How many bytes were read.
    position: u64,
}

impl Search {
    pub(crate) fn new(phrases: &Phrases) -> Self {
        Self {
            state: phrases.start,
            before: Before::Other,
            undecided: false,
            position: 0,
        }
    }

    /// How many bytes were read.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Reads a piece of the text. Tells which phrases end in it, in the order of their ends. One
    /// that ends with the piece's last word is told by a later call, when the word's end is seen.
    #[inline]
    pub(crate) fn text(&mut self, phrases: &Phrases, delta: &str, found: impl FnMut(Found)) {
        match &phrases.automaton {
            Compiled::Table(automaton) => self.run(automaton, delta, found),
            Compiled::Sparse(automaton) => self.run(automaton, delta, found),
        }
    }

    /// The text is complete. Tells which phrases end with its last word.
    pub(crate) fn end(&mut self, phrases: &Phrases, mut found: impl FnMut(Found)) {
        if std::mem::take(&mut self.undecided) {
            match &phrases.automaton {
                Compiled::Table(automaton) => {
                    tell(automaton, self.state, self.position, &mut found);
                }
                Compiled::Sparse(automaton) => {
                    tell(automaton, self.state, self.position, &mut found);
                }
            }
        }
    }

    #[inline]
    fn run(&mut self, automaton: &impl Automaton, delta: &str, mut found: impl FnMut(Found)) {
        if self.undecided && !delta.is_empty() {
            self.undecided = false;
            if !begins_with_word(delta) {
                tell(automaton, self.state, self.position, &mut found);
            }
        }
        let bytes = delta.as_bytes();
        let mut state = self.state;
        let mut before = self.before;
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if byte.is_ascii() {
                at += 1;
                let symbol = ASCII[before as usize][usize::from(byte)];
                before = AFTER_ASCII[usize::from(byte)];
                if symbol == SKIP {
                    continue;
                }
                state = automaton.next_state(Anchored::No, state, symbol);
            } else {
                let Some(c) = delta[at..].chars().next() else {
                    break;
                };
                at += c.len_utf8();
                let was = before;
                before = symbols_of(c, was, |symbol| {
                    state = automaton.next_state(Anchored::No, state, symbol);
                });
                if before == Before::Space && was == Before::Space {
                    continue;
                }
            }
            if automaton.is_match(state) {
                if before == Before::Word && at == delta.len() {
                    self.undecided = true;
                } else if before != Before::Word || !begins_with_word(&delta[at..]) {
                    tell(automaton, state, self.position + at as u64, &mut found);
                }
            }
        }
        self.state = state;
        self.before = before;
        self.position += delta.len() as u64;
    }
}

/// Tells of the phrases that end here.
#[cold]
fn tell(automaton: &impl Automaton, state: StateID, end: u64, found: &mut impl FnMut(Found)) {
    for index in 0..automaton.match_len(state) {
        let phrase = automaton.match_pattern(state, index).as_usize();
        found(Found { phrase, end });
    }
}

/// What the character before the next one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Part of a word.
    Word = 0,
    Space = 1,
    /// Neither, or nothing at all.
    Other = 2,
}

// Bytes that never occur in UTF-8, and so are free to stand for something else.

/// Begins a word that does not begin with an ASCII letter or digit.
const MARK: u8 = 0xFF;
/// The digits that begin a word: this one and the nine behind it.
const FIRST_DIGIT: u8 = 0xF5;
/// No symbol: the character is one more whitespace.
const SKIP: u8 = 0xC0;

/// The symbol of each ASCII character, for what comes before it.
static ASCII: [[u8; 128]; 3] = [
    ascii_symbols(Before::Word),
    ascii_symbols(Before::Space),
    ascii_symbols(Before::Other),
];

const fn ascii_symbols(before: Before) -> [u8; 128] {
    let mut symbols = [0; 128];
    let mut byte = 0_u8;
    while byte < 128 {
        let begins = !matches!(before, Before::Word);
        symbols[byte as usize] = match (AFTER_ASCII[byte as usize], before) {
            (Before::Word, _) if !begins => byte.to_ascii_lowercase(),
            (Before::Word, _) if byte.is_ascii_digit() => FIRST_DIGIT + (byte - b'0'),
            (Before::Word, _) => byte.to_ascii_uppercase(),
            (Before::Space, Before::Space) => SKIP,
            (Before::Space, _) => b' ',
            (Before::Other, _) => byte,
        };
        byte += 1;
    }
    symbols
}

const AFTER_ASCII: [Before; 128] = {
    let mut after = [Before::Other; 128];
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() {
            after[byte as usize] = Before::Word;
        } else if matches!(byte, b'\t'..=b'\r' | b' ') {
            after[byte as usize] = Before::Space;
        }
        byte += 1;
    }
    after
};

/// Whether a character is part of a word that whitespace or punctuation sets off from the next.
/// Scripts that put no spaces between words have none: their letters count as punctuation. Those
/// begin with Thai; behind it, only additions to Latin and Greek matter.
fn is_word(c: char) -> bool {
    matches!(c, '\0'..'\u{E00}' | '\u{1E00}'..'\u{2000}') && c.is_alphanumeric()
}

fn begins_with_word(text: &str) -> bool {
    text.starts_with(is_word)
}

/// Gives the symbols of a character, and what it is to the next one.
fn symbols_of(c: char, before: Before, mut symbol: impl FnMut(u8)) -> Before {
    let after = if is_word(c) {
        Before::Word
    } else if c.is_whitespace() {
        Before::Space
    } else {
        Before::Other
    };
    let mut utf8 = [0; 4];
    match (after, c) {
        (_, '\0'..'\u{80}') => match ASCII[before as usize][c as usize] {
            SKIP => {}
            known => symbol(known),
        },
        (Before::Space, _) if before == Before::Space => {}
        (Before::Space, _) => symbol(b' '),
        (_, '’') => symbol(b'\''),
        _ => {
            if after == Before::Word && before != Before::Word {
                symbol(MARK);
            }
            c.encode_utf8(&mut utf8).bytes().for_each(symbol);
        }
    }
    after
}

/// The symbols of a phrase.
fn encode(phrase: &str) -> Vec<u8> {
    let mut symbols = Vec::with_capacity(phrase.len() + 1);
    let mut before = Before::Other;
    for c in phrase.trim().chars() {
        before = symbols_of(c, before, |symbol| symbols.push(symbol));
    }
    if symbols.is_empty() {
        // An empty pattern would match everywhere; this one is in no text.
        symbols.push(SKIP);
    }
    symbols
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is found in a text that comes in these pieces.
    fn found(phrases: &Phrases, pieces: &[&str]) -> Vec<Found> {
        let mut search = Search::new(phrases);
        let mut all = Vec::new();
        for piece in pieces {
            search.text(phrases, piece, |one| all.push(one));
        }
        search.end(phrases, |one| all.push(one));
        all
    }

    fn characters(text: &str) -> Vec<&str> {
        text.split("").collect()
    }

    /// Where a phrase ends in a text, whole and one character a piece.
    fn ends(phrase: &str, text: &str) -> Vec<u64> {
        let phrases = Phrases::new([phrase]).unwrap();
        let whole = found(&phrases, &[text]);
        assert_eq!(
            found(&phrases, &characters(text)),
            whole,
            "{phrase:?} in {text:?}"
        );
        whole.iter().map(|one| one.end).collect()
    }

    #[test]
    fn phrases_are_found_where_they_end() {
        for (phrase, text, expected) in [
            ("unable to", "I am Unable TO do it", &[14][..]),
            ("unable to", "unable to", &[9]),
            ("unable to", "unable  \n\tto.", &[12]),
            ("unable to", "unable\u{A0}\u{3000}to", &[13]),
            ("  unable   to ", "unable to", &[9]),
            ("unable to", "unable to unable to", &[9, 19]),
            ("unable to", "un unable to", &[12]),
            ("unable to", "unableto", &[]),
            ("unable to", "unable-to", &[]),
            ("unable to", "_unable to_", &[10]),
            ("unable to", "**unable to**", &[11]),
            ("unable to", "unable tools", &[]),
            ("unable to", "unable to2", &[]),
            ("unable to", "unable toé", &[]),
            ("unable to", "éunable to", &[]),
            ("unable to", "reunable to", &[]),
            ("unable to", "2unable to", &[]),
            ("unable to", "我unable to们", &[12]),
            ("i'm an ai", "I’m an AI, I'M AN AI", &[11, 22]),
            ("i’m", "i'm", &[3]),
            ("i'm", "‘i'm’", &[6]),
            ("i'm", "hi'm", &[]),
            ("### system", "#### system", &[11]),
            ("[todo]", "x[TODO]y [ todo ]", &[7]),
            ("<|im_start|>", "a<|IM_start|>b", &[13]),
            ("42", "42, 4 2, 142, 421, x42, a 42", &[2, 28]),
            ("été", "été, Été, l'été, étés", &[5, 21]),
            ("不能", "我不能说", &[9]),
            ("{{", "{{{", &[2, 3]),
            ("c++", "c++, C++11, objc++", &[3, 8]),
            (".net", "asp.net", &[7]),
            ("", "any text", &[]),
            (" \n", "a \n b", &[]),
        ] {
            assert_eq!(ends(phrase, text), expected, "{phrase:?} in {text:?}");
        }
    }

    #[test]
    fn phrases_that_end_together_are_all_found() {
        let phrases = Phrases::new(["as an ai", "an ai", "ai", "an ai language model"]).unwrap();
        let mut found = found(&phrases, &["As an A", "I", " language", " models"]);
        found.sort_by_key(|one| one.phrase);
        let expected = [0, 1, 2].map(|phrase| Found { phrase, end: 8 });
        assert_eq!(found, expected);
    }

    #[test]
    fn many_phrases_are_found_as_few_are() {
        let many: Vec<_> = (0..2000).map(|i| format!("phrase no. {i}")).collect();
        let phrases = Phrases::new(&many).unwrap();
        assert!(matches!(phrases.automaton, Compiled::Sparse(_)));
        let text = "A phrase  No. 1999, and Phrase no. 17; phrase no. 2000";
        let expected = [(1999, 18), (17, 37)].map(|(phrase, end)| Found { phrase, end });
        assert_eq!(found(&phrases, &[text]), expected);
        assert_eq!(found(&phrases, &characters(text)), expected);
    }

    /// The characters that count, each with the byte behind it.
    fn plain(text: &str) -> Vec<(char, u64)> {
        let mut all: Vec<(char, u64)> = Vec::new();
        for (at, c) in text.char_indices() {
            let c = match c {
                '’' => '\'',
                c if c.is_whitespace() => ' ',
                c => c.to_ascii_lowercase(),
            };
            if c != ' ' || all.last().is_none_or(|last| last.0 != ' ') {
                let length = text[at..].chars().next().map_or(0, char::len_utf8);
                all.push((c, (at + length) as u64));
            }
        }
        all
    }

    fn plain_ends(phrase: &str, text: &str) -> Vec<u64> {
        let phrase: Vec<char> = plain(phrase.trim()).iter().map(|one| one.0).collect();
        let text = plain(text);
        let is_word_at = |at: Option<usize>| {
            at.and_then(|at| text.get(at))
                .is_some_and(|one| is_word(one.0))
        };
        let (Some(first), Some(last)) = (phrase.first(), phrase.last()) else {
            return Vec::new();
        };
        (0..text.len())
            .filter(|&at| {
                let end = at + phrase.len();
                text.len() >= end
                    && text[at..end].iter().map(|one| &one.0).eq(&phrase)
                    && !(is_word(*first) && is_word_at(at.checked_sub(1)))
                    && !(is_word(*last) && is_word_at(Some(end)))
            })
            .map(|at| text[at + phrase.len() - 1].1)
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_plain_search_finds(
            phrase in "[aB1é不’' .\n]{1,4}",
            text in "[aAbB1éÉ不’' .\n\u{A0}]{0,60}",
        ) {
            prop_assert_eq!(ends(&phrase, &text), plain_ends(&phrase, &text));
        }
    }
}
