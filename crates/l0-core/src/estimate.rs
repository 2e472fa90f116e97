//! Estimates: the usage of attempts that ended early, kept apart from reported usage.

use serde_json::Value;

use crate::price::Priced;
use crate::usage::Usage;

/// An attempt that ended before its answer was complete, without complete usage from its provider.
///
/// See [`estimate_usage`](crate::builder::Builder::estimate_usage).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Unfinished<'a> {
    /// The model, and its provider.
    pub model: Priced<'a>,
    /// The attempt's tokens, as L0 counts them: items of the stream.
    pub tokens: u64,
    /// The characters of these tokens: text, reasoning and tool calls.
    pub characters: u64,
    /// The request. `None` if the source does not expose it.
    pub input: Option<&'a Value>,
    /// The characters of all texts in the request, counted once per attempt. `None` if `input` is. Data
    /// sent as text, such as an image in base64, does not count.
    pub input_characters: Option<u64>,
    /// The usage that the provider reported. `None` if it reported none.
    pub reported: Option<Usage>,
}

/// Estimates the total usage of an attempt.
pub(crate) type Estimate = dyn Fn(&Unfinished<'_>) -> Option<Usage> + Send + Sync;

/// Counts the characters of all texts of a request, except field names. An image or audio sent as text
/// does not count, because its tokens do not depend on its length.
pub(crate) fn characters(input: &Value) -> u64 {
    match input {
        Value::String(text) if is_data(text) => 0,
        Value::String(text) => text.chars().count() as u64,
        Value::Array(values) => values.iter().map(characters).sum(),
        Value::Object(fields) => fields.values().map(characters).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Returns `true` if a text is base64 data or a `data:` URL. Prose is never this long without a space
/// or a full stop.
fn is_data(text: &str) -> bool {
    const MIN: usize = 512;
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=\r\n".contains(&byte);
    text.starts_with("data:") && text.contains(";base64,")
        || text.len() >= MIN && text.bytes().all(is_base64)
}

/// Returns the part of an estimate that was not reported, or `None` if there is none. A reported prompt
/// is final. The output continued after it was reported.
pub(crate) fn unreported(estimated: Usage, reported: Option<Usage>) -> Option<Usage> {
    let reported = reported.unwrap_or_default();
    let is_new = reported.input.is_none();
    let rest = |all: Option<u64>, reported: Option<u64>| {
        let rest = all?.saturating_sub(reported.unwrap_or(0));
        (rest > 0).then_some(rest)
    };
    let rest = Usage {
        input: estimated.input.filter(|_| is_new),
        cached_input: estimated.cached_input.filter(|_| is_new),
        cache_write_input: estimated.cache_write_input.filter(|_| is_new),
        output: rest(estimated.output, reported.output),
        reasoning: rest(estimated.reasoning, reported.reasoning),
        total: None,
    };
    (rest != Usage::new()).then(|| rest.with_total())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn characters_are_those_of_texts_not_of_names_and_not_of_data() {
        let image = "iVBORw0KGgo/+aA0".repeat(100);
        for (name, input, expected) in [
            ("a text", json!("Héllo"), 5),
            (
                "messages",
                json!([{"role": "user", "content": "Hello"}, {"content": null, "seed": 12}]),
                9,
            ),
            (
                "an image of Anthropic",
                json!({"type": "base64", "data": image}),
                6,
            ),
            (
                "an image of OpenAI",
                json!({"url": format!("data:image/png;base64,{}", &image[..16])}),
                0,
            ),
            ("a long word", json!("a".repeat(511)), 511),
            ("a long text", json!("a text ".repeat(100)), 700),
            ("a long text without spaces", json!("文".repeat(600)), 600),
        ] {
            assert_eq!(characters(&input), expected, "{name}");
        }
    }

    #[test]
    fn reported_usage_is_not_part_of_an_estimate() {
        let all = Usage::new().input(100).cached_input(40).output(30);
        let all = all.reasoning(10);
        for (name, estimated, reported, rest) in [
            ("nothing reported", all, None, Some(all.total(130))),
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
            assert_eq!(unreported(estimated, reported), rest, "{name}");
        }
    }
}
