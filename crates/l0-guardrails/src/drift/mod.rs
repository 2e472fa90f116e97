//! Drift: detection of answers that degrade while they stream.

mod delta;
mod entropy;
mod format;
mod hedging;
mod markdown;
mod repetition;
mod tone;
mod window;
mod wording;

use l0_core::{Check, Checks, DriftReport, Ended, Findings};

use self::delta::{Delta, Marks};
use self::entropy::Entropy;
use self::hedging::Hedging;
use self::markdown::Markdown;
use self::repetition::Repetition;
use self::wording::Wording;
use crate::hash::Fnv;
use crate::phrases::Transitions;
use crate::sentence::ends_sentence;

/// Detects answers that change their tone or format, repeat themselves, or comment on themselves. By
/// default all kinds of drift are detected and recorded.
///
/// ```
/// use l0_core::L0;
/// use l0_guardrails::Drift;
///
/// let l0 = L0::builder().drift(Drift::new().hedging(false)).build();
/// # drop(l0);
/// ```
///
/// | kind | confidence | condition |
/// |---|---|---|
/// | `meta_commentary` | 0.9 | the last 200 characters contain a phrase of `pattern-meta-commentary` in [`Patterns`](crate::Patterns), or "as an AI", "let me explain", "to clarify", "in other words" |
/// | `tone_shift` | 0.7 | the number of formal words ("therefore", "moreover") or informal ones ("gonna", "okay") in the last 200 characters and in the 200 before differs by more than two |
/// | `repetition` | 0.8 | a sentence of more than 20 characters, or a phrase of five words, occurs three times in the last 500 characters, in which at least three such sentences end |
/// | `entropy_spike` | 0.6 | a delta's characters are much more mixed than those of the 50 deltas before |
/// | `format_collapse` | 0.8 | the first 100 characters contain a phrase of `pattern-format-collapse`, or "here you go" |
/// | `markdown_collapse` | 0.7 | 200 characters contain four or more Markdown marks (fences, headers, bold text, links), and the last 200, outside of code, contain none |
/// | `hedging` | 0.5 | the first line is one of `pattern-hedging`, such as "Sure!", and nothing else |
///
/// A kind is recorded when it is first found in an attempt. These are heuristics, and good answers
/// contain such phrases too. Look at the findings in your own answers before you enable retries with
/// [`retry`](Self::retry).
///
/// Phrases match whole words, in any case, with any apostrophe and any whitespace between them. They
/// are English. "Characters" are `char`s. The division into deltas makes no difference, except to the
/// entropy, which compares deltas.
///
/// An attempt keeps no text, only hashes and positions: less than 2 KiB by default. A larger
/// [`window`](Self::window) takes 4 bytes for each word and 16 bytes for each sentence that begins in
/// it.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Drift {
    meta_commentary: bool,
    tone_shift: bool,
    repetition: bool,
    entropy_spike: bool,
    format_collapse: bool,
    markdown_collapse: bool,
    hedging: bool,
    repetition_threshold: usize,
    entropy_threshold: f64,
    entropy_window: usize,
    window: usize,
    retry: bool,
}

impl Drift {
    /// Creates a detector of all kinds with the default thresholds.
    pub fn new() -> Self {
        Self {
            meta_commentary: true,
            tone_shift: true,
            repetition: true,
            entropy_spike: true,
            format_collapse: true,
            markdown_collapse: true,
            hedging: true,
            repetition_threshold: 3,
            entropy_threshold: 2.5,
            entropy_window: 50,
            window: 500,
            retry: false,
        }
    }

    /// Sets whether L0 retries if a complete answer ends with drift. Default: `false`.
    ///
    /// The answer then counts as the model's fault, and the retry as a model retry. Once retries are
    /// exhausted, the run completes. `format_collapse` and `hedging` concern the beginning, and apply
    /// until the end. `entropy_spike` concerns single deltas, and is only recorded. The other kinds are
    /// only recorded if they were over before the end.
    pub fn retry(mut self, on: bool) -> Self {
        self.retry = on;
        self
    }

    /// Enables detection of phrases in which a model talks about itself or its answer.
    pub fn meta_commentary(mut self, on: bool) -> Self {
        self.meta_commentary = on;
        self
    }

    /// Enables detection of a shift between formal and informal wording.
    pub fn tone_shift(mut self, on: bool) -> Self {
        self.tone_shift = on;
        self
    }

    /// Enables detection of sentences and phrases that repeat.
    pub fn repetition(mut self, on: bool) -> Self {
        self.repetition = on;
        self
    }

    /// Enables detection of deltas with much more mixed characters than those before.
    pub fn entropy_spike(mut self, on: bool) -> Self {
        self.entropy_spike = on;
        self
    }

    /// Enables detection of a beginning that announces the answer.
    pub fn format_collapse(mut self, on: bool) -> Self {
        self.format_collapse = on;
        self
    }

