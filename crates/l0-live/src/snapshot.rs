//! Snapshot: the data that is shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use l0_core::{Currency, ErrorRecord, KeyList, Money, Outcome, RunState, Timestamp, keys};
use serde::{Serialize, Serializer};

/// The state of all runs at one moment. Durations are serialized as milliseconds.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Snapshot {
    /// The time of the snapshot, by the wall clock.
    pub at: Timestamp,
    /// The stall threshold after a token.
    #[serde(serialize_with = "millis")]
    pub stall_after: Duration,
    /// The stall threshold before the first token of an attempt.
    #[serde(serialize_with = "millis")]
    pub first_token_after: Duration,
    /// Totals of all runs since the start.
    pub totals: Totals,
    /// The listed live runs: stalled runs first, then by the time since the last item, the longest
    /// first, then by start.
    pub live: Vec<LiveRun>,
    /// The runs that ended last, the latest first.
    #[serde(serialize_with = "shared")]
    pub finished: Vec<Arc<FinishedRun>>,
}

/// Totals of all runs since [`Live`](crate::Live) was created.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Totals {
    /// The number of started runs.
    pub started: u64,
    /// The number of live runs.
    pub live: u64,
    /// The number of live runs beyond the limit of the list. They are included in the counts below, except the
    /// unwatched ones.
    pub unlisted: u64,
    /// The number of live runs that are not watched, because the table was full when they started. Their states
    /// and stalls are unknown.
    pub unwatched: u64,
    /// The number of stalled runs.
    pub stalled: u64,
    /// The number of runs in each state.
    pub states: BTreeMap<RunState, u64>,
    /// The number of ended runs, by outcome.
    pub finished: BTreeMap<Outcome, u64>,
    /// Totals by model, in the order of first use. At most 64 models, and one entry without a name for all
    /// others.
    pub models: Vec<ModelTotals>,
}

/// Totals of one model. Runs count under the model of the last source, tokens and cost
/// under that of their attempt.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ModelTotals {
    /// The model. Absent if unknown.
    pub model: Option<String>,
    /// The number of ended runs, by outcome.
    pub finished: BTreeMap<Outcome, u64>,
    /// The number of ended attempts.
    pub attempts: u64,
    /// The number of tokens of these attempts.
    pub tokens: u64,
    /// The known cost of these attempts, by currency. Costs in a ninth currency are left out.
    pub cost: Vec<Spent>,
}

/// An amount of money.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Spent {
    /// The amount.
    pub amount: Money,
    /// The currency.
    pub currency: Currency,
}

/// A live run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LiveRun {
    /// The run's id.
    pub id: String,
    /// The id of the parent run. Absent if it has no parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// The listed metadata.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The model of the current source. Absent if unknown.
    pub model: Option<String>,
    /// The provider of the current source. Absent if unknown.
    pub provider: Option<String>,
    /// The number of the attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// The state of the run.
    pub state: RunState,
    /// The time in this state. Absent if the run is not timed.
    #[serde(serialize_with = "some_millis")]
    pub in_state: Option<Duration>,
    /// `true` if the source has been silent for as long as the stall threshold that applies.
    pub stalled: bool,
    /// The silence of the source. Absent while the run does not wait for it.
    #[serde(serialize_with = "some_millis")]
    pub silence: Option<Duration>,
    /// The time since the run started.
    #[serde(serialize_with = "millis")]
    pub age: Duration,
    /// The time since the last item of the source, or since the start if there was none. Absent if the run is
    /// not timed.
    #[serde(serialize_with = "some_millis")]
    pub since_last: Option<Duration>,
    /// The time from the start to the first token. Absent before it, and if the run is not timed.
    #[serde(serialize_with = "some_millis")]
    pub time_to_first_token: Option<Duration>,
    /// The number of tokens of all attempts so far.
    pub tokens: u64,
    /// Tokens per second since an earlier snapshot that listed the run and is at least a second old, or since the
    /// start if there is none. With one snapshot per minute, this is the rate of that minute.
    pub rate: f64,
}

/// An ended run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct FinishedRun {
    /// The run's id.
    pub id: String,
    /// The id of the parent run. Absent if it had no parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// The listed metadata, at the end of the run.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The model of the last source. Absent if unknown.
    pub model: Option<String>,
    /// The provider of the last source. Absent if unknown.
    pub provider: Option<String>,
    /// The start of the run, by the wall clock.
    pub started_at: Timestamp,
    /// The duration of the run.
    #[serde(serialize_with = "millis")]
    pub duration: Duration,
    /// The outcome.
    pub outcome: Outcome,
    /// The reason why it did not complete. Absent if it completed or was dropped.
    pub reason: Option<Reason>,
    /// The time from the start to the first token. Absent without a token, and if the run was not
    /// timed.
    #[serde(serialize_with = "some_millis")]
    pub time_to_first_token: Option<Duration>,
    /// The number of tokens of all attempts.
    pub tokens: u64,
    /// Tokens per second, over the duration. Absent without a token, and if the run was not timed.
    pub rate: Option<f64>,
    /// The known cost of all attempts, by currency. Costs in a ninth currency are left out.
    pub cost: Vec<Spent>,
    /// The number of attempts.
    pub attempt_count: u32,
    /// The first attempts, at most 32.
    pub attempts: Vec<FinishedAttempt>,
}

/// An ended attempt.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct FinishedAttempt {
    /// The number of the attempt, from 1.
    pub number: u32,
    /// The model of the attempt. Absent if unknown.
    pub model: Option<String>,
    /// The time from the start of the run to the call of the source. Absent if the run was not measured.
    #[serde(serialize_with = "some_millis")]
    pub start: Option<Duration>,
    /// The duration of the attempt. Absent if the run was not measured.
    #[serde(serialize_with = "some_millis")]
    pub duration: Option<Duration>,
    /// The time from the start of the attempt to its first token. Absent without a token, and if
    /// the run was not timed.
    #[serde(serialize_with = "some_millis")]
    pub time_to_first_token: Option<Duration>,
    /// The number of tokens.
    pub tokens: u64,
    /// The outcome. Present for an ended attempt.
    pub outcome: Option<Outcome>,
    /// The reason why it did not complete. Absent if it completed or was dropped.
    pub reason: Option<Reason>,
}

/// The reason why a run or an attempt did not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Reason {
    /// The type of the error, as in telemetry's `error.type`.
    #[serde(rename = "type")]
    pub error_type: String,
    /// The HTTP status. Absent if no server responded with one.
    pub status: Option<u16>,
    /// What happened, as one line, cut to 256 bytes.
    pub message: String,
}

impl Reason {
    pub(crate) fn of(error: &ErrorRecord) -> Self {
        Self {
            error_type: cut(&error.error_type),
            status: error.status,
            message: cut(&error.message),
        }
    }
}

/// Returns a text cut to the maximum length.
pub(crate) fn cut(text: &str) -> String {
    keys::cut(text, KeyList::MAX_VALUE).to_owned()
}

fn in_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(in_millis(*duration))
}

fn shared<S: Serializer>(runs: &[Arc<FinishedRun>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(runs.iter().map(|run| &**run))
}

fn some_millis<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration.map(in_millis).serialize(serializer)
}
