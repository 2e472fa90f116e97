//! The interceptor that reports every run.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use l0_core::{
    End, Event, Interceptor, Interest, KeyList, Metadata, Observer, Observers, Outcome, RunInfo,
    SourceInfo, Telemetry, keys,
};

use crate::config::SentryConfig;
use crate::data::{Data, cut};
use crate::ending::Ending;
use crate::execution::{Execution, Start};
use crate::gen_ai::Call;
use crate::live::LiveSpans;

/// The metadata keys that are sent without being listed.
const KNOWN_KEYS: [&str; 7] = [
    keys::MODEL,
    keys::PROVIDER,
    keys::OPERATION,
    keys::ENDPOINT,
    keys::CONVERSATION_ID,
    keys::AGENT_NAME,
    keys::PIPELINE_NAME,
];

/// An [`Interceptor`] that reports every run to Sentry, measured or not. Each run has its own hub. Clones share
/// everything.
///
/// If there is no enabled client when a run starts, nothing is reported for that run.
#[derive(Debug, Clone, Default)]
pub struct SentryInterceptor {
    config: SentryConfig,
    live: Arc<LiveSpans>,
}

impl SentryInterceptor {
    /// Creates an interceptor with this configuration.
    #[must_use]
    pub fn new(config: SentryConfig) -> Self {
        Self {
            config,
            live: Arc::default(),
        }
    }
}

/// Returns the metadata that is sent.
fn allowed(config: &SentryConfig, metadata: &Metadata) -> Data {
    let listed = config.settings().tag_keys.iter().map(|(key, _)| key);
    let entry = |key: &str| Some((key.to_owned(), cut(metadata.get(key)?)));
    KNOWN_KEYS
        .into_iter()
        .chain(listed)
        .filter_map(entry)
        .collect()
}

impl Interceptor for SentryInterceptor {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        let start = Start {
            session_id: Some(run.id()),
            parent_span: run.parent_id().and_then(|id| self.live.get(id)),
            ..Start::default()
        };
        let data = || allowed(&self.config, run.metadata());
        let Some(execution) = Execution::start(self.config.clone(), start, data) else {
            return;
        };
        if let Some(span) = execution.span() {
            self.live.enter(run.id(), span);
        }
        observers.push(LiveRun {
            execution,
            run: run.clone(),
            live: Arc::clone(&self.live),
            panic: None,
        });
    }

    fn needs_telemetry(&self) -> bool {
        true
    }

    fn needs_input(&self) -> bool {
        let settings = self.config.settings();
        settings.enable_tracing && settings.content.is_some()
    }
}

struct LiveRun {
    execution: Execution,
    run: RunInfo,
    live: Arc<LiveSpans>,
    /// A panic of the mask, resumed after the run has been reported.
    panic: Option<Box<dyn Any + Send>>,
}

impl LiveRun {
    /// Returns the call of a model that the attempts of a source make, if model and provider are known.
    fn call(run: &RunInfo, source: u32) -> Option<Call> {
        let SourceInfo {
            metadata,
            description,
            ..
        } = run.source(source)?;
        let streams = description.streaming.unwrap_or(!run.is_call());
        Some(Call::of(metadata, streams)?.described(description))
    }

    fn finish(
        &mut self,
        end: &End,
        telemetry: Option<&Telemetry>,
        metadata: &Metadata,
        is_kept: bool,
    ) {
        let late = self.late(metadata);
        let Self { execution, run, .. } = self;
        self.live.leave(run.id());
        if !is_kept {
            execution.discard();
            return;
        }
        if end.outcome() == Outcome::Completed {
            execution.complete_stream(telemetry.map(|all| all.metrics.total_tokens));
        }
        execution.set_late(late);
        execution.finish(&Ending {
            telemetry,
            ..Ending::of(end)
        });
    }

