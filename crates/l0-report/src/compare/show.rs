//! Displays a comparison as text.

use std::fmt::{self, Write};

use super::interval::Estimate;
use super::statistic::Measure;
use super::{CheckOutcome, Comparison, GroupComparison, Row, Verdict};
use crate::blocks::label;
use crate::table::{Block, escaped, write_aligned};
use crate::text::{counted, shortened, three_digits};

/// The maximum width of the name of a key.
const MAX_WIDTH: usize = 32;

/// Prints a table: a block for each group with a row for each number, the results of thresholds, and the
/// number of differences expected by chance.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut blocks: Vec<_> = self.groups.iter().map(|group| self.block(group)).collect();
        if !self.checks.is_empty() {
            let heading = ["conditions", "", ""].map(str::to_owned);
            let checks = self.checks.iter().map(|check| {
                [
                    shortened(&check.threshold.to_string(), 60),
                    label(&check.group),
                    check.outcome.to_string(),
                ]
            });
            blocks.push(Block {
                rows: std::iter::once(heading)
                    .chain(checks)
                    .map(Vec::from)
                    .collect(),
                ends_in_text: true,
            });
        }
        write_aligned(f, &blocks)?;
        for note in self.notes() {
            write!(f, "\n\n{note}")?;
        }
        Ok(())
    }
}

impl Comparison {
    fn block(&self, group: &GroupComparison) -> Block {
        let heading = vec![
            label(&group.name),
            "base".to_owned(),
            "new".to_owned(),
            "change".to_owned(),
            format!("{} interval", self.confidence),
            "verdict".to_owned(),
        ];
        let runs = vec![
            "runs".to_owned(),
            group.base_runs.to_string(),
            group.new_runs.to_string(),
            String::new(),
            String::new(),
            String::new(),
        ];
        let rows = group.rows.iter().map(|row| {
            let label = shortened(&row.statistic.to_string(), 60);
            let cells = row.cells();
            std::iter::once(label).chain(cells).collect()
        });
        Block {
            rows: [heading, runs].into_iter().chain(rows).collect(),
            ends_in_text: true,
        }
    }

    /// Returns the notes below the tables.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(key) = &self.pair_by {
            for group in &self.groups {
                let counts = group.pairs.unwrap_or_default();
                let mut note = format!(
                    "{}: {} by {}, {} without a partner",
                    label(&group.name),
                    counted(counts.pairs, "pair"),
                    shortened(key, MAX_WIDTH),
                    counted(counts.alone, "run")
                );
                for (count, words) in [
                    (counts.repeated, "that repeat a value"),
                    (counts.without_key, "without the entry"),
                    (counts.left_out, "beyond the maximum number of pairs"),
                ] {
                    if count > 0 {
                        let _ = write!(note, ", {count} {words}");
                    }
                }
                notes.push(note);
            }
        }
        let rows = self.groups.iter().flat_map(|group| &group.rows);
        let judged = rows.filter(|row| row.difference.is_some()).count();
        if judged > 0 {
            let by_chance = judged as f64 * (1.0 - self.confidence.as_share());
            let numbers = if judged == 1 {
                "number is"
            } else {
                "numbers are"
            };
            notes.push(format!(
                "{judged} {numbers} compared, each at {}: without any difference, about {by_chance:.1} of them would show one.",
                self.confidence
            ));
        }
        notes
    }

    /// Returns the comparison in Markdown, for a pull request: the results of thresholds, a table of the
    /// numbers that differ, and a collapsed table of the others.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let sign = match check.outcome {
                CheckOutcome::Crossed => "❌",
                CheckOutcome::NotCrossed => "✅",
                CheckOutcome::TooFewRuns { .. }
                | CheckOutcome::ZeroBase
                | CheckOutcome::Unknown => "⚠️",
            };
            let _ = writeln!(
                text,
                "- {sign} {} ({}): **{}**",
                escaped(&check.threshold.to_string()),
                escaped(&check.group),
                check.outcome
            );
        }
        for group in &self.groups {
            let between = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(
                text,
                "{between}### {}: {} against {}\n",
                escaped(&group.name),
                counted(group.new_runs, "run"),
                group.base_runs
            );
            let (different, rest): (Vec<&Row>, Vec<&Row>) = group.rows.iter().partition(|row| {
                !matches!(
                    row.verdict,
                    Verdict::NoEvidence | Verdict::TooFewRuns { .. }
                )
            });
            if different.is_empty() {
                text.push_str("No number shows a difference.\n");
            } else {
                self.markdown_table(&mut text, &different);
            }
            if !rest.is_empty() {
                let _ = writeln!(
                    text,
                    "\n<details><summary>{} without evidence of a difference</summary>\n",
                    counted(rest.len() as u64, "number")
                );
                self.markdown_table(&mut text, &rest);
                text.push_str("\n</details>\n");
            }
        }
        for note in self.notes() {
            let _ = writeln!(text, "\n{}", escaped(&note));
        }
        text
    }

    fn markdown_table(&self, text: &mut String, rows: &[&Row]) {
        let _ = writeln!(
            text,
            "| | base | new | change | {} interval | verdict |\n|---|--:|--:|--:|--:|---|",
            self.confidence
        );
        for row in rows {
            let _ = write!(text, "| {} |", escaped(&row.statistic.to_string()));
            for cell in row.cells() {
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
    }
}

impl Row {
    /// Returns base, new, change, interval and verdict.
    fn cells(&self) -> [String; 5] {
        let measure = self.statistic.measure();
        let of =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| measure.show(value));
        let (change, interval) = match (self.difference, self.ratio) {
            (None, _) => ("-".to_owned(), "-".to_owned()),
            (Some(difference), ratio) => change(measure, &difference, ratio.as_ref()),
        };
        [
            of(self.base),
            of(self.new),
            change,
            interval,
            self.verdict.to_string(),
        ]
    }
}

