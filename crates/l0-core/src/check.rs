//! Check: the interface of everything that judges the text of an answer. Core runs checks and acts
//! on their findings, but contains none itself.
//!
//! The effect of a finding decides what happens. A finding that halts the run withholds the item at
//! fault. A finding that requests another attempt marks the current attempt as faulty when it ends:
//! it is retried as the model's fault, and completes once retries are exhausted. All other findings
//! are only recorded.

use std::fmt;
use std::sync::Arc;

use crate::observe::contain;
use crate::token::FinishReason;
use crate::verdict::{DriftReport, Severity, Violation};

/// A check of the text of one attempt.
///
/// `F` is the type of its findings: [`Violation`] or [`DriftReport`]. A check receives only the
/// text of the answer, piece by piece, and keeps what it needs. It should need time proportional to
/// the delta, and bounded memory.
///
/// A check that panics is not called again in the same attempt. The panic of a rule is reported as
/// a warning under its name.
///
/// ```
/// use l0_core::{Check, Ended, Findings, L0, Severity, Violation};
///
/// /// Reports answers longer than a number of bytes.
/// struct AtMost(usize);
///
/// impl Check for AtMost {
///     fn name(&self) -> &'static str {
///         "at-most"
///     }
///
///     fn text(&mut self, delta: &str, findings: &mut Findings) {
///         match self.0.checked_sub(delta.len()) {
///             Some(left) => self.0 = left,
///             None => {
///                 let too_long = Violation::new("at-most", Severity::Error, "The answer is too long");
///                 findings.report(too_long.recoverable(false));
///             }
///         }
///     }
/// }
///
/// let l0 = L0::builder().guardrails(|| AtMost(10_000)).build();
/// # drop(l0);
/// ```
pub trait Check<F: Finding = Violation>: Send {
    /// Returns the check's name, a stable label.
    fn name(&self) -> &'static str;

    /// Checks a piece of the answer. It is never empty.
    fn text(&mut self, delta: &str, findings: &mut Findings<F>);

    /// Checks the whole answer. Called when the source has ended on its own, and was not cut off.
    fn end(&mut self, ended: &Ended, findings: &mut Findings<F>) {
        let _ = (ended, findings);
    }
}

impl<F: Finding, C: Check<F> + ?Sized> Check<F> for Box<C> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn text(&mut self, delta: &str, findings: &mut Findings<F>) {
        (**self).text(delta, findings);
    }

    fn end(&mut self, ended: &Ended, findings: &mut Findings<F>) {
        (**self).end(ended, findings);
    }
}

/// An attempt whose source has ended on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// `true` if there was any output: text with a visible character, media, or a tool call. White
    /// space, control characters and characters without a width are not visible.
    pub has_output: bool,
    /// The finish reason; `None` if the source sent none.
    pub finish: Option<FinishReason>,
}

impl Ended {
    /// Creates an `Ended` without a finish reason.
    #[must_use]
    pub const fn new(has_output: bool) -> Self {
        Self {
            has_output,
            finish: None,
        }
    }

    /// Sets the finish reason.
    #[must_use]
    pub const fn finish(mut self, finish: Option<FinishReason>) -> Self {
        self.finish = finish;
        self
    }

    /// Returns `true` if the answer is empty without an explanation: there was no output, and the
    /// finish reason is not a limit, a content filter or a refusal.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        let explained = match self.finish {
            Some(finish) => finish.explains_no_output(),
            None => false,
        };
        !self.has_output && !explained
    }
}

/// The effect of a finding on the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Effect {
    /// It is only recorded.
    Record,
    /// Another attempt follows, once this one has ended.
    Retry,
    /// The run ends immediately.
    Halt,
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for crate::Violation {}
    impl Sealed for crate::DriftReport {}
}

/// The findings of checks: [`Violation`] or [`DriftReport`].
pub trait Finding: sealed::Sealed + Clone + Send + 'static {
    /// Returns the effect on the run.
    fn effect(&self) -> Effect;

    /// Returns `true` if it reports that something was found.
    #[doc(hidden)]
    fn is_one(&self) -> bool {
        true
    }

    #[doc(hidden)]
    fn is_same(&self, other: &Self) -> bool;

    #[doc(hidden)]
    fn of_panic(check: &'static str) -> Option<Self>;
}

impl Finding for Violation {
    fn effect(&self) -> Effect {
        match self.severity {
            Severity::Fatal => Effect::Halt,
            Severity::Error if self.recoverable => Effect::Retry,
            Severity::Error => Effect::Halt,
            Severity::Warning => Effect::Record,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.rule == other.rule && self.message == other.message
    }

    fn of_panic(check: &'static str) -> Option<Self> {
        let message = "Rule execution failed: it panicked";
        Some(Self::new(check, Severity::Warning, message))
    }
}

impl Finding for DriftReport {
    fn effect(&self) -> Effect {
        if self.retry {
            Effect::Retry
        } else {
            Effect::Record
        }
    }

    fn is_one(&self) -> bool {
        self.detected()
    }

    fn is_same(&self, other: &Self) -> bool {
        self.types == other.types
    }

