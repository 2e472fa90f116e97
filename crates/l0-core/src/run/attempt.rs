//! Attempt: the state of one attempt, shared by runs and watched streams: what it has produced, its
//! checks and its waits. It reports to the recorder, and does not touch the stream.

use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::deadlines::{Deadlines, WaitFor};
use super::timer::NoTimer;
use crate::check::{Effect, Ended, Running};
use crate::clock;
use crate::end::{Cause, LimitKind, TimeoutKind};
use crate::options::Options;
use crate::recorder::{RecordMode, Recorder, Waits};
use crate::timeout::Timeouts;
use crate::token::{FinishReason, TokenKind, TokenView};
use crate::verdict::{DriftReport, Violation};

/// Polls of the source are timed after this many items in a row without a token.
const TIMED_POLLS_AFTER: u32 = 16;

/// The requirements that an attempt must meet by its end.
#[derive(Debug, Clone, Copy)]
struct Required {
    /// A finish reason.
    finish: bool,
    /// Output, or a reason why there is none.
    output: bool,
}

/// The current attempt, and the recorder of its run.
///
/// The fields that each token touches are adjacent: the end of the recorder, and the fields after
/// it.
#[repr(C)]
pub(super) struct AttemptState<'a> {
    pub(super) deadlines: Deadlines,
    /// The number of the attempt, from 1; 0 before the first.
    pub(super) number: u32,
    required: Required,
    /// The finish reason, once the source has sent it.
    finish: Option<FinishReason>,
    has_output: bool,
    /// `true` once the single answer of a call has arrived.
    has_answer: bool,
    /// `true` once an item of any kind was yielded.
    has_item: bool,

    /// Items without a token, in a row. Stale if tokens came since, because recording a token does
    /// not write here.
    without_token: u32,
    /// The number of the run's tokens at the last of these items.
    tokens_then: u64,
    pub(super) recorder: Recorder<'a>,
    /// `true` if the source was pending since the last item.
    parked: bool,
    /// The recording of the next token, if that has nothing except text and no check reads it.
    record_mode: RecordMode,
    /// The same if checks read it.
    checked_mode: RecordMode,
    // After the recorder, so a dropped run finishes before its checks are dropped.
    checks: Option<Box<AttemptChecks>>,
}

/// The checks of one attempt's text.
struct AttemptChecks {
    rules: Option<Running<Violation>>,
    drift: Option<Running<DriftReport>>,
    /// `true` once the recorder knows what is checked: only then can telemetry report that nothing
    /// was found.
    announced: bool,
}

/// Why a wait ended before anything was ready.
#[derive(Debug, Clone, Copy)]
pub(super) enum Woken {
    /// The run was asked to stop.
    StopRequested,
    TimedOut(TimeoutKind),
    NoTimer,
}

/// The result of an attempt whose source ended on its own.
pub(super) enum Verdict {
    Complete,
    /// A rule ends the run.
    Halt(Violation),
    /// The attempt failed. It can be retried.
    Failed(Cause),
}

impl<'a> AttemptState<'a> {
    pub(super) fn new(recorder: Recorder<'a>, timeouts: Timeouts, output: bool) -> Self {
        Self {
            deadlines: Deadlines::new(timeouts),
            number: 0,
            required: Required {
                finish: false,
                output,
            },
            finish: None,
            has_output: false,
            has_answer: false,
            has_item: false,
            without_token: 0,
            tokens_then: 0,
            recorder,
            parked: false,
            record_mode: RecordMode::Full,
            checked_mode: RecordMode::Full,
            checks: None,
        }
    }

    /// Begins the next attempt, which requires a finish reason if `finish` is set. Returns `true`
    /// if the previous attempt yielded items, which are now discarded.
    pub(super) fn begin(&mut self, options: &Options, finish: bool) -> bool {
        self.required.finish = finish;
        self.unpark();
        self.time_polls(false);
        self.number += 1;
        self.deadlines.new_attempt(self.recorder.tokens());
        self.reset();
        self.checks = AttemptChecks::start(options);
        std::mem::take(&mut self.has_item)
    }

