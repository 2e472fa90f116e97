//! Serialization of a streamed answer for each API.

use std::time::Duration;

use hyper::body::Bytes;
use hyper::http::StatusCode;
use l0_core::{FinishReason, Usage};
use serde_json::{Value, json};

use super::answer::{Answer, Step};

/// The API of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Chat,
    Responses,
    Messages,
    Gemini,
    /// Ollama's `/api/chat`.
    Ollama,
    /// Ollama's `/api/generate`, whose text is not nested in a message.
    OllamaGenerate,
}

/// The kind of result that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Answer,
    /// The embedding of one input, as in Gemini's API.
    Embedding,
    Embeddings,
}

/// Returns the API and the task of a path, which its last segment identifies.
pub(super) fn endpoint(path: &str) -> Option<(Api, Task)> {
    Some(match path.rsplit('/').next()? {
        "completions" => (Api::Chat, Task::Answer),
        "embeddings" => (Api::Chat, Task::Embeddings),
        "responses" => (Api::Responses, Task::Answer),
        "messages" => (Api::Messages, Task::Answer),
        "chat" => (Api::Ollama, Task::Answer),
        "generate" => (Api::OllamaGenerate, Task::Answer),
        "embed" => (Api::Ollama, Task::Embeddings),
        call => match call.rsplit_once(':')?.1 {
            "streamGenerateContent" | "generateContent" => (Api::Gemini, Task::Answer),
            "embedContent" => (Api::Gemini, Task::Embedding),
            "batchEmbedContents" => (Api::Gemini, Task::Embeddings),
            _ => return None,
        },
    })
}

impl Api {
    /// Returns the content type of this API's streams.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Ollama | Self::OllamaGenerate => "application/x-ndjson",
            _ => "text/event-stream",
        }
    }

    /// Returns an error as the body of a response.
    pub(super) fn error(self, status: StatusCode, message: &str) -> Value {
        let word = match status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 | 529 => "overloaded_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        match self {
            Self::Chat => {
                // A string, as OpenAI sends it: `async-openai` accepts no number.
                let code = status.as_str();
                json!({ "error": { "message": message, "type": word, "param": null, "code": code } })
            }
            Self::Responses => {
                json!({ "error": { "message": message, "type": word, "code": word } })
            }
            Self::Messages => {
                json!({ "type": "error", "error": { "type": word, "message": message } })
            }
            Self::Ollama | Self::OllamaGenerate => json!({ "error": message }),
            Self::Gemini => {
                let word = match status.as_u16() {
                    401 => "UNAUTHENTICATED",
                    403 => "PERMISSION_DENIED",
                    404 => "NOT_FOUND",
                    429 => "RESOURCE_EXHAUSTED",
                    503 => "UNAVAILABLE",
                    504 => "DEADLINE_EXCEEDED",
                    500.. => "INTERNAL",
                    _ => "INVALID_ARGUMENT",
                };
                let code = status.as_u16();
                json!({ "error": { "code": code, "message": message, "status": word } })
            }
        }
    }
}

/// A step of a body.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Bytes(Bytes),
    Wait(Duration),
    Cut,
    Hang,
}

/// Returns the body of a stream that follows the answer's steps.
pub(super) fn stream(api: Api, model: &str, id: &str, answer: &Answer) -> Vec<Part> {
    let mut writer = Writer {
        api,
        model,
        id,
        usage: answer.usage,
        open: None,
        blocks: 0,
        calls: 0,
        events: 0,
        parts: Vec::new(),
    };
    writer.start();
    for step in &answer.steps {
        match step {
            Step::Text(text) => writer.text(text),
            Step::Reasoning(text) => writer.reasoning(text),
            Step::Call { id, name, pieces } => writer.call(id, name, pieces),
            Step::Raw(bytes) => writer.parts.push(Part::Bytes(bytes.clone())),
            Step::Wait(duration) => writer.parts.push(Part::Wait(*duration)),
            Step::Error(status, message) => {
                writer.error(*status, message);
                return writer.parts;
            }
            Step::End => return writer.parts,
            Step::Cut => {
                writer.parts.push(Part::Cut);
                return writer.parts;
            }
            Step::Hang => {
                writer.parts.push(Part::Hang);
                return writer.parts;
            }
        }
    }
    writer.finish(answer.finish);
    writer.parts
}

