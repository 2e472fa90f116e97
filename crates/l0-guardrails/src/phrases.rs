//! Phrases: finds the ends of fixed phrases in a text that arrives in pieces.
//!
//! The text itself is not kept. An automaton changes its state with each byte, so phrases that span
//! pieces are found too. Texts and phrases are compared as sequences of *symbols*, which omit
//! irrelevant differences and mark the beginnings of words:
//!
//! - an ASCII letter at the beginning of a word is written in upper case, all others in lower case;
//! - any other character at the beginning of a word is preceded by a mark;
//! - a run of whitespace is one space, and a typographic apostrophe is a plain one.
//!
//! A phrase that begins with a word therefore does not match inside another word. The symbols do not
//! show whether the last word of a phrase ends there. The next character decides that.
//!
//! The automaton over symbols is converted to a transition table over whole characters, unless there
//! are too many phrases for one.

use std::collections::HashMap;
use std::fmt;

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, BuildError};

/// A set of compiled phrases, shared by all searches.
///
/// Case is ignored for ASCII letters. A phrase that begins or ends with a letter or digit matches only
/// at word boundaries. This applies to scripts with spaces between words. In others, such as Chinese or
/// Thai, phrases match anywhere.
pub(crate) enum Phrases {
    Table(Transitions),
    /// Slower, but its size is proportional to the phrases.
    Sparse(Sparse),
}

impl Phrases {
    /// The maximum number of symbols for a transition table, which then takes less than one or two
    /// megabytes.
    const MAX_TABLE: usize = 4096;

    /// Compiles phrases, identified by their index in the list. A phrase of whitespace only never
    /// matches.
    pub(crate) fn new<P: AsRef<str>>(
        phrases: impl IntoIterator<Item = P>,
    ) -> Result<Self, BuildError> {
        let phrases: Vec<P> = phrases.into_iter().collect();
        let sparse = Sparse::new(&phrases)?;
        Ok(match Transitions::new(&sparse, &phrases) {
            Some(table) => Self::Table(table),
            None => Self::Sparse(sparse),
        })
    }

    /// Starts a search.
    pub(crate) fn search(&self) -> Search {
        match self {
            Self::Table(table) => table.search(),
            Self::Sparse(sparse) => Search::new(sparse.start.as_u32()),
        }
    }

    /// Reads a piece of a text; see [`Transitions::text`].
    #[inline]
    pub(crate) fn text(&self, search: &mut Search, delta: &str, found: impl FnMut(Found)) {
        match self {
            Self::Table(table) => table.text(search, delta, found),
            Self::Sparse(sparse) => sparse.text(search, delta, found),
        }
    }

    /// Ends the text. Reports the phrases that end with its last word.
    pub(crate) fn end(&self, search: &mut Search, found: impl FnMut(Found)) {
        match self {
            Self::Table(table) => table.end(search, found),
            Self::Sparse(sparse) => sparse.end(search, found),
        }
    }
}

/// Omits the automaton, which would fill pages.
impl fmt::Debug for Phrases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phrases").finish_non_exhaustive()
    }
}

/// Constant phrases, each with a meaning.
pub(crate) struct Table<T> {
    pub(crate) phrases: Transitions,
    meanings: Vec<T>,
}

impl<T> Table<T> {
    /// Compiles constant phrases, which are few and short.
    pub(crate) fn new(rows: impl IntoIterator<Item = (&'static str, T)>) -> Self {
        let (phrases, meanings): (Vec<_>, _) = rows.into_iter().unzip();
        let few = "a few short phrases can be compiled";
        let sparse = Sparse::new(&phrases).expect(few);
        let phrases = Transitions::new(&sparse, &phrases).expect(few);
        Self { phrases, meanings }
    }

    /// Returns the meaning of a phrase, by its index in the compiled list.
    pub(crate) fn meaning(&self, phrase: usize) -> &T {
        &self.meanings[phrase]
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}

/// A match of a phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// The index of the phrase in the compiled list.
    pub(crate) phrase: usize,
    /// The end of the match, in bytes from the start of the text: directly after its last character.
    pub(crate) end: u64,
}

/// A search for phrases in one text. Every call must use the same set of phrases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search {
    state: u32,
    /// The kind of the last character. Used by a sparse set only.
    before: Before,
    /// `true` if the state has phrases that end with a word, for which the next character decides
    /// whether the word ends. Used by a sparse set only.
    undecided: bool,
    /// The number of bytes read.
    position: u64,
}

