//! Recorder: the recording and the observers of one run. It finishes exactly once, at the latest
//! when it is dropped. It does not depend on the state machine that reports to it.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::attempt_stats::{AttemptStats, Names};
use crate::clock;
use crate::end::{Cause, End, LimitKind};
use crate::error::Refusal;
use crate::estimate::{self, Unfinished};
use crate::event::{Event, RetryKind, RetryReason};
use crate::failure::{Failure, NetworkErrorKind};
use crate::keep;
use crate::keys;
use crate::live::{LiveRuns, Place};
use crate::metadata::Metadata;
use crate::observe::{Interceptor, NewRun, Observers, RunInfo, RunParts, SourceInfo, contain};
use crate::options::{Options, Seed};
use crate::price::{Cost, Price, Priced};
use crate::progress::Cells;
use crate::recording::{Arrival, AttemptEnd, Bill, Identity, Recording, RunId};
use crate::source::Description;
use crate::spending::{Reported, Spending};
use crate::stop::{Final, RunHandle, Stop, Until};
use crate::telemetry::{NetworkErrorRecord, Telemetry, Timestamp};
use crate::token::{TokenKind, TokenView};
use crate::usage::Usage;
use crate::verdict::{DriftReport, Outcome, Violation};

/// The fields that each token touches come last, so they are adjacent.
#[repr(C)]
pub(crate) struct Recorder<'a> {
    info: RunInfo,
    options: Arc<Options>,
    /// Present until `Finished` was delivered.
    live: Option<Place>,
    /// The current attempt; `None` between two attempts.
    attempt: Option<Begun>,
    /// The delay before the next attempt.
    delay: Option<Duration>,
    timed: bool,
    /// The part that must be notified when the run begins to wait.
    waits: Waits,
    /// `true` if [`Keep::rate`](crate::Keep::rate) keeps the run, whatever its outcome.
    is_drawn: bool,
    is_violated: bool,
    attempts: u32,
    finished: bool,
    /// The model that the response of the current attempt names.
    response_model: Option<Box<str>>,
    response_id: Option<Box<str>>,
    observers: Observers,
    /// `None` if no item needs it.
    per_item: Option<Box<PerItem>>,
    stop: Stop<'a>,
    /// `None` if the run is not measured, and after its end.
    recording: Option<Box<Recording>>,
    /// `None` if no interceptor reads the progress.
    progress: Option<Arc<Cells>>,
    tokens: u64,
}

/// The recording of a plain token: one with text only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordMode {
    /// Like any other item: it can be the first of its kind, or its content is needed.
    Full,
    /// Nothing is measured: it is only counted.
    Counted,
    /// It is also counted in the recording.
    Recorded,
    /// It is also timed.
    Timed,
    /// It also updates the progress.
    Observed,
}

/// The work per item that only some options need. It is behind one pointer, so all other runs check
/// only that.
struct PerItem {
    /// `true` if characters are counted, because usage is estimated from them.
    counts_characters: bool,
    /// The characters of the current attempt's output.
    characters: u64,
    /// The characters of the current attempt's input.
    input_characters: Option<u64>,
    /// `None` if nothing limits the run.
    spending: Option<Box<Spending>>,
}

/// The part that must be notified when the run begins to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Nothing.
    Unrecorded,
    /// The recording.
    Recorded,
    /// The progress, and the recording if arrivals are timed.
    Observed,
}

/// An attempt that has begun.
struct Begun {
    number: u32,
    source: u32,
    delay: Option<Duration>,
    tokens_before: u64,
}

/// The step after a failed attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Next {
    /// The same source is called again.
    Retry(RetryKind),
    /// The next source is called.
    Fallback,
    /// No step follows.
    Nothing,
}

/// The maximum length of a model name or a response id, in bytes.
const MAX_NAME: usize = 256;

