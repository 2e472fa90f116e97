//! The prompt and the answer of an attempt, as attributes of its span, if content is sent.

use l0_core::{AnswerBuffer, Content, FinishReason, TokenView};
use sentry_core::protocol::Value;

use crate::data::Data;

/// The maximum amount of content per execution, in bytes. Sentry rejects transactions larger than 1 MiB. A JSON
/// string grows to at most twice its length when it is escaped again.
const MAX: usize = 256 * 1024;

/// The prompt and the answer of the current attempt, up to the limits of what is sent.
pub(crate) struct ContentBuffer {
    content: Content,
    answer: AnswerBuffer,
    /// The prompt of a manual report.
    input: Option<Value>,
    /// The number of bytes that can still be sent for this execution.
    left: usize,
}

impl ContentBuffer {
    pub(crate) fn new(content: &Content) -> Self {
        Self {
            content: content.clone(),
            answer: content.buffer(),
            input: None,
            left: MAX,
        }
    }

    /// Clears the answer, for a new attempt.
    pub(crate) fn begin(&mut self) {
        self.answer.clear();
    }

    /// Sets the prompt of a manual report.
    pub(crate) fn set_input(&mut self, input: Value) {
        self.input = Some(input);
    }

    pub(crate) fn add(&mut self, view: &TokenView<'_>) {
        self.answer.add(view);
    }

    /// Returns the attributes of a manual report.
    pub(crate) fn recorded(&mut self, reason: Option<FinishReason>, embeds: bool) -> Data {
        let input = self.input.take();
        self.attributes(input.as_ref(), reason, embeds)
    }

    /// Returns the attributes of an attempt, up to the limit. Calls the user's mask.
    pub(crate) fn attributes(
        &mut self,
        input: Option<&Value>,
        reason: Option<FinishReason>,
        embeds: bool,
    ) -> Data {
        let prompt = input.map(|input| self.content.prompt(input));
        let prompt = prompt.unwrap_or_default();
        let (input_key, input) = if embeds {
            let messages = prompt.messages.iter();
            let parts = messages.filter_map(|message| message["parts"].as_array());
            let parts: Vec<_> = parts.flatten().collect();
            ("gen_ai.embeddings.input", texts(&parts))
        } else {
            ("gen_ai.input.messages", json(prompt.messages))
        };
        let instructions: Vec<_> = prompt.instructions.iter().collect();
        let reason = reason.map(FinishReason::as_str);
        let answer = self.content.answer(&self.answer, reason);
        let known = [
            ("gen_ai.output.messages", json(answer)),
            (input_key, input),
            ("gen_ai.system_instructions", texts(&instructions)),
        ];
        let mut attributes = Data::new();
        for (key, text) in known {
            if let (false, Some(left)) = (text.is_empty(), self.left.checked_sub(text.len())) {
                self.left = left;
                attributes.insert(key.to_owned(), text.into());
            }
        }
        attributes
    }
}

/// Returns the messages as JSON, or an empty string if there are none.
fn json(messages: Vec<Value>) -> String {
    if messages.is_empty() {
        return String::new();
    }
    Value::Array(messages).to_string()
}

/// Returns the texts of the parts, one per line.
fn texts(parts: &[&Value]) -> String {
    let parts = parts.iter();
    let texts: Vec<_> = parts.filter_map(|part| part["content"].as_str()).collect();
    texts.join("\n")
}
