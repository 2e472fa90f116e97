//! The parts of Messages stream payloads that the decoder reads, borrowed.

use serde::de::MapAccess;

use crate::lenient::{Arguments, Count, Fields, List, Object, Prose, Text, skip};
use crate::report::ErrorField;
use crate::usage::UsageFields;

/// Any event.
#[derive(Default)]
pub(super) struct Payload<'a> {
    pub(super) kind: Text<'a>,
    pub(super) index: Count,
    pub(super) delta: Object<Delta<'a>>,
    pub(super) block: Object<Box<Block<'a>>>,
    pub(super) message: Object<Box<Message<'a>>>,
    pub(super) usage: Object<Box<UsageFields>>,
    pub(super) error: ErrorField<'a>,
}

impl<'de> Fields<'de> for Payload<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => self.kind = map.next_value()?,
            "index" => self.index = map.next_value()?,
            "delta" => self.delta.read(map)?,
            "content_block" => self.block.read(map)?,
            "message" => self.message.read(map)?,
            "usage" => self.usage.read(map)?,
            "error" => self.error = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// The delta of `content_block_delta` or `message_delta`.
#[derive(Default)]
pub(super) struct Delta<'a> {
    pub(super) kind: Text<'a>,
    pub(super) text: Text<'a>,
    /// Reasoning, under any name.
    pub(super) thinking: Prose<'a>,
    pub(super) partial_json: Text<'a>,
    pub(super) stop_reason: Text<'a>,
}

impl<'de> Fields<'de> for Delta<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => self.kind = map.next_value()?,
            "text" => self.text = map.next_value()?,
            "thinking" | "reasoning" | "reasoning_content" | "summary"
                if self.thinking.is_empty() =>
            {
                self.thinking = map.next_value()?;
            }
            "partial_json" => self.partial_json = map.next_value()?,
            "stop_reason" => self.stop_reason = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// A content block at its start.
#[derive(Default)]
pub(super) struct Block<'a> {
    pub(super) kind: Text<'a>,
    pub(super) text: Text<'a>,
    /// Reasoning, under any name.
    pub(super) thinking: Prose<'a>,
    pub(super) id: Text<'a>,
    pub(super) name: Text<'a>,
    pub(super) input: Arguments<'a>,
}

impl<'de> Fields<'de> for Block<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => self.kind = map.next_value()?,
            "text" => self.text = map.next_value()?,
            "thinking" | "reasoning" | "reasoning_content" | "summary"
                if self.thinking.is_empty() =>
            {
                self.thinking = map.next_value()?;
            }
            "id" => self.id = map.next_value()?,
            "name" => self.name = map.next_value()?,
            "input" => self.input = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// The message of `message_start`.
#[derive(Default)]
pub(super) struct Message<'a> {
    pub(super) id: Text<'a>,
    pub(super) model: Text<'a>,
    pub(super) usage: Object<UsageFields>,
    pub(super) stop_reason: Text<'a>,
    /// Almost always empty.
    pub(super) content: List<Block<'a>>,
}

impl<'de> Fields<'de> for Message<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => self.id = map.next_value()?,
            "model" => self.model = map.next_value()?,
            "usage" => self.usage.read(map)?,
            "stop_reason" => self.stop_reason = map.next_value()?,
            "content" => self.content.read(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}
