//! Patterns: phrases and shapes that a model's answer has when it is about the model, and not
//! about what was asked.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, LazyLock};

use l0_core::{Check, Ended, Findings, Severity, Violation};

use crate::phrases::{Phrases, Search};

/// Looks for answers that talk about themselves, refuse, leak their instructions, are not filled
/// in, or repeat themselves.
///
/// | violation | severity | what |
/// |---|---|---|
/// | `pattern-meta-commentary` | error | "as an AI language model", "as an AI assistant", "I'm an AI", "I am an AI", "I don't have personal", "I cannot actually", "I apologize, but I", "I'm sorry, but I" |
/// | `pattern-hedging` | warning | a first line that is only "sure", "certainly", "of course" or "absolutely", with or without one of `!`, `.`, `,` |
/// | `pattern-refusal` | error, not recoverable: it ends the run | "I cannot provide", "I'm not able to", "I can't assist with", "I'm unable to", "that would be inappropriate" |
/// | `pattern-instruction-leak` | error | `[system]`, `[user]`, `[assistant]`, `<\|im_start\|>`, `<\|im_end\|>`; `### instruction` and `### system` if that is the whole heading, or a colon follows |
/// | `pattern-placeholders` | error | `[insert ...]`, `[todo]`, `[placeholder]`, `[your ... here]`, `{{...}}` |
/// | `pattern-format-collapse` | warning | in the first three lines: "here is the ...:", "here's the ...:", "let me ... for you", "I'll ... for you" |
/// | `pattern-repetition` | error | at the end: a sentence of more than 20 characters that occurs more than twice |
/// | `pattern-first-last-duplicate` | error | at the end of an answer of 100 characters or more: the last sentence is the first, and has more than 10 characters |
///
/// All but the last two are reported as soon as they are seen. The position of a violation is the
/// byte right behind what was found.
///
/// Phrases are found anywhere in the answer, in quotations and code too. Case is ignored, a
/// typographic apostrophe is as good as a plain one, whitespace of any kind and length is one
/// space, and only whole words count: that a last word is whole is seen when the next character
/// comes. What `...` stands for is on one line, is not blank, and has at most 80 characters together
/// with what ends it. Lines are counted from the first that is not blank. A colon inside of a word,
/// a number or an address does not count.
///
/// A sentence ends with `.`, `!`, `?` or their like in other scripts, and begins with its first
/// letter or digit. Case and the amount of whitespace do not matter. Sentences are kept as hashes
/// of 64 bits, no more than 4,096 different ones, which is up to 140 KB: in a longer answer, the
/// repetition of later ones goes unnoticed. Nothing else that is kept grows with the answer, and
/// its text is not kept.
#[derive(Debug)]
pub struct Patterns {
    phrases: &'static Phrases,
    search: Search,
    lines: Lines,
    sentences: Sentences,
}

impl Patterns {
    /// Creates the rule, for one attempt.
    #[must_use]
    pub fn new() -> Self {
        let phrases = &*PHRASES;
        Self {
            phrases,
            search: Search::new(phrases),
            lines: Lines::new(),
            sentences: Sentences::default(),
        }
    }
}

impl Default for Patterns {
    fn default() -> Self {
        Self::new()
    }
}

impl Check for Patterns {
    fn name(&self) -> &'static str {
        "pattern-detection"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings) {
        let Self {
            phrases,
            search,
            lines,
            sentences,
        } = self;
        let start = search.position();
        let mut read = 0;
        // The characters up to each phrase's end are read before the phrase is, so that what is
        // reported comes in the same order however the text is cut.
        search.text(phrases, delta, |found| {
            let at = (found.end - start) as usize;
            lines.read(&delta[read..at], start + read as u64, findings);
            read = at;
            lines.found(found.phrase, found.end, findings);
        });
        lines.read(&delta[read..], start + read as u64, findings);
        sentences.read(delta, start);
    }

    fn end(&mut self, _: &Ended, findings: &mut Findings) {
        let lines = &mut self.lines;
        self.search.end(self.phrases, |found| {
            lines.found(found.phrase, found.end, findings);
        });
        lines.end(self.search.position(), findings);
        self.sentences.end(self.search.position(), findings);
    }
}

