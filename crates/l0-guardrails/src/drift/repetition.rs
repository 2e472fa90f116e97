//! Repetition: sentences, and phrases of five words, that come again and again.
//!
//! Neither is kept: only its hash, where it begins, and which one came before it in the same bucket
//! of a table, so that those that are equal are found without a search.

use super::delta::Delta;
use crate::hash::{Fnv, MULTIPLIER};
use crate::sentence::{self, ends_sentence};

/// How many sentences the window must have.
const MIN_SENTENCES: usize = 3;

/// How many words a phrase has.
const WORDS: usize = 5;

#[derive(Debug)]
pub(super) struct Repetition {
    /// How many characters back it looks.
    window: u64,
    /// How often a sentence or phrase occurs when it is repetition.
    threshold: usize,
    /// The hash and the length of what came since the last whitespace or end of a sentence.
    piece: Piece,
    /// The hash of the word so far, and where it begins: all between whitespace is a word.
    word: Option<Unit>,
    /// The hash of the sentence so far, and where it begins.
    sentence: Option<Unit>,
    /// How many characters the sentence has.
    sentence_length: u64,
    /// The last words, a ring.
    words: [Unit; WORDS],
    /// How many words there were.
    word_count: usize,
    /// The hash of the last words.
    phrase: u64,
    phrases: Occurrences,
    sentences: Occurrences,
    /// At which length of the text the ends of the last sentences leave the window: a ring of as
    /// many as there must be.
    sentences_until: [u64; MIN_SENTENCES],
    sentence_count: usize,
    /// At which length of the text the window no longer has anything that is repeated.
    repeated_until: u64,
}

/// A hash, and where what it is of begins.
#[derive(Debug, Clone, Copy, Default)]
struct Unit {
    hash: u64,
    start: u64,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    hash: Fnv,
    length: u64,
}

impl Piece {
    const EMPTY: Self = Self {
        hash: Fnv::EMPTY,
        length: 0,
    };

    #[inline]
    fn push(&mut self, c: u32) {
        self.hash.push(c.into());
        self.length += 1;
    }

    fn push_any(&mut self, c: char) {
        let length = self.length + 1;
        match c {
            '’' => self.push(u32::from('\'')),
            _ => c.to_lowercase().for_each(|c| self.push(c.into())),
        }
        // Whatever a character becomes, it counts once.
        self.length = length;
    }
}

/// Stands for a character that ends a word or a sentence. It is none of ASCII.
const BOUNDARY: u8 = 0xFF;

/// Each ASCII character in lower case.
const ASCII: [u8; 128] = {
    let mut letters = [0; 128];
    let mut byte = 0;
    while byte < 128 {
        letters[byte] = match byte as u8 {
            b'\t'..=b'\r' | b' ' => BOUNDARY,
            mark if ends_sentence(mark as char) => BOUNDARY,
            letter => letter.to_ascii_lowercase(),
        };
        byte += 1;
    }
    letters
};

/// `MULTIPLIER` to the power of the number of words.
const MULTIPLIER_OF_OLDEST: u64 = MULTIPLIER.wrapping_pow(WORDS as u32);

/// Spreads what the bits say over all bits.
fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 32)).wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 29)
}

impl Unit {
    fn add(&mut self, hash: u64) {
        self.hash = (self.hash.rotate_left(5) ^ hash).wrapping_mul(MULTIPLIER);
    }
}

impl Repetition {
    pub(super) fn new(window: usize, threshold: usize) -> Self {
        Self {
            window: window as u64,
            threshold,
            piece: Piece::EMPTY,
            word: None,
            sentence: None,
            sentence_length: 0,
            words: [Unit::default(); WORDS],
            word_count: 0,
            phrase: 0,
            // Every other character at most begins a word.
            phrases: Occurrences::new(window as u64 / 2 + 1),
            sentences: Occurrences::new(window as u64 / sentence::SHORT + 1),
            sentences_until: [0; MIN_SENTENCES],
            sentence_count: 0,
            repeated_until: 0,
        }
    }

    /// The text goes on. Whether it repeats itself, at any of these characters.
    #[inline]
    pub(super) fn text(&mut self, delta: &Delta<'_>) -> bool {
        // Held here, so that it can stay in a register.
        let mut piece = self.piece;
        let mut repeats = false;
        if delta.is_ascii() {
            for (place, byte) in (delta.start..).zip(delta.text.bytes()) {
                match ASCII[usize::from(byte & 127)] {
                    BOUNDARY => repeats |= self.boundary(char::from(byte), place, &mut piece),
                    letter => piece.push(u32::from(letter)),
                }
            }
        } else {
            for (place, c) in (delta.start..).zip(delta.text.chars()) {
                if c.is_whitespace() || ends_sentence(c) {
                    repeats |= self.boundary(c, place, &mut piece);
                } else {
                    piece.push_any(c);
                }
            }
        }
        self.piece = piece;
        repeats
    }

