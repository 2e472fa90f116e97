//! Interceptor: reports every run.

use l0_core::{Event, Interceptor, Interest, Observer, Observers, Outcome, RunInfo, keys};

use crate::config::SentryConfig;
use crate::data::{Data, cut};
use crate::ending::Ending;
use crate::execution::Execution;
use crate::spans::EXECUTION;

/// The metadata that leaves without being listed.
const KNOWN_KEYS: [&str; 5] = [
    keys::MODEL,
    keys::PROVIDER,
    keys::OPERATION,
    keys::ENDPOINT,
    keys::CONVERSATION_ID,
];

/// Reports every run to Sentry, measured or not, in a hub of the run's own.
///
/// Without a client that is enabled when a run starts, nothing is done for that run.
#[derive(Debug, Clone, Default)]
pub struct SentryInterceptor(SentryConfig);

impl SentryInterceptor {
    /// Creates an interceptor that reports as the config says.
    #[must_use]
    pub fn new(config: SentryConfig) -> Self {
        Self(config)
    }

    /// What of the metadata leaves.
    fn data(&self, run: &RunInfo) -> Data {
        let listed = self.0.settings().tag_keys.iter().map(|(key, _)| key);
        let entry = |key: &str| {
            let value = run.metadata().get(key)?;
            Some((key.to_owned(), cut(value)))
        };
        KNOWN_KEYS
            .into_iter()
            .chain(listed)
            .filter_map(entry)
            .collect()
    }
}

impl Interceptor for SentryInterceptor {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        let started =
            Execution::start(self.0.clone(), EXECUTION, Some(run.id()), || self.data(run));
        if let Some(execution) = started {
            observers.push(LiveRun(execution));
        }
    }

    fn needs_telemetry(&self) -> bool {
        true
    }
}

struct LiveRun(Execution);

impl Observer for LiveRun {
    fn interest(&self) -> Interest {
        if self.0.config().settings().breadcrumbs_for_tokens {
            Interest::TOKENS
        } else {
            Interest::LIFECYCLE
        }
    }

    fn on_event(&mut self, event: &Event<'_>) {
        let execution = &mut self.0;
        match *event {
            Event::AttemptStarted { .. } => execution.start_stream(),
            Event::FirstToken { after, .. } => execution.first_token(after),
            Event::Token { view, .. } => execution.token(view.text),
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
            Event::Violation { violation, .. } => execution.violation(violation),
            Event::Drift { report, .. } => execution.drift(report),
            Event::Finished {
                end,
                telemetry,
                response_model,
                response_id,
                ..
            } => {
                if end.outcome() == Outcome::Completed {
                    execution.complete_stream(telemetry.map(|all| all.metrics.total_tokens));
                }
                execution.finish(&Ending {
                    telemetry,
                    response_model,
                    response_id,
                    ..Ending::of(end)
                });
            }
            _ => {}
        }
    }

    fn connect(&mut self, poll: &mut dyn FnMut()) {
        self.0.inside(poll);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sentry::test::TestTransport;
    use sentry_core::{ClientOptions, Hub};

    use super::*;

    #[test]
    fn tokens_are_asked_for_only_if_they_leave_breadcrumbs() {
        let options = ClientOptions::new()
            .dsn("https://public@sentry.invalid/1")
            .transport(TestTransport::new());
        let hub = Arc::new(Hub::new(Some(Arc::new(options.into())), Arc::default()));
        for (breadcrumbs, interest) in [(false, Interest::LIFECYCLE), (true, Interest::TOKENS)] {
            let config = SentryConfig::new().hub(Arc::clone(&hub));
            let config = config.breadcrumbs_for_tokens(breadcrumbs);
            let started = Execution::start(config, EXECUTION, None, Data::new);
            assert_eq!(LiveRun(started.unwrap()).interest(), interest);
        }
    }
}
