//! Content: what is asked and what is answered, for those who choose to send it. Bounded, redacted, masked,
//! and put together once, when an attempt ends.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use l0_core::keys::cut;
use l0_core::{TokenKind, TokenView, redact};
use serde_json::{Map, Value as Json, json};

/// That prompts and answers are sent, as attributes of the spans of attempts. Without it none is: see
/// [`OtelBuilder::content`](crate::OtelBuilder::content).
///
/// The input is what the source says it asks, or what was given to
/// [`input`](l0_core::RunBuilder::input). The output is text and tool calls; of an answer that came as one, its
/// text, or its first tool call where it has none. Both are in the conventions' schema of messages. Credentials
/// are taken out by
/// [`redact::content`](l0_core::redact::content); what else must not leave, such as personal data, is for
/// [`mask`](Self::mask).
///
/// ```
/// use l0_otel::{Content, OtelInterceptor};
///
/// let content = Content::new()
///     .max_bytes(8 * 1024)
///     .mask(|text| text.replace("hunter2", "[masked]"));
/// let otel = OtelInterceptor::builder().content(content).build();
/// # drop(otel);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Content {
    max_bytes: usize,
    mask: Option<Mask>,
}

type Mask = Arc<dyn Fn(&str) -> String + Send + Sync>;

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

/// Where the calls of tools, what tools returned, and what tools there are have their parts: each API has one
/// of the names.
const FUNCTIONS: [&str; 3] = ["function", "functionCall", "function_call"];
const ARGUMENTS: [&str; 3] = ["arguments", "args", "input"];
const CALL_IDS: [&str; 4] = ["tool_use_id", "tool_call_id", "call_id", "id"];
const RESPONSES: [&str; 2] = ["functionResponse", "function_response"];
const RESULTS: [&str; 3] = ["content", "output", "response"];
const DECLARATIONS: [&str; 2] = ["functionDeclarations", "function_declarations"];
const SCHEMAS: [&str; 3] = ["parameters", "input_schema", "parametersJsonSchema"];

impl Content {
    /// Creates the default: at most 8 KiB of each, without a mask.
    pub const fn new() -> Self {
        Self {
            max_bytes: 8 * 1024,
            mask: None,
        }
    }

    /// Sets how many bytes of an attempt's input, and how many of its output, are sent at most; a mark
    /// stands where they were cut. Of the input, the last messages are kept. A live run takes up to twice
    /// as much memory for its output. The redaction takes one or two milliseconds for each KiB, inside
    /// the poll or the drop that ends the attempt.
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

    /// Returns the instructions, the messages and the tools of an input, as JSON; empty if there are none.
    pub(crate) fn input(&self, input: &Json) -> [Vec<Json>; 3] {
        let mut writing = Writing {
            content: self,
            left: self.max_bytes,
        };
        let Json::Object(fields) = input else {
            return [Vec::new(), writing.messages(input), Vec::new()];
        };
        let instructions = INSTRUCTIONS.iter().filter_map(|name| fields.get(*name));
        let instructions = instructions.flat_map(|one| writing.parts(one)).collect();
        let messages = MESSAGES.iter().filter_map(|name| fields.get(*name));
        let messages = messages.flat_map(|one| writing.messages(one)).collect();
        // Last: what there is not room for is left out.
        let tools = fields.get("tools").and_then(Json::as_array);
        let tools = tools.into_iter().flatten();
        let tools = tools.flat_map(|one| writing.tools(one)).collect();
        [instructions, messages, tools]
    }

