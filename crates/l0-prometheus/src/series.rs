//! Series: the numbers of one label set of runs, and how a run is counted into them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use l0_core::{GuardrailStats, NetworkErrorKind, Outcome, Severity, Telemetry};

use crate::buckets::{RunBounds, THOUSANDTHS};
use crate::histogram::UnitHistogram;
use crate::number::{Count, Float, nanos};

pub(crate) const SEVERITIES: [Severity; 3] = [Severity::Warning, Severity::Error, Severity::Fatal];

/// What is known of the runs of one label set.
#[derive(Debug)]
pub(crate) struct Series {
    // Of measured runs, counted at their end.
    pub(crate) requests: Count,
    pub(crate) request_duration: UnitHistogram,
    pub(crate) tokens: Count,
    /// NaN until it is known.
    pub(crate) tokens_per_second: Float,
    pub(crate) time_to_first_token: UnitHistogram,
    pub(crate) retries: Count,
    pub(crate) network_retries: Count,
    pub(crate) model_retries: Count,
    pub(crate) network_errors: Count,
    /// In the order of [`NetworkErrorKind::ALL`].
    pub(crate) network_errors_by_type: [Count; NetworkErrorKind::ALL.len()],
    pub(crate) violations: Count,
    /// In the order of [`SEVERITIES`].
    pub(crate) violations_by_severity: [Count; SEVERITIES.len()],
    pub(crate) violations_by_rule: Rules,
    pub(crate) drifted: Count,
    pub(crate) inter_token: UnitHistogram,
    pub(crate) max_gap: UnitHistogram,
    pub(crate) output_tokens_per_second: UnitHistogram,
    pub(crate) wasted_tokens: Count,
    pub(crate) usage_input_tokens: Count,
    pub(crate) usage_output_tokens: Count,
    /// In nanoseconds.
    pub(crate) consumer_wait: Count,
    pub(crate) streams: Streams,
}

impl Series {
    pub(crate) fn new(bounds: &RunBounds, exemplars: bool) -> Self {
        let histogram = |bounds| {
            let histogram = UnitHistogram::new(bounds);
            if exemplars {
                histogram.with_exemplars()
            } else {
                histogram
            }
        };
        Self {
            requests: Count::default(),
            request_duration: histogram(&bounds.request_duration),
            tokens: Count::default(),
            tokens_per_second: Float::new(f64::NAN),
            time_to_first_token: histogram(&bounds.time_to_first_token),
            retries: Count::default(),
            network_retries: Count::default(),
            model_retries: Count::default(),
            network_errors: Count::default(),
            network_errors_by_type: Default::default(),
            violations: Count::default(),
            violations_by_severity: Default::default(),
            violations_by_rule: Rules::default(),
            drifted: Count::default(),
            inter_token: UnitHistogram::new(&bounds.inter_token),
            max_gap: histogram(&bounds.max_gap),
            output_tokens_per_second: histogram(&bounds.output_tokens_per_second),
            wasted_tokens: Count::default(),
            usage_input_tokens: Count::default(),
            usage_output_tokens: Count::default(),
            consumer_wait: Count::default(),
            streams: Streams::default(),
        }
    }

    /// Counts one measured run.
    pub(crate) fn record(&self, telemetry: &Telemetry) {
        let metrics = &telemetry.metrics;
        self.requests.add(1);
        if let Some(duration) = telemetry.duration {
            self.request_duration.observe_duration(duration, telemetry);
        }
        self.tokens.add(metrics.total_tokens);
        if let Some(rate) = metrics.tokens_per_second {
            self.tokens_per_second.set(rate);
        }
        if let Some(after) = metrics.time_to_first_token {
            self.time_to_first_token.observe_duration(after, telemetry);
        }
        self.retries.add(metrics.total_retries.into());
        self.network_retries.add(metrics.network_retries.into());
        self.model_retries.add(metrics.model_retries.into());
        let gaps = metrics.inter_token.as_ref();
        if let Some(gaps) = gaps.filter(|gaps| !gaps.is_empty()) {
            self.inter_token.fold(gaps);
            self.max_gap.observe_duration(gaps.max, telemetry);
        }
        let rate = metrics.output_tokens_per_second;
        if let Some(rate) = rate.filter(|rate| rate.is_finite()) {
            let thousandths = (rate * THOUSANDTHS).round() as u64;
            self.output_tokens_per_second
                .observe(thousandths, telemetry);
        }
        self.wasted_tokens.add(metrics.wasted_tokens);
        if let Some(hold) = metrics.consumer_hold {
            self.consumer_wait.add(nanos(hold));
        }
        if let Some(usage) = &telemetry.usage {
            self.usage_input_tokens.add(usage.input.unwrap_or(0));
            self.usage_output_tokens.add(usage.output.unwrap_or(0));
        }
        self.network_errors.add(telemetry.network.error_count);
        for (kind, count) in &telemetry.network.errors_by_type {
            // The types are few, and most runs have none.
            if let Some(index) = NetworkErrorKind::ALL.iter().position(|one| one == kind) {
                self.network_errors_by_type[index].add(*count);
            }
        }
        if let Some(guardrails) = &telemetry.guardrails {
            self.record_violations(guardrails);
        }
        let drift = telemetry.drift.as_ref();
        self.drifted
            .add(drift.is_some_and(|drift| drift.detected).into());
    }

