//! What each phrase means.

use std::sync::LazyLock;

use l0_core::{Findings, Severity, Violation};

use crate::phrases;
use crate::wording::{META_COMMENTARY, OPENINGS, Opening, Sign};

pub(super) type Table = phrases::Table<Row>;

/// All phrases that are looked for.
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

/// A phrase, and what it means that it was found.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) phrase: &'static str,
    pub(super) kind: Kind,
    pub(super) part: Part,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    MetaCommentary,
    Refusal,
    InstructionLeak,
    Placeholder,
    FormatCollapse,
}

/// What a phrase is of that.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Whole,
    /// What follows decides.
    Opens(Shape),
    /// Ends a shape, or begins to, if it is open.
    Closes(Shape),
}

/// What is found by its beginning, its end, and what is between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
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

/// The phrases that drift does not look for.
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
    /// Reports what was found: the message ends with a phrase or a shape of ours, never with text of
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
                "A mark of the instructions is in the answer",
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
                "The answer announces itself",
            ),
        };
        let violation = Violation::new(rule, severity, format!("{problem}: \"{what}\""));
        findings.report(violation.recoverable(recoverable).position(end));
    }
}
