//! Integration: an execution that is reported manually.

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

/// Starts executions that are reported manually, for what is not a run of L0 or wraps several.
///
/// A run that has a [`SentryInterceptor`](crate::SentryInterceptor) needs none: it would be reported
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
    /// Creates an integration that reports as the config says.
    #[must_use]
    pub fn new(config: SentryConfig) -> Self {
        Self(config)
    }

    /// Starts an execution, from the hub that is current unless the config has one. Its name is that
    /// of the transaction, of which Sentry shows 200 characters; an empty one is `l0.execution`.
    ///
    /// All of the data leaves, with the first breadcrumb and the span. `model` and `provider` in it
    /// make the span of Sentry's AI dashboards, and those of the config's
    /// [`tag_keys`](SentryConfig::tag_keys) become tags.
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

/// One execution, from its start to [`complete`](Self::complete), [`fail`](Self::fail),
/// [`finish`](Self::finish) or its drop, which counts as cancelled.
///
/// Calls may come from any thread, and do all they do there, in the execution's own hub. Without a
/// client that is enabled at the start, they do nothing.
#[must_use = "an execution ends when it is dropped"]
pub struct SentryExecution(Option<Execution>);

impl SentryExecution {
    /// Records that the stream starts. Only the first call counts.
    pub fn start_stream(&mut self) {
        self.tell(Execution::start_stream);
    }

    /// Records that the first token arrived, so long after the start.
    pub fn record_first_token(&mut self, after: Duration) {
        self.tell(|execution| execution.first_token(Some(after)));
    }

    /// Records what is asked, as text or as the JSON of a request. It is sent only with
    /// [`SentryConfig::content`], and if `model` and `provider` are in the execution's data.
    pub fn record_input(&mut self, input: impl Into<Value>) {
        self.tell(|execution| execution.is_asked(|| input.into()));
    }

    /// Records that a token arrived: with a breadcrumb, if those of tokens are on. Its text is a part of the
    /// answer that [`SentryConfig::content`] sends.
    pub fn record_token(&mut self, text: &str) {
        self.tell(|execution| execution.token(&TokenView::text(text)));
    }

    /// Records a network error. Its type is read from the error, as [`Failure::read`] does; what its
    /// message says, [`SentryConfig::error_text`] decides.
    ///
    /// The last one that was not retried is captured when the execution ends, and then stands for
    /// its failure.
    pub fn record_network_error(&mut self, error: &(dyn StdError + 'static), retried: bool) {
        self.tell(|execution| {
            let kind = Failure::read(error).network_error_kind();
            let kind = kind.unwrap_or(NetworkErrorKind::Unknown);
            let text = error_text(execution, error);
            let message = text.unwrap_or_else(|| redact::message(error));
            execution.network_error(kind, &message, retried);
            if !retried {
                execution.fails_with(kind, message);
            }
        });
    }

    /// Records that the attempt of this number, from 2, follows for this reason.
    pub fn record_retry(&mut self, attempt: u32, reason: RetryReason, kind: RetryKind) {
        self.tell(|execution| execution.retry(attempt, reason, kind, None));
    }

    /// Records the violations that rules found. Each is captured when the execution ends, if it is
    /// severe enough, once for each rule and message.
    pub fn record_violations(&mut self, violations: &[Violation]) {
        self.tell(|execution| {
            for violation in violations {
                execution.violation(violation);
            }
        });
    }

    /// Records a drift check. Nothing is sent if no drift was found.
    pub fn record_drift(&mut self, report: &DriftReport) {
        self.tell(|execution| execution.drift(report));
    }

    /// Records that the stream ended, after so many tokens.
    pub fn complete_stream(&mut self, tokens: u64) {
        self.tell(|execution| execution.complete_stream(Some(tokens)));
    }

    /// Ends the execution as its telemetry says, or else as completed.
    pub fn complete(mut self, telemetry: Option<&Telemetry>) {
        let completed = End::completed();
        let ending = Ending::recorded(telemetry);
        self.end(&Ending {
            telemetry,
            ..ending.unwrap_or_else(|| Ending::of(&completed))
        });
    }

    /// Ends the execution as failed with this error, and for the reason that its telemetry says, if
    /// that says any: an execution whose telemetry says that it was aborted or dropped did not fail,
    /// and nothing is captured.
    ///
    /// Without telemetry, the class of the failure is read from the error, as [`Failure::read`] does,
    /// and what its message says, [`SentryConfig::error_text`] decides. An error alone does not say
    /// that a run was aborted: for a run that is not measured, call [`finish`](Self::finish) with the
    /// run's end.
    pub fn fail(mut self, error: &(dyn StdError + 'static), telemetry: Option<&Telemetry>) {
        self.tell(|execution| {
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

    /// Ends the execution as this end says: that of a run, or one of your own making.
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

    fn tell(&mut self, tell: impl FnOnce(&mut Execution)) {
        if let Some(execution) = &mut self.0 {
            let _ = contain(|| tell(execution));
        }
    }

    fn end(&mut self, ending: &Ending<'_>) {
        self.tell(|execution| execution.finish(ending));
    }
}

impl fmt::Debug for SentryExecution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentryExecution").finish_non_exhaustive()
    }
}

/// The redacted text of an error, if the config lets it leave and it has one.
pub(crate) fn error_text(
    execution: &Execution,
    error: &(dyn StdError + 'static),
) -> Option<String> {
    let leaves = execution.config().settings().error_text;
    let text = leaves.then(|| redact::error_text(error));
    text.filter(|text| !text.is_empty())
}
