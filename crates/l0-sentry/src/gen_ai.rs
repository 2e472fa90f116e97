//! Sentry's conventions for calls of models, which its AI dashboards read.

use std::collections::BTreeMap;

use l0_core::{Currency, Description, KeyList, Quantity, Telemetry, Value as Number, keys};
use sentry_core::protocol::Value;

use crate::data::{Data, cut, data, primitive};

/// The operations of model calls that Sentry knows. Any other operation is sent as the first.
const OPERATIONS: [&str; 4] = ["chat", "text_completion", "generate_content", EMBEDDINGS];
const EMBEDDINGS: &str = "embeddings";

const OUTPUT_RATE: &str = "output_tokens.per_second";

/// The attribute of each quantity. Times are in seconds, as the conventions require.
const NUMBERS: [(&str, &str); 10] = [
    ("time_to_first_token", "gen_ai.response.time_to_first_chunk"),
    (OUTPUT_RATE, "gen_ai.response.tokens_per_second"),
    ("usage.input", "gen_ai.usage.input_tokens"),
    ("usage.output", "gen_ai.usage.output_tokens"),
    ("usage.total", "gen_ai.usage.total_tokens"),
    ("usage.cached_input", "gen_ai.usage.cache_read.input_tokens"),
    // The first name is from the next version of the conventions, the second is the one that Sentry reads.
    (
        "usage.cache_write_input",
        "gen_ai.usage.cache_write.input_tokens",
    ),
    (
        "usage.cache_write_input",
        "gen_ai.usage.cache_creation.input_tokens",
    ),
    ("usage.reasoning", "gen_ai.usage.reasoning.output_tokens"),
    ("cost", "gen_ai.cost.total_tokens"),
];

/// Returns the numbers that are attributes.
fn numbers(telemetry: &Telemetry) -> impl Iterator<Item = (String, Value)> {
    read(telemetry, |_| true)
}

fn read(telemetry: &Telemetry, wanted: fn(&str) -> bool) -> impl Iterator<Item = (String, Value)> {
    let wanted = NUMBERS.iter().filter(move |(name, _)| wanted(name));
    wanted.filter_map(|(name, attribute)| {
        let mut all = Quantity::ALL.iter();
        let quantity = all.find(|quantity| quantity.name == *name)?;
        let value = match quantity.value(telemetry) {
            Some(Number::Count(count)) => count.into(),
            Some(number) => number.as_f64().into(),
            // Sentry assumes that every cost is in US dollars.
            None => quantity
                .amount_in(Currency::USD, telemetry)?
                .as_f64()
                .into(),
        };
        Some(((*attribute).to_owned(), value))
    })
}

/// Returns the rate of output tokens, as an attribute.
pub(crate) fn rate(telemetry: &Telemetry) -> impl Iterator<Item = (String, Value)> {
    read(telemetry, |name| name == OUTPUT_RATE)
}

/// A call of a model. The model and the provider are known.
#[derive(Debug, PartialEq)]
pub(crate) struct Call {
    operation: &'static str,
    model: String,
    /// The attributes at its start. Taken when its span is started.
    pub(crate) data: Data,
}

impl Call {
    /// Returns the call that this metadata describes. Returns `None` without a model or a provider, because the
    /// dashboards do not show calls without them.
    pub(crate) fn of(metadata: &BTreeMap<String, Value>, streams: bool) -> Option<Self> {
        let text = |key| keys::text(metadata, key).filter(|text| !text.is_empty());
        let known = |key| text(key).map(|text| keys::cut(&text, KeyList::MAX_VALUE).to_owned());
        let model = known(keys::MODEL)?;
        let provider = known(keys::PROVIDER)?;
        let operation = text(keys::OPERATION);
        let operation = OPERATIONS
            .into_iter()
            .find(|name| Some(*name) == operation.as_deref())
            .unwrap_or(OPERATIONS[0]);
        let attribute = |key| known(key).map(Value::from);
        let data = data([
            ("gen_ai.operation.name", Some(operation.into())),
            ("gen_ai.provider.name", Some(provider.into())),
            ("gen_ai.request.model", Some(model.as_str().into())),
            ("gen_ai.response.streaming", Some(streams.into())),
            ("gen_ai.conversation.id", attribute(keys::CONVERSATION_ID)),
            ("gen_ai.agent.name", attribute(keys::AGENT_NAME)),
            ("gen_ai.pipeline.name", attribute(keys::PIPELINE_NAME)),
        ]);
        Some(Self {
            operation,
            model,
            data,
        })
    }

