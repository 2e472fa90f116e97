//! Exemplars: the run that a bucket counted last, and the id to find it by.

use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use l0_core::{RunInfo, Telemetry};

use crate::labels::escape_into;

/// The trace and the span in which a run started. A bucket's exemplar links to it; see
/// [`PrometheusBuilder::exemplar_trace`](crate::PrometheusBuilder::exemplar_trace).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Trace {
    trace_id: [u8; 16],
    span_id: [u8; 8],
}

impl Trace {
    /// Creates a trace from the bytes of its ids, in the order in which they are written. A trace with an
    /// all-zero id is ignored.
    #[must_use]
    pub const fn new(trace_id: [u8; 16], span_id: [u8; 8]) -> Self {
        Self { trace_id, span_id }
    }

    /// Returns `true` if both ids are valid by the W3C rules, which exclude all zeros.
    fn is_valid(&self) -> bool {
        self.trace_id != [0; 16] && self.span_id != [0; 8]
    }
}

/// The function that finds the current trace when a run starts.
#[derive(Clone)]
pub(crate) struct TraceOf(Arc<Find>);

type Find = dyn Fn(&RunInfo) -> Option<Trace> + Send + Sync;

impl TraceOf {
    pub(crate) fn new(f: impl Fn(&RunInfo) -> Option<Trace> + Send + Sync + 'static) -> Self {
        Self(Arc::new(f))
    }

    pub(crate) fn get(&self, run: &RunInfo) -> Result<Option<Trace>, Panic> {
        let trace = catch_unwind(AssertUnwindSafe(|| (self.0)(run)));
        trace
            .map(|trace| trace.filter(Trace::is_valid))
            .map_err(|_| Panic)
    }
}

/// The function panicked.
#[derive(Debug)]
pub(crate) struct Panic;

impl fmt::Debug for TraceOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// The run that a bucket counted last.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Exemplar {
    id: Id,
    value: f64,
    /// The end time, in milliseconds since 1970.
    at: Option<u64>,
}

/// The id of a run.
#[derive(Debug, Default, PartialEq)]
enum Id {
    /// No exemplar yet.
    #[default]
    None,
    Session(String),
    Trace(Trace),
}

const SESSION_ID: &str = "session_id";
/// The maximum length of names and values together in OpenMetrics, in characters. Those of a trace take 63.
const MAX: usize = 128;

impl Exemplar {
    /// Sets the trace as the exemplar, or else the run's id unless it is too long.
    pub(crate) fn set(&mut self, run: &Telemetry, trace: Option<Trace>, value: f64) {
        match (trace, &mut self.id) {
            (Some(trace), id) => *id = Id::Trace(trace),
            (None, _) if SESSION_ID.len() + run.session_id.chars().count() > MAX => return,
            (None, Id::Session(id)) => run.session_id.clone_into(id),
            (None, id) => *id = Id::Session(run.session_id.clone()),
        }
        self.value = value;
        self.at = run.end_time().map(l0_core::Timestamp::as_millis);
    }

    /// Writes the exemplar as the end of an OpenMetrics line. Writes nothing if there is none.
    pub(crate) fn write(&self, text: &mut String) {
        // Writing into a `String` does not fail.
        let _ = match &self.id {
            Id::None => return,
            Id::Session(id) => {
                let _ = write!(text, " # {{{SESSION_ID}=\"");
                escape_into(text, id);
                text.write_str("\"}")
            }
            Id::Trace(Trace { trace_id, span_id }) => write!(
                text,
                " # {{trace_id=\"{:032x}\",span_id=\"{:016x}\"}}",
                u128::from_be_bytes(*trace_id),
                u64::from_be_bytes(*span_id)
            ),
        };
        let _ = write!(text, " {}", self.value);
        if let Some(millis) = self.at {
            let _ = write!(text, " {}.{:03}", millis / 1_000, millis % 1_000);
        }
    }
}
