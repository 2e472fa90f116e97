//! The cost of runs, computed manually, equals the cost in their telemetry, in its JSON Lines, and in the
//! sums of the report, to the last decimal.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::ErrorKind::ConnectionReset;

use futures_util::StreamExt;
use l0_core::testing::{Script, ScriptedAttempt, ScriptedError, ScriptedToken};
use l0_core::{
    Backoff, Cost, CostSource, Currency, FinishReason, L0, Money, Monitoring, Retry, Run, Source,
    Telemetry, TokenKind, TokenView, Usage, source,
};
use l0_export::json;
use l0_pricing::{Characters, PriceList};
use l0_report::Profile;

const PRICES: &str = r#"{
    "gpt-4o": { "litellm_provider": "openai", "input_cost_per_token": 2.5e-06,
        "cache_read_input_token_cost": 1.25e-06, "output_cost_per_token": 1e-05 },
    "gpt-4o-2024-05-13": { "litellm_provider": "openai", "input_cost_per_token": 5e-06,
        "output_cost_per_token": 1.5e-05 },
    "text-embedding-3-small": { "litellm_provider": "openai", "mode": "embedding",
        "input_cost_per_token": 2e-08 },
    "claude-sonnet-4-20250514": { "litellm_provider": "anthropic", "input_cost_per_token": 3e-06,
        "cache_read_input_token_cost": 3e-07, "cache_creation_input_token_cost": 3.75e-06,
        "output_cost_per_token": 1.5e-05, "input_cost_per_token_above_200k_tokens": 6e-06,
        "output_cost_per_token_above_200k_tokens": 2.25e-05 },
    "openrouter/anthropic/claude-sonnet-4": { "litellm_provider": "openrouter",
        "input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05 }
}"#;

const GPT: [&str; 2] = ["openai", "gpt-4o"];
const SONNET: [&str; 2] = ["anthropic", "claude-sonnet-4-20250514"];
const ROUTED: [&str; 2] = ["openrouter", "anthropic/claude-sonnet-4"];
const UNKNOWN: [&str; 2] = ["openai", "a-model-of-tomorrow"];

fn l0() -> L0 {
    L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::new().max_retries(1).backoff(Backoff::none()))
        .pricing(PriceList::from_reader(PRICES.as_bytes()).unwrap())
        .estimate_usage(Characters::per_token(4.0).estimator())
        .build()
}

/// Usage with input and output tokens.
const fn usage(input: u64, output: u64) -> Usage {
    Usage::new().input(input).output(output)
}

fn reported(amount: &str) -> Cost {
    Cost::new(amount.parse().unwrap(), Currency::USD, CostSource::Provider)
}

/// A complete answer.
fn answered(attempt: ScriptedAttempt, usage: Usage) -> ScriptedAttempt {
    let attempt = attempt.token("An answer.").finish(FinishReason::Stop);
    attempt.usage(usage)
}

/// A complete answer with the name of its model.
fn answered_by(attempt: ScriptedAttempt, model: &str, usage: Usage) -> ScriptedAttempt {
    let mut first = ScriptedToken::new(TokenKind::Other, "");
    first.model = Some(model.to_owned());
    answered(attempt.item(first), usage)
}

/// Starts a run of this script, with another model as the fallback.
fn begin(
    script: &Script,
    [provider, model]: [&str; 2],
) -> Run<'static, ScriptedToken, ScriptedError> {
    let described = |script: &Script, [provider, model]: [&str; 2]| {
        let source = source(script.source());
        source
            .metadata("provider", provider)
            .metadata("model", model)
    };
    let other = Script::new().attempt(|a| {
        // 50 x 3e-6 + 2,400 x 3e-7 + 120 x 3.75e-6 + 80 x 1.5e-5 = 0.00252
        answered(
            a,
            usage(2_570, 80).cached_input(2_400).cache_write_input(120),
        )
    });
    l0().stream_from(described(script, [provider, model]))
        .input("A prompt with forty characters, this one")
        .fallback(described(&other, SONNET))
        .start()
}

