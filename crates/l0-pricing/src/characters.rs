//! Characters: estimates the usage of answers that ended early from the length of their texts.

use l0_core::{Unfinished, Usage};

/// Estimates the usage of answers that ended early from the characters of the request and the answer.
///
/// The number of characters per token depends on the model and the language: about four in English
/// prose, fewer in code, and one or two in Chinese or Japanese. The result is therefore an estimate,
/// and is always reported separately from the usage that providers report. It does not include
/// reasoning that a provider hides.
///
/// ```
/// use l0_core::L0;
/// use l0_pricing::Characters;
///
/// let characters = Characters::per_token(4.0).model("claude-", 3.5);
/// let l0 = L0::builder().estimate_usage(characters.estimator()).build();
/// # drop(l0);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Characters {
    per_token: f64,
    /// Sorted by the length of the prefix, longest first.
    models: Vec<(String, f64)>,
}

impl Characters {
    /// Creates an estimate with this many characters per token. Values that are not above 0 count as 1.
    pub fn per_token(characters: f64) -> Self {
        Self {
            per_token: positive(characters),
            models: Vec::new(),
        }
    }

    /// Sets the characters per token for models whose names start with `prefix`. The longest matching
    /// prefix wins.
    pub fn model(mut self, prefix: impl Into<String>, characters: f64) -> Self {
        self.models.push((prefix.into(), positive(characters)));
        self.models
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        self
    }

    /// Returns the estimated usage of an attempt: its output, and its input if known.
    #[must_use]
    pub fn estimate(&self, attempt: &Unfinished<'_>) -> Usage {
        let names = [attempt.model.response_model, attempt.model.model];
        let names = || names.into_iter().flatten();
        let row = self
            .models
            .iter()
            .find(|(prefix, _)| names().any(|name| name.starts_with(prefix.as_str())));
        let per_token = row.map_or(self.per_token, |(_, per_token)| *per_token);
        let tokens = |characters: u64| (characters as f64 / per_token).ceil() as u64;
        let output = Usage::new().output(tokens(attempt.characters));
        match attempt.input_characters {
            Some(characters) => output.input(tokens(characters)),
            None => output,
        }
    }

    /// Returns a function for [`estimate_usage`](l0_core::builder::Builder::estimate_usage).
    pub fn estimator(self) -> impl Fn(&Unfinished<'_>) -> Option<Usage> + Send + Sync + 'static {
        move |attempt| Some(self.estimate(attempt))
    }
}

fn positive(characters: f64) -> f64 {
    if characters > 0.0 { characters } else { 1.0 }
}
