//! Recording: the measurements of one run so far.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::attempt_stats::{AttemptStats, Names};
use crate::clock;
use crate::distribution::{Distribution, Histogram};
use crate::end::End;
use crate::event::RetryKind;
use crate::failure::NetworkErrorKind;
use crate::metadata::Metadata;
use crate::monitoring::Monitoring;
use crate::price::Cost;
use crate::progress::NEVER;
use crate::spending::Reported;
use crate::stats::{DriftStats, ErrorRecord, GuardrailStats};
use crate::telemetry::{Metrics, Network, NetworkErrorRecord, Telemetry, Timestamp};
use crate::token::{FinishReason, TokenKind, TokenView};
use crate::units::rate;
use crate::usage::Usage;
use crate::verdict::{DriftReport, Outcome, Violation};

/// The measurements so far. Times are nanoseconds since `start`.
///
/// The fields that each token touches come first, so they are adjacent.
#[repr(C)]
pub(crate) struct Recording {
    start: Instant,
    /// The arrival of the current attempt's last token; [`NEVER`] before the first, and without
    /// timings.
    last_token: u64,
    /// The time when the last item was yielded, while the run waits for its consumer; else
    /// [`NEVER`].
    yielded: u64,
    hold: u64,
    total_tokens: u64,
    /// `true` if tokens are timed.
    timed: bool,
    /// The gaps of the current attempt; empty without timings.
    gaps: Histogram,
    /// The arrival of the first text; [`NEVER`] before it, and without timings.
    first_text: u64,
    /// The same of the first token.
    first_token: u64,
    start_time: Timestamp,
    /// When and how the run ended.
    ended: Option<(u64, End)>,
    /// `None` until the first one.
    #[expect(
        clippy::box_collection,
        reason = "8 bytes instead of 32 in each run; most have none"
    )]
    errors: Option<Box<VecDeque<NetworkErrorRecord>>>,
    /// `true` if network errors are recorded with their details.
    keeps_errors: bool,
    /// `true` if rules are checked.
    has_rules: bool,
    /// `true` if drift is detected.
    detects_drift: bool,
    /// The attempts that have ended.
    attempts: Vec<AttemptStats>,
    /// The current attempt; meaningless between two attempts.
    attempt: CurrentAttempt,
    /// `true` while an attempt is open.
    is_open: bool,
}

/// The part of telemetry that is not measured.
pub(crate) struct Identity {
    pub(crate) session_id: String,
    pub(crate) parent_id: Option<String>,
    pub(crate) metadata: Metadata,
}

/// The current attempt. Fields shared with [`AttemptStats`] have the same meaning.
#[derive(Default)]
struct CurrentAttempt {
    number: u32,
    /// 0 if its start was not recorded.
    count: u32,
    source: u32,
    delay: Option<Duration>,
    /// The time when its source was called.
    start: u64,
    /// The number of tokens before it.
    tokens_before: u64,
    first_token: Option<u64>,
    usage: Option<Usage>,
    finish_reason: Option<FinishReason>,
    /// Boxed, because most attempts have none of it.
    rare: Option<Box<Rare>>,
}

/// The measurements that most attempts do not have.
#[derive(Default, Clone)]
struct Rare {
    /// The cost that the source reported.
    cost: Option<Cost>,
    network_errors: BTreeMap<NetworkErrorKind, u64>,
    guardrails: Option<GuardrailStats>,
    drift: Option<DriftStats>,
}

impl Rare {
    fn write_to(self, stats: &mut AttemptStats) {
        stats.cost = self.cost;
        stats.network_errors = self.network_errors;
        stats.guardrails = self.guardrails;
        stats.drift = self.drift;
    }
}

/// The times of a token's arrival, in nanoseconds.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Arrival {
    /// Since the start of the run; only for its first token.
    pub(crate) first: Option<u64>,
    /// Since the previous token of the same attempt.
    pub(crate) gap: Option<u64>,
}

