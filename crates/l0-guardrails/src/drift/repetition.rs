//! Repetition: sentences, and phrases of five words, that repeat.
//!
//! No text is kept. For each word in the window there is its position and a tag: sixteen bits of a hash
//! of the word and the two words before it. Two phrases are equal if the tags of their last three words
//! are equal, because these cover all five words. For each sentence there is a hash.

use std::collections::VecDeque;

use crate::hash::{Fnv, MULTIPLIER};
use crate::sentence;

/// The minimum number of sentences in the window.
const MIN_SENTENCES: usize = 3;

/// The number of words in a phrase.
const WORDS: usize = 5;

/// The number of words that a tag covers.
const TAGGED: usize = 3;

#[derive(Debug)]
pub(super) struct Repetition {
    /// The size of the window in characters.
    window: u64,
    /// The number of occurrences of a sentence or phrase that counts as repetition.
    threshold: usize,
    /// The hash and the start of the text since the last whitespace or end of a sentence.
    pub(super) piece: Fnv,
    piece_start: u64,
    /// The hash and the start of the current word: all text between whitespace is a word.
    word: Unit,
    /// The hash and the start of the current sentence, unless it is empty.
    sentence: Unit,
    /// The number of characters of the sentence.
    sentence_length: u64,
    words: Words,
    /// The sentences that begin in the window. Adding one removes those before the window.
    sentences: VecDeque<Unit>,
    /// The lengths of the text at which the ends of the last sentences leave the window, oldest first.
    /// It holds the minimum number of sentences.
    sentences_until: [u64; MIN_SENTENCES],
    /// The length of the text at which the window no longer contains repetition.
    repeated_until: u64,
}

/// A hash of a piece of text, and the start of the piece.
#[derive(Debug, Clone, Copy)]
struct Unit {
    hash: u64,
    start: u64,
}

/// Adds a character as it is compared. Some characters become several in lowercase.
#[inline(never)]
pub(super) fn with(mut piece: Fnv, c: char) -> Fnv {
    match c {
        '’' => piece.push(u64::from('\'')),
        _ => c.to_lowercase().for_each(|c| piece.push(c.into())),
    }
    piece
}

impl Unit {
    /// Creates an empty unit.
    fn new(start: u64) -> Self {
        Self { hash: 0, start }
    }

    /// Adds a piece.
    #[inline]
    fn add(&mut self, hash: u64) {
        self.hash = (self.hash.rotate_left(5) ^ hash).wrapping_mul(MULTIPLIER);
    }
}

impl Repetition {
    pub(super) fn new(window: usize, threshold: usize) -> Self {
        Self {
            window: window as u64,
            threshold,
            piece: Fnv::EMPTY,
            piece_start: 0,
            word: Unit::new(0),
            sentence: Unit::new(0),
            sentence_length: 0,
            words: Words::new(),
            sentences: VecDeque::new(),
            sentences_until: [0; MIN_SENTENCES],
            repeated_until: 0,
        }
    }

    /// Reads whitespace after this piece. Returns `true` if the text repeats itself.
    #[inline]
    pub(super) fn space(&mut self, place: u64, piece: Fnv) -> bool {
        self.end_word(place, piece, place + 1)
    }

    /// Reads the end of a sentence after this piece. Returns `true` if the text repeats itself.
    #[inline(never)]
    pub(super) fn mark(&mut self, c: char, place: u64, piece: Fnv) -> bool {
        self.end_piece(piece, place);
        self.piece_start = place + 1;
        let repeats = self.end_sentence(place, place + 1);
        self.word.add(u64::from(c));
        repeats
    }

    /// Returns `true` if the text ends at this length with repetition.
    pub(super) fn end(&mut self, length: u64) -> bool {
        self.end_word(length, self.piece, length);
        self.end_sentence(length, length);
        self.holds(length)
    }

    fn holds(&self, length: u64) -> bool {
        length < self.repeated_until && length < self.sentences_until[0]
    }

    /// Adds the text since the last whitespace or end of a sentence to the word and the sentence.
    #[inline]
    fn end_piece(&mut self, piece: Fnv, place: u64) {
        let length = place - self.piece_start;
        if length == 0 {
            return;
        }
        self.word.add(piece.0);
        if self.sentence_length == 0 {
            self.sentence = Unit::new(self.piece_start);
            self.sentence_length = length;
        } else {
            // The pieces of a sentence are joined by one space each.
            self.sentence_length += length + 1;
        }
        self.sentence.add(piece.0);
    }

    /// Ends the word that ends with this piece, if it has characters, in a text of this length.
    #[inline(never)]
    fn end_word(&mut self, place: u64, piece: Fnv, length: u64) -> bool {
        self.end_piece(piece, place);
        self.piece_start = length;
        let word = std::mem::replace(&mut self.word, Unit::new(length));
        if word.start == place || !self.words.add(word, self.window, length) {
            return false;
        }
        self.phrase(length)
    }

