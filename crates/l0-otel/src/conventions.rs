//! The tables of names, units, boundaries and attributes, one for each version of the semantic conventions.
//! A new version is another value of the same type.

use std::borrow::Cow;
use std::fmt;

use opentelemetry::InstrumentationScope;

/// A version of OpenTelemetry's semantic conventions for generative AI. It determines the names under which
/// runs are sent. One version is sent at a time.
///
/// ```
/// use l0_otel::{Conventions, OtelInterceptor};
///
/// let otel = OtelInterceptor::builder()
///     .conventions(Conventions::DEVELOPMENT)
///     .build();
/// # drop(otel);
/// ```
#[derive(Clone, Copy)]
pub struct Conventions(&'static Table);

impl Conventions {
    /// Version 1.41, the last version before the conventions for generative AI moved to a separate
    /// repository. This is the default.
    pub const V1_41: Self = Self(&V1_41);
    /// The next version, which is not released yet. Its names can change with any release of this crate.
    /// Usage is sent as counters named `gen_ai.client.inference.usage.*`. The other metrics of calls are named
    /// `gen_ai.client.inference.*`.
    pub const DEVELOPMENT: Self = Self(&DEVELOPMENT);

    /// All versions.
    pub(crate) const ALL: [Self; 2] = [Self::V1_41, Self::DEVELOPMENT];

    pub(crate) const fn table(self) -> &'static Table {
        self.0
    }

    /// Returns the instrumentation scope of this crate under this version: the crate's name and version, and
    /// the schema URL of the conventions. Use it to get a meter or a tracer from your own provider.
    #[must_use]
    pub fn scope(self) -> InstrumentationScope {
        InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(self.0.schema_url)
            .build()
    }
}

impl Default for Conventions {
    fn default() -> Self {
        Self::V1_41
    }
}

impl fmt::Debug for Conventions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Conventions")
            .field(&self.0.schema_url)
            .finish()
    }
}

/// The names of one version of OpenTelemetry's semantic conventions for generative AI, and L0's names where
/// the version defines none.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) schema_url: &'static str,
    /// The operation if neither metadata nor the source names one.
    pub(crate) default_operation: &'static str,
    /// The name of a run's span.
    pub(crate) run: &'static str,
    /// The prefix of the names of request parameters.
    pub(crate) parameters: &'static str,
    /// The request parameters without this prefix, and their attribute names.
    pub(crate) other_parameters: &'static [(&'static str, &'static str)],
    /// The parameters sent as doubles, even if the value is a whole number.
    pub(crate) doubles: &'static [&'static str],
    pub(crate) metrics: Metrics,
    /// The numbers of runs that are not sent under their own names.
    pub(crate) numbers: &'static [Number],
    /// The attributes of the points of all other numbers.
    pub(crate) attributes_of_numbers: &'static [&'static str],
    pub(crate) keys: Keys,
    pub(crate) events: Events,
}

/// The metrics that count things as they happen, in every run.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) active_runs: Metric,
    pub(crate) runs: Metric,
    pub(crate) failures: Metric,
    pub(crate) retries: Metric,
    pub(crate) network_errors: Metric,
    pub(crate) violations: Metric,
    pub(crate) drift: Metric,
    pub(crate) fallbacks: Metric,
    /// The gaps between tokens, in measured runs only.
    pub(crate) gaps: Metric,
}

/// One instrument.
#[derive(Debug, Clone)]
pub(crate) struct Metric {
    pub(crate) name: Cow<'static, str>,
    pub(crate) unit: Cow<'static, str>,
    pub(crate) description: &'static str,
    /// The bucket boundaries of a histogram. Empty for any other instrument.
    pub(crate) boundaries: &'static [f64],
    /// The attributes that its points can have, in addition to those of every point.
    pub(crate) attributes: &'static [&'static str],
}

/// The metric and the attributes in which one number of [`Quantity::ALL`](l0_core::Quantity::ALL) is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number {
    /// The name of the quantity.
    pub(crate) quantity: &'static str,
    pub(crate) metric: Spelling<&'static Metric>,
    /// The `gen_ai.token.type`, in a metric that holds several numbers.
    pub(crate) token_type: Option<&'static str>,
    /// The attribute of the run's span.
    pub(crate) attribute: Spelling<&'static str>,
    /// The attributes of the spans of attempts.
    pub(crate) of_attempts: &'static [&'static str],
}

