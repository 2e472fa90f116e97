//! The parts of the lines of `/api/chat` and `/api/generate` that the decoder reads, borrowed.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::lenient::{
    Arguments, Fields, Flag, List, Object, Prose, Text, anything, default_on, skip,
};
use crate::report::ErrorField;
use crate::usage::UsageFields;

/// One line of either API.
#[derive(Default)]
pub(super) struct Payload<'a> {
    pub(super) model: Text<'a>,
    /// The message of `/api/chat`.
    pub(super) message: Object<Message<'a>>,
    /// The same fields of `/api/generate`, which are not nested.
    pub(super) own: Message<'a>,
    pub(super) done: Flag,
    pub(super) done_reason: Text<'a>,
    pub(super) counts: UsageFields,
    pub(super) error: ErrorField<'a>,
    /// `true` if the line has a field of an answer.
    pub(super) is_answer: bool,
}

impl<'de> Fields<'de> for Payload<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "model" => self.model = map.next_value()?,
            "message" => {
                self.message.read(map)?;
                self.is_answer |= self.message.0.is_some();
            }
            "response" => {
                self.own.content = map.next_value()?;
                self.is_answer |= self.own.content.0.is_some();
            }
            "done" => {
                self.done = map.next_value()?;
                self.is_answer = true;
            }
            "done_reason" => self.done_reason = map.next_value()?,
            "prompt_eval_count" | "eval_count" => self.counts.read(key, map)?,
            "error" => self.error = map.next_value()?,
            "thinking" | "tool_calls" | "images" => self.own.read(key, map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// A piece of the answer.
#[derive(Default)]
pub(super) struct Message<'a> {
    pub(super) content: Text<'a>,
    pub(super) thinking: Prose<'a>,
    pub(super) tool_calls: List<ToolCall<'a>>,
    pub(super) images: bool,
}

impl<'de> Fields<'de> for Message<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "content" => self.content = map.next_value()?,
            "thinking" => self.thinking = map.next_value()?,
            // Other servers that speak Ollama's API.
            "reasoning" | "reasoning_content" if self.thinking.is_empty() => {
                self.thinking = map.next_value()?;
            }
            "tool_calls" => self.tool_calls.read(map)?,
            "images" => {
                let Filled(images) = map.next_value()?;
                self.images = images;
            }
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// A tool call, which always arrives whole.
#[derive(Default)]
pub(super) struct ToolCall<'a> {
    pub(super) id: Text<'a>,
    pub(super) function: Object<Function<'a>>,
}

impl<'de> Fields<'de> for ToolCall<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => self.id = map.next_value()?,
            "function" => self.function.read(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Function<'a> {
    pub(super) name: Text<'a>,
    pub(super) arguments: Arguments<'a>,
}

impl<'de> Fields<'de> for Function<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "name" => self.name = map.next_value()?,
            "arguments" => self.arguments = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// `true` for a list that is not empty.
#[derive(Default)]
struct Filled(bool);

impl<'de> Deserialize<'de> for Filled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Filled;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut filled = false;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    filled = true;
                }
                Ok(Filled(filled))
            }
            default_on!(bool number str null map);
        }
        deserializer.deserialize_any(V)
    }
}
