//! OpenAI's Responses API.
//!
//! # When a response is complete
//!
//! `response.completed` and `response.incomplete` complete it, under these names or those of gateways, such as
//! `response.done`. The decoder then ends at once. The [`finish_reason`](ProviderToken::finish_reason) is the
//! response's status (`completed`), or the reason why it is incomplete (`max_output_tokens`). A stream that ends
//! without one of these events is truncated.
//!
//! # Whole content
//!
//! Text, reasoning and arguments are yielded in the pieces in which they arrive. Content without pieces is yielded from
//! the first event that has it whole: its own `done` event, the one of its part or item, or the output of the last
//! event. Nothing is yielded twice.
//!
//! # Media
//!
//! Audio, partial images and final images yield tokens of kind [`Media`](TokenKind::Media). Transcripts are text.
//!
//! # Errors
//!
//! `response.failed` and `error` events are a [`ProviderError::Api`](crate::ProviderError::Api), and the last item. A
//! `response.failed` that arrives together with an `error` event is read too, but not awaited. The first of the two
//! errors counts.
//!
//! # Tool calls
//!
//! A function call, a custom tool call and an MCP call yield one token per piece of their arguments. The first token
//! has the name and the id (`call_id`, if there is one). A call without any piece yields one token with the arguments
//! of the finished item. So does a call of one of OpenAI's own tools that your application must run: `computer`,
//! `local_shell`, `shell`, `apply_patch` and `tool_search`. Its arguments are the action or operation, as JSON. Calls
//! of hosted tools, such as a web search, yield no token.
//!
//! A request to approve a call of an MCP server is a call named `mcp_approval_request` with the id of the request. Its
//! arguments are an object with `server_label`, `name` and `arguments`.
//!
//! The API has no finish reason for calls. [`finish`](ProviderToken::finish) is [`FinishReason::ToolCalls`] if there
//! was a call that your application must run, which an MCP call is not.

use std::borrow::Cow;

use bytes::Bytes;
use futures_core::Stream;
use l0_core::{FinishReason, TokenKind};
use serde::de::MapAccess;

use crate::decode::{Decoder, Dialect, Metadata, Out, Unreadable, parse};
use crate::error::ApiError;
use crate::finish::Finish;
use crate::lenient::{Arguments, Count, Fields, List, Object, Prose, Text, skip};
use crate::report::{ErrorField, api_error};
use crate::response::{Calls, Given, Identity, Place, fingerprint};
use crate::token::ProviderToken;
use crate::usage::{Counted, UsageFields};

#[cfg(feature = "reqwest")]
pub use with_reqwest::from_response;

/// Decodes the body of a streamed response, as its bytes arrive.
///
/// `body` is as for [`openai::decode`](super::decode).
///
/// ```
/// use std::convert::Infallible;
///
/// use futures_util::{StreamExt, stream};
/// use l0_core::FinishReason;
/// use l0_providers::openai::responses;
///
/// # futures_util::FutureExt::now_or_never(async {
/// let body = stream::iter([
///     Ok::<_, Infallible>("data: {\"type\": \"response.output_text.delta\", \"delta\": \"Hi\"}\n\n"),
///     Ok("data: {\"type\": \"response.completed\", \"response\": {\"status\": \"completed\"}}\n\n"),
/// ]);
/// let tokens: Vec<_> = responses::decode(body).map(Result::unwrap).collect().await;
/// assert_eq!(tokens[0].text, "Hi");
/// assert_eq!(tokens[1].finish, Some(FinishReason::Stop));
/// # }).unwrap();
/// ```
pub fn decode<S, B, E>(body: S) -> Decoder<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
{
    Decoder::new(body, Responses::default())
}

/// State of one response.
#[derive(Default)]
pub(super) struct Responses {
    identity: Identity,
    counted: Counted,
    calls: Calls,
    given: Given,
    /// The number of the item in the last event.
    key: u64,
    /// `true` after a call that the application must run or approve.
    asks: bool,
    /// The error of an `error` event.
    error: Option<ApiError>,
}

