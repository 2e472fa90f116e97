//! Recording: what one measured run measured so far.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
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
use crate::spending::Told;
use crate::stats::{DriftStats, ErrorRecord, GuardrailStats};
use crate::telemetry::{Metrics, Network, NetworkErrorRecord, Telemetry, Timestamp};
use crate::token::{FinishReason, TokenKind, TokenView};
use crate::units::rate;
use crate::usage::Usage;
use crate::verdict::{DriftReport, Outcome, Violation};

/// How many custom events are kept; further ones are dropped.
pub(crate) const MAX_CUSTOM_EVENTS: usize = 100;

/// What was measured so far. Times are nanoseconds since `start`.
pub(crate) struct Recording {
    session_id: Arc<str>,
    metadata: Metadata,
    custom_events: Vec<Value>,
    start: Instant,
    start_time: Timestamp,
    end: Option<u64>,
    ended: Option<End>,
    total_tokens: u64,
    first_token: Option<u64>,
    first_text: Option<u64>,
    /// When the last item was handed out, while the consumer holds the run up.
    handed_out: Option<u64>,
    hold: u64,
    /// Those of the present attempt. Absent without timings.
    gaps: Option<Histogram>,
    /// Absent without network details.
    errors: Option<VecDeque<NetworkErrorRecord>>,
    /// Whether rules are checked.
    has_rules: bool,
    /// Whether drift is looked for.
    looks_for_drift: bool,
    /// The attempts that have ended.
    attempts: Vec<AttemptStats>,
    /// The present attempt; it is of no meaning between two attempts.
    attempt: Present,
    /// Whether there is a present attempt.
    is_open: bool,
}

/// The present attempt. What it has in common with [`AttemptStats`] means the same.
#[derive(Default)]
struct Present {
    number: u32,
    /// 0 if nobody told that it began.
    count: u32,
    source: u32,
    delay: Option<Duration>,
    /// When its source was called.
    start: u64,
    /// How many tokens came before it.
    tokens_before: u64,
    first_token: Option<u64>,
    last_token: Option<u64>,
    usage: Option<Usage>,
    /// What the source told; in a box, since it seldom does.
    cost: Option<Box<Cost>>,
    finish_reason: Option<FinishReason>,
    network_errors: BTreeMap<NetworkErrorKind, u64>,
    guardrails: Option<Box<GuardrailStats>>,
    drift: Option<Box<DriftStats>>,
}

/// What a token's arrival told, in nanoseconds.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Arrival {
    /// Since the start of the run; only for its first token.
    pub(crate) first: Option<u64>,
    /// Since the token before, of the same attempt.
    pub(crate) gap: Option<u64>,
}

impl Recording {
    /// Starts to measure a run. No attempt has begun.
    pub(crate) fn start(
        monitoring: &Monitoring,
        session_id: Arc<str>,
        metadata: Metadata,
        start_time: Timestamp,
        start: Instant,
    ) -> Self {
        Self {
            session_id,
            metadata,
            custom_events: Vec::new(),
            start,
            start_time,
            end: None,
            ended: None,
            total_tokens: 0,
            first_token: None,
            first_text: None,
            handed_out: None,
            hold: 0,
            gaps: monitoring.include_timings.then(Histogram::new),
            errors: monitoring.include_network_details.then(VecDeque::new),
            has_rules: false,
            looks_for_drift: false,
            attempts: Vec::new(),
            attempt: Present::default(),
            is_open: false,
        }
    }

    /// Moves the start to now.
    pub(crate) fn restart(&mut self) {
        self.start = clock::now();
        self.start_time = Timestamp::now();
    }

    /// Has an attempt begin of which nothing was told: what is recorded by hand may come without.
    pub(crate) fn open(&mut self) {
        (self.attempt.number, self.attempt.source) = (1, 1);
        self.is_open = true;
    }

    /// Begins the next attempt, if the present one was told of.
    pub(crate) fn next_attempt(&mut self) {
        if self.attempt.count == 0 {
            self.attempt.start = self.nanos(clock::now());
            self.attempt.count = 1;
            return;
        }
        let number = self.attempt.number + 1;
        self.end_attempt(AttemptEnd::void());
        self.begin_attempt(number, 1, None);
    }

    /// Counts a retry. What came before it was thrown away.
    pub(crate) fn retry(&mut self, kind: RetryKind) {
        let number = self.attempt.number + self.attempt.count;
        self.end_attempt(AttemptEnd {
            retry: Some(kind),
            ..AttemptEnd::void()
        });
        self.begin_attempt(number, 1, None);
        self.attempt.count = 0;
    }