/// The name under which something is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spelling<T> {
    /// The number's own name, prefixed with `l0.`.
    Own,
    /// A name from the conventions or another fixed name.
    Named(T),
    /// Not sent, because something else already carries the same information.
    Nowhere,
}

/// The names of attributes.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) operation: &'static str,
    pub(crate) provider: &'static str,
    pub(crate) request_model: &'static str,
    pub(crate) request_stream: &'static str,
    pub(crate) conversation_id: &'static str,
    pub(crate) server_address: &'static str,
    pub(crate) server_port: &'static str,
    pub(crate) response_model: &'static str,
    pub(crate) response_id: &'static str,
    pub(crate) finish_reasons: &'static str,
    pub(crate) input_messages: &'static str,
    pub(crate) output_messages: &'static str,
    pub(crate) system_instructions: &'static str,
    pub(crate) tool_definitions: &'static str,
    pub(crate) token_type: &'static str,
    pub(crate) error_type: &'static str,
    pub(crate) exception_type: &'static str,
    pub(crate) error_message: &'static str,
    pub(crate) session_id: &'static str,
    pub(crate) parent_id: &'static str,
    pub(crate) outcome: &'static str,
    pub(crate) kept: &'static str,
    pub(crate) attempts: &'static str,
    pub(crate) attempt: &'static str,
    pub(crate) source: &'static str,
    pub(crate) retried: &'static str,
    pub(crate) retry_reason: &'static str,
    pub(crate) retry_kind: &'static str,
    pub(crate) retry_delay: &'static str,
    pub(crate) fallback_from: &'static str,
    pub(crate) fallback_to: &'static str,
    pub(crate) rule: &'static str,
    pub(crate) severity: &'static str,
    pub(crate) recoverable: &'static str,
    pub(crate) drift_types: &'static str,
    pub(crate) drift_confidence: &'static str,
}

impl Keys {
    /// Returns every name.
    pub(crate) fn all(&self) -> [&'static str; 36] {
        // No `..`: the compiler reports a field that is missing here.
        let Self {
            operation,
            provider,
            request_model,
            request_stream,
            conversation_id,
            server_address,
            server_port,
            response_model,
            response_id,
            finish_reasons,
            input_messages,
            output_messages,
            system_instructions,
            tool_definitions,
            token_type,
            error_type,
            exception_type,
            error_message,
            session_id,
            parent_id,
            outcome,
            kept,
            attempts,
            attempt,
            source,
            retried,
            retry_reason,
            retry_kind,
            retry_delay,
            fallback_from,
            fallback_to,
            rule,
            severity,
            recoverable,
            drift_types,
            drift_confidence,
        } = *self;
        [
            operation,
            provider,
            request_model,
            request_stream,
            conversation_id,
            server_address,
            server_port,
            response_model,
            response_id,
            finish_reasons,
            input_messages,
            output_messages,
            system_instructions,
            tool_definitions,
            token_type,
            error_type,
            exception_type,
            error_message,
            session_id,
            parent_id,
            outcome,
            kept,
            attempts,
            attempt,
            source,
            retried,
            retry_reason,
            retry_kind,
            retry_delay,
            fallback_from,
            fallback_to,
            rule,
            severity,
            recoverable,
            drift_types,
            drift_confidence,
        ]
    }
}

/// The names of spans' events.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) network_error: &'static str,
    pub(crate) retry: &'static str,
    pub(crate) fallback: &'static str,
    pub(crate) violation: &'static str,
    pub(crate) drift: &'static str,
    /// The event of a span that failed.
    pub(crate) exception: &'static str,
}

/// Boundaries of histograms of times.
pub(crate) const SECONDS: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];

/// Boundaries of histograms of counts.
pub(crate) const COUNTS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Boundaries of histograms of rates. The conventions define none.
pub(crate) const RATES: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0, 200.0, 300.0, 500.0,
    1_000.0,
];