    /// Returns the message that an attempt answered, as JSON; empty without one.
    pub(crate) fn output(&self, captured: &Captured, finish_reason: Option<&str>) -> Vec<Json> {
        let mut writing = Writing {
            content: self,
            left: self.max_bytes,
        };
        let mut parts = Vec::new();
        if !captured.text.is_empty() {
            let text = writing.text(&captured.text, captured.is_cut);
            parts.push(json!({ "type": "text", "content": text }));
        }
        let mut calls = captured.calls.iter().peekable();
        while let Some(Call { name, arguments }) = calls.next() {
            let is_cut = captured.is_cut && calls.peek().is_none();
            let name = name.as_deref().map(|name| writing.text(name, false));
            let arguments = writing.text(arguments, is_cut);
            parts.push(tool_call(None, name, arguments));
        }
        if parts.is_empty() {
            return Vec::new();
        }
        let mut message = json!({ "role": "assistant", "parts": parts });
        message["finish_reason"] = match finish_reason {
            // The schema of messages has it in the singular.
            Some("tool_calls") => "tool_call".into(),
            Some(reason) => reason.into(),
            // The schema asks for one.
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

/// What an attempt has answered so far.
#[derive(Default)]
pub(crate) struct Captured {
    text: String,
    calls: Vec<Call>,
    /// How many bytes they have, and what each call counts.
    bytes: usize,
    is_cut: bool,
}

/// A tool call, as it came.
#[derive(Default)]
struct Call {
    name: Option<String>,
    arguments: String,
}

impl Captured {
    /// Adds what a token, or an answer, says, as far as there is room.
    pub(crate) fn add(&mut self, content: &Content, view: &TokenView<'_>) {
        if self.is_cut {
            return;
        }
        let room = content.max_bytes.saturating_add(BEYOND);
        let mut room = room.saturating_sub(self.bytes);
        match view.kind {
            TokenKind::Text => {
                let kept = cut(view.text, room);
                self.text.push_str(kept);
                self.bytes += kept.len();
                self.is_cut = kept.len() < view.text.len();
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
                // A piece that has nothing else is its name.
                let text = view.text;
                let text = if view.tool == Some(text) { "" } else { text };
                let kept = cut(text, room);
                if let Some(call) = self.calls.last_mut() {
                    call.arguments.push_str(kept);
                }
                self.bytes += kept.len();
                self.is_cut = room == 0 || kept.len() < text.len();
            }
            _ => {}
        }
    }

    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.calls.clear();
        self.bytes = 0;
        self.is_cut = false;
    }
}

/// The part of a message that is a call of a tool.
fn tool_call(id: Option<String>, name: Option<String>, arguments: String) -> Json {
    let known = [("id", id), ("name", name), ("arguments", Some(arguments))];
    part("tool_call", known)
}

/// A part of a message, with what of it is known.
fn part<const N: usize>(kind: &str, known: [(&str, Option<String>); N]) -> Json {
    let known = known.into_iter();
    let known = known.filter_map(|(key, value)| Some((key.to_owned(), value?.into())));
    let mut part = Map::from_iter(known);
    part.insert("type".to_owned(), kind.into());
    Json::Object(part)
}

/// The first of these fields that is there.
fn first<'a>(value: &'a Json, keys: &[&str]) -> Option<&'a Json> {
    keys.iter().find_map(|key| value.get(key))
}

/// What writes messages, as long as there is room.
struct Writing<'a> {
    content: &'a Content,
    left: usize,
}

impl Writing<'_> {
    fn messages(&mut self, value: &Json) -> Vec<Json> {
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

    fn message(&mut self, value: &Json) -> Json {
        self.left = self.left.saturating_sub(OVERHEAD);
        let role = value.get("role").and_then(Json::as_str);
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
        let calls = value.get("tool_calls").and_then(Json::as_array);
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

    fn parts(&mut self, value: &Json) -> Vec<Json> {
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

    fn part(&mut self, value: &Json) -> Option<Json> {
        let kind = value.get("type").and_then(Json::as_str);
        let is_text = kind.is_none_or(|kind| kind.ends_with("text"));
        let text = value.get("text").filter(|_| is_text).unwrap_or(value);
        if let Some(part) = self.tool_part(value) {
            return Some(part);
        }
        Some(match text {
            Json::Null => return None,
            Json::String(text) => {
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

    /// A call of a tool, or what a tool returned; none if it is another part.
    fn tool_part(&mut self, value: &Json) -> Option<Json> {
        if let Some(response) = first(value, &RESPONSES) {
            return self.tool_result(response);
        }
        let kind = value.get("type").and_then(Json::as_str);
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

    /// What a tool returned.
    fn tool_result(&mut self, value: &Json) -> Option<Json> {
        let result = first(value, &RESULTS)?;
        let id = self.id(value);
        let result = self.any(result);
        Some(part(
            "tool_call_response",
            [("id", id), ("response", Some(result))],
        ))
    }

    fn id(&mut self, value: &Json) -> Option<String> {
        let id = first(value, &CALL_IDS)?.as_str()?;
        Some(self.text(id, false))
    }

    /// The tools that an entry of a request's list declares, as far as there is room.
    fn tools(&mut self, value: &Json) -> Vec<Json> {
        let one = std::slice::from_ref(value);
        let all = first(value, &DECLARATIONS).and_then(Json::as_array);
        let all = all.map_or(one, Vec::as_slice).iter();
        all.filter_map(|value| self.tool(value)).collect()
    }

    fn tool(&mut self, value: &Json) -> Option<Json> {
        let function = first(value, &FUNCTIONS).unwrap_or(value);
        let name = function.get("name")?.as_str()?;
        let size = serde_json::to_string(function).map_or(usize::MAX, |text| text.len());
        if self.left < size.saturating_add(OVERHEAD) {
            return None;
        }
        let mut tool = json!({ "type": "function", "name": self.text(name, false) });
        if let Some(description) = function.get("description").and_then(Json::as_str) {
            tool["description"] = self.text(description, false).into();
        }
        if let Some(schema) = first(function, &SCHEMAS) {
            // A mask may leave no JSON of it.
            let schema = self.other(schema);
            tool["parameters"] = serde_json::from_str(&schema).unwrap_or(Json::String(schema));
        }
        Some(tool)
    }

    /// A text, or what is none as JSON.
    fn any(&mut self, value: &Json) -> String {
        match value {
            Json::String(text) => self.text(text, false),
            other => self.other(other),
        }
    }

    /// What is no text, as JSON.
    fn other(&mut self, value: &Json) -> String {
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
