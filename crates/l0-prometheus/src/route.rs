//! Route: the metrics of a collector, as a route of axum.

use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use crate::collector::Collector;

/// Up to how many label sets metrics are written on the thread that serves, which takes less time
/// than a thread for blocking work is worth.
const INLINE: usize = 16;

/// How many scrapes wait for an answer at once. Whoever scrapes is one or two; more are somebody else.
const MAX_SCRAPES: usize = 32;

/// Serves the metrics of a collector, as a route of axum for `GET` and `HEAD`.
///
/// It answers in the text format, version 0.0.4. Who prefers it gets delimited protobuf, with the feature
/// of that name, or OpenMetrics, if the collector keeps [exemplars](crate::Builder::exemplars), which the
/// other two formats leave out. All of it is compressed with gzip for those who accept that. More than a
/// few label sets are written on a thread for blocking work, so that a scrape does not hold up the
/// streams that the serving thread drives.
///
/// Scrapes that come while metrics are written in the form that they ask for get what is being written, so
/// that many of them cost no more than one. When 32 wait already, a further one is answered with
/// `503 Service Unavailable`.
///
/// ```
/// use axum::Router;
/// use l0_prometheus::{Collector, metrics_route};
///
/// # fn main() -> Result<(), l0_prometheus::BuildError> {
/// let collector = Collector::builder().build()?;
/// let app: Router = Router::new().route("/metrics", metrics_route(collector.clone()));
/// # drop(app);
/// # Ok(())
/// # }
/// ```
pub fn metrics_route<S>(collector: Collector) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let scrapes = Arc::new(Scrapes {
        collector,
        places: Arc::new(Semaphore::new(MAX_SCRAPES)),
        current: Mutex::default(),
    });
    get(move |headers: HeaderMap| Arc::clone(&scrapes).serve(headers))
}

/// One of those that may wait at once.
type Place = Arc<OwnedSemaphorePermit>;

/// The scrapes of one route.
struct Scrapes {
    collector: Collector,
    places: Arc<Semaphore>,
    /// What is being written, in each form that somebody asked for.
    current: Mutex<Vec<(Wanted, Arc<OnceCell<Bytes>>)>>,
}

impl Scrapes {
    async fn serve(self: Arc<Self>, headers: HeaderMap) -> Response {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let place = Arc::new(place);
        let wanted = Wanted::read(&headers, self.collector.registry().has_exemplars());
        let body = self.body(wanted, &place).await;
        let Ok(body) = body else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let mut response = Response::new(Body::from(body));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(wanted.format.content_type()),
        );
        headers.insert(
            header::VARY,
            HeaderValue::from_static("accept, accept-encoding"),
        );
        if wanted.gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }

    /// What is being written in this form, or else written now. If whoever writes goes away, the next one
    /// that waits writes.
    async fn body(&self, wanted: Wanted, place: &Place) -> io::Result<Bytes> {
        let shared = {
            let mut current = self.current();
            match current.iter().find(|(form, _)| *form == wanted) {
                Some((_, shared)) => Arc::clone(shared),
                None => {
                    let shared = Arc::default();
                    current.push((wanted, Arc::clone(&shared)));
                    shared
                }
            }
        };
        let body = shared.get_or_try_init(|| self.write(wanted, place)).await;
        let body = body.cloned();
        // Whoever comes now gets what is new.
        self.current().retain(|(_, one)| !Arc::ptr_eq(one, &shared));
        body
    }

    /// Whoever asked may go away while a thread writes. It keeps their place until it is done, lest those
    /// who come and go leave more to be written than there are places.
    async fn write(&self, wanted: Wanted, place: &Place) -> io::Result<Bytes> {
        let large = self.collector.registry().label_sets() > INLINE;
        match Handle::try_current() {
            Ok(runtime) if large => {
                let collector = self.collector.clone();
                let place = Arc::clone(place);
                let write = runtime.spawn_blocking(move || {
                    let body = wanted.write(&collector);
                    drop(place);
                    body
                });
                write.await.map_err(io::Error::other)?
            }
            _ => wanted.write(&self.collector),
        }
        .map(Bytes::from)
    }

    fn current(&self) -> MutexGuard<'_, Vec<(Wanted, Arc<OnceCell<Bytes>>)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the client is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    format: Format,
    gzip: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    OpenMetrics,
    #[cfg(feature = "protobuf")]
    Protobuf,
}

impl Wanted {
    fn read(headers: &HeaderMap, exemplars: bool) -> Self {
        let gzip = quality(headers, &header::ACCEPT_ENCODING, |coding| match coding {
            "gzip" | "x-gzip" => Some(1),
            "*" => Some(0),
            _ => None,
        });
        Self {
            format: Format::read(headers, exemplars),
            gzip: gzip.is_some_and(|quality| quality > 0.0),
        }
    }

