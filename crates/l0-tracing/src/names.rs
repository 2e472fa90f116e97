//! The names of spans, events and fields. They match `l0-otel`, which tests check.

use std::sync::LazyLock;
use std::time::Duration;

use l0_core::{Distribution, Quantity, QuantityKind, Usage};

/// The span of a run.
pub(crate) const RUN: &str = "l0.run";
/// The span of an attempt. The operation and the model are in [`OTEL_NAME`], because the name of a span is part of
/// its call site.
pub(crate) const ATTEMPT_SPAN: &str = "l0.attempt";

/// The fields that `tracing-opentelemetry` uses as a span's name, kind and status.
pub(crate) const OTEL_NAME: &str = "otel.name";
pub(crate) const OTEL_KIND: &str = "otel.kind";
pub(crate) const STATUS_CODE: &str = "otel.status_code";
pub(crate) const STATUS_DESCRIPTION: &str = "otel.status_description";

pub(crate) const SESSION_ID: &str = "l0.session_id";
pub(crate) const PARENT_ID: &str = "l0.parent_id";
pub(crate) const OUTCOME: &str = "l0.outcome";
pub(crate) const ATTEMPTS: &str = "l0.attempts";
pub(crate) const KEPT: &str = "l0.kept";
pub(crate) const ATTEMPT: &str = "l0.attempt";
pub(crate) const SOURCE: &str = "l0.source";
pub(crate) const ERROR_TYPE: &str = "error.type";

pub(crate) const OPERATION: &str = "gen_ai.operation.name";
pub(crate) const PROVIDER: &str = "gen_ai.provider.name";
pub(crate) const REQUEST_MODEL: &str = "gen_ai.request.model";
pub(crate) const REQUEST_STREAM: &str = "gen_ai.request.stream";
pub(crate) const CONVERSATION_ID: &str = "gen_ai.conversation.id";
pub(crate) const SERVER_ADDRESS: &str = "server.address";
pub(crate) const SERVER_PORT: &str = "server.port";
pub(crate) const RESPONSE_MODEL: &str = "gen_ai.response.model";
pub(crate) const RESPONSE_ID: &str = "gen_ai.response.id";
pub(crate) const FINISH_REASONS: &str = "gen_ai.response.finish_reasons";

/// The events and their fields. `message` contains the event's name, because `tracing-opentelemetry` sends it as the
/// name.
pub(crate) const MESSAGE: &str = "message";
pub(crate) const NETWORK_ERROR: &str = "l0.network_error";
pub(crate) const RETRY: &str = "l0.retry";
pub(crate) const FALLBACK: &str = "l0.fallback";
pub(crate) const VIOLATION: &str = "l0.violation";
pub(crate) const DRIFT: &str = "l0.drift";
pub(crate) const EXCEPTION: &str = "exception";

pub(crate) const EXCEPTION_TYPE: &str = "exception.type";
pub(crate) const EXCEPTION_MESSAGE: &str = "exception.message";
pub(crate) const RETRIED: &str = "l0.retried";
pub(crate) const RETRY_REASON: &str = "l0.retry.reason";
pub(crate) const RETRY_KIND: &str = "l0.retry.kind";
pub(crate) const RETRY_DELAY: &str = "l0.retry.delay";
pub(crate) const FALLBACK_FROM: &str = "l0.fallback.from";
pub(crate) const FALLBACK_TO: &str = "l0.fallback.to";
pub(crate) const RULE: &str = "l0.rule";
pub(crate) const SEVERITY: &str = "l0.severity";
pub(crate) const RECOVERABLE: &str = "l0.recoverable";
pub(crate) const DRIFT_TYPES: &str = "l0.drift.types";
pub(crate) const DRIFT_CONFIDENCE: &str = "l0.drift.confidence";