/// What it means that a phrase was found.
#[derive(Debug, Clone, Copy)]
enum Meaning {
    MetaCommentary,
    Refusal,
    InstructionLeak,
    Placeholder,
    /// What follows decides.
    Opens(Shape),
    /// Ends a shape, or begins to, if it is open.
    Closes(Shape),
}

/// What is found by its beginning, its end, and what is between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `### system`, with nothing or a colon behind it
    Heading,
    /// `[insert ...]`
    Insert,
    /// `[your ... here]`
    Your,
    /// `{{...}}`
    Braces,
    /// `here is the ...:`
    Intro,
    /// `let me ... for you`
    Offer,
}

static MEANINGS: [(&str, Meaning); 31] = [
    ("as an ai language model", Meaning::MetaCommentary),
    ("as an ai assistant", Meaning::MetaCommentary),
    ("i'm an ai", Meaning::MetaCommentary),
    ("i am an ai", Meaning::MetaCommentary),
    ("i don't have personal", Meaning::MetaCommentary),
    ("i cannot actually", Meaning::MetaCommentary),
    ("i apologize, but i", Meaning::MetaCommentary),
    ("i'm sorry, but i", Meaning::MetaCommentary),
    ("i cannot provide", Meaning::Refusal),
    ("i'm not able to", Meaning::Refusal),
    ("i can't assist with", Meaning::Refusal),
    ("i'm unable to", Meaning::Refusal),
    ("that would be inappropriate", Meaning::Refusal),
    ("[system]", Meaning::InstructionLeak),
    ("[user]", Meaning::InstructionLeak),
    ("[assistant]", Meaning::InstructionLeak),
    ("<|im_start|>", Meaning::InstructionLeak),
    ("<|im_end|>", Meaning::InstructionLeak),
    ("### instruction", Meaning::Opens(Shape::Heading)),
    ("### system", Meaning::Opens(Shape::Heading)),
    ("[todo]", Meaning::Placeholder),
    ("[placeholder]", Meaning::Placeholder),
    ("[insert", Meaning::Opens(Shape::Insert)),
    ("[your", Meaning::Opens(Shape::Your)),
    ("here", Meaning::Closes(Shape::Your)),
    ("{{", Meaning::Opens(Shape::Braces)),
    ("here is the", Meaning::Opens(Shape::Intro)),
    ("here's the", Meaning::Opens(Shape::Intro)),
    ("let me", Meaning::Opens(Shape::Offer)),
    ("i'll", Meaning::Opens(Shape::Offer)),
    ("for you", Meaning::Closes(Shape::Offer)),
];

static PHRASES: LazyLock<Phrases> = LazyLock::new(|| {
    let phrases = MEANINGS.iter().map(|(phrase, _)| phrase);
    Phrases::new(phrases).expect("the phrases are constant, and tested")
});

/// Reports what was found: the message ends with a phrase or a shape of ours, never with text of
/// the answer.
fn report(findings: &mut Findings, meaning: Meaning, what: &str, end: u64) {
    let (rule, severity, kind) = match meaning {
        Meaning::MetaCommentary => (
            "pattern-meta-commentary",
            Severity::Error,
            "The answer is about the model itself",
        ),
        Meaning::Refusal => ("pattern-refusal", Severity::Error, "The model refuses"),
        Meaning::InstructionLeak | Meaning::Opens(Shape::Heading) => (
            "pattern-instruction-leak",
            Severity::Error,
            "A mark of the instructions is in the answer",
        ),
        Meaning::Placeholder | Meaning::Opens(Shape::Insert | Shape::Your | Shape::Braces) => (
            "pattern-placeholders",
            Severity::Error,
            "A placeholder is not filled in",
        ),
        _ => (
            "pattern-format-collapse",
            Severity::Warning,
            "The answer announces itself",
        ),
    };
    let recoverable = !matches!(meaning, Meaning::Refusal);
    let violation = Violation::new(rule, severity, format!("{kind}: {what}"));
    findings.report(violation.recoverable(recoverable).position(end));
}

/// What depends on the characters around the phrases: what the first lines say, and the shapes
/// that are open.
#[derive(Debug)]
struct Lines {
    /// The first line, while it may still be a hedge.
    first: Option<FirstLine>,
    /// How many lines are complete, up to [`Lines::FIRST`].
    complete: u8,
    /// One of each kind at most.
    open: Vec<Gap>,
}

