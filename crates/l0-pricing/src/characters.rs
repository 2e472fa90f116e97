//! Characters: what an answer that ended early may have used, by how long its texts are.

use l0_core::{Unfinished, Usage};

/// Estimates the usage of answers that ended early from the characters of what was asked and answered.
///
/// How many characters a token has depends on the model and on the language: about four in English
/// prose, fewer in code, and one or two in Chinese or Japanese. So this is an estimate, and stands
/// apart from what providers tell wherever it is shown. Reasoning that a provider does not show is not
/// in it.
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
    /// The longest beginning first.
    models: Vec<(String, f64)>,
}

impl Characters {
    /// Creates an estimate by so many characters for each token. What is not above 0 counts as 1.
    pub fn per_token(characters: f64) -> Self {
        Self {
            per_token: positive(characters),
            models: Vec::new(),
        }
    }

    /// Sets how many characters a token has of models whose names begin so. Of several beginnings the
    /// longest counts.
    pub fn model(mut self, beginning: impl Into<String>, characters: f64) -> Self {
        self.models.push((beginning.into(), positive(characters)));
        self.models
            .sort_by_key(|(beginning, _)| std::cmp::Reverse(beginning.len()));
        self
    }

    /// Returns what an attempt may have used: the output, and the input where it is known.
    #[must_use]
    pub fn estimate(&self, attempt: &Unfinished<'_>) -> Usage {
        let names = [attempt.model.response_model, attempt.model.model];
        let names = || names.into_iter().flatten();
        let row = self
            .models
            .iter()
            .find(|(beginning, _)| names().any(|name| name.starts_with(beginning.as_str())));
        let per_token = row.map_or(self.per_token, |(_, per_token)| *per_token);
        let tokens = |characters: u64| (characters as f64 / per_token).ceil() as u64;
        let output = Usage::new().output(tokens(attempt.characters));
        match attempt.input_characters {
            Some(characters) => output.input(tokens(characters)),
            None => output,
        }
    }

    /// Returns a function for [`estimate_usage`](l0_core::Builder::estimate_usage).
    pub fn estimator(self) -> impl Fn(&Unfinished<'_>) -> Option<Usage> + Send + Sync + 'static {
        move |attempt| Some(self.estimate(attempt))
    }
}

fn positive(characters: f64) -> f64 {
    if characters > 0.0 { characters } else { 1.0 }
}
