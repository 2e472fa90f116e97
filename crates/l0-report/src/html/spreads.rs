//! The distributions of the quantities that runs have.

use std::borrow::Cow;
use std::collections::BTreeMap;

use l0_core::Outcome;
use serde::Serialize;

use super::{TOTAL, cell, failures};
use crate::quantiles::Quantiles;
use crate::stats::Stats;

/// The number of cells per doubling in a shape.
const CELLS: f64 = 8.0;

/// The distribution of a quantity, in each group that has it.
#[derive(Serialize)]
pub(super) struct Spread<'a> {
    title: &'static str,
    rows: Vec<SpreadRow<'a>>,
}

#[derive(Serialize)]
struct SpreadRow<'a> {
    group: &'a str,
    count: u64,
    mean: Option<f64>,
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
    /// The count of numbers from 2^(n / 8) to 2^((n + 1) / 8), for each n.
    shape: Vec<(i32, u64)>,
}

pub(super) fn spreads<'a>(groups: &[(&'a str, &'a Stats)], total: &Stats) -> Vec<Spread<'a>> {
    type Read = fn(&Stats) -> Cow<'_, Quantiles>;
    let all: [(&str, Read); 4] = [
        ("Time to first token", |stats| {
            Cow::Borrowed(stats.sample("time_to_first_token"))
        }),
        ("Gaps between tokens", |stats| {
            Cow::Borrowed(stats.sample("inter_token"))
        }),
        ("Duration of completed runs", |stats| {
            Cow::Borrowed(stats.durations(Outcome::Completed))
        }),
        // Fast failures would distort the durations of answers, and the reverse.
        ("Duration of failed runs", |stats| {
            let mut all = Quantiles::default();
            failures().for_each(|outcome| all.merge(stats.durations(outcome)));
            Cow::Owned(all)
        }),
    ];
    let spread = |(title, read): (&'static str, Read)| {
        let rows = groups.iter().map(|(name, stats)| (*name, read(stats)));
        let sum = (groups.len() > 1).then(|| (TOTAL, read(total)));
        let rows = rows.chain(sum).filter(|(_, sample)| !sample.is_empty());
        let rows: Vec<_> = rows
            .map(|(name, sample)| SpreadRow::of(name, &sample))
            .collect();
        (!rows.is_empty()).then_some(Spread { title, rows })
    };
    all.into_iter().filter_map(spread).collect()
}

impl<'a> SpreadRow<'a> {
    fn of(group: &'a str, sample: &Quantiles) -> Self {
        let mut shape = BTreeMap::<i32, u64>::new();
        for (number, count) in sample.counts() {
            let all = shape.entry(cell(number, CELLS)).or_default();
            *all = all.saturating_add(count);
        }
        Self {
            group,
            count: sample.count(),
            mean: sample.mean(),
            p50: sample.p50(),
            p95: sample.p95(),
            p99: sample.p99(),
            max: sample.max(),
            shape: shape.into_iter().collect(),
        }
    }
}
