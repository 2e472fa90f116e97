//! End: how and why a run ended, as one value.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::failure::{self, Failure, NetworkErrorKind};
use crate::label::label_enum;
use crate::redact;
use crate::verdict::{DriftReport, Outcome, Violation};

label_enum! {
    /// The timeout that expired.
    pub enum TimeoutKind {
        /// The wait for an attempt's first token, including the factory's work.
        FirstToken = "first_token",
        /// The wait between two tokens.
        InterToken = "inter_token",
        /// The wait for an item of any kind.
        Idle = "idle",
        /// The wait for the answer of a call's attempt.
        Answer = "answer",
        /// The wait of the whole run, including retries and back-off.
        Total = "total",
    }
}

label_enum! {
    /// The limit that was reached.
    pub enum LimitKind {
        /// The number of tokens.
        OutputTokens = "output_tokens",
        /// The cost.
        Cost = "cost",
        /// The combined cost of all runs that share a budget.
        Budget = "budget",
    }
}

/// Why a run, or one of its attempts, did not complete.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Cause {
    /// The source failed: it returned an error, or did not connect.
    Source,
    /// The source ended without its usual finish reason.
    Truncated,
    /// The answer is empty.
    ZeroOutput,
    /// A timeout of the run expired.
    Timeout(TimeoutKind),
    /// A rule stopped the run or requested another attempt.
    Violation(Violation),
    /// The answer drifted and a retry was requested.
    Drift(DriftReport),
    /// A limit of the run was reached.
    Limit(LimitKind),
    /// An interceptor refused the run, or its budget was spent.
    Refused,
    /// The run was aborted.
    Aborted,
    /// Waiting needs a Tokio runtime with its timer enabled, and none is running.
    NoTimer,
    /// The source, the factory or a hook panicked.
    Panic,
}

impl Cause {
    /// Returns the outcome of a run that ends with this cause.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Truncated => Outcome::Truncated,
            Self::Timeout(_) => Outcome::TimedOut,
            Self::Limit(_) => Outcome::Limited,
            Self::Aborted => Outcome::Aborted,
            Self::Source
            | Self::ZeroOutput
            | Self::Violation(_)
            | Self::Drift(_)
            | Self::Refused
            | Self::NoTimer
            | Self::Panic => Outcome::Failed,
        }
    }

    /// Returns how a retry treats this cause, unless the source's error decides it.
    pub(crate) const fn failure(&self) -> Failure {
        match self {
            Self::Truncated => Failure::network(NetworkErrorKind::PartialChunks),
            Self::Timeout(_) => Failure::network(NetworkErrorKind::Timeout),
            Self::ZeroOutput | Self::Drift(_) => Failure::model(),
            Self::Violation(violation) if violation.recoverable => Failure::model(),
            _ => Failure::fatal(),
        }
    }
}

/// Describes the cause, in lower case.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source => f.write_str("the source failed"),
            Self::Truncated => f.write_str("the stream ended without a finish reason"),
            Self::ZeroOutput => {
                f.write_str("the answer is empty: no visible text, no media, and no tool call")
            }
            Self::Timeout(TimeoutKind::FirstToken) => {
                f.write_str("the first token did not arrive in time")
            }
            Self::Timeout(TimeoutKind::InterToken) => {
                f.write_str("the next token did not arrive in time")
            }
            Self::Timeout(TimeoutKind::Idle) => f.write_str("the source sent nothing in time"),
            Self::Timeout(TimeoutKind::Answer) => f.write_str("the answer did not arrive in time"),
            Self::Timeout(TimeoutKind::Total) => f.write_str("the run took too long"),
            Self::Violation(violation) => write!(f, "guardrail violation: {violation}"),
            Self::Drift(report) => write!(f, "the answer drifted: {}", report.types.join(", ")),
            Self::Limit(LimitKind::OutputTokens) => f.write_str("the limit of tokens was reached"),
            Self::Limit(LimitKind::Cost) => f.write_str("the limit of cost was reached"),
            Self::Limit(LimitKind::Budget) => f.write_str("the budget was overspent"),
            Self::Refused => f.write_str("the run was refused"),
            Self::Aborted => f.write_str("the run was aborted"),
            Self::NoTimer => f.write_str(
                "waiting needs a Tokio runtime with its timer enabled (`Builder::enable_time`)",
            ),
            Self::Panic => f.write_str("the source, the factory or a hook panicked"),
        }
    }
}

/// How and why a run ended. Events, handles, errors and telemetry carry this value. Cheap to clone.
///
/// ```
/// use l0_core::{End, Failure, Outcome};
///
/// let denied = std::io::Error::other(Failure::status(401));
/// let end = End::failed(&denied);
/// assert_eq!(end.outcome(), Outcome::Failed);
/// assert_eq!(end.error_type().as_deref(), Some("401"));
/// assert_eq!(end.message(), Some("status 401 Unauthorized"));
///
/// assert_eq!(End::completed().message(), None);
/// ```
#[derive(Clone, PartialEq)]
pub struct End(How);