/// The content of an event: a piece, or something whole.
enum Piece {
    Text,
    Refusal,
    Reasoning,
    Audio,
    Arguments,
    /// A part. Its type is in the event's `part`.
    Part,
    Item,
}

impl Piece {
    fn read(what: &str) -> Option<Self> {
        Some(match what {
            "output_text" | "text" => Self::Text,
            "refusal" => Self::Refusal,
            "output_item" => Self::Item,
            "custom_tool_call_input" => Self::Arguments,
            "audio" | "output_audio" => Self::Audio,
            _ if what.ends_with("_part") => Self::Part,
            _ if is_reasoning(what) => Self::Reasoning,
            _ if what.ends_with("transcript") => Self::Text,
            _ if what.ends_with("_call_arguments") => Self::Arguments,
            _ => return None,
        })
    }
}

impl Dialect for Responses {
    fn payload(&mut self, name: &str, json: &str, out: &mut Out) -> Result<(), Unreadable> {
        let mut payload = Payload::default();
        parse(json, &mut payload)?;
        let kind = std::mem::take(&mut payload.kind);
        let kind = match kind.as_str() {
            "" => name,
            kind => kind,
        };
        let kind = kind.strip_prefix("response.").unwrap_or(kind);
        if kind == "error" {
            self.error.get_or_insert_with(|| api_error(json));
            return Ok(());
        }
        if kind.is_empty() && payload.object.as_str() == "response" {
            // An answer that is not streamed. A background response has no output yet.
            let mut response = Response::default();
            parse(json, &mut response)?;
            self.over("", response, out);
            return Ok(());
        }
        let Some((what, step)) = kind.rsplit_once('.') else {
            // Gateways use other names for the last event, such as `response.done`.
            let ends = ["incomplete", "cancelled", "canceled", "failed", "failure"];
            let over = Finish::read(kind) == Some(Finish::Ended(FinishReason::Stop));
            if over || ends.contains(&kind) {
                self.over(kind, *payload.response.0.unwrap_or_default(), out);
            } else if payload.error.error(true).is_some() {
                // Not an event of this API, but an error from a proxy.
                out.fail(api_error(json));
            } else if let Some(response) = payload.response.0 {
                let metadata = self
                    .identity
                    .update(response.model.as_str(), response.id.as_str());
                let counts = response.usage.0;
                let usage = counts.and_then(|counts| self.counted.add(&counts));
                out.add_metadata(Metadata { usage, ..metadata });
            }
            return Ok(());
        };
        let item = payload.item.0;
        let id = item.as_ref().map(|item| item.id.as_str());
        let id = id.unwrap_or(payload.item_id.as_str());
        self.key = match payload.output_index.0 {
            Some(index) => index,
            None if !id.is_empty() => fingerprint(id),
            None => self.key,
        };
        let place = |kind| Place {
            kind,
            item: payload.output_index.0,
            part: payload.part_index.0,
        };
        let text = place(TokenKind::Text);
        match (step, Piece::read(what)) {
            ("delta", Some(Piece::Text)) => self.push_text(text, payload.delta.0, out),
            ("delta", Some(Piece::Refusal)) => self.refuse(text, payload.delta.0, out),
            ("delta", Some(Piece::Reasoning)) => {
                self.push_text(place(TokenKind::Reasoning), payload.delta.0, out);
            }
            ("delta", Some(Piece::Audio)) => {
                self.media(place(TokenKind::Media), payload.delta.0, out);
            }
            ("partial_image", _) => self.media(place(TokenKind::Media), payload.image, out),
            ("delta", Some(Piece::Arguments)) => {
                self.asks |= !what.starts_with("mcp_");
                let piece = payload.delta.0;
                out.push(self.calls.piece(self.key, piece.as_str()));
            }
            ("done", Some(Piece::Text)) if !self.given.has(text) => {
                self.push_text(text, Text(Some(payload.whole.0)), out);
            }
            ("done", Some(Piece::Refusal)) if !self.given.has(text) => {
                self.refuse(text, Text(Some(payload.whole.0)), out);
            }
            ("done", Some(Piece::Reasoning)) => {
                let place = place(TokenKind::Reasoning);
                if !self.given.has(place) {
                    self.push_text(place, Text(Some(payload.whole.0)), out);
                }
            }
            ("done", Some(Piece::Part)) => {
                let part = payload.part.0.map(|part| *part).unwrap_or_default();
                if !self.given.has(place(part.token_kind())) {
                    self.part(place, part, out);
                }
            }
            ("done", Some(Piece::Arguments)) => {
                let known = !self.calls.is_new(self.key);
                // The name may arrive with the finished item.
                if known || payload.name.filled().is_some() {
                    self.asks |= !what.starts_with("mcp_");
                    self.arguments(&payload.whole.0, out);
                }
            }
            ("added", Some(Piece::Item)) => {
                let item = item.unwrap_or_default();
                if item.is_call() {
                    self.announce(&item, out);
                }
            }
            ("done", Some(Piece::Item)) => {
                self.item(payload.output_index.0, *item.unwrap_or_default(), out);
            }
            _ if payload.error.error(true).is_some() => out.fail(api_error(json)),
            _ => {}
        }
        Ok(())
    }

