//! Interceptor: records runs as they happen, under labels from their metadata.

use std::sync::Arc;

use l0_core::{
    End, Event, Interceptor, KeyError, KeyList, Metadata, Observer, Observers, RunInfo, Telemetry,
    keys,
};

use crate::collector::{Collector, LabelledCollector};
use crate::exemplar::Trace;
use crate::label_sets::Cell;
use crate::labels::{Labels, LabelsText};
use crate::names::KEYS;
use crate::series::{Series, Stream, Wait, count_of, source_name};

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
            keys: Arc::default(),
        }
    }

    /// Creates an interceptor that records every run under the values that its metadata has for these
    /// keys.
    ///
    /// No other metadata becomes a label. A key that a run does not have, or whose value is empty, gives
    /// no label. Values are cut to 256 bytes. They are those of the start of the run; of one that falls
    /// back, what each source measures is under the values that its own metadata has.
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
        let mut list = KeyList::new();
        list.add(keys, &KEYS)?;
        Ok(MetricsInterceptor {
            collector: self.clone(),
            keys: Arc::new(list),
        })
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
    keys: Arc<KeyList>,
}

/// The labels that metadata gives.
fn labels(keys: &KeyList, metadata: &Metadata) -> Labels {
    let mut text = LabelsText::default();
    for (name, value) in keys.pick(metadata) {
        text.push(name, &value);
    }
    text.into()
}

impl Interceptor for MetricsInterceptor {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        let labels = labels(&self.keys, run.metadata());
        let collector = self.collector.with_labels(&labels);
        let trace = self.collector.registry().trace_of(run);
        observers.push(LiveRun::start(collector, &self.keys, run, trace));
    }

    fn needs_telemetry(&self) -> bool {
        true
    }
}

/// A run that has started. Its drop is its end, at the latest.
struct LiveRun {
    /// Of the labels that were known at the start, which are those of the first source.
    collector: LabelledCollector,
    keys: Arc<KeyList>,
    run: RunInfo,
    /// What was current when it started.
    trace: Option<Trace>,
    /// Until it has finished.
    stream: Option<Stream>,
    /// The number of the source that is tried.
    source: u32,
    /// Where that source is counted, if it is not where the run started.
    elsewhere: Option<Arc<Cell<Series>>>,
    /// While it waits for a retry of that source.
    wait: Option<Wait>,
}

impl LiveRun {
    fn start(
        collector: LabelledCollector,
        keys: &Arc<KeyList>,
        run: &RunInfo,
        trace: Option<Trace>,
    ) -> Self {
        let stream = Some(collector.series().streams.start());
        Self {
            collector,
            keys: Arc::clone(keys),
            run: run.clone(),
            trace,
            stream,
            source: 1,
            elsewhere: None,
            wait: None,
        }
    }

    /// Where a source is counted, if it is not where the run started.
    fn elsewhere(&self, source: u32) -> Option<Arc<Cell<Series>>> {
        if source == self.source {
            return self.elsewhere.clone();
        }
        let metadata = &self.run.source(source)?.metadata;
        let labels = labels(&self.keys, metadata);
        self.collector.series_of_others(&labels)
    }

    /// Where the source is counted that is tried.
    fn present(&self) -> &Series {
        let elsewhere = self.elsewhere.as_ref().map(|series| &series.value);
        elsewhere.unwrap_or(self.collector.series())
    }

    fn attempt_started(&mut self, source: u32) {
        self.resume();
        if source != self.source {
            self.elsewhere = self.elsewhere(source);
            self.source = source;
        }
    }

    fn wait(&mut self) {
        if self.wait.is_none() {
            self.wait = Some(self.present().streams.wait());
        }
    }

    fn resume(&mut self) {
        if let Some(wait) = self.wait.take() {
            self.present().streams.resume(wait);
        }
    }

    /// Under the labels of the start, as the runs are that it is a share of. What is given up and what is
    /// asked instead, its own labels say.
    fn count_fallback(&self, from: u32, to: u32) {
        let name = |number| {
            let source = self.run.source(number);
            let model = source.and_then(|source| keys::text(&source.metadata, keys::MODEL));
            source_name(model, number)
        };
        let pair = [&*name(from), &*name(to)];
        self.collector.series().fallbacks.add(&pair, count_of(1));
    }

    fn finish(&mut self, end: &End) {
        if let Some(stream) = self.stream.take() {
            self.resume();
            self.collector.series().finish(&stream, end, self.present());
        }
    }

    /// What each source measured goes under its labels.
    fn record(&self, telemetry: &Telemetry) {
        telemetry.by_source(&mut |part| {
            let elsewhere = self.elsewhere(part.source);
            let series = elsewhere.as_ref().map(|series| &series.value);
            let series = series.unwrap_or(self.collector.series());
            series.record_measured(part.telemetry, self.trace, part.is_last);
        });
    }
}

impl Observer for LiveRun {
    fn on_event(&mut self, event: &Event<'_>) {
        match *event {
            Event::Retry { .. } => self.wait(),
            Event::Fallback { from, to, .. } => self.count_fallback(from, to),
            Event::AttemptStarted { source, .. } => self.attempt_started(source),
            Event::Finished { end, telemetry, .. } => {
                // A scrape between the two shows no more requests than ends. Where the start was counted,
                // a `clear` may have forgotten it, and then all of the run goes there.
                self.finish(end);
                if let Some(telemetry) = telemetry {
                    self.record(telemetry);
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
        let active = || labelled.series().snapshot(0).streams.active;
        let mut live = LiveRun::start(labelled.clone(), &Arc::default(), &run(), None);
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
            let mut telemetry = Telemetry::default();
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
                let mut live = LiveRun::start(collector, &Arc::default(), &run(), None);
                live.on_event(&Event::finished(&end, telemetry));
            }
            check(&live, 2, 2);

            let by_hand = Collector::builder().build().unwrap();
            by_hand.record(&telemetry, &Labels::none());
            check(&by_hand, 0, 1);
        }
    }
}
