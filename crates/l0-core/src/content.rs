//! Content: prompts and answers, for applications that choose to send them. They are bounded,
//! redacted, masked, and assembled once, when an attempt ends.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::keys::cut;
use crate::redact;
use crate::token::{TokenKind, TokenView};

/// Enables an adapter to send prompts and answers. Without it no content is sent.
///
/// The input is what a source provides, or what was set with [`input`](crate::RunBuilder::input).
/// The output is text and tool calls; of a single answer, its text, or its first tool call if it
/// has no text. Both follow the message schema of OpenTelemetry's conventions.
///
/// Credentials are removed by [`redact::content`](crate::redact::content). Use [`mask`](Self::mask)
/// to remove anything else that must not be sent, such as personal data.
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
/// An adapter [needs](crate::Interceptor::needs_input) the input and the tokens of a run. It
/// collects the answer of an attempt in a [`buffer`](Self::buffer). When the attempt has ended, it
/// sets all numbers, and then calls [`prompt`](Self::prompt) and [`answer`](Self::answer) once
/// each.
///
/// ```
/// use l0_core::{Content, TokenView};
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
/// let answer = content.answer(&buffer, Some("stop"));
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

/// The input that [`Content`] allows to be sent.
#[derive(Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Prompt {
    /// The parts of the instructions; empty if there are none.
    pub instructions: Vec<Value>,
    /// The messages, each with a role and parts; empty if there are none.
    pub messages: Vec<Value>,
    /// The tools that the model can call, as far as they fit after the messages; empty if there are
    /// none.
    pub tools: Vec<Value>,
}

/// The answer of an attempt so far, as much as [`Content`] keeps of it.
pub struct AnswerBuffer {
    text: String,
    calls: Vec<Call>,
    /// Their size in bytes, including the overhead of each call.
    bytes: usize,
    max_bytes: usize,
    is_cut: bool,
}

/// A tool call, as it was received.
#[derive(Default)]
struct Call {
    name: Option<String>,
    arguments: String,
}

/// The mark in place of a cut.
const MARK: &str = "…[cut]";

/// The number of bytes that are read beyond the limit and then discarded. A secret that crosses the
/// cut would not be recognized without them.
const BEYOND: usize = 1024;

/// The size counted for each message and each part, in addition to its text.
const OVERHEAD: usize = 16;

/// The fields of a request's instructions, and of its messages.
const INSTRUCTIONS: [&str; 4] = [
    "system",
    "instructions",
    "systemInstruction",
    "system_instruction",
];
const MESSAGES: [&str; 3] = ["messages", "input", "contents"];

/// The fields of tool calls, of tool results and of tool declarations. Each API uses one of the
/// names.
const FUNCTIONS: [&str; 3] = ["function", "functionCall", "function_call"];
const ARGUMENTS: [&str; 3] = ["arguments", "args", "input"];
const CALL_IDS: [&str; 4] = ["tool_use_id", "tool_call_id", "call_id", "id"];
const RESPONSES: [&str; 2] = ["functionResponse", "function_response"];
const RESULTS: [&str; 3] = ["content", "output", "response"];
const DECLARATIONS: [&str; 2] = ["functionDeclarations", "function_declarations"];
const SCHEMAS: [&str; 3] = ["parameters", "input_schema", "parametersJsonSchema"];

impl Content {
    /// Creates the default: at most 8 KiB each of input and output, without a mask.
    pub const fn new() -> Self {
        Self {
            max_bytes: 8 * 1024,
            mask: None,
        }
    }

    /// Sets the maximum size of an attempt's input, and of its output, in bytes. A mark shows where
    /// content was cut. Of the input, the last messages are kept.
    ///
    /// A live run keeps up to this much of its output in memory, plus 1 KiB, and its whole input.
    /// The redaction takes one or two milliseconds per KiB, inside the poll or the drop that ends
    /// the attempt.
    pub const fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Sets a function that is called with every text before it is sent: the texts of messages, and
    /// other content as JSON. What it returns is sent.
    ///
    /// The function is called after the redaction and before the cut, when an attempt ends, inside
    /// the run's poll or its drop.
    pub fn mask(mut self, mask: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        self.mask = Some(Arc::new(mask));
        self
    }

    /// Returns an empty buffer for the answer of an attempt.
    #[must_use]
    pub const fn buffer(&self) -> AnswerBuffer {
        AnswerBuffer {
            text: String::new(),
            calls: Vec::new(),
            bytes: 0,
            max_bytes: self.max_bytes.saturating_add(BEYOND),
            is_cut: false,
        }
    }

