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
    /// The characters of all texts in it, counted once for each attempt; absent as it is. Data that is
    /// sent as text, such as an image in base64, is not counted.
    pub input_characters: Option<u64>,
    /// What its provider told of its usage; absent if it told none.
    pub told: Option<Usage>,
}

/// Estimates what an attempt used in all.
pub(crate) type Estimate = dyn Fn(&Unfinished<'_>) -> Option<Usage> + Send + Sync;

/// The characters of all texts of a request, but the names of its fields. An image or a sound that is
/// sent in a text is none: its tokens have nothing to do with its length.
pub(crate) fn characters(input: &Value) -> u64 {
    match input {
        Value::String(text) if is_data(text) => 0,
        Value::String(text) => text.chars().count() as u64,
        Value::Array(values) => values.iter().map(characters).sum(),
        Value::Object(fields) => fields.values().map(characters).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Whether a text is bytes in base64, or a `data:` URL. What is said in words is never so long without
/// a space or a point.
fn is_data(text: &str) -> bool {
    const MIN: usize = 512;
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=\r\n".contains(&byte);
    text.starts_with("data:") && text.contains(";base64,")
        || text.len() >= MIN && text.bytes().all(is_base64)
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
