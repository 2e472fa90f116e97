//! Patterns: phrases and shapes of an answer that is about the model instead of the request.

mod lines;
mod sentences;
mod table;

use std::sync::LazyLock;

use l0_core::{Check, Ended, Findings};

use self::lines::Lines;
use self::sentences::Sentences;
use self::table::{TABLE, Table};
use crate::phrases::Search;

/// A rule that finds answers in which the model talks about itself, refuses, leaks its instructions,
/// leaves placeholders, or repeats itself.
///
/// | violation | severity | found |
/// |---|---|---|
/// | `pattern-meta-commentary` | error | "as an AI language model", "as an AI assistant", "as an AI, I", "I'm an AI", "I am an AI", "I don't have personal", "I cannot actually", "I apologize, but I", "I'm sorry, but I" |
/// | `pattern-hedging` | warning | a first line that is only "sure", "certainly", "of course" or "absolutely", with or without one of `!`, `.`, `,` |
/// | `pattern-refusal` | error, not recoverable: it ends the run | "I cannot provide", "I'm not able to", "I can't assist with", "I'm unable to", "that would be inappropriate" |
/// | `pattern-instruction-leak` | error | `[system]`, `[user]`, `[assistant]`, `<\|im_start\|>`, `<\|im_end\|>`; `### instruction` and `### system` if that is the whole heading, or a colon follows |
/// | `pattern-placeholders` | error | `[insert ...]`, `[todo]`, `[placeholder]`, `[your ... here]`, `{{...}}` |
/// | `pattern-format-collapse` | warning | in the first three lines: "here is the ...:", "here's the ...:", "let me ... for you", "I'll ... for you" |
/// | `pattern-repetition` | error | at the end: a sentence of more than 20 characters that occurs more than twice |
/// | `pattern-first-last-duplicate` | error | at the end of an answer of 100 characters or more: the last sentence is the first, and has more than 10 characters |
///
/// All violations except the last two are reported as soon as they are detected. The position of a
/// violation is the byte directly after the match.
///
/// Phrases match anywhere in the answer, including quotations and code. Case is ignored, typographic
/// and plain apostrophes are equal, and any run of whitespace equals one space. Only whole words match.
/// The end of a last word is known only when the next character arrives.
///
/// The text for `...` is on one line, is not blank, and has at most 80 characters including its end.
/// Lines are counted from the first that is not blank. A colon inside a word, a number or an address
/// does not count.
///
/// A sentence ends with `.`, `!`, `?` or their equivalents in other scripts, and begins with its first
/// letter or digit. Case and the amount of whitespace do not matter. Sentences are kept as hashes of 64
/// bits, at most 4,096 different ones, which take up to 140 KB. In a longer answer, repetition of later
/// sentences is not detected. No other data grows with the answer, and its text is not kept.
#[derive(Debug)]
pub struct Patterns {
    table: &'static Table,
    search: Search,
    lines: Lines,
    sentences: Sentences,
}

impl Patterns {
    /// Creates the rule for one attempt.
    #[must_use]
    pub fn new() -> Self {
        let table = &*TABLE;
        Self {
            table,
            search: table.phrases.search(),
            lines: Lines::new(),
            sentences: Sentences::default(),
        }
    }
}

/// Compiles the phrases if needed, outside of a run.
pub(crate) fn prepare() {
    LazyLock::force(&TABLE);
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
            table,
            search,
            lines,
            sentences,
        } = self;
        let start = search.position();
        let mut read = 0;
        // Read the characters up to each phrase's end before the phrase, so violations come in the same
        // order however the text is divided.
        table.phrases.text(search, delta, |found| {
            let at = (found.end - start) as usize;
            lines.read(&delta[read..at], start + read as u64, findings);
            read = at;
            lines.found(table.meaning(found.phrase), found.end, findings);
        });
        lines.read(&delta[read..], start + read as u64, findings);
        sentences.read(delta, start);
    }

    fn end(&mut self, _: &Ended, findings: &mut Findings) {
        let Self { table, lines, .. } = self;
        table.phrases.end(&mut self.search, |found| {
            lines.found(table.meaning(found.phrase), found.end, findings);
        });
        lines.end(self.search.position(), findings);
        self.sentences.end(self.search.position(), findings);
    }
}
