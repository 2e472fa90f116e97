//! The parts of Chat Completions stream payloads that the decoder reads, borrowed.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::lenient::{
    Anything, Arguments, Count, Fields, List, Object, Prose, Text, anything, default_on, read_map,
    skip,
};
use crate::report::ErrorField;
use crate::response::is_media;
use crate::usage::UsageFields;

/// One `chat.completion.chunk`, or a compatible server's equivalent.
#[derive(Default)]
pub(super) struct Payload<'a> {
    pub(super) id: Text<'a>,
    pub(super) model: Text<'a>,
    pub(super) choices: List<Choice<'a>>,
    pub(super) usage: Object<UsageFields>,
    pub(super) x_groq: Object<Box<XGroq<'a>>>,
    pub(super) error: ErrorField<'a>,
    /// `error` if the payload itself is the error.
    pub(super) object: Text<'a>,
    pub(super) kind: Text<'a>,
}

impl<'de> Fields<'de> for Payload<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => self.id = map.next_value()?,
            "model" => self.model = map.next_value()?,
            "choices" => self.choices.read(map)?,
            "usage" => self.usage.read(map)?,
            "x_groq" => self.x_groq.read(map)?,
            "error" => self.error = map.next_value()?,
            "object" => self.object = map.next_value()?,
            "type" => self.kind = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Choice<'a> {
    pub(super) index: Count,
    pub(super) delta: Object<Delta<'a>>,
    /// The whole answer, which some servers send instead of a delta.
    pub(super) message: Object<Box<Delta<'a>>>,
    /// The text of legacy completions.
    pub(super) text: Text<'a>,
    pub(super) finish_reason: Text<'a>,
    /// Sent by Moonshot.
    pub(super) usage: Object<Box<UsageFields>>,
    /// Sent by OpenRouter.
    pub(super) error: ErrorField<'a>,
}

impl<'de> Fields<'de> for Choice<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "index" => self.index = map.next_value()?,
            "delta" => self.delta.read(map)?,
            "message" => self.message.read(map)?,
            "text" => self.text = map.next_value()?,
            "finish_reason" => self.finish_reason = map.next_value()?,
            "usage" => self.usage.read(map)?,
            "error" => self.error = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Delta<'a> {
    pub(super) content: Content<'a>,
    /// Reasoning, under one or several of many names.
    pub(super) reasoning: Prose<'a>,
    pub(super) refusal: Text<'a>,
    pub(super) tool_calls: List<CallDelta<'a>>,
    pub(super) function_call: Object<Box<Function<'a>>>,
    pub(super) audio: Object<Box<Audio<'a>>>,
    /// `true` if there are images, as OpenRouter sends them.
    pub(super) images: bool,
}

impl<'de> Fields<'de> for Delta<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "content" => self.content = map.next_value()?,
            // DeepSeek, xAI and vLLM; Groq, OpenRouter and Ollama; Copilot; Snowflake; LiteLLM.
            "reasoning_content" | "reasoning" | "reasoning_text" | "reasoning_details"
            | "reasoning_summary" | "reasoningContent" | "thinking" | "thinking_content"
            | "thinking_blocks" | "thought"
                if self.reasoning.is_empty() =>
            {
                self.reasoning = map.next_value()?;
            }
            "refusal" => self.refusal = map.next_value()?,
            "tool_calls" => self.tool_calls.read(map)?,
            "function_call" => self.function_call.read(map)?,
            "audio" => self.audio.read(map)?,
            "images" => {
                let mut images = List::<Anything>::default();
                images.read(map)?;
                self.images = !images.is_empty();
            }
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// A piece of a spoken answer.
#[derive(Default)]
pub(super) struct Audio<'a> {
    pub(super) data: Text<'a>,
    pub(super) transcript: Text<'a>,
}

impl<'de> Fields<'de> for Audio<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "data" => self.data = map.next_value()?,
            "transcript" => self.transcript = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// A text, or parts: text, thinking (Mistral), media.
#[derive(Default)]
pub(super) struct Content<'a> {
    pub(super) text: Text<'a>,
    pub(super) thinking: Text<'a>,
    pub(super) media: bool,
}

impl<'a> Content<'a> {
    fn of(text: Cow<'a, str>) -> Self {
        Self {
            text: Text(Some(text)),
            ..Self::default()
        }
    }
}

impl<'de> Deserialize<'de> for Content<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Content<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Content::of(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Content::of(Cow::Owned(text.to_owned())))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let mut part = Part::default();
                read_map(&mut part, map)?;
                Ok(part.content())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut content = Content::default();
                while let Some(part) = seq.next_element::<Content<'de>>()? {
                    content.text.append(part.text);
                    content.thinking.append(part.thinking);
                    content.media |= part.media;
                }
                Ok(content)
            }
            default_on!(bool number null);
        }
        deserializer.deserialize_any(V)
    }
}

/// One part of a [`Content`], with its type.
#[derive(Default)]
struct Part<'a> {
    kind: Text<'a>,
    text: Text<'a>,
    thinking: Prose<'a>,
}

impl<'de> Fields<'de> for Part<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => self.kind = map.next_value()?,
            "text" | "transcript" => self.text = map.next_value()?,
            "thinking" | "reasoning" => self.thinking = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'a> Part<'a> {
    fn content(self) -> Content<'a> {
        let kind = self.kind.as_str();
        if kind.contains("thinking") || kind.contains("reasoning") {
            let thinking = self.thinking.0;
            return Content {
                thinking: if thinking.0.is_some() {
                    thinking
                } else {
                    self.text
                },
                ..Content::default()
            };
        }
        let media = is_media(kind);
        let text = match kind {
            "" | "text" | "output_text" => self.text,
            _ if media => self.text,
            // References are not text of the answer.
            _ => Text(None),
        };
        Content {
            text,
            media,
            ..Content::default()
        }
    }
}

/// An entry of `tool_calls`.
#[derive(Default)]
pub(super) struct CallDelta<'a> {
    pub(super) index: Count,
    pub(super) id: Text<'a>,
    pub(super) function: Object<Function<'a>>,
    /// A custom tool's call, instead of a function's.
    pub(super) custom: Object<Function<'a>>,
}

impl<'de> Fields<'de> for CallDelta<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "index" => self.index = map.next_value()?,
            "id" => self.id = map.next_value()?,
            "function" => self.function.read(map)?,
            "custom" => self.custom.read(map)?,
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
            "arguments" | "input" => self.arguments = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct XGroq<'a> {
    pub(super) usage: Object<UsageFields>,
    pub(super) error: ErrorField<'a>,
}

impl<'de> Fields<'de> for XGroq<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "usage" => self.usage.read(map)?,
            "error" => self.error = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}
