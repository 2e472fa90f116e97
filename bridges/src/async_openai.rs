//! `async-openai`: chat completions, and its errors.
//!
//! ```no_run
//! use async_openai::Client;
//! use async_openai::types::chat::CreateChatCompletionRequest;
//! use l0_bridges::async_openai::{failure, view};
//! use l0_core::L0;
//!
//! # async fn example(l0: L0, request: CreateChatCompletionRequest) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new();
//! let mut run = l0
//!     .stream(|_attempt| {
//!         let (client, request) = (client.clone(), request.clone());
//!         async move { client.chat().create_stream(request).await }
//!     })
//!     .view_with(view)
//!     .classify(failure)
//!     .expect_finish()
//!     .start();
//! let answer = run.text().await?;
//! # Ok(())
//! # }
//! ```

use async_openai::error::OpenAIError;
use async_openai::types::chat::{CreateChatCompletionStreamResponse, FinishReason as Reason};
use l0_core::{Failure, FinishReason, TokenView, Usage};

use crate::usage::normalise;

/// What a chunk says, of its first choice.
pub fn view(chunk: &CreateChatCompletionStreamResponse) -> TokenView<'_> {
    let choice = chunk.choices.first();
    let delta = choice.map(|choice| &choice.delta);
    let call = delta.and_then(|delta| delta.tool_calls.as_ref()?.first()?.function.as_ref());
    let audio = delta.and_then(|delta| delta.audio.as_ref());
    let spoken = audio.and_then(|audio| audio.transcript.as_ref());
    let text = delta.and_then(|delta| delta.content.as_ref().or(delta.refusal.as_ref()));
    let mut view = match (call, text.or(spoken)) {
        (Some(call), _) => {
            let text = call.name.as_ref().or(call.arguments.as_ref());
            TokenView::tool_call(text.map_or("", String::as_str))
        }
        (None, Some(text)) => TokenView::text(text),
        (None, None) if audio.is_some_and(|audio| audio.data.is_some()) => TokenView::media(),
        (None, None) => TokenView::other(),
    };
    view.finish = choice
        .and_then(|choice| choice.finish_reason)
        .map(|reason| match reason {
            Reason::Stop => FinishReason::Stop,
            Reason::Length => FinishReason::Length,
            Reason::ToolCalls | Reason::FunctionCall => FinishReason::ToolCalls,
            Reason::ContentFilter => FinishReason::ContentFilter,
        });
    view.usage = chunk.usage.as_ref().map(|counts| {
        let prompt = counts.prompt_tokens_details.as_ref();
        let completion = counts.completion_tokens_details.as_ref();
        let mut usage = Usage::new()
            .input(counts.prompt_tokens.into())
            .output(counts.completion_tokens.into())
            .total(counts.total_tokens.into());
        usage.cached_input = prompt.and_then(|of| of.cached_tokens).map(u64::from);
        usage.reasoning = completion.and_then(|of| of.reasoning_tokens).map(u64::from);
        normalise(usage)
    });
    view.model(&chunk.model).response_id(&chunk.id)
}

/// What an error means for a run, where only its status says so.
pub fn failure(error: &OpenAIError) -> Option<Failure> {
    match error {
        OpenAIError::ApiError(response) => Some(Failure::status(response.status_code.as_u16())),
        _ => None,
    }
}
