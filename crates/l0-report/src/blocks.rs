//! Blocks: the tables of a profile, one block of rows for each subject.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use l0_core::{Money, Outcome, Quantity, Unit};
use l0_export::names;
use unicode_width::UnicodeWidthStr;

use crate::quantiles::{Numbers, Quantiles};
use crate::sparkline::Scale;
use crate::stats::{RUNS_BY_OUTCOME, Stats, Sum};
use crate::table::{Block, MIN_WIDTH};
use crate::text::{shortened, three_digits};

/// The labels of rows, with the statistics of their groups.
type Groups<'a> = [(String, &'a Stats)];

/// Returns all blocks of a profile of these groups: outcomes, failure reasons, sums, and a block for
/// each distribution.
pub(crate) fn blocks<'a>(
    groups: impl ExactSizeIterator<Item = (&'a str, &'a Stats)>,
    total: &'a Stats,
) -> Vec<Block> {
    let groups = groups.map(|(name, stats)| (label(name), stats));
    let mut groups: Vec<_> = groups.collect();
    if groups.len() != 1 {
        groups.push((TOTAL.to_owned(), total));
    }
    let mut blocks = vec![outcomes_block(&groups, total)];
    blocks.extend(reasons_block(&groups));
    blocks.extend(sums_blocks(&groups, total));
    for quantity in Quantity::ALL {
        blocks.extend(counts_blocks(quantity, &groups, total));
    }
    blocks.extend(costs_blocks(&groups, total));
    for quantity in Quantity::ALL {
        blocks.extend(sample_block(quantity, &groups, total));
        if quantity.name == "duration" {
            blocks.extend(durations_blocks(&groups, total));
        }
    }
    blocks
}

/// The maximum width of the name of a group or column.
const LABEL_WIDTH: usize = 32;
/// The label of the row for all groups together.
const TOTAL: &str = "(all)";

fn outcomes_block(groups: &Groups<'_>, total: &Stats) -> Block {
    let outcomes: Vec<_> = total.outcomes().collect();
    let mut heading = vec![String::new(), "runs".to_owned()];
    heading.extend(outcomes.iter().map(|outcome| outcome.as_str().to_owned()));
    let mut rows = vec![heading];
    for (label, stats) in groups {
        let mut row = vec![label.clone(), stats.runs.to_string()];
        let counts = outcomes
            .iter()
            .map(|outcome| stats.ended(*outcome).to_string());
        row.extend(counts);
        rows.push(row);
    }
    Block {
        rows,
        ..Block::default()
    }
}

fn reasons_block(groups: &Groups<'_>) -> Option<Block> {
    /// The number of reasons that are shown for a group.
    const SHOWN: usize = 10;
    const WIDTH: usize = 100;

    let mut rows = vec![["failures", "runs", "reason"].map(str::to_owned).to_vec()];
    for (label, stats) in groups {
        let reasons = stats.reasons();
        let mut push = |runs: u64, text: &str| {
            rows.push(vec![
                label.clone(),
                runs.to_string(),
                shortened(text, WIDTH),
            ]);
        };
        for reason in reasons.iter().take(SHOWN) {
            let (kind, message) = (reason.error_type, reason.message);
            // Many messages begin with the words of their type. These words are shown once.
            if message.starts_with(&kind.replace('_', " ")) {
                push(reason.runs, message);
            } else {
                push(reason.runs, &format!("{kind}: {message}"));
            }
        }
        if let Some(others @ [_, ..]) = reasons.get(SHOWN..) {
            let runs = others.iter().map(|reason| reason.runs);
            let runs = runs.fold(0, u64::saturating_add);
            push(runs, &format!("{} other reasons", others.len()));
        }
    }
    (rows.len() > 1).then_some(Block {
        rows,
        ends_in_text: true,
    })
}

/// Returns the sums, without those that are zero in all groups.
fn sums_blocks(groups: &Groups<'_>, total: &Stats) -> Vec<Block> {
    let known = Quantity::ALL
        .iter()
        .filter(|quantity| total.sum(quantity.name).is_some_and(|sum| sum > 0.0));
    let columns = known.map(|quantity| {
        let cells = groups
            .iter()
            .map(|(_, stats)| match stats.total_of(quantity.name) {
                Some(Sum::Count(count)) => count.to_string(),
                sum => three_digits(sum.map(Sum::as_f64)),
            });
        (heading(quantity), cells.collect())
    });
    columns_blocks("totals", groups, columns)
}

/// Returns counts by a label, with a column for each value. Outcomes and failures have separate blocks.
fn counts_blocks(quantity: &Quantity, groups: &Groups<'_>, total: &Stats) -> Vec<Block> {
    const SHOWN_ABOVE: [&str; 2] = [RUNS_BY_OUTCOME, "failures"];

    let mut labels: Vec<_> = total.counts(quantity.name).iter().collect();
    labels.retain(|(_, count)| **count > 0);
    labels.sort_by_key(|(_, count)| Reverse(**count));
    if SHOWN_ABOVE.contains(&quantity.name) {
        labels.clear();
    }
    let columns = labels.into_iter().map(|(label, _)| {
        let cells = groups.iter().map(|(_, stats)| {
            let count = stats.counts(quantity.name).get(label);
            count.copied().unwrap_or_default().to_string()
        });
        (shortened(label, LABEL_WIDTH), cells.collect())
    });
    columns_blocks(names::words(quantity), groups, columns)
}

