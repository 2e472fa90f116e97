//! Summary: an overview of the runs of some files.

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use l0_core::{Outcome, Telemetry, keys};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::blocks::{blocks, label};
use crate::first::{First, Placed};
use crate::profile::Profile;
use crate::read::Reading;
use crate::stats::{MAX_NAME, Stats};
use crate::table::{Block, markdown, write_aligned};
use crate::text::{counted, duration, millis, printable, rfc3339, shortened, three_digits};

/// An overview of many runs: a [`Profile`], the time span, the slowest runs, optionally
/// [the ids of all failed runs](Self::with_failed_ids), and the [skipped](Self::add_reading) parts of the
/// inputs.
///
/// [`Display`](fmt::Display) prints a table, and [`markdown`](Self::markdown) the same in Markdown.
/// `Serialize` gives `runs`, `startTime` and `endTime` (milliseconds since the Unix epoch), `runsPerSecond`,
/// `groups` (the [`Stats`] of each, by name), `slowest` and `failed`; `filtered`, the number of runs that a filter
/// excluded; and `skipped`, for each input with skipped lines. Unknown values are absent.
///
/// ```
/// use l0_report::{Profile, Summary};
///
/// let mut summary = Summary::new(Profile::new().group_by("model"));
/// summary.add(&l0_core::Telemetry::example());
/// println!("{summary}");
/// for run in summary.slowest() {
///     println!("{} took {:?}", run.session_id, run.duration);
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Summary {
    profile: Profile,
    slowest: First<Run>,
    failed: Option<Vec<String>>,
    /// The number of runs that a filter excluded.
    filtered: u64,
    skipped: Vec<Skipped>,
}

/// The skipped part of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Skipped {
    /// The name of the input.
    pub input: String,
    /// The number of skipped lines.
    pub lines: u64,
    /// The errors of the first skipped lines, and the error that ended reading early, if any. Each states its
    /// position, and quotes nothing.
    pub reasons: Vec<String>,
}

impl Skipped {
    /// Returns the skipped part of an input. `None` if all of it was read.
    pub(crate) fn of(input: impl Into<String>, reading: &Reading) -> Option<Self> {
        let is_whole = reading.skipped == 0 && reading.failure.is_none();
        (!is_whole).then(|| Self {
            input: input.into(),
            lines: reading.skipped,
            reasons: reading.reasons().collect(),
        })
    }
}

/// A single run of an overview.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Run {
    /// The id of the run.
    pub session_id: String,
    /// The model of the last attempt, or else that of the metadata. Absent if neither names one.
    pub model: Option<String>,
    /// The time from its start to its end.
    pub duration: Duration,
    /// The outcome. Absent if it was not recorded.
    pub outcome: Option<Outcome>,
}

impl Placed for Run {
    /// The slowest runs first. Runs of equal duration are in the order of their ids.
    fn place(&self) -> impl Ord {
        (Reverse(self.duration), &self.session_id)
    }
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            slowest: First::new(Self::SLOWEST),
            failed: None,
            filtered: 0,
            skipped: Vec::new(),
        }
    }
}

impl Summary {
    /// The maximum number of slowest runs.
    pub const SLOWEST: usize = 10;

