//! Route: serves the page, its updates and its data at one address.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_core::Stream;
use tokio::time::{Instant, Sleep, sleep};

use crate::live::Live;

/// The interval between updates of the page.
const INTERVAL: Duration = Duration::from_millis(500);

/// The delay of a viewer that finds an update in progress.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// The duration of a stream of updates, after which the page reconnects. So a server that waits for open
/// connections at shutdown does not wait longer for viewers.
const STREAM_DURATION: Duration = Duration::from_secs(5);

/// The last event of a stream, which asks the page to reconnect.
const RECONNECT: Bytes = Bytes::from_static(b"event: again\ndata: {}\n\n");

/// The maximum number of concurrent viewers, without those that stopped reading before their stream ended.
const MAX_VIEWERS: usize = 128;

const PAGE: &str = include_str!("../page.html");

/// The content security policy: the page can run only its own script and style, and connect only to its own
/// server. A test checks the hashes of the two elements.
const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-JYRpybSWnFDRtcBK9WCaYVgR4LOyhrawvAPW0xgZ9XM='; \
    style-src 'sha256-e7BIUX45Fd85OJWxsoCp1PB+GbAZdvHE+R2C5nDCepc='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// Returns an axum router that serves the page with the live runs, the runs that ended last, and totals.
///
/// A single address serves three formats: the page; the [`Snapshot`] as JSON, for
/// programs (`Accept: application/json`, or `?format=json`); and server-sent events, each a snapshot,
/// for the page itself (`?format=events`). It works under any prefix. With `nest_service`, a trailing slash
/// makes no difference; with `nest`, the address with a slash does not exist. Programs can limit the number of
/// live runs: `?format=json&limit=10`, or `limit=0` for the counts only.
///
/// The page is a single file that loads nothing from elsewhere. It is read-only: no control affects a
/// run. All viewers share the same snapshot, which is taken twice a second while there is a
/// viewer, so many viewers cost little more than one. A slow viewer misses updates, and delays
/// no other. With 128 viewers, further ones receive `503 Service Unavailable`. A viewer that stops
/// reading takes the place of another for at most five seconds; its connection stays open until your
/// server closes it. A stream of updates ends after five seconds with the event `again`, and the page
/// reconnects: so a server that waits for open connections at shutdown does not wait for viewers. A
/// program that reads updates must reconnect too.
///
/// Access control is up to you: put the route behind your service's authentication, or on a separate
/// address. It shows the metadata that you listed, and no text of prompts or answers.
///
/// ```
/// use axum::Router;
/// use l0_live::Live;
///
/// let live = Live::new();
/// let app: Router = Router::new().nest_service("/l0", l0_live::routes(live.clone()));
/// # drop(app);
/// ```
///
/// [`Snapshot`]: crate::Snapshot
pub fn routes<S>(live: Live) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let shared = Arc::new(Shared {
        live,
        viewers: Mutex::default(),
        rendering: Mutex::new(()),
        update: Mutex::new(None),
    });
    let answer = move |uri: Uri, headers: HeaderMap| {
        let answer = answer(&shared, &uri, &headers);
        async move { answer }
    };
    Router::new().route("/", get(answer))
}

/// The state that all viewers share.
struct Shared {
    live: Live,
    viewers: Mutex<Viewers>,
    /// Locked while an update is created.
    rendering: Mutex<()>,
    /// The last update, with its time.
    update: Mutex<Option<(Instant, Bytes)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Page,
    Json,
    Events,
}

impl Format {
    fn read(uri: &Uri, headers: &HeaderMap) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&');
        for pair in pairs {
            match pair {
                "format=json" => return Self::Json,
                "format=events" => return Self::Events,
                "format=html" => return Self::Page,
                _ => {}
            }
        }
        let accepted = headers.get_all(header::ACCEPT).into_iter();
        let accepted = accepted.filter_map(|value| value.to_str().ok());
        // The first known type counts. Browsers list HTML first.
        for range in accepted.flat_map(|value| value.split(',')) {
            let range = range.split(';').next().unwrap_or_default().trim();
            match range.to_ascii_lowercase().as_str() {
                "application/json" => return Self::Json,
                "text/event-stream" => return Self::Events,
                "text/html" => return Self::Page,
                _ => {}
            }
        }
        Self::Page
    }
}

/// Returns the requested maximum number of live runs.
fn limit(uri: &Uri) -> usize {
    let pairs = uri.query().unwrap_or_default().split('&');
    let limit = pairs.filter_map(|pair| pair.strip_prefix("limit=")).next();
    limit
        .and_then(|limit| limit.parse().ok())
        .unwrap_or(usize::MAX)
}

