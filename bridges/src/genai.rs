//! `genai`: the events of a chat stream, of any of its providers.
//!
//! ```no_run
//! use genai::Client;
//! use genai::chat::{ChatOptions, ChatRequest};
//! use l0_bridges::genai::view;
//! use l0_core::L0;
//!
//! # async fn example(l0: L0) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::default();
//! let options = ChatOptions::default().with_capture_usage(true);
//! let request = ChatRequest::from_user("What is a monad?");
//! let mut run = l0
//!     .stream(|_attempt| {
//!         let (client, request, options) = (client.clone(), request.clone(), options.clone());
//!         async move {
//!             let response = client.exec_chat_stream("gpt-4o-mini", request, Some(&options)).await?;
//!             Ok::<_, genai::Error>(response.stream)
//!         }
//!     })
//!     .view_with(view)
//!     .expect_finish()
//!     .start();
//! let answer = run.text().await?;
//! # Ok(())
//! # }
//! ```

use genai::chat::{ChatStreamEvent, StopReason, StreamEnd};
use l0_core::{FinishReason, TokenView, Usage};

use crate::usage::normalise;

/// What an event says. Token counts are there if they were asked for.
pub fn view(event: &ChatStreamEvent) -> TokenView<'_> {
    match event {
        ChatStreamEvent::Chunk(chunk) => TokenView::text(&chunk.content),
        ChatStreamEvent::ReasoningChunk(chunk) => TokenView::reasoning(&chunk.content),
        ChatStreamEvent::ToolCallChunk(chunk) => TokenView::tool_call(&chunk.tool_call.fn_name),
        ChatStreamEvent::End(end) => view_end(end),
        _ => TokenView::other(),
    }
}

fn view_end(end: &StreamEnd) -> TokenView<'_> {
    let mut view = TokenView::other().finish(match end.captured_stop_reason {
        Some(StopReason::Completed(_) | StopReason::StopSequence(_)) => FinishReason::Stop,
        Some(StopReason::MaxTokens(_)) => FinishReason::Length,
        Some(StopReason::ToolCall(_)) => FinishReason::ToolCalls,
        Some(StopReason::ContentFilter(_)) => FinishReason::ContentFilter,
        _ => FinishReason::Other,
    });
    let count = |count: Option<i32>| u64::try_from(count?).ok();
    view.usage = end.captured_usage.as_ref().map(|captured| {
        let prompt = captured.prompt_tokens_details.as_ref();
        let completion = captured.completion_tokens_details.as_ref();
        let mut usage = Usage::new();
        usage.input = count(captured.prompt_tokens);
        usage.output = count(captured.completion_tokens);
        usage.total = count(captured.total_tokens);
        usage.cached_input = count(prompt.and_then(|of| of.cached_tokens));
        usage.cache_write_input = count(prompt.and_then(|of| of.cache_creation_tokens));
        usage.reasoning = count(completion.and_then(|of| of.reasoning_tokens));
        normalise(usage)
    });
    view.response_id = end.captured_response_id.as_deref();
    view
}
