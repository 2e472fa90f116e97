//! Servers that speak Chat Completions, each with its own variations in streams and errors. All streams and errors are
//! synthetic, based on the servers' documentation and source code.
//!
//! `docs/sources.md` has the table of these servers. A test checks that it lists all of them.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::*;
use l0_core::{FailureKind, FinishReason, TokenKind, Usage};
use l0_providers::ProviderError;

/// A stream of a server.
struct Row {
    /// The name in the documentation.
    server: &'static str,
    variation: &'static str,
    stream: &'static str,
    text: &'static str,
    reasoning: &'static str,
    /// Names and arguments of the calls.
    calls: &'static [(&'static str, &'static str)],
    usage: Option<Usage>,
    finish: Option<FinishReason>,
    failure: Option<FailureKind>,
}

impl Row {
    /// A row whose stream has no content.
    const fn new(server: &'static str, variation: &'static str, stream: &'static str) -> Self {
        Self {
            server,
            variation,
            stream,
            text: "",
            reasoning: "",
            calls: &[],
            usage: None,
            finish: None,
            failure: None,
        }
    }
}

fn rows() -> Vec<Row> {
    let usage = |input, output| {
        Usage::new()
            .input(input)
            .output(output)
            .total(input + output)
    };
    vec![
        Row {
            text: "Hi",
            usage: Some(usage(9, 2).cached_input(0).reasoning(0)),
            finish: Some(FinishReason::Stop),
            ..Row::new(
                "Azure OpenAI",
                "a first chunk without choices, with the filters' results for the prompt",
                r#"data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"},"jailbreak":{"filtered":false,"detected":false}}}]}

data: {"choices":[{"content_filter_results":{},"delta":{"content":"","refusal":null,"role":"assistant"},"finish_reason":null,"index":0,"logprobs":null}],"created":1,"id":"chatcmpl-1","model":"gpt-4o-2024-11-20","object":"chat.completion.chunk","obfuscation":"x","system_fingerprint":"fp_1","usage":null}

data: {"choices":[{"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}},"delta":{"content":"Hi"},"finish_reason":null,"index":0}],"id":"chatcmpl-1","model":"gpt-4o-2024-11-20","usage":null}

data: {"choices":[{"content_filter_results":{},"delta":{},"finish_reason":"stop","index":0}],"id":"chatcmpl-1","model":"gpt-4o-2024-11-20","usage":null}

data: {"choices":[],"id":"chatcmpl-1","model":"gpt-4o-2024-11-20","usage":{"completion_tokens":2,"completion_tokens_details":{"accepted_prediction_tokens":0,"audio_tokens":0,"reasoning_tokens":0,"rejected_prediction_tokens":0},"prompt_tokens":9,"prompt_tokens_details":{"audio_tokens":0,"cached_tokens":0},"total_tokens":11}}

data: [DONE]

"#,
            )
        },
        Row {
            text: "Hi",
            finish: Some(FinishReason::ContentFilter),
            ..Row::new(
                "Azure OpenAI",
                "asynchronous filters: chunks with offsets instead of a delta, and a filtered end",
                r#"data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":null,"index":0}],"model":"gpt-4o"}

data: {"choices":[{"content_filter_offsets":{"check_offset":44,"start_offset":44,"end_offset":198},"content_filter_results":{"hate":{"filtered":true,"severity":"high"}},"finish_reason":null,"index":0}]}

data: {"choices":[{"content_filter_offsets":{"check_offset":506},"content_filter_results":{},"delta":{},"finish_reason":"content_filter","index":0}]}

data: [DONE]

"#,
            )
        },
        Row {
            text: "Hi",
            reasoning: "Hm.",
            usage: Some(usage(8, 6).cached_input(0).reasoning(3)),
            finish: Some(FinishReason::Stop),
            ..Row::new(
                "OpenRouter",
                "comments while it waits; reasoning sent twice; the cost in `usage`",
                r#": OPENROUTER PROCESSING

: OPENROUTER PROCESSING

data: {"id":"gen-1","provider":"Fireworks","model":"deepseek/deepseek-r1","object":"chat.completion.chunk","created":1,"choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning":"Hm.","reasoning_details":[{"type":"reasoning.text","text":"Hm.","format":"unknown","index":0}]},"finish_reason":null,"native_finish_reason":null,"logprobs":null}]}

: OPENROUTER PROCESSING

data: {"id":"gen-1","provider":"Fireworks","model":"deepseek/deepseek-r1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi","reasoning":null},"finish_reason":null,"native_finish_reason":null}]}

data: {"id":"gen-1","provider":"Fireworks","model":"deepseek/deepseek-r1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"stop","native_finish_reason":"end_turn"}]}

data: {"id":"gen-1","provider":"Fireworks","model":"deepseek/deepseek-r1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null,"native_finish_reason":null}],"usage":{"prompt_tokens":8,"completion_tokens":6,"total_tokens":14,"cost":0.0000315,"is_byok":false,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"cost_details":{"upstream_inference_cost":null,"upstream_inference_prompt_cost":0.000004,"upstream_inference_completions_cost":0.0000275},"completion_tokens_details":{"reasoning_tokens":3,"image_tokens":0}}}

data: [DONE]

"#,
            )
        },
        Row {
            text: "Hi",
            failure: Some(FailureKind::Server),
            ..Row::new(
                "OpenRouter",
                "an error in mid-stream, next to a choice that ends with it",
                r#"data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}

data: {"id":"gen-1","object":"chat.completion.chunk","created":1,"model":"m","provider":"Fireworks","error":{"code":502,"message":"Provider disconnected unexpectedly","metadata":{"provider_name":"Fireworks"}},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error","native_finish_reason":null}]}

data: [DONE]

"#,
            )
        },
        Row {
            failure: Some(FailureKind::RateLimited),
            ..Row::new(
                "OpenRouter",
                "a rate limit of the underlying provider, in mid-stream",
                r#"data: {"id":"gen-1","object":"chat.completion.chunk","error":{"code":"rate_limit_exceeded","message":"Rate limit exceeded"},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}

"#,
            )
        },
        Row {
            text: "Hi",
            usage: Some(usage(45, 2)),
            finish: Some(FinishReason::Stop),
            ..Row::new(
                "Groq",
                "the counts in `x_groq`, without a request for them",
                r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"llama-3.3-70b-versatile","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"x_groq":{"id":"req_1","seed":7}}

data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}

data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"x_groq":{"id":"req_1","usage":{"queue_time":0.05,"prompt_tokens":45,"prompt_time":0.004,"completion_tokens":2,"completion_time":0.01,"total_tokens":47,"total_time":0.014}}}

data: [DONE]

"#,
            )
        },
        Row {
            reasoning: "We need to call",
            failure: Some(FailureKind::Fatal),
            ..Row::new(
                "Groq",
                "an event `error` after an invalid tool call of the model",
                r#"data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"reasoning":"We need to call","channel":"analysis"},"finish_reason":null}]}

event: error
data: {"error":{"message":"Tool call validation failed","type":"invalid_request_error","code":"tool_use_failed","failed_generation":"{}","status_code":400}}

"#,
            )
        },
        Row {
            text: "Hi",
            reasoning: "Hm.",
            usage: Some(usage(12, 8).cached_input(10).reasoning(5)),
            finish: Some(FinishReason::Stop),
            ..Row::new(
                "DeepSeek",
                "`reasoning_content`, comments that keep the connection open, cache hits and misses",
                r#": keep-alive

data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"deepseek-reasoner","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"role":"assistant","content":null,"reasoning_content":"Hm."},"logprobs":null,"finish_reason":null}]}

: keep-alive

data: {"id":"1","choices":[{"index":0,"delta":{"content":"Hi","reasoning_content":null},"logprobs":null,"finish_reason":null}]}

data: {"id":"1","choices":[{"index":0,"delta":{"content":"","reasoning_content":null},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":8,"total_tokens":20,"prompt_tokens_details":{"cached_tokens":10},"completion_tokens_details":{"reasoning_tokens":5},"prompt_cache_hit_tokens":10,"prompt_cache_miss_tokens":2}}

data: [DONE]

"#,
            )
        },
        Row {
            text: "Hi",
            failure: Some(FailureKind::Server),
            ..Row::new(
                "DeepSeek",
                "a finish reason that reports missing capacity",
                r#"data: {"id":"1","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}

data: {"id":"1","choices":[{"index":0,"delta":{"content":""},"finish_reason":"insufficient_system_resource"}]}

data: [DONE]

"#,
            )
        },
        Row {
            text: "Hi",
            reasoning: "Hm.",
            // 9 + 2 + 310 = 321.
            usage: Some(usage(9, 312).cached_input(4).reasoning(310)),
            finish: Some(FinishReason::Stop),
            ..Row::new(
                "xAI",
                "reasoning next to the output, according to the total",
                r#"data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"grok-3-mini","choices":[{"index":0,"delta":{"role":"assistant","reasoning_content":"Hm."}}],"system_fingerprint":"fp_1"}

data: {"id":"1","choices":[{"index":0,"delta":{"content":"Hi","role":"assistant"}}]}

data: {"id":"1","choices":[{"index":0,"delta":{"content":"","role":"assistant"},"finish_reason":"stop"}]}

data: {"id":"1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":321,"prompt_tokens_details":{"text_tokens":9,"audio_tokens":0,"image_tokens":0,"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":310,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0},"num_sources_used":0,"cost_in_usd_ticks":1590000}}

data: [DONE]

"#,
            )
        },
        Row {
            text: "Hi there",
            reasoning: "Hm. So.",
            usage: Some(usage(10, 7)),
            finish: Some(FinishReason::Length),
            ..Row::new(
                "Mistral",
                "a list as content, thinking as a part of it, a finish reason `model_length`",
                r#"data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"magistral-medium-latest","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}

data: {"id":"1","choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"Hm."}]}]},"finish_reason":null}],"p":"abc"}

data: {"id":"1","choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":" So."}],"closed":true},{"type":"text","text":"Hi"}]},"finish_reason":null}]}

