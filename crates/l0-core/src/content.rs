//! Content: what is asked and what is answered, for those who choose to send it. Bounded, redacted, masked,
//! and put together once, when an attempt ends.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::keys::cut;
use crate::redact;
use crate::token::{FinishReason, TokenKind, TokenView};

/// That prompts and answers are sent, by the adapter that it is given to. Without it none is.
///
/// The input is what a source says it asks, or what was given to [`input`](crate::RunBuilder::input). The
/// output is text and tool calls as they came. Credentials are taken out by
/// [`redact::content`](crate::redact::content); what else must not leave, such as personal data, is for
/// [`mask`](Self::mask).
///
/// ```
/// use l0_core::Content;
///
/// let content = Content::new()
///     .max_bytes(8 * 1024)
///     .mask(|text| text.replace("hunter2", "[masked]"));
/// # drop(content);
/// ```
///
/// # For adapters
///
/// An adapter [needs](crate::Interceptor::needs_input) the input and the tokens of a run. It fills a
/// [`buffer`](Self::buffer) with what an attempt answers. When the attempt has ended, it sets all numbers, and
/// then once what [`prompt`](Self::prompt) and [`answer`](Self::answer) return.
///
/// ```
/// use l0_core::{Content, FinishReason, TokenView};
/// use serde_json::json;
///
/// let content = Content::new();
/// let prompt = content.prompt(&json!({ "system": "Be brief.", "messages": [
///     { "role": "user", "content": "What is a monad?" },
/// ] }));
/// assert_eq!(prompt.instructions, [json!({ "type": "text", "content": "Be brief." })]);
/// assert_eq!(prompt.messages[0]["role"], "user");
///
/// let mut buffer = content.buffer();
/// buffer.add(&TokenView::text("A monoid."));
/// let answer = content.answer(&buffer, Some(FinishReason::Stop));
/// assert_eq!(answer, [json!({ "role": "assistant", "finish_reason": "stop", "parts": [
///     { "type": "text", "content": "A monoid." },
/// ] })]);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Content {
    max_bytes: usize,
    mask: Option<Mask>,
}

type Mask = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// What was asked, as [`Content`] lets it leave.
#[derive(Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Prompt {
    /// The parts of the instructions; empty without any.
    pub instructions: Vec<Value>,
    /// The messages, each with a role and parts; empty without any.
    pub messages: Vec<Value>,
}

/// What an attempt has answered so far, as much as [`Content`] keeps of it.
pub struct AnswerBuffer {
    text: String,
    tool_calls: String,
    max_bytes: usize,
    is_cut: bool,
}

/// What stands where something was cut.
const MARK: &str = "…[cut]";

/// How much more than the limit is read, and thrown away: what lies across a cut is not recognised for what
/// it is.
const BEYOND: usize = 1024;

/// What each message and each part counts, besides its text.
const OVERHEAD: usize = 16;

/// Where requests have their instructions, and their messages.
const INSTRUCTIONS: [&str; 4] = [
    "system",
    "instructions",
    "systemInstruction",
    "system_instruction",
];
const MESSAGES: [&str; 3] = ["messages", "input", "contents"];

impl Content {
    /// Creates the default: at most 8 KiB of each, without a mask.
    pub const fn new() -> Self {
        Self {
            max_bytes: 8 * 1024,
            mask: None,
        }
    }

    /// Sets how many bytes of an attempt's input, and how many of its output, are sent at most; a mark
    /// stands where they were cut. Of the input, the last messages are kept. A live run keeps so much of its
    /// output in memory, and 1 KiB more; its input it keeps whole. The redaction takes one or two milliseconds
    /// for each KiB, inside the poll or the drop that ends the attempt.
    pub const fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Sets what is called with every text before it leaves: the texts of messages, and as JSON what of
    /// them is no text. What it returns is sent. It is called after the redaction and before the cut, when
    /// an attempt ends, inside the run's poll or its drop.
    pub fn mask(mut self, mask: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        self.mask = Some(Arc::new(mask));
        self
    }

