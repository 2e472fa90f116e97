//! The server.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Sleep, sleep};

use super::answer::{Answer, Connect};
use super::api::{Api, Part, Task, endpoint, stream};
use super::whole;

/// Limit on the body of a request: 16 MiB.
const MAX_REQUEST: usize = 16 * 1024 * 1024;

/// Limit on the requests that are kept.
const MAX_KEPT: usize = 1_000;

/// Replaces the value of a header that may contain a secret.
const HIDDEN: &str = "(hidden)";

/// A provider on the loopback interface that follows a script.
///
/// It speaks Chat Completions, Responses, Messages, Gemini's `streamGenerateContent` and Ollama's own API. It answers
/// requests that do not stream too, including `generateContent`, and requests for embeddings of OpenAI's, Gemini's and
/// Ollama's APIs. The end of a request's path selects the API; the start of the path does not matter. Each request
/// takes the next answer. Without one, it gets status 404 and a message that reports this. The server listens on
/// 127.0.0.1, on a free port, and stops when it is dropped.
pub struct ScriptedProvider {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

struct State {
    answers: Answers,
    requests: Vec<Request>,
    count: usize,
}

enum Answers {
    Listed(VecDeque<Answer>),
    Made(Box<dyn FnMut(&Request) -> Answer + Send>),
}

/// A request that a [`ScriptedProvider`] received.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// The method, such as `POST`.
    pub method: String,
    /// The path, without the query, which may hold a key.
    pub path: String,
    /// The headers, by lower-case name. The value of a header that may contain a secret is `(hidden)`.
    pub headers: BTreeMap<String, String>,
    /// The body as JSON: a string if it is not JSON, and null if it is empty.
    pub body: Value,
}

impl Request {
    /// Returns the model of the request, which Gemini's API has in the path; `None` if it has none.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        let in_path = || self.path.rsplit('/').next()?.split_once(':');
        let in_path = in_path().map(|(model, _)| model);
        self.body["model"].as_str().or(in_path)
    }

    /// Returns `true` if the request asks for a stream.
    fn streams(&self) -> bool {
        let stream = &self.body["stream"];
        match endpoint(&self.path) {
            // Ollama streams by default.
            Some((Api::Ollama | Api::OllamaGenerate, _)) => *stream != false,
            _ => self.path.ends_with(":streamGenerateContent") || *stream == true,
        }
    }
}

impl ScriptedProvider {
    /// Starts a server that returns these answers, one per request, in order.
    ///
    /// # Errors
    ///
    /// Returns an error if no loopback port is available.
    pub async fn start(answers: impl IntoIterator<Item = Answer>) -> io::Result<Self> {
        Self::serve(Answers::Listed(answers.into_iter().collect())).await
    }

    /// Starts a server that calls this function for each answer. It is called for one request at a time.
    ///
    /// # Errors
    ///
    /// Returns an error if no loopback port is available.
    pub async fn answering(
        answer: impl FnMut(&Request) -> Answer + Send + 'static,
    ) -> io::Result<Self> {
        Self::serve(Answers::Made(Box::new(answer))).await
    }

    async fn serve(answers: Answers) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State {
            answers,
            requests: Vec::new(),
            count: 0,
        }));
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Self {
            address,
            state,
            task,
        })
    }

    /// Returns the base URL for a client of any of the APIs.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the requests received so far, at most the first 1,000.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state).requests.clone()
    }
}

impl fmt::Debug for ScriptedProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedProvider")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for ScriptedProvider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connections end with this future.
async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            // There may be too many open files, of which some will be closed soon.
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        connections.spawn(serve_connection(socket, Arc::clone(&state)));
    }
}

async fn serve_connection(socket: TcpStream, state: Arc<Mutex<State>>) {
    // Each event must be sent by itself. A failure to set this only delays it.
    let _ = socket.set_nodelay(true);
    let respond = service_fn(|request| async {
        let response = respond(&state, request).await;
        Ok::<_, Infallible>(response)
    });
    // Clients may disconnect, and answers may cut the connection: both end it with an error.
    let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), respond);
    let _ = connection.await;
}

type Response = hyper::Response<Playback>;

async fn respond(state: &Mutex<State>, request: hyper::Request<Incoming>) -> Response {
    let (head, body) = request.into_parts();
    let Some(body) = read(body).await else {
        return whole(StatusCode::PAYLOAD_TOO_LARGE, json_type(), Bytes::new());
    };
    let headers = head.headers.iter().map(|(name, value)| {
        let secret = ["authorization", "cookie", "key", "token", "secret"];
        let hidden = secret.iter().any(|word| name.as_str().contains(word));
        let value = String::from_utf8_lossy(value.as_bytes());
        let value = if hidden { HIDDEN } else { &*value };
        (name.as_str().to_owned(), value.to_owned())
    });
    let request = Request {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        headers: headers.collect(),
        body: match &body[..] {
            [] => Value::Null,
            text => serde_json::from_slice(text)
                .unwrap_or_else(|_| String::from_utf8_lossy(text).into()),
        },
    };
    let endpoint = endpoint(&request.path);
    let (answer, number) = take(state, &request, endpoint);
    for step in &answer.connect {
        match step {
            Connect::Wait(duration) => sleep(*duration).await,
            Connect::Hang => pending().await,
        }
    }
    let mut response = match (answer.body.clone(), endpoint) {
        (Some((content_type, body)), _) => whole(answer.status, content_type, body),
        (None, Some(endpoint)) if answer.is_scripted() => {
            scripted(&answer, endpoint, &request, number)
        }
        (None, endpoint) => {
            let reason = answer.status.canonical_reason().unwrap_or("scripted");
            let message = answer.message.as_deref().unwrap_or(reason);
            let (api, _) = endpoint.unwrap_or((Api::Chat, Task::Answer));
            let error = api.error(answer.status, message);
            whole(answer.status, json_type(), error.to_string().into())
        }
    };
    response.headers_mut().extend(answer.headers);
    response
}