data: {"id":"1","choices":[{"index":0,"delta":{"content":" there"},"finish_reason":"model_length"}],"usage":{"prompt_tokens":10,"total_tokens":17,"completion_tokens":7}}

data: [DONE]

"#,
            )
        },
        Row {
            calls: &[("get_weather", r#"{"city": "Bern"}"#)],
            usage: Some(usage(60, 9).cached_input(32)),
            finish: Some(FinishReason::ToolCalls),
            ..Row::new(
                "Mistral",
                "a whole tool call in one chunk, next to its finish reason",
                r#"data: {"id":"1","model":"mistral-small-latest","choices":[{"index":0,"delta":{"content":"","tool_calls":[{"id":"D681PevKs","function":{"name":"get_weather","arguments":"{\"city\": \"Bern\"}"},"index":0}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":60,"total_tokens":69,"completion_tokens":9,"num_cached_tokens":32}}

data: [DONE]

"#,
            )
        },
        Row {
            text: "Hi",
            failure: Some(FailureKind::Server),
            ..Row::new(
                "Mistral",
                "a finish reason `error`",
                r#"data: {"id":"1","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"error"}]}

data: [DONE]

"#,
            )
        },
        Row {
            text: "Hi",
            reasoning: "Hm. So.",
            usage: Some(usage(11, 4)),
            finish: Some(FinishReason::Stop),
            ..Row::new(
                "vLLM",
                "`reasoning`, or `reasoning_content` before it, or both; counts that grow with each chunk",
                r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"Qwen/Qwen3-8B","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null,"usage":{"prompt_tokens":11,"total_tokens":11,"completion_tokens":0}}

data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"reasoning":"Hm.","reasoning_content":"Hm."},"finish_reason":null,"token_ids":null}],"usage":{"prompt_tokens":11,"total_tokens":12,"completion_tokens":1}}

