//! The rule for phrases that an application chooses.

use std::sync::Arc;

use l0_core::{Check, Ended, Findings, Severity, Violation};

use crate::phrases::{Phrases, Search};

/// Looks for your own phrases.
///
/// They are literal, and found anywhere in the answer, whatever the case of ASCII letters, with a
/// typographic apostrophe as good as a plain one, and whitespace of any kind and length as one
/// space. Where a phrase begins or ends with a letter or digit, a word must begin or end, except in
/// scripts without spaces between words. There are no regular expressions here: a [`Check`] of your
/// own can use them.
///
/// The first phrase found is reported, as soon as it is complete, with the byte right behind it as
/// its position. The text is not kept.
///
/// Phrases are compiled once. Clones share them, so that each attempt can have one:
///
/// ```
/// use l0_core::{L0, Severity};
/// use l0_guardrails::CustomPattern;
///
/// let pattern = CustomPattern::phrases(["as per my last email", "circle back"])?
///     .severity(Severity::Warning)
///     .message("Office talk");
/// let l0 = L0::builder().guardrails(move || pattern.clone()).build();
/// # drop(l0);
/// # Ok::<_, l0_guardrails::PatternError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct CustomPattern {
    phrases: Arc<Phrases>,
    search: Search,
    found: bool,
    rule: &'static str,
    severity: Severity,
    recoverable: bool,
    message: Arc<str>,
}

impl CustomPattern {
    /// Creates a rule that reports any of these phrases, as a recoverable error under the name
    /// `pattern-custom`. Without phrases, it reports nothing.
    ///
    /// # Errors
    ///
    /// Fails if a phrase is blank, or if there are too many phrases to compile: many millions of
    /// bytes.
    pub fn phrases<P: AsRef<str>>(
        phrases: impl IntoIterator<Item = P>,
    ) -> Result<Self, PatternError> {
        let phrases: Vec<P> = phrases.into_iter().collect();
        if phrases
            .iter()
            .any(|phrase| phrase.as_ref().trim().is_empty())
        {
            return Err(PatternError::Blank);
        }
        let phrases = Phrases::new(&phrases).map_err(|_| PatternError::TooLarge)?;
        Ok(Self {
            search: Search::new(&phrases),
            phrases: Arc::new(phrases),
            found: false,
            rule: "pattern-custom",
            severity: Severity::Error,
            recoverable: true,
            message: "A phrase was found that must not be in an answer".into(),
        })
    }

    /// Sets how bad a phrase is. Default: [`Severity::Error`].
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Sets whether a new attempt may repair it. Default: yes. An error that is not recoverable ends
    /// the run at once; a fatal violation does so in any case.
    pub fn recoverable(mut self, recoverable: bool) -> Self {
        self.recoverable = recoverable;
        self
    }

    /// Sets what the violation says. It leaves through exporters.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into().into();
        self
    }

    /// Sets the name of the rule, and of its violations. Default: `pattern-custom`.
    pub fn rule(mut self, name: &'static str) -> Self {
        self.rule = name;
        self
    }

    fn report(&mut self, end: u64, findings: &mut Findings) {
        self.found = true;
        let violation = Violation::new(self.rule, self.severity, &*self.message);
        let recoverable = self.recoverable && self.severity != Severity::Fatal;
        findings.report(violation.recoverable(recoverable).position(end));
    }
}

impl Check for CustomPattern {
    fn name(&self) -> &'static str {
        self.rule
    }

    fn text(&mut self, delta: &str, findings: &mut Findings) {
        if self.found {
            return;
        }
        let mut first = None;
        self.search.text(&self.phrases, delta, |found| {
            first.get_or_insert(found.end);
        });
        if let Some(end) = first {
            self.report(end, findings);
        }
    }

    fn end(&mut self, _: &Ended, findings: &mut Findings) {
        if self.found {
            return;
        }
        let mut first = None;
        self.search.end(&self.phrases, |found| {
            first.get_or_insert(found.end);
        });
        if let Some(end) = first {
            self.report(end, findings);
        }
    }
}

/// Why phrases make no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// One of them has nothing but whitespace.
    #[error("a phrase is blank")]
    Blank,
    /// There is too much to compile.
    #[error("the phrases are too large to compile")]
    TooLarge,
}
