//! Interceptor: records runs as they happen, under labels from their metadata.

use l0_core::{End, Event, Interceptor, KeyError, KeyList, Observer, Observers, RunInfo};

use crate::collector::{Collector, LabelledCollector};
use crate::labels::{Labels, LabelsText};
use crate::names::KEYS;
use crate::series::Stream;

impl Collector {
    /// Creates an interceptor that records every run, all under the default labels.
    ///
    /// ```
    /// use l0_core::L0;
    /// use l0_prometheus::Collector;
    ///
    /// # fn main() -> Result<(), l0_prometheus::BuildError> {
    /// let collector = Collector::builder().label("service", "my-app").build()?;
    /// let l0 = L0::builder().interceptor(collector.interceptor()).build();
    /// # drop(l0);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn interceptor(&self) -> MetricsInterceptor {
        MetricsInterceptor {
            collector: self.clone(),
            keys: KeyList::new(),
        }
    }

    /// Creates an interceptor that records every run under the values that its metadata has for these
    /// keys.
    ///
    /// No other metadata becomes a label. A key that a run does not have, or whose value is empty, gives
    /// no label. Values are cut to 256 bytes.
    ///
    /// ```
    /// use l0_core::L0;
    /// use l0_prometheus::Collector;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let collector = Collector::builder().build()?;
    /// let l0 = L0::builder()
    ///     .interceptor(collector.label_keys(["model", "endpoint"])?)
    ///     .build();
    /// # drop(l0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If a key is not a name that a label may have: see [`Labels`].
    pub fn label_keys<I>(&self, keys: I) -> Result<MetricsInterceptor, KeyError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let mut interceptor = self.interceptor();
        interceptor.keys.add(keys, &KEYS)?;
        Ok(interceptor)
    }
}

/// Records every run: what [`Collector::interceptor`] and [`Collector::label_keys`] create.
///
/// The telemetry of a measured run is recorded when it ends. That a run is live shows at once, also
/// if it is not measured: `streams_started_total`, `streams_active`, `stream_oldest_seconds`, and the
/// seconds that it has been live and has waited for retries. How it ended and why it failed is counted of every run. Tokens and gaps show at its end only, since showing
/// them earlier would cost time for each token.
#[derive(Debug, Clone)]
pub struct MetricsInterceptor {
    collector: Collector,
    keys: KeyList,
}

impl MetricsInterceptor {
    fn labels(&self, run: &RunInfo) -> Labels {
        let mut text = LabelsText::default();
        for (name, value) in self.keys.pick(run.metadata()) {
            text.push(name, &value);
        }
        text.into()
    }
}

impl Interceptor for MetricsInterceptor {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        let collector = self.collector.with_labels(&self.labels(run));
        observers.push(LiveRun::start(collector, run.clone()));
    }

    fn needs_telemetry(&self) -> bool {
        true
    }
}

/// A run that has started. Its drop is its end, at the latest.
struct LiveRun {
    collector: LabelledCollector,
    run: RunInfo,
    /// Until it has finished.
    stream: Option<Stream>,
}

impl LiveRun {
    fn start(collector: LabelledCollector, run: RunInfo) -> Self {
        let stream = Some(collector.series().streams.start());
        Self {
            collector,
            run,
            stream,
        }
    }

    fn finish(&mut self, end: &End) {
        if let Some(stream) = self.stream.take() {
            self.collector.series().finish(&stream, end);
        }
    }
}

impl Observer for LiveRun {
    fn on_event(&mut self, event: &Event<'_>) {
        let streams = &self.collector.series().streams;
        match (event, &mut self.stream) {
            (Event::Retry { .. }, Some(stream)) => streams.wait(stream),
            (Event::AttemptStarted { .. }, Some(stream)) if stream.waits() => {
                streams.resume(stream);
            }
            (Event::Finished { end, telemetry, .. }, _) => {
                // A scrape between the two shows no more requests than ends. Both go where the start was
                // counted, which a `clear` may have forgotten.
                self.finish(end);
                if let Some(telemetry) = telemetry {
                    self.collector.series().record_measured(telemetry);
                }
            }
            _ => {}
        }
    }
}

