//! Verdict: how a run ended, in one word, and what its checks found.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use crate::label::{label_enum, read_back};
use crate::redact;

label_enum! {
    /// How a run ended.
    pub enum Outcome {
        /// The source ended by itself. An answer cut by the token limit is completed too: the finish
        /// reason says so.
        Completed = "completed",
        /// The source ended without the finish reason that it always sends.
        Truncated = "truncated",
        /// An error that was not retried, or not once more; a refusal; a panic inside the source.
        Failed = "failed",
        /// One of the run's own timeouts expired.
        TimedOut = "timed_out",
        /// A limit of the run was reached.
        Limited = "limited",
        /// Stopped through its handle or by one of its `until` futures.
        Aborted = "aborted",
        /// Dropped before its end.
        Dropped = "dropped",
    }
    only_read {
        /// An outcome that this version does not know, read back from a record.
        Other = "other"
    }
}
read_back!(Outcome);

impl Outcome {
    /// Returns whether the run failed: whether it is failed, truncated, timed out or limited. An outcome
    /// of a newer version is not counted as failed, since it is not known.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Failed | Self::Truncated | Self::TimedOut | Self::Limited
        )
    }
}

label_enum! {
    /// How bad a violation is.
    pub enum Severity {
        /// Worth a look; never changes the run.
        Warning = "warning",
        /// The output is wrong: retried if recoverable, else it ends the run.
        Error = "error",
        /// Ends the run at once.
        Fatal = "fatal",
    }
}

/// What a guardrail rule found.
///
/// What `Display` and `Debug` print of the rule's words is redacted, like every message.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Violation {
    /// The rule's name, a stable label.
    pub rule: Cow<'static, str>,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in a sentence. It leaves through exporters: rules keep the model's output out
    /// of it.
    pub message: String,
    /// Whether a new attempt may repair it. It has no effect if the severity is fatal.
    pub recoverable: bool,
    /// Where in the attempt's text it was found, in bytes from its start; absent if it concerns
    /// the whole text.
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

    /// Sets whether a new attempt may repair it.
    #[must_use]
    pub fn recoverable(mut self, recoverable: bool) -> Self {
        self.recoverable = recoverable;
        self
    }

    /// Sets where it was found, in bytes from the start of the attempt's text.
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

/// What drift detection found.
///
/// In JSON, `detected` says whether there are any types.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct DriftReport {
    /// The kinds of drift, as stable labels, in the order in which they were found; empty if none
    /// was.
    pub types: Vec<Cow<'static, str>>,
    /// The highest confidence of the kinds found, from 0 to 1; 0 if none was.
    pub confidence: f64,
    /// Whether the run asks again because of it, as far as its retries allow. In
    /// [`Event::Drift`](crate::Event::Drift) it is what was known when the drift was found, which may be
    /// before the end; that the run asks again, [`Event::Retry`](crate::Event::Retry) tells.
    pub retry: bool,
}

impl DriftReport {
    /// Creates a report of no drift.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Creates a report of these kinds of drift, which is recorded and not retried.
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

    /// Sets whether the run asks again because of it.
    #[must_use]
    pub fn retry(mut self, retry: bool) -> Self {
        self.retry = retry;
        self
    }

    /// Returns whether drift was found.
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
