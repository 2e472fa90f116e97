//! The costs of runs, by currency.

use std::collections::BTreeSet;

use l0_core::Money;
use serde::Serialize;

use super::TOTAL;
use crate::stats::Stats;

/// The costs in one currency, of each group.
#[derive(Serialize)]
pub(super) struct Costs<'a> {
    currency: String,
    rows: Vec<CostRow<'a>>,
}

/// Amounts are exact, as text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CostRow<'a> {
    group: &'a str,
    spent: Option<String>,
    wasted: Option<String>,
    estimated: Option<String>,
    per_thousand_runs: Option<f64>,
}

pub(super) fn costs<'a>(groups: &[(&'a str, &'a Stats)], total: &Stats) -> Vec<Costs<'a>> {
    let row = |group: &'a str, stats: &Stats, currency: &str| {
        let spent = stats.spent().get(currency).copied();
        let estimated = stats.amounts("estimated_cost");
        CostRow {
            group,
            spent: spent.map(|[all, _]| all.to_string()),
            wasted: spent.map(|[_, wasted]| wasted.to_string()),
            estimated: estimated
                .get(&[currency.to_owned()][..])
                .map(Money::to_string),
            per_thousand_runs: spent
                .filter(|_| stats.runs > 0)
                .map(|[all, _]| all.as_f64() * 1e3 / stats.runs as f64),
        }
    };
    let data = |currency: &str| {
        let rows = groups
            .iter()
            .map(|(name, stats)| row(name, stats, currency));
        let sum = (groups.len() > 1).then(|| row(TOTAL, total, currency));
        Costs {
            currency: currency.to_owned(),
            rows: rows.chain(sum).collect(),
        }
    };
    let currencies: BTreeSet<_> = total.currencies().collect();
    currencies.into_iter().map(data).collect()
}