/// Returns a column for each heading, in several blocks if one would be too wide.
fn columns_blocks(
    name: &str,
    groups: &Groups<'_>,
    columns: impl Iterator<Item = (String, Vec<String>)>,
) -> Vec<Block> {
    const WIDTH: usize = 80;

    let mut blocks: Vec<Block> = Vec::new();
    let mut left = 0;
    for (heading, cells) in columns {
        let widths = cells.iter().map(|cell| cell.width());
        let width = 2 + widths.fold(heading.width().max(MIN_WIDTH), usize::max);
        if width > left {
            let labels = groups.iter().map(|(label, _)| label.clone());
            let labels = std::iter::once(name.to_owned()).chain(labels);
            blocks.push(Block {
                rows: labels.map(|label| vec![label]).collect(),
                ..Block::default()
            });
            left = WIDTH;
        }
        left = left.saturating_sub(width);
        if let Some(block) = blocks.last_mut() {
            let cells = std::iter::once(heading).chain(cells);
            for (row, cell) in block.rows.iter_mut().zip(cells) {
                row.push(cell);
            }
        }
    }
    blocks
}

/// Returns the costs, with a block for each currency.
fn costs_blocks(groups: &Groups<'_>, total: &Stats) -> Vec<Block> {
    let spent_in = |stats: &Stats, currency: &str| stats.spent().get(currency).copied();
    let estimated_in = |stats: &Stats, currency: &str| {
        let labels = [currency.to_owned()];
        stats.amounts("estimated_cost").get(&labels[..]).copied()
    };
    let currencies: BTreeSet<_> = total.currencies().collect();
    let block = |currency: &str| {
        let heading = [
            "cost",
            "wasted",
            "estimated",
            "per 1,000 runs",
            "per completed",
        ];
        let heading = std::iter::once(currency.to_owned()).chain(heading.map(str::to_owned));
        let mut rows = vec![heading.collect::<Vec<_>>()];
        for (label, stats) in groups {
            let spent = spent_in(stats, currency);
            let exact = |amount: Option<Money>| {
                amount.map_or_else(|| three_digits(None), |amount| amount.to_string())
            };
            let per = |runs: f64| {
                let all = spent.filter(|_| runs > 0.0);
                three_digits(all.map(|[all, _]| all.as_f64() / runs))
            };
            rows.push(vec![
                label.clone(),
                exact(spent.map(|[all, _]| all)),
                exact(spent.map(|[_, wasted]| wasted)),
                exact(estimated_in(stats, currency)),
                per(stats.runs as f64 / 1e3),
                per(stats.ended(Outcome::Completed) as f64),
            ]);
        }
        Block {
            rows,
            ..Block::default()
        }
    };
    currencies.into_iter().map(block).collect()
}

/// Returns the heading of a quantity, with its unit.
fn heading(quantity: &Quantity) -> String {
    let words = names::words(quantity);
    match quantity.unit {
        Unit::Seconds => format!("{words}, ms"),
        _ => words.to_owned(),
    }
}

fn sample_block(quantity: &Quantity, groups: &Groups<'_>, total: &Stats) -> Option<Block> {
    let unit = match quantity.unit {
        Unit::Seconds => " ms",
        Unit::PerSecond(_) => " per s",
        _ => "",
    };
    let scale = Scale::of(total.sample(quantity.name))?;
    let heading = heading(quantity);
    Some(distribution_block(heading, scale, unit, groups, |stats| {
        stats.sample(quantity.name)
    }))
}

/// Returns the durations by outcome, if several outcomes occur: failures are often fast or
/// slow, and would distort the durations of completed runs. All use one scale, for comparison.
fn durations_blocks(groups: &Groups<'_>, total: &Stats) -> Vec<Block> {
    let mut outcomes: Vec<_> = total.outcomes().collect();
    outcomes.retain(|outcome| !total.durations(*outcome).is_empty());
    let scale = Scale::of(total.sample("duration"));
    let (Some(scale), [_, _, ..]) = (scale, &outcomes[..]) else {
        return Vec::new();
    };
    let block = |outcome: Outcome| {
        let heading = format!("duration if {outcome}, ms");
        distribution_block(heading, scale, " ms", groups, |stats| {
            stats.durations(outcome)
        })
    };
    outcomes.into_iter().map(block).collect()
}

/// Returns the distribution of numbers, on one scale for all groups.
fn distribution_block(
    heading: String,
    scale: Scale,
    unit: &str,
    groups: &Groups<'_>,
    read: impl Fn(&Stats) -> &Quantiles,
) -> Block {
    let mut heading = vec![heading];
    heading.extend(["mean", "p50", "p95", "p99", "max"].map(str::to_owned));
    heading.push(scale.heading(unit));

    let mut rows = vec![heading];
    for (label, stats) in groups {
        let sample = read(stats);
        let mut row = vec![label.clone()];
        let numbers = Numbers::from(sample).in_order();
        row.extend(numbers.map(|(_, number)| three_digits(number)));
        row.push(scale.sparkline(&sample.counts().collect::<Vec<_>>()));
        rows.push(row);
    }
    Block {
        rows,
        ..Block::default()
    }
}

/// Returns the name of a group in a form that is safe for a terminal. A blank name is quoted, so it is visible.
pub(crate) fn label(name: &str) -> String {
    let is_blank = name.trim().is_empty();
    let quoted = is_blank.then(|| format!("{name:?}"));
    shortened(quoted.as_deref().unwrap_or(name), LABEL_WIDTH)
}
