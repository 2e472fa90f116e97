//! Answers as providers send them, for measuring decoding.

use std::fmt::Write as _;

use crate::{ANSWER, TOKEN};

/// A provider's format, with one event around each token.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// The name of the format.
    pub name: &'static str,
    /// The part before a token's text, which is a JSON string.
    before: &'static str,
    after: &'static str,
    /// The events that end the answer.
    end: &'static str,
}

/// Chat Completions with OpenAI's framing: events of about 300 bytes.
pub const CHAT: Format = Format {
    name: "chat",
    before: concat!(
        r#"data: {"id":"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG","object":"chat.completion.chunk","#,
        r#""created":1741570283,"model":"gpt-4o-2024-08-06","service_tier":"default","#,
        r#""system_fingerprint":"fp_fc9f1d7035","choices":[{"index":0,"delta":{"content":"#,
    ),
    after: "},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n",
    end: concat!(
        r#"data: {"id":"","object":"chat.completion.chunk","created":0,"model":"m","choices":"#,
        "[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
    ),
};

/// OpenAI's Responses.
pub const RESPONSES: Format = Format {
    name: "responses",
    before: concat!(
        "event: response.output_text.delta\n",
        r#"data: {"type":"response.output_text.delta","content_index":0,"delta":"#,
    ),
    after: concat!(
        r#","item_id":"msg_68e5a3de5d3015560069e2f3f52bf8819297ebb188bfe644","logprobs":[],"#,
        "\"obfuscation\":\"05ZVu4jmqr2y9k\",\"output_index\":0,\"sequence_number\":6}\n\n",
    ),
    end: concat!(
        "event: response.completed\ndata: {\"type\":\"response.completed\",",
        "\"response\":{\"status\":\"completed\"}}\n\n",
    ),
};

/// Anthropic's Messages.
pub const ANTHROPIC: Format = Format {
    name: "anthropic",
    before: concat!(
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,",
        r#""delta":{"type":"text_delta","text":"#,
    ),
    after: "}}\n\n",
    end: concat!(
        "event: message_delta\ndata: {\"type\":\"message_delta\",",
        "\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    ),
};

/// Google's Gemini.
pub const GEMINI: Format = Format {
    name: "gemini",
    before: r#"data: {"candidates":[{"content":{"parts":[{"text":"#,
    after: concat!(
        r#"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":9,"#,
        r#""candidatesTokenCount":23,"totalTokenCount":32,"promptTokensDetails":"#,
        r#"[{"modality":"TEXT","tokenCount":9}]},"modelVersion":"gemini-2.5-pro","#,
        "\"responseId\":\"bH6LaZW8Fp_3nsEPqtaSwQ4\"}\r\n\r\n",
    ),
    end: "data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\r\n\r\n",
};

/// Ollama's native format, whose payloads are lines.
pub const OLLAMA: Format = Format {
    name: "ollama",
    before: concat!(
        r#"{"model":"llama3.2:3b","created_at":"2026-01-01T00:00:00.123456789Z","#,
        r#""message":{"role":"assistant","content":"#,
    ),
    after: "},\"done\":false}\n",
    end: "{\"model\":\"llama3.2:3b\",\"done\":true,\"done_reason\":\"stop\"}\n",
};

/// All formats.
pub const FORMATS: [Format; 5] = [CHAT, RESPONSES, ANTHROPIC, GEMINI, OLLAMA];

impl Format {
    /// Returns the events of [`ANSWER`], repeated for this many tokens of [`TOKEN`] bytes: one text for each
    /// token, and one for the end of the answer.
    ///
    /// # Panics
    ///
    /// Panics if [`ANSWER`] is not ASCII.
    pub fn events(self, tokens: usize) -> impl Iterator<Item = String> {
        let texts = ANSWER.as_bytes().chunks(TOKEN).cycle().take(tokens);
        let event = move |text: &[u8]| {
            let mut event = self.before.to_owned();
            event.push('"');
            for &byte in text {
                match byte {
                    b'\n' => event.push_str("\\n"),
                    b'"' | b'\\' => {
                        let _ = write!(event, "\\{}", char::from(byte));
                    }
                    byte => {
                        assert!(byte.is_ascii(), "the answer is ASCII");
                        event.push(char::from(byte));
                    }
                }
            }
            event.push('"');
            event.push_str(self.after);
            event
        };
        texts.map(event).chain([self.end.to_owned()])
    }
}