/// The latest manual time, in seconds since the start: 584 years, which a count of nanoseconds holds.
const LATEST: u64 = NEVER / 1_000_000_000 - 1;

impl Recording {
    /// Starts to measure a run, without an attempt.
    pub(crate) fn start(
        monitoring: &Monitoring,
        start_time: Timestamp,
        start: Instant,
    ) -> Box<Self> {
        Box::new(Self {
            start,
            start_time,
            ended: None,
            total_tokens: 0,
            first_token: NEVER,
            first_text: NEVER,
            last_token: NEVER,
            yielded: NEVER,
            hold: 0,
            timed: monitoring.include_timings,
            gaps: Histogram::default(),
            errors: None,
            keeps_errors: monitoring.include_network_details,
            has_rules: false,
            detects_drift: false,
            attempts: Vec::new(),
            attempt: CurrentAttempt::default(),
            is_open: false,
        })
    }

    /// Sets the start to now.
    pub(crate) fn restart(&mut self) {
        self.start = clock::now();
        self.start_time = Timestamp::now();
    }

    /// Opens an attempt whose start was not recorded, as manual recording allows.
    pub(crate) fn open(&mut self) {
        (self.attempt.number, self.attempt.source) = (1, 1);
        self.is_open = true;
    }

    /// Begins the next attempt. If the current one was opened without a recorded start, records its
    /// start instead.
    pub(crate) fn next_attempt(&mut self) {
        if self.attempt.count == 0 {
            self.attempt.start = self.nanos(clock::now());
            self.attempt.count = 1;
            return;
        }
        let number = self.attempt.number + 1;
        self.end_attempt(&mut AttemptEnd::discarded());
        self.begin_attempt(number, 1, None);
    }

    /// Counts a retry, and discards the attempt before it.
    pub(crate) fn retry(&mut self, kind: RetryKind) {
        let number = self.attempt.number + self.attempt.count;
        self.end_attempt(&mut AttemptEnd {
            retry: Some(kind),
            ..AttemptEnd::discarded()
        });
        self.begin_attempt(number, 1, None);
        self.attempt.count = 0;
    }

    /// Begins an attempt, and discards the attempt before it.
    pub(crate) fn begin_attempt(&mut self, number: u32, source: u32, delay: Option<Duration>) {
        self.attempt = CurrentAttempt {
            number,
            count: 1,
            source,
            delay,
            start: self.nanos(clock::now()),
            tokens_before: self.total_tokens,
            ..CurrentAttempt::default()
        };
        self.last_token = NEVER;
        self.is_open = true;
    }

    /// The time when the last item was yielded, in nanoseconds since the start; [`NEVER`] if the
    /// run does not wait for its consumer, or arrivals are not timed.
    #[inline]
    pub(crate) fn held_since(&self) -> u64 {
        self.yielded
    }

    /// Returns when the source of the current attempt was called, in nanoseconds since the start.
    pub(crate) fn attempt_start(&self) -> u64 {
        self.attempt.start
    }

    /// Ends the current attempt, if there is one. Returns its measurements.
    pub(crate) fn end_attempt(&mut self, end: &mut AttemptEnd) -> Option<&AttemptStats> {
        let now = self.nanos(clock::now());
        self.end_attempt_at(end, now)
    }

    fn end_attempt_at(&mut self, end: &mut AttemptEnd, now: u64) -> Option<&AttemptStats> {
        if !std::mem::take(&mut self.is_open) {
            return None;
        }
        let is_first = self.attempts.is_empty();
        let gaps = match end.is_followed || !is_first {
            true => {
                let gaps = self.gaps();
                self.gaps = Histogram::default();
                gaps
            }
            false => None,
        };
        let stats = AttemptStats::append(&mut self.attempts);
        self.attempt.write_to(stats, self.total_tokens);
        stats.duration = Some(Duration::from_nanos(now.saturating_sub(self.attempt.start)));
        stats.inter_token = gaps;
        if let Some(rare) = self.attempt.rare.take() {
            rare.write_to(stats);
        }
        end.write_to(stats);
        Some(stats)
    }

