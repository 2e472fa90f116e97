//! Timeline: the runs of a file as a trace, for Perfetto and Chrome.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::io::{self, Write};
use std::time::Duration;

use l0_core::{AttemptStats, Cost, ErrorRecord, FinishReason, Outcome, Telemetry, Timestamp, keys};
use serde::Serialize;

use crate::first::{First, Placed};
use crate::text::{millis, rfc3339};

/// Runs on a common time line, as JSON in Chrome's trace event format, for [Perfetto](https://ui.perfetto.dev)
/// and `chrome://tracing`.
///
/// Each run is a slice on a lane. It contains its attempts and back-offs, and a mark at each first token. A
/// counter shows the number of live runs. The number of lanes is the maximum number of concurrent runs. Slices
/// state the outcome of a run or attempt, and its reason. The only metadata in the trace is the model. Prompts
/// and answers are not known here.
///
/// Runs are kept in memory until they are written, because a file can be in any order: about 1 kB for a run with
/// one attempt. At most [`MAX_RUNS`](Self::MAX_RUNS) runs are kept, unless another number is set: those that
/// started first. Runs without a start time are left out, because they have no place on the time line.
///
/// ```
/// use l0_core::Telemetry;
/// use l0_report::timeline::Timeline;
///
/// let mut timeline = Timeline::new().max_runs(1_000);
/// timeline.add(&Telemetry::example());
/// let mut trace = Vec::new();
/// timeline.write(&mut trace)?;
/// assert!(trace.starts_with(b"{\"traceEvents\":["));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Timeline {
    runs: First<Run>,
    left_out: u64,
    without_start: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            runs: First::new(Self::MAX_RUNS),
            left_out: 0,
            without_start: 0,
        }
    }
}

impl Timeline {
    /// The default maximum number of runs.
    pub const MAX_RUNS: usize = 100_000;

    /// Creates an empty timeline.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum number of runs. The runs that started first are kept.
    #[must_use]
    pub fn max_runs(mut self, max: usize) -> Self {
        let taken = self.runs.set_max(max);
        self.leave_out(taken);
        self
    }

    /// Returns the number of kept runs.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Returns the number of runs that are left out because they started after the kept ones.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Returns the number of runs that are left out because their start time is unknown.
    #[must_use]
    pub const fn without_start(&self) -> u64 {
        self.without_start
    }

    /// Adds one run.
    pub fn add(&mut self, telemetry: &Telemetry) {
        if telemetry.start_time == Timestamp::default() {
            self.without_start = self.without_start.saturating_add(1);
            return;
        }
        // Skips most runs of a long file early.
        let is_late = |last: &Run| telemetry.start_time.as_millis() > last.start;
        let taken = match self.runs.last().is_some_and(is_late) {
            true => 1,
            false => self.runs.add(Run::of(telemetry)),
        };
        self.leave_out(taken);
    }

    fn leave_out(&mut self, runs: u64) {
        self.left_out = self.left_out.saturating_add(runs);
    }