/// The start of a run, in addition to its options.
pub(crate) struct Setup<'a> {
    pub(crate) metadata: Metadata,
    pub(crate) until: Vec<Until<'a>>,
    pub(crate) panics: Arc<AtomicU64>,
    pub(crate) live: Arc<LiveRuns>,
    pub(crate) parent: Option<RunInfo>,
    /// The first source's description of its request, and the request's input.
    pub(crate) source: (Description, Option<Value>),
    pub(crate) fallbacks: Vec<(Description, Option<Value>)>,
    pub(crate) is_call: bool,
    /// `true` if limits and budgets can end the run.
    pub(crate) may_stop: bool,
}

impl<'a> Recorder<'a> {
    /// Starts a run: decides if it is sampled, calls the interceptors, creates the observers and
    /// emits `Started`. A refused run is already finished when this returns.
    pub(crate) fn start(
        options: &Arc<Options>,
        setup: Setup<'a>,
    ) -> (Self, Result<(), Refusal>, fastrand::Rng) {
        let Setup {
            metadata,
            until,
            panics,
            live,
            parent,
            source: (mut source, input),
            fallbacks,
            is_call,
            may_stop,
        } = setup;
        let input = input.filter(|_| options.needs_input());
        let (number, rng) = options.seed.as_ref().map(Seed::next_run).unzip();
        let mut rng = rng.unwrap_or_default();
        let monitoring = &options.monitoring;
        let measured = options.draw(&mut rng);
        let started_at = Timestamp::now();
        let is_drawn = monitoring.keep.draw(&mut rng);
        let id = RunId::new(number.unwrap_or(started_at.as_millis()), &mut rng);
        let now = clock::now();

        let mut own = monitoring.shared_metadata();
        own.overlay(metadata);
        if let Some(parent) = &parent {
            let conversation = parent.metadata().get(keys::CONVERSATION_ID);
            if let (Some(id), false) = (conversation, own.contains_key(keys::CONVERSATION_ID)) {
                own.insert(keys::CONVERSATION_ID.to_owned(), id.clone());
            }
        }
        let mut new_run = NewRun::new(source.metadata_of_first(&own));
        let asked = options
            .interceptors
            .iter()
            .try_for_each(|interceptor| ask(&**interceptor, &mut new_run));
        let begun = asked.and_then(|()| match may_stop {
            true => Spending::begin(options.limits, &options.budgets),
            false => Ok(None),
        });
        let (spending, allowed) = match begun {
            Ok(spending) => (spending, Ok(())),
            Err(refusal) => (None, Err(refusal)),
        };

        let is_timed = measured && monitoring.include_timings;
        let counts_characters =
            (measured || spending.is_some()) && options.estimate_usage.is_some();
        let looked_on = options.needs_progress();
        let per_item = (spending.is_some() || counts_characters).then(|| {
            Box::new(PerItem {
                counts_characters,
                characters: 0,
                input_characters: None,
                spending,
            })
        });
        let progress = looked_on.then(|| Arc::new(Cells::new(now, is_timed)));
        let metadata = new_run.into_metadata();
        source.redact();
        let mut of_fallbacks = Vec::with_capacity(fallbacks.len());
        for (mut description, input) in fallbacks {
            description.redact();
            of_fallbacks.push(SourceInfo {
                metadata: description.metadata_of_fallback(&metadata, &source, &own),
                description,
                input: input.map(Box::new),
            });
        }
        let known = RunParts {
            id,
            parent_id: parent.map(|parent| parent.id().into()),
            fallbacks: of_fallbacks,
            source: SourceInfo {
                metadata: metadata.clone(),
                description: source,
                input: input.map(Box::new),
            },
            metadata,
            is_call,
            started_at,
            measured,
            progress: progress.clone(),
        };
        let info = RunInfo::new(known, panics);
        let recording = measured.then(|| Recording::start(monitoring, started_at, now));
        let mut observers = Observers::new(info.clone());
        for interceptor in &options.interceptors {
            info.contain(|| interceptor.observe(&info, &mut observers));
        }

        let stop = Stop::new(until, progress.clone());
        let mut recorder = Self {
            timed: is_timed,
            waits: match (looked_on, is_timed) {
                (true, _) => Waits::Observed,
                (false, true) => Waits::Recorded,
                (false, false) => Waits::Unrecorded,
            },
            info,
            options: Arc::clone(options),
            recording,
            observers,
            live: Some(live.enter(stop.handle(), now)),
            stop,
            tokens: 0,
            attempt: None,
            delay: None,
            is_drawn,
            is_violated: false,
            attempts: 0,
            finished: false,
            response_model: None,
            response_id: None,
            per_item,
            progress,
        };
        recorder.observers.deliver(&Event::Started {
            at: measured.then_some(started_at),
        });
        if let Err(refusal) = &allowed {
            recorder.finish(End::refused(&refusal.message), None);
        }
        (recorder, allowed, rng)
    }