    /// Returns the part of an input that can be sent: the instructions, messages and tools of a
    /// provider's request, or else the whole input as one message.
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
        // Last, so tools are the first to be left out.
        let tools = fields.get("tools").and_then(Value::as_array);
        let tools = tools.into_iter().flatten();
        let tools = tools.flat_map(|one| writing.tools(one)).collect();
        Prompt {
            instructions,
            messages,
            tools,
        }
    }

    /// Returns the part of an answer that can be sent, as one message; empty if there is none. The
    /// message schema requires a finish reason, so it is an empty text if there is none.
    #[must_use]
    pub fn answer(&self, buffer: &AnswerBuffer, finish_reason: Option<&str>) -> Vec<Value> {
        let mut writing = Writing {
            content: self,
            left: self.max_bytes,
        };
        let mut parts = Vec::new();
        if !buffer.text.is_empty() {
            let text = writing.text(&buffer.text, buffer.is_cut);
            parts.push(json!({ "type": "text", "content": text }));
        }
        let mut calls = buffer.calls.iter().peekable();
        while let Some(Call { name, arguments }) = calls.next() {
            let is_cut = buffer.is_cut && calls.peek().is_none();
            let name = name.as_deref().map(|name| writing.text(name, false));
            let arguments = writing.text(arguments, is_cut);
            parts.push(tool_call(None, name, arguments));
        }
        if parts.is_empty() {
            return Vec::new();
        }
        let mut message = json!({ "role": "assistant", "parts": parts });
        message["finish_reason"] = match finish_reason {
            // The message schema uses the singular.
            Some("tool_calls") => "tool_call".into(),
            Some(reason) => reason.into(),
            // The schema requires one.
            None => "".into(),
        };
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

/// Omits the content.
impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prompt")
            .field("instructions", &self.instructions.len())
            .field("messages", &self.messages.len())
            .field("tools", &self.tools.len())
            .finish()
    }
}

/// Omits the content.
impl fmt::Debug for AnswerBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBuffer")
            .field("text", &self.text.len())
            .field("calls", &self.calls.len())
            .finish_non_exhaustive()
    }
}

impl AnswerBuffer {
    /// Adds the text or the tool call of a token or an answer, as far as it fits.
    pub fn add(&mut self, view: &TokenView<'_>) {
        if self.is_cut {
            return;
        }
        let mut room = self.max_bytes.saturating_sub(self.bytes);
        match view.kind {
            TokenKind::Text => {
                let kept = push(&mut self.text, view.text, room);
                self.bytes += kept;
                self.is_cut = kept < view.text.len();
            }
            TokenKind::ToolCall => {
                if view.tool.is_some() || self.calls.is_empty() {
                    let name = view.tool.map(|name| cut(name, room).to_owned());
                    let taken = OVERHEAD + name.as_ref().map_or(0, String::len);
                    self.bytes += taken;
                    room = room.saturating_sub(taken);
                    self.calls.push(Call {
                        name,
                        ..Call::default()
                    });
                }
                // A piece without other fields contains the name.
                let text = view.text;
                let text = if view.tool == Some(text) { "" } else { text };
                if let Some(call) = self.calls.last_mut() {
                    let kept = push(&mut call.arguments, text, room);
                    self.bytes += kept;
                    self.is_cut = room == 0 || kept < text.len();
                }
            }
            _ => {}
        }
    }

    /// Clears the buffer, for the next attempt.
    pub fn clear(&mut self) {
        self.text.clear();
        self.calls.clear();
        self.bytes = 0;
        self.is_cut = false;
    }
}

/// Adds as much of a text as fits. Returns its length.
fn push(to: &mut String, text: &str, room: usize) -> usize {
    let kept = cut(text, room);
    if to.capacity() - to.len() < kept.len() {
        // Grows like a string does, but not beyond the limit.
        to.reserve_exact(to.len().clamp(kept.len(), room));
    }
    to.push_str(kept);
    kept.len()
}

/// Returns the part of a message for a tool call.
fn tool_call(id: Option<String>, name: Option<String>, arguments: String) -> Value {
    let known = [("id", id), ("name", name), ("arguments", Some(arguments))];
    part("tool_call", known)
}

/// Returns a part of a message, with its known fields.
fn part<const N: usize>(kind: &str, known: [(&str, Option<String>); N]) -> Value {
    let known = known.into_iter();
    let known = known.filter_map(|(key, value)| Some((key.to_owned(), value?.into())));
    let mut part = Map::from_iter(known);
    part.insert("type".to_owned(), kind.into());
    Value::Object(part)
}

/// Returns the first of these fields that is present.
fn first<'a>(value: &'a Value, keys: &[&str]) -> Option<&'a Value> {
    keys.iter().find_map(|key| value.get(key))
}

/// Writes messages until the limit is reached.
struct Writing<'a> {
    content: &'a Content,
    left: usize,
}