    /// Returns the gaps of the current attempt, or of the only one.
    fn gaps(&self) -> Option<Distribution> {
        (self.gaps.count() > 0).then(|| self.gaps.distribution())
    }

    /// Returns `true` if tokens are timed.
    pub(crate) fn timed(&self) -> bool {
        self.timed
    }

    /// Returns `true` if the run has ended.
    #[inline]
    pub(crate) fn is_final(&self) -> bool {
        self.ended.is_some()
    }

    /// Returns the nanoseconds since the start, or 0 before it.
    #[inline]
    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        // A u64 holds 584 years.
        since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos())
    }

    /// Records an item. `arrived` is present if arrivals are timed.
    #[inline]
    pub(crate) fn item(&mut self, view: &TokenView<'_>, arrived: Option<Instant>) -> Arrival {
        self.answer(view);
        let now = self.timed_nanos(arrived);
        let mut arrival = Arrival::default();
        if view.is_token() {
            arrival = self.token(now);
            if self.first_text == NEVER && view.kind == TokenKind::Text {
                self.first_text = now.unwrap_or(NEVER);
            }
        }
        if let Some(now) = now {
            self.take_hold(now);
            self.yielded = now;
        }
        arrival
    }

    /// Records everything of an item, or of a single answer, except its text.
    #[inline]
    pub(crate) fn answer(&mut self, view: &TokenView<'_>) {
        if view.usage.is_some() {
            self.attempt.usage = view.usage;
        }
        if view.finish.is_some() {
            self.attempt.finish_reason = view.finish;
        }
        if let Some(cost) = view.cost {
            self.attempt.rare.get_or_insert_default().cost = Some(*cost);
        }
    }

    /// Returns what the current attempt's source has reported so far.
    pub(crate) fn reported(&self) -> Reported {
        Reported {
            usage: self.attempt.usage,
            cost: self.attempt.rare.as_deref().and_then(|rare| rare.cost),
            is_whole: self.attempt.finish_reason.is_some(),
            tokens: self.total_tokens - self.attempt.tokens_before,
        }
    }

    /// Counts a token with this arrival time, which can be any.
    #[inline]
    pub(crate) fn token_at(&mut self, arrived: Option<Instant>) {
        let arrived = arrived.filter(|_| self.timed);
        let now = arrived.map(|at| {
            let since = at.saturating_duration_since(self.start);
            since.as_secs().min(LATEST) * 1_000_000_000 + u64::from(since.subsec_nanos())
        });
        self.token(now);
    }

    /// Counts a token. `now` is present if tokens are timed.
    #[inline]
    fn token(&mut self, now: Option<u64>) -> Arrival {
        self.total_tokens += 1;
        let mut arrival = Arrival::default();
        let Some(now) = now else {
            return arrival;
        };
        let before = self.last_token;
        if before == NEVER {
            self.last_token = now;
            self.gaps.reserve();
            self.attempt.first_token = Some(now);
            if self.first_token == NEVER {
                self.first_token = now;
                arrival.first = Some(now);
            }
        } else {
            // A manual time can be before the last one. It does not take the last one back, or the
            // gaps would add up to more than the time that has passed.
            let now = now.max(before);
            self.last_token = now;
            let gap = now - before;
            self.gaps.record(gap);
            arrival.gap = Some(gap);
        }
        arrival
    }

    /// Returns `true` if a plain token only needs to be counted, and timed if tokens are: it is not
    /// the first of anything.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.timed || self.last_token != NEVER && self.first_text != NEVER
    }

    /// Counts a token of a recording that [is under way](Self::is_under_way), without timings.
    #[inline]
    pub(crate) fn count_token(&mut self) {
        self.total_tokens += 1;
    }

    /// Counts a token of a recording that [is under way](Self::is_under_way), with its arrival
    /// time.
    #[inline]
    pub(crate) fn time_token(&mut self, arrived: Instant) {
        let now = self.nanos(arrived);
        self.total_tokens += 1;
        let before = std::mem::replace(&mut self.last_token, now);
        self.gaps.record(now.saturating_sub(before));
        self.take_hold(now);
        self.yielded = now;
    }

    /// Returns the time of an arrival, if tokens are timed.
    #[inline]
    fn timed_nanos(&self, arrived: Option<Instant>) -> Option<u64> {
        let arrived = arrived.filter(|_| self.timed)?;
        Some(self.nanos(arrived))
    }

    /// Ends the wait for the consumer, if there is one.
    #[inline]
    fn take_hold(&mut self, now: u64) {
        let since = std::mem::replace(&mut self.yielded, NEVER);
        // `NEVER` is the latest time, so the difference is 0.
        self.hold += now.saturating_sub(since);
    }

    /// Records that the consumer polls again and the source is pending. Returns the time, in
    /// nanoseconds since the start.
    #[inline]
    pub(crate) fn pending(&mut self, now: Instant) -> u64 {
        let now = self.nanos(now);
        self.take_hold(now);
        now
    }

    /// Records that a chunk other than an item was yielded.
    pub(crate) fn yielded(&mut self, now: Instant) {
        let now = self.nanos(now);
        self.take_hold(now);
        self.yielded = now;
    }

    /// Records a network error that happened now, and sets its timestamp.
    pub(crate) fn network_error(&mut self, mut error: NetworkErrorRecord) {
        let rare = self.attempt.rare.get_or_insert_default();
        *rare.network_errors.entry(error.kind).or_default() += 1;
        if !self.keeps_errors {
            return;
        }
        error.timestamp = self.timestamp();
        let errors = self.errors.get_or_insert_default();
        if errors.len() == Network::MAX_ERRORS {
            errors.pop_front();
        }
        errors.push_back(error);
    }

    /// Counts violations. An empty slice records that rules are checked.
    pub(crate) fn violations(&mut self, violations: &[Violation]) {
        self.has_rules = true;
        for violation in violations {
            let rare = self.attempt.rare.get_or_insert_default();
            rare.guardrails.get_or_insert_default().record(violation);
        }
    }

    /// Records drift. An empty report records that drift is detected.
    pub(crate) fn drift(&mut self, report: &DriftReport) {
        self.detects_drift = true;
        if report.detected() {
            let rare = self.attempt.rare.get_or_insert_default();
            rare.drift.get_or_insert_default().record(report);
        }
    }

    /// Returns how long the run took, once it has ended.
    pub(crate) fn duration(&self) -> Option<Duration> {
        self.ended.as_ref().map(|(at, _)| Duration::from_nanos(*at))
    }

    /// Returns the current time, measured from the wall clock at the start.
    pub(crate) fn timestamp(&self) -> Timestamp {
        let since = clock::now().saturating_duration_since(self.start);
        self.start_time.after(since)
    }

    /// Ends the run and its current attempt, and finalizes the telemetry. `report` is what is
    /// reported of the attempt. Returns the attempt's measurements.
    pub(crate) fn finish(
        &mut self,
        end: &End,
        report: Option<&mut AttemptEnd>,
    ) -> Option<&AttemptStats> {
        let now = self.nanos(clock::now());
        self.take_hold(now);
        self.ended = Some((now, end.clone()));
        self.end_attempt_at(report?, now)
    }

    /// Returns what was measured so far.
    pub(crate) fn telemetry(&self, run: Identity) -> Box<Telemetry> {
        let mut attempts = self.attempts.clone();
        let mut gaps = self.gaps();
        if self.is_open {
            let current = AttemptStats::append(&mut attempts);
            self.attempt.write_to(current, self.total_tokens);
            if let Some(rare) = self.attempt.rare.clone() {
                rare.write_to(current);
            }
            if !self.attempts.is_empty() {
                current.inter_token = gaps.take();
            }
        }
        self.add_up(run, attempts, gaps)
    }

    /// Returns what was measured by a run that has ended, without a copy.
    pub(crate) fn into_telemetry(mut self: Box<Self>, run: Identity) -> Box<Telemetry> {
        let attempts = std::mem::take(&mut self.attempts);
        self.add_up(run, attempts, self.gaps())
    }

    /// Sums the attempts. `gaps` are those that no attempt reports.
    fn add_up(
        &self,
        run: Identity,
        mut attempts: Vec<AttemptStats>,
        gaps: Option<Distribution>,
    ) -> Box<Telemetry> {
        let (nanos, end) = self.ended.as_ref().map(|(at, end)| (*at, end)).unzip();
        let timed_end = nanos.filter(|_| self.timed);
        // In its box from the start, and all fields spelled out, because it is large: each move is a
        // copy.
        let mut telemetry = Box::new(Telemetry {
            session_id: run.session_id,
            parent_id: run.parent_id,
            start_time: self.start_time,
            duration: self.duration(),
            outcome: end.map(End::outcome),
            error: end.and_then(ErrorRecord::of),
            metrics: Metrics {
                time_to_first_token: known(self.first_token),
                time_to_first_text: known(self.first_text),
                tokens_per_second: timed_end
                    .filter(|_| self.total_tokens > 0)
                    .and_then(|nanos| rate::per_second(self.total_tokens, nanos)),
                avg_inter_token_time: None,
                output_tokens_per_second: None,
                total_tokens: 0,
                wasted_tokens: 0,
                attempts: 0,
                total_retries: 0,
                network_retries: 0,
                model_retries: 0,
                inter_token: gaps,
                consumer_hold: timed_end.map(|_| Duration::from_nanos(self.hold)),
                wait: timed_end.map(|end| Duration::from_nanos(end.saturating_sub(self.hold))),
            },
            network: Network {
                error_count: 0,
                errors_by_type: BTreeMap::new(),
                errors: self.keeps_errors.then(|| errors_of(self.errors.as_deref())),
            },
            guardrails: self.has_rules.then(GuardrailStats::default),
            drift: self.detects_drift.then(DriftStats::default),
            metadata: run.metadata,
            kept: None,
            finish_reason: None,
            usage: None,
            wasted_usage: None,
            cost: None,
            wasted_cost: None,
            estimated_usage: None,
            estimated_cost: None,
            attempts: Vec::new(),
        });
        telemetry.add_attempts(&attempts, true);
        // In manual recording, no start of an attempt was recorded.
        if attempts.iter().all(|attempt| attempt.count == 0) {
            attempts.clear();
        }
        telemetry.attempts = attempts;
        telemetry
    }
}