    /// A whitespace, or an end of a sentence.
    #[inline]
    fn boundary(&mut self, c: char, place: u64, piece: &mut Piece) -> bool {
        self.end_piece(std::mem::replace(piece, Piece::EMPTY), place);
        if c.is_whitespace() {
            return self.end_word(place + 1);
        }
        let repeats = self.end_sentence(place, place + 1);
        self.end_mark(c, place);
        repeats
    }

    /// Whether the text ends, at this length, repeating itself.
    pub(super) fn end(&mut self, length: u64) -> bool {
        let piece = std::mem::replace(&mut self.piece, Piece::EMPTY);
        self.end_piece(piece, length);
        self.end_word(length);
        self.end_sentence(length, length);
        self.holds(length)
    }

    fn holds(&self, length: u64) -> bool {
        let oldest = || self.sentences_until[self.sentence_count % MIN_SENTENCES];
        length < self.repeated_until && length < oldest()
    }

    /// What came since the last whitespace or end of a sentence becomes part of word and sentence.
    #[inline]
    fn end_piece(&mut self, Piece { hash, length }: Piece, place: u64) {
        if length == 0 {
            return;
        }
        let start = Unit {
            hash: 0,
            start: place.saturating_sub(length),
        };
        self.word.get_or_insert(start).add(hash.0);
        // Its pieces are joined by one space each.
        self.sentence_length += u64::from(self.sentence.is_some()) + length;
        self.sentence.get_or_insert(start).add(hash.0);
    }

    /// The end of a sentence is part of the word.
    fn end_mark(&mut self, c: char, place: u64) {
        let start = Unit {
            hash: 0,
            start: place,
        };
        self.word.get_or_insert(start).add(u64::from(c));
    }

    #[inline]
    fn end_word(&mut self, length: u64) -> bool {
        let Some(word) = self.word.take() else {
            return false;
        };
        let word_before_phrase = self.words[0];
        self.words.copy_within(1.., 0);
        self.words[WORDS - 1] = word;
        self.word_count += 1;
        let of_oldest = word_before_phrase.hash.wrapping_mul(MULTIPLIER_OF_OLDEST);
        self.phrase = self.phrase.wrapping_mul(MULTIPLIER);
        self.phrase = self.phrase.wrapping_add(word.hash).wrapping_sub(of_oldest);
        if self.word_count < WORDS {
            return false;
        }
        let phrase = Unit {
            hash: mix(self.phrase),
            start: self.words[0].start,
        };
        let first = self.phrases.add(phrase, self.threshold, self.since(length));
        self.repeated(first, length)
    }

    fn end_sentence(&mut self, place: u64, length: u64) -> bool {
        let characters = std::mem::take(&mut self.sentence_length);
        let Some(sentence) = self.sentence.take() else {
            return false;
        };
        if characters <= sentence::SHORT {
            return false;
        }
        self.sentences_until[self.sentence_count % MIN_SENTENCES] = place + self.window + 1;
        self.sentence_count += 1;
        let first = self
            .sentences
            .add(sentence, self.threshold, self.since(length));
        self.repeated(first, length)
    }

    /// Where the window of a text of this length begins.
    fn since(&self, length: u64) -> u64 {
        length.saturating_sub(self.window)
    }

    /// Something came so often that it is too often, for the first time here.
    fn repeated(&mut self, first: Option<u64>, length: u64) -> bool {
        if let Some(first) = first {
            self.repeated_until = self.repeated_until.max(first + self.window + 1);
        }
        self.holds(length)
    }
}

/// Where the last occurrences of hashes begin.
#[derive(Debug)]
struct Occurrences {
    /// How many may begin in a window, or more: a power of two.
    size: u32,
    /// A ring of that size. Nothing is allocated before there is something to keep.
    ring: Vec<Occurrence>,
    /// For each of the buckets, the number of its last occurrence.
    last: Vec<u32>,
    /// The number of the next occurrence. They are counted from the ring's size on, so that 0
    /// stands for one that is overwritten.
    next: u32,
}

/// Small, since most of what a run keeps is these.
#[derive(Debug, Clone, Copy, Default)]
struct Occurrence {
    /// The upper half of the hash: the lower one has chosen the bucket.
    hash: u32,
    /// Where it begins, without the upper half: what is compared is never so far apart.
    start: u32,
    /// The number of the one before it in the same bucket.
    before: u32,
}

impl Occurrences {
    /// How many buckets there are for each occurrence. A window of ordinary words has far fewer than
    /// there may be at most, so that a look into a bucket mostly ends there.
    const BUCKETS: usize = 1;

    fn new(count: u64) -> Self {
        let size = (count as u32).next_power_of_two();
        Self {
            size,
            ring: Vec::new(),
            last: Vec::new(),
            next: size,
        }
    }

    #[cold]
    fn allocate(&mut self) {
        let size = self.size as usize;
        self.ring.resize(size, Occurrence::default());
        self.last.resize(Self::BUCKETS * size, 0);
    }

