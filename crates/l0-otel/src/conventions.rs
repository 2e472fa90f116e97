//! Conventions: the one table of names, units, boundaries and attributes. Data only: the next version
//! of the semantic conventions is another value of the same type.

/// What a version of OpenTelemetry's semantic conventions for generative AI calls things, and what
/// L0 calls the things that it has no name for.
#[derive(Debug)]
pub(crate) struct Conventions {
    pub(crate) schema_url: &'static str,
    /// What is done, where metadata does not say.
    pub(crate) default_operation: &'static str,
    /// How names of attributes begin that no metadata may have.
    pub(crate) reserved: &'static [&'static str],
    pub(crate) metrics: Metrics,
    pub(crate) keys: Keys,
    pub(crate) events: Events,
}

#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) operation_duration: Metric,
    pub(crate) time_to_first_chunk: Metric,
    pub(crate) time_per_output_chunk: Metric,
    pub(crate) token_usage: Metric,
    pub(crate) active_runs: Metric,
    pub(crate) runs: Metric,
    pub(crate) retries: Metric,
    pub(crate) network_errors: Metric,
    pub(crate) violations: Metric,
    pub(crate) drift: Metric,
}

/// One instrument. Which kind it is, the code that records into it knows.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) description: &'static str,
    /// Of a histogram.
    pub(crate) boundaries: &'static [f64],
    /// Those that it may have, besides the ones that an application adds.
    pub(crate) attributes: &'static [&'static str],
}

/// The names of attributes.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) operation: &'static str,
    pub(crate) provider: &'static str,
    pub(crate) request_model: &'static str,
    pub(crate) request_stream: &'static str,
    pub(crate) conversation_id: &'static str,
    pub(crate) response_model: &'static str,
    pub(crate) response_id: &'static str,
    pub(crate) finish_reasons: &'static str,
    pub(crate) time_to_first_chunk: &'static str,
    pub(crate) input_tokens: &'static str,
    pub(crate) output_tokens: &'static str,
    pub(crate) cached_input_tokens: &'static str,
    pub(crate) reasoning_tokens: &'static str,
    pub(crate) token_type: &'static str,
    pub(crate) error_type: &'static str,
    pub(crate) error_message: &'static str,
    pub(crate) session_id: &'static str,
    pub(crate) outcome: &'static str,
    pub(crate) attempts: &'static str,
    pub(crate) tokens: &'static str,
    pub(crate) attempt: &'static str,
    pub(crate) retried: &'static str,
    pub(crate) retry_reason: &'static str,
    pub(crate) retry_kind: &'static str,
    pub(crate) retry_delay: &'static str,
    pub(crate) rule: &'static str,
    pub(crate) severity: &'static str,
    pub(crate) recoverable: &'static str,
    pub(crate) drift_types: &'static str,
    pub(crate) drift_confidence: &'static str,
}

/// The names of a span's events.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) attempt: &'static str,
    pub(crate) network_error: &'static str,
    pub(crate) retry: &'static str,
    pub(crate) violation: &'static str,
    pub(crate) drift: &'static str,
}

/// The version in use.
pub(crate) static CURRENT: &Conventions = &V1_41;

const SECONDS: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];