impl Lines {
    /// How many lines are the first lines.
    const FIRST: u8 = 3;

    fn new() -> Self {
        Self {
            first: Some(FirstLine::default()),
            complete: 0,
            open: Vec::new(),
        }
    }

    /// Reads text up to the end of a phrase, or of the delta.
    fn read(&mut self, text: &str, start: u64, findings: &mut Findings) {
        if self.first.is_none() && self.open.is_empty() {
            if self.complete < Self::FIRST {
                let ends = text.bytes().filter(|&byte| byte == b'\n').count();
                self.complete = (usize::from(self.complete) + ends).min(Self::FIRST.into()) as u8;
            }
        } else {
            for (at, c) in text.char_indices() {
                self.read_char(c, start + at as u64, findings);
            }
        }
    }

    fn read_char(&mut self, c: char, at: u64, findings: &mut Findings) {
        self.open.retain_mut(|gap| match gap.read(c) {
            Step::On => true,
            Step::Off => false,
            Step::Before => gap.report(at, findings),
            Step::Here => gap.report(at + c.len_utf8() as u64, findings),
        });
        let Some(first) = &mut self.first else {
            self.complete = (self.complete + u8::from(c == '\n')).min(Self::FIRST);
            return;
        };
        if c == '\n' && first.length > 0 {
            self.complete = 1;
            self.end_first(at, findings);
        } else if !first.read(c) {
            self.first = None;
        }
    }

    fn found(&mut self, phrase: usize, end: u64, findings: &mut Findings) {
        let (what, meaning) = MEANINGS[phrase];
        match meaning {
            Meaning::Opens(Shape::Intro | Shape::Offer) if self.complete == Self::FIRST => {}
            Meaning::Opens(shape) => {
                self.open.retain(|gap| gap.shape != shape);
                self.open.push(Gap::new(phrase, shape));
            }
            Meaning::Closes(shape) => self.open.retain_mut(|gap| {
                let closes = gap.shape == shape && gap.close();
                !closes || gap.report(end, findings)
            }),
            _ => report(findings, meaning, &format!("\"{what}\""), end),
        }
    }

    fn end(&mut self, end: u64, findings: &mut Findings) {
        for gap in self.open.drain(..) {
            if gap.ends_with_text() {
                gap.report(end, findings);
            }
        }
        self.end_first(end, findings);
    }

    fn end_first(&mut self, end: u64, findings: &mut Findings) {
        if let Some(hedge) = self.first.take().and_then(|first| first.hedge()) {
            let message = format!("The first line says no more than \"{hedge}\"");
            let violation = Violation::new("pattern-hedging", Severity::Warning, message);
            findings.report(violation.position(end));
        }
    }
}

/// The first line that is not blank, as long as it may be a hedge.
#[derive(Debug, Default)]
struct FirstLine {
    text: [u8; 12],
    length: usize,
}

impl FirstLine {
    /// Adds a character; `false` if the line is no hedge.
    fn read(&mut self, c: char) -> bool {
        let byte = match u8::try_from(c) {
            _ if c.is_whitespace() => b' ',
            Ok(byte) if byte.is_ascii() => byte.to_ascii_lowercase(),
            _ => return false,
        };
        if byte == b' ' && matches!(self.text[..self.length].last(), None | Some(b' ')) {
            return true;
        }
        let Some(next) = self.text.get_mut(self.length) else {
            // Full, and one more space says nothing.
            return byte == b' ';
        };
        *next = byte;
        self.length += 1;
        true
    }

    fn hedge(&self) -> Option<&'static str> {
        let line = match self.text[..self.length].trim_ascii_end() {
            [word @ .., b'!' | b'.' | b','] => word,
            word => word,
        };
        let hedges = ["sure", "certainly", "of course", "absolutely"];
        hedges.into_iter().find(|hedge| hedge.as_bytes() == line)
    }
}

/// A shape that has begun: what was read behind its beginning.
#[derive(Debug)]
struct Gap {
    /// The phrase that it begins with.
    phrase: usize,
    shape: Shape,
    length: u8,
    /// How many of the characters are not blank.
    filled: u8,
    /// Whether the last thing read is the end, if what follows allows it.
    closing: bool,
}

enum Step {
    On,
    /// It does not become one.
    Off,
    /// It was one already, without this character.
    Before,
    /// It is one, with this character.
    Here,
}

