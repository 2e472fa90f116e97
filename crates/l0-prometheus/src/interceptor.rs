//! The interceptor: records runs as they happen, under labels from their metadata.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use l0_core::{
    End, Event, Interceptor, KeyError, KeyList, Metadata, Observer, Observers, RunInfo, Telemetry,
    keys,
};

use crate::collector::Collector;
use crate::exemplar::Trace;
use crate::label_sets;
use crate::labels::{Labels, LabelsText};
use crate::names::KEYS;
use crate::registry::Registry;
use crate::series::{Series, Stream, Wait, count_of, source_name};

impl Collector {
    /// Creates an interceptor that records every run under the default labels.
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
    pub fn interceptor(&self) -> PrometheusInterceptor {
        PrometheusInterceptor {
            collector: self.clone(),
            keys: Arc::default(),
        }
    }

    /// Creates an interceptor that records every run under the values of these metadata keys.
    ///
    /// No other metadata becomes a label. A key that is missing or has an empty value adds no label. Values are
    /// cut to 256 bytes. The values are those at the start of the run. If the run falls back, the measurements
    /// of each source use the values of that source's metadata.
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
    /// Returns an error if a key is not a valid label name. See [`Labels`].
    pub fn label_keys<I>(&self, keys: I) -> Result<PrometheusInterceptor, KeyError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let mut list = KeyList::new();
        list.add(keys, &KEYS)?;
        Ok(PrometheusInterceptor {
            collector: self.clone(),
            keys: Arc::new(list),
        })
    }
}

/// An interceptor that records every run, from [`Collector::interceptor`] or [`Collector::label_keys`].
///
/// The telemetry of a measured run is recorded when the run ends. Live runs are visible immediately, measured
/// or not: in `streams_started_total`, `streams_active`, `stream_oldest_seconds`, and in the seconds that they
/// have been live and waited for retries. Outcomes and failures are counted for every run. Tokens and gaps are
/// recorded at the end, because recording them earlier would cost time for each token.
#[derive(Debug, Clone)]
pub struct PrometheusInterceptor {
    collector: Collector,
    keys: Arc<KeyList>,
}

/// Returns the labels from the metadata.
fn labels(keys: &KeyList, metadata: &Metadata) -> Labels {
    labels_in(String::new(), keys, metadata)
}

fn labels_in(buffer: String, keys: &KeyList, metadata: &Metadata) -> Labels {
    let mut text = LabelsText::in_buffer(buffer);
    for (name, value) in keys.pick(metadata) {
        text.push(name, &value);
    }
    text.into()
}

thread_local! {
    /// A buffer for labels that are only looked up. Most label sets are known, and then nothing is allocated.
    static LABELS: Cell<String> = const { Cell::new(String::new()) };
}

/// Returns the series for the labels from the metadata.
fn find(registry: &Registry, keys: &KeyList, metadata: &Metadata) -> Arc<label_sets::Cell<Series>> {
    let buffer = LABELS.try_with(Cell::take).unwrap_or_default();
    let labels = labels_in(buffer, keys, metadata);
    let series = registry.series(&labels);
    let _ = LABELS.try_with(|buffer| buffer.set(labels.into_buffer()));
    series
}

impl Interceptor for PrometheusInterceptor {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        let registry = self.collector.registry();
        let first = find(registry, &self.keys, run.metadata());
        let trace = registry.trace_of(run);
        let registry = registry.clone();
        observers.push(LiveRun::start(registry, first, &self.keys, run, trace));
    }

    fn needs_telemetry(&self) -> bool {
        true
    }

    fn needs_progress(&self) -> bool {
        self.collector.registry().counts_stalls()
    }
}

/// A run that has started. Dropping it ends the run if nothing else did.
struct LiveRun {
    registry: Registry,
    /// The series of the labels at the start, which are those of the first source.
    first: Arc<label_sets::Cell<Series>>,
    keys: Arc<KeyList>,
    run: RunInfo,
    /// The trace that was current at the start.
    trace: Option<Trace>,
    /// `None` once the run has finished.
    stream: Option<Stream>,
    /// The number of the source that is tried.
    source: u32,
    /// The number of the current source.
    fallback: Option<Arc<label_sets::Cell<Series>>>,
    /// The current wait for a retry of that source.
    wait: Option<Wait>,
}

