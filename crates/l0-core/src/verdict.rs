//! What a run is judged by: how it ended, what its rules found, and whether it drifted.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The source ended by itself. An answer cut by the token limit is completed too: the finish
    /// reason says so.
    Completed,
    /// The source ended without the finish reason that it always sends.
    Truncated,
    /// An error that was not retried, or not once more; a refusal; a panic inside the source.
    Failed,
    /// One of the run's own timeouts expired.
    TimedOut,
    /// Stopped through its handle or by one of its `until` futures.
    Aborted,
    /// Dropped before its end.
    Dropped,
}

impl Outcome {
    /// Every outcome, in the order of declaration.
    pub const ALL: [Self; 6] = [
        Self::Completed,
        Self::Truncated,
        Self::Failed,
        Self::TimedOut,
        Self::Aborted,
        Self::Dropped,
    ];

    /// The stable label, in snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Truncated => "truncated",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Aborted => "aborted",
            Self::Dropped => "dropped",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How bad a violation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Severity {
    /// Worth a look; never changes the run.
    Warning,
    /// The output is wrong: retried if recoverable, else it ends the run.
    Error,
    /// Ends the run at once.
    Fatal,
}

impl Severity {
    /// The stable label, in snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a guardrail rule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Violation {
    /// The rule's name, a stable label.
    pub rule: Cow<'static, str>,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in a sentence. Rules keep the model's output out of it.
    pub message: String,
    /// Whether a new attempt may repair it.
    pub recoverable: bool,
    /// Where in the attempt's text it was found, in bytes from its start; absent if it concerns
    /// the whole text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub position: Option<u64>,
}

impl Violation {
    /// A recoverable violation without a position.
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
        write!(f, "{} ({}): {}", self.rule, self.severity, self.message)
    }
}

/// What drift detection found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct DriftReport {
    /// Whether the output drifted.
    pub detected: bool,
    /// The kinds of drift, as stable labels, in the order in which they were found.
    pub types: Vec<Cow<'static, str>>,
    /// The highest confidence of the kinds found, from 0 to 1; 0 if none was.
    pub confidence: f64,
}

impl DriftReport {
    /// No drift found.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Drift of these kinds.
    pub fn detected<I>(types: I, confidence: f64) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Cow<'static, str>>,
    {
        Self {
            detected: true,
            types: types.into_iter().map(Into::into).collect(),
            confidence,
        }
    }
}
