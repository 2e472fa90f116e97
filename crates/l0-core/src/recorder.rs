//! Recorder: one run's recording and observers. It is told what happens, and finishes exactly once, at
//! the latest when it is dropped. It never sees the state machine that tells it.

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
use crate::observe::{Interceptor, Known, NewRun, Observers, RunInfo, SourceInfo, contain};
use crate::options::{Options, Seed};
use crate::price::{Cost, Price, Priced};
use crate::recording::{Arrival, AttemptEnd, Bill, Recording, session_id};
use crate::source::Description;
use crate::spending::{Spending, Told};
use crate::stop::{Final, RunHandle, Stop, Until};
use crate::telemetry::{NetworkErrorRecord, Telemetry, Timestamp};
use crate::token::{TokenKind, TokenView};
use crate::usage::Usage;
use crate::verdict::{DriftReport, Outcome, Violation};

pub(crate) struct Recorder<'a> {
    info: RunInfo,
    options: Arc<Options>,
    /// Absent if the run is not measured, and once it has ended.
    recording: Option<Box<Recording>>,
    observers: Observers,
    stop: Stop<'a>,
    /// Until `Finished` was delivered.
    live: Option<Place>,
    tokens: u64,
    /// The present attempt; absent between two of them.
    attempt: Option<Begun>,
    /// How long the run waits before the next attempt.
    delay: Option<Duration>,
    timed: bool,
    /// Whether anything needs each item: observers of tokens, estimates, or limits.
    follows_items: bool,
    /// Whether the characters of attempts are counted, since usage is estimated by them.
    counts_characters: bool,
    /// Those of the present attempt.
    characters: u64,
    /// Those of what the present attempt was asked.
    input_characters: Option<u64>,
    /// Whether it was drawn, to be kept whatever becomes of it.
    is_drawn: bool,
    is_violated: bool,
    attempts: u32,
    finished: bool,
    /// What the present attempt's source said of its response.
    response_model: Option<Box<str>>,
    response_id: Option<Box<str>>,
    /// Absent if nothing limits the run.
    spending: Option<Box<Spending>>,
}

/// An attempt that has begun.
struct Begun {
    number: u32,
    source: u32,
    delay: Option<Duration>,
    tokens_before: u64,
}

/// What follows an attempt that failed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Next {
    /// The same source is asked again.
    Retry(RetryKind),
    /// The next source is asked.
    Fallback,
    /// Nothing.
    Nothing,
}

/// How much is kept of what a provider calls its model or response, in bytes.
const MAX_NAME: usize = 256;

/// What a run is started with, besides its options.
pub(crate) struct Setup<'a> {
    pub(crate) metadata: Metadata,
    pub(crate) until: Vec<Until<'a>>,
    pub(crate) panics: Arc<AtomicU64>,
    pub(crate) live: Arc<LiveRuns>,
    pub(crate) parent: Option<RunInfo>,
    /// What the first source says of its request, and what it asks.
    pub(crate) source: (Description, Option<Value>),
    pub(crate) fallbacks: Vec<(Description, Option<Value>)>,
    pub(crate) is_call: bool,
    /// Whether limits and budgets stop it.
    pub(crate) may_stop: bool,
}

impl<'a> Recorder<'a> {
    /// Starts a run: draws the sample, asks the interceptors, makes the observers and says
    /// `Started`. A refused run is finished when this returns.
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
        let id = session_id(number.unwrap_or(started_at.as_millis()), &mut rng);
        let now = clock::now();

        let mut own = monitoring.shared_metadata();
        own.lay_over(metadata);
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

        let metadata = new_run.into_metadata();
        source.redact();
        let fallbacks = fallbacks.into_iter().map(|(mut description, input)| {
            description.redact();
            SourceInfo {
                metadata: description.metadata_of_fallback(&metadata, &source, &own),
                description,
                input: input.map(Box::new),
            }
        });
        let known = Known {
            id,
            parent_id: parent.map(|parent| parent.shared_id()),
            fallbacks: fallbacks.collect(),
            source: SourceInfo {
                metadata: metadata.clone(),
                description: source,
                input: input.map(Box::new),
            },
            metadata,
            is_call,
            started_at,
            measured,
        };
        let info = RunInfo::new(known, panics);
        let recording = measured.then(|| {
            let (id, metadata) = (info.shared_id(), info.metadata().clone());
            Box::new(Recording::start(monitoring, id, metadata, started_at, now))
        });
        let mut observers = Observers::new(info.clone());
        for interceptor in &options.interceptors {
            info.contain(|| interceptor.observe(&info, &mut observers));
        }

