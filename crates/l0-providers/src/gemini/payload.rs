//! The parts of `streamGenerateContent` payloads that the decoder reads, borrowed.

use serde::de::MapAccess;

use crate::lenient::{Anything, Arguments, Count, Fields, Flag, List, Object, Prose, Text, skip};
use crate::report::ErrorField;
use crate::usage::UsageFields;

/// One `GenerateContentResponse`.
#[derive(Default)]
pub(super) struct Payload<'a> {
    pub(super) candidates: List<Candidate<'a>>,
    pub(super) feedback: Object<Feedback<'a>>,
    pub(super) usage: Object<UsageFields>,
    pub(super) model: Text<'a>,
    pub(super) response_id: Text<'a>,
    pub(super) error: ErrorField<'a>,
}

impl<'de> Fields<'de> for Payload<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "candidates" => self.candidates.read(map)?,
            "promptFeedback" | "prompt_feedback" => self.feedback.read(map)?,
            "usageMetadata" | "usage_metadata" => self.usage.read(map)?,
            "modelVersion" | "model_version" => self.model = map.next_value()?,
            "responseId" | "response_id" => self.response_id = map.next_value()?,
            "error" => self.error = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Candidate<'a> {
    pub(super) index: Count,
    pub(super) content: Object<Content<'a>>,
    pub(super) finish_reason: Text<'a>,
}

impl<'de> Fields<'de> for Candidate<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "index" => self.index = map.next_value()?,
            "content" => self.content.read(map)?,
            "finishReason" | "finish_reason" => self.finish_reason = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Content<'a> {
    pub(super) parts: List<Part<'a>>,
}

impl<'de> Fields<'de> for Content<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "parts" => self.parts.read(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Part<'a> {
    pub(super) text: Text<'a>,
    /// `true` if the text is reasoning.
    pub(super) thought: Flag,
    /// Reasoning under a separate name.
    pub(super) reasoning: Prose<'a>,
    /// `true` for an image, audio or another file.
    pub(super) media: bool,
    pub(super) function_call: Object<FunctionCall<'a>>,
}

impl<'de> Fields<'de> for Part<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "text" => self.text = map.next_value()?,
            "thought" => self.thought = map.next_value()?,
            "reasoning" | "reasoning_content" | "thinking" | "thoughtText"
                if self.reasoning.is_empty() =>
            {
                self.reasoning = map.next_value()?;
            }
            "inlineData" | "inline_data" | "fileData" | "file_data" => {
                let mut media = Object::<Anything>::default();
                media.read(map)?;
                self.media = media.0.is_some();
            }
            "functionCall" | "function_call" => self.function_call.read(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct FunctionCall<'a> {
    pub(super) id: Text<'a>,
    pub(super) name: Text<'a>,
    pub(super) args: Arguments<'a>,
    pub(super) partial_args: Arguments<'a>,
}

impl<'de> Fields<'de> for FunctionCall<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => self.id = map.next_value()?,
            "name" => self.name = map.next_value()?,
            "args" => self.args = map.next_value()?,
            "partialArgs" | "partial_args" => self.partial_args = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// Gemini's feedback on the prompt.
#[derive(Default)]
pub(super) struct Feedback<'a> {
    pub(super) block_reason: Text<'a>,
}

impl<'de> Fields<'de> for Feedback<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "blockReason" | "block_reason" => self.block_reason = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}