    /// Returns the name of a source in a fallback: its model, or its number if the model is unknown.
    fn name(&self, source: u32) -> String {
        let metadata = self.run.source(source).map(|source| &source.metadata);
        let model = metadata.and_then(|metadata| keys::text(metadata, keys::MODEL));
        let model = model.filter(|model| !model.is_empty());
        model.map_or_else(
            || source.to_string(),
            |model| keys::cut(&model, KeyList::MAX_VALUE).to_owned(),
        )
    }

    /// Returns the sent metadata that has changed since the start.
    fn late(&self, metadata: &Metadata) -> Data {
        let before = self.run.metadata();
        if metadata == before {
            return Data::new();
        }
        let mut late = allowed(self.execution.config(), metadata);
        late.retain(|key, _| metadata.get(key) != before.get(key));
        late
    }
}

impl Observer for LiveRun {
    fn interest(&self) -> Interest {
        if self.execution.wants_tokens() {
            Interest::TOKENS
        } else {
            Interest::LIFECYCLE
        }
    }

    fn on_event(&mut self, event: &Event<'_>) {
        let Self { execution, run, .. } = self;
        match *event {
            Event::AttemptStarted { number, source, .. } => {
                // A call has no stream.
                if !run.is_call() {
                    execution.start_stream();
                }
                execution.start_attempt(number, source, || Self::call(run, source));
            }
            Event::AttemptFinished { attempt, .. } => {
                let source = run.source(attempt.source);
                let input = source.and_then(|source| source.input.as_deref());
                let finish = AssertUnwindSafe(|| {
                    execution.finish_attempt(attempt, run.measured(), input);
                });
                let finished = catch_unwind(finish);
                self.panic = self.panic.take().or(finished.err());
            }
            Event::FirstToken { after, .. } => execution.first_token(after),
            Event::Token { view, .. } => execution.token(&view),
            Event::Answer { view, .. } => execution.answer(&view),
            Event::NetworkError {
                kind,
                message,
                delay,
                ..
            } => execution.network_error(kind, message, delay.is_some()),
            Event::Retry {
                attempt,
                reason,
                delay,
                kind,
                ..
            } => execution.retry(attempt, reason, kind, Some(delay)),
            Event::Fallback { from, to, .. } => {
                let (from, to) = (self.name(from), self.name(to));
                self.execution.fallback(&from, &to);
            }
            Event::Violation { violation, .. } => execution.violation(violation),
            Event::Drift { report, .. } => execution.drift(report),
            Event::Finished {
                end,
                telemetry,
                metadata,
                kept,
                ..
            } => {
                self.finish(end, telemetry, metadata, kept.is_some());
                if let Some(panic) = self.panic.take() {
                    resume_unwind(panic);
                }
            }
            _ => {}
        }
    }

    fn connect(&mut self, poll: &mut dyn FnMut()) {
        self.execution.inside(poll);
    }
}

impl Drop for LiveRun {
    fn drop(&mut self) {
        self.live.leave(self.run.id());
    }
}

#[cfg(test)]
mod tests {
    use l0_core::L0;
    use l0_core::testing::Script;
    use sentry::test::TestTransport;
    use sentry_core::{ClientOptions, Hub};

    use super::*;

    #[test]
    fn token_events_are_requested_only_for_breadcrumbs_of_tokens() {
        let options = ClientOptions::new()
            .dsn("https://public@sentry.invalid/1")
            .transport(TestTransport::new());
        let hub = Arc::new(Hub::new(Some(Arc::new(options.into())), Arc::default()));
        let watched = L0::default().watch(Script::new().stream()).start();
        for (breadcrumbs, interest) in [(false, Interest::LIFECYCLE), (true, Interest::TOKENS)] {
            let config = SentryConfig::new().hub(Arc::clone(&hub));
            let config = config.breadcrumbs_for_tokens(breadcrumbs);
            let execution = Execution::start(config, Start::default(), Data::new).unwrap();
            let live = Arc::default();
            let run = watched.info().clone();
            let run = LiveRun {
                execution,
                run,
                live,
                panic: None,
            };
            assert_eq!(run.interest(), interest);
        }
    }
}
