//! The Responses API.

use async_openai::config::Config;
use async_openai::error::OpenAIError;
use async_openai::types::responses::{
    CreateResponse, OutputItem, OutputMessageContent, Response, ResponseStreamEvent as Event,
    ResponseUsage, Status,
};
use l0_core::{FinishReason, Token, TokenView, Usage};
use l0_providers::ApiError;
use l0_providers::normalize;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::Client;
use crate::error::Error;
use crate::request::{ClientRequest, DescribeRequest, Input, Parameters};
use crate::stream::{AnswerStream, Item};
use crate::viewed::Viewed;

/// Creates a request for a streamed response of the Responses API, the source of a run. Sets `stream`.
///
/// `response.failed` and `error` events are errors of the stream. Events of types that the client does not know are
/// skipped.
pub fn responses<C: Config + Clone + 'static>(
    client: &Client<C>,
    mut request: CreateResponse,
) -> ClientRequest<AnswerStream<Event>> {
    request.stream = Some(true);
    ClientRequest::new(client.for_streams(), request, true, |client, request| {
        Box::pin(async move {
            let items = client.responses().create_stream(request).await?;
            Ok(AnswerStream::new(items))
        })
    })
}

/// Creates a request for a whole response of the Responses API, the source of a call. `stream` and `stream_options`,
/// which are for streams, are removed. A failed response is an error.
pub fn responses_once<C: Config + Clone + 'static>(
    client: &Client<C>,
    mut request: CreateResponse,
) -> ClientRequest<Viewed<Response>> {
    request.stream = None;
    request.stream_options = None;
    let client = client.for_whole_answers();
    ClientRequest::new(client, request, false, |client, request| {
        Box::pin(async move {
            let response = client.responses().create(request).await?;
            if matches!(response.status, Status::Failed) {
                return Err(failed(&response));
            }
            let mut response = Viewed::new(response);
            response.join_texts();
            Ok(response)
        })
    })
}

impl DescribeRequest for CreateResponse {
    const OPERATION: &'static str = "chat";
    const PATH: &'static str = "/responses";

    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn parameters(&self) -> Parameters {
        Parameters::default()
            .with_number("temperature", self.temperature)
            .with_number("top_p", self.top_p)
            .with("max_tokens", self.max_output_tokens)
    }

    fn input(&self) -> Input {
        Input::default()
            .with("input", &self.input)
            .with("instructions", &self.instructions)
    }
}

impl Item for Event {
    fn read(self, has_call: &mut bool) -> Result<Viewed<Self>, Error> {
        match &self {
            Self::ResponseFailed(event) => return Err(failed(&event.response)),
            Self::ResponseError(event) => return Err(reported(event)),
            Self::ResponseOutputItemDone(event) => *has_call |= call_name(&event.item).is_some(),
            _ => {}
        }
        let mut event = Viewed::new(self);
        event.after_call = *has_call;
        Ok(event)
    }

    fn may_pass_over(error: &OpenAIError) -> bool {
        #[derive(Deserialize)]
        struct Typed<'a> {
            r#type: std::borrow::Cow<'a, str>,
        }
        let OpenAIError::JSONDeserialize(error, json) = error else {
            return false;
        };
        // The type itself must be unknown, and not a word inside a known event.
        serde_json::from_str::<Typed<'_>>(json).is_ok_and(|event| {
            let unknown = format!("unknown variant `{}`", event.r#type);
            error.is_data() && error.to_string().starts_with(&unknown)
        })
    }
}

/// Returns the failure that a response reports.
fn failed(response: &Response) -> Error {
    match &response.error {
        Some(error) => reported(error),
        None => reported(&json!({ "type": "server_error" })),
    }
}

fn reported(error: &impl Serialize) -> Error {
    let error = serde_json::to_value(error).unwrap_or(Value::Null);
    let json = json!({ "error": error }).to_string();
    ApiError::from_json(&json, None).map_or(Error::NotAnAnswer, |error| Error::Api(Box::new(error)))
}

impl Token for Viewed<Event> {
    const SENDS_FINISH: bool = true;

