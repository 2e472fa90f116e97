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
use super::api::{Api, Part, Task, asked, stream};
use super::whole;

/// The largest body of a request: 16 MiB.
const MAX_REQUEST: usize = 16 * 1024 * 1024;

/// How many requests are kept.
const MAX_KEPT: usize = 1_000;

/// What stands in place of the value of a header that may hold a secret.
const HIDDEN: &str = "(hidden)";

/// A provider on the loopback that answers by a script.
///
/// It speaks Chat Completions, Responses, Messages, Gemini's `streamGenerateContent` and Ollama's own
/// API, and for requests that ask for no stream the same and `generateContent`; and it gives embeddings,
/// of OpenAI's API, Gemini's and Ollama's. Which one, the end of a request's path says, whatever comes before it. A request
/// takes the next answer; one
/// for which there is none left gets status 404 and a message that says so. It listens on 127.0.0.1,
/// on a free port, and stops when it is dropped.
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

/// What came to a [`ScriptedProvider`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// The method, such as `POST`.
    pub method: String,
    /// The path, without the query, which may hold a key.
    pub path: String,
    /// The headers, by their names in lower case. Those that may hold a secret have the value
    /// `(hidden)`.
    pub headers: BTreeMap<String, String>,
    /// The body as JSON; a text if it is none, and null if it is empty.
    pub body: Value,
}

impl Request {
    /// Returns the model that is asked for, which Gemini's API has in the path.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        let in_path = || self.path.rsplit('/').next()?.split_once(':');
        let in_path = in_path().map(|(model, _)| model);
        self.body["model"].as_str().or(in_path)
    }

    /// Whether a stream is asked for.
    fn streams(&self) -> bool {
        let stream = &self.body["stream"];
        match asked(&self.path) {
            // Unless it is told otherwise.
            Some((Api::Ollama | Api::OllamaGenerate, _)) => *stream != false,
            _ => self.path.ends_with(":streamGenerateContent") || *stream == true,
        }
    }
}

impl ScriptedProvider {
    /// Starts a server that gives these answers, one to each request in the order in which they
    /// come.
    ///
    /// # Errors
    ///
    /// Returns an error if no loopback port can be had.
    pub async fn start(answers: impl IntoIterator<Item = Answer>) -> io::Result<Self> {
        Self::serve(Answers::Listed(answers.into_iter().collect())).await
    }

    /// Starts a server that asks this function for each answer. It is called for one request at a
    /// time.
    ///
    /// # Errors
    ///
    /// Returns an error if no loopback port can be had.
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

    /// Returns what a client of any of the APIs takes as its base URL.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the requests so far, at most the first 1,000.
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

/// The connections end with this future.
async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            // There may be too many open files; some are closed soon.
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        connections.spawn(serve_connection(socket, Arc::clone(&state)));
    }
}

async fn serve_connection(socket: TcpStream, state: Arc<Mutex<State>>) {
    // Each event is to go out by itself. What cannot be set makes it slower.
    let _ = socket.set_nodelay(true);
    let respond = service_fn(|request| async {
        let response = respond(&state, request).await;
        Ok::<_, Infallible>(response)
    });
    // A client that goes away is none of the server's business, nor is a cut that it is to make.
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
    let asked = asked(&request.path);
    let (answer, number) = take(state, &request, asked);
    for step in &answer.connect {
        match step {
            Connect::Wait(duration) => sleep(*duration).await,
            Connect::Hang => pending().await,
        }
    }
    let mut response = match (answer.body.clone(), asked) {
        (Some((content_type, body)), _) => whole(answer.status, content_type, body),
        (None, Some(asked)) if answer.is_scripted() => scripted(&answer, asked, &request, number),
        (None, asked) => {
            let reason = answer.status.canonical_reason().unwrap_or("scripted");
            let message = answer.message.as_deref().unwrap_or(reason);
            let (api, _) = asked.unwrap_or((Api::Chat, Task::Answer));
            let error = api.error(answer.status, message);
            whole(answer.status, json_type(), error.to_string().into())
        }
    };
    response.headers_mut().extend(answer.headers);
    response
}

/// The response that follows an answer's steps, or has its vectors.
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

/// The answer to a request, and the request's number.
fn take(state: &Mutex<State>, request: &Request, asked: Option<(Api, Task)>) -> (Answer, usize) {
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
        let message = format!("the script has no answer to request {number}");
        return (Answer::status(404).message(message), number);
    };
    let Some(refusal) = refusal(&answer, request, asked) else {
        return (answer, number);
    };
    // It is for another request.
    if let Answers::Listed(answers) = &mut state.answers {
        answers.push_front(answer);
    }
    (refusal, number)
}

/// What a request gets that this answer does not fit.
fn refusal(answer: &Answer, request: &Request, asked: Option<(Api, Task)>) -> Option<Answer> {
    let (status, problem) = match asked {
        _ if !answer.is_scripted() => return None,
        None => (404, "no API that is known has this path"),
        Some((_, Task::Answer)) if answer.vectors.is_some() => (
            400,
            "the request asks for no embeddings, and the next answer is of such",
        ),
        Some((_, Task::Embedding | Task::Embeddings)) if answer.vectors.is_none() => (
            400,
            "the request asks for embeddings, and the next answer is none of such",
        ),
        Some(_) => return None,
    };
    Some(Answer::status(status).message(format!("{problem}: {}", request.path)))
}

/// A request's body; `None` if it is too large, or breaks off.
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

/// A body that does one thing after another.
struct Playback {
    parts: VecDeque<Part>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Of a body that is there as a whole.
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
                    // What was sent before is written to the socket first.
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