    fn failing(&self) -> bool {
        self.error.is_some()
    }

    fn end(&mut self, out: &mut Out) {
        if let Some(error) = self.error.take() {
            out.fail(error);
        }
    }
}

/// Handling of pieces of text.
impl Responses {
    fn push_text(&mut self, place: Place, text: Text<'_>, out: &mut Out) {
        if let Some(text) = text.filled() {
            self.given.note(place);
            out.push(ProviderToken::new(place.kind, text));
        }
    }

    fn refuse(&mut self, place: Place, text: Text<'_>, out: &mut Out) {
        if let Some(text) = text.filled() {
            self.given.note(place);
            out.push(ProviderToken::new(place.kind, text)).refusal = true;
        }
    }

    fn media(&mut self, place: Place, data: Text<'_>, out: &mut Out) {
        if data.filled().is_some() {
            self.given.note(place);
            out.push(ProviderToken::new(TokenKind::Media, ""));
        }
    }

    /// Reads a whole part of an item.
    fn part(&mut self, place: impl Fn(TokenKind) -> Place, part: Part<'_>, out: &mut Out) {
        let kind = part.token_kind();
        if part.kind.as_str() == "refusal" {
            self.refuse(place(kind), part.text, out);
        } else {
            self.push_text(place(kind), part.text, out);
        }
        let media = place(TokenKind::Media);
        if !self.given.has(media) {
            self.media(media, part.data, out);
        }
    }

    /// Reads a whole item of the output and yields what was not yielded before.
    fn item(&mut self, index: Option<u64>, item: Item<'_>, out: &mut Out) {
        if item.is_call() {
            if self.calls.is_new(self.key) {
                self.announce(&item, out);
            }
            self.arguments(&item.arguments.0, out);
            return;
        }
        if let Some(call) = item.own_tool() {
            let (name, id, arguments) = call;
            let id = id.map(str::to_owned);
            if let Some(before) = self
                .calls
                .announce(self.key, id, Some(name.to_owned()), false)
            {
                out.push(before);
            }
            out.push(self.calls.piece(self.key, &arguments));
            self.asks = true;
            return;
        }
        let of = |kind, part| Place {
            kind,
            item: index,
            part,
        };
        let kinds = [TokenKind::Text, TokenKind::Reasoning, TokenKind::Media];
        let given = kinds.map(|kind| self.given.has(of(kind, None)));
        let parts = item.summary.into_iter().chain(item.content);
        for (part, at) in parts.zip(0..) {
            let kind = part.token_kind();
            if kinds
                .iter()
                .zip(given)
                .all(|(of, given)| *of != kind || !given)
            {
                self.part(|kind| of(kind, Some(at)), part, out);
            }
        }
        // The final image, after the partial ones.
        self.media(of(TokenKind::Media, None), item.result, out);
    }