fn errors_of(errors: Option<&VecDeque<NetworkErrorRecord>>) -> Vec<NetworkErrorRecord> {
    errors.map_or_else(Vec::new, |errors| errors.iter().cloned().collect())
}

/// Returns the time since the start, unless it is [`NEVER`].
fn known(nanos: u64) -> Option<Duration> {
    (nanos != NEVER).then(|| Duration::from_nanos(nanos))
}

impl CurrentAttempt {
    /// Writes the measurements so far, without the rare ones.
    fn write_to(&self, stats: &mut AttemptStats, total_tokens: u64) {
        let since_start = |at: u64| Duration::from_nanos(at.saturating_sub(self.start));
        stats.number = self.number;
        stats.count = self.count;
        stats.source = self.source;
        stats.delay = self.delay;
        stats.start_offset = Some(Duration::from_nanos(self.start));
        stats.tokens = total_tokens - self.tokens_before;
        stats.time_to_first_token = self.first_token.map(since_start);
        stats.usage = self.usage;
        stats.finish_reason = self.finish_reason;
    }
}

/// The report of an attempt's end.
#[derive(Debug, Default)]
pub(crate) struct AttemptEnd {
    pub(crate) outcome: Option<Outcome>,
    pub(crate) error: Option<ErrorRecord>,
    /// The retry that follows, if any.
    pub(crate) retry: Option<RetryKind>,
    /// `true` if the next source is called.
    pub(crate) falls_back: bool,
    /// `true` if another attempt follows.
    pub(crate) is_followed: bool,
    pub(crate) response_model: Option<Box<str>>,
    pub(crate) response_id: Option<Box<str>>,
    pub(crate) names: Names,
    pub(crate) bill: Bill,
}

