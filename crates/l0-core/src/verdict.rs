//! Verdict: the outcome of a run, and the findings of its checks.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use crate::label::{label_enum, read_back};
use crate::redact;

label_enum! {
    /// How a run ended.
    pub enum Outcome {
        /// The source ended normally. An answer cut by the token limit counts as completed too, with
        /// that finish reason.
        Completed = "completed",
        /// The source ended without its usual finish reason.
        Truncated = "truncated",
        /// An error that was not retried or whose retries were used up, a refusal, or a panic inside
        /// the source.
        Failed = "failed",
        /// A timeout of the run expired.
        TimedOut = "timed_out",
        /// A limit of the run was reached.
        Limited = "limited",
        /// The run was stopped through its handle or by one of its `until` futures.
        Aborted = "aborted",
        /// The run was dropped before its end.
        Dropped = "dropped",
    }
    only_read {
        /// An outcome unknown to this version, read back from a record.
        Other = "other"
    }
}
read_back!(Outcome);

impl Outcome {
    /// Returns `true` if the run failed: its outcome is failed, truncated, timed out or limited.
    /// Outcomes of newer versions do not count as failed, because their meaning is unknown.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Failed | Self::Truncated | Self::TimedOut | Self::Limited
        )
    }
}

label_enum! {
    /// The severity of a violation.
    pub enum Severity {
        /// Worth a look. Never changes the run.
        Warning = "warning",
        /// The output is wrong. Retried if recoverable; otherwise it ends the run.
        Error = "error",
        /// Ends the run immediately.
        Fatal = "fatal",
    }
}

/// The finding of a guardrail rule.
///
/// `Display` and `Debug` redact the rule's message, like every message.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Violation {
    /// The rule's name, a stable label.
    pub rule: Cow<'static, str>,
    /// The severity.
    pub severity: Severity,
    /// The problem, in one sentence. Exporters send it, so rules keep the model's output out of it.
    pub message: String,
    /// `true` if a new attempt can repair it. Has no effect if the severity is fatal.
    pub recoverable: bool,
    /// The byte offset in the attempt's text. `None` if the violation concerns the whole text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
}

impl Violation {
    /// Creates a recoverable violation without a position.
    #[must_use]
    pub fn new(
        rule: impl Into<Cow<'static, str>>,
        severity: Severity,
        message: impl Into<String>,
    ) -> Self {
        Self {
            rule: rule.into(),
            severity,
            message: message.into(),
            recoverable: true,
            position: None,
        }
    }

    /// Sets whether a new attempt can repair it.
    #[must_use]
    pub fn recoverable(mut self, recoverable: bool) -> Self {
        self.recoverable = recoverable;
        self
    }

    /// Sets the position, in bytes from the start of the attempt's text.
    #[must_use]
    pub fn position(mut self, position: u64) -> Self {
        self.position = Some(position);
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = redact::text(&self.message);
        write!(f, "{} ({}): {message}", self.rule, self.severity)
    }
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Violation")
            .field("rule", &self.rule)
            .field("severity", &self.severity)
            .field("message", &redact::text(&self.message))
            .field("recoverable", &self.recoverable)
            .field("position", &self.position)
            .finish()
    }
}

/// The finding of drift detection.
///
/// In JSON, `detected` is `true` if there are any types.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct DriftReport {
    /// The kinds of drift, as stable labels, in the order of their detection. Empty if there is no
    /// drift.
    pub types: Vec<Cow<'static, str>>,
    /// The highest confidence of the kinds found, from 0 to 1. 0 if there is no drift.
    pub confidence: f64,
    /// `true` if the run retries because of the drift, as far as its retries allow. In
    /// [`Event::Drift`](crate::Event::Drift) this is the value at the time of detection, which can be
    /// before the end of the answer. [`Event::Retry`](crate::Event::Retry) reports an actual retry.
    pub retry: bool,
}

impl DriftReport {
    /// Creates a report without drift.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Creates a report of these kinds of drift. It is recorded and not retried.
    pub fn new<I>(types: I, confidence: f64) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Cow<'static, str>>,
    {
        Self {
            types: types.into_iter().map(Into::into).collect(),
            confidence,
            retry: false,
        }
    }

    /// Sets whether the run retries because of the drift.
    #[must_use]
    pub fn retry(mut self, retry: bool) -> Self {
        self.retry = retry;
        self
    }

    /// Returns `true` if there is drift.
    #[must_use]
    pub fn detected(&self) -> bool {
        !self.types.is_empty()
    }
}

impl Serialize for DriftReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serializer.serialize_struct("DriftReport", 3)?;
        report.serialize_field("detected", &self.detected())?;
        report.serialize_field("types", &self.types)?;
        report.serialize_field("confidence", &self.confidence)?;
        report.end()
    }
}