impl Drop for LiveRun {
    fn drop(&mut self) {
        self.finish(&End::dropped());
        // Now that all observers were told of the end.
        let health = self.collector.registry().health();
        health.observer_panics.add(self.run.observer_panics());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use l0_core::testing::Script;
    use l0_core::{Cause, Failure, L0, LimitKind, Outcome, Severity, TimeoutKind, Violation};

    use super::*;

    /// A run that is observed by nobody.
    fn run() -> RunInfo {
        // The only way to a `RunInfo`.
        struct Keep(Arc<Mutex<Option<RunInfo>>>);
        impl Interceptor for Keep {
            fn observe(&self, run: &RunInfo, _: &mut Observers) {
                *self.0.lock().unwrap() = Some(run.clone());
            }
        }
        let kept = Arc::new(Mutex::new(None));
        let l0 = L0::builder().interceptor(Keep(Arc::clone(&kept))).build();
        drop(l0.stream(Script::new().source()).start());
        kept.lock().unwrap().take().unwrap()
    }

    #[test]
    fn an_observer_that_is_never_told_of_the_end_ends_with_its_drop() {
        let collector = Collector::builder().build().unwrap();
        let labelled = collector.with_labels(&Labels::none());
        let active = || labelled.series().snapshot().streams.unwrap().active;
        let mut live = LiveRun::start(labelled.clone(), run());
        live.on_event(&Event::attempt_started(1));
        assert_eq!(active(), 1);
        drop(live);
        assert_eq!(active(), 0);
        let text = collector.expose();
        assert!(text.contains("l0_streams_finished_total{outcome=\"dropped\"} 1\n"));
    }

    #[test]
    fn every_end_is_counted_by_outcome_and_every_failure_by_type_whether_measured_or_not() {
        let error = |failure| End::failed(&std::io::Error::other(failure));
        let violation = Violation::new("json", Severity::Fatal, "wrong");
        for (end, error_type) in [
            (End::completed(), None),
            (End::dropped(), None),
            (End::of(Cause::Aborted), None),
            (error(Failure::status(401)), Some("401")),
            (error(Failure::status(429)), Some("rate_limited")),
            (error(Failure::model()), Some("model_error")),
            (error(Failure::fatal()), Some("_OTHER")),
            (End::refused("no"), Some("refused")),
            (End::of(Cause::Truncated), Some("truncated")),
            (End::of(Cause::ZeroOutput), Some("zero_output")),
            (End::of(Cause::Timeout(TimeoutKind::Total)), Some("timeout")),
            (
                End::of(Cause::Limit(LimitKind::OutputTokens)),
                Some("limit"),
            ),
            (
                End::of(Cause::Violation(violation)),
                Some("guardrail_violation"),
            ),
            (End::of(Cause::NoTimer), Some("no_timer")),
            (End::of(Cause::Panic), Some("panic")),
        ] {
            let mut telemetry = l0_core::Telemetry::default();
            telemetry.outcome = Some(end.outcome());
            telemetry.error = l0_core::ErrorRecord::of(&end);
            let expected = |name: &str, label: &str, value: &str, count: u32| {
                format!("l0_{name}_total{{{label}=\"{value}\"}} {count}\n")
            };
            let check = |collector: &Collector, runs, failed| {
                let text = collector.expose();
                // What never started does not finish.
                assert_eq!(text.contains("streams_finished"), runs > 0);
                for outcome in Outcome::ALL.iter().filter(|_| runs > 0) {
                    let count = if *outcome == end.outcome() { runs } else { 0 };
                    let line = expected("streams_finished", "outcome", outcome.as_str(), count);
                    assert!(text.contains(&line), "{line}{text}");
                }
                let failures = text.matches("\nl0_failures_total{").count();
                assert_eq!(failures, usize::from(error_type.is_some()), "{end:?}");
                if let Some(error_type) = error_type {
                    let line = expected("failures", "error_type", error_type, failed);
                    assert!(text.contains(&line), "{line}{text}");
                }
            };

            let live = Collector::builder().build().unwrap();
            for telemetry in [None, Some(&telemetry)] {
                let collector = live.with_labels(&Labels::none());
                let mut live = LiveRun::start(collector, run());
                live.on_event(&Event::finished(&end, telemetry));
            }
            check(&live, 2, 2);

            let by_hand = Collector::builder().build().unwrap();
            by_hand.record(&telemetry, &Labels::none());
            check(&by_hand, 0, 1);
        }
    }
}