    pub(crate) fn info(&self) -> &RunInfo {
        &self.info
    }

    pub(crate) fn handle(&self) -> RunHandle {
        self.stop.handle()
    }

    pub(crate) fn stop(&mut self) -> &mut Stop<'a> {
        &mut self.stop
    }

    /// Returns `true` if arrivals are timed.
    #[inline]
    pub(crate) fn timed(&self) -> bool {
        self.timed
    }

    /// Returns the number of tokens of all attempts so far.
    #[inline]
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    pub(crate) fn finished(&self) -> bool {
        self.finished
    }

    pub(crate) fn end(&self) -> Option<&End> {
        self.stop.end().map(|ended| &ended.end)
    }

    pub(crate) fn telemetry(&self) -> Option<Telemetry> {
        if let Some(ended) = self.stop.end() {
            return ended.telemetry.as_deref().cloned();
        }
        let recording = self.recording.as_deref()?;
        let mut telemetry = *recording.telemetry(self.identity(self.metadata()));
        for attempt in &mut telemetry.attempts {
            if attempt.outcome.is_none() {
                self.names(attempt.source).write_to(attempt);
            }
        }
        Some(telemetry)
    }

    fn identity(&self, metadata: Metadata) -> Identity {
        Identity {
            session_id: self.info.own_id(),
            parent_id: self.info.parent_id().map(str::to_owned),
            metadata,
        }
    }

    /// The metadata of the run, including what was set while it is live.
    fn metadata(&self) -> Metadata {
        let mut metadata = self.info.metadata().clone();
        let set = self.stop.metadata();
        if !set.is_empty() {
            metadata.overlay(set);
            keys::redact_endpoint(&mut metadata);
        }
        metadata
    }

    /// Begins an attempt.
    pub(crate) fn attempt_started(&mut self, number: u32, source: u32) {
        let delay = self.delay.take();
        if let Some(recording) = &mut self.recording {
            recording.begin_attempt(number, source, delay);
        }
        self.attempts = number;
        if let Some(progress) = &self.progress {
            progress.attempt(number);
        }
        if let Some(per_item) = &mut self.per_item {
            per_item.characters = 0;
            if per_item.counts_characters {
                let source = self.info.source(source);
                let input = source.and_then(|source| source.input.as_deref());
                per_item.input_characters = input.map(estimate::characters);
            }
        }
        self.attempt = Some(Begun {
            number,
            source,
            delay,
            tokens_before: self.tokens,
        });
        (self.response_model, self.response_id) = (None, None);
        self.observers
            .deliver(&Event::AttemptStarted { number, source });
    }

    /// Ends the current attempt, if there is one.
    pub(crate) fn attempt_finished(&mut self, end: &End, next: Next) {
        let Some(begun) = self.attempt.take() else {
            return;
        };
        let mut report = self.attempt_end(&begun, end, next);
        match &mut self.recording {
            Some(recording) => {
                if let Some(attempt) = recording.end_attempt(&mut report) {
                    self.observers.deliver(&Event::AttemptFinished { attempt });
                }
            }
            None => self.unmeasured_attempt_finished(&begun, &mut report),
        }
    }

    /// Emits the end of an attempt that was not measured.
    fn unmeasured_attempt_finished(&mut self, begun: &Begun, report: &mut AttemptEnd) {
        if self.observers.is_empty() {
            return;
        }
        let mut attempt = AttemptStats {
            number: begun.number,
            source: begun.source,
            delay: begun.delay,
            tokens: self.tokens - begun.tokens_before,
            ..AttemptStats::default()
        };
        report.write_to(&mut attempt);
        self.observers
            .deliver(&Event::AttemptFinished { attempt: &attempt });
        // `Finished` needs the names too.
        self.response_model = attempt.response_model.map(Into::into);
        self.response_id = attempt.response_id.map(Into::into);
    }

    /// Collects what is reported at the end of an attempt.
    fn attempt_end(&mut self, begun: &Begun, end: &End, next: Next) -> AttemptEnd {
        if !self.is_reported() {
            return AttemptEnd::default();
        }
        let mut report = AttemptEnd::of(end);
        report.retry = match next {
            Next::Retry(kind) => Some(kind),
            Next::Fallback | Next::Nothing => None,
        };
        report.falls_back = matches!(next, Next::Fallback);
        report.is_followed = !matches!(next, Next::Nothing);
        report.response_model = self.response_model.take();
        report.response_id = self.response_id.take();
        report.names = self.names(begun.source);
        let (bill, cost) = self.bill(begun.source, &report);
        if let Some(spending) = self.spending_mut() {
            spending.end_attempt([cost, bill.estimated_cost]);
        }
        // A run that is not measured reports no usage, and so no costs.
        if self.recording.is_some() {
            report.bill = bill;
        }
        report
    }

    /// Prices the usage that the current attempt reported, and estimates the rest. Returns both,
    /// and the cost of the reported usage. Does nothing if the run is neither measured nor limited.
    fn bill(&self, source: u32, end: &AttemptEnd) -> (Bill, Option<Cost>) {
        let mut bill = Bill::default();
        let reported = match (&self.recording, self.spending()) {
            (Some(recording), _) => recording.reported(),
            (None, Some(spending)) => spending.reported,
            (None, None) => return (bill, None),
        };
        let model = priced(&end.names, end.response_model.as_deref());
        let is_early = end.outcome != Some(Outcome::Completed) && !reported.is_whole;
        if is_early && reported.tokens > 0 {
            let estimated = self.estimate(source, model, &reported);
            bill.estimated_usage =
                estimated.and_then(|all| estimate::unreported(all, reported.usage));
        }
        let is_used = reported.usage.is_some() || bill.estimated_usage.is_some();
        if is_used && reported.cost.is_none() {
            let price = self.price(&model);
            bill.is_unpriced =
                self.options.pricing.is_some() && reported.usage.is_some() && price.is_none();
            if let Some(price) = price {
                bill.cost = reported.usage.and_then(|usage| price.cost(&usage));
                bill.estimated_cost = bill
                    .estimated_usage
                    .and_then(|more| price.cost_of_more(reported.usage, more));
            }
        }
        let cost = reported.cost.or(bill.cost);
        (bill, cost)
    }

    /// Returns the price of a model, or `None` if it is unknown.
    fn price(&self, model: &Priced<'_>) -> Option<Arc<Price>> {
        let pricing = self.options.pricing.as_deref()?;
        self.info.contain(|| pricing.price(model)).flatten()
    }

    /// Estimates the total usage of the current attempt.
    fn estimate(&self, source: u32, model: Priced<'_>, reported: &Reported) -> Option<Usage> {
        let estimate = self.options.estimate_usage.as_deref()?;
        let per_item = self.per_item.as_ref()?;
        let source = self.info.source(source);
        let attempt = Unfinished {
            model,
            tokens: reported.tokens,
            characters: per_item.characters,
            input: source.and_then(|source| source.input.as_deref()),
            input_characters: per_item.input_characters,
            reported: reported.usage,
        };
        self.info.contain(|| estimate(&attempt)).flatten()
    }

    /// Counts the characters of an item, and updates the spending of the run.
    #[inline(never)]
    fn count(&mut self, view: &TokenView<'_>) {
        if let Some(per_item) = self.per_item.as_mut().filter(|it| it.counts_characters) {
            if view.is_token() && view.kind != TokenKind::Media {
                per_item.characters += view.text.chars().count() as u64;
            }
        }
        self.spend(view);
    }

    fn counts_characters(&self) -> bool {
        let per_item = self.per_item.as_ref();
        per_item.is_some_and(|per_item| per_item.counts_characters)
    }

    /// Updates the spending of the run with an item.
    fn spend(&mut self, view: &TokenView<'_>) {
        let source = self.attempt.as_ref().map_or(1, |attempt| attempt.source);
        let per_item = self.per_item.as_mut();
        let Some(mut spending) = per_item.and_then(|per_item| per_item.spending.take()) else {
            return;
        };
        let tells = spending.item(view, self.tokens);
        // A complete answer is no longer estimated. The last estimate stays until its usage is
        // reported.
        let is_estimated =
            self.counts_characters() && view.is_token() && !spending.reported.is_whole;
        if spending.has_money_limits() && (tells || is_estimated) {
            // Once per attempt, because names are allocated.
            let (names, price) = spending.priced.get_or_insert_with(|| {
                let names = self.names(source);
                let price = self.price(&priced(&names, self.response_model.as_deref()));
                (names, price)
            });
            let reported = spending.reported;
            let estimated = match reported.is_whole {
                true => None,
                false => {
                    let model = priced(names, self.response_model.as_deref());
                    self.estimate(source, model, &reported)
                }
            };
            let price = price.clone();
            spending.count(price.as_deref(), estimated);
        }
        if spending.reached().is_some() {
            self.stop.set_pending_work(true);
        }
        if let Some(per_item) = &mut self.per_item {
            per_item.spending = Some(spending);
        }
    }

    fn spending(&self) -> Option<&Spending> {
        self.per_item.as_ref()?.spending.as_deref()
    }

    fn spending_mut(&mut self) -> Option<&mut Spending> {
        self.per_item.as_mut()?.spending.as_deref_mut()
    }

    /// Returns the limit that was crossed, by this run or by other runs that share its budgets.
    pub(crate) fn reached(&mut self) -> Option<LimitKind> {
        self.spending_mut()?.reached()
    }

    fn names(&self, source: u32) -> Names {
        let metadata = self.info.source(source).map(|source| &source.metadata);
        let metadata = metadata.filter(|metadata| !metadata.is_empty());
        let name = |key| Some(keys::text(metadata?, key)?.into_owned());
        Names {
            model: name(keys::MODEL),
            provider: name(keys::PROVIDER),
            operation: name(keys::OPERATION),
        }
    }

    /// Returns `true` if the end of an attempt is reported anywhere.
    #[inline]
    fn is_reported(&self) -> bool {
        self.recording.is_some() || !self.observers.is_empty() || self.spending().is_some()
    }

    /// Calls `poll` once, inside the observers' contexts.
    pub(crate) fn connect(&mut self, poll: impl FnMut()) {
        self.observers.connect(poll);
    }

    /// Returns how the next plain token is recorded. Valid until the attempt ends.
    #[inline]
    pub(crate) fn record_mode(&self) -> RecordMode {
        if self.tokens == 0 || self.observers.want_tokens() || self.per_item.is_some() {
            return RecordMode::Full;
        }
        match (&self.recording, &self.progress) {
            (Some(recording), _) if !recording.is_under_way() => RecordMode::Full,
            (None, None) => RecordMode::Counted,
            (Some(_), None) if !self.timed => RecordMode::Recorded,
            (Some(_), None) => RecordMode::Timed,
            (Some(_), Some(_)) if self.timed => RecordMode::Observed,
            (_, Some(_)) => RecordMode::Full,
        }
    }

    /// Records a plain token in a mode other than [`Full`](RecordMode::Full).
    #[inline(always)]
    pub(crate) fn token(&mut self, mode: RecordMode) {
        self.tokens += 1;
        if mode != RecordMode::Counted {
            self.measure_token(mode);
        }
    }

    /// Out of line, so runs that are not measured do not pay for its stack frame.
    #[inline(never)]
    fn measure_token(&mut self, mode: RecordMode) {
        let Some(recording) = &mut self.recording else {
            return;
        };
        if mode == RecordMode::Recorded {
            return recording.count_token();
        }
        recording.time_token(clock::now());
        if let (RecordMode::Observed, Some(progress)) = (mode, &self.progress) {
            progress.item(self.tokens, recording.held_since());
        }
    }

    /// Returns `true` if an item names the model or the response for the first time.
    #[inline(always)]
    pub(crate) fn is_named_by(&self, view: &TokenView<'_>) -> bool {
        (view.model.is_some() && self.response_model.is_none()
            || view.response_id.is_some() && self.response_id.is_none())
            && self.is_reported()
    }

    /// Records an item. `arrived` is present if arrivals are timed. Returns `true` if the item is a
    /// token.
    #[inline]
    pub(crate) fn item(&mut self, view: &TokenView<'_>, arrived: Option<Instant>) -> bool {
        let arrival = match &mut self.recording {
            Some(recording) => recording.item(view, arrived),
            None => Arrival::default(),
        };
        if view.model.is_some() || view.response_id.is_some() {
            self.keep_names(view);
        }
        let is_token = view.is_token();
        if is_token {
            let index = self.tokens;
            self.tokens += 1;
            if index == 0 || self.observers.want_tokens() {
                self.token_events(index, arrival, view);
            }
        }
        if let Some(progress) = &self.progress {
            let recording = self.recording.as_ref();
            let at = recording.map_or(0, |recording| recording.held_since());
            progress.item(self.tokens, at);
        }
        if self.per_item.is_some() {
            self.count(view);
        }
        is_token
    }

    /// Records the single answer of a call.
    pub(crate) fn answer(&mut self, view: &TokenView<'_>) {
        if let Some(recording) = &mut self.recording {
            recording.answer(view);
        }
        if view.model.is_some() || view.response_id.is_some() {
            self.keep_names(view);
        }
        if self.observers.want_tokens() {
            self.observers.deliver_token(&Event::Answer { view: *view });
        }
        if self.spending().is_some() {
            self.spend(view);
        }
    }

    /// Keeps the first names only, because many sources repeat them with every item. Keeps none if
    /// nothing reports them.
    #[inline(never)]
    fn keep_names(&mut self, view: &TokenView<'_>) {
        if self.is_reported() {
            let was_named = self.response_model.is_some();
            keep_first(&mut self.response_model, view.model);
            keep_first(&mut self.response_id, view.response_id);
            let is_named = !was_named && self.response_model.is_some();
            if let (true, Some(spending)) = (is_named, self.spending_mut()) {
                // The model that answers can have another price than the requested one.
                spending.priced = None;
            }
        }
    }

    fn token_events(&mut self, index: u64, arrival: Arrival, view: &TokenView<'_>) {
        if index == 0 {
            if let (Some(progress), Some(first)) = (&self.progress, arrival.first) {
                progress.first_token(Duration::from_nanos(first));
            }
            self.observers.deliver(&Event::FirstToken {
                after: arrival.first.map(Duration::from_nanos),
            });
        }
        if self.observers.want_tokens() {
            let mut view = *view;
            view.model = view.model.or(self.response_model.as_deref());
            self.observers.deliver_token(&Event::Token {
                index,
                gap: arrival.gap.map(Duration::from_nanos),
                view,
            });
        }
    }

    /// Returns what must be notified when the run begins to wait.
    #[inline]
    pub(crate) fn waits(&self) -> Waits {
        self.waits
    }

    /// Records that the source is pending. Returns the time, in nanoseconds since the start.
    #[inline]
    pub(crate) fn pending(&mut self, now: Instant) -> u64 {
        let recording = self.recording.as_mut();
        recording.map_or(0, |recording| recording.pending(now))
    }

    /// Updates the progress: the run waits for its source, or for the end of a back-off.
    #[inline]
    pub(crate) fn waits_from(&mut self, backs_off: bool, at: u64) {
        if let Some(progress) = &self.progress {
            let attempt = self.attempt.as_ref();
            let before = attempt.map_or(0, |attempt| attempt.tokens_before);
            progress.pending(backs_off, self.tokens > before, at);
        }
    }

    /// Records that a chunk other than an item was yielded.
    pub(crate) fn yielded(&mut self) {
        let mut at = 0;
        if let Some(recording) = self.recording.as_mut().filter(|_| self.timed) {
            recording.yielded(clock::now());
            at = recording.held_since();
        }
        if let Some(progress) = &self.progress {
            progress.yielded(at);
        }
    }

    /// Updates the progress: the source is called.
    pub(crate) fn connecting(&mut self) {
        if let Some(progress) = &self.progress {
            let timed = self.recording.as_ref().filter(|_| self.timed);
            progress.connecting(timed.map_or(0, |recording| recording.attempt_start()));
        }
    }

    /// Updates the progress: the source has returned its stream.
    pub(crate) fn connected(&mut self) {
        if let Some(progress) = &self.progress {
            progress.connected();
        }
    }

    /// Returns the message of a source's error, which was classified as `failure`.
    pub(crate) fn message(&self, error: &(dyn StdError + 'static), failure: &Failure) -> String {
        self.options.monitoring.message(error, failure)
    }

    /// Records a network error. A retry follows if `delay` is present.
    pub(crate) fn network_error(
        &mut self,
        kind: NetworkErrorKind,
        message: &str,
        delay: Option<Duration>,
        attempt: u32,
    ) {
        if let Some(recording) = &mut self.recording {
            let mut record =
                NetworkErrorRecord::new(kind, message, Timestamp::default()).attempt(attempt);
            if delay.is_some() {
                record = record.retried(delay);
            }
            recording.network_error(record);
        }
        self.observers.deliver(&Event::NetworkError {
            kind,
            message,
            delay,
            attempt: Some(attempt),
        });
    }

    /// Records the switch from one source to another.
    pub(crate) fn fallback(&mut self, from: u32, to: u32) {
        self.observers.deliver(&Event::Fallback { from, to });
    }

    /// Records a retry that will happen after the delay.
    pub(crate) fn retry(
        &mut self,
        attempt: u32,
        kind: RetryKind,
        reason: RetryReason,
        delay: Duration,
    ) {
        self.delay = Some(delay);
        self.observers.deliver(&Event::Retry {
            attempt,
            reason,
            delay,
            kind,
        });
    }

    /// Records the violations of a check of the rules.
    pub(crate) fn violations(&mut self, violations: &[Violation]) {
        if let Some(recording) = &mut self.recording {
            recording.violations(violations);
        }
        self.is_violated |= !violations.is_empty();
        for violation in violations {
            self.observers.deliver(&Event::Violation { violation });
        }
    }

    /// Records the reports of a drift check.
    pub(crate) fn drift(&mut self, reports: &[DriftReport]) {
        if let Some(recording) = &mut self.recording {
            // An empty report records that drift detection is on.
            recording.drift(&DriftReport::none());
            for report in reports {
                recording.drift(report);
            }
        }
        self.is_violated |= reports.iter().any(DriftReport::detected);
        for report in reports {
            self.observers.deliver(&Event::Drift { report });
        }
    }

    /// Ends the run: finalizes the telemetry, notifies the handles, emits `Finished`, drops the
    /// observers and leaves the list of live runs. Only the first call has an effect.
    pub(crate) fn finish(&mut self, end: End, error: Option<&(dyn StdError + 'static)>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let begun = self.attempt.take();
        let mut report = match &begun {
            Some(begun) => self.attempt_end(begun, &end, Next::Nothing),
            None => AttemptEnd::default(),
        };
        let mut recording = self.recording.take();
        match (&mut recording, &begun) {
            (Some(recording), begun) => {
                let report = begun.is_some().then_some(&mut report);
                if let Some(attempt) = recording.finish(&end, report) {
                    self.observers.deliver(&Event::AttemptFinished { attempt });
                }
            }
            (None, Some(begun)) => self.unmeasured_attempt_finished(begun, &mut report),
            (None, None) => {}
        }
        let metadata = self.metadata();
        let kept = self.options.monitoring.keep.reason(
            self.is_drawn,
            keep::EndedRun {
                is_failure: end.is_failure(),
                duration: recording
                    .as_ref()
                    .and_then(|recording| recording.duration()),
                is_violated: self.is_violated,
                attempts: self.attempts,
            },
        );
        let last = Final {
            end,
            telemetry: recording.map(|recording| {
                let mut telemetry = recording.into_telemetry(self.identity(metadata.clone()));
                telemetry.kept = kept;
                telemetry
            }),
        };
        // A panic of a waker must not keep the end from the handles.
        let _ = contain(|| self.stop.forget_task());
        let Final { end, telemetry } = self.stop.publish(last);
        if !self.observers.is_empty() {
            let attempts = telemetry.iter().flat_map(|telemetry| &telemetry.attempts);
            let attempt = attempts.last();
            let of_attempt = |name: fn(&AttemptStats) -> &Option<String>| name(attempt?).as_deref();
            let model = of_attempt(|attempt| &attempt.response_model);
            let id = of_attempt(|attempt| &attempt.response_id);
            self.observers.deliver(&Event::Finished {
                end,
                telemetry: telemetry.as_deref(),
                error,
                response_model: model.or(self.response_model.as_deref()),
                response_id: id.or(self.response_id.as_deref()),
                metadata: &metadata,
                kept,
            });
            self.observers.clear();
        }
        self.live = None;
    }
}

/// Returns what the pricing is called with.
fn priced<'n>(names: &'n Names, response_model: Option<&'n str>) -> Priced<'n> {
    Priced {
        provider: names.provider.as_deref(),
        model: names.model.as_deref(),
        response_model,
        operation: names.operation.as_deref(),
    }
}

/// Keeps the first name that is not empty. Some servers send a first chunk without a name.
#[inline]
fn keep_first(kept: &mut Option<Box<str>>, name: Option<&str>) {
    let name = name.filter(|name| !name.is_empty());
    if let (None, Some(name)) = (&kept, name) {
        *kept = Some(keys::cut(name, MAX_NAME).into());
    }
}

/// Calls one interceptor. Its panic is a refusal.
fn ask(interceptor: &dyn Interceptor, run: &mut NewRun) -> Result<(), Refusal> {
    contain(|| interceptor.before(run))
        .unwrap_or_else(|| Err(Refusal::new("an interceptor panicked before the run")))
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // A requested abort counts even if the run was not polled again. The `until` futures are
        // foreign code, and a panic must not escape from `Drop`.
        let aborted = contain(|| self.stop.requested_before_drop());
        let end = if aborted.unwrap_or(false) {
            End::of(Cause::Aborted)
        } else {
            End::dropped()
        };
        self.finish(end, None);
    }
}