    /// Adds the server and the request parameters from the description of the source.
    pub(crate) fn described(mut self, description: &Description) -> Self {
        let address = description.server_address.as_deref();
        let address = address.filter(|address| !address.is_empty());
        let port = description.server_port.filter(|_| address.is_some());
        self.data.extend(data([
            ("server.address", address.map(|text| cut(&text.into()))),
            ("server.port", port.map(Value::from)),
        ]));
        for (name, value) in &description.parameters {
            let key = format!("gen_ai.request.{name}");
            if !value.is_null() {
                self.data.entry(key).or_insert(primitive(&cut(value)));
            }
        }
        self
    }

    /// Returns `true` if it requests embeddings.
    pub(crate) fn embeds(&self) -> bool {
        self.operation == EMBEDDINGS
    }

    /// Returns the operation of its span.
    pub(crate) fn op(&self) -> String {
        format!("gen_ai.{}", self.operation)
    }

    /// Returns the name of its span.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.operation, self.model)
    }

    /// Returns the attributes at its end. If the source did not report which model answered, the requested model is
    /// used, because the dashboards do not show a call without it. If no model answered, none is set.
    pub(crate) fn response(&self, answer: &Answer<'_>) -> Data {
        let requested = Some(&*self.model).filter(|_| answer.has_begun);
        let telemetry = answer.telemetry;
        let finish = telemetry.and_then(Telemetry::finish_reason_or_error);
        let mut response = data([
            (
                "gen_ai.response.model",
                answer.model.or(requested).map(Value::from),
            ),
            ("gen_ai.response.id", answer.id.map(Value::from)),
            ("gen_ai.response.finish_reasons", finish.map(Value::from)),
        ]);
        response.extend(telemetry.into_iter().flat_map(numbers));
        response
    }
}

/// The answer to a call, as far as it is known.
#[derive(Default)]
pub(crate) struct Answer<'a> {
    /// `true` if the model has started to answer.
    pub(crate) has_begun: bool,
    /// The model that answered, as reported by the source.
    pub(crate) model: Option<&'a str>,
    pub(crate) id: Option<&'a str>,
    /// The telemetry of this call alone.
    pub(crate) telemetry: Option<&'a Telemetry>,
}

#[cfg(test)]
mod tests {
    use l0_core::{Outcome, Usage};
    use serde_json::json;

    use super::*;

    fn metadata(entries: &[(&str, Value)]) -> Data {
        let owned = |(key, value): &(&str, Value)| ((*key).to_owned(), value.clone());
        entries.iter().map(owned).collect()
    }

    #[test]
    fn a_call_without_model_or_provider_is_none() {
        for entries in [
            &[][..],
            &[("model", json!("gpt-4"))],
            &[("provider", json!("openai"))],
            &[("model", json!("")), ("provider", json!("openai"))],
            &[("model", json!(null)), ("provider", json!("openai"))],
        ] {
            assert_eq!(Call::of(&metadata(entries), true), None);
        }
    }

    #[test]
    fn an_operation_that_sentry_does_not_know_becomes_chat() {
        for (operation, op, name) in [
            (json!(null), "gen_ai.chat", "chat gpt-4"),
            (json!("summarise"), "gen_ai.chat", "chat gpt-4"),
            (
                json!("generate_content"),
                "gen_ai.generate_content",
                "generate_content gpt-4",
            ),
        ] {
            let call = Call::of(
                &metadata(&[
                    ("model", json!("gpt-4")),
                    ("provider", json!("openai")),
                    ("operation", operation),
                ]),
                true,
            )
            .unwrap();
            assert_eq!((call.op().as_str(), call.name().as_str()), (op, name));
        }
    }