    /// Writes the trace, with its events in the order of time.
    ///
    /// # Errors
    ///
    /// Returns the errors of the writer.
    pub fn write(&self, writer: &mut impl Write) -> io::Result<()> {
        let runs = self.runs.in_order();
        let start = runs.first().map(|run| run.start);
        let first = start.unwrap_or_default();
        let mut spans: Vec<_> = runs.iter().map(|run| run.span(first)).collect();
        let (lane_of, lanes) = lanes(&mut spans);

        write!(writer, "{{\"traceEvents\":[")?;
        let mut out = Events { writer, any: false };
        out.name("process_name", 0, &process_name(start))?;
        for lane in 1..=lanes {
            out.name("thread_name", lane, &format!("lane {lane}"))?;
            out.sort_index(lane)?;
        }
        for mark in marks(&runs, &spans) {
            let (start, length) = (mark.start, mark.length);
            let lane = || lane_of[mark.run];
            let attempt = |n: usize| &runs[mark.run].attempts[n];
            out.write(&match mark.what {
                What::Run => Event::run(runs[mark.run], start, length, lane()),
                What::BackOff(n) => Event::back_off(attempt(n), start, length, lane()),
                What::Attempt(n) => Event::attempt(attempt(n), start, length, lane()),
                What::FirstToken => Event::first_token(start, lane()),
                What::Live(live) => Event::live(start, live),
            })?;
        }

        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct OtherData {
            #[serde(skip_serializing_if = "Option::is_none")]
            start_time: Option<u64>,
            runs: usize,
            left_out: u64,
            #[serde(skip_serializing_if = "is_zero")]
            without_start: u64,
        }
        write!(writer, "\n],\"displayTimeUnit\":\"ms\",\"otherData\":")?;
        let other = OtherData {
            start_time: start,
            runs: runs.len(),
            left_out: self.left_out,
            without_start: self.without_start,
        };
        serde_json::to_writer(&mut *writer, &other)?;
        writeln!(writer, "}}")
    }
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The maximum length of a text, in bytes.
const MAX_TEXT: usize = 256;

fn short(text: &str) -> Box<str> {
    keys::cut(text, MAX_TEXT).into()
}

/// The displayed values of a run.
#[derive(Debug, Clone)]
struct Run {
    /// Milliseconds since the Unix epoch.
    start: u64,
    duration: Option<Duration>,
    id: Box<str>,
    model: Option<Box<str>>,
    outcome: Option<Outcome>,
    why: Option<Why>,
    finish_reason: Option<FinishReason>,
    first_token: Option<Duration>,
    tokens: u64,
    /// The number of attempts. A record may not list them individually.
    attempt_count: u32,
    retries: u32,
    cost: Option<Cost>,
    attempts: Box<[Attempt]>,
}

/// The displayed values of an attempt.
#[derive(Debug, Clone)]
struct Attempt {
    number: u32,
    count: u32,
    source: u32,
    start: Option<Duration>,
    delay: Option<Duration>,
    duration: Option<Duration>,
    first_token: Option<Duration>,
    model: Option<Box<str>>,
    provider: Option<Box<str>>,
    outcome: Option<Outcome>,
    why: Option<Why>,
    finish_reason: Option<FinishReason>,
    tokens: u64,
    cost: Option<Cost>,
}

#[derive(Debug, Clone, Serialize)]
struct Why {
    #[serde(rename = "type")]
    kind: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    message: Box<str>,
}

impl Why {
    fn of(error: &ErrorRecord) -> Self {
        Self {
            kind: short(&error.error_type),
            status: error.status,
            message: short(&error.message),
        }
    }
}

impl Run {
    fn of(telemetry: &Telemetry) -> Self {
        let attempts = telemetry.attempts.iter();
        let last_model = telemetry.attempts.last();
        let last_model = last_model.and_then(|attempt| attempt.model.as_deref());
        let named = || keys::text(&telemetry.metadata, keys::MODEL);
        Self {
            start: telemetry.start_time.as_millis(),
            duration: telemetry.duration,
            id: short(&telemetry.session_id),
            model: last_model
                .map(short)
                .or_else(|| named().map(|name| short(&name))),
            outcome: telemetry.outcome,
            why: telemetry.error.as_ref().map(Why::of),
            finish_reason: telemetry.finish_reason,
            first_token: telemetry.metrics.time_to_first_token,
            tokens: telemetry.metrics.total_tokens,
            attempt_count: telemetry.metrics.attempts,
            retries: telemetry.metrics.total_retries,
            cost: telemetry.total_cost(),
            // A file can contain any number of attempts.
            attempts: attempts.take(AttemptStats::MAX).map(Attempt::of).collect(),
        }
    }

    /// Returns its span, relative to the start of the first run. The end of an unfinished run is that of its last
    /// attempt.
    fn span(&self, first: u64) -> Span {
        let ends = self.attempts.iter().filter_map(Attempt::end);
        let lasts = self.duration.or_else(|| ends.max());
        let start = self.start.saturating_sub(first).saturating_mul(1_000);
        Span::new(start, micros(lasts.unwrap_or_default()))
    }
}

impl Placed for Run {
    /// In the order of their start.
    fn place(&self) -> impl Ord {
        (self.start, Reverse(self.duration), &self.id)
    }
}

impl Attempt {
    fn of(stats: &AttemptStats) -> Self {
        Self {
            number: stats.number,
            count: stats.count,
            source: stats.source,
            start: stats.start_offset,
            delay: stats.delay,
            duration: stats.duration,
            first_token: stats.time_to_first_token,
            model: stats.model.as_deref().map(short),
            provider: stats.provider.as_deref().map(short),
            outcome: stats.outcome,
            why: stats.error.as_ref().map(Why::of),
            finish_reason: stats.finish_reason,
            tokens: stats.tokens,
            cost: stats.cost,
        }
    }

    /// Returns its end, relative to the start of the run.
    fn end(&self) -> Option<Duration> {
        let start = self.start.unwrap_or_default();
        Some(start.saturating_add(self.duration?))
    }
}

/// The maximum time, in microseconds: JSON readers represent it exactly, and Perfetto can convert it to
/// nanoseconds.
const LAST: u64 = (1 << 53) - 1;

/// Returns whole microseconds, the unit of the format. Rounds all times down, so a slice within another one
/// stays within it.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).map_or(LAST, |micros| micros.min(LAST))
}

/// A span of time, in microseconds since the start of the first run.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u64,
    end: u64,
}

