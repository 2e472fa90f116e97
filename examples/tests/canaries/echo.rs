//! A loopback server that echoes a configured text and everything that it received.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Turns a request into a response.
type Answer = Box<dyn Fn(&str) -> Vec<u8> + Send>;

/// The server: its address and its answer.
pub(crate) struct Echo {
    pub(crate) address: std::net::SocketAddr,
    answer: Arc<Mutex<Answer>>,
}

impl Echo {
    /// Starts a server that answers each connection once.
    pub(crate) async fn start() -> Self {
        let answer: Arc<Mutex<Answer>> = Arc::new(Mutex::new(Box::new(|_| Vec::new())));
        let answers = Arc::clone(&answer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !is_whole(&request) && socket.read_buf(&mut request).await.unwrap_or(0) > 0 {}
                let request = String::from_utf8_lossy(&request).into_owned();
                let answer = answers.lock().unwrap()(&request);
                let _ = socket.write_all(&answer).await;
                let _ = socket.shutdown().await;
            }
        });
        Self { address, answer }
    }

    /// Sets the answer to later requests.
    pub(crate) fn answer(&self, answer: impl Fn(&str) -> Vec<u8> + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().unwrap())
        });
        body.len() >= length.unwrap_or(0)
    })
}

/// The form of an answer that echoes everything.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    /// `true` for an event stream, which each client reads with its own code.
    pub(crate) is_stream: bool,
    /// The response, from the echoed text, the request, and the first payloads of the answer.
    pub(crate) answer: fn(echo: &str, request: &str, payloads: &[String]) -> Vec<u8>,
}