/// The open part: a block of a message or an item of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Text,
    Reasoning,
}

struct Writer<'a> {
    api: Api,
    model: &'a str,
    id: &'a str,
    usage: Option<Usage>,
    open: Option<Block>,
    /// Number of closed blocks or items.
    blocks: usize,
    calls: usize,
    /// Number of events of a response.
    events: usize,
    parts: Vec<Part>,
}

impl Writer<'_> {
    /// Writes an event, with its type as its name if the API names events.
    fn event(&mut self, mut payload: Value) {
        if matches!(self.api, Api::Ollama | Api::OllamaGenerate) {
            self.parts.push(Part::Bytes(format!("{payload}\n").into()));
            return;
        }
        let name = payload["type"].as_str().map(str::to_owned);
        if self.api == Api::Responses {
            payload["sequence_number"] = self.events.into();
            self.events += 1;
        }
        let event = match name {
            Some(name) => format!("event: {name}\ndata: {payload}\n\n"),
            None => format!("data: {payload}\n\n"),
        };
        self.parts.push(Part::Bytes(event.into()));
    }

    fn chunk(&mut self, choices: &Value, usage: &Value) {
        let (id, model) = (self.id, self.model);
        self.event(json!({
            "id": id, "object": "chat.completion.chunk", "created": 1_700_000_000, "model": model,
            "choices": choices, "usage": usage,
        }));
    }

    fn delta(&mut self, delta: &Value, finish: Option<&str>) {
        let choice = json!([{ "index": 0, "delta": delta, "finish_reason": finish }]);
        self.chunk(&choice, &Value::Null);
    }

    fn response(&mut self, kind: &str, status: &str, more: Value) {
        let mut response = json!({
            "id": self.id, "object": "response", "created_at": 1_700_000_000, "model": self.model,
            "status": status, "output": [],
        });
        if let (Value::Object(response), Value::Object(more)) = (&mut response, more) {
            response.extend(more);
        }
        self.event(json!({ "type": kind, "response": response }));
    }

    fn candidate(&mut self, parts: &Value, finish: Option<&str>, usage: &Value) {
        let (id, model) = (self.id, self.model);
        let content = json!({ "role": "model", "parts": parts });
        let mut payload = json!({
            "candidates": [{ "index": 0, "content": content }],
            "modelVersion": model, "responseId": id,
        });
        if let Some(finish) = finish {
            payload["candidates"][0]["finishReason"] = finish.into();
        }
        if !usage.is_null() {
            payload["usageMetadata"] = usage.clone();
        }
        self.event(payload);
    }

    fn start(&mut self) {
        match self.api {
            Api::Chat => self.delta(&json!({ "role": "assistant", "content": "" }), None),
            Api::Responses => self.response("response.created", "in_progress", json!({})),
            Api::Messages => {
                // The output counts follow at the end.
                let mut input = self.usage.unwrap_or_default();
                input.output = input.input.and(Some(0));
                let (id, model) = (self.id, self.model);
                self.event(json!({ "type": "message_start", "message": {
                    "id": id, "type": "message", "role": "assistant", "model": model, "content": [],
                    "stop_reason": null, "stop_sequence": null, "usage": messages_usage(&input),
                } }));
            }
            Api::Gemini | Api::Ollama | Api::OllamaGenerate => {}
        }
    }

    /// Writes one of Ollama's lines, with these fields of the message.
    fn line(&mut self, fields: &Value) {
        let line = ollama_line(self.api, self.model, fields);
        self.event(line);
    }

    /// Closes the open block, unless it is of this kind. Returns `true` if one must be opened.
    fn change(&mut self, to: Option<Block>) -> bool {
        if self.open == to {
            return false;
        }
        if let Some(open) = self.open {
            match self.api {
                Api::Messages => self.stop_block(),
                _ => {
                    let item = self.item(open, "completed");
                    self.item_event("done", &item);
                }
            }
            self.blocks += 1;
        }
        self.open = to;
        to.is_some()
    }

    fn stop_block(&mut self) {
        let index = self.blocks;
        self.event(json!({ "type": "content_block_stop", "index": index }));
    }

    fn item(&self, block: Block, status: &str) -> Value {
        let number = self.blocks;
        match block {
            Block::Text => json!({
                "type": "message", "id": format!("msg_{number}"), "role": "assistant",
                "status": status, "content": [],
            }),
            Block::Reasoning => {
                json!({ "type": "reasoning", "id": format!("rs_{number}"), "summary": [] })
            }
        }
    }

    fn item_event(&mut self, what: &str, item: &Value) {
        let index = self.blocks;
        let kind = format!("response.output_item.{what}");
        self.event(json!({ "type": kind, "output_index": index, "item": item }));
    }

    fn text(&mut self, text: &str) {
        let block = Some(Block::Text);
        match self.api {
            Api::Chat => self.delta(&json!({ "content": text }), None),
            Api::Responses => {
                if self.change(block) {
                    let item = self.item(Block::Text, "in_progress");
                    self.item_event("added", &item);
                }
                let index = self.blocks;
                self.event(json!({
                    "type": "response.output_text.delta", "item_id": format!("msg_{index}"),
                    "output_index": index, "content_index": 0, "delta": text,
                }));
            }
            Api::Messages => {
                if self.change(block) {
                    self.start_block(&json!({ "type": "text", "text": "" }));
                }
                self.block_delta(&json!({ "type": "text_delta", "text": text }));
            }
            Api::Gemini => self.candidate(&json!([{ "text": text }]), None, &Value::Null),
            Api::Ollama | Api::OllamaGenerate => self.line(&json!({ "content": text })),
        }
    }

    fn reasoning(&mut self, text: &str) {
        let block = Some(Block::Reasoning);
        match self.api {
            Api::Chat => self.delta(&json!({ "reasoning_content": text }), None),
            Api::Responses => {
                if self.change(block) {
                    let item = self.item(Block::Reasoning, "in_progress");
                    self.item_event("added", &item);
                }
                let index = self.blocks;
                self.event(json!({
                    "type": "response.reasoning_summary_text.delta",
                    "item_id": format!("rs_{index}"), "output_index": index, "summary_index": 0,
                    "delta": text,
                }));
            }
            Api::Messages => {
                if self.change(block) {
                    self.start_block(&json!({ "type": "thinking", "thinking": "" }));
                }
                self.block_delta(&json!({ "type": "thinking_delta", "thinking": text }));
            }
            Api::Gemini => {
                let part = json!([{ "text": text, "thought": true }]);
                self.candidate(&part, None, &Value::Null);
            }
            Api::Ollama | Api::OllamaGenerate => self.line(&json!({ "thinking": text })),
        }
    }

    fn start_block(&mut self, block: &Value) {
        let index = self.blocks;
        self.event(
            json!({ "type": "content_block_start", "index": index, "content_block": block }),
        );
    }

    fn block_delta(&mut self, delta: &Value) {
        let index = self.blocks;
        self.event(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
    }

    fn call(&mut self, id: &str, name: &str, pieces: &[String]) {
        let number = self.calls;
        self.calls += 1;
        let whole = pieces.concat();
        match self.api {
            Api::Chat => {
                let call = |fields: Value| json!({ "tool_calls": [fields] });
                let function = json!({ "name": name, "arguments": "" });
                let first =
                    json!({ "index": number, "id": id, "type": "function", "function": function });
                self.delta(&call(first), None);
                for piece in pieces {
                    let function = json!({ "arguments": piece });
                    self.delta(
                        &call(json!({ "index": number, "function": function })),
                        None,
                    );
                }
            }
            Api::Responses => {
                self.change(None);
                let index = self.blocks;
                let item_id = format!("fc_{index}");
                let item = |arguments: &str, status: &str| {
                    json!({
                        "type": "function_call", "id": item_id, "call_id": id, "name": name,
                        "arguments": arguments, "status": status,
                    })
                };
                self.item_event("added", &item("", "in_progress"));
                let kind = "response.function_call_arguments";
                for piece in pieces {
                    self.event(json!({
                        "type": format!("{kind}.delta"), "item_id": item_id,
                        "output_index": index, "delta": piece,
                    }));
                }
                self.event(json!({
                    "type": format!("{kind}.done"), "item_id": item_id, "output_index": index,
                    "arguments": whole,
                }));
                self.item_event("done", &item(&whole, "completed"));
                self.blocks += 1;
            }
            Api::Messages => {
                self.change(None);
                self.start_block(
                    &json!({ "type": "tool_use", "id": id, "name": name, "input": {} }),
                );
                for piece in pieces {
                    self.block_delta(&json!({ "type": "input_json_delta", "partial_json": piece }));
                }
                self.stop_block();
                self.blocks += 1;
            }
            Api::Gemini => {
                let part = function_call(id, name, &whole);
                self.candidate(&json!([part]), None, &Value::Null);
            }
            Api::Ollama | Api::OllamaGenerate => {
                let call = ollama_call(number, id, name, &whole);
                self.line(&json!({ "tool_calls": [call] }));
            }
        }
    }

    fn error(&mut self, status: StatusCode, message: &str) {
        let mut error = self.api.error(status, message);
        if self.api == Api::Responses {
            error = error["error"].take();
            error["type"] = "error".into();
        }
        self.event(error);
    }

    fn finish(&mut self, finish: Option<FinishReason>) {
        let ending = Ending::of(self.api, finish, self.calls > 0);
        let usage = self.usage.map(|usage| usage_of(self.api, &usage));
        match self.api {
            Api::Chat => {
                self.delta(&json!({}), Some(ending.reason));
                if let Some(usage) = usage {
                    self.chunk(&json!([]), &usage);
                }
                self.parts.push(Part::Bytes("data: [DONE]\n\n".into()));
            }
            Api::Responses => {
                self.change(None);
                let details = ending.details();
                let more = json!({ "usage": usage, "incomplete_details": details });
                let kind = match details {
                    Value::Null => "response.completed",
                    _ => "response.incomplete",
                };
                self.response(kind, ending.status, more);
            }
            Api::Messages => {
                self.change(None);
                let usage = usage.unwrap_or_else(|| json!({}));
                let delta = json!({ "stop_reason": ending.reason, "stop_sequence": null });
                self.event(json!({ "type": "message_delta", "delta": delta, "usage": usage }));
                self.event(json!({ "type": "message_stop" }));
            }
            Api::Gemini => {
                let usage = usage.unwrap_or_default();
                self.candidate(&json!([]), Some(ending.reason), &usage);
            }
            Api::Ollama | Api::OllamaGenerate => {
                let mut line = ollama_line(self.api, self.model, &json!({}));
                ollama_end(&mut line, ending.reason, usage);
                self.event(line);
            }
        }
    }
}

