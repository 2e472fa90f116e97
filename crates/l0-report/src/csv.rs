//! CSV: a profile with a row for each group.

use std::borrow::Cow;
use std::io::Write;

use l0_core::{Outcome, Quantity, QuantityKind, Unit};
pub use l0_export::csv::Error;
use l0_export::csv::write_row;
use l0_export::names;
use serde::Serialize;

use crate::profile::Profile;
use crate::quantiles::Numbers;
use crate::stats::{Amounts, RUNS_BY_OUTCOME, Stats, Sum};

/// Writes a profile: a header, and a row for each group.
///
/// The columns are `group`, `runs`, and the number of runs with each [`Outcome`]. Then each quantity
/// of [`Quantity::ALL`](l0_core::Quantity::ALL) follows, in its order: its sum (`tokens`), or its mean, p50, p95,
/// p99 and maximum (`durationMean`, `durationP50`, ...), or counts by a label (`failures`) as compact JSON.
/// The last column is `reasons`: the failure reasons, as a compact JSON list. Unknown values are empty.
///
/// # Errors
///
/// [`Error::Io`] if the writer fails.
pub fn write_profile(to: &mut impl Write, profile: &Profile) -> Result<(), Error> {
    let mut lines = Vec::new();
    let header = profile_row("", &Stats::default());
    write_row(&mut lines, header.into_iter().map(|(name, _)| name))?;
    for (group, stats) in profile.groups() {
        let row = profile_row(group, stats);
        write_row(&mut lines, row.into_iter().map(|(_, cell)| cell))?;
    }
    Ok(to.write_all(&lines)?)
}

/// Returns the columns of a group, each with its cell.
fn profile_row<'a>(group: &'a str, stats: &Stats) -> Vec<(String, Cow<'a, str>)> {
    let mut row = vec![
        ("group".to_owned(), Cow::Borrowed(group)),
        ("runs".to_owned(), number(Some(stats.runs))),
    ];
    let outcomes = stats.counts(RUNS_BY_OUTCOME);
    // A record of another version can have an outcome that this version does not know.
    for outcome in Outcome::ALL.iter().chain([&Outcome::Other]) {
        let count = outcomes.get(outcome.as_str()).copied().unwrap_or_default();
        row.push((outcome.as_str().to_owned(), number(Some(count))));
    }
    for quantity in Quantity::ALL {
        let (name, column) = (quantity.name, names::column(quantity).to_owned());
        match (quantity.is_labeled(), quantity.kind) {
            (true, _) if name == RUNS_BY_OUTCOME => {}
            (true, _) if quantity.unit == Unit::Money => {
                let amounts = stats.amounts(name);
                let known = (!amounts.is_empty()).then(|| Amounts::of(amounts));
                row.push((column, structure(known.as_ref())));
            }
            (true, _) => {
                let counts = stats.counts(name);
                let known = (!counts.is_empty()).then_some(counts);
                row.push((column, structure(known)));
            }
            (false, QuantityKind::Sum) => row.push((column, sum(stats.total_of(name)))),
            (false, _) => {
                for (suffix, value) in Numbers::from(stats.sample(name)).in_order() {
                    row.push((format!("{column}{suffix}"), number(value)));
                }
            }
        }
    }
    let reasons = stats.reasons();
    let known = (!reasons.is_empty()).then_some(&reasons);
    row.push(("reasons".to_owned(), structure(known)));
    row
}

fn sum(sum: Option<Sum>) -> Cow<'static, str> {
    match sum {
        Some(Sum::Count(count)) => number(Some(count)),
        sum => number(sum.map(Sum::as_f64)),
    }
}

fn number(number: Option<impl ToString>) -> Cow<'static, str> {
    number.map_or(Cow::Borrowed(""), |number| number.to_string().into())
}

/// Returns lists and maps as compact JSON, which begins with a bracket, so spreadsheets do not run it.
fn structure(value: Option<&impl Serialize>) -> Cow<'static, str> {
    // Every value of a profile serializes.
    let json = |value| serde_json::to_string(value).unwrap_or_default();
    value.map_or(Cow::Borrowed(""), |value| json(value).into())
}