    /// Clears what the attempt has produced: it is discarded.
    pub(super) fn reset(&mut self) {
        self.record_fully();
        self.finish = None;
        self.has_output = false;
        self.has_answer = false;
    }

    fn record_fully(&mut self) {
        self.record_mode = RecordMode::Full;
        self.checked_mode = RecordMode::Full;
    }

    /// Records an item if it is a plain token that no check reads, and returns `true` if so.
    ///
    /// Most items are plain tokens: they are not the first of anything, and nothing needs more than
    /// their count. These are the only conditions evaluated for them if nothing is measured.
    #[inline(always)]
    pub(super) fn token(&mut self, view: &TokenView<'_>) -> bool {
        self.plain_token(self.record_mode, view)
    }

    /// Records an item if it is a plain token that checks read, and has them read it. Returns
    /// whether the item is to be yielded, or `None` if it is another one.
    #[inline(always)]
    pub(super) fn checked_token(&mut self, view: &TokenView<'_>) -> Option<bool> {
        let recorded = self.plain_token(self.checked_mode, view);
        recorded.then(|| self.check(view))
    }

    #[inline(always)]
    fn plain_token(&mut self, mode: RecordMode, view: &TokenView<'_>) -> bool {
        if mode == RecordMode::Full || !view.is_plain_token() || self.recorder.is_named_by(view) {
            return false;
        }
        self.parked = false;
        self.recorder.token(mode);
        true
    }

    /// Checks the text of an item. Returns `true` if the run continues.
    #[inline(always)]
    fn check(&mut self, view: &TokenView<'_>) -> bool {
        match &mut self.checks {
            Some(checks) if view.kind == TokenKind::Text && !view.text.is_empty() => {
                checks.text(view.text, &mut self.recorder)
            }
            _ => true,
        }
    }

    /// Records an item. Returns `true` if the item is to be yielded; if not,
    /// [`halting`](Self::halting) returns the reason.
    #[inline(never)]
    pub(super) fn item(&mut self, view: &TokenView<'_>) -> bool {
        let now = self.recorder.timed().then(clock::now);
        if self.parked {
            self.parked = false;
            self.deadlines.disarm(now);
        }
        if view.finish.is_some() {
            self.finish = view.finish;
        }
        if !self.has_output {
            self.has_output = is_output(view.kind, view.text);
        }
        if !self.recorder.item(view, now) {
            self.item_without_token();
        }
        self.has_item = true;
        if self.has_output {
            let mode = self.recorder.record_mode();
            match self.checks {
                Some(_) => self.checked_mode = mode,
                None => self.record_mode = mode,
            }
        }
        self.check(view)
    }

    /// Records the single answer of a call, without counting a token. Returns `true` if the answer
    /// is to be yielded; if not, [`halting`](Self::halting) returns the reason.
    pub(super) fn answer(&mut self, view: &TokenView<'_>) -> bool {
        self.unpark();
        self.finish = view.finish;
        self.has_answer = true;
        self.has_output = is_output(view.kind, view.text);
        self.recorder.answer(view);
        self.check(view)
    }

    /// Counts an item without a token.
    #[cold]
    fn item_without_token(&mut self) {
        if !self.deadlines.any() {
            return;
        }
        let tokens = self.recorder.tokens();
        if std::mem::replace(&mut self.tokens_then, tokens) != tokens {
            self.without_token = 0;
        }
        self.without_token = self.without_token.saturating_add(1);
        if self.without_token == TIMED_POLLS_AFTER {
            self.time_polls(true);
        }
    }

    /// Enables or disables the timing of each poll of the source.
    ///
    /// Usually none is: a source that is not pending is not waited for. But a source that always
    /// has another item without a token would never be pending, and no timeout would ever end it.
    fn time_polls(&mut self, enabled: bool) {
        if enabled || self.without_token >= TIMED_POLLS_AFTER {
            self.recorder.stop().set_pending_work(enabled);
        }
        if !enabled {
            self.without_token = 0;
        }
    }