/// An API's representation of how an answer ended.
pub(super) struct Ending {
    /// The reason. For a response, why it is incomplete; empty if it is complete.
    pub(super) reason: &'static str,
    /// The status of a response.
    pub(super) status: &'static str,
}

impl Ending {
    pub(super) fn of(api: Api, finish: Option<FinishReason>, has_calls: bool) -> Self {
        use FinishReason::{ContentFilter, Length, Refusal, Stop, ToolCalls};

        let usual = if has_calls { ToolCalls } else { Stop };
        let finish = finish.unwrap_or(usual);
        let (reason, status) = match api {
            Api::Chat => (finish.as_str(), ""),
            Api::Responses => match finish {
                Stop | ToolCalls => ("", "completed"),
                Length => ("max_output_tokens", "incomplete"),
                ContentFilter => ("content_filter", "incomplete"),
                Refusal => ("refusal", "incomplete"),
                // The API has no word for any other reason.
                _ => ("", "other"),
            },
            Api::Messages => match finish {
                Stop => ("end_turn", ""),
                Length => ("max_tokens", ""),
                ToolCalls => ("tool_use", ""),
                finish => (finish.as_str(), ""),
            },
            Api::Gemini => match finish {
                Stop | ToolCalls => ("STOP", ""),
                Length => ("MAX_TOKENS", ""),
                ContentFilter => ("SAFETY", ""),
                Refusal => ("REFUSAL", ""),
                _ => ("OTHER", ""),
            },
            Api::Ollama | Api::OllamaGenerate => match finish {
                Stop | ToolCalls => ("stop", ""),
                finish => (finish.as_str(), ""),
            },
        };
        Self { reason, status }
    }