data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"reasoning_content":" So."},"finish_reason":null}],"usage":{"prompt_tokens":11,"total_tokens":13,"completion_tokens":2}}

data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}],"usage":{"prompt_tokens":11,"total_tokens":14,"completion_tokens":3}}

data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop","stop_reason":null}],"usage":{"prompt_tokens":11,"total_tokens":15,"completion_tokens":4}}

data: {"id":"chatcmpl-1","choices":[],"usage":{"prompt_tokens":11,"total_tokens":15,"completion_tokens":4,"prompt_tokens_details":null}}

data: [DONE]

"#,
            )
        },
        Row {
            text: "Hi",
            failure: Some(FailureKind::Server),
            ..Row::new(
                "vLLM",
                "an error in mid-stream, followed by the end mark",
                r#"data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}

data: {"error":{"message":"EngineCore encountered an issue","type":"InternalServerError","param":null,"code":500}}

data: [DONE]

"#,
            )
        },
        Row {
            failure: Some(FailureKind::Fatal),
            ..Row::new(
                "vLLM",
                "an error of older versions: the payload itself",
                r#"data: {"object":"error","message":"the prompt is too long","type":"BadRequestError","param":null,"code":400}

data: [DONE]

"#,
            )
        },
        Row {
            text: "Hi",
            failure: Some(FailureKind::Server),
            ..Row::new(
                "vLLM",
                "a finish reason `abort` after the engine gave up the request",
                r#"data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"abort"}]}

data: [DONE]

"#,
            )
        },
        Row {
            text: "Hi",
            reasoning: "Hm.",
            usage: Some(usage(23, 5).cached_input(20)),
            finish: Some(FinishReason::Stop),
            ..Row::new(
                "llama.cpp",
                "`timings` next to the counts, and a first delta whose content is null",
                r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"created":1,"id":"chatcmpl-1","model":"gpt-oss-20b","system_fingerprint":"b6000-1","object":"chat.completion.chunk"}

data: {"choices":[{"finish_reason":null,"index":0,"delta":{"reasoning_content":"Hm."}}],"id":"chatcmpl-1"}

data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"Hi"}}],"id":"chatcmpl-1"}

