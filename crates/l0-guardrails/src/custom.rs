//! The rule for custom phrases.

use std::sync::Arc;

use l0_core::{Check, Ended, Findings, Severity, Violation};

use crate::phrases::{Phrases, Search};

/// A rule that finds your own phrases.
///
/// Phrases are literal and match anywhere in the answer. The case of ASCII letters is ignored,
/// typographic and plain apostrophes are equal, and any run of whitespace equals one space. A phrase
/// that begins or ends with a letter or digit matches only at a word boundary, except in scripts
/// without spaces between words. There are no regular expressions; use them in your own [`Check`] if
/// you need them.
///
/// The first phrase found is reported as soon as it is complete. Its position is the byte directly
/// after it. The text is not kept.
///
/// Phrases are compiled once. Clones share them, so each attempt can have its own rule:
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
    /// Creates a rule that reports any of these phrases as a recoverable error named `pattern-custom`.
    /// Without phrases, it reports nothing.
    ///
    /// # Errors
    ///
    /// Returns an error if a phrase is blank, or if the phrases are too large to compile: many millions
    /// of bytes.
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
            search: phrases.search(),
            phrases: Arc::new(phrases),
            found: false,
            rule: "pattern-custom",
            severity: Severity::Error,
            recoverable: true,
            message: "The answer contains a forbidden phrase".into(),
        })
    }

    /// Sets the severity of the violation. Default: [`Severity::Error`].
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Sets whether a new attempt can repair the violation. Default: `true`. An error that is not
    /// recoverable ends the run immediately, as a fatal violation always does.
    pub fn recoverable(mut self, recoverable: bool) -> Self {
        self.recoverable = recoverable;
        self
    }

    /// Sets the message of the violation. Exporters send it.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into().into();
        self
    }

    /// Sets the name of the rule and of its violations. Default: `pattern-custom`.
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
        self.phrases.text(&mut self.search, delta, |found| {
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
        self.phrases.end(&mut self.search, |found| {
            first.get_or_insert(found.end);
        });
        if let Some(end) = first {
            self.report(end, findings);
        }
    }
}

/// The reason why phrases do not form a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// A phrase consists of whitespace only.
    #[error("a phrase is blank")]
    Blank,
    /// The phrases are too large to compile.
    #[error("the phrases are too large to compile")]
    TooLarge,
}
