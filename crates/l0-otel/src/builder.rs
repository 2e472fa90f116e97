//! Builder: where an interceptor sends to, and what.

use std::sync::Arc;

use opentelemetry::InstrumentationScope;
use opentelemetry::global::{self, BoxedTracer};
use opentelemetry::metrics::Meter;
use opentelemetry::trace::Tracer;

use crate::attributes::Chosen;
use crate::conventions::CURRENT;
use crate::instruments::Instruments;
use crate::interceptor::OtelInterceptor;
use crate::run::Outlets;

/// What metrics and spans are said to come from: this crate, its version, and the version of the
/// semantic conventions. For a meter or tracer of a provider of one's own.
///
/// ```
/// use l0_otel::OtelInterceptor;
/// use opentelemetry::metrics::{MeterProvider, NoopMeterProvider};
///
/// # let provider = NoopMeterProvider::new(); // the application's
/// let otel = OtelInterceptor::builder()
///     .meter(provider.meter_with_scope(l0_otel::scope()))
///     .build();
/// # drop(otel);
/// ```
#[must_use]
pub fn scope() -> InstrumentationScope {
    InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(CURRENT.schema_url)
        .build()
}

/// Makes an [`OtelInterceptor`]: see [`OtelInterceptor::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct OtelBuilder {
    meter: Option<Meter>,
    tracer: Option<Arc<BoxedTracer>>,
    metrics: bool,
    spans: bool,
    chosen: Chosen,
    chosen_for_spans: Chosen,
}

impl OtelInterceptor {
    /// Metrics and spans, through the global providers unless a meter and a tracer are given.
    pub fn builder() -> OtelBuilder {
        OtelBuilder {
            meter: None,
            tracer: None,
            metrics: true,
            spans: true,
            chosen: Chosen::default(),
            chosen_for_spans: Chosen::default(),
        }
    }
}

impl OtelBuilder {
    /// Makes the instruments with this meter. Default: one of the global provider, of the
    /// [`scope`].
    pub fn meter(mut self, meter: Meter) -> Self {
        self.meter = Some(meter);
        self
    }

    /// Makes the spans with this tracer. Default: one of the global provider, of the [`scope`].
    pub fn tracer<T>(mut self, tracer: T) -> Self
    where
        T: Tracer + Send + Sync + 'static,
        T::Span: Send + Sync + 'static,
    {
        self.tracer = Some(Arc::new(BoxedTracer::new(Box::new(tracer))));
        self
    }

    /// Whether there are metrics. Default true.
    pub fn metrics(mut self, metrics: bool) -> Self {
        self.metrics = metrics;
        self
    }

    /// Whether there are spans. Default true. Without, the context of [`start()`] is still current
    /// while the source connects, so that what the HTTP client does belongs to the caller's span.
    ///
    /// [`start()`]: l0_core::RunBuilder::start
    pub fn spans(mut self, spans: bool) -> Self {
        self.spans = spans;
        self
    }

    /// Adds these entries of a run's metadata, under their own keys, to the span and to every point of
    /// the run. May be called again. How a value is written [`keys::text`](l0_core::keys::text) says;
    /// what is longer than 256 bytes is cut, and what is empty is left out.
    ///
    /// SDKs keep a series for each set of values, up to a limit (2000 in the one for Rust, beyond
    /// which all are one): list what has few. Keys that the conventions have a name for (`model`,
    /// `provider`, `operation`, `conversation_id`) leave under that name anyway, and are not repeated. Keys that begin as the names
    /// of L0's own attributes do, with `gen_ai.`, `l0.`, `error.` or `exception.`, are passed over.
    pub fn attribute_keys<I>(mut self, keys: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        keys.into_iter()
            .for_each(|key| self.chosen.add(CURRENT, key.into()));
        self
    }

    /// As [`attribute_keys`](Self::attribute_keys), for the span only: for what has many values, such
    /// as a user's id.
    pub fn span_attribute_keys<I>(mut self, keys: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let chosen = &mut self.chosen_for_spans;
        keys.into_iter()
            .for_each(|key| chosen.add(CURRENT, key.into()));
        self
    }

    /// Makes the instruments. Global providers must have been set before: what is set later is not
    /// seen.
    #[must_use]
    pub fn build(self) -> OtelInterceptor {
        let meter = || {
            self.meter
                .unwrap_or_else(|| global::meter_with_scope(scope()))
        };
        let tracer = || {
            self.tracer
                .unwrap_or_else(|| Arc::new(global::tracer_with_scope(scope())))
        };
        OtelInterceptor::new(Outlets {
            conventions: CURRENT,
            instruments: self.metrics.then(|| Instruments::new(CURRENT, &meter())),
            tracer: self.spans.then(tracer),
            chosen_for_spans: self.chosen_for_spans.without(&self.chosen),
            chosen: self.chosen,
        })
    }
}
