//! OpenAI's Responses API.
//!
//! # When a response is complete
//!
//! `response.completed` and `response.incomplete` complete it, and the decoder ends at once; so does
//! `response.done`, in which gateways put either. The
//! [`finish_reason`](ProviderToken::finish_reason) is the response's status (`completed`), or why
//! it is incomplete (`max_output_tokens`). A stream that ends without one of them was cut.
//!
//! # Errors
//!
//! `response.failed` and an `error` event are a [`ProviderError::Api`](crate::ProviderError::Api),
//! and the last item. A `response.failed` that has come with an `error` event is read too, but not
//! waited for; the first of the two errors counts.
//!
//! # Tool calls
//!
//! A function call, a custom tool's call and an MCP call give one token per piece of their
//! arguments, the first of them with the name and the id (`call_id`, where there is one). A call
//! without any piece gives one token, with the arguments as the finished item has them. So does a
//! call of one of OpenAI's own tools that the user is to run: `computer`, `local_shell`, `shell`,
//! `apply_patch` and `tool_search`; its arguments are the action or operation, as JSON. Calls of
//! hosted tools, such as a web search, give none.
//!
//! The API has no finish reason for calls: [`finish`](ProviderToken::finish) is
//! [`FinishReason::ToolCalls`] if there was one that the user is to run, which an MCP call is not.

use bytes::Bytes;
use futures_core::Stream;
use l0_core::{FinishReason, TokenKind};
use serde::de::MapAccess;

use crate::decode::{Decoder, Dialect, Out, Said, Unreadable, parse};
use crate::error::ApiError;
use crate::finish::Finish;
use crate::lenient::{Arguments, Count, Fields, Object, Text, skip};
use crate::report::{ErrorField, api_error};
use crate::response::{Calls, Identity};
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

/// What one response said so far.
#[derive(Default)]
pub(super) struct Responses {
    identity: Identity,
    counted: Counted,
    calls: Calls,
    /// Whether there is a call that the user is to run.
    asks: bool,
    /// Of an `error` event.
    error: Option<ApiError>,
}

