//! The dialects that this crate provides.

use l0_core::Quantity;

use crate::dialect::{Dialect, Form, On, Reads, Row, quantity};

const OUTCOME: &str = "l0.outcome";

/// The attributes that [Langfuse](https://langfuse.com) reads: the time to first token, the type, level, usage
/// and cost of an observation, and the session, user and tags.
pub static LANGFUSE: Dialect = Dialect::new(
    "langfuse",
    &[
        Row::constant("langfuse.observation.type", "generation"),
        Row::quantity(
            "langfuse.observation.completion_start_time",
            "time_to_first_token",
        )
        .form(Form::Time),
        // Langfuse prices each type of usage separately, so no type can include another.
        Row::object(
            "langfuse.observation.usage_details",
            &[
                ("input", WITHOUT_CACHE),
                ("input_cache_read", Reads::quantity("usage.cached_input")),
                (
                    "input_cache_creation",
                    Reads::quantity("usage.cache_write_input"),
                ),
                ("output", WITHOUT_REASONING),
                (
                    "output_reasoning_tokens",
                    Reads::quantity("usage.reasoning"),
                ),
                ("total", Reads::quantity("usage.total")),
            ],
        ),
        Row::object(
            "langfuse.observation.cost_details",
            &[("total", Reads::quantity("cost"))],
        ),
        // An aborted or dropped run did not fail and did not complete.
        Row::words(
            "langfuse.observation.level",
            OUTCOME,
            &[
                ("completed", "DEFAULT"),
                ("failed", "ERROR"),
                ("truncated", "ERROR"),
                ("timed_out", "ERROR"),
                ("limited", "ERROR"),
                ("aborted", "WARNING"),
                ("dropped", "WARNING"),
            ],
        )
        .on(On::Both),
        Row::words(
            "langfuse.observation.status_message",
            OUTCOME,
            &[("aborted", "aborted"), ("dropped", "dropped")],
        )
        .on(On::Both),
        Row::attribute("session.id", "gen_ai.conversation.id").on(On::Both),
        Row::metadata("user.id", "user_id").on(On::Both),
        Row::metadata("langfuse.trace.tags", "tags").on(On::Both),
    ],
);

const WITHOUT_CACHE: Reads = Reads::Difference(quantity("usage.input"), CACHED);
const CACHED: &[&Quantity] = &[
    quantity("usage.cached_input"),
    quantity("usage.cache_write_input"),
];
const WITHOUT_REASONING: Reads =
    Reads::Difference(quantity("usage.output"), &[quantity("usage.reasoning")]);

/// The attributes of the [OpenInference](https://github.com/Arize-ai/openinference) conventions, which Phoenix
/// and other backends read. Usage is only on the spans of attempts.
pub static OPENINFERENCE: Dialect = Dialect::new(
    "openinference",
    &[
        Row::constant("openinference.span.kind", "LLM"),
        Row::constant("openinference.span.kind", "CHAIN").on(On::Runs),
        Row::attribute("llm.model_name", "gen_ai.response.model"),
        Row::attribute("llm.model_name", "gen_ai.request.model"),
        Row::attribute("llm.provider", "gen_ai.provider.name"),
        Row::quantity("llm.token_count.prompt", "usage.input"),
        Row::quantity("llm.token_count.completion", "usage.output"),
        Row::quantity("llm.token_count.total", "usage.total"),
        Row::quantity(
            "llm.token_count.prompt_details.cache_read",
            "usage.cached_input",
        ),
        Row::quantity(
            "llm.token_count.prompt_details.cache_write",
            "usage.cache_write_input",
        ),
        Row::quantity(
            "llm.token_count.completion_details.reasoning",
            "usage.reasoning",
        ),
        Row::quantity("llm.cost.total", "cost"),
        Row::attribute("llm.finish_reason", "gen_ai.response.finish_reasons").form(Form::Text),
        Row::attribute("session.id", "gen_ai.conversation.id").on(On::Both),
        Row::metadata("user.id", "user_id").on(On::Both),
        Row::attribute("input.value", "gen_ai.input.messages"),
        Row::attribute("output.value", "gen_ai.output.messages"),
    ],
);

/// The attribute that [SigNoz](https://signoz.io) reads: the time to first token, in seconds.
pub static SIGNOZ: Dialect = Dialect::new(
    "signoz",
    &[Row::quantity("gen_ai.server.ttft", "time_to_first_token").form(Form::Double)],
);
