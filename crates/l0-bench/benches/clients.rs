//! Measures an answer from the socket to its last token with common clients, alone and run through L0.
//!
//! All rows read the same answer from the same server, which has it ready. Rows take turns, so other load on
//! the machine affects all of them; the median of each is reported.
//!
//! ```console
//! $ cargo bench -p l0-bench --bench clients
//! ```
#![allow(clippy::print_stdout, reason = "prints a table")]

use std::fmt::Debug;
use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use async_openai::config::OpenAIConfig;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessage, CreateChatCompletionRequestArgs,
};
use futures_util::future::LocalBoxFuture;
use futures_util::{Stream, StreamExt};
use genai::adapter::AdapterKind;
use genai::resolver::{AuthData, Endpoint};
use genai::{ModelIden, ServiceTarget};
use l0_bench::{ANSWER, TOKEN};
use l0_core::{L0, Monitoring, Retry};
use l0_providers::openai::{self, ChatRequest, Client};
use rig_core::completion::CompletionRequest;
use tokio::runtime::Builder;

const TOKENS: usize = 1_000;
const ROUNDS: usize = 25;
const QUESTION: &str = "What is a token stream?";

/// Returns an answer as OpenAI sends it, in tokens of [`TOKEN`] bytes.
fn answer() -> Vec<u8> {
    const HEAD: &str = r#"data: {"id":"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG","object":"chat.completion.chunk","created":1741570283,"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_fc9f1d7035","choices":[{"index":0,"delta":"#;
    let mut body = String::new();
    let mut event = |delta: &str, reason: &str| {
        body.push_str(HEAD);
        body.push_str(delta);
        body.push_str(",\"logprobs\":null,\"finish_reason\":");
        body.push_str(reason);
        body.push_str("}],\"usage\":null}\n\n");
    };
    event(r#"{"role":"assistant","content":""}"#, "null");
    for text in ANSWER.as_bytes().chunks(TOKEN).cycle().take(TOKENS) {
        let text = std::str::from_utf8(text).expect("ASCII");
        let text = serde_json::to_string(text).expect("a string");
        event(&format!("{{\"content\":{text}}}"), "null");
    }
    event("{}", "\"stop\"");
    body.push_str("data: [DONE]\n\n");
    body.into_bytes()
}

/// Answers each request with the same body, on loopback, until the program ends.
fn serve(body: Vec<u8>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let body = Arc::new(body);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let body = Arc::clone(&body);
            thread::spawn(move || respond(&socket, &body));
        }
    });
    Ok(address)
}

fn respond(mut socket: &TcpStream, body: &[u8]) -> io::Result<()> {
    let mut request = BufReader::new(socket);
    loop {
        let mut length = 0;
        let mut line = String::new();
        while request.read_line(&mut line)? > 2 {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or_default();
            }
            line.clear();
        }
        if line.is_empty() {
            return Ok(());
        }
        io::copy(&mut request.by_ref().take(length), &mut io::sink())?;
        write!(
            socket,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )?;
        socket.write_all(body)?;
    }
}

/// Reads a stream to its end, and returns the number of its items.
async fn count<T, E: Debug>(stream: impl Stream<Item = Result<T, E>>) -> usize {
    let mut stream = std::pin::pin!(stream);
    let mut items = 0;
    while let Some(item) = stream.next().await {
        black_box(item.expect("the server has no faults"));
        items += 1;
    }
    items
}

/// Reads the answer, and returns its number of items.
type Row<'a> = Box<dyn Fn() -> LocalBoxFuture<'a, usize> + 'a>;

fn row<'a, F>(read: impl Fn() -> F + 'a) -> Row<'a>
where
    F: Future<Output = usize> + 'a,
{
    Box::new(move || Box::pin(read()))
}

fn main() {
    let address = serve(answer()).expect("a free port");
    let url = format!("http://{address}/v1");
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::none())
        .build();

    let http = reqwest::Client::new();
    let provider = Client::new(&url).expect("an address");
    let provider = provider.api_key("k").expect("a key");
    let asked = ChatRequest::new("gpt-4o").user(QUESTION);

    let config = || OpenAIConfig::new().with_api_base(&url).with_api_key("k");
    let async_openai = async_openai::Client::with_config(config());
    let observed = l0_async_openai::Client::with_config(config());
    let message = ChatCompletionRequestUserMessage::from(QUESTION);
    let typed = CreateChatCompletionRequestArgs::default()
        .model("gpt-4o")
        .messages([message.into()])
        .build()
        .expect("a request");

    let genai = genai::Client::new().expect("a client");
    let target = || ServiceTarget {
        endpoint: Endpoint::from_owned(format!("{url}/")),
        auth: AuthData::from_single("k"),
        model: ModelIden::new(AdapterKind::OpenAI, "gpt-4o"),
    };
    let chat = || genai::chat::ChatRequest::from_user(QUESTION);

    let config = rig_core::providers::openai::OpenAIConfig::new("k").with_base_url(&url);
    let rig = config.client().chat("gpt-4o").erase();
    let completion = || CompletionRequest::new(QUESTION);

    let post = async || {
        let request = http.post(format!("{url}/chat/completions")).body("{}");
        request.send().await.expect("a response")
    };
    let rows: [(&str, Row<'_>); 9] = [
        (
            "reqwest, bytes only",
            row(async || count(post().await.bytes_stream()).await),
        ),
        (
            "l0-providers",
            row(async || count(openai::from_response(post().await).await.expect("a stream")).await),
        ),
        (
            "l0-providers through L0",
            row(async || count(l0.stream_from(provider.chat(&asked)).start()).await),
        ),
        (
            "async-openai",
            row(async || {
                let stream = async_openai.chat().create_stream(typed.clone()).await;
                count(stream.expect("a stream")).await
            }),
        ),
        (
            "async-openai through L0",
            row(async || {
                let source = l0_async_openai::chat(&observed, typed.clone());
                count(l0.stream_from(source).start()).await
            }),
        ),
        (
            "genai",
            row(async || {
                let response = genai.exec_chat_stream(target(), chat(), None).await;
                count(response.expect("a stream").stream).await
            }),
        ),
        (
            "genai through L0",
            row(async || {
                let source = l0_genai::chat(&genai, target(), chat());
                count(l0.stream_from(source).start()).await
            }),
        ),
        (
            "rig",
            row(async || count(rig.stream(completion()).expect("a stream")).await),
        ),
        (
            "rig through L0",
            row(async || {
                let source = l0_rig::completion(&rig, completion());
                count(l0.stream_from(source).start()).await
            }),
        ),
    ];

    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut measured = rows.each_ref().map(|_| Vec::new());
    // The first round warms up.
    for round in 0..=ROUNDS {
        for ((name, read), measured) in rows.iter().zip(&mut measured) {
            let start = Instant::now();
            let items = runtime.block_on(read());
            let took = start.elapsed();
            let all = name.ends_with("only") || items >= TOKENS;
            assert!(all, "{name} yielded {items} items of {TOKENS}");
            if round > 0 {
                measured.push(took);
            }
        }
    }

    println!("An answer of {TOKENS} tokens, from a server on loopback, median of {ROUNDS}.\n");
    println!("| client | ns a token |\n|---|--:|");
    for ((name, _), measured) in rows.iter().zip(&mut measured) {
        measured.sort_unstable();
        let nanos = measured[ROUNDS / 2].as_secs_f64() * 1e9 / TOKENS as f64;
        println!("| {name} | {nanos:.0} |");
    }
}
