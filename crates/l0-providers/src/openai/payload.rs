//! The payloads of Chat Completions streams, as far as they are of interest, borrowed.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::lenient::{
    Arguments, Count, Fields, List, Object, Text, anything, default_on, read_map, skip,
};
use crate::report::ErrorField;
use crate::usage::UsageFields;

/// One `chat.completion.chunk`, or what a compatible server sends as one.
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
    /// In place of the delta, from servers that send the whole answer at once.
    pub(super) message: Object<Box<Delta<'a>>>,
    /// The text of legacy completions.
    pub(super) text: Text<'a>,
    pub(super) finish_reason: Text<'a>,
    /// From Moonshot.
    pub(super) usage: Object<Box<UsageFields>>,
    /// From OpenRouter.
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
    /// From DeepSeek, xAI, vLLM.
    pub(super) reasoning_content: Text<'a>,
    /// From Groq, OpenRouter, Ollama, newer vLLM.
    pub(super) reasoning: Text<'a>,
    /// From OpenRouter, beside the reasoning; from Snowflake, in its place.
    pub(super) reasoning_details: List<ReasoningDetail<'a>>,
    pub(super) refusal: Text<'a>,
    pub(super) tool_calls: List<CallDelta<'a>>,
    pub(super) function_call: Object<Box<Function<'a>>>,
}

impl<'de> Fields<'de> for Delta<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "content" => self.content = map.next_value()?,
            "reasoning_content" => self.reasoning_content = map.next_value()?,
            "reasoning" => self.reasoning = map.next_value()?,
            "reasoning_details" => self.reasoning_details.read(map)?,
            "refusal" => self.refusal = map.next_value()?,
            "tool_calls" => self.tool_calls.read(map)?,
            "function_call" => self.function_call.read(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// A piece of reasoning, which has no text if it is encrypted.
#[derive(Default)]
pub(super) struct ReasoningDetail<'a> {
    pub(super) text: Text<'a>,
}

impl<'de> Fields<'de> for ReasoningDetail<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "text" | "summary" if self.text.0.is_none() => self.text = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// A text, or (Mistral) a list of parts: text and thinking.
#[derive(Default)]
pub(super) struct Content<'a> {
    pub(super) text: Text<'a>,
    pub(super) thinking: Text<'a>,
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
                Ok(Content {
                    text: Text(Some(Cow::Borrowed(text))),
                    thinking: Text(None),
                })
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Content {
                    text: Text(Some(Cow::Owned(text.to_owned()))),
                    thinking: Text(None),
                })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut content = Content::default();
                while let Some(Part(part)) = seq.next_element()? {
                    append(&mut content.text, part.text);
                    append(&mut content.thinking, part.thinking);
                }
                Ok(content)
            }
            default_on!(bool number null map);
        }
        deserializer.deserialize_any(V)
    }
}

pub(super) fn append<'a>(to: &mut Text<'a>, more: Text<'a>) {
    match (&mut to.0, more.0) {
        (_, None) => {}
        (Some(text), Some(more)) => text.to_mut().push_str(&more),
        (none, more) => *none = more,
    }
}

/// One part of a [`Content`]: a text, or an object that says what it is.
struct Part<'a>(Content<'a>);

#[derive(Default)]
struct PartFields<'a> {
    kind: Text<'a>,
    text: Text<'a>,
    thinking: Content<'a>,
}

impl<'de> Fields<'de> for PartFields<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => self.kind = map.next_value()?,
            "text" => self.text = map.next_value()?,
            "thinking" => self.thinking = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Part<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Content<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Content {
                    text: Text(Some(Cow::Borrowed(text))),
                    thinking: Text(None),
                })
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Content {
                    text: Text(Some(Cow::Owned(text.to_owned()))),
                    thinking: Text(None),
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let mut part = PartFields::default();
                read_map(&mut part, map)?;
                Ok(match part.kind.as_str() {
                    "thinking" | "reasoning" => Content {
                        text: Text(None),
                        thinking: if part.thinking.text.0.is_some() {
                            part.thinking.text
                        } else {
                            part.text
                        },
                    },
                    "text" | "output_text" | "" => Content {
                        text: part.text,
                        thinking: Text(None),
                    },
                    // References, images: no text of the answer.
                    _ => Content::default(),
                })
            }
            default_on!(bool number null seq);
        }
        deserializer.deserialize_any(V).map(Part)
    }
}

/// An entry of `tool_calls`.
#[derive(Default)]
pub(super) struct CallDelta<'a> {
    pub(super) index: Count,
    pub(super) id: Text<'a>,
    pub(super) function: Object<Function<'a>>,
    /// A custom tool's call, in place of the function's.
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