fn answer(shared: &Arc<Shared>, uri: &Uri, headers: &HeaderMap) -> Response {
    let format = Format::read(uri, headers);
    let (content_type, body) = match format {
        Format::Page => ("text/html; charset=utf-8", Body::from(PAGE)),
        Format::Json => match serde_json::to_vec(&shared.live.snapshot_of(limit(uri))) {
            Ok(json) => ("application/json", Body::from(json)),
            Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        },
        Format::Events => match Viewer::new(shared) {
            Some(viewer) => ("text/event-stream", Body::from_stream(viewer)),
            None => {
                let retry = [(header::RETRY_AFTER, HeaderValue::from_static("5"))];
                return (StatusCode::SERVICE_UNAVAILABLE, retry).into_response();
            }
        },
    };
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "accept"),
    ];
    let mut response = (headers, body).into_response();
    if format == Format::Events {
        // Disables the response buffering of nginx.
        let no = HeaderValue::from_static("no");
        response.headers_mut().insert("x-accel-buffering", no);
    }
    response
}

impl Shared {
    /// Returns the current update and its time. The first viewer that needs an update creates it for all. Returns
    /// `None` while another viewer creates it, so no thread waits.
    fn update(&self) -> Option<(Instant, Bytes)> {
        let now = Instant::now();
        let is_fresh = |made: Instant| now.saturating_duration_since(made) < INTERVAL;
        let last = || lock(&self.update).clone().filter(|last| is_fresh(last.0));
        if let Some(last) = last() {
            return Some(last);
        }
        let rendering = match self.rendering.try_lock() {
            Ok(rendering) => rendering,
            Err(TryLockError::Poisoned(rendering)) => rendering.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        // Another viewer may have created it between the two locks.
        if let Some(last) = last() {
            return Some(last);
        }
        let mut bytes = b"data: ".to_vec();
        // JSON contains no line breaks.
        if serde_json::to_writer(&mut bytes, &self.live.snapshot()).is_err() {
            bytes.truncate(b"data: ".len());
        }
        bytes.extend_from_slice(b"\n\n");
        let bytes = Bytes::from(bytes);
        *lock(&self.update) = Some((now, bytes.clone()));
        drop(rendering);
        Some((now, bytes))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The viewers whose streams have not ended.
#[derive(Default)]
struct Viewers {
    /// The end of the stream of each viewer, the first one first.
    all: BTreeSet<(Instant, u64)>,
    /// The number of the last viewer.
    last: u64,
}

impl Viewers {
    /// Adds a viewer, unless the limit is reached.
    fn add(&mut self) -> Option<(Instant, u64)> {
        let now = Instant::now();
        // A stream whose viewer does not read is never polled, so it cannot remove itself.
        while self.all.first().is_some_and(|(ends, _)| *ends <= now) {
            self.all.pop_first();
        }
        if self.all.len() >= MAX_VIEWERS {
            return None;
        }
        self.last += 1;
        let viewer = (now + STREAM_DURATION, self.last);
        self.all.insert(viewer);
        Some(viewer)
    }
}

/// The updates of one viewer. The next update is created only after the last one was sent, so a slow
/// viewer holds only one.
struct Viewer {
    shared: Arc<Shared>,
    next: Pin<Box<Sleep>>,
    ends: Instant,
    number: u64,
    has_ended: bool,
}

impl Viewer {
    /// Adds a viewer, unless the limit is reached.
    fn new(shared: &Arc<Shared>) -> Option<Self> {
        let (ends, number) = lock(&shared.viewers).add()?;
        Some(Self {
            shared: Arc::clone(shared),
            next: Box::pin(sleep(Duration::ZERO)),
            ends,
            number,
            has_ended: false,
        })
    }
}

impl Stream for Viewer {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        ready!(self.next.as_mut().poll(cx));
        if self.next.deadline() >= self.ends {
            self.has_ended = true;
            return Poll::Ready(Some(Ok(RECONNECT)));
        }
        // All viewers of an update need the next one at the same time.
        match self.shared.update() {
            Some((made, update)) => {
                self.next.as_mut().reset(made + INTERVAL);
                Poll::Ready(Some(Ok(update)))
            }
            None => {
                self.next.as_mut().reset(Instant::now() + RETRY_DELAY);
                self.poll_next(cx)
            }
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let viewer = (self.ends, self.number);
        lock(&self.shared.viewers).all.remove(&viewer);
    }
}