impl Search {
    fn new(state: u32) -> Self {
        Self {
            state,
            before: Before::Other,
            undecided: false,
            position: 0,
        }
    }

    /// Returns the number of bytes read.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }
}

/// A table of all transitions. It has a row for each state, with a column for each character in the
/// phrases, one for all other word characters, and one for all other characters.
///
/// A state knows the kind of the last character. The transition to the character after a word therefore
/// reports phrases that end with that word.
pub(crate) struct Transitions {
    /// The column of each ASCII character.
    ascii: [u8; 256],
    /// The columns of other characters in the phrases, sorted by character.
    others: Vec<(char, u8)>,
    /// The kind of character of each column.
    columns: Vec<Before>,
    /// The start of the next state's row, and the flag of transitions that report phrases.
    next: Vec<u32>,
    /// The phrases that end in a state, by the start of its row, and whether they end with a word.
    ends: HashMap<u32, (Vec<usize>, bool)>,
}

impl Transitions {
    /// The flag of a transition that reports phrases.
    pub(crate) const REPORTS: u32 = 1 << 31;
    /// The state before the text, whose row is the first one.
    pub(crate) const START: u32 = 0;

    const SPACE: u8 = 0;
    const WORD: u8 = 1;
    const OTHER: u8 = 2;

    /// Creates the table of a set, or returns `None` if it would be too large.
    fn new<P: AsRef<str>>(sparse: &Sparse, phrases: &[P]) -> Option<Self> {
        if sparse.symbols > Phrases::MAX_TABLE {
            return None;
        }
        // The characters of the first columns represent all characters that no phrase contains.
        let mut columns = vec![' '];
        let mut all: Vec<char> = phrases
            .iter()
            .flat_map(|phrase| phrase.as_ref().chars().map(fold))
            .filter(|c| *c != ' ')
            .collect();
        all.sort_unstable();
        all.dedup();
        let is_free = |c: &char| !all.contains(c);
        columns.push(
            ('\u{C0}'..'\u{E00}')
                .filter(|c| is_word(*c))
                .find(is_free)?,
        );
        columns.push(('\u{2500}'..'\u{E000}').find(is_free)?);
        let first = u8::try_from(columns.len()).ok()?;
        let known = (first..u8::MAX).zip(&all).map(|(column, c)| (*c, column));
        let known: HashMap<char, u8> = known.collect();
        if known.len() < all.len() {
            return None;
        }
        columns.extend(all);

        let column = |c| match (fold(c), known.get(&fold(c))) {
            (' ', _) => Self::SPACE,
            (_, Some(column)) => *column,
            (c, None) if is_word(c) => Self::WORD,
            _ => Self::OTHER,
        };
        let ascii = std::array::from_fn(|byte| column(char::from(byte as u8 & 127)));
        let mut others: Vec<_> = known.iter().map(|(c, column)| (*c, *column)).collect();
        others.retain(|(c, _)| !c.is_ascii());
        others.sort_unstable();

        let mut table = Self {
            ascii,
            others,
            columns: columns.iter().map(|c| Before::from(*c)).collect(),
            next: Vec::new(),
            ends: HashMap::new(),
        };
        table.fill(sparse, &columns);
        Some(table)
    }