    /// Looks for the phrase that ends with the last word.
    #[cold]
    fn phrase(&mut self, length: u64) -> bool {
        let first = self.words.first_of(self.threshold, self.window, length);
        self.repeated(first, length)
    }

    fn end_sentence(&mut self, place: u64, length: u64) -> bool {
        let characters = std::mem::take(&mut self.sentence_length);
        let sentence = self.sentence;
        if characters <= sentence::SHORT {
            return false;
        }
        self.sentences_until.rotate_left(1);
        self.sentences_until[MIN_SENTENCES - 1] = place + self.window + 1;

        let since = length.saturating_sub(self.window);
        while self.sentences.front().is_some_and(|one| one.start < since) {
            self.sentences.pop_front();
        }
        if sentence.start >= since {
            self.sentences.push_back(sentence);
        }
        let mut equal = self
            .sentences
            .iter()
            .rev()
            .filter(|one| one.hash == sentence.hash);
        let first = equal.nth(self.threshold - 1).map(|one| one.start);
        self.repeated(first, length)
    }

    /// Records that something has reached the threshold here.
    fn repeated(&mut self, first: Option<u64>, length: u64) -> bool {
        if let Some(first) = first {
            self.repeated_until = self.repeated_until.max(first + self.window + 1);
        }
        self.holds(length)
    }
}

/// The words that begin in the window, in the order of the text.
#[derive(Debug)]
struct Words {
    /// The hashes of the last words.
    last: [u64; TAGGED - 1],
    blocks: Vec<Block>,
    /// The number of words in the last block.
    filled: usize,
    /// The number of leading words that begin before the window, as of the last check.
    gone: usize,
    /// The number of words to come before a phrase can match an earlier one.
    new: usize,
    /// The length of the text up to the last word.
    length: u64,
}

/// A block of words, whose tags are compared at once.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    tags: [u16; Self::WORDS],
    /// The starts of the words, without their upper bits. Compared words are never far enough apart to
    /// need them.
    starts: [u16; Self::WORDS],
}

impl Block {
    const WORDS: usize = 16;

    #[inline]
    fn has(&self, tag: u16) -> bool {
        self.tags.iter().fold(false, |has, one| has | (*one == tag))
    }
}

impl Words {
    /// The maximum distance from the end of a word to that of the next one before old words are
    /// removed. Otherwise they are removed once per block. So no word stays long enough for its start
    /// to be ambiguous.
    const GAP: u64 = 1_000;

    fn new() -> Self {
        Self {
            last: [0; TAGGED - 1],
            blocks: Vec::new(),
            filled: Block::WORDS,
            gone: 0,
            new: 0,
            length: 0,
        }
    }

    /// Adds a word that ends a text of this length. Returns `true` if it can end a phrase that occurred
    /// before.
    #[inline]
    fn add(&mut self, word: Unit, window: u64, length: u64) -> bool {
        if length - self.length > Self::GAP {
            self.jump(window, length);
        }
        self.length = length;
        let [first, second] = self.last;
        self.last = [second, word.hash];
        let tagged = first.wrapping_mul(MULTIPLIER).wrapping_add(second);
        let tagged = tagged.wrapping_mul(MULTIPLIER).wrapping_add(word.hash);
        let tag = ((tagged ^ (tagged >> 32)).wrapping_mul(MULTIPLIER) >> 48) as u16;

        let mut may_repeat = false;
        if self.new > 0 {
            self.new -= 1;
        } else if self.has(tag) {
            may_repeat = true;
        } else {
            // No phrase with these three words occurred before.
            self.new = WORDS - TAGGED;
        }

        if self.filled == Block::WORDS {
            self.make_room(window, length);
        }
        if let Some(block) = self.blocks.last_mut() {
            block.tags[self.filled] = tag;
            // The exact start does not matter if it is before the window.
            block.starts[self.filled] = word.start.max(length.saturating_sub(window + 1)) as u16;
            self.filled += 1;
        }
        may_repeat
    }

    /// Returns `true` if a word of the window, or one that left it recently, has this tag.
    #[inline]
    fn has(&self, tag: u16) -> bool {
        let blocks = self.blocks.get(self.gone / Block::WORDS..);
        blocks.is_some_and(|blocks| blocks.iter().any(|block| block.has(tag)))
    }

    /// Returns the start of the first of the last `count` equal phrases that end with the last word.
    fn first_of(&mut self, count: usize, window: u64, length: u64) -> Option<u64> {
        self.forget(window, length);
        // A phrase counts if all its words are in the window.
        let first = self.gone + WORDS - 1;
        let last = self.count().checked_sub(1).filter(|last| *last >= first)?;
        let tag = self.tag(last);
        let blocks = (first / Block::WORDS..self.blocks.len()).rev();
        let near = blocks.filter(|block| self.blocks[*block].has(tag));
        let words = near.flat_map(|block| {
            (0..Block::WORDS)
                .rev()
                .map(move |at| block * Block::WORDS + at)
        });
        let is_equal =
            |end: usize| (0..TAGGED).all(|back| self.tag(end - back) == self.tag(last - back));
        let mut ends = words.filter(|end| (first..=last).contains(end) && is_equal(*end));
        let end = ends.nth(count - 1)?;
        Some(length - self.age(end + 1 - WORDS, length))
    }