    #[test]
    fn a_call_has_only_the_attributes_that_are_known() {
        let call = Call::of(
            &metadata(&[
                ("model", json!("gpt-4")),
                ("provider", json!("openai")),
                ("conversation_id", json!("c-1")),
                ("agent_name", json!("researcher")),
                ("pipeline_name", json!("summaries")),
                ("user", json!("someone")),
            ]),
            true,
        )
        .unwrap();
        assert_eq!(
            json!(call.data),
            json!({
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "gpt-4",
                "gen_ai.response.streaming": true,
                "gen_ai.conversation.id": "c-1",
                "gen_ai.agent.name": "researcher",
                "gen_ai.pipeline.name": "summaries",
            })
        );
        let begun = Answer {
            has_begun: true,
            ..Answer::default()
        };
        assert_eq!(json!(call.response(&Answer::default())), json!({}));
        assert_eq!(
            json!(call.response(&begun)),
            json!({ "gen_ai.response.model": "gpt-4" })
        );
        let telemetry = Telemetry::example();
        let answer = Answer {
            telemetry: Some(&telemetry),
            model: Some("gpt-4-0613"),
            id: Some("resp_1"),
            ..begun
        };
        assert_eq!(
            json!(call.response(&answer)),
            json!({
                "gen_ai.response.model": "gpt-4-0613",
                "gen_ai.response.id": "resp_1",
                "gen_ai.response.finish_reasons": "stop",
                "gen_ai.response.time_to_first_chunk": 0.25,
                "gen_ai.response.tokens_per_second": 133.574,
                "gen_ai.usage.input_tokens": 12,
                "gen_ai.usage.output_tokens": 160,
                "gen_ai.usage.total_tokens": 172,
            })
        );
    }

    #[test]
    fn a_truncated_call_has_the_billed_usage_and_the_finish_reason_error() {
        let entries = [("model", json!("gpt-4")), ("provider", json!("openai"))];
        let call = Call::of(&metadata(&entries), true).expect("a call");
        let mut telemetry = Telemetry::example();
        telemetry.outcome = Some(Outcome::Truncated);
        telemetry.finish_reason = None;
        telemetry.wasted_usage = Some(Usage::new().input(12).output(1));
        let response = call.response(&Answer {
            telemetry: Some(&telemetry),
            ..Answer::default()
        });
        for (key, expected) in [
            ("gen_ai.response.finish_reasons", json!("error")),
            ("gen_ai.usage.input_tokens", json!(24)),
            ("gen_ai.usage.output_tokens", json!(161)),
        ] {
            assert_eq!(json!(response[key]), expected, "{key}");
        }
    }

    #[test]
    fn the_description_of_a_source_is_sent_cut_and_replaces_nothing() {
        let mut description = Description::new();
        description.server_address = Some("api.openai.com".into());
        description.server_port = Some(443);
        for (name, value) in [
            ("temperature", json!(0.5)),
            ("stop_sequences", json!(["a", "b"])),
            ("seed", json!(null)),
            ("model", json!("another")),
            ("long", json!("a".repeat(1_000))),
        ] {
            description.parameters.insert(name.into(), value);
        }
        let entries = [("model", json!("gpt-4")), ("provider", json!("openai"))];
        let call = Call::of(&metadata(&entries), false).expect("a call");
        assert_eq!(
            json!(call.described(&description).data),
            json!({
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "gpt-4",
                "gen_ai.response.streaming": false,
                "gen_ai.request.temperature": 0.5,
                "gen_ai.request.stop_sequences": "[\"a\",\"b\"]",
                "gen_ai.request.long": "a".repeat(256),
                "server.address": "api.openai.com",
                "server.port": 443,
            })
        );
    }

    #[test]
    fn every_attribute_is_a_quantity() {
        for (name, _) in NUMBERS {
            let mut all = Quantity::ALL.iter();
            assert!(all.any(|quantity| quantity.name == name), "{name}");
        }
    }
}