impl Writing<'_> {
    fn messages(&mut self, value: &Value) -> Vec<Value> {
        let one = std::slice::from_ref(value);
        let all = value.as_array().map_or(one, Vec::as_slice);
        let mut messages = Vec::new();
        // The last messages are the question. Earlier ones are its context.
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
        let role = role.map(|role| self.text(role, false));
        if let (Some("tool"), Some(part)) = (role.as_deref(), self.tool_result(value)) {
            return json!({ "role": role, "parts": [part] });
        }
        let body = ["content", "parts"].iter().find_map(|key| value.get(key));
        let mut parts = match (body, value.get("role")) {
            (Some(body), _) => self.parts(body),
            (None, Some(_)) => Vec::new(),
            (None, None) => self.parts(value),
        };
        let calls = value.get("tool_calls").and_then(Value::as_array);
        for call in calls.into_iter().flatten() {
            parts.extend(self.part(call));
        }
        let role = role.unwrap_or_else(|| {
            let kind = parts.last().and_then(|part| part["type"].as_str());
            let role = match kind {
                Some("tool_call") => "assistant",
                Some("tool_call_response") => "tool",
                _ => "user",
            };
            role.to_owned()
        });
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
        if let Some(part) = self.tool_part(value) {
            return Some(part);
        }
        Some(match text {
            Value::Null => return None,
            Value::String(text) => {
                let text = self.text(text, false);
                json!({ "type": "text", "content": text })
            }
            other => {
                let kind = kind.map_or_else(|| "other".to_owned(), |kind| self.text(kind, false));
                let content = self.other(other);
                part(&kind, [("content", Some(content))])
            }
        })
    }

    /// Returns a tool call or a tool result, or `None` for another part.
    fn tool_part(&mut self, value: &Value) -> Option<Value> {
        if let Some(response) = first(value, &RESPONSES) {
            return self.tool_result(response);
        }
        let kind = value.get("type").and_then(Value::as_str);
        if matches!(kind, Some("tool_result" | "function_call_output")) {
            return self.tool_result(value);
        }
        let called = first(value, &FUNCTIONS).unwrap_or(value);
        let name = called.get("name")?.as_str()?;
        let arguments = first(called, &ARGUMENTS)?;
        let id = self.id(value);
        let name = self.text(name, false);
        let arguments = self.any(arguments);
        Some(tool_call(id, Some(name), arguments))
    }

    /// Returns the result of a tool.
    fn tool_result(&mut self, value: &Value) -> Option<Value> {
        let result = first(value, &RESULTS)?;
        let id = self.id(value);
        let result = self.any(result);
        Some(part(
            "tool_call_response",
            [("id", id), ("response", Some(result))],
        ))
    }

    fn id(&mut self, value: &Value) -> Option<String> {
        let id = first(value, &CALL_IDS)?.as_str()?;
        Some(self.text(id, false))
    }

    /// Returns the tools that an entry of a request's list declares, as far as they fit.
    fn tools(&mut self, value: &Value) -> Vec<Value> {
        let one = std::slice::from_ref(value);
        let all = first(value, &DECLARATIONS).and_then(Value::as_array);
        let all = all.map_or(one, Vec::as_slice).iter();
        all.filter_map(|value| self.tool(value)).collect()
    }

    fn tool(&mut self, value: &Value) -> Option<Value> {
        let function = first(value, &FUNCTIONS).unwrap_or(value);
        let name = function.get("name")?.as_str()?;
        let size = serde_json::to_string(function).map_or(usize::MAX, |text| text.len());
        if self.left < size.saturating_add(OVERHEAD) {
            return None;
        }
        let mut tool = json!({ "type": "function", "name": self.text(name, false) });
        if let Some(description) = function.get("description").and_then(Value::as_str) {
            tool["description"] = self.text(description, false).into();
        }
        if let Some(schema) = first(function, &SCHEMAS) {
            // A mask can return text that is not JSON.
            let schema = self.other(schema);
            tool["parameters"] = serde_json::from_str(&schema).unwrap_or(Value::String(schema));
        }
        Some(tool)
    }

    /// Returns a text, or another value as JSON.
    fn any(&mut self, value: &Value) -> String {
        match value {
            Value::String(text) => self.text(text, false),
            other => self.other(other),
        }
    }

    /// Returns a value that is not a text, as JSON.
    fn other(&mut self, value: &Value) -> String {
        let mut beginning = Beginning {
            text: Vec::new(),
            room: self.left.saturating_add(BEYOND),
        };
        let is_cut = serde_json::to_writer(&mut beginning, value).is_err();
        let text = String::from_utf8_lossy(&beginning.text);
        self.text(&text, is_cut)
    }

    /// Returns a text as it can be sent. If it was already cut, it is longer than the limit.
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

/// Keeps the beginning of what is written.
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