    /// Returns the `incomplete_details` of a response.
    pub(super) fn details(&self) -> Value {
        match self.reason {
            "" => Value::Null,
            reason => json!({ "reason": reason }),
        }
    }
}

/// Returns the token counts in the API's format.
pub(super) fn usage_of(api: Api, usage: &Usage) -> Value {
    match api {
        Api::Chat => chat_usage(usage, ["prompt", "completion"]),
        Api::Responses => chat_usage(usage, ["input", "output"]),
        Api::Messages => messages_usage(usage),
        Api::Gemini => gemini_usage(usage),
        Api::Ollama | Api::OllamaGenerate => counts([
            ("prompt_eval_count", usage.input),
            ("eval_count", usage.output),
        ]),
    }
}

/// Returns a line of Ollama that is not the last one, with these fields of the message.
pub(super) fn ollama_line(api: Api, model: &str, fields: &Value) -> Value {
    let mut line = json!({ "model": model, "created_at": "2023-11-14T22:13:20Z", "done": false });
    let content = fields["content"].as_str().unwrap_or_default();
    let mut message = json!({ "role": "assistant", "content": content });
    let place = match api {
        Api::OllamaGenerate => {
            line["response"] = content.into();
            &mut line
        }
        _ => &mut message,
    };
    for name in ["thinking", "tool_calls"] {
        if let Some(field) = fields.get(name) {
            place[name] = field.clone();
        }
    }
    if api != Api::OllamaGenerate {
        line["message"] = message;
    }
    line
}