const TOKENS: &[f64] = &[
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

const OPERATION: &str = "gen_ai.operation.name";
const PROVIDER: &str = "gen_ai.provider.name";
const REQUEST_MODEL: &str = "gen_ai.request.model";
const RESPONSE_MODEL: &str = "gen_ai.response.model";
const TOKEN_TYPE: &str = "gen_ai.token.type";
const ERROR_TYPE: &str = "error.type";
const OUTCOME: &str = "l0.outcome";
const RETRY_REASON: &str = "l0.retry.reason";
const RETRY_KIND: &str = "l0.retry.kind";
const RULE: &str = "l0.rule";
const SEVERITY: &str = "l0.severity";

static V1_41: Conventions = Conventions {
    schema_url: "https://opentelemetry.io/schemas/1.41.0",
    default_operation: "chat",
    reserved: &["error.", "exception.", "gen_ai.", "l0."],
    metrics: Metrics {
        operation_duration: Metric {
            name: "gen_ai.client.operation.duration",
            unit: "s",
            description: "Duration of runs, retries included",
            boundaries: SECONDS,
            attributes: &[
                OPERATION,
                PROVIDER,
                REQUEST_MODEL,
                RESPONSE_MODEL,
                ERROR_TYPE,
                OUTCOME,
            ],
        },
        time_to_first_chunk: Metric {
            name: "gen_ai.client.operation.time_to_first_chunk",
            unit: "s",
            description: "Time from the start of runs to their first token",
            boundaries: SECONDS,
            attributes: &[OPERATION, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL],
        },
        time_per_output_chunk: Metric {
            name: "gen_ai.client.operation.time_per_output_chunk",
            unit: "s",
            description: "Time between two tokens of one attempt",
            boundaries: SECONDS,
            attributes: &[OPERATION, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL],
        },
        token_usage: Metric {
            name: "gen_ai.client.token.usage",
            unit: "{token}",
            description: "Tokens of prompts and answers, as providers told them",
            boundaries: TOKENS,
            attributes: &[
                OPERATION,
                PROVIDER,
                REQUEST_MODEL,
                RESPONSE_MODEL,
                TOKEN_TYPE,
            ],
        },
        active_runs: Metric {
            name: "l0.runs.active",
            unit: "{run}",
            description: "Runs that have started and not finished",
            boundaries: &[],
            attributes: &[OPERATION, PROVIDER, REQUEST_MODEL],
        },
        runs: Metric {
            name: "l0.runs",
            unit: "{run}",
            description: "Runs that have finished, by outcome",
            boundaries: &[],
            attributes: &[OPERATION, PROVIDER, REQUEST_MODEL, OUTCOME],
        },
        retries: Metric {
            name: "l0.retries",
            unit: "{retry}",
            description: "Retries",
            boundaries: &[],
            attributes: &[OPERATION, PROVIDER, REQUEST_MODEL, RETRY_REASON, RETRY_KIND],
        },
        network_errors: Metric {
            name: "l0.network.errors",
            unit: "{error}",
            description: "Network errors, retried ones included",
            boundaries: &[],
            attributes: &[OPERATION, PROVIDER, REQUEST_MODEL, ERROR_TYPE],
        },
        violations: Metric {
            name: "l0.guardrails.violations",
            unit: "{violation}",
            description: "Guardrail violations",
            boundaries: &[],
            attributes: &[OPERATION, PROVIDER, REQUEST_MODEL, RULE, SEVERITY],
        },
        drift: Metric {
            name: "l0.drift.detected",
            unit: "{detection}",
            description: "Times that drift was found",
            boundaries: &[],
            attributes: &[OPERATION, PROVIDER, REQUEST_MODEL],
        },
    },
    keys: Keys {
        operation: OPERATION,
        provider: PROVIDER,
        request_model: REQUEST_MODEL,
        request_stream: "gen_ai.request.stream",
        conversation_id: "gen_ai.conversation.id",
        response_model: RESPONSE_MODEL,
        response_id: "gen_ai.response.id",
        finish_reasons: "gen_ai.response.finish_reasons",
        time_to_first_chunk: "gen_ai.response.time_to_first_chunk",
        input_tokens: "gen_ai.usage.input_tokens",
        output_tokens: "gen_ai.usage.output_tokens",
        cached_input_tokens: "gen_ai.usage.cache_read.input_tokens",
        reasoning_tokens: "gen_ai.usage.reasoning.output_tokens",
        token_type: TOKEN_TYPE,
        error_type: ERROR_TYPE,
        error_message: "exception.message",
        session_id: "l0.session_id",
        outcome: OUTCOME,
        attempts: "l0.attempts",
        tokens: "l0.tokens",
        attempt: "l0.attempt",
        retried: "l0.retried",
        retry_reason: RETRY_REASON,
        retry_kind: RETRY_KIND,
        retry_delay: "l0.retry.delay",
        rule: RULE,
        severity: SEVERITY,
        recoverable: "l0.recoverable",
        drift_types: "l0.drift.types",
        drift_confidence: "l0.drift.confidence",
    },
    events: Events {
        attempt: "l0.attempt",
        network_error: "l0.network_error",
        retry: "l0.retry",
        violation: "l0.violation",
        drift: "l0.drift",
    },
};