    /// Fills the rows of all states that a text can reach.
    fn fill(&mut self, sparse: &Sparse, columns: &[char]) {
        let width = columns.len();
        let mut states = vec![(sparse.start, Before::Other)];
        let mut places = HashMap::from([(states[0], 0)]);
        let mut row = 0;
        while let Some(&(state, before)) = states.get(row) {
            let ended = sparse.phrases(state);
            let ends_word = before == Before::Word;
            let reports_word = !ended.is_empty() && ends_word;
            if !ended.is_empty() {
                self.ends.insert((row * width) as u32, (ended, ends_word));
            }
            for c in columns {
                let (to, after) = sparse.step(state, before, *c);
                let place = *places.entry((to, after)).or_insert_with(|| {
                    states.push((to, after));
                    states.len() - 1
                });
                let ends_here = after != Before::Word && !sparse.phrases(to).is_empty();
                let reports = (reports_word && after != Before::Word) || ends_here;
                let reports = if reports { Self::REPORTS } else { 0 };
                self.next.push((place * width) as u32 | reports);
            }
            row += 1;
        }
    }

    /// Starts a search.
    pub(crate) fn search(&self) -> Search {
        Search::new(Self::START)
    }

    /// Returns the column of an ASCII character.
    #[inline]
    pub(crate) fn ascii(&self, byte: u8) -> u8 {
        self.ascii[usize::from(byte)]
    }

    /// Returns the column of a character.
    pub(crate) fn column(&self, c: char) -> u8 {
        match fold(c) {
            c if c.is_ascii() => self.ascii(c as u8),
            c => match self.others.binary_search_by_key(&c, |one| one.0) {
                Ok(at) => self.others[at].1,
                Err(_) if is_word(c) => Self::WORD,
                Err(_) => Self::OTHER,
            },
        }
    }

    /// Returns the state after a character of this column. If the [`REPORTS`](Self::REPORTS) flag is
    /// set, call [`report`](Self::report). The flag is not part of the state.
    #[inline]
    pub(crate) fn next(&self, state: u32, column: u8) -> u32 {
        self.next[state as usize + usize::from(column)]
    }

    /// Reports the phrases that end where a character of this column leads from one state to another:
    /// their indexes, and whether the character is their last one. Otherwise they end before it.
    #[cold]
    pub(crate) fn report(
        &self,
        from: u32,
        column: u8,
        to: u32,
        mut found: impl FnMut(usize, bool),
    ) {
        let is_word = self.columns[usize::from(column)] == Before::Word;
        match self.ends.get(&from) {
            Some((phrases, true)) if !is_word => {
                phrases.iter().for_each(|phrase| found(*phrase, false));
            }
            _ => {}
        }
        if let Some((phrases, false)) = self.ends.get(&(to & !Self::REPORTS)) {
            phrases.iter().for_each(|phrase| found(*phrase, true));
        }
    }

    /// Reports the phrases that end with the text's last word.
    pub(crate) fn report_last(&self, state: u32, found: impl FnMut(usize)) {
        if let Some((phrases, true)) = self.ends.get(&state) {
            phrases.iter().copied().for_each(found);
        }
    }

    /// Reads a piece of the text. Reports the phrases that end in it, in the order of their ends. A
    /// phrase that ends with the piece's last word is reported by a later call, once the end of the
    /// word is known.
    #[inline]
    pub(crate) fn text(&self, search: &mut Search, delta: &str, mut found: impl FnMut(Found)) {
        let mut state = search.state;
        let mut at = 0;
        while let Some(&byte) = delta.as_bytes().get(at) {
            let (column, length) = if byte.is_ascii() {
                (self.ascii(byte), 1)
            } else {
                let Some(c) = delta[at..].chars().next() else {
                    break;
                };
                (self.column(c), c.len_utf8())
            };
            let next = self.next(state, column);
            if next & Self::REPORTS != 0 {
                let start = search.position + at as u64;
                self.report(state, column, next, |phrase, is_last| {
                    let end = if is_last {
                        start + length as u64
                    } else {
                        start
                    };
                    found(Found { phrase, end });
                });
            }
            state = next & !Self::REPORTS;
            at += length;
        }
        search.state = state;
        search.position += delta.len() as u64;
    }