#[derive(Clone, PartialEq)]
enum How {
    Completed,
    Dropped,
    Ended(Arc<Reason>),
}

#[derive(PartialEq)]
struct Reason {
    cause: Cause,
    failure: Failure,
    message: Box<str>,
}

impl End {
    /// Creates the end of a run that completed.
    #[must_use]
    pub const fn completed() -> Self {
        Self(How::Completed)
    }

    /// Creates the end of a run that was dropped before its end.
    #[must_use]
    pub const fn dropped() -> Self {
        Self(How::Dropped)
    }

    /// Creates the end of a run whose source failed with this error. The message comes from
    /// [`redact::message`].
    #[must_use]
    pub fn failed(error: &(dyn StdError + 'static)) -> Self {
        let failure = failure::read(error);
        Self::of_source(failure, &redact::message(error))
    }

    /// Creates the end of a run with a cause that needs no source error.
    #[must_use]
    pub fn of(cause: Cause) -> Self {
        let message = match &cause {
            // A rule's message can contain foreign text, so it is redacted like any other.
            Cause::Violation(_) | Cause::Drift(_) => redact::text(&cause.to_string()),
            _ => cause.to_string(),
        };
        Self::new(cause.failure(), message.into(), cause)
    }

    /// Creates the end of a run that an interceptor refused for this reason.
    #[must_use]
    pub fn refused(reason: &str) -> Self {
        let message = format!("refused: {}", redact::text(reason));
        Self::new(Failure::fatal(), message.into(), Cause::Refused)
    }

    /// Creates the end of a run whose source failed. The message must be redacted.
    pub(crate) fn of_source(failure: Failure, message: &str) -> Self {
        Self::new(failure, message.into(), Cause::Source)
    }

    fn new(failure: Failure, message: Box<str>, cause: Cause) -> Self {
        Self(How::Ended(Arc::new(Reason {
            cause,
            failure,
            message,
        })))
    }

    /// Returns how the run ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match &self.0 {
            How::Completed => Outcome::Completed,
            How::Dropped => Outcome::Dropped,
            How::Ended(reason) => reason.cause.outcome(),
        }
    }

    /// Returns why the run did not complete, or `None` if it completed or was dropped.
    #[must_use]
    pub fn cause(&self) -> Option<&Cause> {
        Some(&self.reason()?.cause)
    }

    /// Returns what was read from the source's error, or how a retry treats the cause. Returns `None`
    /// if the run completed or was dropped.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        Some(self.reason()?.failure)
    }

    /// Returns why the run did not complete, as one line for people. Returns `None` if it completed or
    /// was dropped.
    ///
    /// The message is redacted, and by default in L0's own words; see
    /// [`Monitoring::error_text`](crate::Monitoring::error_text).
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        Some(&self.reason()?.message)
    }

    /// Returns `true` if the run failed; see [`Outcome::is_failure`].
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.outcome().is_failure()
    }

    /// Returns the class of the failure as a stable label, one of few. Returns `None` if the run
    /// completed or was dropped.
    ///
    /// The label is that of a [`NetworkErrorKind`] (`rate_limited`, `dns_error`, ...), an HTTP status
    /// (`401`), `model_error`, `truncated`, `zero_output`, `timeout`, `guardrail_violation`, `drift`,
    /// `limit`, `refused`, `aborted`, `no_timer`, `panic`, or `_OTHER`. OpenTelemetry uses these values
    /// for `error.type`, and other adapters for the label `error_type`.
    #[must_use]
    pub fn error_type(&self) -> Option<Cow<'static, str>> {
        let reason = self.reason()?;
        Some(Cow::Borrowed(match &reason.cause {
            Cause::Source => return Some(reason.failure.error_type()),
            Cause::Truncated => "truncated",
            Cause::ZeroOutput => "zero_output",
            Cause::Timeout(_) => "timeout",
            Cause::Violation(_) => "guardrail_violation",
            Cause::Drift(_) => "drift",
            Cause::Limit(_) => "limit",
            Cause::Refused => "refused",
            Cause::Aborted => "aborted",
            Cause::NoTimer => "no_timer",
            Cause::Panic => "panic",
        }))
    }

    fn reason(&self) -> Option<&Reason> {
        match &self.0 {
            How::Ended(reason) => Some(reason),
            How::Completed | How::Dropped => None,
        }
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("End")
            .field("outcome", &self.outcome())
            .field("cause", &self.cause())
            .field("failure", &self.failure())
            .field("message", &self.message())
            .finish()
    }
}