    fn of_panic(_: &'static str) -> Option<Self> {
        None
    }
}

/// The findings of the checks of one attempt. Each distinct finding is kept once.
///
/// Two violations are the same if their rule and message are, and two drift reports if their types
/// are: report each kind of drift on its own. A finding that is reported again with a stronger
/// [`Effect`] gets that effect.
#[derive(Debug, Clone)]
pub struct Findings<F = Violation> {
    found: Vec<F>,
    /// The number of findings taken so far.
    taken: usize,
    /// The strongest effect of all.
    effect: Effect,
}

impl<F: Finding> Findings<F> {
    /// The maximum number of distinct findings per attempt. Further ones are dropped, unless their
    /// [`Effect`] is stronger than all before.
    pub const MAX: usize = 100;

    /// Creates an empty set of findings.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            found: Vec::new(),
            taken: 0,
            effect: Effect::Record,
        }
    }

    /// Reports a finding. A [`DriftReport`] without types is ignored.
    pub fn report(&mut self, finding: F) {
        if !finding.is_one() {
            return;
        }
        let effect = finding.effect();
        match self.found.iter().position(|one| one.is_same(&finding)) {
            Some(known) if self.found[known].effect() < effect => self.found[known] = finding,
            None if self.found.len() < Self::MAX || self.effect < effect => {
                self.found.push(finding);
            }
            _ => return,
        }
        self.effect = self.effect.max(effect);
    }

    /// Returns the strongest effect reported so far.
    #[must_use]
    pub const fn effect(&self) -> Effect {
        self.effect
    }

    /// Iterates over the findings reported so far.
    pub fn iter(&self) -> impl Iterator<Item = &F> {
        self.found.iter()
    }

    /// Returns the findings reported since the last call.
    #[inline]
    pub(crate) fn take_new(&mut self) -> &[F] {
        let new = &self.found[self.taken..];
        self.taken = self.found.len();
        new
    }

    /// Returns the first finding with this effect.
    pub(crate) fn first(&self, effect: Effect) -> Option<&F> {
        self.found.iter().find(|finding| finding.effect() == effect)
    }
}

impl<F: Finding> Default for Findings<F> {
    fn default() -> Self {
        Self::new()
    }
}

type Make<F> = Arc<dyn Fn() -> Box<dyn Check<F>> + Send + Sync>;

/// The checks of a run: a set of closures, each called once per attempt to create a check. Cheap to
/// clone.
///
/// A closure that creates a check converts into a set:
/// `l0.stream(..).guardrails(|| MyRule::new())`. The crate `l0-guardrails` provides rules and sets
/// of rules.
#[derive(Clone)]
#[must_use]
pub struct Checks<F = Violation> {
    makers: Vec<Make<F>>,
}

impl<F: Finding> Checks<F> {
    /// Creates an empty set.
    pub const fn none() -> Self {
        Self { makers: Vec::new() }
    }

    /// Adds a check. `make` is called once per attempt.
    pub fn with<C: Check<F> + 'static>(
        mut self,
        make: impl Fn() -> C + Send + Sync + 'static,
    ) -> Self {
        self.makers.push(Arc::new(move || Box::new(make())));
        self
    }

    /// Adds all checks of another set.
    pub fn and(mut self, others: impl Into<Self>) -> Self {
        self.makers.extend(others.into().makers);
        self
    }

    /// Returns `true` if the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.makers.is_empty()
    }
}

impl<F: Finding> Default for Checks<F> {
    fn default() -> Self {
        Self::none()
    }
}

impl<F: Finding, C: Check<F> + 'static, M: Fn() -> C + Send + Sync + 'static> From<M>
    for Checks<F>
{
    fn from(make: M) -> Self {
        Self::none().with(make)
    }
}

impl<F> fmt::Debug for Checks<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks")
            .field("len", &self.makers.len())
            .finish()
    }
}

/// The checks of one kind in one attempt, and their findings.
pub(crate) struct Running<F> {
    checks: Vec<Box<dyn Check<F>>>,
    pub(crate) findings: Findings<F>,
}

impl<F: Finding> Running<F> {
    /// Creates the checks of an attempt, or `None` if the set is empty.
    pub(crate) fn start(checks: &Checks<F>) -> Option<Self> {
        (!checks.is_empty()).then(|| Self {
            checks: checks.makers.iter().map(|make| make()).collect(),
            findings: Findings::new(),
        })
    }

    #[inline]
    pub(crate) fn text(&mut self, delta: &str) {
        self.each(|check, findings| check.text(delta, findings));
    }

    pub(crate) fn end(&mut self, ended: &Ended) {
        self.each(|check, findings| check.end(ended, findings));
    }

    /// Calls every check. A check that panics is not called again.
    #[inline]
    fn each(&mut self, call: impl Fn(&mut dyn Check<F>, &mut Findings<F>)) {
        let Self { checks, findings } = self;
        let mut next = 0;
        while next < checks.len() {
            let done = contain(|| {
                while let Some(check) = checks.get_mut(next) {
                    call(&mut **check, findings);
                    next += 1;
                }
            });
            if done.is_none() {
                discard(checks.remove(next), findings);
            }
        }
    }
}

/// Drops a check that panicked, and reports the panic. Its `Drop` can panic as well.
#[cold]
fn discard<F: Finding>(check: Box<dyn Check<F>>, findings: &mut Findings<F>) {
    let finding = contain(|| F::of_panic(check.name()));
    let _ = contain(|| drop(check));
    if let Some(finding) = finding.flatten() {
        findings.report(finding);
    }
}