data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],"id":"chatcmpl-1"}

data: {"choices":[],"id":"chatcmpl-1","usage":{"completion_tokens":5,"prompt_tokens":23,"total_tokens":28,"prompt_tokens_details":{"cached_tokens":20}},"timings":{"cache_n":20,"prompt_n":3,"prompt_ms":41.2,"prompt_per_token_ms":13.7,"prompt_per_second":72.8,"predicted_n":5,"predicted_ms":88.1,"predicted_per_token_ms":17.6,"predicted_per_second":56.7}}

data: [DONE]

"#,
            )
        },
        Row {
            text: "Hi",
            failure: Some(FailureKind::Server),
            ..Row::new(
                "llama.cpp",
                "an error in mid-stream, in an event's data",
                r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"Hi"}}]}

data: {"error":{"code":500,"message":"Compute error.","type":"server_error"}}

"#,
            )
        },
        Row {
            failure: Some(FailureKind::Fatal),
            ..Row::new(
                "llama.cpp",
                "an error of older versions: in a field `error`, before the end mark",
                r#"error: {"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error","n_prompt_tokens":5000,"n_ctx":4096}

data: [DONE]

"#,
            )
        },
        Row {
            text: "Hi",
            reasoning: "Hm.",
            calls: &[("f", "{}"), ("g", "{}")],
            usage: Some(usage(26, 9)),
            finish: Some(FinishReason::ToolCalls),
            ..Row::new(
                "Ollama (`/v1`)",
                "`reasoning`, and calls that are all numbered 0",
                r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"qwen3","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning":"Hm."},"finish_reason":null}]}

data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}]}

data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"role":"assistant","content":"","tool_calls":[{"id":"call_1","index":0,"type":"function","function":{"name":"f","arguments":"{}"}}]},"finish_reason":null}]}

data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"role":"assistant","content":"","tool_calls":[{"id":"call_2","index":0,"type":"function","function":{"name":"g","arguments":"{}"}}]},"finish_reason":null}]}

data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"tool_calls"}]}

data: {"id":"chatcmpl-1","choices":[],"usage":{"prompt_tokens":26,"completion_tokens":9,"total_tokens":35}}

data: [DONE]

"#,
            )
        },
    ]
}