impl Gap {
    /// How many characters may follow the beginning, the end included.
    const MAX: u8 = 80;

    fn new(phrase: usize, shape: Shape) -> Self {
        Self {
            phrase,
            shape,
            length: 0,
            filled: 0,
            closing: false,
        }
    }

    fn read(&mut self, c: char) -> Step {
        let is_blank = c.is_whitespace();
        let closing = std::mem::take(&mut self.closing);
        match (self.shape, c) {
            (Shape::Heading, '\n') => return Step::Before,
            (Shape::Heading, ':') => return Step::Here,
            (Shape::Heading, _) if !is_blank => return Step::Off,
            // Not the colon of `10:30`, `https://` or `std::fmt`.
            (Shape::Intro, _) if closing && !c.is_alphanumeric() && !matches!(c, ':' | '/') => {
                return Step::Before;
            }
            (_, '\n') => return Step::Off,
            _ if self.length == Self::MAX => return Step::Off,
            (Shape::Insert, _) if self.length == 0 && !is_blank => return Step::Off,
            (Shape::Insert | Shape::Your, '[') => return Step::Off,
            (Shape::Insert, ']') if self.filled > 0 => return Step::Here,
            (Shape::Your, ']') | (Shape::Braces, '}') if closing => return Step::Here,
            (Shape::Insert | Shape::Your, ']') => return Step::Off,
            (Shape::Braces, '}') if self.filled == 0 => return Step::Off,
            (Shape::Braces, _) if closing => return Step::Off,
            (Shape::Braces, '}') => self.closing = true,
            (Shape::Your, _) => self.closing = closing && is_blank,
            (Shape::Intro, ':') => self.closing = self.filled > 0,
            _ => {}
        }
        self.length += 1;
        self.filled += u8::from(!is_blank);
        Step::On
    }

    /// The phrase that may end it was read. Gives whether that makes it one.
    fn close(&mut self) -> bool {
        match self.shape {
            Shape::Offer => self.filled > "foryou".len() as u8,
            _ => {
                self.closing = self.filled > "here".len() as u8;
                false
            }
        }
    }

    /// Whether the end of the text is the end of it.
    fn ends_with_text(&self) -> bool {
        self.shape == Shape::Heading || self.shape == Shape::Intro && self.closing
    }

    /// Reports it, and gives `false`: it is open no longer.
    fn report(&self, end: u64, findings: &mut Findings) -> bool {
        let (phrase, meaning) = MEANINGS[self.phrase];
        let rest = match self.shape {
            Shape::Heading => "",
            Shape::Insert => " ...]",
            Shape::Your => " ... here]",
            Shape::Braces => "...}}",
            Shape::Intro => " ...:",
            Shape::Offer => " ... for you",
        };
        report(findings, meaning, &format!("\"{phrase}{rest}\""), end);
        false
    }
}

/// The sentences of an answer, as hashes.
#[derive(Debug, Default)]
struct Sentences {
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
        const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
        let symbol = u64::from(symbol) + (u64::from(spaced) << 32);
        self.hash = self.hash.wrapping_mul(FACTOR).wrapping_add(symbol);
        self.length += 1 + u64::from(spaced);
    }
}

impl Sentences {
    /// A sentence that is no longer may be repeated.
    const SHORT: u64 = 20;
    /// How often a longer one may occur.
    const MAX_OCCURRENCES: u8 = 2;
    /// How many different sentences are kept.
    const MAX_SEEN: usize = 4096;
    /// A first sentence that is no longer may be the last one too.
    const SHORT_FRAME: u64 = 10;
    /// From how many characters on the first and the last sentence are compared.
    const LONG_ANSWER: usize = 100;

