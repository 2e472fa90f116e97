//! Attempt: the state of one attempt, which runs and watched streams share: what it has shown, what
//! checks it, and what it waits for. It tells the recorder, and knows no stream.

use tokio::time::Instant;

use super::deadlines::{Deadlines, WaitFor};
use crate::check::{Effect, Ended, Running};
use crate::clock;
use crate::end::{Cause, LimitKind, TimeoutKind};
use crate::options::Options;
use crate::recorder::Recorder;
use crate::timeout::Timeouts;
use crate::token::{FinishReason, TokenKind, TokenView};
use crate::verdict::{DriftReport, Violation};

/// After how many items without a token in a row a source's polls are timed.
const MANY: u32 = 16;

/// What an attempt must show by its end.
#[derive(Debug, Clone, Copy)]
struct Required {
    /// A finish reason.
    finish: bool,
    /// Output, or a reason why there is none.
    output: bool,
}

/// The present attempt, and the recorder of its run.
pub(super) struct AttemptState<'a> {
    pub(super) recorder: Recorder<'a>,
    pub(super) deadlines: Deadlines,
    /// The number of the attempt, from 1; 0 before the first.
    pub(super) number: u32,
    required: Required,
    /// Why the model stopped, once the source said it.
    finish: Option<FinishReason>,
    has_output: bool,
    /// Whether the answer came as one.
    has_answer: bool,
    /// Whether an item of any kind was handed out.
    has_item: bool,
    /// Whether the source was found pending since the last item.
    parked: bool,
    /// How many items without a token came in a row. It is stale if there were other tokens then: a
    /// token touches nothing here.
    without_token: u32,
    /// How many tokens the run had at the last of them.
    tokens_then: u64,
    checks: Option<Box<AttemptChecks>>,
}

/// What the text of one attempt is checked by.
struct AttemptChecks {
    rules: Option<Running<Violation>>,
    drift: Option<Running<DriftReport>>,
    /// Whether the recorder knows what is checked, so that telemetry can say "none found".
    announced: bool,
}

/// What an attempt whose source has ended by itself comes to.
pub(super) enum Verdict {
    Complete,
    /// A rule ends the run.
    Halt(Violation),
    /// The attempt is no success; a new one may be.
    Failed(Cause),
}

impl<'a> AttemptState<'a> {
    pub(super) fn new(recorder: Recorder<'a>, timeouts: Timeouts, output: bool) -> Self {
        Self {
            recorder,
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
            parked: false,
            without_token: 0,
            tokens_then: 0,
            checks: None,
        }
    }

    /// Begins the next attempt, which must say why it ended if `finish` is set. Returns whether the one
    /// before handed out items, which are void now.
    pub(super) fn begin(&mut self, options: &Options, finish: bool) -> bool {
        self.required.finish = finish;
        self.unpark();
        self.watch_closely(false);
        self.number += 1;
        self.deadlines.new_attempt(self.recorder.tokens());
        self.reset();
        self.checks = AttemptChecks::start(options);
        std::mem::take(&mut self.has_item)
    }

    /// Forgets what the attempt has shown: it is void.
    pub(super) fn reset(&mut self) {
        self.finish = None;
        self.has_output = false;
        self.has_answer = false;
    }