impl Span {
    fn new(start: u64, length: u64) -> Self {
        let start = start.min(LAST);
        Self {
            start,
            end: start.saturating_add(length).min(LAST),
        }
    }
}

/// Returns the lane of each run, from 1, and the number of lanes. Runs are in the order of their start. Each
/// run takes the first free lane, which needs the fewest lanes.
fn lanes(spans: &mut [Span]) -> (Vec<u32>, u32) {
    /// Records state starts in whole milliseconds, so a run can seem to start before the previous one ended.
    /// It is then moved within that millisecond, and not to another lane.
    const PRECISION: u64 = 1_000;

    let mut lanes = 0;
    let mut free = BTreeSet::new();
    let mut busy = BinaryHeap::new();
    let mut lane_of = |span: &mut Span| {
        while let Some(&Reverse((end, lane))) = busy.peek() {
            if end > span.start {
                break;
            }
            busy.pop();
            free.insert(lane);
        }
        let mut follow = || {
            let &Reverse((end, lane)) = busy.peek()?;
            let late = end - span.start;
            (late < PRECISION).then(|| {
                busy.pop();
                *span = Span::new(end, span.end - span.start);
                lane
            })
        };
        let lane = free.pop_first().or_else(&mut follow).unwrap_or_else(|| {
            lanes += 1;
            lanes
        });
        busy.push(Reverse((span.end, lane)));
        lane
    };
    let lane_of = spans.iter_mut().map(&mut lane_of).collect();
    (lane_of, lanes)
}

/// An item on the time line.
#[derive(Debug, Clone, Copy)]
struct Mark {
    start: u64,
    length: u64,
    what: What,
    /// The index of the run. Meaningless for the counter.
    run: usize,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Run,
    /// The wait before this attempt.
    BackOff(usize),
    Attempt(usize),
    FirstToken,
    /// The number of live runs from here on.
    Live(usize),
}

fn marks(runs: &[&Run], spans: &[Span]) -> Vec<Mark> {
    let mut marks = Vec::new();
    for (index, (run, span)) in runs.iter().zip(spans).enumerate() {
        let mut mark = |start: u64, end: u64, what| {
            marks.push(Mark {
                start,
                length: end - start,
                what,
                run: index,
            });
        };
        // Times in a file can be inconsistent. Parts are kept within their run, and in sequence.
        let within = |after, from: u64| (span.start + micros(after)).clamp(from, span.end);
        mark(span.start, span.end, What::Run);
        let mut from = span.start;
        for (n, attempt) in run.attempts.iter().enumerate() {
            let start = attempt.start.map_or(from, |start| within(start, from));
            if attempt.delay.is_some() && start > from {
                mark(from, start, What::BackOff(n));
            }
            let offset = attempt.start.unwrap_or_default();
            let end = attempt.end().map_or(span.end, |end| within(end, start));
            mark(start, end, What::Attempt(n));
            if let Some(first) = attempt.first_token {
                let at = within(offset.saturating_add(first), start).min(end);
                mark(at, at, What::FirstToken);
            }
            from = end;
        }
        if let (Some(first), true) = (run.first_token, run.attempts.is_empty()) {
            let at = within(first, span.start);
            mark(at, at, What::FirstToken);
        }
    }
    marks.extend(live(spans));
    // The sort is stable: at equal times, a run comes before its parts, and these before the next run of its
    // lane.
    marks.sort_by_key(|mark| mark.start);
    marks
}

/// Iterates over the changes of the number of live runs.
fn live(spans: &[Span]) -> impl Iterator<Item = Mark> {
    let starts = spans.iter().map(|span| (span.start, 1));
    let ends = spans.iter().map(|span| (span.end, -1));
    let mut changes: Vec<(u64, i64)> = starts.chain(ends).collect();
    changes.sort_unstable();
    let mut live = 0_i64;
    let mut all: Vec<Mark> = Vec::new();
    for (start, change) in changes {
        live += change;
        let what = What::Live(usize::try_from(live).unwrap_or_default());
        match all.last_mut() {
            Some(last) if last.start == start => last.what = what,
            _ => all.push(Mark {
                start,
                length: 0,
                what,
                run: 0,
            }),
        }
    }
    all.into_iter()
}

/// Returns the name of the process, which states the start of the trace. The format has no field for it.
fn process_name(start: Option<u64>) -> String {
    let start = start.map(|start| rfc3339(Timestamp::from_millis(start)));
    start.map_or_else(|| "runs".to_owned(), |start| format!("runs from {start}"))
}

/// The process of all runs.
const PROCESS: u32 = 1;

/// An event of the trace format. Times are in microseconds.
#[derive(Serialize)]
struct Event<'a> {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cat: Option<&'static str>,
    ph: &'static str,
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<u64>,
    pid: u32,
    tid: u32,
    /// The scope of an instant: `t` for its lane.
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Args<'a>>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Args<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    /// The number of attempts in the slice, or of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a Why>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<FinishReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<String>,
    /// The planned wait, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<usize>,
}

