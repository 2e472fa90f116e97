//! The slowest runs.

use std::cmp::Reverse;
use std::time::Duration;

use l0_core::{AttemptStats, ErrorRecord, Outcome, Telemetry, keys};
use serde::Serialize;

use crate::first::{First, Placed};
use crate::profile::Profile;
use crate::text::millis;

/// The slowest runs.
#[derive(Debug, Clone)]
pub(super) struct Slowest(First<Run>);

impl Default for Slowest {
    fn default() -> Self {
        Self(First::new(Self::MAX))
    }
}

impl Slowest {
    const MAX: usize = 20;

    pub(super) fn add(&mut self, run: &Telemetry, group: &str) {
        let Some(duration) = run.duration else {
            return;
        };
        // Skips most runs early.
        if self.0.last().is_none_or(|last| duration >= last.lasted) {
            self.0.add(Run::of(run, duration, group));
        }
    }

    pub(super) fn in_order(&self) -> Vec<&Run> {
        self.0.in_order()
    }
}

/// The displayed values of a run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Run {
    id: String,
    group: String,
    start: u64,
    #[serde(skip)]
    lasted: Duration,
    duration: f64,
    outcome: Option<Outcome>,
    reason: Option<ErrorRecord>,
    first_token: Option<f64>,
    tokens: u64,
    attempts: Vec<Attempt>,
}

/// The displayed values of an attempt.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Attempt {
    number: u32,
    count: u32,
    model: Option<String>,
    start: Option<f64>,
    duration: Option<f64>,
    first_token: Option<f64>,
    outcome: Option<Outcome>,
    error_type: Option<String>,
}

fn short(text: &str) -> String {
    keys::cut(text, Profile::MAX_NAME).to_owned()
}

impl Run {
    fn of(run: &Telemetry, duration: Duration, group: &str) -> Self {
        let attempts = run.attempts.iter().take(AttemptStats::MAX);
        let reason = run.error.clone().map(|mut error| {
            error.error_type = short(&error.error_type).into();
            error.message = short(&error.message);
            error
        });
        Self {
            id: short(&run.session_id),
            group: group.to_owned(),
            start: run.start_time.as_millis(),
            lasted: duration,
            duration: millis(duration),
            outcome: run.outcome,
            reason,
            first_token: run.metrics.time_to_first_token.map(millis),
            tokens: run.metrics.total_tokens,
            attempts: attempts.map(Attempt::of).collect(),
        }
    }
}

impl Placed for Run {
    /// The slowest runs first. Start and id order runs of equal duration.
    fn place(&self) -> impl Ord {
        (Reverse(self.lasted), self.start, &self.id)
    }
}

impl Attempt {
    fn of(attempt: &AttemptStats) -> Self {
        Self {
            number: attempt.number,
            count: attempt.count,
            model: attempt.model.as_deref().map(short),
            start: attempt.start_offset.map(millis),
            duration: attempt.duration.map(millis),
            first_token: attempt.time_to_first_token.map(millis),
            outcome: attempt.outcome,
            error_type: attempt.error.as_ref().map(|error| short(&error.error_type)),
        }
    }
}
