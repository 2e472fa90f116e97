//! Counting queries, whose expected results are known.

use std::collections::BTreeMap;

use crate::common::{Labels, Samples};
use crate::guide::{Window, assert_close};

/// `sum by (labels) (rate(metric{matchers}[range]))`, or the same with `increase`, or without a function.
struct Sum<'a> {
    by: Vec<&'a str>,
    of: Of,
    metric: &'a str,
    /// Label, operator, value.
    matchers: Vec<(&'a str, &'a str, &'a str)>,
}

#[derive(PartialEq)]
enum Of {
    Rate,
    Increase,
    Value,
}

impl<'a> Sum<'a> {
    /// Parses a query. Returns `None` for a query of another form.
    fn read(query: &'a str) -> Option<Self> {
        let rest = query.trim().strip_prefix("sum")?.trim_start();
        let (by, rest) = match rest.strip_prefix("by") {
            Some(rest) => rest.trim_start().strip_prefix('(')?.split_once(')')?,
            None => ("", rest),
        };
        let inside = rest.trim().strip_prefix('(')?.strip_suffix(')')?.trim();
        let (of, selector) = if let Some(rest) = inside.strip_prefix("rate(") {
            (Of::Rate, rest.strip_suffix("])")?.split_once('[')?.0)
        } else if let Some(rest) = inside.strip_prefix("increase(") {
            (Of::Increase, rest.strip_suffix("])")?.split_once('[')?.0)
        } else {
            (Of::Value, inside)
        };
        let (metric, matchers) = match selector.split_once('{') {
            Some((metric, matchers)) => (metric, matchers.strip_suffix('}')?),
            None => (selector, ""),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !metric.chars().all(is_name) {
            return None;
        }
        let matchers = matchers.split(',').map(str::trim);
        let matchers = matchers.filter(|one| !one.is_empty()).map(|matcher| {
            let (label, rest) = matcher.split_at(matcher.find(|c| !is_name(c))?);
            let (operator, value) = rest.split_once('"')?;
            Some((label, operator, value.strip_suffix('"')?))
        });
        Some(Self {
            // The only target has one value for each of these.
            by: by
                .split(',')
                .map(str::trim)
                .filter(|label| !["", "job", "instance"].contains(label))
                .collect(),
            of,
            metric,
            matchers: matchers.collect::<Option<_>>()?,
        })
    }

    fn takes(&self, labels: &Labels) -> bool {
        labels["__name__"] == self.metric
            && self.matchers.iter().all(|(label, operator, value)| {
                let actual = labels.get(*label).map_or("", String::as_str);
                match *operator {
                    "=" => actual == *value,
                    "!=" => actual != *value,
                    "=~" => value.split('|').any(|one| one == ".*" || one == actual),
                    other => panic!("{other} is not known here"),
                }
            })
    }

    fn key(&self, labels: &Labels) -> Labels {
        let kept = labels
            .iter()
            .filter(|(label, _)| self.by.contains(&&***label));
        kept.map(|(label, value)| (label.clone(), value.clone()))
            .collect()
    }

    /// Returns the increase in the window, or the value at its end if there is no function.
    fn expected(&self, window: &Window) -> BTreeMap<Labels, f64> {
        let mut expected: BTreeMap<Labels, f64> = BTreeMap::new();
        for (labels, value) in window.after.0.iter().filter(|one| self.takes(one.0)) {
            let before = match self.of {
                Of::Value => 0.0,
                Of::Rate | Of::Increase => window.before.0.get(labels).copied().unwrap_or(0.0),
            };
            *expected.entry(self.key(labels)).or_default() += value - before;
        }
        expected
    }

    fn check(&self, results: &BTreeMap<Labels, f64>, window: &Window, query: &str) {
        let expected = self.expected(window);
        assert_eq!(results.len(), expected.len(), "{query}");
        for (labels, result) in results {
            let expected = expected[labels];
            match self.of {
                Of::Rate => window.check_increase(window.seconds() * result, expected, query),
                Of::Increase => window.check_increase(*result, expected, query),
                Of::Value => assert_close(*result, expected, query),
            }
        }
    }
}

/// Checks the results of a query over the window if it is a sum or a ratio of two sums. Returns `true` if it
/// is.
pub(crate) fn check(query: &str, results: &Samples, window: &Window) -> bool {
    let query = query.split_whitespace().collect::<Vec<_>>().join(" ");
    let results = |sum: &Sum<'_>| -> BTreeMap<Labels, f64> {
        let results = results.0.iter();
        results
            .map(|(labels, value)| (sum.key(labels), *value))
            .collect()
    };
    let Some((above, below)) = query.split_once(" / ") else {
        let Some(sum) = Sum::read(&query) else {
            return false;
        };
        sum.check(&results(&sum), window, &query);
        return true;
    };
    let (Some(above), Some(below)) = (Sum::read(above), Sum::read(below)) else {
        return false;
    };
    if above.by != below.by || above.of == Of::Value || below.of == Of::Value {
        return false;
    }
    let (counts, requests) = (above.expected(window), below.expected(window));
    for (labels, ratio) in results(&above) {
        let expected = counts[&labels] / requests[&labels];
        // Rates are extrapolated by the same factor, except those of counters that start near 0, such as
        // some counters of seconds.
        if above.metric.contains("_seconds") || below.metric.contains("_seconds") {
            let plausible = (0.8..=1.25).contains(&(ratio / expected));
            assert!(plausible, "{query}: {ratio} instead of {expected}");
        } else {
            assert_close(ratio, expected, &query);
        }
    }
    true
}
