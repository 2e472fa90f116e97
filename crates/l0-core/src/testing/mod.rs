//! Tools to test code that uses L0: scripted sources ([`Script`]), captured events ([`Captured`]),
//! constructors of events and of telemetry, and every way a run can end ([`exits`]).
//!
//! ```
//! use std::io;
//! use std::time::Duration;
//! use l0_core::testing::{Captured, Script};
//! use l0_core::{Backoff, L0, Monitoring, Retry};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), l0_core::Error<l0_core::testing::ScriptedError>> {
//! let captured = Captured::new();
//! let l0 = L0::builder()
//!     .monitoring(Monitoring::new())
//!     .retry(Retry::new().backoff(Backoff::none()))
//!     .interceptor(captured.clone())
//!     .build();
//! let script = Script::new()
//!     .attempt(|a| a.wait(Duration::from_millis(5)).token("Hel").fail(io::ErrorKind::ConnectionReset))
//!     .attempt(|a| a.tokens(["Hel", "lo"]));
//!
//! let mut run = l0.stream(script.source()).start();
//! assert_eq!(run.text().await?, "Hello");
//! assert_eq!(script.calls(), 2);
//! assert_eq!(
//!     captured.kinds(),
//!     [
//!         "started", "attempt_started", "first_token", "token", "network_error", "attempt_finished",
//!         "retry", "attempt_started", "token", "token", "attempt_finished", "finished",
//!     ]
//! );
//! # Ok(())
//! # }
//! ```

mod captured;
pub mod exits;
mod script;

use std::sync::LazyLock;
use std::time::Duration;

use crate::attempt_stats::AttemptStats;
use crate::distribution::Distribution;
use crate::end::End;
use crate::event::{Event, RetryKind, RetryReason};
use crate::failure::{Failure, NetworkErrorKind};
use crate::keep::KeepReason;
use crate::metadata::Metadata;
use crate::stats::ErrorRecord;
use crate::telemetry::{Metrics, Network, NetworkErrorRecord, Telemetry, Timestamp};
use crate::token::{FinishReason, TokenView};
use crate::usage::Usage;
use crate::verdict::{DriftReport, Outcome, Violation};

pub use captured::{Captured, OwnedEvent};
pub use script::{
    Script, ScriptedAttempt, ScriptedError, ScriptedResult, ScriptedStream, ScriptedToken,
};

fn no_metadata() -> &'static Metadata {
    static NONE: LazyLock<Metadata> = LazyLock::new(Metadata::new);
    &NONE
}

/// Constructors for tests of code that handles events. Runs create their own events.
impl<'a> Event<'a> {
    /// Creates an [`Event::Started`].
    #[must_use]
    pub fn started(at: Option<Timestamp>) -> Self {
        Self::Started { at }
    }

    /// Creates an [`Event::AttemptStarted`] of the first source.
    #[must_use]
    pub fn attempt_started(number: u32) -> Self {
        Self::AttemptStarted { number, source: 1 }
    }

    /// Creates an [`Event::AttemptFinished`].
    #[must_use]
    pub fn attempt_finished(attempt: &'a AttemptStats) -> Self {
        Self::AttemptFinished { attempt }
    }

    /// Creates an [`Event::Fallback`].
    #[must_use]
    pub fn fallback(from: u32, to: u32) -> Self {
        Self::Fallback { from, to }
    }

    /// Creates an [`Event::FirstToken`].
    #[must_use]
    pub fn first_token(after: Option<Duration>) -> Self {
        Self::FirstToken { after }
    }

    /// Creates an [`Event::Token`].
    #[must_use]
    pub fn token(index: u64, gap: Option<Duration>, view: TokenView<'a>) -> Self {
        Self::Token { index, gap, view }
    }

    /// Creates an [`Event::Answer`].
    #[must_use]
    pub fn answer(view: TokenView<'a>) -> Self {
        Self::Answer { view }
    }

    /// Creates an [`Event::NetworkError`]. A retry follows if `delay` is present.
    #[must_use]
    pub fn network_error(
        kind: NetworkErrorKind,
        message: &'a str,
        delay: Option<Duration>,
        attempt: Option<u32>,
    ) -> Self {
        Self::NetworkError {
            kind,
            message,
            delay,
            attempt,
        }
    }