    /// Records an item that arrived. Returns whether it is handed out: if not, [`halting`](Self::halting)
    /// says why.
    #[inline(always)]
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
        match &mut self.checks {
            Some(checks) if view.kind == TokenKind::Text && !view.text.is_empty() => {
                checks.text(view.text, &mut self.recorder)
            }
            _ => true,
        }
    }

    /// Records an answer that came as one: what it says is taken, and no token is counted. Returns
    /// whether it is handed out: if not, [`halting`](Self::halting) says why.
    pub(super) fn answer(&mut self, view: &TokenView<'_>) -> bool {
        self.unpark();
        self.finish = view.finish;
        self.has_answer = true;
        self.has_output = is_output(view.kind, view.text);
        self.recorder.answer(view);
        match &mut self.checks {
            Some(checks) if view.kind == TokenKind::Text && !view.text.is_empty() => {
                checks.text(view.text, &mut self.recorder)
            }
            _ => true,
        }
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
        if self.without_token == MANY {
            self.watch_closely(true);
        }
    }

    /// Sets whether the polls of the source are timed one by one.
    ///
    /// Usually nothing is: a source that is not pending is not waited for. But one that always has
    /// another item without a token would never be found pending, and so outlive every timeout.
    fn watch_closely(&mut self, closely: bool) {
        if closely || self.without_token >= MANY {
            self.recorder.stop().set_look(closely);
        }
        if !closely {
            self.without_token = 0;
        }
    }

    /// The source is about to be polled. Returns the timeout that leaves no time for it, where its
    /// polls are timed.
    pub(super) fn poll_begins(&mut self) -> Option<TimeoutKind> {
        if self.without_token < MANY {
            return None;
        }
        let tokens = self.recorder.tokens();
        if tokens != self.tokens_then {
            self.watch_closely(false);
            return None;
        }
        // A source that was found pending is waited for already.
        if self.parked {
            return None;
        }
        let now = clock::now();
        self.deadlines.arm(WaitFor::Source, tokens, now);
        let passed = self.deadlines.passed()?;
        self.deadlines.disarm(Some(now));
        Some(passed)
    }

    /// The source was polled.
    pub(super) fn poll_ended(&mut self) {
        if !self.parked {
            self.deadlines.disarm(None);
        }
    }

    /// Returns the violation by which a rule ends the run.
    #[cold]
    pub(super) fn halting(&self) -> Option<Violation> {
        let rules = self.checks.as_ref()?.rules.as_ref()?;
        rules.findings.first(Effect::Halt).cloned()
    }

    /// Begins a wait, unless one has begun. The clock is read once per wait, however often it is
    /// polled.
    #[inline]
    pub(super) fn park(&mut self, backs_off: bool) {
        if std::mem::replace(&mut self.parked, true) {
            return;
        }
        let timed = self.recorder.timed();
        if !timed && !self.deadlines.any() {
            return;
        }
        let now: Instant = clock::now();
        if timed {
            self.recorder.pending(now);
        }
        let wait_for = if backs_off {
            WaitFor::BackOff
        } else {
            WaitFor::Source
        };
        self.deadlines.arm(wait_for, self.recorder.tokens(), now);
    }

    /// Ends a wait that gave no item.
    pub(super) fn unpark(&mut self) {
        if std::mem::take(&mut self.parked) {
            self.deadlines.disarm(None);
        }
    }

    /// Returns whether the answer is complete: the source said why the model stopped.
    pub(super) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Returns which limit ends the run. None does once the answer is complete.
    pub(super) fn limited(&mut self) -> Option<LimitKind> {
        let is_complete = self.is_finished() || self.has_answer;
        self.recorder.reached().filter(|_| !is_complete)
    }

    /// Judges an attempt whose source has ended by itself.
    pub(super) fn end(&mut self) -> Verdict {
        if self.required.finish && self.finish.is_none() {
            // First: a cut connection also explains missing output.
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

    /// Checks a piece of the answer. Returns whether the run goes on.
    fn text(&mut self, delta: &str, recorder: &mut Recorder<'_>) -> bool {
        self.each(
            |rules| rules.text(delta),
            |drift| drift.text(delta),
            recorder,
        );
        let effect = self.rules.as_ref().map(|rules| rules.findings.effect());
        effect != Some(Effect::Halt)
    }

    /// Checks the answer as a whole.
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

    /// Runs all checks, and records what is new.
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

/// Kept out of the path of a token: it is asked until the answer is yes.
#[inline(never)]
fn is_output(kind: TokenKind, text: &str) -> bool {
    match kind {
        TokenKind::Text => text.chars().any(is_visible),
        TokenKind::ToolCall | TokenKind::Media => true,
        TokenKind::Reasoning | TokenKind::Other => false,
    }
}

/// Whether a character shows by itself: it is no white space, no control, and has a width.
fn is_visible(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_graphic();
    }
    !c.is_whitespace() && !c.is_control() && !is_zero_width(c)
}

/// Whether a character has no width: Unicode's default-ignorable characters, and marks of
/// interlinear annotations.
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