    /// Creates an empty summary, with the groups of this profile.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            ..Self::default()
        }
    }

    /// Keeps the ids of all failed runs, in the order in which they are added. Memory use grows with their
    /// number.
    #[must_use]
    pub fn with_failed_ids(mut self) -> Self {
        self.failed = Some(Vec::new());
        self
    }

    /// Adds one run.
    pub fn add(&mut self, run: &Telemetry) {
        self.profile.add(run);
        if let Some(duration) = run.duration {
            self.add_slow(duration, run);
        }
        if let Some(failed) = &mut self.failed {
            if run.outcome.is_some_and(Outcome::is_failure) {
                failed.push(keys::cut(&run.session_id, MAX_NAME).to_owned());
            }
        }
    }

    fn add_slow(&mut self, duration: Duration, run: &Telemetry) {
        // Skips most runs early.
        if self
            .slowest
            .last()
            .is_some_and(|last| duration < last.duration)
        {
            return;
        }
        let last = run.attempts.last().and_then(|last| last.model.as_deref());
        let model = match last {
            Some(model) => Some(model.into()),
            None => keys::text(&run.metadata, keys::MODEL),
        };
        self.slowest.add(Run {
            session_id: keys::cut(&run.session_id, MAX_NAME).to_owned(),
            model: model.map(|model| keys::cut(&model, MAX_NAME).to_owned()),
            duration,
            outcome: run.outcome,
        });
    }

    /// Adds the result of reading an input: the number of runs that its filter excluded, and the skipped lines
    /// with their reasons.
    pub fn add_reading(&mut self, input: impl Into<String>, reading: &Reading) {
        self.filtered += reading.runs - reading.matched;
        self.skipped.extend(Skipped::of(input, reading));
    }

    /// Returns the skipped parts, in the order of the inputs.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Returns the profile of the runs.
    #[must_use]
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Returns the slowest runs, at most [`SLOWEST`](Self::SLOWEST), the slowest first.
    #[must_use]
    pub fn slowest(&self) -> Vec<&Run> {
        self.slowest.in_order()
    }

    /// Returns the ids of the failed runs. `None` if they are not kept.
    #[must_use]
    pub fn failed(&self) -> Option<&[String]> {
        self.failed.as_deref()
    }

    /// Returns the text of [`Display`](fmt::Display) as Markdown tables.
    #[must_use]
    pub fn markdown(&self) -> String {
        let total = self.profile.total();
        format!(
            "{}\n\n{}",
            self.span(&total),
            markdown(&self.blocks(&total))
        )
    }

    fn blocks(&self, total: &Stats) -> Vec<Block> {
        let mut all = Vec::new();
        if total.runs > 0 {
            all = blocks(self.profile.groups(), total);
        }
        let slowest = self.slowest();
        if !slowest.is_empty() {
            let heading = ["slowest runs", "duration, ms", "outcome", "model"];
            let rows = slowest.iter().map(|run| {
                let dash = || "-".to_owned();
                let millis = three_digits(Some(millis(run.duration)));
                let outcome = run.outcome.map_or_else(dash, |outcome| outcome.to_string());
                let model = run.model.as_deref().map_or_else(dash, label);
                vec![shortened(&run.session_id, MAX_NAME), millis, outcome, model]
            });
            let heading = heading.map(str::to_owned).to_vec();
            all.push(Block {
                rows: std::iter::once(heading).chain(rows).collect(),
                ends_in_text: true,
            });
        }
        if let Some(failed @ [_, ..]) = self.failed() {
            let ids = failed.iter().map(|id| printable(id).collect());
            let all_ids = std::iter::once("failed runs".to_owned()).chain(ids);
            all.push(Block {
                rows: all_ids.map(|id| vec![id]).collect(),
                ..Block::default()
            });
        }
        if !self.skipped.is_empty() {
            let heading = ["skipped", "lines", "first of them"]
                .map(str::to_owned)
                .to_vec();
            let rows = self.skipped.iter().map(|skipped| {
                let first = skipped.reasons.first().map_or("", String::as_str);
                let [input, first] = [&*skipped.input, first].map(|text| shortened(text, MAX_NAME));
                vec![input, skipped.lines.to_string(), first]
            });
            all.push(Block {
                rows: std::iter::once(heading).chain(rows).collect(),
                ends_in_text: true,
            });
        }
        all
    }

    /// Describes the number of runs and their time span.
    fn span(&self, total: &Stats) -> String {
        let mut text = counted(total.runs, "run");
        if self.filtered > 0 {
            let read = total.runs.saturating_add(self.filtered);
            text.push_str(&format!(" of {read}"));
        }
        if let (Some(start), Some(end), Some(span)) =
            (total.first_start, total.last_end, total.span())
        {
            let (start, end) = (rfc3339(start), rfc3339(end));
            text.push_str(&format!(", from {start} to {end} ({}", duration(span)));
            if let Some(rate) = total.runs_per_second() {
                text.push_str(&format!(", {} runs per second", three_digits(Some(rate))));
            }
            text.push(')');
        }
        text
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.profile.total();
        f.write_str(&self.span(&total))?;
        let blocks = self.blocks(&total);
        if !blocks.is_empty() {
            f.write_str("\n\n")?;
        }
        write_aligned(f, &blocks)
    }
}

impl Serialize for Summary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let total = self.profile.total();
        let mut map = serializer.serialize_struct("Summary", 9)?;
        map.serialize_field("runs", &total.runs)?;
        if let Some(start) = total.first_start {
            map.serialize_field("startTime", &start)?;
        }
        if let Some(end) = total.last_end {
            map.serialize_field("endTime", &end)?;
        }
        if let Some(rate) = total.runs_per_second() {
            map.serialize_field("runsPerSecond", &rate)?;
        }
        map.serialize_field("groups", &self.profile)?;
        map.serialize_field("slowest", &self.slowest())?;
        if let Some(failed) = &self.failed {
            map.serialize_field("failed", failed)?;
        }
        map.serialize_field("filtered", &self.filtered)?;
        map.serialize_field("skipped", &self.skipped)?;
        map.end()
    }
}

/// Serializes with the names of a run's record. The duration is in milliseconds.
impl Serialize for Run {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("Run", 4)?;
        map.serialize_field("sessionId", &self.session_id)?;
        if let Some(model) = &self.model {
            map.serialize_field("model", model)?;
        }
        map.serialize_field("duration", &millis(self.duration))?;
        if let Some(outcome) = self.outcome {
            map.serialize_field("outcome", outcome.as_str())?;
        }
        map.end()
    }
}
