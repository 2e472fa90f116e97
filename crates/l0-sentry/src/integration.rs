//! The integration for manual reports.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use l0_core::{
    DriftReport, End, Failure, NetworkErrorKind, RetryKind, RetryReason, Telemetry, TokenView,
    Violation, redact,
};
use serde_json::Value;

use crate::config::SentryConfig;
use crate::ending::Ending;
use crate::execution::{Execution, Start, contain};

/// Starts executions that you report manually, for work that is not a run of L0 or that wraps several runs.
///
/// Do not use it for a run that has a [`SentryInterceptor`](crate::SentryInterceptor): the run would be reported
/// twice.
///
/// ```
/// use std::time::Duration;
/// use l0_sentry::{SentryConfig, SentryIntegration};
///
/// let sentry = SentryIntegration::new(SentryConfig::new());
/// let mut execution = sentry.start_execution("my-chat-request", [("user_id", "123")]);
/// execution.start_stream();
/// execution.record_first_token(Duration::from_millis(280));
/// execution.record_token("Hello");
/// execution.complete_stream(1);
/// execution.complete(None);
/// ```
#[derive(Debug, Clone, Default)]
pub struct SentryIntegration(SentryConfig);

impl SentryIntegration {
    /// Creates an integration with this configuration.
    #[must_use]
    pub fn new(config: SentryConfig) -> Self {
        Self(config)
    }

    /// Starts an execution in the hub of the configuration, or in the current hub. The name becomes the name of the
    /// transaction, of which Sentry shows 200 characters. An empty name becomes `l0.execution`.
    ///
    /// All of `data` is sent, with the first breadcrumb and the span. If it has `model` and `provider`, a span for
    /// Sentry's AI dashboards is created. Entries listed with [`tag_keys`](SentryConfig::tag_keys) become tags.
    pub fn start_execution<K, V>(
        &self,
        name: &str,
        data: impl IntoIterator<Item = (K, V)>,
    ) -> SentryExecution
    where
        K: Into<String>,
        V: Into<Value>,
    {
        let start = Start {
            name,
            is_one_call: true,
            ..Start::default()
        };
        let data = || {
            let owned = data
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()));
            owned.collect()
        };
        let execution = contain(|| Execution::start(self.0.clone(), start, data));
        SentryExecution(execution.flatten())
    }
}

/// An execution that you report manually. It ends with [`complete`](Self::complete), [`fail`](Self::fail) or
/// [`finish`](Self::finish). If it is dropped, it ends with the status `cancelled`.
///
/// You can call the methods from any thread. They act on that thread, in the execution's own hub. If there was no
/// enabled client at the start, they do nothing.
#[must_use = "an execution ends when it is dropped"]
pub struct SentryExecution(Option<Execution>);

impl SentryExecution {
    /// Records the start of the stream. Only the first call has an effect.
    pub fn start_stream(&mut self) {
        self.with(Execution::start_stream);
    }

    /// Records the first token and its time after the start.
    pub fn record_first_token(&mut self, after: Duration) {
        self.with(|execution| execution.first_token(Some(after)));
    }

    /// Records the prompt, as text or as the JSON of a request. It is sent only if [`SentryConfig::content`] is set
    /// and the execution's data has `model` and `provider`.
    pub fn record_input(&mut self, input: impl Into<Value>) {
        self.with(|execution| execution.set_input(|| input.into()));
    }

    /// Records a token. Adds a breadcrumb if [`SentryConfig::breadcrumbs_for_tokens`] is enabled. The text is added
    /// to the answer if [`SentryConfig::content`] is set.
    pub fn record_token(&mut self, text: &str) {
        self.with(|execution| execution.token(&TokenView::text(text)));
    }

