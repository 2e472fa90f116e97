//! Profile: many runs as counts and quantiles, in groups.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use l0_core::{Metadata, Telemetry, keys};
use l0_export::by_source;
use serde::{Serialize, Serializer};

use crate::blocks::blocks;
use crate::stats::{MAX_NAME, Stats, has_space};
use crate::table::write_aligned;

/// A summary of many runs: durations, outcomes and failure reasons. Memory use does not depend on their
/// number.
///
/// A profile has one group, [`ALL`](Self::ALL), or a group for each value of a metadata entry, such as a model
/// or the arm of an A/B test. A run that fell back to another model is in the groups of both.
/// [`Display`](fmt::Display) prints an aligned table, with a block per quantity and a line per group.
/// `Serialize` gives the [`Stats`] of each group under its name.
///
/// ```
/// use l0_core::Telemetry;
/// use l0_report::Profile;
///
/// # let runs = [Telemetry::default(), Telemetry::default()];
/// let mut profile = Profile::new().group_by("model");
/// for telemetry in &runs {
///     profile.add(telemetry);
/// }
/// for (model, stats) in profile.groups() {
///     println!("{model}: {} runs, median {:?} ms", stats.runs, stats.sample("duration").p50());
///     for reason in stats.reasons() {
///         println!("  {} failed: {}", reason.runs, reason.message);
///     }
/// }
/// println!("{profile}");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Profile {
    keys: Vec<String>,
    groups: BTreeMap<String, Stats>,
}

impl Profile {
    /// The name of the only group of an ungrouped profile.
    pub const ALL: &str = "all";
    /// The name of the group of runs without the metadata entry. Runs whose entry has this
    /// text are in it too.
    pub const NONE: &str = "(none)";
    /// The name of the group of all further runs, once the profile has
    /// [`MAX_GROUPS`](Self::MAX_GROUPS) groups.
    pub const OTHER: &str = "(other)";
    /// The maximum number of groups. A group of many runs takes 4 kB
    /// for each doubling in the range of one of its quantities.
    pub const MAX_GROUPS: usize = 256;
    /// The maximum length of the name of a group, in bytes. Longer values are cut.
    pub const MAX_NAME: usize = MAX_NAME;

    /// Creates an empty profile, with one group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Groups runs that are added later by this metadata entry, read by [`keys::text`]. Further calls add further
    /// entries: the name of a group then consists of all values, such as `gpt-4 / acme`. Values that contain a slash
    /// between spaces, or begin with a quotation mark, are quoted.
    #[must_use]
    pub fn group_by(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Iterates over the metadata entries that runs are grouped by.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.keys.iter().map(String::as_str)
    }

    /// Adds one run.
    ///
    /// Measurements of a source's attempts belong to the group of that source, by its own model, provider or
    /// operation if runs are grouped by these. The run itself, with its own values, belongs to the group of
    /// the last source: see [`Telemetry::by_source`].
    pub fn add(&mut self, telemetry: &Telemetry) {
        self.add_run(telemetry);
    }

    /// Adds one run, and returns the name of its group.
    pub(crate) fn add_run(&mut self, telemetry: &Telemetry) -> String {
        if self.keys.is_empty() {
            self.group(Self::ALL).add(telemetry, true);
            return Self::ALL.to_owned();
        }
        let mut of_run = String::new();
        by_source(telemetry, &mut |part, metadata| {
            let name = group_name(&self.keys, metadata);
            let name = self.placed(&name).to_owned();
            let group = self.groups.entry(name.clone()).or_default();
            group.add(part.telemetry, part.is_last);
            of_run = name;
        });
        of_run
    }

    /// Adds all runs of another profile, group by group. Both must be grouped by the same entries.
    pub fn merge(&mut self, other: &Self) {
        for (name, stats) in &other.groups {
            self.group(name).merge(stats);
        }
    }

    fn group(&mut self, name: &str) -> &mut Stats {
        let name = self.placed(name).to_owned();
        self.groups.entry(name).or_default()
    }

    /// Returns the name of the group for a run: this name, or [`OTHER`](Self::OTHER) if all groups are taken.
    fn placed<'a>(&self, name: &'a str) -> &'a str {
        let always = [Self::NONE, Self::OTHER];
        let fits = has_space(&self.groups, name, &always, Self::MAX_GROUPS);
        if fits { name } else { Self::OTHER }
    }

    /// Iterates over the groups, by name.
    #[must_use]
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&str, &Stats)> {
        self.groups.iter().map(|(name, stats)| (&**name, stats))
    }

    /// Adds up all groups.
    #[must_use]
    pub fn total(&self) -> Stats {
        let mut total = Stats::default();
        for stats in self.groups.values() {
            total.merge(stats);
        }
        total
    }
}

impl Serialize for Profile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.groups.serialize(serializer)
    }
}

/// Prints a table: outcomes, failure reasons, sums, and a block for each distribution. Each block has a line
/// per group, and one for all groups. Unknown quantities have no block, values that are zero in all groups
/// have no column, and unknown values are dashes. Numbers other than counts have three digits, which matches
/// the precision of quantiles. The bars show the distribution of the values of
/// a group, on one logarithmic scale per block.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        write_aligned(f, &blocks(self.groups(), &total))
    }
}

/// Returns the name of the group with these values of the keys.
pub(crate) fn group_name<'a>(keys: &[String], metadata: &'a Metadata) -> Cow<'a, str> {
    const BETWEEN: &str = " / ";

    let values = keys.iter().map(|key| {
        let value = keys::text(metadata, key).unwrap_or(Profile::NONE.into());
        match value {
            Cow::Borrowed(text) => keys::cut(text, Profile::MAX_NAME).into(),
            Cow::Owned(text) => keys::cut(&text, Profile::MAX_NAME).to_owned().into(),
        }
    });
    let mut values = values.collect::<Vec<Cow<'a, str>>>();
    if let [_] = &values[..] {
        return values.swap_remove(0);
    }
    let values = values.iter().map(|value| {
        // Quoting keeps the names of groups distinct.
        if value.contains(BETWEEN) || value.starts_with('"') {
            format!("{value:?}").into()
        } else {
            Cow::Borrowed(&**value)
        }
    });
    values.collect::<Vec<_>>().join(BETWEEN).into()
}
