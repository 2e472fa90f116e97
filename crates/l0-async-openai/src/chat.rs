//! Chat Completions.

use async_openai::config::Config;
use async_openai::types::chat::{
    ChatCompletionMessageToolCalls, CompletionUsage, CreateChatCompletionRequest,
    CreateChatCompletionResponse, CreateChatCompletionStreamResponse, FinishReason as Reason,
};
use l0_core::{FinishReason, Token, TokenView, Usage};
use l0_providers::normalize;

use crate::client::Client;
use crate::request::{ClientRequest, DescribeRequest, Input, Parameters};
use crate::stream::{AnswerStream, Item};
use crate::viewed::Viewed;

/// Creates a request for a streamed chat completion, the source of a run.
///
/// Sets `stream`, and `stream_options.include_usage` unless the request already sets it.
pub fn chat<C: Config + Clone + 'static>(
    client: &Client<C>,
    mut request: CreateChatCompletionRequest,
) -> ClientRequest<AnswerStream<CreateChatCompletionStreamResponse>> {
    request.stream = Some(true);
    let options = request.stream_options.get_or_insert_default();
    options.include_usage.get_or_insert(true);
    ClientRequest::new(client.for_streams(), request, true, |client, request| {
        Box::pin(async move {
            let items = client.chat().create_stream(request).await?;
            Ok(AnswerStream::new(items))
        })
    })
}

/// Creates a request for a whole chat completion, the source of a call. `stream` and `stream_options`, which are for
/// streams, are removed.
pub fn chat_once<C: Config + Clone + 'static>(
    client: &Client<C>,
    mut request: CreateChatCompletionRequest,
) -> ClientRequest<Viewed<CreateChatCompletionResponse>> {
    request.stream = None;
    request.stream_options = None;
    let client = client.for_whole_answers();
    ClientRequest::new(client, request, false, |client, request| {
        Box::pin(async move { Ok(Viewed::new(client.chat().create(request).await?)) })
    })
}

impl DescribeRequest for CreateChatCompletionRequest {
    const OPERATION: &'static str = "chat";
    const PATH: &'static str = "/chat/completions";

    fn model(&self) -> Option<&str> {
        Some(&self.model)
    }

    #[allow(deprecated, reason = "a request may set it")]
    fn parameters(&self) -> Parameters {
        Parameters::default()
            .with_number("temperature", self.temperature)
            .with_number("top_p", self.top_p)
            .with("max_tokens", self.max_completion_tokens.or(self.max_tokens))
            .with_number("frequency_penalty", self.frequency_penalty)
            .with_number("presence_penalty", self.presence_penalty)
            .with("seed", self.seed)
            .with("choice.count", self.n.filter(|count| *count != 1))
    }

    fn input(&self) -> Input {
        Input::default().with("messages", &self.messages)
    }
}

impl Item for CreateChatCompletionStreamResponse {}

/// Read as its first choice: the text or refusal, or else the arguments of the first piece of a tool call, or the name
/// if it has no arguments.
impl Token for Viewed<CreateChatCompletionStreamResponse> {
    const SENDS_FINISH: bool = true;

    fn view(&self) -> TokenView<'_> {
        let choice = self.choices.first();
        let delta = choice.map(|choice| &choice.delta);
        let audio = delta.and_then(|delta| delta.audio.as_ref());
        let text = delta.and_then(|delta| {
            let spoken = audio.and_then(|audio| audio.transcript.as_deref());
            let texts = [delta.content.as_deref(), delta.refusal.as_deref(), spoken];
            filled(texts)
        });
        let call = delta.and_then(|delta| {
            let calls = delta.tool_calls.iter().flatten();
            #[allow(deprecated, reason = "some servers send nothing else")]
            let functions = calls
                .filter_map(|call| call.function.as_ref())
                .chain(&delta.function_call);
            let mut pieces = functions.filter_map(|function| {
                filled([function.arguments.as_deref(), function.name.as_deref()])
            });
            pieces.next()
        });
        let has_media = audio.is_some_and(|audio| audio.data.is_some());
        let mut view = match (text, call) {
            (Some(text), _) => TokenView::text(text),
            (None, Some(call)) => TokenView::tool_call(call),
            (None, None) if has_media => TokenView::media(),
            (None, None) => TokenView::other(),
        };
        view.finish = choice.and_then(|choice| choice.finish_reason).map(finish);
        view.usage = self.usage.as_ref().map(usage);
        view.model(&self.model).response_id(&self.id)
    }
}

/// Read as its first choice: the text or refusal, or else the first tool call.
impl Token for Viewed<CreateChatCompletionResponse> {
    const SENDS_FINISH: bool = true;

