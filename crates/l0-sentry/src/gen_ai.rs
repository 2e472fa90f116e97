//! Sentry's conventions for calls of models: what makes its AI dashboards show one.

use l0_core::{Quantity, Telemetry, Value as Number, keys};
use sentry_core::protocol::Value;

use crate::data::{Data, data};
use crate::ending::Ending;

/// The operations that Sentry knows for calls of models. Any other is shown as the first.
const OPERATIONS: [&str; 4] = ["chat", "text_completion", "generate_content", "embeddings"];

/// Which attribute a quantity is. The conventions take seconds.
const NUMBERS: [(&str, &str); 9] = [
    ("time_to_first_token", "gen_ai.response.time_to_first_chunk"),
    (
        "output_tokens.per_second",
        "gen_ai.response.tokens_per_second",
    ),
    ("usage.input", "gen_ai.usage.input_tokens"),
    ("usage.output", "gen_ai.usage.output_tokens"),
    ("usage.total", "gen_ai.usage.total_tokens"),
    ("usage.cached_input", "gen_ai.usage.cache_read.input_tokens"),
    // The first name is that of the conventions to come, the second the one that Sentry reads.
    (
        "usage.cache_write_input",
        "gen_ai.usage.cache_write.input_tokens",
    ),
    (
        "usage.cache_write_input",
        "gen_ai.usage.cache_creation.input_tokens",
    ),
    ("usage.reasoning", "gen_ai.usage.reasoning.output_tokens"),
];

/// The numbers of a run that are attributes.
fn numbers(telemetry: &Telemetry) -> impl Iterator<Item = (String, Value)> {
    NUMBERS.iter().filter_map(|(name, attribute)| {
        let mut all = Quantity::ALL.iter();
        let quantity = all.find(|quantity| quantity.name == *name)?;
        let value = match quantity.value(telemetry)? {
            Number::Count(count) => count.into(),
            number => number.as_f64().into(),
        };
        Some(((*attribute).to_owned(), value))
    })
}

/// A call of a model whose name and provider are known.
#[derive(Debug, PartialEq)]
pub(crate) struct Call {
    operation: &'static str,
    model: String,
    /// What is known at its start, until its span takes it.
    pub(crate) data: Data,
}

impl Call {
    /// The call that this metadata tells of; `None` if it lacks the model or the provider, without
    /// which the dashboards do not show it.
    pub(crate) fn of(metadata: &Data) -> Option<Self> {
        let known = |key| keys::text(metadata, key).filter(|text| !text.is_empty());
        let model = known(keys::MODEL)?.into_owned();
        let provider = known(keys::PROVIDER)?;
        let operation = known(keys::OPERATION);
        let operation = OPERATIONS
            .into_iter()
            .find(|name| Some(*name) == operation.as_deref())
            .unwrap_or(OPERATIONS[0]);
        let conversation = known(keys::CONVERSATION_ID);
        let data = data([
            ("gen_ai.operation.name", Some(operation.into())),
            ("gen_ai.provider.name", Some(provider.into())),
            ("gen_ai.request.model", Some(model.as_str().into())),
            ("gen_ai.response.streaming", Some(true.into())),
            ("gen_ai.conversation.id", conversation.map(Value::from)),
        ]);
        Some(Self {
            operation,
            model,
            data,
        })
    }

    /// The span's operation.
    pub(crate) fn op(&self) -> String {
        format!("gen_ai.{}", self.operation)
    }

    /// The span's name.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.operation, self.model)
    }

    /// What is known at its end. The model that answered is the one asked for, if the source did
    /// not say: the dashboards show no call without it.
    pub(crate) fn response(&self, ending: &Ending<'_>) -> Data {
        let model = ending.response_model.unwrap_or(&self.model);
        let telemetry = ending.telemetry;
        let finish = telemetry.and_then(Telemetry::finish_reason_or_error);
        let mut response = data([
            ("gen_ai.response.model", Some(model.into())),
            ("gen_ai.response.id", ending.response_id.map(Value::from)),
            ("gen_ai.response.finish_reasons", finish.map(Value::from)),
        ]);
        response.extend(telemetry.into_iter().flat_map(numbers));
        response
    }
}

#[cfg(test)]
mod tests {
    use l0_core::{Cause, End, Outcome, Usage};
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
            assert_eq!(Call::of(&metadata(entries)), None);
        }
    }

    #[test]
    fn the_operation_is_one_that_sentry_knows() {
        for (operation, op, name) in [
            (json!(null), "gen_ai.chat", "chat gpt-4"),
            (json!("summarise"), "gen_ai.chat", "chat gpt-4"),
            (
                json!("generate_content"),
                "gen_ai.generate_content",
                "generate_content gpt-4",
            ),
        ] {
            let call = Call::of(&metadata(&[
                ("model", json!("gpt-4")),
                ("provider", json!("openai")),
                ("operation", operation),
            ]))
            .unwrap();
            assert_eq!((call.op().as_str(), call.name().as_str()), (op, name));
        }
    }

    #[test]
    fn the_call_carries_what_was_told_and_nothing_else() {
        let call = Call::of(&metadata(&[
            ("model", json!("gpt-4")),
            ("provider", json!("openai")),
            ("conversation_id", json!("c-1")),
            ("user", json!("someone")),
        ]))
        .unwrap();
        assert_eq!(
            json!(call.data),
            json!({
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "gpt-4",
                "gen_ai.response.streaming": true,
                "gen_ai.conversation.id": "c-1",
            })
        );
        let end = End::completed();
        assert_eq!(
            json!(call.response(&Ending::of(&end))),
            json!({ "gen_ai.response.model": "gpt-4" })
        );
        let telemetry = Telemetry::example();
        let ending = Ending {
            telemetry: Some(&telemetry),
            response_model: Some("gpt-4-0613"),
            response_id: Some("resp_1"),
            ..Ending::of(&end)
        };
        assert_eq!(
            json!(call.response(&ending)),
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
    fn a_call_says_what_was_billed_and_that_its_answer_broke_off() {
        let entries = [("model", json!("gpt-4")), ("provider", json!("openai"))];
        let call = Call::of(&metadata(&entries)).expect("a call");
        let mut telemetry = Telemetry::example();
        telemetry.outcome = Some(Outcome::Truncated);
        telemetry.finish_reason = None;
        telemetry.wasted_usage = Some(Usage::new().input(12).output(1));
        let end = End::of(Cause::Truncated);
        let ending = Ending {
            telemetry: Some(&telemetry),
            ..Ending::of(&end)
        };
        let response = call.response(&ending);
        for (key, expected) in [
            ("gen_ai.response.finish_reasons", json!("error")),
            ("gen_ai.usage.input_tokens", json!(24)),
            ("gen_ai.usage.output_tokens", json!(161)),
        ] {
            assert_eq!(json!(response[key]), expected, "{key}");
        }
    }

    #[test]
    fn every_attribute_is_a_quantity() {
        for (name, _) in NUMBERS {
            let mut all = Quantity::ALL.iter();
            assert!(all.any(|quantity| quantity.name == name), "{name}");
        }
    }
}