        let stop = Stop::new(until);
        let counts_characters =
            (measured || spending.is_some()) && options.estimate_usage.is_some();
        let mut recorder = Self {
            timed: recording
                .as_ref()
                .is_some_and(|recording| recording.timed()),
            follows_items: counts_characters || spending.is_some() || observers.want_tokens(),
            counts_characters,
            input_characters: None,
            characters: 0,
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
            spending,
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

    /// Returns whether arrivals are to be timed.
    #[inline]
    pub(crate) fn timed(&self) -> bool {
        self.timed
    }

    /// Returns how many tokens all attempts gave so far.
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
            return ended.telemetry.clone();
        }
        let mut telemetry = self.recording.as_deref()?.telemetry();
        for attempt in &mut telemetry.attempts {
            if attempt.outcome.is_none() {
                self.names(attempt.source).tell(attempt);
            }
        }
        telemetry.parent_id = self.parent_id();
        telemetry.metadata = self.metadata();
        Some(telemetry)
    }

    fn parent_id(&self) -> Option<String> {
        self.info.parent_id().map(str::to_owned)
    }

    /// The metadata of the run, with what was set while it is live.
    fn metadata(&self) -> Metadata {
        let mut metadata = self.info.metadata().clone();
        let set = self.stop.metadata();
        if !set.is_empty() {
            metadata.lay_over(set);
            keys::redact_endpoint(&mut metadata);
        }
        metadata
    }

    /// An attempt begins, of a source.
    pub(crate) fn attempt_started(&mut self, number: u32, source: u32) {
        let delay = self.delay.take();
        if let Some(recording) = &mut self.recording {
            recording.begin_attempt(number, source, delay);
        }
        self.attempts = number;
        self.characters = 0;
        if self.counts_characters {
            let source = self.info.source(source);
            let input = source.and_then(|source| source.input.as_deref());
            self.input_characters = input.map(estimate::characters);
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

    /// The present attempt ended so, if there is one, and this follows.
    pub(crate) fn attempt_finished(&mut self, end: &End, next: Next) {
        let Some(begun) = self.attempt.take() else {
            return;
        };
        let told = self.told(&begun, end, next);
        match &mut self.recording {
            Some(recording) => {
                if let Some(attempt) = recording.end_attempt(told) {
                    self.observers.deliver(&Event::AttemptFinished { attempt });
                }
            }
            None => self.unmeasured_attempt_finished(&begun, told),
        }
    }

    /// Tells the observers of an attempt that was not measured.
    fn unmeasured_attempt_finished(&mut self, begun: &Begun, told: AttemptEnd) {
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
        told.tell(&mut attempt);
        self.observers
            .deliver(&Event::AttemptFinished { attempt: &attempt });
        // The end of the run tells them, too.
        self.response_model = attempt.response_model.map(Into::into);
        self.response_id = attempt.response_id.map(Into::into);
    }

    /// What is told of an attempt that ended so.
    fn told(&mut self, begun: &Begun, end: &End, next: Next) -> AttemptEnd {
        if !self.is_told() {
            return AttemptEnd::default();
        }
        let mut told = AttemptEnd {
            retry: match next {
                Next::Retry(kind) => Some(kind),
                Next::Fallback | Next::Nothing => None,
            },
            falls_back: matches!(next, Next::Fallback),
            is_followed: !matches!(next, Next::Nothing),
            response_model: self.response_model.take(),
            response_id: self.response_id.take(),
            names: self.names(begun.source),
            ..AttemptEnd::of(end)
        };
        let (bill, cost) = self.bill(begun.source, &told);
        if let Some(spending) = &mut self.spending {
            spending.end_attempt([cost, bill.estimated_cost]);
        }
        // A run that is not measured tells no costs, as it tells no usage.
        if self.recording.is_some() {
            told.bill = bill;
        }
        told
    }

    /// Puts a price on what the present attempt's source told, and estimates what it did not. Returns that,
    /// and what the attempt cost as far as it was told. Nothing of it is done for a run that is neither
    /// measured nor limited.
    fn bill(&self, source: u32, end: &AttemptEnd) -> (Bill, Option<Cost>) {
        let mut bill = Bill::default();
        let told = match (&self.recording, &self.spending) {
            (Some(recording), _) => recording.told(),
            (None, Some(spending)) => spending.told,
            (None, None) => return (bill, None),
        };
        let model = priced(&end.names, end.response_model.as_deref());
        let is_early = end.outcome != Some(Outcome::Completed) && !told.is_whole;
        if is_early && told.tokens > 0 {
            let estimated = self.estimate(source, model, &told);
            bill.estimated_usage = estimated.and_then(|all| estimate::untold(all, told.usage));
        }
        let is_used = told.usage.is_some() || bill.estimated_usage.is_some();
        if is_used && told.cost.is_none() {
            let price = self.price(&model);
            bill.is_unpriced =
                self.options.pricing.is_some() && told.usage.is_some() && price.is_none();
            if let Some(price) = price {
                bill.cost = told.usage.and_then(|usage| price.cost(&usage));
                bill.estimated_cost = bill
                    .estimated_usage
                    .and_then(|more| price.cost_of_more(told.usage, more));
            }
        }
        let cost = told.cost.or(bill.cost);
        (bill, cost)
    }

    /// Returns what this model costs; absent if that is not known.
    fn price(&self, model: &Priced<'_>) -> Option<Arc<Price>> {
        let pricing = self.options.pricing.as_deref()?;
        self.info.contain(|| pricing.price(model)).flatten()
    }

    /// Estimates what the present attempt has used in all.
    fn estimate(&self, source: u32, model: Priced<'_>, told: &Told) -> Option<Usage> {
        let estimate = self.options.estimate_usage.as_deref()?;
        let source = self.info.source(source);
        let attempt = Unfinished {
            model,
            tokens: told.tokens,
            characters: self.characters,
            input: source.and_then(|source| source.input.as_deref()),
            input_characters: self.input_characters,
            told: told.usage,
        };
        self.info.contain(|| estimate(&attempt)).flatten()
    }

    /// Counts what an item says against the limits of the run.
    #[inline(never)]
    fn spend(&mut self, view: &TokenView<'_>) {
        let source = self.attempt.as_ref().map_or(1, |attempt| attempt.source);
        let Some(mut spending) = self.spending.take() else {
            return;
        };
        let tells = spending.item(view, self.tokens);
        // A whole answer is not estimated any more: what was so far stays, until all of it is told.
        let is_estimated = self.counts_characters && view.is_token() && !spending.told.is_whole;
        if spending.has_purses() && (tells || is_estimated) {
            // Once for each attempt: names are texts of their own.
            let (names, price) = spending.priced.get_or_insert_with(|| {
                let names = self.names(source);
                let price = self.price(&priced(&names, self.response_model.as_deref()));
                (names, price)
            });
            let told = spending.told;
            let estimated = match told.is_whole {
                true => None,
                false => {
                    let model = priced(names, self.response_model.as_deref());
                    self.estimate(source, model, &told)
                }
            };
            let price = price.clone();
            spending.count(price.as_deref(), estimated);
        }
        if spending.reached().is_some() {
            self.stop.set_look(true);
        }
        self.spending = Some(spending);
    }

    /// Returns which limit the run has crossed, or other runs that spend from its budgets.
    pub(crate) fn reached(&mut self) -> Option<LimitKind> {
        self.spending.as_mut()?.reached()
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

    /// Whether anybody learns what an attempt was.
    #[inline]
    fn is_told(&self) -> bool {
        self.recording.is_some() || !self.observers.is_empty() || self.spending.is_some()
    }

    /// Calls `poll` once, inside the observers' contexts.
    pub(crate) fn connect(&mut self, poll: impl FnMut()) {
        self.observers.connect(poll);
    }

    /// An item arrived; `arrived` is given if arrivals are timed. Returns whether it is a token.
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
            self.tokens += 1;
            if self.tokens == 1 {
                self.first_token(arrival);
            }
        }
        if self.follows_items {
            self.follow(view, arrival, is_token);
        }
        is_token
    }

    /// Does with an item what most runs do not: few of them pay for it.
    #[inline(never)]
    fn follow(&mut self, view: &TokenView<'_>, arrival: Arrival, is_token: bool) {
        if is_token {
            if self.counts_characters && view.kind != TokenKind::Media {
                self.characters += view.text.chars().count() as u64;
            }
            if self.observers.want_tokens() {
                self.observers.deliver_token(&Event::Token {
                    index: self.tokens - 1,
                    gap: arrival.gap.map(Duration::from_nanos),
                    view: TokenView {
                        model: view.model.or(self.response_model.as_deref()),
                        ..*view
                    },
                });
            }
        }
        if self.spending.is_some() {
            self.spend(view);
        }
    }

    /// An answer arrived that came as one.
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
        if self.spending.is_some() {
            self.spend(view);
        }
    }

    /// Many sources say them with every item; they are kept once, and not at all if nobody is told.
    #[inline(never)]
    fn keep_names(&mut self, view: &TokenView<'_>) {
        if self.is_told() {
            let was_named = self.response_model.is_some();
            keep_first(&mut self.response_model, view.model);
            keep_first(&mut self.response_id, view.response_id);
            if let (false, Some(_), Some(spending)) =
                (was_named, &self.response_model, &mut self.spending)
            {
                // It may have another price than the one that was asked for.
                spending.priced = None;
            }
        }
    }

    #[cold]
    fn first_token(&mut self, arrival: Arrival) {
        self.observers.deliver(&Event::FirstToken {
            after: arrival.first.map(Duration::from_nanos),
        });
    }

    /// The source was found pending.
    pub(crate) fn pending(&mut self, now: Instant) {
        if let Some(recording) = &mut self.recording {
            recording.pending(now);
        }
    }

    /// A chunk that is no item was handed out.
    pub(crate) fn handed_out(&mut self) {
        if let Some(recording) = self.recording.as_mut().filter(|_| self.timed) {
            recording.handed_out(clock::now());
        }
    }

    /// Returns the message of a source's error, from which this failure was read.
    pub(crate) fn message(&self, error: &(dyn StdError + 'static), failure: &Failure) -> String {
        self.options.monitoring.message(error, failure)
    }

    /// A network error happened; a retry follows if there is a delay.
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

    /// The run gives up a source, and asks another one.
    pub(crate) fn fallback(&mut self, from: u32, to: u32) {
        self.observers.deliver(&Event::Fallback { from, to });
    }

    /// The run will make the attempt of this number after the delay.
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

    /// Rules were checked, and found this.
    pub(crate) fn violations(&mut self, violations: &[Violation]) {
        if let Some(recording) = &mut self.recording {
            recording.violations(violations);
        }
        self.is_violated |= !violations.is_empty();
        for violation in violations {
            self.observers.deliver(&Event::Violation { violation });
        }
    }

    /// Drift was looked for, and this was found.
    pub(crate) fn drift(&mut self, reports: &[DriftReport]) {
        if let Some(recording) = &mut self.recording {
            // A report of none says that it was looked for.
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

    /// Ends the run: makes telemetry final, tells the handles, says `Finished`, drops the observers
    /// and leaves the list of live runs. Only the first call counts.
    pub(crate) fn finish(&mut self, end: End, error: Option<&(dyn StdError + 'static)>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let begun = self.attempt.take();
        let told = begun
            .as_ref()
            .map(|begun| self.told(begun, &end, Next::Nothing));
        // In its box from the first, since it is large.
        let mut last = Box::new(Final {
            end,
            telemetry: None,
        });
        let mut recording = self.recording.take();
        match (&mut recording, &begun, told) {
            (Some(recording), _, told) => {
                if let Some(attempt) = recording.finish(last.end.clone(), told) {
                    self.observers.deliver(&Event::AttemptFinished { attempt });
                }
            }
            (None, Some(begun), Some(told)) => self.unmeasured_attempt_finished(begun, told),
            _ => {}
        }
        let metadata = self.metadata();
        let mut known = keep::Known {
            is_failure: last.end.is_failure(),
            duration: None,
            is_violated: self.is_violated,
            attempts: self.attempts,
        };
        let kept = |known| self.options.monitoring.keep.reason(self.is_drawn, known);
        let kept = match recording {
            None => kept(known),
            Some(recording) => {
                let telemetry = last.telemetry.insert(recording.into_telemetry());
                telemetry.parent_id = self.parent_id();
                telemetry.metadata = metadata.clone();
                known.duration = telemetry.duration;
                telemetry.kept = kept(known);
                telemetry.kept
            }
        };
        // A panic of a waker must not keep the end from those who wait for it.
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
                telemetry: telemetry.as_ref(),
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

/// What the price is asked of.
fn priced<'n>(names: &'n Names, response_model: Option<&'n str>) -> Priced<'n> {
    Priced {
        provider: names.provider.as_deref(),
        model: names.model.as_deref(),
        response_model,
        operation: names.operation.as_deref(),
    }
}

/// Keeps a name, unless there is one. An empty one is none: some servers begin with a chunk without.
#[inline]
fn keep_first(kept: &mut Option<Box<str>>, name: Option<&str>) {
    let name = name.filter(|name| !name.is_empty());
    if let (None, Some(name)) = (&kept, name) {
        *kept = Some(keys::cut(name, MAX_NAME).into());
    }
}

/// Asks one interceptor. Its panic is a refusal.
fn ask(interceptor: &dyn Interceptor, run: &mut NewRun) -> Result<(), Refusal> {
    contain(|| interceptor.before(run))
        .unwrap_or_else(|| Err(Refusal::new("an interceptor panicked before the run")))
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // An abort that nobody polled for is an abort all the same. The `until` futures are
        // foreign code, and a panic must not leave a `Drop`.
        let aborted = contain(|| self.stop.requested_before_drop());
        let end = if aborted.unwrap_or(false) {
            End::of(Cause::Aborted)
        } else {
            End::dropped()
        };
        self.finish(end, None);
    }
}