fn response(head: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head = format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn sse(payloads: &[String]) -> String {
    payloads
        .iter()
        .map(|payload| format!("data: {payload}\n\n"))
        .collect()
}

const STREAM: &str = "200 OK\r\ncontent-type: text/event-stream";

/// Removes line endings, for use in headers.
fn line(echo: &str) -> String {
    echo.replace('\n', " ")
}

fn error(echo: &str, request: &str) -> String {
    let message = format!("{echo}: {request}");
    let error = json!({
        "message": message, "type": echo, "code": echo, "param": echo, "status": echo,
        "details": [{ "reason": echo, "metadata": { "key": echo } }],
    });
    json!({ "type": "error", "error": error, "request_id": echo, "message": message }).to_string()
}

/// Returns a response with the payloads, and then this text.
fn after(payloads: &[String], more: impl AsRef<[u8]>) -> Vec<u8> {
    let body = [sse(payloads).as_bytes(), more.as_ref()].concat();
    response(STREAM, body)
}

/// Declares more bytes than the response has, so the connection breaks in the middle.
fn broken(whole: Vec<u8>) -> Vec<u8> {
    let whole = String::from_utf8(whole).unwrap();
    let more = whole.replacen("content-length: ", "content-length: 9", 1);
    more.into_bytes()
}

pub(crate) const SHAPES: [Shape; 21] = [
    Shape {
        name: "400 with an error in JSON",
        is_stream: false,
        answer: |echo, request, _| {
            let id = line(echo);
            let head = format!(
                "400 {id}\r\nx-request-id: {id}\r\nx-echo: {id}\r\ncontent-type: application/json"
            );
            response(&head, error(echo, request))
        },
    },
    Shape {
        name: "401 with an error of other names",
        is_stream: false,
        answer: |echo, request, _| {
            let body = json!({ "detail": [{ "msg": format!("{echo}: {request}"), "type": echo }] });
            response("401 No\r\ncontent-type: application/json", body.to_string())
        },
    },
    Shape {
        name: "429 with text",
        is_stream: false,
        answer: |echo, request, _| {
            response(
                "429 Wait\r\ncontent-type: text/plain",
                format!("{echo}: {request}"),
            )
        },
    },
    Shape {
        name: "503 with a web page",
        is_stream: false,
        answer: |echo, request, _| {
            response(
                "503 Busy\r\ncontent-type: text/html",
                format!("<html><title>{echo}</title>{request}"),
            )
        },
    },
    Shape {
        name: "500 with broken JSON",
        is_stream: false,
        answer: |echo, request, _| {
            let whole = error(echo, request);
            response(
                "500 No\r\ncontent-type: application/json",
                &whole[..whole.len() - 2],
            )
        },
    },
    Shape {
        name: "404 with an event stream",
        is_stream: false,
        answer: |echo, request, _| {
            let body = format!("event: error\ndata: {}\n\n", error(echo, request));
            response("404 No\r\ncontent-type: text/event-stream", body)
        },
    },
    Shape {
        name: "redirect",
        is_stream: false,
        answer: |echo, request, _| {
            let id = line(echo);
            let head = format!("307 {id}\r\nlocation: http://127.0.0.1:1/{id}?key={id}");
            response(&head, format!("{echo}: {request}"))
        },
    },
    Shape {
        name: "200 with an error in JSON",
        is_stream: false,
        answer: |echo, request, _| {
            response(
                "200 OK\r\ncontent-type: application/json",
                error(echo, request),
            )
        },
    },
    Shape {
        name: "200 of another content type",
        is_stream: false,
        answer: |echo, _, _| {
            let head = format!("200 OK\r\ncontent-type: application/{}+json", line(echo));
            response(&head, json!([echo]).to_string())
        },
    },
    Shape {
        name: "200 with a web page",
        is_stream: false,
        answer: |echo, _, _| response("200 OK\r\ncontent-type: text/html", echo),
    },
    Shape {
        name: "error in mid-stream",
        is_stream: true,
        answer: |echo, request, payloads| {
            after(payloads, format!("data: {}\n\n", error(echo, request)))
        },
    },
    Shape {
        name: "event of an error in mid-stream",
        is_stream: true,
        answer: |echo, request, payloads| {
            let error = error(echo, request);
            after(payloads, format!("event: error\ndata: {error}\n\n"))
        },
    },
    Shape {
        name: "text in an event of an error",
        is_stream: true,
        answer: |echo, _, payloads| {
            after(payloads, format!("event: error\ndata: {}\n\n", line(echo)))
        },
    },
    Shape {
        name: "broken JSON in mid-stream",
        is_stream: true,
        answer: |echo, _, payloads| {
            after(
                payloads,
                format!(
                    ": {0}\nid: {0}\nevent: x\ndata: {{\"a\": {0}\n\n",
                    line(echo)
                ),
            )
        },
    },
    Shape {
        name: "no UTF-8 in mid-stream",
        is_stream: true,
        answer: |echo, _, payloads| {
            after(
                payloads,
                [b"data: ", line(echo).as_bytes(), b"\xff\xfe\n\n"].concat(),
            )
        },
    },
    Shape {
        name: "event that is too large",
        is_stream: true,
        answer: |echo, _, payloads| {
            after(payloads, format!("data: {}\n\n", line(echo).repeat(9_000)))
        },
    },
    Shape {
        name: "connection that breaks",
        is_stream: true,
        answer: |echo, _, payloads| {
            broken(after(
                payloads,
                format!("data: {{\"a\": \"{}\"", line(echo)),
            ))
        },
    },
    // Without the content type of an event stream, the client inspects the body first.
    Shape {
        name: "connection that breaks before the answer",
        is_stream: false,
        answer: |echo, _, _| {
            let id = line(echo);
            broken(response(&format!("200 OK\r\nx-request-id: {id}"), ""))
        },
    },
    Shape {
        name: "connection that breaks in JSON",
        is_stream: false,
        answer: |echo, request, _| {
            let head = "200 OK\r\ncontent-type: application/json";
            broken(response(head, error(echo, request)))
        },
    },
    Shape {
        name: "connection that breaks in an error",
        is_stream: false,
        answer: |echo, request, _| {
            let head = "500 No\r\ncontent-type: application/json";
            broken(response(head, error(echo, request)))
        },
    },
    Shape {
        name: "no HTTP",
        is_stream: false,
        answer: |echo, request, _| format!("{echo}: {request}\r\n\r\n").into_bytes(),
    },
];