#[test]
fn every_server_is_read() {
    for row in rows() {
        let name = format!("{}: {}", row.server, row.variation);
        let whole = CHAT.decode(row.stream);
        let bytes = CHAT.chunks(by_bytes(row.stream.as_bytes()));
        assert!(same(&whole, &bytes), "{name}");
        let (tokens, error) = whole;

        let of = |kind: TokenKind| {
            let of_kind = tokens.iter().filter(|token| token.kind == kind);
            of_kind.map(|token| &*token.text).collect::<String>()
        };
        assert_eq!(of(TokenKind::Text), row.text, "{name}");
        assert_eq!(of(TokenKind::Reasoning), row.reasoning, "{name}");
        let mut calls = l0_providers::ToolCalls::new();
        for token in &tokens {
            calls.push(token).unwrap();
        }
        let calls = calls.finish();
        let calls: Vec<_> = calls
            .iter()
            .map(|call| (&*call.name, &*call.arguments))
            .collect();
        assert_eq!(calls, row.calls, "{name}");
        let usage = tokens.iter().filter_map(|token| token.usage).next_back();
        assert_eq!(usage, row.usage, "{name}");
        let finish: Vec<_> = tokens.iter().filter_map(|token| token.finish).collect();
        assert_eq!(finish, Vec::from_iter(row.finish), "{name}");
        let failure = error.map(|error| match error {
            ProviderError::Api(error) => error.failure().kind,
            error => panic!("{name}: {error:?}"),
        });
        assert_eq!(failure, row.failure, "{name}");
    }
}

#[test]
fn the_documents_list_every_server() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sources.md");
    let page = std::fs::read_to_string(page).unwrap();
    for row in rows() {
        let cell = format!("| {} |", row.server);
        assert!(page.lines().any(|line| line.starts_with(&cell)), "{cell}");
    }
}

/// Error responses of each server.
#[cfg(feature = "reqwest")]
mod refusals {
    use std::time::Duration;

    use super::common::server::{answer, server};
    use l0_core::FailureKind::{Fatal, RateLimited, Server};
    use l0_providers::ProviderError;
    use l0_providers::openai::{ChatRequest, Client};