    /// An attempt begins. What came before it was thrown away.
    pub(crate) fn begin_attempt(&mut self, number: u32, source: u32, delay: Option<Duration>) {
        self.attempt = Present {
            number,
            count: 1,
            source,
            delay,
            start: self.nanos(clock::now()),
            tokens_before: self.total_tokens,
            ..Present::default()
        };
        self.is_open = true;
    }

    /// Ends the present attempt, if there is one. Returns what it measured.
    pub(crate) fn end_attempt(&mut self, end: AttemptEnd) -> Option<&AttemptStats> {
        let now = self.nanos(clock::now());
        self.end_attempt_at(end, now)
    }

    fn end_attempt_at(&mut self, end: AttemptEnd, now: u64) -> Option<&AttemptStats> {
        if !std::mem::take(&mut self.is_open) {
            return None;
        }
        let mut stats = self.attempt.stats(self.total_tokens);
        stats.duration = Some(Duration::from_nanos(now.saturating_sub(self.attempt.start)));
        stats.network_errors = std::mem::take(&mut self.attempt.network_errors);
        stats.guardrails = self.attempt.guardrails.take().map(|found| *found);
        stats.drift = self.attempt.drift.take().map(|found| *found);
        if end.is_followed || !self.attempts.is_empty() {
            stats.inter_token = self.gaps();
            self.gaps = self.gaps.as_ref().map(|_| Histogram::new());
        }
        end.tell(&mut stats);
        Some(AttemptStats::push(&mut self.attempts, stats))
    }

    /// The gaps of the present attempt, or of the only one.
    fn gaps(&self) -> Option<Distribution> {
        let gaps = self.gaps.as_ref().filter(|gaps| gaps.count() > 0);
        gaps.map(Histogram::distribution)
    }

    /// Returns whether tokens are timed.
    pub(crate) fn timed(&self) -> bool {
        self.gaps.is_some()
    }

    /// Returns whether the run has ended.
    #[inline]
    pub(crate) fn is_final(&self) -> bool {
        self.end.is_some()
    }

