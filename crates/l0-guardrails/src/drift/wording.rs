//! The kinds of drift that show in fixed phrases, which are searched together.

use std::sync::LazyLock;

use super::delta::Delta;
use super::format::Format;
use super::tone::{self, Tone};
use super::window::{SIDE, Window};
use super::{Drift, Kind, Kinds};
use crate::phrases::{Search, Table};
use crate::wording::{META_COMMENTARY, OPENINGS, Opening};

/// What a phrase says.
#[derive(Debug, Clone, Copy)]
enum Role {
    /// The model talks about itself or its answer.
    Comments,
    Sounds(Tone),
    Opens(Opening),
}

/// The phrases of which only drift knows.
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

/// All phrases that are looked for.
static TABLE: LazyLock<Table<Role>> = LazyLock::new(|| {
    let comments = META_COMMENTARY.map(|(phrase, _)| (phrase, Role::Comments));
    let tones = TONES.map(|(phrase, tone)| (phrase, Role::Sounds(tone)));
    let openings = OPENINGS.map(|(phrase, opening, _)| (phrase, Role::Opens(opening)));
    Table::new(comments.into_iter().chain(tones).chain(openings))
});

/// Compiles the phrases, if they were not: so that this is no part of a run.
pub(super) fn prepare(drift: &Drift) {
    if is_looked_for(drift) {
        LazyLock::force(&TABLE);
    }
}

fn is_looked_for(drift: &Drift) -> bool {
    drift.meta_commentary || drift.tone_shift || drift.format_collapse
}

/// Searches a text for the phrases.
#[derive(Debug)]
pub(super) struct Wording {
    table: &'static Table<Role>,
    search: Search,
    said: Said,
}

/// What the phrases found so far say.
#[derive(Debug)]
struct Said {
    meta: Option<Meta>,
    tone: Option<Window<2>>,
    format: Option<Format>,
    /// What was found in the present call.
    found: Kinds,
}

/// The length of the text up to its last comment on itself.
#[derive(Debug, Default)]
struct Meta {
    last: Option<u64>,
}

impl Wording {
    /// `None` if none of the kinds is looked for.
    pub(super) fn new(drift: &Drift) -> Option<Self> {
        let table = is_looked_for(drift).then(|| &*TABLE)?;
        Some(Self {
            table,
            search: Search::new(&table.phrases),
            said: Said {
                meta: drift.meta_commentary.then(Meta::default),
                tone: drift.tone_shift.then(tone::words),
                format: drift.format_collapse.then(Format::default),
                found: Kinds::default(),
            },
        })
    }

    /// The text goes on. Gives what is found.
    #[inline]
    pub(super) fn text(&mut self, delta: &Delta<'_>) -> Kinds {
        let Self {
            table,
            search,
            said,
        } = self;
        if let Some(format) = &mut said.format {
            format.text(delta.text, delta.start);
        }
        let start = search.position();
        let (mut counted, mut end) = (0, delta.start);
        search.text(&table.phrases, delta.text, |found| {
            let until = (found.end - start) as usize;
            if delta.is_ascii() {
                end += (until - counted) as u64;
            } else {
                end += delta.text[counted..until].chars().count() as u64;
            }
            counted = until;
            // The character behind it told that the phrase ends.
            said.phrase(*table.meaning(found), end, end + 1);
        });
        said.grown(delta.end())
    }

    /// The text is complete, at this length. Gives what it ends with.
    pub(super) fn end(&mut self, length: u64) -> Kinds {
        let Self {
            table,
            search,
            said,
        } = self;
        search.end(&table.phrases, |found| {
            said.phrase(*table.meaning(found), length, length);
        });
        // What was found on the way may be over.
        said.grown(length);
        let meta = said.meta.as_ref().and_then(|meta| meta.last);
        let mut found = Kinds::default();
        found.add_if(
            Kind::MetaCommentary,
            meta.is_some_and(|last| last + SIDE > length),
        );
        let tone = said.tone.as_ref();
        found.add_if(Kind::ToneShift, tone.is_some_and(|tone| tone.holds(length)));
        let format = said.format.as_mut();
        found.add_if(Kind::FormatCollapse, format.is_some_and(Format::found));
        found
    }
}

impl Said {
    /// A phrase ended here, which is known when the text is so long.
    fn phrase(&mut self, role: Role, end: u64, length: u64) {
        match role {
            Role::Comments => {
                if let Some(meta) = &mut self.meta {
                    meta.last = Some(end);
                    self.found.add_if(Kind::MetaCommentary, true);
                }
            }
            Role::Sounds(tone) => {
                if let Some(words) = &mut self.tone {
                    let shifts = words.add(tone as usize, end.saturating_sub(1), length);
                    self.found.add_if(Kind::ToneShift, shifts);
                }
            }
            Role::Opens(opening) => {
                if let Some(format) = &mut self.format {
                    format.phrase(opening, end);
                }
            }
        }
    }

    /// The text is so long now. Gives what was found on the way.
    #[inline]
    fn grown(&mut self, length: u64) -> Kinds {
        if let Some(tone) = &mut self.tone {
            self.found.add_if(Kind::ToneShift, tone.advance(length));
        }
        if let Some(format) = &mut self.format {
            self.found.add_if(Kind::FormatCollapse, format.found());
        }
        std::mem::take(&mut self.found)
    }
}