    /// Enables detection of Markdown that continues as plain text.
    pub fn markdown_collapse(mut self, on: bool) -> Self {
        self.markdown_collapse = on;
        self
    }

    /// Enables detection of a first line that only agrees.
    pub fn hedging(mut self, on: bool) -> Self {
        self.hedging = on;
        self
    }

    /// Sets the number of occurrences of a sentence or a phrase in the window that counts as
    /// repetition. Default: 3; at least 2.
    pub fn repetition_threshold(mut self, times: usize) -> Self {
        self.repetition_threshold = times.max(2);
        self
    }

    /// Sets the threshold of an entropy spike, in standard deviations of the population above the mean.
    /// Default: 2.5; at least 0. NaN selects the default.
    ///
    /// A delta is compared with a window that includes it. So of n values, none can exceed the mean by
    /// more than the square root of n - 1 deviations: 7 for the default window.
    pub fn entropy_threshold(mut self, deviations: f64) -> Self {
        self.entropy_threshold = if deviations.is_nan() {
            Self::new().entropy_threshold
        } else {
            deviations.max(0.0)
        };
        self
    }

    /// Sets the number of deltas with which a delta's entropy is compared, including itself. The first
    /// nine deltas are not checked. Default: 50; from 10 to 1,000.
    pub fn entropy_window(mut self, deltas: usize) -> Self {
        self.entropy_window = deltas.clamp(entropy::MIN_VALUES, entropy::MAX_VALUES);
        self
    }

    /// Sets the look-back window of `repetition`, in characters. Default: 500; from 100 to 10,000.
    ///
    /// Repetition at a larger distance is not found. Neither is a sentence that is too long to fit into
    /// the window [`repetition_threshold`](Self::repetition_threshold) times. A large window finds more
    /// of both, and more phrases that a long text uses three times for good reason. Each third word is
    /// compared with all words of the window, eight at a time, so a large window takes longer.
    pub fn window(mut self, characters: usize) -> Self {
        self.window = characters.clamp(100, 10_000);
        self
    }
}

impl Default for Drift {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Drift> for Checks<DriftReport> {
    fn from(drift: Drift) -> Self {
        wording::prepare(&drift);
        Self::none().with(move || Detector::new(&drift))
    }
}

/// A kind of drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    MetaCommentary,
    ToneShift,
    Repetition,
    EntropySpike,
    FormatCollapse,
    MarkdownCollapse,
    Hedging,
}

impl Kind {
    /// Every kind, in the order of reports.
    const ALL: [Self; 7] = [
        Self::MetaCommentary,
        Self::ToneShift,
        Self::Repetition,
        Self::EntropySpike,
        Self::FormatCollapse,
        Self::MarkdownCollapse,
        Self::Hedging,
    ];

    /// Returns the label and the confidence.
    fn describe(self) -> (&'static str, f64) {
        match self {
            Self::MetaCommentary => ("meta_commentary", 0.9),
            Self::ToneShift => ("tone_shift", 0.7),
            Self::Repetition => ("repetition", 0.8),
            Self::EntropySpike => ("entropy_spike", 0.6),
            Self::FormatCollapse => ("format_collapse", 0.8),
            Self::MarkdownCollapse => ("markdown_collapse", 0.7),
            Self::Hedging => ("hedging", 0.5),
        }
    }
}

/// A set of kinds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kinds(u8);

impl Kinds {
    #[inline]
    fn add_if(&mut self, kind: Kind, found: bool) {
        self.0 |= u8::from(found) << kind as u8;
    }

    fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    /// Adds kinds, and returns the new ones.
    #[inline]
    fn add(&mut self, kinds: Self) -> Self {
        let new = Self(kinds.0 & !self.0);
        self.0 |= kinds.0;
        new
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Reports each kind separately.
    #[cold]
    fn report(self, retry: bool, findings: &mut Findings<DriftReport>) {
        for kind in Kind::ALL.into_iter().filter(|kind| self.has(*kind)) {
            let (label, confidence) = kind.describe();
            findings.report(DriftReport::new([label], confidence).retry(retry));
        }
    }
}

/// Detects drift in one attempt.
#[derive(Debug)]
struct Detector {
    /// The number of characters so far.
    length: u64,
    /// The kinds found so far.
    found: Kinds,
    /// `true` if drift at the end of the answer causes a retry.
    retry: bool,
    wording: Wording,
    repetition: Option<Repetition>,
    entropy: Option<Entropy>,
    markdown: Option<Markdown>,
    hedging: Option<Hedging>,
}

impl Detector {
    fn new(drift: &Drift) -> Self {
        let repetition = || Repetition::new(drift.window, drift.repetition_threshold);
        let entropy = || Entropy::new(drift.entropy_threshold, drift.entropy_window);
        Self {
            length: 0,
            found: Kinds::default(),
            retry: drift.retry,
            wording: Wording::new(drift),
            repetition: drift.repetition.then(repetition),
            entropy: drift.entropy_spike.then(entropy),
            markdown: drift.markdown_collapse.then(Markdown::new),
            hedging: drift.hedging.then(Hedging::new),
        }
    }

