//! The interceptor: sends the numbers of each measured run when the run ends.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use l0_core::{Interceptor, Metadata, Observers, RunInfo, Telemetry};

use crate::line::Format;
use crate::packet::datagrams;
use crate::socket::Socket;

/// Sends the points of runs to a `StatsD` server, as an [`Interceptor`] or manually with [`send`](Self::send).
/// Clones share one socket and one count.
///
/// If you use both, every run is counted twice.
#[derive(Clone)]
pub struct StatsdInterceptor(Arc<Shared>);

struct Shared {
    format: Format,
    socket: Socket,
    dropped: AtomicU64,
}

impl StatsdInterceptor {
    pub(crate) fn new(format: Format, socket: Socket) -> Self {
        Self(Arc::new(Shared {
            format,
            socket,
            dropped: AtomicU64::new(0),
        }))
    }

    /// Sends all points of one telemetry immediately. It does not block and cannot fail: points that the system
    /// does not accept are [counted](Self::dropped).
    ///
    /// Tags come from the metadata of the telemetry. If the run fell back, `model`, `provider` and `operation`
    /// are those of its attempts.
    pub fn send(&self, telemetry: &Telemetry) {
        self.send_with(telemetry, |_| None);
    }

    fn send_with<'m>(&self, telemetry: &Telemetry, metadata: impl Fn(u32) -> Option<&'m Metadata>) {
        let Shared {
            format,
            socket,
            dropped,
        } = &*self.0;
        let limit = socket.limit();
        for datagram in datagrams(&format.lines(telemetry, metadata), limit) {
            if datagram.len() > limit || !socket.send(datagram.as_bytes()) {
                dropped.fetch_add(datagram.split('\n').count() as u64, Ordering::Relaxed);
            }
        }
    }

    /// Returns the number of points that were not sent so far. Either the system did not accept their datagram,
    /// because no server listens on the Unix socket or it reads too slowly, or their tags make them longer than
    /// a datagram can be. Datagrams that UDP loses in transit are not known.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Interceptor for StatsdInterceptor {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        if run.measured() {
            let statsd = self.clone();
            observers.on_finish(move |finished| {
                if let Some(telemetry) = finished.telemetry {
                    let source = |number| finished.run.source(number);
                    statsd.send_with(telemetry, |number| Some(&source(number)?.metadata));
                }
            });
        }
    }

    fn needs_telemetry(&self) -> bool {
        true
    }
}

impl fmt::Debug for StatsdInterceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatsdInterceptor")
            .field("format", &self.0.format)
            .field("socket", &self.0.socket)
            .field("dropped", &self.dropped())
            .finish()
    }
}