    /// Ends the text. Reports the phrases that end with its last word.
    pub(crate) fn end(&self, search: &mut Search, mut found: impl FnMut(Found)) {
        let end = search.position;
        self.report_last(search.state, |phrase| found(Found { phrase, end }));
        search.state = Self::START;
    }
}

/// An automaton over symbols.
pub(crate) struct Sparse {
    automaton: NFA,
    start: StateID,
    /// The number of symbols in the phrases.
    symbols: usize,
}

impl Sparse {
    fn new<P: AsRef<str>>(phrases: &[P]) -> Result<Self, BuildError> {
        let phrases: Vec<Vec<u8>> = phrases.iter().map(|one| encode(one.as_ref())).collect();
        let automaton = NFA::builder().prefilter(false).build(&phrases)?;
        let unanchored = "automata search unanchored by default";
        let start = automaton.start_state(Anchored::No).expect(unanchored);
        Ok(Self {
            automaton,
            start,
            symbols: phrases.iter().map(Vec::len).sum(),
        })
    }

    fn next(&self, state: StateID, symbol: u8) -> StateID {
        self.automaton.next_state(Anchored::No, state, symbol)
    }

    /// Returns the state after a character, and the kind of that character.
    fn step(&self, mut state: StateID, before: Before, c: char) -> (StateID, Before) {
        let after = symbols_of(c, before, |symbol| state = self.next(state, symbol));
        (state, after)
    }

    /// Returns the phrases that end in a state.
    fn phrases(&self, state: StateID) -> Vec<usize> {
        if !self.automaton.is_match(state) {
            return Vec::new();
        }
        let phrase = |index| self.automaton.match_pattern(state, index).as_usize();
        (0..self.automaton.match_len(state)).map(phrase).collect()
    }

    fn text(&self, search: &mut Search, delta: &str, mut found: impl FnMut(Found)) {
        let mut state = StateID::new_unchecked(search.state as usize);
        for (at, c) in delta.char_indices() {
            let start = search.position + at as u64;
            if search.undecided && !is_word(c) {
                self.report(state, start, &mut found);
            }
            let before = search.before;
            (state, search.before) = self.step(state, before, c);
            search.undecided = search.before == Before::Word && self.automaton.is_match(state);
            if search.before != Before::Word {
                self.report(state, start + c.len_utf8() as u64, &mut found);
            }
        }
        search.state = state.as_u32();
        search.position += delta.len() as u64;
    }

    fn end(&self, search: &mut Search, mut found: impl FnMut(Found)) {
        if std::mem::take(&mut search.undecided) {
            let state = StateID::new_unchecked(search.state as usize);
            self.report(state, search.position, &mut found);
        }
    }

    /// Reports the phrases that end here.
    fn report(&self, state: StateID, end: u64, found: &mut impl FnMut(Found)) {
        for phrase in self.phrases(state) {
            found(Found { phrase, end });
        }
    }
}

/// The kind of the previous character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Before {
    /// Part of a word.
    Word = 0,
    Space = 1,
    /// Neither, or no character.
    Other = 2,
}

impl From<char> for Before {
    fn from(c: char) -> Self {
        if is_word(c) {
            Self::Word
        } else if c.is_whitespace() {
            Self::Space
        } else {
            Self::Other
        }
    }
}

/// Returns the character as it is compared.
fn fold(c: char) -> char {
    match c {
        '’' => '\'',
        c if c.is_whitespace() => ' ',
        c => c.to_ascii_lowercase(),
    }
}

// Bytes that never occur in UTF-8, and are therefore free for other uses.

/// Starts a word that does not begin with an ASCII letter or digit.
const MARK: u8 = 0xFF;
/// The first of the ten digits at the beginning of a word.
const FIRST_DIGIT: u8 = 0xF5;
/// A phrase of whitespace only, which occurs in no text.
const NOTHING: u8 = 0xC0;

