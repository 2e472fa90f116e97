//! The builder of the interceptor.

use std::sync::Arc;

use l0_core::{Content, KeyError, KeyList};
use opentelemetry::InstrumentationScope;
use opentelemetry::global::{self, BoxedTracer};
use opentelemetry::metrics::Meter;
use opentelemetry::trace::Tracer;

use crate::attributes::RULES;
use crate::conventions::Conventions;
use crate::dialect::Dialect;
use crate::instruments::Instruments;
use crate::interceptor::OtelInterceptor;
use crate::live::LiveSpans;
use crate::numbers::SpanNumber;
use crate::run::Destination;

/// Returns the instrumentation scope of this crate under the default [`Conventions`]: the crate's name and
/// version, and the schema URL of the conventions. Use it to get a meter or a tracer from your own provider.
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
    Conventions::default().scope()
}

/// A builder of [`OtelInterceptor`]s: see [`OtelInterceptor::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct OtelBuilder {
    meter: Option<Meter>,
    tracer: Option<Arc<BoxedTracer>>,
    metrics: bool,
    spans: bool,
    keys: KeyList,
    /// The keys for spans, a superset of `keys`.
    span_keys: KeyList,
    conventions: Conventions,
    dialects: Vec<&'static Dialect>,
    content: Option<Content>,
}

impl OtelInterceptor {
    /// Creates a builder. By default it sends metrics and spans through the global providers.
    pub fn builder() -> OtelBuilder {
        OtelBuilder {
            meter: None,
            tracer: None,
            metrics: true,
            spans: true,
            keys: KeyList::new(),
            span_keys: KeyList::new(),
            conventions: Conventions::default(),
            dialects: Vec::new(),
            content: None,
        }
    }
}

impl OtelBuilder {
    /// Sets the meter that creates the instruments. Default: a meter of the global provider, with this
    /// crate's [`scope`].
    pub fn meter(mut self, meter: Meter) -> Self {
        self.meter = Some(meter);
        self
    }

    /// Sets the tracer that creates the spans. Default: a tracer of the global provider, with this crate's
    /// [`scope`].
    pub fn tracer<T>(mut self, tracer: T) -> Self
    where
        T: Tracer + Send + Sync + 'static,
        T::Span: Send + Sync + 'static,
    {
        self.tracer = Some(Arc::new(BoxedTracer::new(Box::new(tracer))));
        self
    }

    /// Sets the version of the semantic conventions. Default: [`Conventions::V1_41`].
    pub fn conventions(mut self, conventions: Conventions) -> Self {
        self.conventions = conventions;
        self
    }

    /// Adds a dialect: the attributes that one more backend reads. You can add several dialects. Adding the
    /// same one twice has no further effect.
    pub fn dialect(mut self, dialect: &'static Dialect) -> Self {
        self.dialects.push(dialect);
        self
    }

    /// Sends prompts and answers, on the spans of attempts. Default: not sent.
    ///
    /// They are set when an attempt ends, after all numbers. If a span reaches the SDK's attribute limit,
    /// content is therefore what is left out.
    pub fn content(mut self, content: Content) -> Self {
        self.content = Some(content);
        self
    }

    /// Enables or disables metrics. Default: enabled.
    pub fn metrics(mut self, metrics: bool) -> Self {
        self.metrics = metrics;
        self
    }

    /// Enables or disables spans. Default: enabled. Without spans, the context of [`start()`] is still
    /// current while the source connects, so a span of the HTTP client is a child of the caller's span.
    ///
    /// [`start()`]: l0_core::RunBuilder::start
    pub fn spans(mut self, spans: bool) -> Self {
        self.spans = spans;
        self
    }

    /// Adds keys of metadata. Each becomes an attribute of the same name on the run's spans and metrics. A
    /// value that a source sets replaces the run's value on that source's attempts and numbers. A value
    /// [set](l0_core::RunHandle::set_metadata) while the run is live is added to the run's span when the span
    /// ends. Values are read by [`keys::text`](l0_core::keys::text) and cut to 256 bytes. Empty values are
    /// left out.
    ///
    /// SDKs keep a series for each set of values, up to a limit: 2,000 in the SDK for Rust, where all further
    /// sets share one series. List only keys with few values. You do not need to list `model`, `provider` and
    /// `operation`: they are sent under the names that the conventions define.
    ///
    /// # Errors
    ///
    /// Returns an error if a key is empty, or if this crate already sends an attribute of that name, such as
    /// `gen_ai.request.model` or `l0.outcome`.
    pub fn attribute_keys<I>(mut self, keys: I) -> Result<Self, KeyError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        for key in keys {
            let key = [key.into()];
            self.keys.add(key.clone(), &RULES)?;
            self.span_keys.add(key, &RULES)?;
        }
        Ok(self)
    }

    /// Adds keys of metadata, like [`attribute_keys`](Self::attribute_keys), but for spans only. Use this for
    /// keys with many values, such as a user id.
    ///
    /// # Errors
    ///
    /// Returns an error if a key is empty, or if this crate already sends an attribute of that name.
    pub fn span_attribute_keys<I>(mut self, keys: I) -> Result<Self, KeyError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.span_keys.add(keys, &RULES)?;
        Ok(self)
    }

    /// Creates the interceptor and its instruments. Set the global providers before you call this: a provider
    /// that is set later is not used.
    #[must_use]
    pub fn build(self) -> OtelInterceptor {
        let conventions = self.conventions;
        let table = conventions.table();
        let meter = || {
            self.meter
                .unwrap_or_else(|| global::meter_with_scope(conventions.scope()))
        };
        let tracer = || {
            self.tracer
                .unwrap_or_else(|| Arc::new(global::tracer_with_scope(conventions.scope())))
        };
        let rows = self.dialects.iter().flat_map(|dialect| dialect.rows);
        OtelInterceptor::new(Destination {
            conventions: table,
            instruments: self.metrics.then(|| Instruments::new(table, &meter())),
            tracer: self.spans.then(tracer),
            run_numbers: SpanNumber::of_runs(table),
            attempt_numbers: SpanNumber::of_attempts(table),
            live: LiveSpans::default(),
            keys: self.keys,
            span_keys: self.span_keys,
            rows: rows.collect(),
            content: self.content.filter(|_| self.spans),
        })
    }
}