/// Turns a line of Ollama into the last one.
pub(super) fn ollama_end(line: &mut Value, reason: &str, usage: Option<Value>) {
    line["done"] = true.into();
    line["done_reason"] = reason.into();
    if let (Value::Object(line), Some(Value::Object(usage))) = (line, usage) {
        line.extend(usage);
    }
}

/// Returns a call in Ollama's format.
pub(super) fn ollama_call(index: usize, id: &str, name: &str, arguments: &str) -> Value {
    let arguments = match arguments {
        "" => json!({}),
        arguments => parsed(arguments),
    };
    json!({ "id": id, "function": { "index": index, "name": name, "arguments": arguments } })
}

/// Returns a call as a part of Gemini's content.
pub(super) fn function_call(id: &str, name: &str, arguments: &str) -> Value {
    let mut call = json!({ "id": id, "name": name });
    if !arguments.is_empty() {
        call["args"] = parsed(arguments);
    }
    json!({ "functionCall": call })
}

/// Returns a call's arguments as JSON, or as a string if they are not JSON.
pub(super) fn parsed(arguments: &str) -> Value {
    serde_json::from_str(arguments).unwrap_or_else(|_| arguments.into())
}

/// Returns an object of the counts that are present.
fn counts<const N: usize>(counts: [(&str, Option<u64>); N]) -> Value {
    let there = counts
        .into_iter()
        .filter_map(|(name, count)| Some((name.to_owned(), count?.into())));
    Value::Object(there.collect())
}

/// Returns the counts for both of OpenAI's APIs, which name input and output differently.
fn chat_usage(usage: &Usage, [input, output]: [&str; 2]) -> Value {
    let tokens = |of: &str| format!("{of}_tokens");
    let mut all = counts([
        (&tokens(input), usage.input),
        (&tokens(output), usage.output),
        (
            "total_tokens",
            usage
                .total
                .or_else(|| Some(usage.input?.saturating_add(usage.output?))),
        ),
    ]);
    all[format!("{input}_tokens_details")] = counts([
        ("cached_tokens", usage.cached_input),
        ("cache_write_tokens", usage.cache_write_input),
    ]);
    all[format!("{output}_tokens_details")] = counts([("reasoning_tokens", usage.reasoning)]);
    all
}

/// Anthropic's input excludes the cache.
fn messages_usage(usage: &Usage) -> Value {
    let written = usage.cache_write_input.unwrap_or(0);
    let cache = usage.cached_input.unwrap_or(0).saturating_add(written);
    counts([
        (
            "input_tokens",
            usage.input.map(|input| input.saturating_sub(cache)),
        ),
        ("cache_read_input_tokens", usage.cached_input),
        ("cache_creation_input_tokens", usage.cache_write_input),
        ("output_tokens", usage.output),
    ])
}

/// Gemini's output excludes the reasoning.
fn gemini_usage(usage: &Usage) -> Value {
    let reasoning = usage.reasoning.unwrap_or(0);
    counts([
        ("promptTokenCount", usage.input),
        ("cachedContentTokenCount", usage.cached_input),
        (
            "candidatesTokenCount",
            usage.output.map(|output| output.saturating_sub(reasoning)),
        ),
        ("thoughtsTokenCount", usage.reasoning),
        (
            "totalTokenCount",
            usage
                .total
                .or_else(|| Some(usage.input?.saturating_add(usage.output?))),
        ),
    ])
}