    /// Adds an occurrence. Gives where the first of the last `count` equal ones begins, if it
    /// begins at `since` or later.
    #[inline]
    fn add(&mut self, unit: Unit, count: usize, since: u64) -> Option<u64> {
        if self.ring.is_empty() {
            self.allocate();
        }
        let buckets = self.last.len() - 1;
        let last = self.last.get_mut(unit.hash as usize & buckets)?;
        let mut number = std::mem::replace(last, self.next);
        let mask = self.ring.len() - 1;
        let this = Occurrence {
            hash: (unit.hash >> 32) as u32,
            start: unit.start as u32,
            before: number,
        };
        *self.ring.get_mut(self.next as usize & mask)? = this;
        self.next = self.next.wrapping_add(1);
        let reach = unit.start.checked_sub(since)?;
        let mut seen = 1;
        loop {
            let one = self.ring.get(number as usize & mask)?;
            // One branch for both, which is mostly taken.
            let is_overwritten = self.next.wrapping_sub(number) > self.size;
            let back = u64::from(this.start.wrapping_sub(one.start));
            if is_overwritten | (back > reach) {
                return None;
            }
            if one.hash == this.hash {
                seen += 1;
                if seen >= count {
                    return Some(unit.start - back);
                }
            }
            number = one.before;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether the text repeats itself on the way, and at the end.
    fn found(window: usize, threshold: usize, pieces: &[&str]) -> (bool, bool) {
        let mut repetition = Repetition::new(window, threshold);
        let (mut on_the_way, mut length) = (false, 0);
        for piece in pieces {
            let delta = Delta::new(piece, length);
            on_the_way |= repetition.text(&delta);
            length = delta.end();
        }
        (on_the_way, repetition.end(length))
    }

    /// A sentence or phrase, where it begins and where it ends.
    type Part = (String, usize, usize);

    /// The words and the sentences of a text, complete or not.
    fn parts(text: &[char], is_complete: bool) -> (Vec<Part>, Vec<Part>) {
        let is_end = |c: &char| ends_sentence(*c);
        let is_space = |c: &char| c.is_whitespace();
        let split = |at: &dyn Fn(&char) -> bool| -> Vec<Part> {
            let mut start = 0;
            let mut all = Vec::new();
            for one in text.split(at) {
                let lead = one.iter().take_while(|c| is_space(c)).count();
                let line: String = one.iter().collect::<String>().to_lowercase();
                let words: Vec<_> = line.split_whitespace().collect();
                all.push((words.join(" "), start + lead, start + one.len()));
                start += one.len() + 1;
            }
            if !is_complete {
                all.pop();
            }
            all.retain(|(text, ..)| !text.is_empty());
            all
        };
        let (words, mut sentences) = (split(&is_space), split(&is_end));
        sentences.retain(|(text, ..)| text.chars().count() > 20);
        (words, sentences)
    }

    /// The plain way: what a text of this length has in its window.
    fn repeats(text: &[char], is_complete: bool, window: usize, threshold: usize) -> bool {
        let since = text.len().saturating_sub(window);
        let (words, mut sentences) = parts(text, is_complete);
        sentences.retain(|(_, _, end)| *end >= since);
        let phrase = |words: &[Part]| {
            let text: Vec<&str> = words.iter().map(|(text, ..)| &**text).collect();
            (text.join(" "), words[0].1, 0)
        };
        let phrases: Vec<Part> = words.windows(WORDS).map(phrase).collect();
        let often = |parts: &[Part]| {
            let inside = |one: &&Part| one.1 >= since;
            let is_often = |one: &Part| {
                let equal = parts.iter().filter(inside).filter(|other| other.0 == one.0);
                equal.count() >= threshold
            };
            parts.iter().filter(inside).any(is_often)
        };
        sentences.len() >= MIN_SENTENCES && (often(&sentences) || often(&phrases))
    }

    proptest! {
        // The plain way takes its time.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_found_is_what_the_plain_way_finds(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "This is what we say here again", "this is What we", "a ", "b\n", " ", ".", "! ",
                    "? And so it goes on, you know", "日本語の文章はここで終わるのですけれども、まだ続きます",
                    "。", "It’s", "it's", "\u{A0}", "e.g. ", "É", "é", "one two three four five ", "\0",
                ]),
                0..40,
            ),
            window in 20_usize..300,
            threshold in 2_usize..4,
        ) {
            let text: String = parts.concat();
            // The plain way knows nothing of apostrophes.
            let characters: Vec<char> = text.replace('’', "'").chars().collect();
            let pieces: Vec<&str> = text.split("").collect();
            let whole = found(window, threshold, &[&text]);
            prop_assert_eq!(found(window, threshold, &pieces), whole);
            let complete = repeats(&characters, true, window, threshold);
            prop_assert_eq!(whole.1, complete);
            let way = |end| repeats(&characters[..end], false, window, threshold);
            prop_assert_eq!(whole.0, (0..=characters.len()).any(way));
        }
    }

    #[test]
    fn the_ring_has_room_for_all_that_fits_in_a_window() {
        for window in [100, 101, 500, 10_000] {
            let mut repetition = Repetition::new(window, usize::MAX);
            let text = "a b c. ".repeat(5_000);
            repetition.text(&Delta::new(&text, 0));
            let size = repetition.phrases.ring.len();
            assert!(
                size >= window / 2 && size <= window + 2,
                "{size} for {window}"
            );
        }
    }
}