    /// Records a network error. Its type is read from the error by [`Failure::read`].
    /// [`SentryConfig::error_text`] determines its message.
    ///
    /// The last network error that was not retried is captured when the execution ends, in place of any other
    /// failure.
    pub fn record_network_error(&mut self, error: &(dyn StdError + 'static), retried: bool) {
        self.with(|execution| {
            let kind = Failure::read(error).network_error_kind();
            let kind = kind.unwrap_or(NetworkErrorKind::Unknown);
            let text = error_text(execution, error);
            let message = text.unwrap_or_else(|| redact::message(error));
            execution.network_error(kind, &message, retried);
            if !retried {
                execution.set_network_error(kind, message);
            }
        });
    }

    /// Records a retry: the number of the next attempt, which is at least 2, and the reason.
    pub fn record_retry(&mut self, attempt: u32, reason: RetryReason, kind: RetryKind) {
        self.with(|execution| execution.retry(attempt, reason, kind, None));
    }

    /// Records violations found by rules. When the execution ends, violations of at least the minimum severity are
    /// captured, once for each rule and message.
    pub fn record_violations(&mut self, violations: &[Violation]) {
        self.with(|execution| {
            for violation in violations {
                execution.violation(violation);
            }
        });
    }

    /// Records a drift report. Nothing is sent if it has no drift.
    pub fn record_drift(&mut self, report: &DriftReport) {
        self.with(|execution| execution.drift(report));
    }

    /// Records the end of the stream and the number of tokens.
    pub fn complete_stream(&mut self, tokens: u64) {
        self.with(|execution| execution.complete_stream(Some(tokens)));
    }

    /// Ends the execution with the outcome of the telemetry, or as completed if there is none.
    pub fn complete(mut self, telemetry: Option<&Telemetry>) {
        let completed = End::completed();
        let ending = Ending::recorded(telemetry);
        self.end(&Ending {
            telemetry,
            ..ending.unwrap_or_else(|| Ending::of(&completed))
        });
    }

    /// Ends the execution as failed with this error.
    ///
    /// If the telemetry has an outcome other than completed, the outcome and the reason come from the telemetry. If
    /// it was aborted or dropped, nothing is captured.
    ///
    /// Without telemetry, the class of the failure is read from the error by [`Failure::read`].
    /// [`SentryConfig::error_text`] determines the message. An error alone does not show that a run was aborted. For
    /// a run that is not measured, call [`finish`](Self::finish) with the run's end.
    pub fn fail(mut self, error: &(dyn StdError + 'static), telemetry: Option<&Telemetry>) {
        self.with(|execution| {
            let end = End::failed(error);
            let failed = Ending::of(&end);
            let mut ending = match Ending::recorded(telemetry) {
                Some(recorded) => Ending {
                    reason: recorded.reason.or(failed.reason),
                    ..recorded
                },
                None => Ending {
                    telemetry,
                    ..failed
                },
            };
            if let Some(text) = error_text(execution, error) {
                ending.set_message(text);
            }
            execution.finish(&ending);
        });
    }

    /// Ends the execution with this [`End`], from a run or created by your code.
    ///
    /// ```
    /// # use l0_core::{L0, testing::Script};
    /// # use l0_sentry::{SentryConfig, SentryIntegration};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// # let client = Script::new().attempt(|a| a.tokens(["Hello", ", world"]));
    /// # let l0 = L0::default();
    /// # let sentry = SentryIntegration::new(SentryConfig::new());
    /// let execution = sentry.start_execution("my-chat-request", [("user_id", "123")]);
    /// let mut run = l0.stream(|_attempt| client.connect()).start();
    /// let text = run.text().await;
    /// if let Some(end) = run.end() {
    ///     execution.finish(end, run.telemetry().as_ref());
    /// }
    /// # assert_eq!(text.unwrap(), "Hello, world");
    /// # }
    /// ```
    pub fn finish(mut self, end: &End, telemetry: Option<&Telemetry>) {
        self.end(&Ending {
            telemetry,
            ..Ending::of(end)
        });
    }

    /// Calls `record` if there is an enabled client. A panic in it is discarded.
    fn with(&mut self, record: impl FnOnce(&mut Execution)) {
        if let Some(execution) = &mut self.0 {
            let _ = contain(|| record(execution));
        }
    }

    fn end(&mut self, ending: &Ending<'_>) {
        self.with(|execution| execution.finish(ending));
    }
}

impl fmt::Debug for SentryExecution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentryExecution").finish_non_exhaustive()
    }
}

/// Returns the redacted text of an error, if the configuration enables it and the text is not empty.
pub(crate) fn error_text(
    execution: &Execution,
    error: &(dyn StdError + 'static),
) -> Option<String> {
    let is_enabled = execution.config().settings().error_text;
    let text = is_enabled.then(|| redact::error_text(error));
    text.filter(|text| !text.is_empty())
}