    /// Prepares a poll of the source. Returns the timeout that has expired, if polls are timed.
    pub(super) fn poll_begins(&mut self) -> Option<TimeoutKind> {
        if self.without_token < TIMED_POLLS_AFTER {
            return None;
        }
        let tokens = self.recorder.tokens();
        if tokens != self.tokens_then {
            self.time_polls(false);
            return None;
        }
        // The wait for a pending source is timed already.
        if self.parked {
            return None;
        }
        let now = clock::now();
        self.deadlines.arm(WaitFor::Source, tokens, now);
        let passed = self.deadlines.passed()?;
        self.deadlines.disarm(Some(now));
        Some(passed)
    }

    /// Completes a poll of the source.
    pub(super) fn poll_ended(&mut self) {
        if !self.parked {
            self.deadlines.disarm(None);
        }
    }

    /// Returns the violation that ends the run.
    #[cold]
    pub(super) fn halting(&self) -> Option<Violation> {
        let rules = self.checks.as_ref()?.rules.as_ref()?;
        rules.findings.first(Effect::Halt).cloned()
    }

    /// Waits: pending, unless a deadline has passed or the run was asked to stop.
    #[inline(never)]
    pub(super) fn wait(&mut self, backs_off: bool, cx: &mut Context<'_>) -> Poll<Woken> {
        let stop = self.recorder.stop();
        stop.register(cx.waker());
        // The request can have come between the last check and the registration.
        if stop.requested() {
            return Poll::Ready(Woken::StopRequested);
        }
        self.park(backs_off);
        Poll::Ready(match ready!(self.deadlines.poll(cx)) {
            Ok(kind) => Woken::TimedOut(kind),
            Err(NoTimer) => Woken::NoTimer,
        })
    }

    /// Begins a wait, unless one has begun. The clock is read once per wait, however often the
    /// source is polled.
    #[inline(always)]
    pub(super) fn park(&mut self, backs_off: bool) {
        if std::mem::replace(&mut self.parked, true) {
            return;
        }
        let waits = self.recorder.waits();
        if self.deadlines.any() {
            // The next item must end the wait.
            self.record_fully();
        } else if waits == Waits::Unrecorded {
            return;
        }
        if waits == Waits::Observed {
            return self.park_observed(backs_off);
        }
        let now: Instant = clock::now();
        if waits == Waits::Recorded {
            self.recorder.pending(now);
        }
        self.arm(backs_off, now);
    }

    /// Begins a wait of a run whose progress is read.
    #[inline(never)]
    fn park_observed(&mut self, backs_off: bool) {
        let timed = self.recorder.timed();
        let now = (timed || self.deadlines.any()).then(clock::now);
        let at = match now {
            Some(now) if timed => self.recorder.pending(now),
            _ => 0,
        };
        self.recorder.waits_from(backs_off, at);
        if let Some(now) = now {
            self.arm(backs_off, now);
        }
    }

    #[inline(always)]
    fn arm(&mut self, backs_off: bool, now: Instant) {
        if !self.deadlines.any() {
            return;
        }
        let wait_for = if backs_off {
            WaitFor::BackOff
        } else {
            WaitFor::Source
        };
        self.deadlines.arm(wait_for, self.recorder.tokens(), now);
    }

    /// Ends a wait that yielded no item.
    pub(super) fn unpark(&mut self) {
        if std::mem::take(&mut self.parked) {
            self.deadlines.disarm(None);
        }
    }

    /// Returns `true` if the answer is complete: the source has sent a finish reason.
    pub(super) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Returns the limit that ends the run. A complete answer is never limited.
    pub(super) fn limited(&mut self) -> Option<LimitKind> {
        let is_complete = self.is_finished() || self.has_answer;
        self.recorder.reached().filter(|_| !is_complete)
    }

