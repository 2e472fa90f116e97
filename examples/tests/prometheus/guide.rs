//! The queries of the guide.

use std::collections::BTreeMap;

use l0_examples::MODELS;

use crate::common::Samples;
use crate::programs::{Prometheus, with_one_spelling};

/// Returns the quantile of a histogram from its cumulative buckets, as Prometheus computes it.
pub(crate) fn quantile(q: f64, buckets: &[(f64, f64)]) -> f64 {
    let rank = q * buckets.last().unwrap().1;
    let at = buckets
        .iter()
        .position(|(_, count)| *count >= rank)
        .unwrap();
    if at == buckets.len() - 1 {
        return buckets[at - 1].0;
    }
    let (start, before) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
    let (end, count) = buckets[at];
    start + (end - start) * (rank - before) / (count - before)
}

/// Returns the cumulative buckets of a histogram over all label sets.
pub(crate) fn buckets(samples: &Samples, name: &str) -> Vec<(f64, f64)> {
    let mut buckets = BTreeMap::new();
    for (labels, count) in &samples.0 {
        if labels["__name__"] == name {
            let bound: f64 = labels["le"].parse().unwrap();
            // Bounds are not negative, so their bit patterns have the same order.
            *buckets.entry(bound.to_bits()).or_default() += count;
        }
    }
    let buckets = buckets.into_iter();
    buckets
        .map(|(bits, count)| (f64::from_bits(bits), count))
        .collect()
}

pub(crate) fn assert_close(value: f64, expected: f64, what: &str) {
    let close = (value - expected).abs() <= 1e-9 * expected.abs();
    assert!(close, "{what}: {value} instead of {expected}");
}

/// Two states of the metrics, and the times at which Prometheus had scraped them.
pub(crate) struct Window {
    pub(crate) before: Samples,
    pub(crate) after: Samples,
    pub(crate) start: f64,
    pub(crate) end: f64,
}

impl Window {
    /// Returns the increase of a counter.
    fn increase(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.after.sum(name, labels) - self.before.sum(name, labels)
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.end - self.start
    }

    /// Returns the result of a query over the window. Its ranges must be the whole window.
    pub(crate) async fn query(&self, prometheus: &Prometheus, query: &str) -> Samples {
        let samples = prometheus.query(query, Some(self.end)).await;
        with_one_spelling(samples)
    }

    /// Returns the window as the range of a query.
    pub(crate) fn range(&self) -> String {
        format!("{}ms", (self.seconds() * 1e3).floor())
    }

    /// Checks an increase. Prometheus extrapolates it to the ends of its range, which are at most a few scrape
    /// intervals away.
    pub(crate) fn check_increase(&self, seen: f64, increase: f64, what: &str) {
        let plausible = increase * 0.999 <= seen && seen <= increase * 1.5;
        assert!(plausible, "{what}: {seen} instead of {increase}");
    }
}

/// Checks the queries of the guide over the window, for which the events are known.
pub(crate) async fn check_guide(prometheus: &Prometheus, window: &Window) {
    let query = async |query: &str| {
        let literal = prometheus.query(query, None).await;
        assert!(!literal.0.is_empty(), "{query}");
        let finite = literal.0.values().all(|value| value.is_finite());
        assert!(finite, "{query}: {literal:?}");
        let exact = query.replace("[5m]", &format!("[{}]", window.range()));
        window.query(prometheus, &exact).await
    };
    let check_rate = |rate: f64, increase: f64, what: &str| {
        window.check_increase(rate * window.seconds(), increase, what);
    };
    let ratio = |above: &str, below: &str, labels: &[(&str, &str)]| {
        window.increase(above, labels) / window.increase(below, labels)
    };

    // Request rate.
    let rates = query("rate(l0_requests_total[5m])").await;
    assert_eq!(rates.0.len(), MODELS.len());
    for (labels, rate) in &rates.0 {
        let model = [("model", &*labels["model"])];
        let increase = window.increase("l0_requests_total", &model);
        check_rate(*rate, increase, "request rate");
    }
    let rate = query("sum(rate(l0_requests_total[5m]))").await;
    let rate = *rate.0.values().next().unwrap();
    let increase = window.increase("l0_requests_total", &[]);
    check_rate(rate, increase, "request rate, all");

    // Average duration. Both rates are extrapolated by the same factor, so their ratio is exact.
    let (sum, count) = (
        "l0_request_duration_seconds_sum",
        "l0_request_duration_seconds_count",
    );
    let averages = query(&format!("rate({sum}[5m]) / rate({count}[5m])")).await;
    assert_eq!(averages.0.len(), MODELS.len());
    for (labels, average) in &averages.0 {
        let model = [("model", &*labels["model"])];
        assert_close(*average, ratio(sum, count, &model), "average duration");
    }

    // Tokens per second.
    let average = prometheus.value("avg(l0_tokens_per_second)", None).await;
    let expected = window.after.sum("l0_tokens_per_second", &[]) / MODELS.len() as f64;
    assert_close(average, expected, "tokens per second");
    let rate = query("sum(rate(l0_tokens_total[5m]))").await;
    let rate = *rate.0.values().next().unwrap();
    check_rate(rate, window.increase("l0_tokens_total", &[]), "token rate");

    // Error rate.
    let (errors, requests) = ("l0_network_errors_total", "l0_requests_total");
    let rates = query(&format!("rate({errors}[5m]) / rate({requests}[5m])")).await;
    assert_eq!(rates.0.len(), MODELS.len());
    for (labels, rate) in &rates.0 {
        let model = [("model", &*labels["model"])];
        assert_close(*rate, ratio(errors, requests, &model), "error rate");
    }

    // P99 time to first token: for each label set, as in the guide, and over all.
    let name = "l0_time_to_first_token_seconds_bucket";
    let all = buckets(&window.after, name);
    let instant = format!("histogram_quantile(0.99, sum by (le) ({name}))");
    let p99 = prometheus.value(&instant, None).await;
    assert_close(p99, quantile(0.99, &all), "P99 time to first token");
    let total = all.last().unwrap().1;
    let empty = all.iter().rev().find(|(_, count)| *count == 0.0);
    let lowest = empty.map_or(0.0, |(bound, _)| *bound);
    let highest = all.iter().find(|(_, count)| *count == total).unwrap().0;
    for (rates, results) in [
        (format!("rate({name}[5m])"), MODELS.len()),
        (format!("sum by (le) (rate({name}[5m]))"), 1),
    ] {
        let p99s = query(&format!("histogram_quantile(0.99, {rates})")).await;
        assert_eq!(p99s.0.len(), results);
        for p99 in p99s.0.values() {
            assert!((lowest..=highest).contains(p99), "{p99}: {all:?}");
        }
    }

    // Guardrail violations by severity.
    let name = "l0_guardrail_violations_by_severity_total";
    let rates = query(&format!("sum by (severity) (rate({name}[5m]))")).await;
    assert_eq!(rates.0.len(), 3);
    for (labels, rate) in &rates.0 {
        let increase = window.increase(name, &[("severity", &labels["severity"])]);
        check_rate(*rate, increase, "violations");
    }
}