/// The expected numbers of one run: its cost, its wasted cost, and its estimated cost.
struct Row {
    name: &'static str,
    asked: [&'static str; 2],
    script: Script,
    /// The number of items before the abort.
    aborted: Option<usize>,
    amounts: [Option<&'static str>; 3],
    source: CostSource,
    unpriced: u32,
}

impl Row {
    fn new(
        name: &'static str,
        asked: [&'static str; 2],
        script: Script,
        amounts: [Option<&'static str>; 3],
    ) -> Self {
        Self {
            name,
            asked,
            script,
            aborted: None,
            amounts,
            source: CostSource::PriceList,
            unpriced: 0,
        }
    }
}

fn rows() -> Vec<Row> {
    let reset = ConnectionReset;
    vec![
        Row::new(
            // 600 x 2.5e-6 + 400 x 1.25e-6 + 50 x 1e-5 = 0.0025, and 1,000 x 2.5e-6 + 10 x 1e-5 = 0.0026
            "a fallback after two wasted attempts",
            GPT,
            Script::new()
                .attempt(move |a| answered_then(a, usage(1_000, 50).cached_input(400)).fail(reset))
                .attempt(move |a| answered_then(a, usage(1_000, 10)).fail(reset)),
            [Some("0.00252"), Some("0.0051"), None],
        ),
        Row {
            source: CostSource::Provider,
            ..Row::new(
                // By the list 1,000 x 3e-6 + 1,000 x 1.5e-5 = 0.018.
                "the cost of the provider has precedence",
                ROUTED,
                Script::new()
                    .attempt(|a| answered(a.cost(reported("0.0123")), usage(1_000, 1_000))),
                [Some("0.0123"), None, None],
            )
        },
        Row::new(
            // 1,000 x 2.5e-6 + 100 x 1e-5
            "reported for one attempt, computed for the other",
            GPT,
            Script::new()
                .attempt(move |a| a.token("An").cost(reported("0.0004")).fail(reset))
                .attempt(|a| answered(a, usage(1_000, 100))),
            [Some("0.0035"), Some("0.0004"), None],
        ),
        Row {
            aborted: Some(3),
            ..Row::new(
                // 1,000 x 3e-6 + 1 x 1.5e-5; 20 characters are 5 tokens, 4 of which were not reported, at 1.5e-5.
                "estimated in addition to reported",
                SONNET,
                Script::new().attempt(|a| {
                    a.usage(usage(1_000, 1))
                        .tokens(["ten chars.", "ten chars."])
                        .hang()
                }),
                [Some("0.003015"), None, Some("0.00006")],
            )
        },
        Row {
            aborted: Some(1),
            ..Row::new(
                // 40 characters are 10 tokens at 2.5e-6, and 12 are 3 at 1e-5.
                "estimated, and nothing reported",
                GPT,
                Script::new().attempt(|a| a.token("twelve chars").hang()),
                [None, None, Some("0.000055")],
            )
        },
        Row::new(
            // 1,000 x 5e-6 + 10 x 1.5e-5
            "the model that answered",
            GPT,
            Script::new().attempt(|a| answered_by(a, "gpt-4o-2024-05-13", usage(1_000, 10))),
            [Some("0.00515"), None, None],
        ),
        Row::new(
            // 200,001 x 6e-6 + 300 x 2.25e-5
            "a tier",
            SONNET,
            Script::new().attempt(|a| answered(a, usage(200_001, 300))),
            [Some("1.206756"), None, None],
        ),
        Row {
            unpriced: 1,
            ..Row::new(
                "an unknown model has no cost",
                UNKNOWN,
                Script::new().attempt(|a| answered(a, usage(1_000, 1_000))),
                [None, None, None],
            )
        },
    ]
}

/// An answer before a failed connection: complete except for its finish reason.
fn answered_then(attempt: ScriptedAttempt, usage: Usage) -> ScriptedAttempt {
    attempt.token("An answer.").usage(usage)
}

fn amounts(telemetry: &Telemetry) -> [Option<String>; 3] {
    let costs = [
        telemetry.cost,
        telemetry.wasted_cost,
        telemetry.estimated_cost,
    ];
    costs.map(|cost| cost.map(|cost| cost.amount.to_string()))
}

#[tokio::test]
async fn costs_equal_manually_computed_costs() {
    let mut lines = Vec::new();
    let rows = rows();
    for row in &rows {
        let mut run = begin(&row.script, row.asked);
        let handle = run.handle();
        let mut items = 0;
        while let Some(chunk) = run.next().await {
            items += usize::from(chunk.is_ok());
            if row.aborted == Some(items) {
                handle.abort();
            }
        }
        let telemetry = run.telemetry().unwrap();
        let expected = row.amounts.map(|amount| amount.map(str::to_owned));
        assert_eq!(amounts(&telemetry), expected, "{}", row.name);
        let is_from = |cost: Cost| cost.source == row.source;
        assert!(telemetry.cost.is_none_or(is_from), "{}", row.name);
        assert_eq!(telemetry.unpriced(), row.unpriced, "{}", row.name);
        // The costs of the attempts add up to the cost of the run.
        let attempts = telemetry.attempts.iter().filter_map(|one| one.cost);
        let sum: Money = attempts.map(|cost| cost.amount).sum();
        let total = telemetry.total_cost().map(|cost| cost.amount);
        assert_eq!(sum, total.unwrap_or_default(), "{}", row.name);
        json::write_line(&mut lines, &telemetry).unwrap();
    }

    // 1,234,567 x 2e-8
    let described = || async { Ok::<_, ScriptedError>(Usage::new().input(1_234_567)) };
    let mut call = l0()
        .call(|_| described())
        .view_with(|usage: &Usage| TokenView::other().usage(*usage))
        .metadata("provider", "openai")
        .metadata("model", "text-embedding-3-small")
        .start();
    (&mut call).await.unwrap();
    let telemetry = call.telemetry().unwrap();
    let expected = [Some("0.02469134".to_owned()), None, None];
    assert_eq!(amounts(&telemetry), expected);
    json::write_line(&mut lines, &telemetry).unwrap();

    // Each line reads back equal.
    let read = json::read_lines(&lines[..]).map(Result::unwrap);
    for (row, telemetry) in rows.iter().zip(read) {
        let expected = row.amounts.map(|amount| amount.map(str::to_owned));
        assert_eq!(amounts(&telemetry), expected, "{}", row.name);
        assert_eq!(telemetry.unpriced(), row.unpriced, "{}", row.name);
    }

    let mut profile = Profile::new();
    json::read_lines(&lines[..]).for_each(|run| profile.add(&run.unwrap()));
    // 0.00252 + 0.0123 + 0.0035 + 0.003015 + 0.00515 + 1.206756 + 0.02469134 = 1.25793234 of answers,
    // 0.0051 + 0.0004 wasted, and 0.00006 + 0.000055 estimated.
    let all = profile.total();
    let sums = |quantity| {
        Vec::from_iter(
            all.amounts(quantity)
                .iter()
                .map(|(labels, amount)| (labels.join(" "), amount.to_string())),
        )
    };
    let sum = |labels: &str, amount: &str| (labels.to_owned(), amount.to_owned());
    let expected = [sum("USD false", "1.25793234"), sum("USD true", "0.0055")];
    assert_eq!(sums("cost"), expected);
    assert_eq!(sums("estimated_cost"), [sum("USD", "0.000115")]);
    let printed = profile.to_string();
    let all = printed
        .lines()
        .find(|line| line.contains("1.26343234"))
        .unwrap_or_else(|| panic!("{printed}"));
    assert!(all.contains("0.0055") && all.contains("0.000115"), "{all}");
}