impl LiveRun {
    fn start(
        registry: Registry,
        first: Arc<label_sets::Cell<Series>>,
        keys: &Arc<KeyList>,
        run: &RunInfo,
        trace: Option<Trace>,
    ) -> Self {
        let stream = Some(first.value.streams.start(Some(run)));
        Self {
            registry,
            first,
            keys: Arc::clone(keys),
            run: run.clone(),
            trace,
            stream,
            source: 1,
            fallback: None,
            wait: None,
        }
    }

    /// Returns the series of a source, if it differs from the one at the start.
    fn fallback_series(&self, source: u32) -> Option<Arc<label_sets::Cell<Series>>> {
        if source == self.source {
            return self.fallback.clone();
        }
        let metadata = &self.run.source(source)?.metadata;
        let others = labels(&self.keys, metadata);
        if others == labels(&self.keys, self.run.metadata()) {
            return None;
        }
        let series = self.registry.series(&others);
        // Checked last: after a `clear`, a series that was looked up earlier is forgotten too. All of the run
        // then goes to the series of the start.
        (!self.first.is_forgotten()).then_some(series)
    }

    /// Returns the series of the current source.
    fn current(&self) -> &Series {
        let fallback = self.fallback.as_ref().map(|series| &series.value);
        fallback.unwrap_or(&self.first.value)
    }

    fn attempt_started(&mut self, source: u32) {
        self.resume();
        if source != self.source {
            self.fallback = self.fallback_series(source);
            self.source = source;
        }
    }

    fn wait(&mut self) {
        if self.wait.is_none() {
            self.wait = Some(self.current().streams.wait());
        }
    }

    fn resume(&mut self) {
        if let Some(wait) = self.wait.take() {
            self.current().streams.resume(wait);
        }
    }

    /// Counts under the labels of the start, like the runs that the fallbacks are a share of. The metric's own
    /// labels name both sources.
    fn count_fallback(&self, from: u32, to: u32) {
        let name = |number| {
            let source = self.run.source(number);
            let model = source.and_then(|source| keys::text(&source.metadata, keys::MODEL));
            source_name(model, number)
        };
        let pair = [&*name(from), &*name(to)];
        self.first.value.fallbacks.add(&pair, count_of(1));
    }

    fn finish(&mut self, end: &End, took: Option<Duration>) {
        if let Some(stream) = self.stream.take() {
            self.resume();
            self.first.value.finish(&stream, end, took, self.current());
        }
    }

    /// Records the measurements of each source under its labels.
    fn record(&self, telemetry: &Telemetry) {
        telemetry.by_source(&mut |part| {
            let fallback = self.fallback_series(part.source);
            let series = fallback.as_ref().map(|series| &series.value);
            let series = series.unwrap_or(&self.first.value);
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
                // The end is counted first, so a scrape in between never shows more requests than ends. If a
                // `clear` forgot the series of the start, all of the run goes there.
                self.finish(end, telemetry.and_then(|telemetry| telemetry.duration));
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
        self.finish(&End::dropped(), None);
        // All observers have been notified of the end by now.
        let health = self.registry.health();
        health.observer_panics.add(self.run.observer_panics());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use l0_core::testing::Script;
    use l0_core::{Cause, Failure, L0, LimitKind, Outcome, Severity, TimeoutKind, Violation};

    use super::*;

    /// Returns a run without observers.
    fn run() -> RunInfo {
        // An interceptor is the only way to get a `RunInfo`.
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

    fn start(collector: &Collector) -> LiveRun {
        let registry = collector.registry().clone();
        let first = registry.series(&Labels::none());
        LiveRun::start(registry, first, &Arc::default(), &run(), None)
    }

    #[test]
    fn an_observer_without_an_end_event_ends_when_dropped() {
        let collector = Collector::builder().build().unwrap();
        let first = collector.registry().series(&Labels::none());
        let active = || first.value.snapshot(0).streams.active;
        let mut live = start(&collector);
        live.on_event(&Event::attempt_started(1));
        assert_eq!(active(), 1);
        drop(live);
        assert_eq!(active(), 0);
        let text = collector.expose();
        assert!(text.contains("l0_streams_finished_total{outcome=\"dropped\"} 1\n"));
    }

    #[test]
    fn every_end_is_counted_by_outcome_and_every_failure_by_type_measured_or_not() {
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
                // A run that never started does not finish.
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
                let mut live = start(&live);
                live.on_event(&Event::finished(&end, telemetry));
            }
            check(&live, 2, 2);

            let by_hand = Collector::builder().build().unwrap();
            by_hand.record(&telemetry, &Labels::none());
            check(&by_hand, 0, 1);
        }
    }
}
