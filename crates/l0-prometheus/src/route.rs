//! The metrics of a collector as an axum route.

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
use crate::exposition;

/// The number of label sets that the serving thread still writes itself. Writing them takes less time than
/// moving the work to a blocking thread.
const INLINE: usize = 16;

/// The maximum number of scrapes that wait at once. One or two scrapers are normal; more are not scrapers.
const MAX_SCRAPES: usize = 32;

/// Serves the metrics of a collector as an axum route for `GET` and `HEAD`.
///
/// The default format is the text format, version 0.0.4. Clients that prefer it get delimited protobuf with the
/// feature `protobuf`, or OpenMetrics if the collector keeps
/// [exemplars](crate::PrometheusBuilder::exemplars), which the other two formats leave out. Responses are
/// compressed with gzip for clients that accept it. More than a few label sets are written on a blocking thread,
/// so a scrape does not delay the streams of the serving thread.
///
/// Concurrent scrapes for the same format share one result, so many of them cost no more than one. If 32
/// scrapes are already waiting, the next one is answered with `503 Service Unavailable`.
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
        permits: Arc::new(Semaphore::new(MAX_SCRAPES)),
        current: Mutex::default(),
    });
    get(move |headers: HeaderMap| Arc::clone(&scrapes).serve(headers))
}

/// A permit of a waiting scrape.
type Permit = Arc<OwnedSemaphorePermit>;

/// The scrapes of one route.
struct Scrapes {
    collector: Collector,
    permits: Arc<Semaphore>,
    /// The results being written, one for each requested form.
    current: Mutex<Vec<(Negotiated, Arc<OnceCell<Bytes>>)>>,
}

impl Scrapes {
    async fn serve(self: Arc<Self>, headers: HeaderMap) -> Response {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let permit = Arc::new(permit);
        let negotiated = Negotiated::read(&headers, self.collector.registry().has_exemplars());
        let body = self.body(negotiated, &permit).await;
        let Ok(body) = body else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let mut response = Response::new(Body::from(body));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(negotiated.format.content_type()),
        );
        headers.insert(
            header::VARY,
            HeaderValue::from_static("accept, accept-encoding"),
        );
        if negotiated.gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }

    /// Returns the result being written in this form, or writes a new one. If the writing task is dropped, the
    /// next waiting one takes over.
    async fn body(&self, negotiated: Negotiated, permit: &Permit) -> io::Result<Bytes> {
        let shared = {
            let mut current = self.current();
            match current.iter().find(|(form, _)| *form == negotiated) {
                Some((_, shared)) => Arc::clone(shared),
                None => {
                    let shared = Arc::default();
                    current.push((negotiated, Arc::clone(&shared)));
                    shared
                }
            }
        };
        let body = shared
            .get_or_try_init(|| self.write(negotiated, permit))
            .await;
        let body = body.cloned();
        // Later scrapes get a new result.
        self.current().retain(|(_, one)| !Arc::ptr_eq(one, &shared));
        body
    }

    /// The client can disconnect while a thread writes. The thread keeps the permit until it is done, so
    /// disconnecting clients cannot leave more work than there are permits.
    async fn write(&self, negotiated: Negotiated, permit: &Permit) -> io::Result<Bytes> {
        let large = self.collector.registry().label_sets() > INLINE;
        match Handle::try_current() {
            Ok(runtime) if large => {
                let collector = self.collector.clone();
                let permit = Arc::clone(permit);
                let write = runtime.spawn_blocking(move || {
                    let body = negotiated.write(&collector);
                    drop(permit);
                    body
                });
                write.await.map_err(io::Error::other)?
            }
            _ => negotiated.write(&self.collector),
        }
        .map(Bytes::from)
    }

    fn current(&self) -> MutexGuard<'_, Vec<(Negotiated, Arc<OnceCell<Bytes>>)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The negotiated form of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Negotiated {
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

impl Negotiated {
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
        if !self.gzip {
            return self.format.write(collector);
        }
        // Labels repeat from line to line, so the fastest level already removes nine tenths.
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        match self.format.text_format() {
            // The uncompressed text is never in memory as a whole.
            Some(format) => collector.registry().write_to(format, &mut gzip)?,
            None => gzip.write_all(&self.format.write(collector)?)?,
        }
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

    /// Returns the text format, or `None` for protobuf.
    const fn text_format(self) -> Option<exposition::Format> {
        match self {
            Self::Text => Some(exposition::Format::Text),
            Self::OpenMetrics => Some(exposition::Format::OpenMetrics),
            #[cfg(feature = "protobuf")]
            Self::Protobuf => None,
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

/// Returns the quality that an `Accept` header gives to what `matches`, by its most specific entry; `None` if
/// no entry matches.
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

    fn negotiated(name: HeaderName, value: &'static str) -> Negotiated {
        Negotiated::read(
            &HeaderMap::from_iter([(name, HeaderValue::from_static(value))]),
            false,
        )
    }

    #[test]
    fn gzip_is_for_clients_that_accept_it() {
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
            assert_eq!(
                negotiated(header::ACCEPT_ENCODING, value).gzip,
                gzip,
                "{value}"
            );
        }
        assert!(!Negotiated::read(&HeaderMap::new(), false).gzip);
    }

    #[test]
    fn text_is_for_clients_that_prefer_nothing_else() {
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
                negotiated(header::ACCEPT, value).format,
                Format::Text,
                "{value}"
            );
        }
    }

    #[test]
    fn open_metrics_is_for_clients_that_prefer_it_if_exemplars_are_kept() {
        let header = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3,*/*;q=0.1";
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(header))]);
        assert_eq!(Negotiated::read(&headers, true).format, Format::OpenMetrics);
        assert_eq!(Negotiated::read(&headers, false).format, Format::Text);
    }

    #[cfg(feature = "protobuf")]
    #[test]
    fn protobuf_is_for_clients_that_prefer_it() {
        for value in [
            "application/vnd.google.protobuf",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
             encoding=delimited;q=0.7,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        ] {
            assert_eq!(
                negotiated(header::ACCEPT, value).format,
                Format::Protobuf,
                "{value}"
            );
        }
    }
}