    /// Evaluates an attempt whose source has ended on its own.
    pub(super) fn end(&mut self) -> Verdict {
        if self.required.finish && self.finish.is_none() {
            // First, because a cut connection also explains missing output.
            return Verdict::Failed(Cause::Truncated);
        }
        let ended = Ended::new(self.has_output).finish(self.finish);
        let checked = match &mut self.checks {
            Some(checks) => checks.end(&ended, &mut self.recorder),
            None => Verdict::Complete,
        };
        if self.required.output && ended.is_empty() {
            return Verdict::Failed(Cause::ZeroOutput);
        }
        checked
    }
}

impl AttemptChecks {
    fn start(options: &Options) -> Option<Box<Self>> {
        let rules = Running::start(&options.guardrails);
        let drift = Running::start(&options.drift);
        (rules.is_some() || drift.is_some()).then(|| {
            Box::new(Self {
                rules,
                drift,
                announced: false,
            })
        })
    }

    /// Checks a piece of the answer. Returns `true` if the run continues.
    #[inline(never)]
    fn text(&mut self, delta: &str, recorder: &mut Recorder<'_>) -> bool {
        self.each(
            |rules| rules.text(delta),
            |drift| drift.text(delta),
            recorder,
        );
        let effect = self.rules.as_ref().map(|rules| rules.findings.effect());
        effect != Some(Effect::Halt)
    }

    /// Checks the whole answer.
    fn end(&mut self, ended: &Ended, recorder: &mut Recorder<'_>) -> Verdict {
        self.each(|rules| rules.end(ended), |drift| drift.end(ended), recorder);
        let rule = |effect| self.rules.as_ref()?.findings.first(effect).cloned();
        let drift = || self.drift.as_ref()?.findings.first(Effect::Retry).cloned();
        if let Some(violation) = rule(Effect::Halt) {
            Verdict::Halt(violation)
        } else if let Some(violation) = rule(Effect::Retry) {
            Verdict::Failed(Cause::Violation(violation))
        } else if let Some(report) = drift() {
            Verdict::Failed(Cause::Drift(report))
        } else {
            Verdict::Complete
        }
    }

    /// Runs all checks, and records new findings.
    #[inline]
    fn each(
        &mut self,
        rules: impl FnOnce(&mut Running<Violation>),
        drift: impl FnOnce(&mut Running<DriftReport>),
        recorder: &mut Recorder<'_>,
    ) {
        let first = !std::mem::replace(&mut self.announced, true);
        if let Some(running) = &mut self.drift {
            drift(running);
            let new = running.findings.take_new();
            if first || !new.is_empty() {
                recorder.drift(new);
            }
        }
        if let Some(running) = &mut self.rules {
            rules(running);
            let new = running.findings.take_new();
            if first || !new.is_empty() {
                recorder.violations(new);
            }
        }
    }
}

/// Out of line, because it is only called until the attempt has output.
#[inline(never)]
fn is_output(kind: TokenKind, text: &str) -> bool {
    match kind {
        TokenKind::Text => text.chars().any(is_visible),
        TokenKind::ToolCall | TokenKind::Media => true,
        TokenKind::Reasoning | TokenKind::Other => false,
    }
}

/// Returns `true` if the character is visible: not white space, not a control character, and with a
/// width.
fn is_visible(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_graphic();
    }
    !c.is_whitespace() && !c.is_control() && !is_zero_width(c)
}

/// Returns `true` if the character has no width: Unicode's default-ignorable characters, and marks
/// of interlinear annotations.
const fn is_zero_width(c: char) -> bool {
    matches!(
        c,
        '\u{AD}'
            | '\u{34F}'
            | '\u{61C}'
            | '\u{115F}'..='\u{1160}'
            | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200F}'
            | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{3164}'
            | '\u{FE00}'..='\u{FE0F}'
            | '\u{FEFF}'
            | '\u{FFA0}'
            | '\u{FFF0}'..='\u{FFFB}'
            | '\u{1BCA0}'..='\u{1BCA3}'
            | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E0FFF}'
    )
}
