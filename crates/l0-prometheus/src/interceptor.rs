//! Interceptor: records runs as they happen, under labels from their metadata.

use l0_core::{Event, Interceptor, Observer, Observers, Outcome, RunInfo, keys};

use crate::collector::{Collector, LabelledCollector};
use crate::error::LabelError;
use crate::labels::{Labels, LabelsText};
use crate::names::check_label;

impl Collector {
    /// An interceptor that records every run, under the values that its metadata has for these keys.
    /// No other metadata becomes a label. A key that a run does not have gives no label.
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
    /// If a key is no name that a label may have: see [`Labels`].
    pub fn label_keys<I>(&self, keys: I) -> Result<MetricsInterceptor, LabelError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        MetricsInterceptor::new(self.clone(), keys.into_iter().map(Into::into).collect())
    }
}

/// Records every run: what [`Collector::label_keys`] makes.
///
/// The telemetry of a measured run is recorded when it ends. That a run is live shows at once, also
/// if it is not measured: `streams_started_total`, `streams_active`, `backoff_seconds_total`. Tokens
/// and gaps show at its end only, since showing them earlier would cost time for each token.
#[derive(Debug, Clone)]
pub struct MetricsInterceptor {
    collector: Collector,
    /// In ascending order, each once.
    keys: Vec<String>,
}

impl MetricsInterceptor {
    pub(crate) fn new(collector: Collector, mut keys: Vec<String>) -> Result<Self, LabelError> {
        for key in &keys {
            check_label(key)?;
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(Self { collector, keys })
    }

    fn labels(&self, run: &RunInfo) -> Labels {
        let mut text = LabelsText::default();
        for key in &self.keys {
            if let Some(value) = keys::text(run.metadata(), key) {
                text.push(key, &value);
            }
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
    finished: bool,
}

impl LiveRun {
    fn start(collector: LabelledCollector, run: RunInfo) -> Self {
        collector.series().streams.start();
        Self {
            collector,
            run,
            finished: false,
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.finished, true) {
            self.collector.series().streams.finish(outcome);
        }
    }
}

impl Observer for LiveRun {
    fn on_event(&mut self, event: &Event<'_>) {
        match *event {
            Event::Retry { delay, .. } => self.collector.series().streams.back_off(delay),
            Event::Finished {
                outcome, telemetry, ..
            } => {
                if let Some(telemetry) = telemetry {
                    self.collector.record(telemetry);
                }
                self.finish(outcome);
            }
            _ => {}
        }
    }
}

impl Drop for LiveRun {
    fn drop(&mut self) {
        self.finish(Outcome::Dropped);
        // Now that all observers were told of the end.
        let health = self.collector.registry().health();
        health.observer_panics.add(self.run.observer_panics());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use l0_core::L0;
    use l0_core::testing::Script;

    use super::*;

    #[test]
    fn an_observer_that_is_never_told_of_the_end_ends_with_its_drop() {
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
        let run = kept.lock().unwrap().take().unwrap();

        let collector = Collector::builder()
            .build()
            .unwrap()
            .with_labels(&Labels::none());
        let mut live = LiveRun::start(collector.clone(), run);
        live.on_event(&Event::attempt_started(1));
        let streams = &collector.series().streams;
        assert_eq!(streams.active(), 1);
        drop(live);
        assert_eq!(streams.active(), 0);
        let dropped = streams
            .finished()
            .find(|(outcome, _)| *outcome == Outcome::Dropped);
        assert_eq!(dropped, Some((Outcome::Dropped, 1)));
    }
}
