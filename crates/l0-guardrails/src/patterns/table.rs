//! The meaning of each phrase.

use std::sync::LazyLock;

use l0_core::{Findings, Severity, Violation};

use crate::phrases;
use crate::wording::{META_COMMENTARY, OPENINGS, Opening, Sign};

pub(super) type Table = phrases::Table<Row>;

/// All phrases to search for.
pub(super) static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let own = OWN.into_iter();
    let own = own.map(|(phrase, kind, part)| Row { phrase, kind, part });
    let meta = META_COMMENTARY
        .into_iter()
        .filter(|(_, sign)| *sign == Sign::Clear)
        .map(|(phrase, _)| Row {
            phrase,
            kind: Kind::MetaCommentary,
            part: Part::Whole,
        });
    let openings = OPENINGS
        .into_iter()
        .filter(|(.., sign)| *sign == Sign::Clear)
        .map(|(phrase, opening, _)| Row {
            phrase,
            kind: Kind::FormatCollapse,
            part: match opening {
                Opening::Introduction => Part::Opens(Shape::Intro),
                Opening::Offer => Part::Opens(Shape::Offer),
                Opening::ForYou => Part::Closes(Shape::Offer),
                Opening::HereYouGo => Part::Whole,
            },
        });
    let rows = own.chain(meta).chain(openings);
    Table::new(rows.map(|row| (row.phrase, row)))
});

/// A phrase and its meaning.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) phrase: &'static str,
    pub(super) kind: Kind,
    pub(super) part: Part,
}

/// The kind of problem.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    MetaCommentary,
    Refusal,
    InstructionLeak,
    Placeholder,
    FormatCollapse,
}

/// The role of a phrase in a pattern.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Whole,
    /// The following text decides.
    Opens(Shape),
    /// Ends an open shape, or starts to.
    Closes(Shape),
}

/// A pattern with a beginning, an end and text in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `### system`, followed by nothing or a colon
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

/// The phrases that drift does not use.
const OWN: [(&str, Kind, Part); 18] = {
    use Kind::{InstructionLeak, Placeholder, Refusal};
    use Part::{Closes, Opens, Whole};
    [
        ("i cannot provide", Refusal, Whole),
        ("i'm not able to", Refusal, Whole),
        ("i can't assist with", Refusal, Whole),
        ("i'm unable to", Refusal, Whole),
        ("that would be inappropriate", Refusal, Whole),
        ("[system]", InstructionLeak, Whole),
        ("[user]", InstructionLeak, Whole),
        ("[assistant]", InstructionLeak, Whole),
        ("<|im_start|>", InstructionLeak, Whole),
        ("<|im_end|>", InstructionLeak, Whole),
        ("### instruction", InstructionLeak, Opens(Shape::Heading)),
        ("### system", InstructionLeak, Opens(Shape::Heading)),
        ("[todo]", Placeholder, Whole),
        ("[placeholder]", Placeholder, Whole),
        ("[insert", Placeholder, Opens(Shape::Insert)),
        ("[your", Placeholder, Opens(Shape::Your)),
        ("here", Placeholder, Closes(Shape::Your)),
        ("{{", Placeholder, Opens(Shape::Braces)),
    ]
};

impl Kind {
    /// Reports a match. The message ends with the phrase or shape from this table, never with text of
    /// the answer.
    pub(super) fn report(self, what: &str, end: u64, findings: &mut Findings) {
        let (rule, severity, recoverable, problem) = match self {
            Self::MetaCommentary => (
                "pattern-meta-commentary",
                Severity::Error,
                true,
                "The answer is about the model itself",
            ),
            Self::Refusal => (
                "pattern-refusal",
                Severity::Error,
                false,
                "The model refuses",
            ),
            Self::InstructionLeak => (
                "pattern-instruction-leak",
                Severity::Error,
                true,
                "The answer contains a marker of the instructions",
            ),
            Self::Placeholder => (
                "pattern-placeholders",
                Severity::Error,
                true,
                "A placeholder is not filled in",
            ),
            Self::FormatCollapse => (
                "pattern-format-collapse",
                Severity::Warning,
                true,
                "The answer begins by announcing itself",
            ),
        };
        let violation = Violation::new(rule, severity, format!("{problem}: \"{what}\""));
        findings.report(violation.recoverable(recoverable).position(end));
    }
}