    fn view(&self) -> TokenView<'_> {
        match &**self {
            Event::ResponseOutputTextDelta(event) => TokenView::text(&event.delta),
            Event::ResponseRefusalDelta(event) => TokenView::text(&event.delta),
            Event::ResponseAudioTranscriptDelta(event) => TokenView::text(&event.delta),
            Event::ResponseReasoningTextDelta(event) => TokenView::reasoning(&event.delta),
            Event::ResponseReasoningSummaryTextDelta(event) => TokenView::reasoning(&event.delta),
            Event::ResponseFunctionCallArgumentsDelta(event) => TokenView::tool_call(&event.delta),
            Event::ResponseCustomToolCallInputDelta(event) => TokenView::tool_call(&event.delta),
            Event::ResponseMCPCallArgumentsDelta(event) => TokenView::tool_call(&event.delta),
            Event::ResponseOutputItemAdded(event) => match &event.item {
                OutputItem::FunctionCall(call) => TokenView::tool_call(&call.name),
                OutputItem::CustomToolCall(call) => TokenView::tool_call(&call.name),
                OutputItem::McpCall(call) => TokenView::tool_call(&call.name),
                _ => TokenView::other(),
            },
            Event::ResponseOutputItemDone(event) => match &event.item {
                OutputItem::ImageGenerationCall(_) => TokenView::media(),
                // Calls that arrive whole.
                item => own_tool(item).map_or(TokenView::other(), TokenView::tool_call),
            },
            Event::ResponseAudioDelta(_) | Event::ResponseImageGenerationCallPartialImage(_) => {
                TokenView::media()
            }
            Event::ResponseCreated(event) => identity(TokenView::other(), &event.response),
            Event::ResponseInProgress(event) => identity(TokenView::other(), &event.response),
            Event::ResponseQueued(event) => identity(TokenView::other(), &event.response),
            Event::ResponseCompleted(event) => {
                end(TokenView::other(), &event.response, self.after_call)
            }
            Event::ResponseIncomplete(event) => {
                end(TokenView::other(), &event.response, self.after_call)
            }
            _ => TokenView::other(),
        }
    }
}

/// Read as its text, or else as its first tool call.
impl Token for Viewed<Response> {
    fn view(&self) -> TokenView<'_> {
        let text = self.joined.as_deref().or_else(|| texts(self).next());
        let call = || self.output.iter().find_map(call_name);
        let view = match text {
            Some(text) => TokenView::text(text),
            None => call().map_or(TokenView::other(), TokenView::tool_call),
        };
        end(view, self, false)
    }
}

impl Viewed<Response> {
    /// Joins the texts if there are several.
    fn join_texts(&mut self) {
        if texts(self).nth(1).is_some() {
            self.joined = Some(texts(self).collect::<String>().into());
        }
    }
}

/// Returns the texts of the answer.
fn texts(response: &Response) -> impl Iterator<Item = &str> {
    let messages = response.output.iter().filter_map(|item| match item {
        OutputItem::Message(message) => Some(&message.content),
        _ => None,
    });
    messages.flatten().map(|content| match content {
        OutputMessageContent::OutputText(content) => &*content.text,
        OutputMessageContent::Refusal(content) => &content.refusal,
    })
}

/// Returns the name of a call that the application must run or approve.
fn call_name(item: &OutputItem) -> Option<&str> {
    match item {
        OutputItem::FunctionCall(call) => Some(&call.name),
        OutputItem::CustomToolCall(call) => Some(&call.name),
        item => own_tool(item),
    }
}

/// Returns the name of one of OpenAI's own tools that the application must run.
const fn own_tool(item: &OutputItem) -> Option<&'static str> {
    Some(match item {
        OutputItem::ComputerCall(_) => "computer",
        OutputItem::LocalShellCall(_) => "local_shell",
        OutputItem::ShellCall(_) => "shell",
        OutputItem::ApplyPatchCall(_) => "apply_patch",
        OutputItem::ToolSearchCall(_) => "tool_search",
        OutputItem::McpApprovalRequest(_) => "mcp_approval_request",
        _ => return None,
    })
}

fn identity<'a>(view: TokenView<'a>, response: &'a Response) -> TokenView<'a> {
    view.model(&response.model).response_id(&response.id)
}

