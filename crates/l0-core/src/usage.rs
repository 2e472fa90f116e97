//! Usage: a provider's own token counts, with the same meaning for every provider.

use serde::{Deserialize, Serialize};

/// The provider's own token counts. A count that the provider does not report is `None`, never 0.
///
/// The meaning is the same for every provider. `input` counts all tokens of the prompt, including those
/// read from and written to a cache. `output` counts all generated tokens, including reasoning. `total`
/// is their sum. Code that converts a provider's counts into a `Usage` must follow these rules.
///
/// These are the model's tokens, as billed. L0's own token count is separate: it counts the items of
/// the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Usage {
    /// All tokens of the prompt, including those read from and written to a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// All generated tokens, including reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// The sum of input and output tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Tokens of the prompt read from the provider's cache. Part of [`input`](Self::input).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<u64>,
    /// Tokens of the prompt written to the provider's cache. Part of [`input`](Self::input).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_input: Option<u64>,
    /// Reasoning tokens. Part of [`output`](Self::output).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
}

impl Usage {
    /// Creates a usage with all counts unknown.
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

    /// Sets the number of prompt tokens, including those read from and written to a cache.
    #[must_use]
    pub const fn input(mut self, tokens: u64) -> Self {
        self.input = Some(tokens);
        self
    }

    /// Sets the number of generated tokens, including reasoning.
    #[must_use]
    pub const fn output(mut self, tokens: u64) -> Self {
        self.output = Some(tokens);
        self
    }

    /// Sets the total number of tokens.
    #[must_use]
    pub const fn total(mut self, tokens: u64) -> Self {
        self.total = Some(tokens);
        self
    }

    /// Sets the number of prompt tokens read from the provider's cache.
    #[must_use]
    pub const fn cached_input(mut self, tokens: u64) -> Self {
        self.cached_input = Some(tokens);
        self
    }

    /// Sets the number of prompt tokens written to the provider's cache.
    #[must_use]
    pub const fn cache_write_input(mut self, tokens: u64) -> Self {
        self.cache_write_input = Some(tokens);
        self
    }

    /// Sets the number of reasoning tokens.
    #[must_use]
    pub const fn reasoning(mut self, tokens: u64) -> Self {
        self.reasoning = Some(tokens);
        self
    }

    /// Adds two usages, count by count. A count that is absent in both stays absent. If a usage has no
    /// total, its input and output are added to the other's total.
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
        // An attempt that was cut off reports no total, but is still part of the bill.
        let known = |usage: Self| usage.with_total().total;
        let is_reported = self.total.is_some() || other.total.is_some();
        Self {
            input: add(self.input, other.input),
            output: add(self.output, other.output),
            total: add(known(self), known(other)).filter(|_| is_reported),
            cached_input: add(self.cached_input, other.cached_input),
            cache_write_input: add(self.cache_write_input, other.cache_write_input),
            reasoning: add(self.reasoning, other.reasoning),
        }
    }

    /// Sets the total to the value that it contributes to a sum.
    pub(crate) fn with_total(mut self) -> Self {
        self.total = self.total.or_else(|| add(self.input, self.output));
        self
    }
}

/// Adds two counts, either of which can be unknown.
fn add(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    }
}