/// Returns the response that follows an answer's steps or has its vectors.
fn scripted(
    answer: &Answer,
    (api, task): (Api, Task),
    request: &Request,
    number: usize,
) -> Response {
    let model = request.model().unwrap_or("scripted");
    let id = format!("scripted-{number}");
    if let Some(vectors) = &answer.vectors {
        let body = whole::embeddings((api, task), model, &request.body, answer, vectors);
        return whole(answer.status, json_type(), body.to_string().into());
    }
    if request.streams() {
        let body = Playback::new(stream(api, model, &id, answer), None);
        let content_type = HeaderValue::from_static(api.content_type());
        return build(answer.status, content_type, body);
    }
    let answer = whole::whole(api, model, &id, answer);
    let length = answer.is_complete.then(|| {
        let lengths = answer.parts.iter().map(|part| match part {
            Part::Bytes(bytes) => bytes.len() as u64,
            _ => 0,
        });
        lengths.sum()
    });
    build(
        answer.status,
        json_type(),
        Playback::new(answer.parts, length),
    )
}

/// Returns the answer to a request, and the request's number.
fn take(state: &Mutex<State>, request: &Request, endpoint: Option<(Api, Task)>) -> (Answer, usize) {
    let mut state = lock(state);
    state.count += 1;
    let number = state.count;
    if state.requests.len() < MAX_KEPT {
        state.requests.push(request.clone());
    }
    let next = match &mut state.answers {
        Answers::Made(make) => Some(make(request)),
        Answers::Listed(answers) => answers.pop_front(),
    };
    let Some(answer) = next else {
        let message = format!("the script has no answer for request {number}");
        return (Answer::status(404).message(message), number);
    };
    let Some(refusal) = refusal(&answer, request, endpoint) else {
        return (answer, number);
    };
    // It belongs to another request.
    if let Answers::Listed(answers) = &mut state.answers {
        answers.push_front(answer);
    }
    (refusal, number)
}

/// Returns an error answer if the scripted answer does not fit the request.
fn refusal(answer: &Answer, request: &Request, endpoint: Option<(Api, Task)>) -> Option<Answer> {
    let (status, problem) = match endpoint {
        _ if !answer.is_scripted() => return None,
        None => (404, "no known API has this path"),
        Some((_, Task::Answer)) if answer.vectors.is_some() => (
            400,
            "the request does not ask for embeddings, but the next answer has embeddings",
        ),
        Some((_, Task::Embedding | Task::Embeddings)) if answer.vectors.is_none() => (
            400,
            "the request asks for embeddings, but the next answer has none",
        ),
        Some(_) => return None,
    };
    Some(Answer::status(status).message(format!("{problem}: {}", request.path)))
}

/// Reads a request's body; `None` if it is too large or breaks off.
async fn read(mut body: Incoming) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.ok()?.into_data() {
            if whole.len() + data.len() > MAX_REQUEST {
                return None;
            }
            whole.extend_from_slice(&data);
        }
    }
    Some(whole)
}

fn json_type() -> HeaderValue {
    HeaderValue::from_static("application/json")
}

fn whole(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response {
    let length = body.len() as u64;
    build(
        status,
        content_type,
        Playback::new(vec![Part::Bytes(body)], Some(length)),
    )
}

fn build(status: StatusCode, content_type: HeaderValue, body: Playback) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A body that runs its steps in order.
struct Playback {
    parts: VecDeque<Part>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// The length of a body that is complete.
    length: Option<u64>,
    cutting: bool,
}

impl Playback {
    fn new(parts: Vec<Part>, length: Option<u64>) -> Self {
        Self {
            parts: parts.into(),
            sleep: None,
            length,
            cutting: false,
        }
    }
}

impl Body for Playback {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        loop {
            match this.parts.front() {
                None => return Poll::Ready(None),
                Some(Part::Hang) => return Poll::Pending,
                Some(Part::Wait(duration)) => {
                    let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep(*duration)));
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    this.sleep = None;
                    this.parts.pop_front();
                }
                Some(Part::Cut) if !this.cutting => {
                    // Bytes that were sent before are written to the socket first.
                    this.cutting = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Part::Cut) => {
                    return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
                }
                Some(Part::Bytes(bytes)) => {
                    let frame = Frame::data(bytes.clone());
                    this.parts.pop_front();
                    return Poll::Ready(Some(Ok(frame)));
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