    fn announce(&mut self, item: &Item<'_>, out: &mut Out) {
        let hosted = item.kind.as_str() == "mcp_call";
        self.asks |= !hosted;
        let text = |text: &Text<'_>| {
            let text = text.as_str();
            (!text.is_empty()).then(|| text.to_owned())
        };
        let id = text(&item.call_id).or_else(|| text(&item.id));
        if let Some(before) = self.calls.announce(self.key, id, text(&item.name), hosted) {
            out.push(before);
        }
    }

    /// Reads the whole arguments of a call.
    fn arguments(&mut self, whole: &str, out: &mut Out) {
        let lacks = !whole.is_empty() && self.calls.lacks_arguments(self.key);
        if self.calls.waits(self.key) || lacks {
            out.push(self.calls.piece(self.key, whole));
        }
    }

    /// Reads the output of a response of which nothing was yielded.
    fn output(&mut self, output: List<Item<'_>>, out: &mut Out) {
        let any = |kind| Place {
            kind,
            item: None,
            part: None,
        };
        let has_calls = !self.calls.is_empty();
        let kinds = [TokenKind::Text, TokenKind::Reasoning, TokenKind::Media];
        let given = kinds.map(|kind| self.given.has(any(kind)));
        for (index, item) in (0..).zip(output) {
            // A call may have been announced, with its arguments only here.
            let keys = [index, fingerprint(item.id.as_str())];
            let lacking = keys
                .into_iter()
                .find(|key| self.calls.lacks_arguments(*key));
            let known = match item.kind.as_str() {
                "message" => given[0] || given[2],
                "reasoning" => given[1],
                "image_generation_call" => given[2],
                _ => has_calls && !(item.is_call() && lacking.is_some()),
            };
            if !known {
                self.key = lacking.unwrap_or(index);
                self.item(Some(index), item, out);
            }
        }
    }
}

impl Responses {
    /// Handles the last event.
    fn over<'a>(&mut self, kind: &str, response: Response<'a>, out: &mut Out) {
        self.output(response.output, out);
        if let Some(call) = self.calls.flush() {
            out.push(call);
        }
        let detail = response.incomplete_details.0.unwrap_or_default();
        let said_word = |word: Text<'a>| word.filled().filter(|word| Finish::read(word).is_some());
        let status = said_word(response.status);
        let why = said_word(detail.reason);
        // The last event's name decides if it is known, and otherwise the response's status.
        let end = match kind {
            "completed" | "incomplete" | "failed" | "cancelled" => kind,
            "canceled" | "failure" => status.as_deref().unwrap_or(kind),
            _ => status.as_deref().unwrap_or("completed"),
        };
        let incomplete = end.eq_ignore_ascii_case("incomplete");
        let failed_end = end.eq_ignore_ascii_case("failed");
        let reason = if incomplete {
            why.or(status.clone())
        } else {
            status.clone()
        };
        let reason = reason.unwrap_or_else(|| end.to_owned().into());
        let finish = Finish::read(&reason);
        let failed = failed_end || finish == Some(Finish::Failed);
        let metadata = self
            .identity
            .update(response.model.as_str(), response.id.as_str());
        let finish = match finish.map(Finish::reason) {
            Some(FinishReason::Stop) if self.asks => FinishReason::ToolCalls,
            // Incomplete for an unknown reason.
            Some(FinishReason::Other) if incomplete => FinishReason::Length,
            finish => finish.unwrap_or(FinishReason::Other),
        };
        let counts = response.usage.0;
        out.add_metadata(Metadata {
            cost: counts.as_ref().and_then(UsageFields::cost),
            usage: counts.and_then(|counts| self.counted.add(&counts)),
            // A failed response is not complete.
            finish: (!failed).then_some(finish),
            ..metadata
        });
        out.last_or_other(0).finish_reason = Some(reason.clone().into_owned());
        let own = response.error.error(true);
        let own = own.map(|error| error.into_api_error(None));
        match self.error.take().or(own) {
            Some(error) => out.fail(error),
            None if failed => out.fail(ApiError::finish(&reason)),
            None => out.end(),
        }
    }
}

/// Returns `true` if a name stands for reasoning.
fn is_reasoning(what: &str) -> bool {
    what.contains("reasoning") || what.contains("thinking")
}