pub(crate) const OF_NETWORK_ERRORS: [&str; 3] = [ERROR_TYPE, EXCEPTION_MESSAGE, RETRIED];
pub(crate) const OF_RETRIES: [&str; 4] = [ATTEMPT, RETRY_REASON, RETRY_KIND, RETRY_DELAY];
pub(crate) const OF_FALLBACKS: [&str; 2] = [FALLBACK_FROM, FALLBACK_TO];
pub(crate) const OF_VIOLATIONS: [&str; 3] = [RULE, SEVERITY, RECOVERABLE];
pub(crate) const OF_DRIFT: [&str; 2] = [DRIFT_TYPES, DRIFT_CONFIDENCE];
pub(crate) const OF_EXCEPTIONS: [&str; 2] = [EXCEPTION_TYPE, EXCEPTION_MESSAGE];

/// The fields of a run's span other than numbers, in the order in which they are set.
const OF_RUNS: [&str; 9] = [
    SESSION_ID,
    PARENT_ID,
    CONVERSATION_ID,
    OUTCOME,
    ERROR_TYPE,
    ATTEMPTS,
    KEPT,
    STATUS_CODE,
    STATUS_DESCRIPTION,
];

/// The fields set at the start of an attempt's span.
const OF_ATTEMPTS: [&str; 12] = [
    OTEL_NAME,
    OTEL_KIND,
    OPERATION,
    PROVIDER,
    REQUEST_MODEL,
    REQUEST_STREAM,
    SESSION_ID,
    CONVERSATION_ID,
    SERVER_ADDRESS,
    SERVER_PORT,
    ATTEMPT,
    SOURCE,
];

/// The fields set at the end of an attempt's span.
const OF_ENDED_ATTEMPTS: [&str; 7] = [
    OUTCOME,
    ERROR_TYPE,
    RESPONSE_MODEL,
    RESPONSE_ID,
    FINISH_REASONS,
    STATUS_CODE,
    STATUS_DESCRIPTION,
];

/// A parameter of a request.
pub(crate) struct Parameter {
    /// The name in the description of a source.
    pub(crate) name: &'static str,
    pub(crate) field: &'static str,
    /// `true` if it is sent as a double, even if the value is a whole number.
    pub(crate) is_double: bool,
}

/// The parameters that the conventions name. All others are left out, because fields are part of a call site.
pub(crate) static PARAMETERS: [Parameter; 11] = [
    double("temperature", "gen_ai.request.temperature"),
    double("top_p", "gen_ai.request.top_p"),
    double("top_k", "gen_ai.request.top_k"),
    other("max_tokens", "gen_ai.request.max_tokens"),
    double("frequency_penalty", "gen_ai.request.frequency_penalty"),
    double("presence_penalty", "gen_ai.request.presence_penalty"),
    other("seed", "gen_ai.request.seed"),
    other("choice.count", "gen_ai.request.choice.count"),
    other("stop_sequences", "gen_ai.request.stop_sequences"),
    other("encoding_formats", "gen_ai.request.encoding_formats"),
    other(
        "embeddings.dimension.count",
        "gen_ai.embeddings.dimension.count",
    ),
];

const fn double(name: &'static str, field: &'static str) -> Parameter {
    Parameter {
        name,
        field,
        is_double: true,
    }
}

const fn other(name: &'static str, field: &'static str) -> Parameter {
    Parameter {
        name,
        field,
        is_double: false,
    }
}

/// A number of a run's span.
pub(crate) struct RunNumber {
    pub(crate) field: &'static str,
    pub(crate) quantity: &'static Quantity,
    /// The statistic to record, if the number is a distribution.
    pub(crate) statistic: Option<Statistic>,
}

type Statistic = fn(&Distribution) -> Option<Duration>;

/// The statistics of a distribution, each recorded in one field.
const STATISTICS: [(&str, Statistic); 5] = [
    ("avg", Distribution::mean),
    ("p50", Distribution::p50),
    ("p90", Distribution::p90),
    ("p99", Distribution::p99),
    ("max", |all| Some(all.max())),
];

