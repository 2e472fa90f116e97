//! Serialization of a whole answer for each API.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Bytes;
use hyper::http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Answer, Step};
use super::api::{
    Api, Ending, Part, Task, function_call, ollama_call, ollama_end, ollama_line, parsed, usage_of,
};

/// A whole answer: its status and the steps of its body.
pub(super) struct Whole {
    pub(super) status: StatusCode,
    pub(super) parts: Vec<Part>,
    /// `true` if the body is complete, so its length is known.
    pub(super) is_complete: bool,
}

/// How an incomplete body ends.
#[derive(Clone, Copy)]
enum Broken {
    Ends,
    IsCut,
    Hangs,
}

/// Returns the answer for these steps: all of their waits, and then the JSON.
pub(super) fn whole(api: Api, model: &str, id: &str, answer: &Answer) -> Whole {
    let mut parts = Vec::new();
    let mut pieces = Pieces::default();
    let mut broken = None;
    for step in &answer.steps {
        match step {
            Step::Text(text) => pieces.text(text),
            Step::Reasoning(text) => pieces.reasoning.push_str(text),
            Step::Call {
                id,
                name,
                pieces: arguments,
            } => pieces.items.push(Item::Call {
                id,
                name,
                arguments: arguments.concat(),
            }),
            // Raw bytes would break the JSON.
            Step::Raw(_) => {}
            Step::Wait(duration) => parts.push(Part::Wait(*duration)),
            Step::Error(status, message) => {
                let error = api.error(*status, message).to_string();
                parts.push(Part::Bytes(error.into()));
                return Whole {
                    status: *status,
                    parts,
                    is_complete: true,
                };
            }
            Step::End => broken = Some(Broken::Ends),
            Step::Cut => broken = Some(Broken::IsCut),
            Step::Hang => broken = Some(Broken::Hangs),
        }
        if broken.is_some() {
            break;
        }
    }
    let json = pieces.json(api, model, id, answer).to_string();
    let mut body = Bytes::from(json);
    if broken.is_some() {
        body.truncate(body.len() / 2);
    }
    parts.push(Part::Bytes(body));
    match broken {
        Some(Broken::IsCut) => parts.push(Part::Cut),
        Some(Broken::Hangs) => parts.push(Part::Hang),
        Some(Broken::Ends) | None => {}
    }
    Whole {
        status: answer.status,
        parts,
        is_complete: broken.is_none(),
    }
}

/// The content of an answer.
#[derive(Default)]
struct Pieces<'a> {
    reasoning: String,
    items: Vec<Item<'a>>,
}

enum Item<'a> {
    Text(String),
    Call {
        id: &'a str,
        name: &'a str,
        arguments: String,
    },
}