const RESPONSE_MODEL: &str = "gen_ai.response.model";
const ERROR_TYPE: &str = "error.type";
const OUTCOME: &str = "l0.outcome";
const RETRY_REASON: &str = "l0.retry.reason";
const RETRY_KIND: &str = "l0.retry.kind";
const FALLBACK_FROM: &str = "l0.fallback.from";
const FALLBACK_TO: &str = "l0.fallback.to";
const RULE: &str = "l0.rule";
const SEVERITY: &str = "l0.severity";

const DURATION: &str = "Duration of runs, including retries";
const FIRST_CHUNK: &str = "Time from the start of a run to its first token";
const PER_CHUNK: &str = "Time between two consecutive tokens of an attempt";

static OPERATION_DURATION: Metric = histogram(
    "gen_ai.client.operation.duration",
    "s",
    DURATION,
    SECONDS,
    &[RESPONSE_MODEL, ERROR_TYPE, OUTCOME],
);
static OPERATION_FIRST_CHUNK: Metric = histogram(
    "gen_ai.client.operation.time_to_first_chunk",
    "s",
    FIRST_CHUNK,
    SECONDS,
    &[RESPONSE_MODEL],
);
static TOKEN_USAGE: Metric = histogram(
    "gen_ai.client.token.usage",
    "{token}",
    "Tokens of prompts and answers, as reported by providers",
    COUNTS,
    &[RESPONSE_MODEL],
);

static INFERENCE_DURATION: Metric = histogram(
    "gen_ai.client.inference.duration",
    "s",
    DURATION,
    SECONDS,
    &[RESPONSE_MODEL, ERROR_TYPE, OUTCOME],
);
static INFERENCE_FIRST_CHUNK: Metric = histogram(
    "gen_ai.client.inference.time_to_first_chunk",
    "s",
    FIRST_CHUNK,
    SECONDS,
    &[RESPONSE_MODEL],
);
static INFERENCE_INPUT: Metric = tokens(
    "gen_ai.client.inference.usage.input_tokens",
    "Prompt tokens of all attempts, as reported by providers",
);
static INFERENCE_OUTPUT: Metric = tokens(
    "gen_ai.client.inference.usage.output_tokens",
    "Tokens generated by all attempts, as reported by providers",
);
static INFERENCE_CACHE_READ: Metric = tokens(
    "gen_ai.client.inference.usage.cache_read.input_tokens",
    "Prompt tokens read from the provider's cache",
);
static INFERENCE_CACHE_WRITE: Metric = tokens(
    "gen_ai.client.inference.usage.cache_write.input_tokens",
    "Prompt tokens written to the provider's cache",
);
static INFERENCE_REASONING: Metric = tokens(
    "gen_ai.client.inference.usage.reasoning.output_tokens",
    "Reasoning tokens generated",
);

static V1_41: Table = table(
    "https://opentelemetry.io/schemas/1.41.0",
    &[
        "temperature",
        "top_p",
        "top_k",
        "frequency_penalty",
        "presence_penalty",
    ],
    histogram(
        "gen_ai.client.operation.time_per_output_chunk",
        "s",
        PER_CHUNK,
        SECONDS,
        &[RESPONSE_MODEL],
    ),
    &V1_41_NUMBERS,
);

static V1_41_NUMBERS: [Number; NUMBERS] = numbers(
    &OPERATION_DURATION,
    &OPERATION_FIRST_CHUNK,
    [
        usage("usage.input", Spelling::Named(&TOKEN_USAGE), INPUT).of_type("input"),
        usage("usage.output", Spelling::Named(&TOKEN_USAGE), OUTPUT).of_type("output"),
        usage("usage.cached_input", Spelling::Own, CACHE_READ),
        usage("usage.cache_write_input", Spelling::Own, CACHE_WRITE),
        usage("usage.reasoning", Spelling::Own, REASONING),
    ],
);

static DEVELOPMENT: Table = table(
    "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev",
    &[
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
    ],
    histogram(
        "gen_ai.client.inference.time_per_output_chunk",
        "s",
        PER_CHUNK,
        SECONDS,
        &[RESPONSE_MODEL],
    ),
    &DEVELOPMENT_NUMBERS,
);