#[derive(Default)]
struct Payload<'a> {
    kind: Text<'a>,
    /// Set if the response is not streamed.
    object: Text<'a>,
    delta: Prose<'a>,
    output_index: Count,
    /// The index in the content or in the reasoning's summary.
    part_index: Count,
    item_id: Text<'a>,
    item: Object<Box<Item<'a>>>,
    part: Object<Box<Part<'a>>>,
    /// The whole content of a `done` event.
    whole: Arguments<'a>,
    /// The name of a function.
    name: Text<'a>,
    image: Text<'a>,
    response: Object<Box<Response<'a>>>,
    error: ErrorField<'a>,
}

impl<'de> Fields<'de> for Payload<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => self.kind = map.next_value()?,
            "object" => self.object = map.next_value()?,
            "delta" => self.delta = map.next_value()?,
            "output_index" => self.output_index = map.next_value()?,
            "content_index" | "summary_index" => self.part_index = map.next_value()?,
            "item_id" => self.item_id = map.next_value()?,
            "item" => self.item.read(map)?,
            "part" => self.part.read(map)?,
            "text" | "refusal" | "transcript" | "arguments" | "input" => {
                self.whole = map.next_value()?;
            }
            "name" => self.name = map.next_value()?,
            "partial_image_b64" => self.image = map.next_value()?,
            "response" => self.response.read(map)?,
            "error" => self.error = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// A part of a message or of the reasoning.
#[derive(Default)]
struct Part<'a> {
    kind: Text<'a>,
    /// The text of the answer, a refusal, reasoning or a transcript.
    text: Text<'a>,
    /// The data of media.
    data: Text<'a>,
}

impl Part<'_> {
    fn token_kind(&self) -> TokenKind {
        let kind = self.kind.as_str();
        if is_reasoning(kind) || kind == "summary_text" {
            TokenKind::Reasoning
        } else {
            TokenKind::Text
        }
    }
}

impl<'de> Fields<'de> for Part<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => self.kind = map.next_value()?,
            "text" | "refusal" | "transcript" => self.text = map.next_value()?,
            "data" | "image_url" | "b64_json" => self.data = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// An item of the output.
#[derive(Default)]
struct Item<'a> {
    kind: Text<'a>,
    id: Text<'a>,
    call_id: Text<'a>,
    name: Text<'a>,
    server: Text<'a>,
    arguments: Arguments<'a>,
    environment: Object<Environment<'a>>,
    content: List<Part<'a>>,
    summary: List<Part<'a>>,
    /// An image.
    result: Text<'a>,
}

impl Item<'_> {
    fn is_call(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "function_call" | "custom_tool_call" | "mcp_call"
        )
    }

    /// Returns the tool's name, the call's id and its arguments if the application must act on this item: a call of one
    /// of OpenAI's own tools, or of an MCP server that needs approval.
    fn own_tool(&self) -> Option<(&str, Option<&str>, Cow<'_, str>)> {
        let hosted = match self.kind.as_str() {
            approval @ "mcp_approval_request" => {
                let arguments = serde_json::json!({
                    "server_label": self.server.as_str(),
                    "name": self.name.as_str(),
                    "arguments": self.arguments.0,
                });
                return Some((approval, self.id.0.as_deref(), arguments.to_string().into()));
            }
            "computer_call" | "local_shell_call" | "apply_patch_call" => false,
            "shell_call" => {
                let environment = self.environment.0.as_ref();
                environment.is_some_and(|place| place.kind.as_str().starts_with("container"))
            }
            "tool_search_call" => self.call_id.as_str().is_empty(),
            _ => true,
        };
        let tool = self.kind.as_str().strip_suffix("_call");
        let tool = tool.filter(|_| !hosted)?;
        let id = Some(self.call_id.as_str()).filter(|id| !id.is_empty());
        Some((tool, id, Cow::Borrowed(&self.arguments.0)))
    }
}