    /// Returns an empty buffer for what an attempt answers.
    #[must_use]
    pub const fn buffer(&self) -> AnswerBuffer {
        AnswerBuffer {
            text: String::new(),
            tool_calls: String::new(),
            max_bytes: self.max_bytes.saturating_add(BEYOND),
            is_cut: false,
        }
    }

    /// Returns what may leave of an input: the instructions and the messages that stand in a request of a
    /// provider, or else a message that is all of it.
    #[must_use]
    pub fn prompt(&self, input: &Value) -> Prompt {
        let mut writing = Writing {
            content: self,
            left: self.max_bytes,
        };
        let Value::Object(fields) = input else {
            return Prompt {
                messages: writing.messages(input),
                ..Prompt::default()
            };
        };
        let instructions = INSTRUCTIONS.iter().filter_map(|name| fields.get(*name));
        let instructions = instructions.flat_map(|one| writing.parts(one)).collect();
        let messages = MESSAGES.iter().filter_map(|name| fields.get(*name));
        let messages = messages.flat_map(|one| writing.messages(one)).collect();
        Prompt {
            instructions,
            messages,
        }
    }

    /// Returns what may leave of an answer, as one message; empty if there is none.
    #[must_use]
    pub fn answer(&self, buffer: &AnswerBuffer, finish_reason: Option<FinishReason>) -> Vec<Value> {
        let mut writing = Writing {
            content: self,
            left: self.max_bytes,
        };
        let mut parts = Vec::new();
        for (kind, key, text) in [
            ("text", "content", &buffer.text),
            ("tool_call", "arguments", &buffer.tool_calls),
        ] {
            if !text.is_empty() {
                let text = writing.text(text, buffer.is_cut);
                parts.push(json!({ "type": kind, key: text }));
            }
        }
        if parts.is_empty() {
            return Vec::new();
        }
        let mut message = json!({ "role": "assistant", "parts": parts });
        if let Some(reason) = finish_reason {
            message["finish_reason"] = reason.as_str().into();
        }
        vec![message]
    }
}

impl Default for Content {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// Without what is asked.
impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prompt")
            .field("instructions", &self.instructions.len())
            .field("messages", &self.messages.len())
            .finish()
    }
}

/// Without what is answered.
impl fmt::Debug for AnswerBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBuffer")
            .field("text", &self.text.len())
            .field("tool_calls", &self.tool_calls.len())
            .finish_non_exhaustive()
    }
}

impl AnswerBuffer {
    /// Adds what a token says, as far as there is room: of text and of tool calls.
    pub fn add(&mut self, view: &TokenView<'_>) {
        let kept_so_far = self.text.len() + self.tool_calls.len();
        let to = match view.kind {
            TokenKind::Text => &mut self.text,
            TokenKind::ToolCall => &mut self.tool_calls,
            _ => return,
        };
        if self.is_cut {
            return;
        }
        let room = self.max_bytes.saturating_sub(kept_so_far);
        let kept = cut(view.text, room);
        self.is_cut = kept.len() < view.text.len();
        if to.capacity() - to.len() < kept.len() {
            // As a string grows by itself, but not beyond the limit.
            to.reserve_exact(to.len().clamp(kept.len(), room));
        }
        to.push_str(kept);
    }

    /// Makes it empty, for the next attempt.
    pub fn clear(&mut self) {
        self.text.clear();
        self.tool_calls.clear();
        self.is_cut = false;
    }
}

/// What writes messages, as long as there is room.
struct Writing<'a> {
    content: &'a Content,
    left: usize,
}