    fn read(&mut self, delta: &str, start: u64) {
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
        if sentence.length > Self::SHORT && self.repeated.is_none() {
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

    fn end(&mut self, end: u64, findings: &mut Findings) {
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
            b'.' | b'!' | b'?' => END,
            // Control characters are blanks too: END stands for something else.
            b'\0'..=b' ' => b' ',
            _ => byte.to_ascii_lowercase(),
        };
        byte += 1;
    }
    symbols
};

/// Whether a character outside of ASCII ends a sentence.
fn ends_sentence(c: char) -> bool {
    matches!(
        c,
        '…' | '‼'
            | '⁇'
            | '⁈'
            | '⁉'
            | '。'
            | '｡'
            | '．'
            | '！'
            | '？'
            | '։'
            | '؟'
            | '۔'
            | '।'
            | '॥'
            | '။'
            | '።'
            | '។'
    )
}

/// Looks for your own phrases.
///
/// They are literal, and found anywhere in the answer, whatever the case of ASCII letters, with a
/// typographic apostrophe as good as a plain one, and whitespace of any kind and length as one
/// space. Where a phrase begins or ends with a letter or digit, a word must begin or end, except in
/// scripts without spaces between words. There are no regular expressions here: a [`Check`] of your
/// own can use them.
///
/// The first phrase found is reported, as soon as it is complete, with the byte right behind it as
/// its position. The text is not kept.
///
/// Phrases are compiled once. Clones share them, so that each attempt can have one:
///
/// ```
/// use l0_core::{L0, Severity};
/// use l0_guardrails::CustomPattern;
///
/// let pattern = CustomPattern::phrases(["as per my last email", "circle back"])?
///     .severity(Severity::Warning)
///     .message("Office talk");
/// let l0 = L0::builder().guardrails(move || pattern.clone()).build();
/// # drop(l0);
/// # Ok::<_, l0_guardrails::PatternError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct CustomPattern {
    phrases: Arc<Phrases>,
    search: Search,
    found: bool,
    rule: &'static str,
    severity: Severity,
    recoverable: bool,
    message: Arc<str>,
}

impl CustomPattern {
    /// Creates a rule that reports any of these phrases, as a recoverable error under the name
    /// `pattern-custom`. Without phrases, it reports nothing.
    ///
    /// # Errors
    ///
    /// Fails if a phrase is blank, or if there are too many phrases to compile: many millions of
    /// bytes.
    pub fn phrases<P: AsRef<str>>(
        phrases: impl IntoIterator<Item = P>,
    ) -> Result<Self, PatternError> {
        let phrases: Vec<P> = phrases.into_iter().collect();
        if phrases
            .iter()
            .any(|phrase| phrase.as_ref().trim().is_empty())
        {
            return Err(PatternError::Blank);
        }
        let phrases = Phrases::new(&phrases).map_err(|_| PatternError::TooLarge)?;
        Ok(Self {
            search: Search::new(&phrases),
            phrases: Arc::new(phrases),
            found: false,
            rule: "pattern-custom",
            severity: Severity::Error,
            recoverable: true,
            message: "A phrase was found that must not be in an answer".into(),
        })
    }

    /// Sets how bad a phrase is. Default: [`Severity::Error`].
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Sets whether a new attempt may repair it. Default: yes. An error that is not recoverable ends
    /// the run at once; a fatal violation does so in any case.
    pub fn recoverable(mut self, recoverable: bool) -> Self {
        self.recoverable = recoverable;
        self
    }

    /// Sets what the violation says. It leaves through exporters.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into().into();
        self
    }

    /// Sets the name of the rule, and of its violations. Default: `pattern-custom`.
    pub fn rule(mut self, name: &'static str) -> Self {
        self.rule = name;
        self
    }

    fn report(&mut self, end: u64, findings: &mut Findings) {
        self.found = true;
        let violation = Violation::new(self.rule, self.severity, &*self.message);
        let recoverable = self.recoverable && self.severity != Severity::Fatal;
        findings.report(violation.recoverable(recoverable).position(end));
    }
}

impl Check for CustomPattern {
    fn name(&self) -> &'static str {
        self.rule
    }

    fn text(&mut self, delta: &str, findings: &mut Findings) {
        if self.found {
            return;
        }
        let mut first = None;
        self.search.text(&self.phrases, delta, |found| {
            first.get_or_insert(found.end);
        });
        if let Some(end) = first {
            self.report(end, findings);
        }
    }

    fn end(&mut self, _: &Ended, findings: &mut Findings) {
        if self.found {
            return;
        }
        let mut first = None;
        self.search.end(&self.phrases, |found| {
            first.get_or_insert(found.end);
        });
        if let Some(end) = first {
            self.report(end, findings);
        }
    }
}

/// Why phrases make no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// One of them has nothing but whitespace.
    #[error("a phrase is blank")]
    Blank,
    /// There is too much to compile.
    #[error("the phrases are too large to compile")]
    TooLarge,
}