impl<'de> Fields<'de> for Item<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => self.kind = map.next_value()?,
            "id" => self.id = map.next_value()?,
            "call_id" => self.call_id = map.next_value()?,
            "name" => self.name = map.next_value()?,
            "server_label" => self.server = map.next_value()?,
            // A custom tool has `input`; OpenAI's own tools have the other fields.
            "arguments" | "input" | "action" | "actions" | "operation" => {
                let arguments: Arguments<'_> = map.next_value()?;
                if !arguments.0.is_empty() {
                    self.arguments = arguments;
                }
            }
            "environment" => self.environment.read(map)?,
            "content" => self.content.read(map)?,
            "summary" => self.summary.read(map)?,
            "result" => self.result = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// The environment in which a shell runs.
#[derive(Default)]
struct Environment<'a> {
    kind: Text<'a>,
}

impl<'de> Fields<'de> for Environment<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => self.kind = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Response<'a> {
    id: Text<'a>,
    model: Text<'a>,
    status: Text<'a>,
    incomplete_details: Object<Incomplete<'a>>,
    error: ErrorField<'a>,
    usage: Object<UsageFields>,
    output: List<Item<'a>>,
}

impl<'de> Fields<'de> for Response<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => self.id = map.next_value()?,
            "model" => self.model = map.next_value()?,
            "status" => self.status = map.next_value()?,
            "incomplete_details" => self.incomplete_details.read(map)?,
            "error" => self.error = map.next_value()?,
            "usage" => self.usage.read(map)?,
            "output" => self.output.read(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Incomplete<'a> {
    reason: Text<'a>,
}

impl<'de> Fields<'de> for Incomplete<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "reason" => self.reason = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[cfg(feature = "reqwest")]
mod with_reqwest {
    use std::future::Future;

    use serde::Serialize;

    use super::Responses;
    use crate::completion::Completion;
    use crate::decode::MAX_EVENT_BYTES;
    use crate::error::RequestError;
    use crate::http_response::{self, ProviderStream};
    use crate::openai::Client;
    use crate::openai::client::CHAT;
    use crate::request::ProviderRequest;

    /// Reads a response to a request of your own, as [`openai::from_response`](crate::openai::from_response) does.
    ///
    /// # Errors
    ///
    /// The same as for [`openai::from_response`](crate::openai::from_response).
    pub async fn from_response(
        response: reqwest::Response,
    ) -> Result<ProviderStream, RequestError> {
        http_response::from_response(response, Box::new(Responses::default()), MAX_EVENT_BYTES)
            .await
    }

    /// Requests to the Responses API.
    impl Client {
        /// Creates a request to the Responses API, the source of a run. `/responses` is appended to the path of the
        /// address, unless it already ends with it. `"stream": true` is added if the request has no such field.
        ///
        /// # Errors
        ///
        /// The same as for [`chat`](Self::chat).
        pub fn responses<R>(&self, request: &R) -> ProviderRequest<ProviderStream>
        where
            R: Serialize + ?Sized,
        {
            let url = self.endpoint("/responses");
            let call = http_response::stream::<Responses>(CHAT);
            self.request(url, None, request, &[("stream", "true")], call)
        }

        /// Creates a request to the Responses API for a whole answer, the source of a call. An answer that is streamed
        /// all the same is read too.
        ///
        /// A background response is returned at once, without output. Its finish reason is its status (`queued`).
        ///
        /// # Errors
        ///
        /// The same as for [`chat_once`](Self::chat_once).
        pub fn responses_once<R>(&self, request: &R) -> ProviderRequest<Completion>
        where
            R: Serialize + ?Sized,
        {
            let url = self.endpoint("/responses");
            let call = http_response::whole::<Responses>(CHAT);
            self.request(url, None, request, &[], call)
        }

        /// Sends a [`responses`](Self::responses) request and returns its tokens, as
        /// [`chat_stream`](Self::chat_stream) does.
        ///
        /// # Errors
        ///
        /// The same as for [`chat`](Self::chat).
        pub fn responses_stream<R>(
            &self,
            request: &R,
        ) -> impl Future<Output = Result<ProviderStream, RequestError>> + Send + 'static + use<R>
        where
            R: Serialize + ?Sized,
        {
            self.responses(request).send()
        }
    }
}