static DEVELOPMENT_NUMBERS: [Number; NUMBERS] = numbers(
    &INFERENCE_DURATION,
    &INFERENCE_FIRST_CHUNK,
    [
        usage("usage.input", Spelling::Named(&INFERENCE_INPUT), INPUT),
        usage("usage.output", Spelling::Named(&INFERENCE_OUTPUT), OUTPUT),
        usage(
            "usage.cached_input",
            Spelling::Named(&INFERENCE_CACHE_READ),
            CACHE_READ,
        ),
        usage(
            "usage.cache_write_input",
            Spelling::Named(&INFERENCE_CACHE_WRITE),
            CACHE_WRITE,
        ),
        usage(
            "usage.reasoning",
            Spelling::Named(&INFERENCE_REASONING),
            REASONING,
        ),
    ],
);

const INPUT: &[&str] = &["gen_ai.usage.input_tokens"];
const OUTPUT: &[&str] = &["gen_ai.usage.output_tokens"];
const CACHE_READ: &[&str] = &["gen_ai.usage.cache_read.input_tokens"];
/// The first name is from the development version, the second from 1.41. Most backends read the second, so
/// both are sent.
const CACHE_WRITE: &[&str] = &[
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens",
];
const REASONING: &[&str] = &["gen_ai.usage.reasoning.output_tokens"];

/// The number of rows below.
const NUMBERS: usize = 24;

/// Returns the numbers of a version. The parameters are what differs between versions.
const fn numbers(
    duration: &'static Metric,
    first_chunk: &'static Metric,
    [input, output, cached_input, cache_write_input, reasoning]: [Number; 5],
) -> [Number; NUMBERS] {
    [
        // The length of the span is the duration of the run.
        number(
            "duration",
            Spelling::Named(duration),
            Spelling::Nowhere,
            &[],
        ),
        number(
            "tokens.total",
            Spelling::Own,
            Spelling::Own,
            &["l0.attempt_tokens"],
        ),
        // The run's span has the time of the run, an attempt's span the time of the attempt.
        number(
            "time_to_first_token",
            Spelling::Named(first_chunk),
            Spelling::Own,
            &["gen_ai.response.time_to_first_chunk"],
        ),
        number(
            "attempt_time_to_first_token",
            Spelling::Own,
            Spelling::Nowhere,
            &[],
        ),
        // `Metrics::gaps` records the gaps as they happen.
        counted("inter_token", Spelling::Own),
        input,
        output,
        usage("usage.total", Spelling::Own, &["l0.usage.total"]),
        cached_input,
        cache_write_input,
        reasoning,
        // Not in the conventions, but read by the backends that show costs.
        usage("cost", Spelling::Own, &["gen_ai.usage.cost"]),
        // Counted as they happen, in every run: `Metrics` has these by reason, type or rule.
        counted("retries.total", Spelling::Own),
        counted("retries.network", Spelling::Own),
        counted("retries.model", Spelling::Own),
        counted("fallbacks", Spelling::Own),
        counted("network.errors", Spelling::Own),
        counted("guardrails.violations", Spelling::Own),
        counted("drift.detected", Spelling::Own),
        // Counted by `Metrics` too. Spans carry them in their events, `l0.outcome` and `error.type`.
        counted("network.errors_by_type", Spelling::Nowhere),
        counted("guardrails.violations_by_severity", Spelling::Nowhere),
        counted("guardrails.violations_by_rule", Spelling::Nowhere),
        counted("runs", Spelling::Nowhere),
        counted("failures", Spelling::Nowhere),
    ]
}