    #[tokio::test]
    async fn errors_of_every_server_are_read() {
        for (name, head, body, kind, wait) in [
            (
                "Azure OpenAI: the deployment's limit",
                "429 Too Many Requests\r\nretry-after: 26\r\nretry-after-ms: 25500",
                r#"{"error":{"code":"429","message":"Requests have exceeded token rate limit. Please retry after 26 seconds."}}"#,
                RateLimited,
                Some(25_500),
            ),
            (
                "Azure OpenAI: a filtered prompt",
                "400 Bad Request",
                r#"{"error":{"message":"The response was filtered","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation","content_filter_result":{"jailbreak":{"filtered":true,"detected":true}}}}}"#,
                Fatal,
                None,
            ),
            (
                "Azure OpenAI: no such deployment",
                "404 Not Found",
                r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#,
                Fatal,
                None,
            ),
            (
                "OpenRouter: no credit",
                "402 Payment Required",
                r#"{"error":{"message":"This request requires more credits","code":402},"user_id":"u"}"#,
                Fatal,
                None,
            ),
            (
                "OpenRouter: a rate limit of the underlying provider",
                "429 Too Many Requests",
                r#"{"error":{"message":"Provider returned error","code":429,"metadata":{"raw":"the model is temporarily rate-limited upstream","provider_name":"Chutes","headers":{"X-RateLimit-Limit":"20","Retry-After":"7"}}},"user_id":"u"}"#,
                RateLimited,
                Some(7_000),
            ),
            (
                "OpenRouter: the underlying provider fails",
                "502 Bad Gateway",
                r#"{"error":{"message":"Provider returned error","code":502,"metadata":{"provider_name":"Chutes"}}}"#,
                Server,
                None,
            ),
            (
                "Groq: tokens per minute, with the delay in the message",
                "429 Too Many Requests",
                r#"{"error":{"message":"Rate limit reached for model `m` on tokens per minute (TPM): Limit 6000, Used 5900. Please try again in 7.66s.","type":"tokens","code":"rate_limit_exceeded"}}"#,
                RateLimited,
                Some(7_660),
            ),
            (
                "Groq: no capacity in the flex tier",
                "498 Capacity",
                r#"{"error":{"message":"capacity exceeded","type":"capacity_exceeded","code":"capacity_exceeded"}}"#,
                Server,
                None,
            ),
            (
                "DeepSeek: no balance",
                "402 Payment Required",
                r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}"#,
                Fatal,
                None,
            ),
            (
                "DeepSeek: overloaded",
                "503 Service Unavailable",
                r#"{"error":{"message":"Service is too busy.","type":"service_unavailable_error","param":null,"code":"service_unavailable_error"}}"#,
                Server,
                None,
            ),
            (
                "xAI: a code next to a text",
                "400 Bad Request",
                r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided"}"#,
                Fatal,
                None,
            ),
            (
                "xAI: a rate limit",
                "429 Too Many Requests",
                r#"{"code":"Some resource has been exhausted","error":"Too many requests for this team"}"#,
                RateLimited,
                None,
            ),
            (
                "Mistral: a rate limit",
                "429 Too Many Requests",
                r#"{"object":"error","message":"Service tier capacity exceeded for this model.","type":"service_tier_capacity_exceeded","param":null,"code":"3505"}"#,
                RateLimited,
                None,
            ),
            (
                "Mistral: an invalid field",
                "422 Unprocessable Entity",
                r#"{"object":"error","message":{"detail":[{"type":"missing","loc":["body","messages"],"msg":"Field required"}]},"type":"invalid_request_error","param":null,"code":null}"#,
                Fatal,
                None,
            ),
            (
                "Mistral: an invalid key",
                "401 Unauthorized",
                r#"{"detail":"Unauthorized"}"#,
                Fatal,
                None,
            ),
            (
                "vLLM: a prompt that is too long",
                "400 Bad Request",
                r#"{"error":{"message":"This model's maximum context length is 4096 tokens.","type":"BadRequestError","param":null,"code":400}}"#,
                Fatal,
                None,
            ),
            (
                "vLLM: no such model",
                "404 Not Found",
                r#"{"error":{"message":"The model `m` does not exist.","type":"NotFoundError","param":"model","code":404}}"#,
                Fatal,
                None,
            ),
            (
                "llama.cpp: the model is loading",
                "503 Service Unavailable",
                r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#,
                Server,
                None,
            ),
            (
                "llama.cpp: a prompt that is too long",
                "400 Bad Request",
                r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error","n_prompt_tokens":5000,"n_ctx":4096}}"#,
                Fatal,
                None,
            ),
            (
                "Ollama (`/v1`): no such model",
                "404 Not Found",
                r#"{"error":{"message":"model \"m\" not found, try pulling it first","type":"not_found_error","param":null,"code":null}}"#,
                Fatal,
                None,
            ),
        ] {
            let head = format!("{head}\r\ncontent-type: application/json");
            let (url, _requests) = server(answer(&head, body)).await;
            let client = Client::new(&url).unwrap();
            let error = client
                .chat_stream(&ChatRequest::new("m"))
                .await
                .unwrap_err();
            let ProviderError::Api(error) = error else {
                panic!("{name}: {error:?}")
            };
            assert_eq!(error.failure().kind, kind, "{name}: {error:?}");
            let wait = wait.map(Duration::from_millis);
            assert_eq!(error.retry_after(), wait, "{name}: {error:?}");
        }
    }

    #[tokio::test]
    async fn azures_address_and_key_have_its_own_form() {
        let (url, mut requests) = server(answer("500 No", "")).await;
        let url = url.replace("/v1", "");
        let request = ChatRequest::new("gpt-4o").user("hi");
        for (base, path) in [
            (
                "/openai/deployments/d?api-version=2024-10-21",
                "/openai/deployments/d/chat/completions?api-version=2024-10-21",
            ),
            ("/openai/v1", "/openai/v1/chat/completions"),
        ] {
            let client = Client::new(&format!("{url}{base}")).unwrap();
            let client = client.header("api-key", "a-canary-key").unwrap();
            assert!(!format!("{client:?}").contains("canary"));
            assert!(client.chat_stream(&request).await.is_err());
            let sent = requests.recv().await.unwrap();
            assert!(sent.starts_with(&format!("POST {path} HTTP/1.1")), "{sent}");
            let head = sent.to_ascii_lowercase();
            assert!(head.contains("\r\napi-key: a-canary-key\r\n"), "{sent}");
            assert!(!head.contains("\r\nauthorization:"), "{sent}");
        }
    }
}