impl Dialect for Responses {
    fn payload(&mut self, name: &str, json: &str, out: &mut Out) -> Result<(), Unreadable> {
        let payload: Payload<'_> = parse(json)?;
        let kind = match payload.kind.as_str() {
            "" => name,
            kind => kind,
        };
        let key = payload.output_index.0.unwrap_or_default();
        match kind {
            "response.output_text.delta" => text(TokenKind::Text, payload.delta, out),
            "response.refusal.delta" => {
                let tokens = out.len();
                text(TokenKind::Text, payload.delta, out);
                if out.len() > tokens {
                    out.last_or_other(0).refusal = true;
                }
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                text(TokenKind::Reasoning, payload.delta, out);
            }
            "response.output_item.added" => {
                let item = payload.item.0.unwrap_or_default();
                if item.is_call() {
                    self.asks |= item.kind.as_str() != "mcp_call";
                    let id = item.call_id.filled().or_else(|| item.id.filled());
                    let id = id.map(|id| id.into_owned());
                    let name = item.name.filled().map(|name| name.into_owned());
                    if let Some(before) = self.calls.announce(key, id, name) {
                        out.push(before);
                    }
                }
            }
            "response.output_item.done" => {
                let item = payload.item.0.unwrap_or_default();
                if item.is_call() && self.calls.waits(key) {
                    out.push(self.calls.piece(key, &item.arguments.0));
                } else if let Some(tool) = item.own_tool() {
                    let name = Some(tool.to_owned());
                    let id = item.call_id.filled().map(|id| id.into_owned());
                    if let Some(before) = self.calls.announce(key, id, name) {
                        out.push(before);
                    }
                    out.push(self.calls.piece(key, &item.arguments.0));
                    self.asks = true;
                }
            }
            "response.custom_tool_call_input.delta" => {
                self.asks = true;
                out.push(self.calls.piece(key, payload.delta.as_str()));
            }
            kind if kind.ends_with("_call_arguments.delta") => {
                self.asks |= kind != "response.mcp_call_arguments.delta";
                out.push(self.calls.piece(key, payload.delta.as_str()));
            }
            // The last one is what some gateways say for all of them.
            "response.completed"
            | "response.done"
            | "response.incomplete"
            | "response.failed"
            | "response.cancelled" => {
                self.over(kind, payload.response.0.unwrap_or_default(), out);
                return Ok(());
            }
            "error" => {
                self.error.get_or_insert_with(|| api_error(json));
                return Ok(());
            }
            _ if payload.error.error(true).is_some() => {
                // Not an event of this API: a proxy's error.
                out.fail(api_error(json));
                return Ok(());
            }
            _ => {}
        }
        if let Some(response) = payload.response.0 {
            let said = self
                .identity
                .news(response.model.as_str(), response.id.as_str());
            let counts = response.usage.0;
            let usage = counts.and_then(|counts| self.counted.add(&counts));
            out.say(Said { usage, ..said });
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

impl Responses {
    /// The last event: why there are no more.
    fn over<'a>(&mut self, kind: &str, response: Response<'a>, out: &mut Out) {
        if let Some(call) = self.calls.flush() {
            out.push(call);
        }
        let detail = response.incomplete_details.0.unwrap_or_default();
        let said_word = |word: Text<'a>| word.filled().filter(|word| Finish::read(word).is_some());
        let status = said_word(response.status);
        let why = said_word(detail.reason);
        // What the last event is, where its name says so, and else the response's status.
        let end = match kind {
            "response.done" => status.as_deref().unwrap_or("completed"),
            kind => &kind["response.".len()..],
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
        let said = self
            .identity
            .news(response.model.as_str(), response.id.as_str());
        let finish = match finish.map(Finish::reason) {
            Some(FinishReason::Stop) if self.asks => FinishReason::ToolCalls,
            finish => finish.unwrap_or(FinishReason::Other),
        };
        out.say(Said {
            usage: response
                .usage
                .0
                .and_then(|counts| self.counted.add(&counts)),
            // A failed response is not complete.
            finish: (!failed).then_some(finish),
            ..said
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

/// A token with this text, unless it is empty.
fn text(kind: TokenKind, text: Text<'_>, out: &mut Out) {
    if let Some(text) = text.filled() {
        out.push(ProviderToken::new(kind, text));
    }
}

#[derive(Default)]
struct Payload<'a> {
    kind: Text<'a>,
    delta: Text<'a>,
    output_index: Count,
    item: Object<Item<'a>>,
    response: Object<Response<'a>>,
    error: ErrorField<'a>,
}

impl<'de> Fields<'de> for Payload<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => self.kind = map.next_value()?,
            "delta" => self.delta = map.next_value()?,
            "output_index" => self.output_index = map.next_value()?,
            "item" => self.item.read(map)?,
            "response" => self.response.read(map)?,
            "error" => self.error = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// An item of the output, as far as it is a call.
#[derive(Default)]
struct Item<'a> {
    kind: Text<'a>,
    id: Text<'a>,
    call_id: Text<'a>,
    name: Text<'a>,
    arguments: Arguments<'a>,
    environment: Object<Environment<'a>>,
}

impl Item<'_> {
    fn is_call(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "function_call" | "custom_tool_call" | "mcp_call"
        )
    }

    /// Which of OpenAI's own tools this calls, if the user is to run it.
    fn own_tool(&self) -> Option<&str> {
        let hosted = match self.kind.as_str() {
            "computer_call" | "local_shell_call" | "apply_patch_call" => false,
            "shell_call" => {
                let environment = self.environment.0.as_ref();
                environment.is_some_and(|place| place.kind.as_str().starts_with("container"))
            }
            "tool_search_call" => self.call_id.as_str().is_empty(),
            _ => true,
        };
        let tool = self.kind.as_str().strip_suffix("_call");
        tool.filter(|_| !hosted)
    }
}

impl<'de> Fields<'de> for Item<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => self.kind = map.next_value()?,
            "id" => self.id = map.next_value()?,
            "call_id" => self.call_id = map.next_value()?,
            "name" => self.name = map.next_value()?,
            // A custom tool has an input, one of OpenAI's own the others.
            "arguments" | "input" | "action" | "actions" | "operation" => {
                let arguments: Arguments<'_> = map.next_value()?;
                if !arguments.0.is_empty() {
                    self.arguments = arguments;
                }
            }
            "environment" => self.environment.read(map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// Where a shell runs.
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
    use crate::error::ProviderError;
    use crate::http_response::{self, ProviderStream};
    use crate::openai::Client;

    /// Reads a response to a request of your own, as
    /// [`openai::from_response`](crate::openai::from_response) does.
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn from_response(
        response: reqwest::Response,
    ) -> Result<ProviderStream, ProviderError<reqwest::Error>> {
        http_response::from_response(response, Box::new(Responses::default())).await
    }

    /// Requests to the Responses API.
    impl Client {
        /// Sends a request to the Responses API and gives its tokens. `/responses` is added to the
        /// address's path, unless it ends so, and `"stream": true` to the request, unless it is
        /// there. The future borrows nothing.
        ///
        /// # Errors
        ///
        /// Those of [`chat_stream`](Self::chat_stream).
        pub fn responses_stream<R>(
            &self,
            request: &R,
        ) -> impl Future<Output = Result<ProviderStream, ProviderError<reqwest::Error>>>
        + Send
        + 'static
        + use<R>
        where
            R: Serialize + ?Sized,
        {
            let url = self.endpoint("/responses");
            self.post(url, request, &[("stream", "true")], Responses::default())
        }
    }
}