    fn count(&self) -> usize {
        self.blocks.len() * Block::WORDS + self.filled - Block::WORDS
    }

    fn tag(&self, word: usize) -> u16 {
        self.blocks[word / Block::WORDS].tags[word % Block::WORDS]
    }

    /// Returns the number of characters from a word on, for a text of this length.
    fn age(&self, word: usize, length: u64) -> u64 {
        let start = self.blocks[word / Block::WORDS].starts[word % Block::WORDS];
        u64::from((length as u16).wrapping_sub(start))
    }

    /// Counts the words that begin before the window.
    fn forget(&mut self, window: u64, length: u64) {
        while self.gone < self.count() && self.age(self.gone, length) > window {
            self.gone += 1;
        }
    }

    /// Removes old words after a long gap.
    #[cold]
    fn jump(&mut self, window: u64, length: u64) {
        if length - self.length > window {
            self.gone = self.count();
        } else {
            self.forget(window, length);
        }
    }

    /// Makes space after the words: in place of the blocks whose words are all gone, if there are any.
    #[cold]
    fn make_room(&mut self, window: u64, length: u64) {
        let mut gone = self.gone / Block::WORDS;
        while gone < self.blocks.len() && self.age((gone + 1) * Block::WORDS - 1, length) > window {
            gone += 1;
        }
        if gone > 0 {
            self.gone = self.gone.saturating_sub(gone * Block::WORDS);
            self.blocks.drain(..gone);
        } else {
            self.blocks.reserve_exact(1);
        }
        self.blocks.push(Block::default());
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::delta::Delta;
    use super::super::{Detector, Drift, Kind, Kinds};
    use super::*;
    use crate::sentence::ends_sentence;

    fn only_repetition() -> Drift {
        Drift::new()
            .meta_commentary(false)
            .tone_shift(false)
            .entropy_spike(false)
            .format_collapse(false)
            .markdown_collapse(false)
            .hedging(false)
    }

    /// Returns `true` if the text repeats itself along the way, and at the end.
    fn found(window: usize, threshold: usize, pieces: &[&str]) -> (bool, bool) {
        let drift = Drift {
            repetition_threshold: threshold,
            window,
            ..only_repetition()
        };
        let mut detector = Detector::new(&drift);
        let mut on_the_way = Kinds::default();
        for piece in pieces {
            let mut delta = Delta::new(piece, detector.length);
            on_the_way.add(detector.read(piece, &mut delta));
        }
        let length = detector.length;
        let mut repetition = detector.repetition.expect("detection is on");
        (on_the_way.has(Kind::Repetition), repetition.end(length))
    }

    /// A sentence or phrase, its start and its end.
    type Part = (String, usize, usize);

    /// Returns the words and the sentences of a text, complete or not.
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

    /// A reference implementation: returns `true` if a text of this length has repetition in its
    /// window.
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
        // The reference implementation is slow.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn repetition_matches_the_reference(
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
            // The reference implementation does not handle apostrophes.
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
    fn no_more_words_are_kept_than_begin_in_a_window() {
        for window in [100, 101, 500, 10_000] {
            let drift = Drift {
                repetition_threshold: usize::MAX,
                window,
                ..only_repetition()
            };
            let mut detector = Detector::new(&drift);
            let text = "a b c. ".repeat(2_000);
            detector.read(&text, &mut Delta::new(&text, 0));
            let words = detector.repetition.expect("detection is on").words;
            let (most, room) = (window * 3 / 7, words.blocks.capacity() * Block::WORDS);
            assert!(room >= most, "{room} for {window}");
            assert!(room <= most + 2 * Block::WORDS, "{room} for {window}");
        }
    }

    #[test]
    fn a_phrase_is_found_at_any_distance() {
        let before =
            "This is the first one here. And this is the second. Then the third comes here. ";
        for words in 0..12 {
            let between: String = (0..words).map(|word| format!("{word}th ")).collect();
            let phrase = "one two three four five ";
            let text = [before, phrase, &between, phrase].concat();
            assert_eq!(
                found(500, 2, &[&text]),
                (true, true),
                "{words} words between"
            );
        }
    }

    #[test]
    fn distant_parts_are_not_repetition() {
        let sentences =
            "This is the first one here. This is the second. And the third comes here. ";
        for far in [100, 1 << 16, (1 << 16) - 500, 1 << 20] {
            for gap in [" ".repeat(far), "x".repeat(far) + " "] {
                let text = [sentences, &gap, sentences].concat();
                assert_eq!(found(100, 2, &[&text]), (false, false), "{far}");
                let text = [sentences, &gap, sentences, &sentences[..50]].concat();
                assert_eq!(found(150, 2, &[&text]), (true, true), "{far}");
            }
        }
    }
}