    fn record_violations(&self, guardrails: &GuardrailStats) {
        self.violations.add(guardrails.violation_count);
        for (severity, count) in SEVERITIES.into_iter().zip(&self.violations_by_severity) {
            count.add(guardrails.violations_by_severity.get(severity));
        }
        for (rule, count) in &guardrails.violations_by_rule {
            self.violations_by_rule.add(rule, *count);
        }
    }
}

/// Violations by the name of the rule: the first [`GuardrailStats::MAX_RULES`] names, and `other`.
#[derive(Debug, Default)]
pub(crate) struct Rules(RwLock<BTreeMap<Box<str>, Count>>);

impl Rules {
    const OTHER: &str = "other";

    fn add(&self, rule: &str, violations: u64) {
        if !self.add_to_known(rule, violations) {
            let rules = &mut *self.0.write().unwrap_or_else(PoisonError::into_inner);
            let known = rules.contains_key(rule);
            let rule = if known || rules.len() < GuardrailStats::MAX_RULES {
                rule
            } else {
                Self::OTHER
            };
            rules.entry(rule.into()).or_default().add(violations);
        }
    }

    fn add_to_known(&self, rule: &str, violations: u64) -> bool {
        let rules = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = rules.get(rule).or_else(|| {
            let full = rules.len() >= GuardrailStats::MAX_RULES;
            full.then(|| rules.get(Self::OTHER)).flatten()
        });
        known.inspect(|count| count.add(violations)).is_some()
    }

    pub(crate) fn each(&self, mut f: impl FnMut(&str, u64)) {
        let rules = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for (rule, count) in &*rules {
            f(rule, count.get());
        }
    }
}

/// All runs that an interceptor saw, measured or not, counted as they happen.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    started: Count,
    active: AtomicU64,
    /// In the order of [`Outcome::ALL`].
    finished: [AtomicU64; Outcome::ALL.len()],
    /// In nanoseconds.
    pub(crate) backoff: Count,
}

impl Streams {
    pub(crate) fn start(&self) {
        self.started.add(1);
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn back_off(&self, delay: Duration) {
        self.backoff.add(nanos(delay));
    }

    /// To be called once for each start.
    pub(crate) fn finish(&self, outcome: Outcome) {
        self.active.fetch_sub(1, Ordering::Relaxed);
        // They are all in there.
        let index = Outcome::ALL.iter().position(|one| *one == outcome);
        // A start happened before its end, and whoever sees the end is to see the start.
        self.finished[index.unwrap_or_default()].fetch_add(1, Ordering::Release);
    }

    /// How many started; `None` if no interceptor ever saw a run of this label set.
    pub(crate) fn started(&self) -> Option<u64> {
        Some(self.started.get()).filter(|started| *started > 0)
    }

    pub(crate) fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed)
    }

    pub(crate) fn finished(&self) -> impl Iterator<Item = (Outcome, u64)> {
        let load = |count: &AtomicU64| count.load(Ordering::Acquire);
        Outcome::ALL.into_iter().zip(self.finished.iter().map(load))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_names_are_capped_and_their_sum_is_exact() {
        let rules = Rules::default();
        for _ in 0..2 {
            for index in 0..1_000 {
                rules.add(&format!("rule-{index:04}"), 3);
            }
        }
        let mut all = Vec::new();
        rules.each(|rule, count| all.push((rule.to_owned(), count)));
        assert_eq!(all.len(), GuardrailStats::MAX_RULES + 1);
        assert_eq!(all[0], ("other".to_owned(), 3 * 2 * 936));
        assert_eq!(all[64], ("rule-0063".to_owned(), 6));
    }

    #[test]
    fn what_started_and_did_not_finish_is_active() {
        let streams = Streams::default();
        assert_eq!(streams.started(), None);
        streams.start();
        streams.start();
        assert_eq!(streams.active(), 2);
        streams.finish(Outcome::Dropped);
        streams.finish(Outcome::Completed);
        assert_eq!(streams.active(), 0);
        assert_eq!(streams.started(), Some(2));
    }
}
