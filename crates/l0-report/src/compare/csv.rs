//! CSV: a comparison with a row for each number.

use std::io::Write;

use l0_export::csv::{Error, write_row};

use super::interval::{Estimate, rounded};
use super::{Comparison, GroupComparison, Row, Verdict};

/// Writes a comparison: a header, and a row for each number of each group. Times are in milliseconds, and shares
/// are fractions of 1. Unknown values are empty.
///
/// # Errors
///
/// [`Error::Io`] if the writer fails.
pub fn write_csv(to: &mut impl Write, comparison: &Comparison) -> Result<(), Error> {
    let mut lines = Vec::new();
    write_row(&mut lines, COLUMNS)?;
    for group in &comparison.groups {
        for row in &group.rows {
            write_row(&mut lines, cells(group, row))?;
        }
    }
    Ok(to.write_all(&lines)?)
}

const COLUMNS: [&str; 13] = [
    "group",
    "statistic",
    "baseRuns",
    "newRuns",
    "base",
    "new",
    "difference",
    "differenceLower",
    "differenceUpper",
    "ratio",
    "ratioLower",
    "ratioUpper",
    "verdict",
];

fn cells(group: &GroupComparison, row: &Row) -> [String; 13] {
    let number =
        |number: Option<f64>| number.map_or_else(String::new, |number| rounded(number).to_string());
    let ends = |interval: Option<Estimate>| {
        [
            number(interval.map(|interval| interval.value)),
            number(interval.map(|interval| interval.lower)),
            number(interval.map(|interval| interval.upper)),
        ]
    };
    let [difference, difference_lower, difference_upper] = ends(row.difference);
    let [ratio, ratio_lower, ratio_upper] = ends(row.ratio);
    let verdict = match row.verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Differs => "differs",
        Verdict::NoEvidence => "no_evidence",
        Verdict::TooFewRuns { .. } => "too_few_runs",
    };
    [
        group.name.clone(),
        row.statistic.to_string(),
        row.base_runs.to_string(),
        row.new_runs.to_string(),
        number(row.base),
        number(row.new),
        difference,
        difference_lower,
        difference_upper,
        ratio,
        ratio_lower,
        ratio_upper,
        verdict.to_owned(),
    ]
}
