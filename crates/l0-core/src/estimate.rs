//! Estimate: what an attempt that ended early may have used, kept apart from what was told.

use serde_json::Value;

use crate::price::Priced;
use crate::usage::Usage;

/// An attempt that ended before its answer was whole, of which its provider did not tell all.
///
/// See [`estimate_usage`](crate::Builder::estimate_usage).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Unfinished<'a> {
    /// Who served which model.
    pub model: Priced<'a>,
    /// Its tokens, as L0 counts them: items of the stream.
    pub tokens: u64,
    /// The characters of these: of text, of reasoning and of tool calls.
    pub characters: u64,
    /// What was asked; absent if the source does not know it.
    pub input: Option<&'a Value>,
    /// The characters of all texts in it, counted once for each attempt; absent as it is.
    pub input_characters: Option<u64>,
    /// What its provider told of its usage; absent if it told none.
    pub told: Option<Usage>,
}

/// Estimates what an attempt used in all.
pub(crate) type Estimate = dyn Fn(&Unfinished<'_>) -> Option<Usage> + Send + Sync;

/// The characters of all texts of a request, but the names of its fields.
pub(crate) fn characters(input: &Value) -> u64 {
    match input {
        Value::String(text) => text.chars().count() as u64,
        Value::Array(values) => values.iter().map(characters).sum(),
        Value::Object(fields) => fields.values().map(characters).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// What of an estimate was not told; absent if that is nothing. Of the prompt, what was told is final.
/// The output went on after it was told.
pub(crate) fn untold(estimated: Usage, told: Option<Usage>) -> Option<Usage> {
    let told = told.unwrap_or_default();
    let is_new = told.input.is_none();
    let rest = |all: Option<u64>, told: Option<u64>| {
        let rest = all?.saturating_sub(told.unwrap_or(0));
        (rest > 0).then_some(rest)
    };
    let rest = Usage {
        input: estimated.input.filter(|_| is_new),
        cached_input: estimated.cached_input.filter(|_| is_new),
        cache_write_input: estimated.cache_write_input.filter(|_| is_new),
        output: rest(estimated.output, told.output),
        reasoning: rest(estimated.reasoning, told.reasoning),
        total: None,
    };
    (rest != Usage::new()).then(|| rest.with_total())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_no_part_of_an_estimate() {
        let all = Usage::new().input(100).cached_input(40).output(30);
        let all = all.reasoning(10);
        for (name, estimated, told, rest) in [
            ("nothing told", all, None, Some(all.total(130))),
            (
                "the input and the first of the output, as of Anthropic",
                all,
                Some(Usage::new().input(90).output(1)),
                Some(Usage::new().output(29).reasoning(10).total(29)),
            ),
            (
                "more than was estimated",
                Usage::new().input(100).output(30),
                Some(Usage::new().input(90).output(30)),
                None,
            ),
            (
                "the output only",
                Usage::new().input(100).output(30),
                Some(Usage::new().output(10)),
                Some(Usage::new().input(100).output(20).total(120)),
            ),
            ("no estimate", Usage::new(), None, None),
        ] {
            assert_eq!(untold(estimated, told), rest, "{name}");
        }
    }
}
