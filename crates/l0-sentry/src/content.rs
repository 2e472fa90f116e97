//! Content: what an attempt was asked and answered, as attributes of its span, if that is sent.

use l0_core::{AnswerBuffer, Content, FinishReason, TokenView};
use sentry_core::protocol::Value;

use crate::data::Data;

/// How much of an execution is sent, in bytes: Sentry takes nothing of a transaction that is larger than 1 MiB,
/// and what is escaped once more is twice as long at most.
const MAX: usize = 256 * 1024;

/// What is asked and answered, as far as it may leave.
pub(crate) struct Exchange {
    content: Content,
    answer: AnswerBuffer,
    /// What is asked, as was reported manually.
    input: Option<Value>,
    /// How much more of the execution may be sent.
    left: usize,
}

impl Exchange {
    pub(crate) fn new(content: &Content) -> Self {
        Self {
            content: content.clone(),
            answer: content.buffer(),
            input: None,
            left: MAX,
        }
    }

    /// An attempt begins.
    pub(crate) fn begin(&mut self) {
        self.answer.clear();
    }

    /// This is asked.
    pub(crate) fn is_asked(&mut self, input: Value) {
        self.input = Some(input);
    }

    pub(crate) fn add(&mut self, view: &TokenView<'_>) {
        self.answer.add(view);
    }

    /// What may be sent of what was reported manually.
    pub(crate) fn recorded(&mut self, reason: Option<FinishReason>, embeds: bool) -> Data {
        let input = self.input.take();
        self.attributes(input.as_ref(), reason, embeds)
    }

    /// What may be sent of an attempt. Calls the user's mask.
    pub(crate) fn attributes(
        &mut self,
        input: Option<&Value>,
        reason: Option<FinishReason>,
        embeds: bool,
    ) -> Data {
        let prompt = input.map(|input| self.content.prompt(input));
        let prompt = prompt.unwrap_or_default();
        let (asked, input) = if embeds {
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
            (asked, input),
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

/// Messages as JSON; empty without any.
fn json(messages: Vec<Value>) -> String {
    if messages.is_empty() {
        return String::new();
    }
    Value::Array(messages).to_string()
}

/// The texts of parts, on lines of their own.
fn texts(parts: &[&Value]) -> String {
    let parts = parts.iter();
    let texts: Vec<_> = parts.filter_map(|part| part["content"].as_str()).collect();
    texts.join("\n")
}