    fn write(self, collector: &Collector) -> io::Result<Vec<u8>> {
        let body = self.format.write(collector)?;
        if !self.gzip {
            return Ok(body);
        }
        // Labels repeat from line to line: the fastest level takes off nine tenths.
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&body)?;
        gzip.finish()
    }
}

impl Format {
    fn read(headers: &HeaderMap, exemplars: bool) -> Self {
        let named = |name| {
            quality(headers, &header::ACCEPT, |range| {
                (range == name).then_some(2)
            })
            .unwrap_or(0.0)
        };
        let text = quality(headers, &header::ACCEPT, |range| match range {
            "text/plain" => Some(2),
            "text/*" => Some(1),
            "*/*" => Some(0),
            _ => None,
        });
        let mut best = (text.unwrap_or(0.0), Self::Text);
        let mut offer = |quality, format| {
            if quality > best.0 {
                best = (quality, format);
            }
        };
        if exemplars {
            offer(named("application/openmetrics-text"), Self::OpenMetrics);
        }
        #[cfg(feature = "protobuf")]
        offer(named("application/vnd.google.protobuf"), Self::Protobuf);
        best.1
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Text => crate::CONTENT_TYPE,
            Self::OpenMetrics => crate::OPENMETRICS_CONTENT_TYPE,
            #[cfg(feature = "protobuf")]
            Self::Protobuf => prometheus::PROTOBUF_FORMAT,
        }
    }

    fn write(self, collector: &Collector) -> io::Result<Vec<u8>> {
        match self {
            Self::Text => Ok(collector.expose().into()),
            Self::OpenMetrics => Ok(collector.expose_openmetrics().into()),
            #[cfg(feature = "protobuf")]
            Self::Protobuf => {
                use prometheus::Encoder as _;
                use prometheus::core::Collector as _;

                let mut body = Vec::new();
                prometheus::ProtobufEncoder::new()
                    .encode(&collector.collect(), &mut body)
                    .map_err(io::Error::other)?;
                Ok(body)
            }
        }
    }
}

/// The quality that a header which lists preferences gives to what `matches`, by the most specific
/// entry; `None` if there is no such entry.
fn quality(
    headers: &HeaderMap,
    name: &HeaderName,
    matches: impl Fn(&str) -> Option<u8>,
) -> Option<f32> {
    let values = headers.get_all(name).into_iter();
    let entries = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let found = entries.filter_map(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let specific = matches(&parts.next()?.to_ascii_lowercase())?;
        let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
        Some((specific, quality.unwrap_or(1.0)))
    });
    found
        .max_by_key(|(specific, _)| *specific)
        .map(|(_, quality)| quality)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: HeaderName, value: &'static str) -> Wanted {
        Wanted::read(
            &HeaderMap::from_iter([(name, HeaderValue::from_static(value))]),
            false,
        )
    }

    #[test]
    fn gzip_is_for_those_who_accept_it() {
        for (value, gzip) in [
            ("gzip", true),
            ("GZIP;q=0.5", true),
            ("deflate, gzip;q=1.0, *;q=0.5", true),
            ("*", true),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(wanted(header::ACCEPT_ENCODING, value).gzip, gzip, "{value}");
        }
        assert!(!Wanted::read(&HeaderMap::new(), false).gzip);
    }

    #[test]
    fn text_is_for_those_who_do_not_prefer_something_else() {
        for value in [
            "",
            "*/*",
            "text/html",
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3",
            "application/vnd.google.protobuf;q=0.3,text/plain;q=0.5",
            "application/vnd.google.protobuf;q=0",
        ] {
            assert_eq!(
                wanted(header::ACCEPT, value).format,
                Format::Text,
                "{value}"
            );
        }
    }

    #[test]
    fn open_metrics_is_for_those_who_prefer_it_if_there_are_exemplars() {
        let header = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3,*/*;q=0.1";
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(header))]);
        assert_eq!(Wanted::read(&headers, true).format, Format::OpenMetrics);
        assert_eq!(Wanted::read(&headers, false).format, Format::Text);
    }

    #[cfg(feature = "protobuf")]
    #[test]
    fn protobuf_is_for_those_who_prefer_it() {
        for value in [
            "application/vnd.google.protobuf",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
             encoding=delimited;q=0.7,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        ] {
            assert_eq!(
                wanted(header::ACCEPT, value).format,
                Format::Protobuf,
                "{value}"
            );
        }
    }
}