/// The costs of an attempt, and its estimated usage.
#[derive(Debug, Default)]
pub(crate) struct Bill {
    /// The cost of the reported usage.
    pub(crate) cost: Option<Cost>,
    /// `true` if the usage has no known price.
    pub(crate) is_unpriced: bool,
    /// The usage that was not reported, by an estimate.
    pub(crate) estimated_usage: Option<Usage>,
    /// The cost of that usage.
    pub(crate) estimated_cost: Option<Cost>,
}

impl AttemptEnd {
    /// Creates the end of an attempt that ended like its run.
    pub(crate) fn of(end: &End) -> Self {
        Self {
            outcome: Some(end.outcome()),
            error: ErrorRecord::of(end),
            ..Self::default()
        }
    }

    /// Creates the end of a discarded attempt without a recorded reason.
    fn discarded() -> Self {
        Self {
            outcome: Some(Outcome::Failed),
            is_followed: true,
            ..Self::default()
        }
    }

    /// Moves everything into `stats`.
    pub(crate) fn write_to(&mut self, stats: &mut AttemptStats) {
        stats.outcome = self.outcome;
        stats.error = self.error.take();
        match self.retry {
            Some(RetryKind::Network) => stats.network_retries += 1,
            Some(RetryKind::Model) => stats.model_retries += 1,
            None => {}
        }
        stats.fallbacks += u32::from(self.falls_back);
        stats.response_model = self.response_model.take().map(String::from);
        stats.response_id = self.response_id.take().map(String::from);
        std::mem::take(&mut self.names).write_to(stats);
        stats.cost = stats.cost.or(self.bill.cost);
        stats.unpriced += u32::from(self.bill.is_unpriced);
        stats.estimated_usage = self.bill.estimated_usage;
        stats.estimated_cost = self.bill.estimated_cost;
    }
}