impl Pieces<'_> {
    fn text(&mut self, text: &str) {
        match self.items.last_mut() {
            Some(Item::Text(before)) => before.push_str(text),
            _ => self.items.push(Item::Text(text.to_owned())),
        }
    }

    fn json(&self, api: Api, model: &str, id: &str, answer: &Answer) -> Value {
        let calls = self
            .items
            .iter()
            .map(|item| matches!(item, Item::Call { .. }));
        let ending = Ending::of(api, answer.finish, calls.clone().any(|call| call));
        let usage = answer.usage.map(|usage| usage_of(api, &usage));
        match api {
            Api::Chat => {
                let texts = self.items.iter().filter_map(|item| match item {
                    Item::Text(text) => Some(text.as_str()),
                    Item::Call { .. } => None,
                });
                let mut message = json!({
                    "role": "assistant", "content": texts.collect::<String>(),
                });
                if !self.reasoning.is_empty() {
                    message["reasoning_content"] = self.reasoning.as_str().into();
                }
                let calls = self.items.iter().filter_map(|item| match item {
                    Item::Text(_) => None,
                    Item::Call {
                        id,
                        name,
                        arguments,
                    } => {
                        let function = json!({ "name": name, "arguments": arguments });
                        Some(json!({ "id": id, "type": "function", "function": function }))
                    }
                });
                let calls = Vec::from_iter(calls);
                if !calls.is_empty() {
                    message["tool_calls"] = calls.into();
                }
                json!({
                    "id": id, "object": "chat.completion", "created": 1_700_000_000, "model": model,
                    "choices": [{ "index": 0, "message": message, "finish_reason": ending.reason }],
                    "usage": usage,
                })
            }
            Api::Responses => {
                let mut output = Vec::new();
                if !self.reasoning.is_empty() {
                    let part = json!({ "type": "summary_text", "text": self.reasoning });
                    output.push(json!({ "type": "reasoning", "id": "rs_0", "summary": [part] }));
                }
                output.extend(self.items.iter().enumerate().map(|(at, item)| match item {
                    Item::Text(text) => json!({
                        "type": "message", "id": format!("msg_{at}"), "role": "assistant",
                        "status": "completed",
                        "content": [{ "type": "output_text", "text": text, "annotations": [] }],
                    }),
                    Item::Call {
                        id,
                        name,
                        arguments,
                    } => json!({
                        "type": "function_call", "id": format!("fc_{at}"), "call_id": id,
                        "name": name, "arguments": arguments, "status": "completed",
                    }),
                }));
                json!({
                    "id": id, "object": "response", "created_at": 1_700_000_000, "model": model,
                    "status": ending.status, "error": null, "incomplete_details": ending.details(),
                    "output": output, "usage": usage,
                })
            }
            Api::Messages => {
                let mut content = Vec::new();
                if !self.reasoning.is_empty() {
                    content.push(json!({ "type": "thinking", "thinking": self.reasoning }));
                }
                content.extend(self.items.iter().map(|item| match item {
                    Item::Text(text) => json!({ "type": "text", "text": text }),
                    Item::Call {
                        id,
                        name,
                        arguments,
                    } => {
                        let input = match &**arguments {
                            "" => json!({}),
                            arguments => parsed(arguments),
                        };
                        json!({ "type": "tool_use", "id": id, "name": name, "input": input })
                    }
                }));
                json!({
                    "id": id, "type": "message", "role": "assistant", "model": model,
                    "content": content, "stop_reason": ending.reason, "stop_sequence": null,
                    "usage": usage.unwrap_or_else(|| json!({})),
                })
            }
            Api::Gemini => {
                let mut parts = Vec::new();
                if !self.reasoning.is_empty() {
                    parts.push(json!({ "text": self.reasoning, "thought": true }));
                }
                parts.extend(self.items.iter().map(|item| match item {
                    Item::Text(text) => json!({ "text": text }),
                    Item::Call {
                        id,
                        name,
                        arguments,
                    } => function_call(id, name, arguments),
                }));
                let content = json!({ "role": "model", "parts": parts });
                let mut whole = json!({
                    "candidates": [
                        { "index": 0, "content": content, "finishReason": ending.reason },
                    ],
                    "modelVersion": model, "responseId": id,
                });
                if let Some(usage) = usage {
                    whole["usageMetadata"] = usage;
                }
                whole
            }
            Api::Ollama | Api::OllamaGenerate => {
                let texts = self.items.iter().filter_map(|item| match item {
                    Item::Text(text) => Some(text.as_str()),
                    Item::Call { .. } => None,
                });
                let mut fields = json!({ "content": texts.collect::<String>() });
                if !self.reasoning.is_empty() {
                    fields["thinking"] = self.reasoning.as_str().into();
                }
                let calls = self.items.iter().filter_map(|item| match item {
                    Item::Text(_) => None,
                    Item::Call {
                        id,
                        name,
                        arguments,
                    } => Some((id, name, arguments)),
                });
                let calls = calls.enumerate();
                let calls = Vec::from_iter(
                    calls.map(|(at, (id, name, arguments))| ollama_call(at, id, name, arguments)),
                );
                if !calls.is_empty() {
                    fields["tool_calls"] = calls.into();
                }
                let mut whole = ollama_line(api, model, &fields);
                ollama_end(&mut whole, ending.reason, usage);
                whole
            }
        }
    }
}

/// Returns the embeddings of an answer in the API's format.
pub(super) fn embeddings(
    (api, task): (Api, Task),
    model: &str,
    request: &Value,
    answer: &Answer,
    vectors: &[Vec<f32>],
) -> Value {
    if api == Api::Gemini {
        let values = |vector: &Vec<f32>| json!({ "values": vector });
        let mut body = match task {
            Task::Embedding => json!({ "embedding": vectors.first().map(values) }),
            _ => json!({ "embeddings": vectors.iter().map(values).collect::<Vec<_>>() }),
        };
        if let Some(usage) = &answer.usage {
            body["usageMetadata"] = json!({ "promptTokenCount": usage.input });
        }
        return body;
    }
    if matches!(api, Api::Ollama | Api::OllamaGenerate) {
        let mut body = json!({ "model": model, "embeddings": vectors });
        if let Some(usage) = &answer.usage {
            body["prompt_eval_count"] = usage.input.into();
        }
        return body;
    }
    let in_base64 = request["encoding_format"] == "base64";
    let data = vectors.iter().enumerate().map(|(index, vector)| {
        let vector = if in_base64 {
            let bytes = vector.iter().flat_map(|number| number.to_le_bytes());
            STANDARD.encode(Vec::from_iter(bytes)).into()
        } else {
            json!(vector)
        };
        json!({ "object": "embedding", "index": index, "embedding": vector })
    });
    let data = Vec::from_iter(data);
    let mut body = json!({ "object": "list", "data": data, "model": model });
    if let Some(usage) = &answer.usage {
        let total = usage.total.or(usage.input);
        body["usage"] = json!({ "prompt_tokens": usage.input, "total_tokens": total });
    }
    body
}
