//! Wording: the phrases that reveal a problem, one list per detector. Rules and drift share the lists.

/// The detectors that search for a phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Rules and drift: the phrase rarely has another meaning.
    Clear,
    /// Drift only: good answers contain it too. It is worth counting, but not worth a violation.
    Weak,
}

/// Phrases of `meta_commentary`: the model talks about itself or its answer.
pub(crate) const META_COMMENTARY: [(&str, Sign); 13] = [
    ("as an ai language model", Sign::Clear),
    ("as an ai assistant", Sign::Clear),
    ("as an ai, i", Sign::Clear),
    ("as an ai", Sign::Weak),
    ("i'm an ai", Sign::Clear),
    ("i am an ai", Sign::Clear),
    ("i don't have personal", Sign::Clear),
    ("i cannot actually", Sign::Clear),
    ("i apologize, but i", Sign::Clear),
    ("i'm sorry, but i", Sign::Clear),
    ("let me explain", Sign::Weak),
    ("to clarify", Sign::Weak),
    ("in other words", Sign::Weak),
];

/// The effect of a phrase at the beginning of an answer that announces itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// A colon follows, on the same line.
    Introduction,
    /// "for you" follows, on the same line.
    Offer,
    ForYou,
    /// Sufficient on its own.
    HereYouGo,
}

/// Phrases of `format_collapse`: the beginning announces the answer instead of giving it.
pub(crate) const OPENINGS: [(&str, Opening, Sign); 6] = [
    ("here is the", Opening::Introduction, Sign::Clear),
    ("here's the", Opening::Introduction, Sign::Clear),
    ("let me", Opening::Offer, Sign::Clear),
    ("i'll", Opening::Offer, Sign::Clear),
    ("for you", Opening::ForYou, Sign::Clear),
    // It also occurs in "From here you go left."
    ("here you go", Opening::HereYouGo, Sign::Weak),
];

/// Phrases of `hedging`: the whole first line.
const HEDGES: [&str; 4] = ["sure", "certainly", "of course", "absolutely"];

/// The first line that is not blank, while it can still be a hedge.
#[derive(Debug, Default)]
pub(crate) struct FirstLine {
    /// In lower case, with single spaces, and without leading spaces.
    text: [u8; 12],
    length: usize,
}

impl FirstLine {
    /// Reads a character other than the end of the line. Returns `true` if the line can still be a
    /// hedge.
    pub(crate) fn read(&mut self, c: char) -> bool {
        let byte = match u8::try_from(c) {
            _ if c.is_whitespace() => b' ',
            Ok(byte) if byte.is_ascii() => byte.to_ascii_lowercase(),
            _ => return false,
        };
        if byte == b' ' && matches!(self.text[..self.length].last(), None | Some(b' ')) {
            return true;
        }
        let Some(next) = self.text.get_mut(self.length) else {
            // The text is full, and a further space changes nothing.
            return byte == b' ';
        };
        *next = byte;
        self.length += 1;
        true
    }

    /// Returns `true` if the line is blank so far.
    pub(crate) fn is_blank(&self) -> bool {
        self.length == 0
    }

    /// Returns the hedge that the line consists of if it ends here.
    pub(crate) fn hedge(&self) -> Option<&'static str> {
        let line = match self.text[..self.length].trim_ascii_end() {
            [words @ .., b'!' | b'.' | b','] => words,
            words => words,
        };
        HEDGES.into_iter().find(|hedge| hedge.as_bytes() == line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the documentation table of `name` contains a list.
    fn check(source: &str, row: &str, phrases: impl Iterator<Item = &'static str>) {
        let mut lines = source.lines().filter(|line| line.starts_with("/// | `"));
        let row = lines
            .find(|line| line.contains(row))
            .unwrap()
            .to_lowercase();
        for phrase in phrases {
            assert!(row.contains(phrase), "{phrase:?} is missing in: {row}");
        }
    }

    #[test]
    fn the_documentation_lists_all_phrases() {
        let (rule, drift) = (
            include_str!("patterns/mod.rs"),
            include_str!("drift/mod.rs"),
        );
        let meta = |sign| {
            let some = META_COMMENTARY.into_iter().filter(move |one| one.1 == sign);
            some.map(|one| one.0)
        };
        check(rule, "`pattern-meta-commentary`", meta(Sign::Clear));
        check(drift, "`meta_commentary`", meta(Sign::Weak));
        let openings = |sign| {
            let some = OPENINGS.into_iter().filter(move |one| one.2 == sign);
            some.map(|one| one.0)
        };
        check(rule, "`pattern-format-collapse`", openings(Sign::Clear));
        check(drift, "`format_collapse`", openings(Sign::Weak));
        check(rule, "`pattern-hedging`", HEDGES.into_iter());
    }
}