/// Adds the metadata of a finished response.
fn end<'a>(view: TokenView<'a>, response: &'a Response, after_call: bool) -> TokenView<'a> {
    let mut view = identity(view, response);
    view.usage = response.usage.as_ref().map(usage);
    view.finish = finish(response, after_call);
    view
}

fn finish(response: &Response, after_call: bool) -> Option<FinishReason> {
    let calls = || response.output.iter().any(|item| call_name(item).is_some());
    Some(match response.status {
        // A background response.
        Status::Queued | Status::InProgress => return None,
        Status::Incomplete => match &response.incomplete_details {
            Some(details) if details.reason == "content_filter" => FinishReason::ContentFilter,
            _ => FinishReason::Length,
        },
        // The API has no finish reason for calls.
        Status::Completed if after_call || calls() => FinishReason::ToolCalls,
        Status::Completed => FinishReason::Stop,
        Status::Failed | Status::Cancelled => FinishReason::Other,
    })
}

fn usage(counts: &ResponseUsage) -> Usage {
    let of_input = &counts.input_tokens_details;
    let mut usage = Usage::new()
        .input(counts.input_tokens.into())
        .output(counts.output_tokens.into())
        .total(counts.total_tokens.into())
        .cached_input(of_input.cached_tokens.into())
        .reasoning(counts.output_tokens_details.reasoning_tokens.into());
    let written = of_input.cache_write_tokens;
    usage.cache_write_input = written.and_then(|count| count.try_into().ok());
    normalize(usage)
}

#[cfg(test)]
mod tests {
    use serde_json::from_value;

    use super::*;

    fn response(more: Value) -> Response {
        let mut response = json!({
            "id": "r", "object": "response", "created_at": 1, "model": "m-1", "status": "completed",
            "output": [],
        });
        let (Value::Object(fields), Value::Object(more)) = (&mut response, more) else {
            unreachable!("both are objects");
        };
        fields.extend(more);
        from_value(response).expect("a response")
    }

    #[test]
    fn finish_reasons_of_responses() {
        let call =
            json!([{ "type": "function_call", "call_id": "c", "name": "f", "arguments": "" }]);
        let why = |reason: &str| json!({ "reason": reason });
        for (more, read) in [
            (json!({}), Some(FinishReason::Stop)),
            (json!({ "output": call }), Some(FinishReason::ToolCalls)),
            (
                json!({ "status": "incomplete", "incomplete_details": why("max_output_tokens") }),
                Some(FinishReason::Length),
            ),
            (
                json!({ "status": "incomplete", "incomplete_details": why("content_filter") }),
                Some(FinishReason::ContentFilter),
            ),
            (json!({ "status": "cancelled" }), Some(FinishReason::Other)),
            (json!({ "status": "queued" }), None),
        ] {
            assert_eq!(finish(&response(more.clone()), false), read, "{more}");
        }
        assert_eq!(
            finish(&response(json!({})), true),
            Some(FinishReason::ToolCalls)
        );
    }

    #[test]
    fn the_parts_of_an_answer_are_one_text() {
        let part = |text: &str| json!({ "type": "output_text", "text": text, "annotations": [] });
        let message = json!({
            "type": "message", "id": "i", "role": "assistant", "status": "completed",
            "content": [part("Hel"), part("lo"), { "type": "refusal", "refusal": "!" }],
        });
        let mut whole = Viewed::new(response(json!({ "output": [message] })));
        whole.join_texts();
        assert_eq!(whole.view().text, "Hello!");
    }

    #[test]
    fn a_failed_response_is_an_error() {
        let error = json!({ "code": "rate_limit_exceeded", "message": "Try again in 2s." });
        let failure = failed(&response(json!({ "status": "failed", "error": error }))).failure();
        assert_eq!(failure.kind, l0_core::FailureKind::RateLimited);
        assert_eq!(failure.retry_after, Some(std::time::Duration::from_secs(2)));
        let failure = failed(&response(json!({ "status": "failed" }))).failure();
        assert_eq!(failure.kind, l0_core::FailureKind::Server);
    }
}