    /// Nanoseconds since the start; a time before it is 0.
    #[inline]
    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        // A u64 holds 584 years.
        since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos())
    }

    /// Records an item; `arrived` is given if arrivals are timed.
    #[inline]
    pub(crate) fn item(&mut self, view: &TokenView<'_>, arrived: Option<Instant>) -> Arrival {
        self.answer(view);
        let now = self.timed_nanos(arrived);
        let mut arrival = Arrival::default();
        if view.is_token() {
            arrival = self.token(now);
            if self.first_text.is_none() && view.kind == TokenKind::Text {
                self.first_text = now;
            }
        }
        if let Some(now) = now {
            self.take_hold(now);
            self.handed_out = Some(now);
        }
        arrival
    }

    /// Takes what an item, or an answer that came as one, says besides its text.
    #[inline]
    pub(crate) fn answer(&mut self, view: &TokenView<'_>) {
        if view.usage.is_some() {
            self.attempt.usage = view.usage;
        }
        if view.finish.is_some() {
            self.attempt.finish_reason = view.finish;
        }
        if let Some(cost) = view.cost {
            // A source may tell it with every item.
            match &mut self.attempt.cost {
                Some(told) => **told = *cost,
                told => *told = Some(Box::new(*cost)),
            }
        }
    }

    /// What the present attempt's source told so far.
    pub(crate) fn told(&self) -> Told {
        Told {
            usage: self.attempt.usage,
            cost: self.attempt.cost.as_deref().copied(),
            is_whole: self.attempt.finish_reason.is_some(),
            tokens: self.total_tokens - self.attempt.tokens_before,
        }
    }

    /// Counts a token that arrived at this time.
    #[inline]
    pub(crate) fn token_at(&mut self, arrived: Option<Instant>) {
        self.token(self.timed_nanos(arrived));
    }

    /// Counts a token. `now` is given if tokens are timed.
    #[inline]
    fn token(&mut self, now: Option<u64>) -> Arrival {
        self.total_tokens += 1;
        let mut arrival = Arrival::default();
        let (Some(now), Some(gaps)) = (now, &mut self.gaps) else {
            return arrival;
        };
        if self.attempt.first_token.is_none() {
            self.attempt.first_token = Some(now);
            if self.first_token.is_none() {
                self.first_token = Some(now);
                arrival.first = Some(now);
            }
        }
        if let Some(before) = self.attempt.last_token.replace(now) {
            let gap = now.saturating_sub(before);
            gaps.record(gap);
            arrival.gap = Some(gap);
        }
        arrival
    }

    /// The time of an arrival, if tokens are timed.
    #[inline]
    fn timed_nanos(&self, arrived: Option<Instant>) -> Option<u64> {
        self.gaps.as_ref()?;
        Some(self.nanos(arrived?))
    }

    /// Ends the consumer's hold, if there is one.
    #[inline]
    fn take_hold(&mut self, now: u64) {
        if let Some(since) = self.handed_out.take() {
            self.hold += now.saturating_sub(since);
        }
    }

    /// The consumer is back, and the source is pending.
    pub(crate) fn pending(&mut self, now: Instant) {
        let now = self.nanos(now);
        self.take_hold(now);
    }

    /// A chunk other than an item was handed out.
    pub(crate) fn handed_out(&mut self, now: Instant) {
        let now = self.nanos(now);
        self.take_hold(now);
        self.handed_out = Some(now);
    }

    /// Records a network error that happened now. The timestamp of the record is set here.
    pub(crate) fn network_error(&mut self, mut error: NetworkErrorRecord) {
        *self.attempt.network_errors.entry(error.kind).or_default() += 1;
        if self.errors.is_none() {
            return;
        }
        error.timestamp = self.timestamp();
        let errors = self.errors.get_or_insert_default();
        if errors.len() == Network::MAX_ERRORS {
            errors.pop_front();
        }
        errors.push_back(error);
    }

    /// Counts violations; an empty slice says that rules are checked.
    pub(crate) fn violations(&mut self, violations: &[Violation]) {
        self.has_rules = true;
        for violation in violations {
            let stats = self.attempt.guardrails.get_or_insert_default();
            stats.record(violation);
        }
    }

    /// Records drift; a report of none says that it is looked for.
    pub(crate) fn drift(&mut self, report: &DriftReport) {
        self.looks_for_drift = true;
        if report.detected() {
            self.attempt.drift.get_or_insert_default().record(report);
        }
    }

    /// Keeps an event of the application.
    pub(crate) fn custom_event(&mut self, name: String, mut fields: Map<String, Value>) {
        if self.custom_events.len() == MAX_CUSTOM_EVENTS {
            return;
        }
        fields.insert("type".to_owned(), name.into());
        fields.insert("timestamp".to_owned(), self.timestamp().as_millis().into());
        self.custom_events.push(Value::Object(fields));
    }

    /// Returns the time of now, by the wall clock of the start.
    fn timestamp(&self) -> Timestamp {
        let since = clock::now().saturating_duration_since(self.start);
        self.start_time.after(since)
    }

    /// Ends the run, and its present attempt with it, if there is one, of which `told` is told:
    /// telemetry is final from here on. Returns what the attempt measured.
    pub(crate) fn finish(&mut self, end: End, told: Option<AttemptEnd>) -> Option<&AttemptStats> {
        let now = self.nanos(clock::now());
        self.take_hold(now);
        self.end = Some(now);
        self.ended = Some(end);
        self.end_attempt_at(told?, now)
    }

    /// Returns what was measured so far.
    pub(crate) fn telemetry(&self) -> Telemetry {
        let mut attempts = self.attempts.clone();
        let mut gaps = self.gaps();
        if self.is_open {
            let mut present = self.attempt.stats(self.total_tokens);
            present.network_errors = self.attempt.network_errors.clone();
            present.guardrails = self.attempt.guardrails.as_deref().cloned();
            present.drift = self.attempt.drift.as_deref().cloned();
            if !attempts.is_empty() {
                present.inter_token = gaps.take();
            }
            AttemptStats::push(&mut attempts, present);
        }
        self.add_up(attempts, gaps)
    }

    /// Returns what was measured by a run that has ended, and keeps none of it.
    pub(crate) fn into_telemetry(mut self: Box<Self>) -> Telemetry {
        let attempts = std::mem::take(&mut self.attempts);
        self.add_up(attempts, self.gaps())
    }

    /// Adds the attempts up. `gaps` are those that are not told by an attempt.
    fn add_up(&self, mut attempts: Vec<AttemptStats>, gaps: Option<Distribution>) -> Telemetry {
        let timed_end = self.end.filter(|_| self.gaps.is_some());
        // Each field by its name: a default in its place would be made and moved over.
        let mut telemetry = Telemetry {
            session_id: self.session_id.as_ref().to_owned(),
            parent_id: None,
            start_time: self.start_time,
            duration: self.end.map(Duration::from_nanos),
            outcome: self.ended.as_ref().map(End::outcome),
            error: self.ended.as_ref().and_then(ErrorRecord::of),
            metrics: Metrics {
                time_to_first_token: self.first_token.map(Duration::from_nanos),
                time_to_first_text: self.first_text.map(Duration::from_nanos),
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
                errors: self
                    .errors
                    .as_ref()
                    .map(|errors| errors.iter().cloned().collect()),
            },
            guardrails: self.has_rules.then(GuardrailStats::default),
            drift: self.looks_for_drift.then(DriftStats::default),
            metadata: self.metadata.clone(),
            kept: None,
            finish_reason: None,
            usage: None,
            wasted_usage: None,
            cost: None,
            wasted_cost: None,
            estimated_usage: None,
            estimated_cost: None,
            attempts: Vec::new(),
        };
        telemetry.add_attempts(&attempts, true);
        if !self.custom_events.is_empty() {
            let events = self.custom_events.clone().into();
            telemetry.metadata.insert("customEvents".to_owned(), events);
        }
        // By hand, they may never have been told of.
        if attempts.iter().all(|attempt| attempt.count == 0) {
            attempts.clear();
        }
        telemetry.attempts = attempts;
        telemetry
    }
}

