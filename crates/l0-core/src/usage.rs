//! Usage: a provider's own token counts, with one meaning whatever the provider.

use serde::{Deserialize, Serialize};

/// The provider's own token counts. A count that the provider does not report is absent, never 0.
///
/// It means the same whatever the provider: `input` is all tokens of the prompt, those read from and
/// written to a cache included; `output` is all tokens that were generated, reasoning included;
/// `total` is their sum. Whoever reads a provider's counts into it sees to that.
///
/// These are the model's tokens, as billed; they are never mixed with L0's count of tokens, which
/// counts the items of the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Usage {
    /// All tokens of the prompt, those read from and written to a cache included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// All tokens that were generated, reasoning included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// Tokens in all: input and output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Tokens of the prompt that came from the provider's cache; part of [`input`](Self::input).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<u64>,
    /// Tokens of the prompt that were written to the provider's cache; part of
    /// [`input`](Self::input).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_input: Option<u64>,
    /// Tokens that were reasoning; part of [`output`](Self::output).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
}

impl Usage {
    /// Creates a usage without counts.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            input: None,
            output: None,
            total: None,
            cached_input: None,
            cache_write_input: None,
            reasoning: None,
        }
    }

    /// Sets all tokens of the prompt.
    #[must_use]
    pub const fn input(mut self, tokens: u64) -> Self {
        self.input = Some(tokens);
        self
    }

    /// Sets all tokens that were generated.
    #[must_use]
    pub const fn output(mut self, tokens: u64) -> Self {
        self.output = Some(tokens);
        self
    }

    /// Sets the tokens in all.
    #[must_use]
    pub const fn total(mut self, tokens: u64) -> Self {
        self.total = Some(tokens);
        self
    }

    /// Sets the prompt tokens that came from the provider's cache.
    #[must_use]
    pub const fn cached_input(mut self, tokens: u64) -> Self {
        self.cached_input = Some(tokens);
        self
    }

    /// Sets the prompt tokens that were written to the provider's cache.
    #[must_use]
    pub const fn cache_write_input(mut self, tokens: u64) -> Self {
        self.cache_write_input = Some(tokens);
        self
    }

    /// Sets the generated tokens that were reasoning.
    #[must_use]
    pub const fn reasoning(mut self, tokens: u64) -> Self {
        self.reasoning = Some(tokens);
        self
    }

    /// Adds up two usages, count by count. What is absent in both stays absent. The total of a usage
    /// that has none is what it adds to input and output.
    ///
    /// ```
    /// use l0_core::Usage;
    ///
    /// let first = Usage::new().input(10).output(3).total(13);
    /// let cut = Usage::new().input(12);
    /// assert_eq!(first.plus(cut), Usage::new().input(22).output(3).total(25));
    /// ```
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        // One that was cut tells no total, and yet is part of what was billed.
        let known = |usage: Self| usage.with_total().total;
        let is_told = self.total.is_some() || other.total.is_some();
        Self {
            input: add(self.input, other.input),
            output: add(self.output, other.output),
            total: add(known(self), known(other)).filter(|_| is_told),
            cached_input: add(self.cached_input, other.cached_input),
            cache_write_input: add(self.cache_write_input, other.cache_write_input),
            reasoning: add(self.reasoning, other.reasoning),
        }
    }

    /// Sets the total to what it adds to those of others.
    pub(crate) fn with_total(mut self) -> Self {
        self.total = self.total.or_else(|| add(self.input, self.output));
        self
    }
}

/// Adds up counts of which either may be unknown.
fn add(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    }
}