    fn view(&self) -> TokenView<'_> {
        let choice = self.choices.first();
        let message = choice.map(|choice| &choice.message);
        let spoken = message.and_then(|message| message.audio.as_ref());
        let text = message.and_then(|message| {
            filled([
                message.content.as_deref(),
                message.refusal.as_deref(),
                spoken.map(|audio| &*audio.transcript),
            ])
        });
        let call = message.and_then(|message| message.tool_calls.iter().flatten().next());
        let mut view = match (text, call) {
            (Some(text), _) => TokenView::text(text),
            (None, Some(ChatCompletionMessageToolCalls::Function(call))) => {
                TokenView::tool_call(&call.function.name)
            }
            (None, Some(ChatCompletionMessageToolCalls::Custom(call))) => {
                TokenView::tool_call(&call.custom_tool.name)
            }
            (None, None) if spoken.is_some() => TokenView::media(),
            (None, None) => TokenView::other(),
        };
        view.finish = choice.and_then(|choice| choice.finish_reason).map(finish);
        view.usage = self.usage.as_ref().map(usage);
        view.model(&self.model).response_id(&self.id)
    }
}

/// Returns the first of these texts that is present and not empty.
fn filled<const N: usize>(texts: [Option<&str>; N]) -> Option<&str> {
    texts.into_iter().flatten().find(|text| !text.is_empty())
}

const fn finish(reason: Reason) -> FinishReason {
    match reason {
        Reason::Stop => FinishReason::Stop,
        Reason::Length => FinishReason::Length,
        Reason::ToolCalls | Reason::FunctionCall => FinishReason::ToolCalls,
        Reason::ContentFilter => FinishReason::ContentFilter,
    }
}

fn usage(counts: &CompletionUsage) -> Usage {
    let prompt = counts.prompt_tokens_details.as_ref();
    let completion = counts.completion_tokens_details.as_ref();
    let mut usage = Usage::new()
        .input(counts.prompt_tokens.into())
        .output(counts.completion_tokens.into())
        .total(counts.total_tokens.into());
    usage.cached_input = prompt.and_then(|of| of.cached_tokens).map(u64::from);
    let written = prompt.and_then(|of| of.cache_write_tokens);
    usage.cache_write_input = written.and_then(|count| count.try_into().ok());
    usage.reasoning = completion.and_then(|of| of.reasoning_tokens).map(u64::from);
    normalize(usage)
}

#[cfg(test)]
mod tests {
    use l0_core::TokenKind;
    use serde_json::{Value, from_value, json};

    use super::*;

    fn chunk(delta: &Value) -> Viewed<CreateChatCompletionStreamResponse> {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": null });
        let chunk = json!({
            "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m-1",
            "choices": [choice],
        });
        Viewed::new(from_value(chunk).expect("a chunk"))
    }

    #[test]
    fn a_chunk_is_read_by_its_content() {
        let named =
            json!([{ "index": 0, "id": "i", "function": { "name": "f", "arguments": "" } }]);
        let whole = json!([{ "index": 0, "function": { "name": "f", "arguments": "{}" } }]);
        for (delta, kind, text) in [
            (json!({ "content": "a" }), TokenKind::Text, "a"),
            (
                json!({ "role": "assistant", "content": "" }),
                TokenKind::Other,
                "",
            ),
            (json!({ "refusal": "no" }), TokenKind::Text, "no"),
            (
                json!({ "content": "", "tool_calls": named }),
                TokenKind::ToolCall,
                "f",
            ),
            (
                json!({ "content": null, "tool_calls": whole }),
                TokenKind::ToolCall,
                "{}",
            ),
            (
                json!({ "content": "a", "tool_calls": whole }),
                TokenKind::Text,
                "a",
            ),
            (
                json!({ "function_call": { "name": "f" } }),
                TokenKind::ToolCall,
                "f",
            ),
            (
                json!({ "audio": { "transcript": "Hi" } }),
                TokenKind::Text,
                "Hi",
            ),
            (json!({ "audio": { "data": "AAA=" } }), TokenKind::Media, ""),
            (
                json!({ "audio": { "expires_at": 1 } }),
                TokenKind::Other,
                "",
            ),
        ] {
            let chunk = chunk(&delta);
            let view = chunk.view();
            assert_eq!((view.kind, view.text), (kind, text), "{delta}");
            assert_eq!((view.model, view.response_id), (Some("m-1"), Some("c")));
        }
    }

    #[test]
    fn finish_reasons_and_counts() {
        for (reason, read) in [
            (Reason::Stop, FinishReason::Stop),
            (Reason::Length, FinishReason::Length),
            (Reason::ToolCalls, FinishReason::ToolCalls),
            (Reason::FunctionCall, FinishReason::ToolCalls),
            (Reason::ContentFilter, FinishReason::ContentFilter),
        ] {
            assert_eq!(finish(reason), read);
        }
        // The total shows that the completion excludes the reasoning.
        let counts = from_value(json!({
            "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 9,
            "prompt_tokens_details": { "cached_tokens": 1 },
            "completion_tokens_details": { "reasoning_tokens": 4 },
        }));
        let read = Usage::new().input(3).output(6).total(9);
        let read = read.cached_input(1).reasoning(4);
        assert_eq!(usage(&counts.expect("counts")), read);
    }
}