impl Present {
    /// What it measured so far, in a run of so many tokens; but what it has of maps is not there.
    fn stats(&self, total_tokens: u64) -> AttemptStats {
        let since_start = |at: u64| Duration::from_nanos(at.saturating_sub(self.start));
        AttemptStats {
            number: self.number,
            count: self.count,
            source: self.source,
            delay: self.delay,
            start_offset: Some(Duration::from_nanos(self.start)),
            tokens: total_tokens - self.tokens_before,
            time_to_first_token: self.first_token.map(since_start),
            usage: self.usage,
            cost: self.cost.as_deref().copied(),
            finish_reason: self.finish_reason,
            ..AttemptStats::default()
        }
    }
}

/// What is told of an attempt at its end.
#[derive(Debug, Default)]
pub(crate) struct AttemptEnd {
    pub(crate) outcome: Option<Outcome>,
    pub(crate) error: Option<ErrorRecord>,
    /// Which retry follows, if one does.
    pub(crate) retry: Option<RetryKind>,
    /// Whether the next source is asked.
    pub(crate) falls_back: bool,
    /// Whether another attempt is to follow.
    pub(crate) is_followed: bool,
    pub(crate) response_model: Option<Box<str>>,
    pub(crate) response_id: Option<Box<str>>,
    pub(crate) names: Names,
    pub(crate) bill: Bill,
}

/// What is made of what a source told of an attempt.
#[derive(Debug, Default)]
pub(crate) struct Bill {
    /// What a price makes of the usage that was told.
    pub(crate) cost: Option<Cost>,
    /// Whether there is none for it.
    pub(crate) is_unpriced: bool,
    /// What was used besides, by an estimate.
    pub(crate) estimated_usage: Option<Usage>,
    /// What a price makes of that.
    pub(crate) estimated_cost: Option<Cost>,
}

impl AttemptEnd {
    /// The end of an attempt that ended as its run did.
    pub(crate) fn of(end: &End) -> Self {
        Self {
            outcome: Some(end.outcome()),
            error: ErrorRecord::of(end),
            ..Self::default()
        }
    }

    /// The end of an attempt that was thrown away, for a reason that was not told.
    fn void() -> Self {
        Self {
            outcome: Some(Outcome::Failed),
            is_followed: true,
            ..Self::default()
        }
    }

    /// Tells it.
    pub(crate) fn tell(self, stats: &mut AttemptStats) {
        stats.outcome = self.outcome;
        stats.error = self.error;
        match self.retry {
            Some(RetryKind::Network) => stats.network_retries += 1,
            Some(RetryKind::Model) => stats.model_retries += 1,
            None => {}
        }
        stats.fallbacks += u32::from(self.falls_back);
        stats.response_model = self.response_model.map(String::from);
        stats.response_id = self.response_id.map(String::from);
        self.names.tell(stats);
        stats.cost = stats.cost.or(self.bill.cost);
        stats.unpriced += u32::from(self.bill.is_unpriced);
        stats.estimated_usage = self.bill.estimated_usage;
        stats.estimated_cost = self.bill.estimated_cost;
    }
}

/// Makes a new id: `l0_`, a number that tells runs apart in time, and 64 random bits.
pub(crate) fn session_id(number: u64, rng: &mut fastrand::Rng) -> Arc<str> {
    // 20 digits hold any u64; 13 digits to the base of 36 hold 64 random bits.
    let mut id = [b'0'; 3 + 20 + 1 + 13];
    let mut first = id.len() - 13;
    put_digits::<36>(&mut id, rng.u64(..));
    first -= 1;
    id[first] = b'_';
    first = put_digits::<10>(&mut id[..first], number).min(first - 1);
    first -= 3;
    id[first..first + 3].copy_from_slice(b"l0_");
    let id = std::str::from_utf8(&id[first..]);
    id.unwrap_or_default().into()
}

/// Puts the digits of a number at the end of a text. Returns where the first of them is.
fn put_digits<const BASE: u64>(text: &mut [u8], mut number: u64) -> usize {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut first = text.len();
    while number > 0 && first > 0 {
        first -= 1;
        text[first] = DIGITS[(number % BASE) as usize];
        number /= BASE;
    }
    first
}