impl Writing<'_> {
    fn messages(&mut self, value: &Value) -> Vec<Value> {
        let one = std::slice::from_ref(value);
        let all = value.as_array().map_or(one, Vec::as_slice);
        let mut messages = Vec::new();
        // The last ones are what is asked; those before them tell how it came to that.
        for value in all.iter().rev() {
            if self.left == 0 {
                let mark = json!({ "type": "text", "content": MARK });
                messages.push(json!({ "role": "system", "parts": [mark] }));
                break;
            }
            messages.push(self.message(value));
        }
        messages.reverse();
        messages
    }

    fn message(&mut self, value: &Value) -> Value {
        self.left = self.left.saturating_sub(OVERHEAD);
        let role = value.get("role").and_then(Value::as_str);
        let role = role.map_or_else(|| "user".to_owned(), |role| self.text(role, false));
        let body = ["content", "parts"].iter().find_map(|key| value.get(key));
        let mut parts = match (body, value.get("role")) {
            (Some(body), _) => self.parts(body),
            (None, Some(_)) => Vec::new(),
            (None, None) => self.parts(value),
        };
        let calls = value.get("tool_calls").and_then(Value::as_array);
        for call in calls.into_iter().flatten() {
            let call = self.other(call);
            parts.push(json!({ "type": "tool_call", "arguments": call }));
        }
        json!({ "role": role, "parts": parts })
    }

    fn parts(&mut self, value: &Value) -> Vec<Value> {
        let inner = value.get("parts").unwrap_or(value);
        let one = std::slice::from_ref(inner);
        let all = inner.as_array().map_or(one, Vec::as_slice);
        let mut parts = Vec::new();
        for value in all {
            if self.left == 0 {
                parts.push(json!({ "type": "text", "content": MARK }));
                break;
            }
            self.left = self.left.saturating_sub(OVERHEAD);
            parts.extend(self.part(value));
        }
        parts
    }

    fn part(&mut self, value: &Value) -> Option<Value> {
        let kind = value.get("type").and_then(Value::as_str);
        let is_text = kind.is_none_or(|kind| kind.ends_with("text"));
        let text = value.get("text").filter(|_| is_text).unwrap_or(value);
        Some(match text {
            Value::Null => return None,
            Value::String(text) => {
                let text = self.text(text, false);
                json!({ "type": "text", "content": text })
            }
            other => {
                let kind = kind.map_or_else(|| "other".to_owned(), |kind| self.text(kind, false));
                let content = self.other(other);
                let part = [("type", kind), ("content", content)];
                let part = part.map(|(key, value)| (key.to_owned(), value.into()));
                Value::Object(Map::from_iter(part))
            }
        })
    }

    /// What is no text, as JSON.
    fn other(&mut self, value: &Value) -> String {
        let mut beginning = Beginning {
            text: Vec::new(),
            room: self.left.saturating_add(BEYOND),
        };
        let is_cut = serde_json::to_writer(&mut beginning, value).is_err();
        let text = String::from_utf8_lossy(&beginning.text);
        self.text(&text, is_cut)
    }

    /// A text as it may leave. If it was cut already, it is longer than there is room for.
    fn text(&mut self, text: &str, was_cut: bool) -> String {
        let beginning = cut(text, self.left.saturating_add(BEYOND));
        let was_cut = was_cut || beginning.len() < text.len();
        let mut clean = redact::content(beginning);
        if let Some(mask) = &self.content.mask {
            clean = mask(&clean);
        }
        let mut room = self.left;
        if was_cut {
            room = room.min(clean.len().saturating_sub(BEYOND));
        }
        let kept = cut(&clean, room).len();
        let is_cut = was_cut || kept < clean.len();
        clean.truncate(kept);
        self.left -= kept;
        if is_cut {
            self.left = 0;
            clean.push_str(MARK);
        }
        clean
    }
}

/// The beginning of what is written.
struct Beginning {
    text: Vec<u8>,
    room: usize,
}

impl Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let kept = bytes.len().min(self.room - self.text.len());
        if kept == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.text.extend_from_slice(&bytes[..kept]);
        Ok(kept)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