/// Returns a change and its interval: for shares in percentage points, for other quantities in percent if the
/// base is not zero.
fn change(
    measure: Measure<'_>,
    difference: &Estimate,
    ratio: Option<&Estimate>,
) -> (String, String) {
    let (change, unit) = match (measure, ratio) {
        (Measure::Share, _) => (difference.map(|part| part * 100.0), " pp"),
        (_, Some(ratio)) => (ratio.map(|factor| (factor - 1.0) * 100.0), " %"),
        (_, None) => (*difference, measure.unit()),
    };
    let unit = match measure {
        Measure::Money(currency) if ratio.is_none() => format!(" {currency}"),
        _ => unit.to_owned(),
    };
    // Smaller changes than the sixth decimal of a percent or a millisecond are noise of the arithmetic. Those of money
    // are real.
    let is_money = matches!(measure, Measure::Money(_)) && ratio.is_none();
    let least = if is_money { 0.0 } else { 5e-7 };
    let signed = |number: f64| match number {
        number if number.abs() <= least => "0".to_owned(),
        number if number < 0.0 => format!("-{}", three_digits(Some(-number))),
        number => format!("+{}", three_digits(Some(number))),
    };
    let [value, lower, upper] = [change.value, change.lower, change.upper].map(signed);
    (format!("{value}{unit}"), format!("{lower} … {upper}{unit}"))
}

impl Estimate {
    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self {
            value: f(self.value),
            lower: f(self.lower),
            upper: f(self.upper),
        }
    }
}

impl Measure<'_> {
    const fn unit(self) -> &'static str {
        match self {
            Self::Millis => " ms",
            Self::PerSecond => "/s",
            Self::Share => " %",
            Self::Number | Self::Money(_) => "",
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::Share => format!("{}{}", three_digits(Some(value * 100.0)), self.unit()),
            Self::Money(currency) => format!("{} {currency}", three_digits(Some(value))),
            _ => format!("{}{}", three_digits(Some(value)), self.unit()),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Better => f.write_str("better"),
            Self::Worse => f.write_str("worse"),
            Self::Differs => f.write_str("differs"),
            Self::NoEvidence => f.write_str("no evidence"),
            Self::TooFewRuns { least } => write!(f, "too few runs: needs {least}"),
        }
    }
}

impl fmt::Display for CheckOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crossed => f.write_str("crossed"),
            Self::NotCrossed => f.write_str("not crossed"),
            Self::TooFewRuns { least } => {
                write!(f, "too few runs: needs {least} in each set")
            }
            Self::ZeroBase => {
                f.write_str("the base may be zero: write the limit as a number, not in percent")
            }
            Self::Unknown => f.write_str("no run has a single value of it"),
        }
    }
}