/// Returns `true` if a character belongs to a word that whitespace or punctuation separates from the
/// next. In scripts without spaces between words, letters count as punctuation. These scripts start
/// with Thai. After it, only additions to Latin and Greek matter.
fn is_word(c: char) -> bool {
    matches!(c, '\0'..'\u{E00}' | '\u{1E00}'..'\u{2000}') && c.is_alphanumeric()
}

/// Returns the kind of a character, and passes its symbols to `symbol`.
fn symbols_of(c: char, before: Before, mut symbol: impl FnMut(u8)) -> Before {
    let after = Before::from(c);
    let begins = after == Before::Word && before != Before::Word;
    match fold(c) {
        ' ' if before == Before::Space => {}
        digit @ '0'..='9' if begins => symbol(FIRST_DIGIT + (digit as u8 - b'0')),
        letter @ 'a'..='z' if begins => symbol(letter.to_ascii_uppercase() as u8),
        c => {
            if begins {
                symbol(MARK);
            }
            c.encode_utf8(&mut [0; 4]).bytes().for_each(symbol);
        }
    }
    after
}

/// Returns the symbols of a phrase.
fn encode(phrase: &str) -> Vec<u8> {
    let mut symbols = Vec::with_capacity(phrase.len() + 1);
    let mut before = Before::Other;
    for c in phrase.trim().chars() {
        before = symbols_of(c, before, |symbol| symbols.push(symbol));
    }
    if symbols.is_empty() {
        // An empty pattern would match everywhere; this one occurs in no text.
        symbols.push(NOTHING);
    }
    symbols
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the matches in a text that arrives in these pieces.
    fn found(phrases: &Phrases, pieces: &[&str]) -> Vec<Found> {
        let mut search = phrases.search();
        let mut all = Vec::new();
        for piece in pieces {
            phrases.text(&mut search, piece, |one| all.push(one));
        }
        phrases.end(&mut search, |one| all.push(one));
        all
    }

    fn characters(text: &str) -> Vec<&str> {
        text.split("").collect()
    }

    /// Returns the ends of a phrase in a text, read whole and one character at a time.
    fn ends(phrase: &str, text: &str) -> Vec<u64> {
        let phrases = Phrases::new([phrase]).unwrap();
        let whole = found(&phrases, &[text]);
        let sparse = Phrases::Sparse(Sparse::new(&[phrase]).unwrap());
        assert_eq!(found(&sparse, &[text]), whole, "{phrase:?} in {text:?}");
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
    fn phrases_with_the_same_end_are_all_found() {
        let phrases = Phrases::new(["as an ai", "an ai", "ai", "an ai language model"]).unwrap();
        let mut found = found(&phrases, &["As an A", "I", " language", " models"]);
        found.sort_by_key(|one| one.phrase);
        let expected = [0, 1, 2].map(|phrase| Found { phrase, end: 8 });
        assert_eq!(found, expected);
    }

    #[test]
    fn many_phrases_are_found_like_few() {
        let many: Vec<_> = (0..2000).map(|i| format!("phrase no. {i}")).collect();
        let phrases = Phrases::new(&many).unwrap();
        assert!(matches!(phrases, Phrases::Sparse(_)));
        let text = "A phrase  No. 1999, and Phrase no. 17; phrase no. 2000";
        let expected = [(1999, 18), (17, 37)].map(|(phrase, end)| Found { phrase, end });
        assert_eq!(found(&phrases, &[text]), expected);
        assert_eq!(found(&phrases, &characters(text)), expected);
    }

    /// Returns the characters that count, each with the byte after it.
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

    fn reference_ends(phrase: &str, text: &str) -> Vec<u64> {
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
        fn matches_are_those_of_a_reference_search(
            phrase in "[aB1é不’' .\n]{1,4}",
            text in "[aAbB1éÉ不’' .\n\u{A0}]{0,60}",
        ) {
            prop_assert_eq!(ends(&phrase, &text), reference_ends(&phrase, &text));
        }
    }
}
