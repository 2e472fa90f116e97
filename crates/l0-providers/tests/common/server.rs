//! A server on the loopback interface that returns one answer, and the clients of all providers' APIs.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use l0_providers::{ProviderError, ProviderStream, anthropic, gemini, ollama, openai};
use reqwest::Response;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{ANTHROPIC, CHAT, Dialect, GEMINI, OLLAMA, RESPONSES};

/// Answers each connection with the same bytes, then closes it. Returns its address and a receiver of the requests.
pub(crate) async fn server(
    answer: impl Into<Vec<u8>>,
) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let answer = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                let count = socket.read(&mut buffer).await.unwrap();
                request.extend_from_slice(&buffer[..count]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                    let length = head.lines().find_map(|line| {
                        let (name, value) = line.split_once(':')?;
                        name.eq_ignore_ascii_case("content-length")
                            .then(|| value.trim())
                    });
                    body.len() >= length.map_or(0, |length| length.parse().unwrap())
                });
                if whole || count == 0 {
                    let _ = sender.send(text);
                    break;
                }
            }
            let _ = socket.write_all(&answer).await;
        }
    });
    (address, receiver)
}

pub(crate) fn answer(head: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) fn streamed(body: &str) -> String {
    answer("200 OK\r\ncontent-type: text/event-stream", body)
}

pub(crate) const KEY: &str = "a-canary-key";

pub(crate) type Opened = BoxFuture<'static, Result<ProviderStream, ProviderError<reqwest::Error>>>;

/// A provider's API: how its client sends, and how a response to your own request is read.
#[derive(Clone, Copy)]
pub(crate) struct Api {
    pub(crate) dialect: Dialect,
    /// The path of the address, before the part that the client appends.
    pub(crate) base: &'static str,
    /// Sends a prompt to the API at this address, with [`KEY`].
    pub(crate) ask: fn(base_url: &str, prompt: &str) -> Opened,
    pub(crate) from_response: fn(Response) -> Opened,
}

fn openai(base_url: &str) -> openai::Client {
    let client = openai::Client::new(base_url).unwrap();
    client.api_key(KEY).unwrap()
}

/// Its streams are lines, unlike those of [`APIS`].
pub(crate) const OLLAMA_API: Api = Api {
    dialect: OLLAMA,
    base: "",
    ask: |base_url, prompt| {
        let client = ollama::Client::new(base_url).unwrap();
        let client = client.api_key(KEY).unwrap();
        let messages = json!([{"role": "user", "content": prompt}]);
        let request = json!({"model": "m", "messages": messages});
        client.chat_stream(&request).boxed()
    },
    from_response: |response| ollama::from_response(response).boxed(),
};

/// The APIs whose streams are events.
pub(crate) const APIS: [Api; 4] = [
    Api {
        dialect: CHAT,
        base: "/v1",
        ask: |base_url, prompt| {
            let request = openai::ChatRequest::new("m").user(prompt);
            openai(base_url).chat_stream(&request).boxed()
        },
        from_response: |response| openai::from_response(response).boxed(),
    },
    Api {
        dialect: RESPONSES,
        base: "/v1",
        ask: |base_url, prompt| {
            let request = json!({"model": "m", "input": prompt});
            openai(base_url).responses_stream(&request).boxed()
        },
        from_response: |response| openai::responses::from_response(response).boxed(),
    },
    Api {
        dialect: ANTHROPIC,
        base: "",
        ask: |base_url, prompt| {
            let client = anthropic::Client::new(base_url).unwrap();
            let client = client.api_key(KEY).unwrap();
            let messages = json!([{"role": "user", "content": prompt}]);
            let request = json!({"model": "m", "max_tokens": 99, "messages": messages});
            client.messages_stream(&request).boxed()
        },
        from_response: |response| anthropic::from_response(response).boxed(),
    },
    Api {
        dialect: GEMINI,
        base: "",
        ask: |base_url, prompt| {
            let client = gemini::Client::new(base_url).unwrap();
            let client = client.api_key(KEY).unwrap();
            let request = json!({"contents": [{"role": "user", "parts": [{"text": prompt}]}]});
            client.generate_content_stream("m", &request).boxed()
        },
        from_response: |response| gemini::from_response(response).boxed(),
    },
];
