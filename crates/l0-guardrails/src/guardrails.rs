//! Sets of rules.

use l0_core::Checks;

use crate::json::{Json, StrictJson};
use crate::latex::Latex;
use crate::markdown::Markdown;
use crate::patterns::{self, Patterns};
use crate::zero_output::ZeroOutput;

/// Constructors for sets of rules. Each set contains its rules with their defaults.
///
/// | set | rules |
/// |---|---|
/// | [`none`](Self::none) | none |
/// | [`minimal`](Self::minimal) | [`Json`], [`ZeroOutput`] |
/// | [`recommended`](Self::recommended) | [`Json`], [`Markdown`], [`Patterns`], [`ZeroOutput`] |
/// | [`strict`](Self::strict) | those, and [`Latex`] |
/// | [`json_only`](Self::json_only) | [`StrictJson`], [`ZeroOutput`] |
/// | [`markdown_only`](Self::markdown_only) | [`Markdown`], [`ZeroOutput`] |
/// | [`latex_only`](Self::latex_only) | [`Latex`], [`ZeroOutput`] |
///
/// Each set is a [`Checks`]. You can add rules to it:
///
/// ```
/// use l0_core::L0;
/// use l0_guardrails::{CustomPattern, Guardrails};
///
/// let names = CustomPattern::phrases(["Project X", "Project Y"])?.rule("secret-names");
/// let rules = Guardrails::recommended().with(move || names.clone());
/// let l0 = L0::builder().guardrails(rules).build();
/// # drop(l0);
/// # Ok::<_, l0_guardrails::PatternError>(())
/// ```
#[derive(Debug)]
pub enum Guardrails {}

impl Guardrails {
    /// Returns the empty set, to add rules to.
    pub fn none() -> Checks {
        Checks::none()
    }

    /// Returns the rules that apply to any answer: JSON is complete, and the answer is not empty.
    pub fn minimal() -> Checks {
        Self::none().with(Json::new).with(ZeroOutput::new)
    }

    /// Returns the rules for answers in prose, Markdown or JSON.
    pub fn recommended() -> Checks {
        patterns::prepare();
        Self::none()
            .with(Json::new)
            .with(Markdown::new)
            .with(Patterns::new)
            .with(ZeroOutput::new)
    }

    /// Returns the rules for answers in prose, Markdown, LaTeX or JSON.
    pub fn strict() -> Checks {
        patterns::prepare();
        Self::none()
            .with(Json::new)
            .with(Markdown::new)
            .with(Latex::new)
            .with(Patterns::new)
            .with(ZeroOutput::new)
    }

    /// Returns the rules for answers that must be a JSON object or array, and nothing else.
    pub fn json_only() -> Checks {
        Self::none().with(StrictJson::new).with(ZeroOutput::new)
    }

    /// Returns the rules for answers in Markdown.
    pub fn markdown_only() -> Checks {
        Self::none().with(Markdown::new).with(ZeroOutput::new)
    }

    /// Returns the rules for answers in LaTeX.
    pub fn latex_only() -> Checks {
        Self::none().with(Latex::new).with(ZeroOutput::new)
    }
}