impl<'a> Event<'a> {
    fn slice(name: String, cat: &'static str, start: u64, length: u64, lane: u32) -> Self {
        Self {
            name,
            cat: Some(cat),
            ph: "X",
            ts: start,
            dur: Some(length),
            pid: PROCESS,
            tid: lane,
            s: None,
            args: None,
        }
    }

    fn run(run: &'a Run, start: u64, length: u64, lane: u32) -> Self {
        let name = titled(run.model.as_deref().unwrap_or("run"), run.outcome);
        Self {
            args: Some(Args {
                session_id: Some(&run.id),
                attempts: Some(run.attempt_count),
                retries: Some(run.retries),
                model: run.model.as_deref(),
                outcome: run.outcome,
                reason: run.why.as_ref(),
                finish_reason: run.finish_reason,
                tokens: Some(run.tokens),
                cost: run.cost.map(|cost| cost.to_string()),
                ..Args::default()
            }),
            ..Self::slice(name, "run", start, length, lane)
        }
    }

    fn attempt(attempt: &'a Attempt, start: u64, length: u64, lane: u32) -> Self {
        let last = attempt.count.saturating_sub(1);
        let name = match attempt.number.saturating_add(last) {
            last if last == attempt.number => format!("attempt {last}"),
            last => format!("attempts {} to {last}", attempt.number),
        };
        Self {
            args: Some(Args {
                number: Some(attempt.number),
                attempts: Some(attempt.count),
                source: Some(attempt.source),
                model: attempt.model.as_deref(),
                provider: attempt.provider.as_deref(),
                outcome: attempt.outcome,
                reason: attempt.why.as_ref(),
                finish_reason: attempt.finish_reason,
                tokens: Some(attempt.tokens),
                cost: attempt.cost.map(|cost| cost.to_string()),
                ..Args::default()
            }),
            ..Self::slice(
                titled(&name, attempt.outcome),
                "attempt",
                start,
                length,
                lane,
            )
        }
    }

    fn back_off(before: &Attempt, start: u64, length: u64, lane: u32) -> Self {
        Self {
            args: Some(Args {
                delay: before.delay.map(millis),
                ..Args::default()
            }),
            ..Self::slice("back-off".to_owned(), "back-off", start, length, lane)
        }
    }

    fn first_token(at: u64, lane: u32) -> Self {
        Self {
            ph: "i",
            dur: None,
            s: Some("t"),
            ..Self::slice("first token".to_owned(), "token", at, 0, lane)
        }
    }

    fn live(at: u64, live: usize) -> Self {
        Self {
            ph: "C",
            cat: None,
            dur: None,
            args: Some(Args {
                live: Some(live),
                ..Args::default()
            }),
            ..Self::slice("live runs".to_owned(), "run", at, 0, 0)
        }
    }
}

/// Returns a name with the outcome. Viewers color slices by name, so slices that did not complete stand out.
fn titled(name: &str, outcome: Option<Outcome>) -> String {
    match outcome {
        None | Some(Outcome::Completed) => name.to_owned(),
        Some(outcome) => format!("{name}: {}", outcome.as_str().replace('_', " ")),
    }
}

/// Writes events, one per line.
struct Events<'w, W> {
    writer: &'w mut W,
    any: bool,
}

impl<W: Write> Events<'_, W> {
    fn write(&mut self, event: &impl Serialize) -> io::Result<()> {
        let separator: &[u8] = if self.any { b",\n" } else { b"\n" };
        self.any = true;
        self.writer.write_all(separator)?;
        serde_json::to_writer(&mut *self.writer, event)?;
        Ok(())
    }

    /// Names the process or a lane.
    fn name(&mut self, what: &'static str, lane: u32, name: &str) -> io::Result<()> {
        self.metadata(what, lane, "name", name)
    }

    fn sort_index(&mut self, lane: u32) -> io::Result<()> {
        self.metadata("thread_sort_index", lane, "sort_index", lane)
    }

    fn metadata(
        &mut self,
        what: &'static str,
        lane: u32,
        key: &'static str,
        value: impl Into<serde_json::Value>,
    ) -> io::Result<()> {
        #[derive(Serialize)]
        struct Metadata {
            name: &'static str,
            ph: &'static str,
            pid: u32,
            tid: u32,
            args: serde_json::Map<String, serde_json::Value>,
        }
        let mut args = serde_json::Map::new();
        args.insert(key.to_owned(), value.into());
        self.write(&Metadata {
            name: what,
            ph: "M",
            pid: PROCESS,
            tid: lane,
            args,
        })
    }
}
