//! Drift: whether an answer changes for the worse while it streams.

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

use self::delta::Delta;
use self::entropy::Entropy;
use self::hedging::Hedging;
use self::markdown::Markdown;
use self::repetition::Repetition;
use self::wording::Wording;

/// Detects answers that change their tone or format, repeat themselves, or comment on themselves. All
/// kinds of drift are detected by default, and recorded.
///
/// ```
/// use l0_core::L0;
/// use l0_guardrails::Drift;
///
/// let l0 = L0::builder().drift(Drift::new().hedging(false)).build();
/// # drop(l0);
/// ```
///
/// | kind | confidence | what it is |
/// |---|---|---|
/// | `meta_commentary` | 0.9 | the last 200 characters have a phrase of `pattern-meta-commentary` in [`Patterns`](crate::Patterns), or "as an AI", "let me explain", "to clarify", "in other words" |
/// | `tone_shift` | 0.7 | formal words ("therefore", "moreover") or informal ones ("gonna", "okay") in the last 200 characters and in the 200 before differ by more than two |
/// | `repetition` | 0.8 | a sentence of more than 20 characters, or a phrase of five words, comes three times in the last 500 characters, in which three such sentences end |
/// | `entropy_spike` | 0.6 | a delta's characters are much more mixed than those of the 50 deltas before |
/// | `format_collapse` | 0.8 | the first 100 characters have a phrase of `pattern-format-collapse`, or "here you go" |
/// | `markdown_collapse` | 0.7 | four or more marks of Markdown (fences, headers, bold text, links) in 200 characters, and none in the last 200, outside of code |
/// | `hedging` | 0.5 | the first line is one of `pattern-hedging`, such as "Sure!", and nothing else |
///
/// A kind is recorded when it is first found in an attempt. These are heuristics, and good answers
/// have such phrases too: look at what is found in your answers before you let L0 ask again, with
/// [`retry`](Self::retry).
///
/// Phrases are whole words, in any case, with any apostrophe and any whitespace between them. They
/// are English. "Characters" are `char`s. The pieces in which a text comes make no difference,
/// except to the entropy, which is by nature one of deltas.
///
/// An attempt keeps no text, only hashes and places. Nearly all of its memory is for repetition: 9
/// to 18 bytes per character of the [`window`](Self::window), which is 5 KiB by default.
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
    /// Creates a detection of all kinds, with the default thresholds.
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

    /// Sets whether L0 asks again if a complete answer ends with drift. Default: no.
    ///
    /// Such an answer is the model's fault, and counts as a model retry. Once retries are exhausted,
    /// the run completes. `format_collapse` and `hedging` are about the beginning, and stay up to the
    /// end. `entropy_spike` is about single deltas, and is always only recorded. The other kinds are
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

    /// Enables detection of deltas whose characters are much more mixed than before.
    pub fn entropy_spike(mut self, on: bool) -> Self {
        self.entropy_spike = on;
        self
    }

    /// Enables detection of a beginning that announces the answer.
    pub fn format_collapse(mut self, on: bool) -> Self {
        self.format_collapse = on;
        self
    }

    /// Enables detection of Markdown that goes on as plain text.
    pub fn markdown_collapse(mut self, on: bool) -> Self {
        self.markdown_collapse = on;
        self
    }

    /// Enables detection of a first line that only agrees.
    pub fn hedging(mut self, on: bool) -> Self {
        self.hedging = on;
        self
    }

    /// Sets how many times a sentence or a phrase occurs in the window to count as repetition.
    /// Default: 3; at least 2.
    pub fn repetition_threshold(mut self, times: usize) -> Self {
        self.repetition_threshold = times.max(2);
        self
    }

    /// Sets how many standard deviations (of the population) above the mean the entropy of a delta
    /// must be to count as a spike. Default: 2.5; at least 0. Not a number is the default.
    ///
    /// The delta is one of those that it is compared with, so of n values none is more than the
    /// square root of n - 1 above the mean: 7 for the default window.
    pub fn entropy_threshold(mut self, deviations: f64) -> Self {
        self.entropy_threshold = if deviations.is_nan() {
            Self::new().entropy_threshold
        } else {
            deviations.max(0.0)
        };
        self
    }

    /// Sets how many deltas a delta's entropy is compared with, itself included. The first nine
    /// deltas are not judged. Default: 50; from 10 to 1,000.
    pub fn entropy_window(mut self, deltas: usize) -> Self {
        self.entropy_window = deltas.clamp(entropy::MIN_VALUES, entropy::MAX_VALUES);
        self
    }

    /// Sets the look-back window of `repetition`, in characters. Default: 500; from 100 to 10,000.
    ///
    /// What repeats farther apart is not found, nor is a sentence that is too long to fit into the
    /// window as often as [`repetition_threshold`](Self::repetition_threshold) says. A large window
    /// finds more of both, and more turns of phrase that a long text may well use three times.
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
    /// In the order of reports.
    const ALL: [Self; 7] = [
        Self::MetaCommentary,
        Self::ToneShift,
        Self::Repetition,
        Self::EntropySpike,
        Self::FormatCollapse,
        Self::MarkdownCollapse,
        Self::Hedging,
    ];

    /// Its label, and how sure it is that the answer is off the track.
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

    /// Adds kinds, and returns those that were not there.
    #[inline]
    fn add(&mut self, kinds: Self) -> Self {
        let new = Self(kinds.0 & !self.0);
        self.0 |= kinds.0;
        new
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Reports each kind by itself.
    #[cold]
    fn report(self, retry: bool, findings: &mut Findings<DriftReport>) {
        for kind in Kind::ALL.into_iter().filter(|kind| self.has(*kind)) {
            let (label, confidence) = kind.describe();
            findings.report(DriftReport::new([label], confidence).retry(retry));
        }
    }
}

/// Looks for drift in one attempt.
#[derive(Debug)]
struct Detector {
    /// How many characters came.
    length: u64,
    /// What was found so far.
    found: Kinds,
    /// Whether what the answer ends with is a reason to ask again.
    retry: bool,
    wording: Option<Wording>,
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
}

impl Check<DriftReport> for Detector {
    fn name(&self) -> &'static str {
        "drift"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings<DriftReport>) {
        let delta = Delta::new(delta, self.length);
        self.length = delta.end();
        let mut found = Kinds::default();
        if let Some(wording) = &mut self.wording {
            found = wording.text(&delta);
        }
        if let Some(repetition) = &mut self.repetition {
            found.add_if(Kind::Repetition, repetition.text(&delta));
        }
        if let Some(entropy) = &mut self.entropy {
            found.add_if(Kind::EntropySpike, entropy.text(&delta));
        }
        if let Some(markdown) = &mut self.markdown {
            found.add_if(Kind::MarkdownCollapse, markdown.text(&delta));
        }
        if let Some(hedging) = &mut self.hedging {
            found.add_if(Kind::Hedging, hedging.text(delta.text));
        }
        let new = self.found.add(found);
        if !new.is_empty() {
            new.report(false, findings);
        }
    }

    fn end(&mut self, _: &Ended, findings: &mut Findings<DriftReport>) {
        let length = self.length;
        let mut found = Kinds::default();
        if let Some(wording) = &mut self.wording {
            found = wording.end(length);
        }
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
