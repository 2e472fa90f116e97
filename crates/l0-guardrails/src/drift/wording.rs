//! Wording: the kinds of drift that fixed phrases reveal. All phrases are searched at once.

use std::sync::LazyLock;

use super::format::{BEGINNING, Format};
use super::tone::{self, Tone};
use super::window::{SIDE, Window};
use super::{Drift, Kind, Kinds};
use crate::phrases::{Table, Transitions};
use crate::wording::{META_COMMENTARY, OPENINGS, Opening};

/// The meaning of a phrase.
#[derive(Debug, Clone, Copy)]
enum Role {
    /// The model talks about itself or its answer.
    Comments,
    Sounds(Tone),
    Opens(Opening),
}

/// The phrases that only drift uses.
const TONES: [(&str, Tone); 13] = [
    ("therefore", Tone::Formal),
    ("thus", Tone::Formal),
    ("hence", Tone::Formal),
    ("moreover", Tone::Formal),
    ("furthermore", Tone::Formal),
    ("consequently", Tone::Formal),
    ("gonna", Tone::Informal),
    ("wanna", Tone::Informal),
    ("yeah", Tone::Informal),
    ("yep", Tone::Informal),
    ("nope", Tone::Informal),
    ("ok", Tone::Informal),
    ("okay", Tone::Informal),
];

/// All phrases to search for.
static TABLE: LazyLock<Table<Role>> = LazyLock::new(|| {
    let comments = META_COMMENTARY.map(|(phrase, _)| (phrase, Role::Comments));
    let tones = TONES.map(|(phrase, tone)| (phrase, Role::Sounds(tone)));
    let openings = OPENINGS.map(|(phrase, opening, _)| (phrase, Role::Opens(opening)));
    Table::new(comments.into_iter().chain(tones).chain(openings))
});

/// No phrases.
static NONE: LazyLock<Table<Role>> = LazyLock::new(|| Table::new([]));

/// Compiles the phrases if needed, outside of a run.
pub(super) fn prepare(drift: &Drift) {
    LazyLock::force(table_of(drift));
}

fn table_of(drift: &Drift) -> &'static LazyLock<Table<Role>> {
    if drift.meta_commentary || drift.tone_shift || drift.format_collapse {
        &TABLE
    } else {
        &NONE
    }
}

/// Searches a text for the phrases.
#[derive(Debug)]
pub(super) struct Wording {
    table: &'static Table<Role>,
    /// The state of the search.
    pub(super) state: u32,
    matched: Matches,
}

/// The meaning of the phrases found so far.
#[derive(Debug)]
struct Matches {
    /// The length of the text up to the last comment on itself, or 0 without one. `None` if this kind
    /// is not detected.
    meta: Option<u64>,
    /// `true` if formal and informal words are counted.
    tone: bool,
    /// The positions of these words, once there was one.
    words: Option<Box<Window<2>>>,
    format: Option<Format>,
}

impl Wording {
    pub(super) fn new(drift: &Drift) -> Self {
        Self {
            table: table_of(drift),
            state: Transitions::START,
            matched: Matches {
                meta: drift.meta_commentary.then_some(0),
                tone: drift.tone_shift,
                words: None,
                format: drift.format_collapse.then(Format::default),
            },
        }
    }

    /// Returns the phrases to search for.
    #[inline]
    pub(super) fn phrases(&self) -> &'static Transitions {
        &self.table.phrases
    }

    /// Reads a character of this column, at this position, that leads from one state to another and
    /// reports phrases. Returns the kinds found.
    #[cold]
    pub(super) fn report(&mut self, from: u32, column: u8, to: u32, place: u64) -> Kinds {
        let Self { table, matched, .. } = self;
        let mut found = Kinds::default();
        table.phrases.report(from, column, to, |phrase, is_last| {
            let end = place + u64::from(is_last);
            found.add(matched.phrase(*table.meaning(phrase), end, place + 1));
        });
        found
    }

    /// Returns `true` if a text of this length is still at its beginning.
    #[inline]
    pub(super) fn begins(&self, length: u64) -> bool {
        length < BEGINNING && self.matched.format.is_some()
    }

    /// Reads a character of the beginning.
    pub(super) fn character(&mut self, c: char, place: u64) {
        match &mut self.matched.format {
            Some(format) if place < BEGINNING => format.character(c, place),
            _ => {}
        }
    }

    /// Advances to this length of the text. Returns the kinds found on the way.
    #[inline]
    pub(super) fn grown(&mut self, length: u64) -> Kinds {
        let mut found = Kinds::default();
        if let Some(words) = &mut self.matched.words {
            found.add_if(Kind::ToneShift, words.advance(length));
        }
        if let Some(format) = &self.matched.format {
            found.add_if(Kind::FormatCollapse, format.found());
        }
        found
    }

    /// Ends the text at this length. Returns the kinds that are present at its end.
    pub(super) fn end(&mut self, length: u64) -> Kinds {
        let Self { table, matched, .. } = self;
        table.phrases.report_last(self.state, |phrase| {
            matched.phrase(*table.meaning(phrase), length, length);
        });
        // Drift found on the way can be over.
        self.grown(length);
        let Matches {
            meta,
            words,
            format,
            ..
        } = &self.matched;
        let mut found = Kinds::default();
        let is_near = |last: u64| last > 0 && last + SIDE > length;
        found.add_if(Kind::MetaCommentary, meta.is_some_and(is_near));
        let shifts = words.as_ref().is_some_and(|words| words.holds(length));
        found.add_if(Kind::ToneShift, shifts);
        let format = format.as_ref();
        found.add_if(Kind::FormatCollapse, format.is_some_and(Format::found));
        found
    }
}

impl Matches {
    /// Records a phrase that ended at `end`, as known at this length of the text. Returns the kinds
    /// found.
    fn phrase(&mut self, role: Role, end: u64, length: u64) -> Kinds {
        let mut found = Kinds::default();
        match role {
            Role::Comments => {
                if let Some(meta) = &mut self.meta {
                    *meta = end;
                    found.add_if(Kind::MetaCommentary, true);
                }
            }
            Role::Sounds(tone) => {
                if self.tone {
                    let words = self.words.get_or_insert_with(|| Box::new(tone::words()));
                    let shifts = words.add(tone as usize, end.saturating_sub(1), length);
                    found.add_if(Kind::ToneShift, shifts);
                }
            }
            Role::Opens(opening) => {
                if let Some(format) = &mut self.format {
                    format.phrase(opening, end);
                }
            }
        }
        found
    }
}
