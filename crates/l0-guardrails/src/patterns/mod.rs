//! Patterns: phrases and shapes that a model's answer has when it is about the model, and not
//! about what was asked.

mod lines;
mod sentences;
mod table;

use std::sync::LazyLock;

use l0_core::{Check, Ended, Findings};

use self::lines::Lines;
use self::sentences::Sentences;
use self::table::{TABLE, Table};
use crate::phrases::Search;

/// Looks for answers that talk about themselves, refuse, leak their instructions, are not filled
/// in, or repeat themselves.
///
/// | violation | severity | what |
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
    table: &'static Table,
    search: Search,
    lines: Lines,
    sentences: Sentences,
}

impl Patterns {
    /// Creates the rule, for one attempt.
    #[must_use]
    pub fn new() -> Self {
        let table = &*TABLE;
        Self {
            table,
            search: Search::new(&table.phrases),
            lines: Lines::new(),
            sentences: Sentences::default(),
        }
    }
}

/// Compiles the phrases, if they were not: so that this is no part of a run.
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
        // The characters up to each phrase's end are read before the phrase is, so that what is
        // reported comes in the same order however the text is cut.
        search.text(&table.phrases, delta, |found| {
            let at = (found.end - start) as usize;
            lines.read(&delta[read..at], start + read as u64, findings);
            read = at;
            lines.found(table.meaning(found), found.end, findings);
        });
        lines.read(&delta[read..], start + read as u64, findings);
        sentences.read(delta, start);
    }

    fn end(&mut self, _: &Ended, findings: &mut Findings) {
        let Self { table, lines, .. } = self;
        self.search.end(&table.phrases, |found| {
            lines.found(table.meaning(found), found.end, findings);
        });
        lines.end(self.search.position(), findings);
        self.sentences.end(self.search.position(), findings);
    }
}
