//! Integration: an execution that is told by hand.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt::{self, Display, Write};
use std::time::Duration;

use l0_core::{
    DriftReport, Failure, NetworkErrorKind, Outcome, RetryKind, RetryReason, Telemetry,
    TimeoutKind, Violation, redact,
};
use serde_json::Value;

use crate::config::SentryConfig;
use crate::execution::{Execution, contain};
use crate::spans::{EXECUTION, End};

/// Starts executions that are told by hand, for what is not a run of L0 or wraps several.
///
/// A run that has a [`SentryInterceptor`](crate::SentryInterceptor) needs none: it would be told
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
    /// What starts executions as the config says.
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
        let name = if name.is_empty() { EXECUTION } else { name };
        let data = || {
            let owned = data
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()));
            owned.collect()
        };
        SentryExecution(contain(|| Execution::start(self.0.clone(), name, None, data)).flatten())
    }
}

/// One execution, from its start to [`complete`](Self::complete), [`fail`](Self::fail) or its drop,
/// which counts as cancelled.
///
/// Calls may come from any thread, and do all they do there, in the execution's own hub. Without a
/// client that is enabled at the start, they do nothing.
#[must_use = "an execution ends when it is dropped"]
pub struct SentryExecution(Option<Execution>);

impl SentryExecution {
    /// The stream starts. Only the first call counts.
    pub fn start_stream(&mut self) {
        self.tell(Execution::start_stream);
    }

    /// The first token arrived, so long after the start.
    pub fn record_first_token(&mut self, after: Duration) {
        self.tell(|execution| execution.first_token(Some(after)));
    }

    /// A token arrived. A breadcrumb, if those of tokens are on.
    pub fn record_token(&mut self, text: &str) {
        self.tell(|execution| execution.token(text));
    }

    /// A network error occurred. Its type is read from the error, as
    /// [`Failure::read`] does, and its text is redacted.
    ///
    /// The last one that was not retried is captured when the execution ends, and then stands for
    /// its failure.
    pub fn record_network_error(&mut self, error: &(dyn StdError + 'static), retried: bool) {
        self.tell(|execution| {
            let kind = Failure::read(error).network_error_kind();
            let kind = kind.unwrap_or(NetworkErrorKind::Unknown);
            execution.network_error(kind, &redact::message(error), retried);
        });
    }

    /// The attempt of this number, from 2, follows for this reason.
    pub fn record_retry(&mut self, attempt: u32, reason: RetryReason, kind: RetryKind) {
        let network = kind == RetryKind::Network;
        self.tell(|execution| execution.retry(attempt, reason, network, None));
    }

    /// Rules found these violations. Each is captured when the execution ends, if it is severe
    /// enough, once for each rule and message.
    pub fn record_violations(&mut self, violations: &[Violation]) {
        self.tell(|execution| {
            for violation in violations {
                execution.violation(violation);
            }
        });
    }

    /// Drift was looked for. Nothing is sent if none was found.
    pub fn record_drift(&mut self, report: &DriftReport) {
        self.tell(|execution| execution.drift(report));
    }

    /// The stream ended, after so many tokens.
    pub fn complete_stream(&mut self, tokens: u64) {
        self.tell(|execution| execution.complete_stream(Some(tokens)));
    }

    /// The execution ended: as the telemetry says, or else completed.
    pub fn complete(mut self, telemetry: Option<&Telemetry>) {
        let outcome = telemetry.and_then(|telemetry| telemetry.outcome);
        self.finish(&End {
            telemetry,
            ..End::new(outcome.unwrap_or(Outcome::Completed))
        });
    }

    /// The execution failed with this error, whose text is redacted.
    ///
    /// An abort is no failure, and not captured: [`Error::Aborted`](l0_core::Error::Aborted), or
    /// any error when the telemetry says aborted or dropped.
    pub fn fail(mut self, error: &(dyn StdError + 'static), telemetry: Option<&Telemetry>) {
        let told = telemetry
            .and_then(|telemetry| telemetry.outcome)
            .filter(|outcome| *outcome != Outcome::Completed);
        if self.0.is_some() {
            let message = redact::message(error);
            let outcome = told.unwrap_or_else(|| outcome_of(&text_of(error)));
            self.finish(&End {
                message: Some(&message),
                telemetry,
                ..End::new(outcome)
            });
        }
    }

    fn tell(&mut self, tell: impl FnOnce(&mut Execution)) {
        if let Some(execution) = &mut self.0 {
            let _ = contain(|| tell(execution));
        }
    }

    fn finish(&mut self, end: &End<'_>) {
        self.tell(|execution| execution.finish(end));
    }
}

impl fmt::Debug for SentryExecution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentryExecution").finish_non_exhaustive()
    }
}

/// What an error says. Unlike `to_string`, this does not panic over a faulty `Display`.
pub(crate) fn text_of(error: &(impl Display + ?Sized)) -> String {
    let mut text = String::new();
    let _ = write!(text, "{error}");
    text
}

/// How an execution ended that failed with an error of this text. The errors of runs are generic,
/// and may come wrapped: the texts of those that are no failures are all there is to know them by.
pub(crate) fn outcome_of(text: &str) -> Outcome {
    type Error = l0_core::Error<Infallible>;
    let timeouts = [
        TimeoutKind::FirstToken,
        TimeoutKind::InterToken,
        TimeoutKind::Total,
    ];
    timeouts
        .map(Error::Timeout)
        .into_iter()
        .chain([Error::Aborted, Error::Truncated])
        .find(|error| error.to_string() == text)
        .map_or(Outcome::Failed, |error| error.outcome())
}