/// Returns the table of a version. The parameters are what differs between versions.
const fn table(
    schema_url: &'static str,
    doubles: &'static [&'static str],
    gaps: Metric,
    numbers: &'static [Number],
) -> Table {
    Table {
        schema_url,
        default_operation: "chat",
        run: "l0.run",
        parameters: "gen_ai.request.",
        other_parameters: &[(
            "embeddings.dimension.count",
            "gen_ai.embeddings.dimension.count",
        )],
        doubles,
        metrics: Metrics {
            active_runs: count(
                "l0.runs.active",
                "{run}",
                "Runs that have started but not finished",
                &[],
            ),
            runs: count(
                "l0.runs",
                "{run}",
                "Runs that have finished, by outcome",
                &[OUTCOME],
            ),
            failures: count(
                "l0.failures",
                "{run}",
                "Runs that failed, by error type",
                &[ERROR_TYPE],
            ),
            retries: count(
                "l0.retries",
                "{retry}",
                "Retries",
                &[RETRY_REASON, RETRY_KIND],
            ),
            network_errors: count(
                "l0.network.errors",
                "{error}",
                "Network errors, including those that were retried",
                &[ERROR_TYPE],
            ),
            violations: count(
                "l0.guardrails.violations",
                "{violation}",
                "Guardrail violations",
                &[RULE, SEVERITY],
            ),
            drift: count("l0.drift.detected", "{detection}", "Drift detections", &[]),
            fallbacks: count(
                "l0.fallbacks",
                "{fallback}",
                "Fallbacks to another source",
                &[FALLBACK_FROM, FALLBACK_TO],
            ),
            gaps,
        },
        numbers,
        attributes_of_numbers: &[RESPONSE_MODEL],
        keys: Keys {
            operation: "gen_ai.operation.name",
            provider: "gen_ai.provider.name",
            request_model: "gen_ai.request.model",
            request_stream: "gen_ai.request.stream",
            conversation_id: "gen_ai.conversation.id",
            server_address: "server.address",
            server_port: "server.port",
            response_model: RESPONSE_MODEL,
            response_id: "gen_ai.response.id",
            finish_reasons: "gen_ai.response.finish_reasons",
            input_messages: "gen_ai.input.messages",
            output_messages: "gen_ai.output.messages",
            system_instructions: "gen_ai.system_instructions",
            tool_definitions: "gen_ai.tool.definitions",
            token_type: "gen_ai.token.type",
            error_type: ERROR_TYPE,
            exception_type: "exception.type",
            error_message: "exception.message",
            session_id: "l0.session_id",
            parent_id: "l0.parent_id",
            outcome: OUTCOME,
            kept: "l0.kept",
            attempts: "l0.attempts",
            attempt: "l0.attempt",
            source: "l0.source",
            retried: "l0.retried",
            retry_reason: RETRY_REASON,
            retry_kind: RETRY_KIND,
            retry_delay: "l0.retry.delay",
            fallback_from: FALLBACK_FROM,
            fallback_to: FALLBACK_TO,
            rule: RULE,
            severity: SEVERITY,
            recoverable: "l0.recoverable",
            drift_types: "l0.drift.types",
            drift_confidence: "l0.drift.confidence",
        },
        events: Events {
            network_error: "l0.network_error",
            retry: "l0.retry",
            fallback: "l0.fallback",
            violation: "l0.violation",
            drift: "l0.drift",
            exception: "exception",
        },
    }
}

const fn count(
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    attributes: &'static [&'static str],
) -> Metric {
    histogram(name, unit, description, &[], attributes)
}

const fn histogram(
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    boundaries: &'static [f64],
    attributes: &'static [&'static str],
) -> Metric {
    Metric {
        name: Cow::Borrowed(name),
        unit: Cow::Borrowed(unit),
        description,
        boundaries,
        attributes,
    }
}

const fn number(
    quantity: &'static str,
    metric: Spelling<&'static Metric>,
    attribute: Spelling<&'static str>,
    of_attempts: &'static [&'static str],
) -> Number {
    Number {
        quantity,
        metric,
        token_type: None,
        attribute,
        of_attempts,
    }
}

/// Returns the row of a number of usage or cost. Only the spans of attempts have it, because backends sum all
/// values in a trace.
const fn usage(
    quantity: &'static str,
    metric: Spelling<&'static Metric>,
    of_attempts: &'static [&'static str],
) -> Number {
    number(quantity, metric, Spelling::Nowhere, of_attempts)
}

/// Returns a counter of tokens.
const fn tokens(name: &'static str, description: &'static str) -> Metric {
    count(name, "{token}", description, &[RESPONSE_MODEL])
}

impl Number {
    /// Sets the `gen_ai.token.type`, for a metric that holds several numbers.
    const fn of_type(mut self, token_type: &'static str) -> Self {
        self.token_type = Some(token_type);
        self
    }
}

/// Returns the row of a number that has no metric, because [`Metrics`] counts it.
const fn counted(quantity: &'static str, attribute: Spelling<&'static str>) -> Number {
    number(quantity, Spelling::Nowhere, attribute, &[])
}
