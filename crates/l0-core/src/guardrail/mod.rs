//! Guardrails: rules that an answer must keep, checked on every delta while it streams.
//!
//! A [`Guardrail`] is one rule's state for one attempt. [`Guardrails`] is the set of rules that
//! runs are checked by; it makes fresh rules for each attempt.
//!
//! What a rule reports decides what happens: a fatal violation, or an error that is not
//! recoverable, ends the run at once, and the item at fault is not handed out; a recoverable error
//! makes the attempt a faulty one when it ends, which is retried as the model's fault, and completes
//! once retries are exhausted; a warning is only counted.
//!
//! The text of an answer reaches the rules delta by delta, and an item that a rule does not stop is
//! handed out at once: a rule that ends runs can withhold what it was reported on, not what came
//! before.

#[cfg(feature = "guardrails")]
mod json;
#[cfg(feature = "guardrails")]
mod latex;
#[cfg(feature = "guardrails")]
mod markdown;
#[cfg(feature = "guardrails")]
mod pattern;

use std::fmt;
use std::sync::Arc;

use crate::verdict::{Severity, Violation};

#[cfg(feature = "guardrails")]
pub use json::{Json, StrictJson};
#[cfg(feature = "guardrails")]
pub use latex::Latex;
#[cfg(feature = "guardrails")]
pub use markdown::Markdown;
#[cfg(feature = "guardrails")]
pub use pattern::{CustomPattern, PatternError, Patterns};

/// One rule, for one attempt.
///
/// It sees the text of the answer only, piece by piece, and keeps what it needs of it: a rule
/// should cost time in proportion to the delta, and bounded memory. A panic in it is reported as a
/// warning under its name, and ends the rule's work for this attempt.
///
/// ```
/// use l0_core::guardrail::{Guardrail, Violations};
/// use l0_core::{Guardrails, Severity, Violation};
///
/// /// Reports answers of more than so many bytes.
/// struct AtMost(usize);
///
/// impl Guardrail for AtMost {
///     fn name(&self) -> &'static str {
///         "at-most"
///     }
///
///     fn text(&mut self, delta: &str, violations: &mut Violations) {
///         match self.0.checked_sub(delta.len()) {
///             Some(left) => self.0 = left,
///             None => {
///                 let too_long = Violation::new("at-most", Severity::Error, "The answer is too long");
///                 violations.report(too_long.recoverable(false));
///             }
///         }
///     }
///
///     fn end(&mut self, _: &mut Violations) {}
/// }
///
/// let guardrails = Guardrails::none().with(|| AtMost(10_000));
/// # drop(guardrails);
/// ```
pub trait Guardrail: Send {
    /// The rule's name, a stable label.
    fn name(&self) -> &'static str;

    /// A piece of the answer arrived; it is not empty.
    fn text(&mut self, delta: &str, violations: &mut Violations);

    /// The attempt ended by itself: the answer is complete.
    fn end(&mut self, violations: &mut Violations);
}

/// Takes what the rules of one attempt report: each distinct violation once, however often it is
/// reported. Two are the same if rule and message are.
#[derive(Debug, Default)]
pub struct Violations {
    reported: Vec<Violation>,
    /// How many of them were passed on.
    passed: usize,
}

impl Violations {
    /// How many distinct violations are kept per attempt; further ones are not reported.
    pub const MAX: usize = 100;

    /// Nothing reported yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reports a violation.
    pub fn report(&mut self, violation: Violation) {
        let known =
            |one: &Violation| one.rule == violation.rule && one.message == violation.message;
        if self.reported.len() < Self::MAX && !self.reported.iter().any(known) {
            self.reported.push(violation);
        }
    }

    /// What was reported so far.
    pub fn iter(&self) -> impl Iterator<Item = &Violation> {
        self.reported.iter()
    }

    /// What was reported since the last call.
    pub(crate) fn take_new(&mut self) -> &[Violation] {
        let new = &self.reported[self.passed..];
        self.passed = self.reported.len();
        new
    }

    /// Whether there is something new.
    pub(crate) fn has_new(&self) -> bool {
        self.passed < self.reported.len()
    }

    /// The first violation that ends the run.
    pub(crate) fn halting(&self) -> Option<&Violation> {
        self.reported
            .iter()
            .find(|violation| match violation.severity {
                Severity::Fatal => true,
                Severity::Error => !violation.recoverable,
                Severity::Warning => false,
            })
    }

    /// The first violation that a new attempt may repair.
    pub(crate) fn recoverable(&self) -> Option<&Violation> {
        let repairable = |one: &&Violation| one.severity == Severity::Error && one.recoverable;
        self.reported.iter().find(repairable)
    }
}

type MakeRule = Arc<dyn Fn() -> Box<dyn Guardrail> + Send + Sync>;

/// The rules that runs are checked by. Cheap to clone; the rules themselves are made afresh for
/// every attempt.
#[derive(Clone, Default)]
#[must_use]
pub struct Guardrails {
    rules: Vec<MakeRule>,
    zero_output: bool,
}

impl Guardrails {
    /// No rules: the default.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a rule. `make` is called once per attempt.
    pub fn with<G: Guardrail + 'static>(
        mut self,
        make: impl Fn() -> G + Send + Sync + 'static,
    ) -> Self {
        self.rules.push(Arc::new(move || Box::new(make())));
        self
    }

    /// Reports an empty answer as a violation of the rule `zero-output`, besides what
    /// `detect_zero_output` does about it.
    pub fn with_zero_output(mut self) -> Self {
        self.zero_output = true;
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty() && !self.zero_output
    }

    pub(crate) fn make(&self) -> impl Iterator<Item = Box<dyn Guardrail>> {
        self.rules.iter().map(|make| make())
    }

    pub(crate) fn reports_zero_output(&self) -> bool {
        self.zero_output
    }
}

/// Sets of the built-in rules, each with its defaults.
#[cfg(feature = "guardrails")]
impl Guardrails {
    /// [`Json`], and no empty answer.
    pub fn minimal() -> Self {
        Self::none().with(Json::new).with_zero_output()
    }

    /// [`Json`], [`Markdown`] and [`Patterns`], and no empty answer.
    pub fn recommended() -> Self {
        Self::none()
            .with(Json::new)
            .with(Markdown::new)
            .with(Patterns::new)
            .with_zero_output()
    }

    /// [`Json`], [`Markdown`], [`Latex`] and [`Patterns`], and no empty answer.
    pub fn strict() -> Self {
        Self::none()
            .with(Json::new)
            .with(Markdown::new)
            .with(Latex::new)
            .with(Patterns::new)
            .with_zero_output()
    }

    /// [`Json`], and no empty answer: for answers that are JSON. Text that does not begin like JSON
    /// is let through.
    pub fn json_only() -> Self {
        Self::none().with(Json::new).with_zero_output()
    }

    /// [`Markdown`], and no empty answer.
    pub fn markdown_only() -> Self {
        Self::none().with(Markdown::new).with_zero_output()
    }

    /// [`Latex`], and no empty answer.
    pub fn latex_only() -> Self {
        Self::none().with(Latex::new).with_zero_output()
    }
}

impl fmt::Debug for Guardrails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guardrails")
            .field("rules", &self.rules.len())
            .field("zero_output", &self.zero_output)
            .finish()
    }
}