    /// Creates an [`Event::Retry`].
    #[must_use]
    pub fn retry(attempt: u32, reason: RetryReason, delay: Duration, kind: RetryKind) -> Self {
        Self::Retry {
            attempt,
            reason,
            delay,
            kind,
        }
    }

    /// Creates an [`Event::Violation`].
    #[must_use]
    pub fn violation(violation: &'a Violation) -> Self {
        Self::Violation { violation }
    }

    /// Creates an [`Event::Drift`].
    #[must_use]
    pub fn drift(report: &'a DriftReport) -> Self {
        Self::Drift { report }
    }

    /// Creates an [`Event::Finished`].
    #[must_use]
    pub fn finished(end: &'a End, telemetry: Option<&'a Telemetry>) -> Self {
        Self::Finished {
            end,
            telemetry,
            error: None,
            response_model: None,
            response_id: None,
            metadata: no_metadata(),
            kept: Some(KeepReason::Rate),
        }
    }
}

impl Telemetry {
    /// Creates the telemetry of a plausible run. The run completed after one network retry, and all
    /// of it was measured.
    #[must_use]
    pub fn example() -> Self {
        let start_time = Timestamp::from_millis(1_700_000_000_000);
        let mut gaps = Distribution::new();
        for millis in (0..148).map(|token| 4 + token % 8) {
            gaps.record(Duration::from_millis(millis));
        }
        let millis = Duration::from_millis;
        let dropped = NetworkErrorKind::ConnectionDropped;
        let broken = AttemptStats {
            model: Some("gpt-4".to_owned()),
            start_offset: Some(Duration::ZERO),
            duration: Some(millis(260)),
            time_to_first_token: Some(millis(250)),
            tokens: 1,
            outcome: Some(Outcome::Failed),
            error: ErrorRecord::of(&End::failed(&Failure::network(dropped))),
            network_errors: [(dropped, 1)].into(),
            network_retries: 1,
            ..AttemptStats::default()
        };
        let completed = AttemptStats {
            number: 2,
            model: Some("gpt-4".to_owned()),
            start_offset: Some(millis(360)),
            delay: Some(millis(100)),
            duration: Some(millis(1_140)),
            time_to_first_token: Some(millis(20)),
            tokens: 149,
            inter_token: Some(gaps.clone()),
            outcome: Some(Outcome::Completed),
            finish_reason: Some(FinishReason::Stop),
            usage: Some(Usage::new().input(12).output(160).total(172)),
            ..AttemptStats::default()
        };
        Self {
            session_id: "l0_1700000000000_0123456789abc".to_owned(),
            parent_id: None,
            start_time,
            duration: Some(Duration::from_millis(1_500)),
            outcome: Some(Outcome::Completed),
            error: None,
            kept: None,
            finish_reason: Some(FinishReason::Stop),
            usage: Some(Usage::new().input(12).output(160).total(172)),
            wasted_usage: None,
            cost: None,
            wasted_cost: None,
            estimated_usage: None,
            estimated_cost: None,
            metrics: Metrics {
                time_to_first_token: Some(Duration::from_millis(250)),
                time_to_first_text: Some(Duration::from_millis(250)),
                avg_inter_token_time: gaps.mean(),
                tokens_per_second: Some(100.0),
                output_tokens_per_second: Some(133.574),
                total_tokens: 150,
                wasted_tokens: 1,
                attempts: 2,
                total_retries: 1,
                network_retries: 1,
                model_retries: 0,
                inter_token: Some(gaps),
                consumer_hold: Some(Duration::from_millis(10)),
                wait: Some(Duration::from_millis(1_490)),
            },
            network: Network {
                error_count: 1,
                errors_by_type: [(dropped, 1)].into(),
                errors: Some(vec![
                    NetworkErrorRecord::new(
                        dropped,
                        "broken pipe",
                        start_time.after(Duration::from_millis(260)),
                    )
                    .retried(Some(Duration::from_millis(100)))
                    .attempt(1),
                ]),
            },
            guardrails: None,
            drift: None,
            attempts: vec![broken, completed],
            metadata: Metadata::from([
                ("model", "gpt-4"),
                ("endpoint", "/chat"),
                ("environment", "production"),
            ]),
        }
    }
}