/// The numbers that a run's span does not have. The length of the span is the duration of the run. Usage is on the
/// spans of attempts, because backends sum all values in a trace.
const NOT_OF_RUNS: [&str; 7] = [
    "duration",
    "usage.input",
    "usage.output",
    "usage.total",
    "usage.cached_input",
    "usage.cache_write_input",
    "usage.reasoning",
];

/// The numbers of a run's span, derived from the one list of numbers.
pub(crate) static RUN_NUMBERS: LazyLock<Vec<RunNumber>> = LazyLock::new(|| {
    let mut numbers = Vec::new();
    for quantity in Quantity::ALL {
        if quantity.is_labeled()
            || quantity.is_of_attempts()
            || NOT_OF_RUNS.contains(&quantity.name)
        {
            continue;
        }
        let mut add = |field: String, statistic| {
            numbers.push(RunNumber {
                field: field.leak(),
                quantity,
                statistic,
            });
        };
        let name = format!("l0.{}", quantity.name);
        if quantity.kind == QuantityKind::Distribution {
            for (suffix, statistic) in STATISTICS {
                add(format!("{name}.{suffix}"), Some(statistic));
            }
        } else {
            add(name, None);
        }
    }
    numbers
});

type OfUsage = fn(Usage) -> Option<u64>;

/// The usage that the provider reports, on an attempt's span. Cache writes have two names: the conventions are about
/// to rename the attribute, and most backends read the old name.
pub(crate) const USAGE: [(&str, OfUsage); 7] = [
    ("gen_ai.usage.input_tokens", |usage| usage.input),
    ("gen_ai.usage.output_tokens", |usage| usage.output),
    ("l0.usage.total", |usage| usage.total),
    ("gen_ai.usage.cache_read.input_tokens", |usage| {
        usage.cached_input
    }),
    ("gen_ai.usage.cache_write.input_tokens", |usage| {
        usage.cache_write_input
    }),
    ("gen_ai.usage.cache_creation.input_tokens", |usage| {
        usage.cache_write_input
    }),
    ("gen_ai.usage.reasoning.output_tokens", |usage| {
        usage.reasoning
    }),
];

pub(crate) const ATTEMPT_TOKENS: &str = "l0.attempt_tokens";
/// The cost in US dollars, because backends assume that currency.
pub(crate) const COST: &str = "gen_ai.usage.cost";
pub(crate) const TIME_TO_FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";

/// Returns the fields of a run's span, except metadata.
pub(crate) fn of_runs() -> Vec<&'static str> {
    let numbers = RUN_NUMBERS.iter().map(|number| number.field);
    OF_RUNS.into_iter().chain(numbers).collect()
}

/// Returns the fields of an attempt's span, except metadata.
pub(crate) fn of_attempts() -> Vec<&'static str> {
    let parameters = PARAMETERS.iter().map(|parameter| parameter.field);
    let usage = USAGE.iter().map(|(field, _)| *field);
    OF_ATTEMPTS
        .into_iter()
        .chain(parameters)
        .chain(OF_ENDED_ATTEMPTS)
        .chain([ATTEMPT_TOKENS, TIME_TO_FIRST_CHUNK, COST])
        .chain(usage)
        .collect()
}

/// Returns `true` if a field of this name is set regardless of the metadata.
pub(crate) fn is_filled(name: &str) -> bool {
    let is_parameter = PARAMETERS.iter().any(|parameter| parameter.field == name);
    let events: [&[&str]; 7] = [
        &[MESSAGE],
        &OF_NETWORK_ERRORS,
        &OF_RETRIES,
        &OF_FALLBACKS,
        &OF_VIOLATIONS,
        &OF_DRIFT,
        &OF_EXCEPTIONS,
    ];
    let spans = [of_runs(), of_attempts()].concat();
    !is_parameter && (spans.contains(&name) || events.concat().contains(&name))
}