    /// Reads a part of a piece once, for all detectors of characters, and adds it to the piece. Returns
    /// the kinds found.
    #[inline(always)]
    fn read(&mut self, part: &str, delta: &mut Delta<'_>) -> Kinds {
        let Self {
            wording,
            repetition,
            ..
        } = self;
        let phrases = wording.phrases();
        // Local variables, so they can stay in registers.
        let mut state = wording.state;
        let mut piece = repetition.as_ref().map_or(Fnv::EMPTY, |one| one.piece);
        let Delta {
            mut seen,
            mut again,
            end: mut place,
            ..
        } = *delta;
        let mut found = Kinds::default();
        let mut bytes = part.bytes();
        while let Some(byte) = bytes.next() {
            let marks = Marks::of(byte);
            again = again.union(seen.intersection(marks));
            seen = seen.union(marks);
            let mut column = phrases.ascii(byte);
            if marks.is_plain() {
                piece.push(marks.lower(byte).into());
            } else if marks.is_space() {
                if let Some(repetition) = repetition {
                    let repeats = repetition.space(place, piece);
                    found.add_if(Kind::Repetition, repeats);
                }
                piece = Fnv::EMPTY;
            } else {
                let at = part.len() - bytes.len() - 1;
                let Some(c) = part[at..].chars().next() else {
                    break;
                };
                bytes = part[at + c.len_utf8()..].bytes();
                column = phrases.column(c);
                let repeats;
                (repeats, piece) = other(repetition, c, place, piece);
                found.add_if(Kind::Repetition, repeats);
            }
            let mut next = phrases.next(state, column);
            if next & Transitions::REPORTS != 0 {
                found.add(wording.report(state, column, next, place));
                next &= !Transitions::REPORTS;
            }
            state = next;
            place += 1;
        }
        wording.state = state;
        if let Some(repetition) = repetition {
            repetition.piece = piece;
        }
        delta.seen = seen;
        delta.again = again;
        delta.end = place;
        self.length = place;
        found
    }

    /// Reads a piece of the beginning, where the order of phrases and colons matters.
    #[cold]
    fn begin(&mut self, delta: &str) -> Kinds {
        let mut delta = Delta::new(delta, self.length);
        let mut found = Kinds::default();
        for (at, c) in delta.text.char_indices() {
            let part = &delta.text[at..at + c.len_utf8()];
            let place = delta.end;
            found.add(self.read(part, &mut delta));
            self.wording.character(c, place);
        }
        found.add(self.whole(&delta));
        found
    }

    /// Checks a piece that was read. Returns the kinds found.
    #[inline(always)]
    fn whole(&mut self, delta: &Delta<'_>) -> Kinds {
        let mut found = self.wording.grown(delta.end);
        if let Some(entropy) = &mut self.entropy {
            found.add_if(Kind::EntropySpike, entropy.text(delta));
        }
        if let Some(markdown) = &mut self.markdown {
            found.add_if(Kind::MarkdownCollapse, markdown.text(delta));
        }
        if let Some(hedging) = &mut self.hedging {
            found.add_if(Kind::Hedging, hedging.text(delta.text));
        }
        found
    }
}

/// Reads a character that ends a sentence or is not ASCII. Returns `true` if the text repeats itself, and
/// the text since the last boundary.
#[inline(never)]
fn other(repetition: &mut Option<Repetition>, c: char, place: u64, piece: Fnv) -> (bool, Fnv) {
    let is_space = c.is_whitespace();
    if !is_space && !ends_sentence(c) {
        return (false, repetition::with(piece, c));
    }
    let repeats = repetition.as_mut().is_some_and(|repetition| {
        if is_space {
            repetition.space(place, piece)
        } else {
            repetition.mark(c, place, piece)
        }
    });
    (repeats, Fnv::EMPTY)
}

impl Check<DriftReport> for Detector {
    fn name(&self) -> &'static str {
        "drift"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings<DriftReport>) {
        let found = if self.wording.begins(self.length) {
            self.begin(delta)
        } else {
            let mut delta = Delta::new(delta, self.length);
            let mut found = self.read(delta.text, &mut delta);
            found.add(self.whole(&delta));
            found
        };
        let new = self.found.add(found);
        if !new.is_empty() {
            new.report(false, findings);
        }
    }

    fn end(&mut self, _: &Ended, findings: &mut Findings<DriftReport>) {
        let length = self.length;
        let mut found = self.wording.end(length);
        if let Some(repetition) = &mut self.repetition {
            found.add_if(Kind::Repetition, repetition.end(length));
        }
        if let Some(markdown) = &mut self.markdown {
            found.add_if(Kind::MarkdownCollapse, markdown.end(length));
        }
        if let Some(hedging) = &mut self.hedging {
            found.add_if(Kind::Hedging, hedging.end());
        }
        found.report(self.retry, findings);
    }
}