/// The id of a run: a number that increases over time, and 64 random bits. Most runs need its text
/// only at their end, if at all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunId {
    number: u64,
    random: u64,
}

impl RunId {
    pub(crate) fn new(number: u64, rng: &mut fastrand::Rng) -> Self {
        Self {
            number,
            random: rng.u64(..),
        }
    }

    /// Returns its text: `l0_`, the number, and the random bits in base 36.
    pub(crate) fn text(self) -> String {
        // 20 digits hold any u64, and 13 digits in base 36 hold 64 random bits.
        let mut id = [b'0'; 3 + 20 + 1 + 13];
        let (before, random) = id.split_at_mut(3 + 20 + 1);
        // In two halves, which the processor computes in parallel.
        const HALF: u64 = 36_u64.pow(7);
        let (high, low) = random.split_at_mut(6);
        put_digits::<36>(high, self.random / HALF);
        put_digits::<36>(low, self.random % HALF);
        let mut first = before.len() - 1;
        before[first] = b'_';
        let digits = self
            .number
            .checked_ilog10()
            .map_or(1, |log| log as usize + 1);
        put_digits::<10>(&mut before[first - digits..first], self.number);
        first -= digits + 3;
        before[first..first + 3].copy_from_slice(b"l0_");
        let id = std::str::from_utf8(&id[first..]);
        id.unwrap_or_default().to_owned()
    }
}

/// Fills a text with the last digits of a number.
#[inline(always)]
fn put_digits<const BASE: u64>(text: &mut [u8], mut number: u64) {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    for digit in text.iter_mut().rev() {
        *digit = DIGITS[(number % BASE) as usize];
        number /= BASE;
    }
}
