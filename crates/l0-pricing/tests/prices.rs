//! What a list says of models and usages, against values computed by hand.

use futures_util::StreamExt;
use l0_core::testing::Script;
use l0_core::{
    Currency, L0, Money, Monitoring, ParseMoneyError, Price, Priced, Pricing, TokenPrices, Usage,
};
use l0_pricing::{Characters, PriceList, PriceListError, ServiceTier};
use serde_json::json;

const FILE: &[u8] = include_bytes!("prices.json");

fn list() -> PriceList {
    PriceList::from_reader(FILE).expect("a list")
}

/// Who serves which model, and which model answered; `""` if it is not known.
fn asked(provider: &'static str, model: &'static str, response: &'static str) -> Priced<'static> {
    let mut asked = Priced::default();
    asked.provider = Some(provider).filter(|name| !name.is_empty());
    asked.model = Some(model).filter(|name| !name.is_empty());
    asked.response_model = Some(response).filter(|name| !name.is_empty());
    asked
}

/// Input, of which cached and written; output, of which reasoning.
const fn usage(input: u64, cached: u64, written: u64, output: u64, reasoning: u64) -> Usage {
    Usage::new()
        .input(input)
        .cached_input(cached)
        .cache_write_input(written)
        .output(output)
        .reasoning(reasoning)
}

#[test]
fn usages_cost_what_they_come_to_by_hand() {
    let prices = list();
    let sonnet = asked("anthropic", "claude-sonnet-4-20250514", "");
    let pro = asked("gcp.gemini", "gemini-2.5-pro", "");
    let flash = asked("gcp.gemini", "gemini-2.5-flash", "");
    let gpt = asked("openai", "gpt-4o", "");
    for (model, usage, amount) in [
        // 1,000 x 2.5e-6 + 100 x 1e-5
        (gpt, usage(1_000, 0, 0, 100, 0), "0.0035"),
        // 600 x 2.5e-6 + 400 x 1.25e-6 + 50 x 1e-5
        (gpt, usage(1_000, 400, 0, 50, 0), "0.0025"),
        (gpt, usage(1, 0, 0, 0, 0), "0.0000025"),
        (gpt, usage(0, 0, 0, 0, 0), "0"),
        // Reasoning has no price of its own: 300 x 1e-5.
        (gpt, usage(0, 0, 0, 300, 250), "0.003"),
        // Written to the cache at the price of any other: 100 x 2.5e-6.
        (gpt, usage(100, 0, 60, 0, 0), "0.00025"),
        // The list has a cheaper `gpt-4o`, but this one answered: 1,000 x 5e-6 + 10 x 1.5e-5.
        (
            asked("openai", "gpt-4o", "gpt-4o-2024-05-13"),
            usage(1_000, 0, 0, 10, 0),
            "0.00515",
        ),
        // 1,000 x 2.75e-6 + 100 x 1.1e-5
        (
            asked("azure.ai.openai", "gpt-4o", ""),
            usage(1_000, 0, 0, 100, 0),
            "0.00385",
        ),
        // 50 x 3e-6 + 2,400 x 3e-7 + 120 x 3.75e-6 + 80 x 1.5e-5
        (sonnet, usage(2_570, 2_400, 120, 80, 0), "0.00252"),
        // 200,000 x 3e-6 + 1 x 1.5e-5
        (sonnet, usage(200_000, 0, 0, 1, 0), "0.600015"),
        // 200,001 x 6e-6 + 1 x 2.25e-5
        (sonnet, usage(200_001, 0, 0, 1, 0), "1.2000285"),
        // The tier goes by all of the input: 1 x 6e-6 + 150,000 x 6e-7 + 50,000 x 7.5e-6.
        (sonnet, usage(200_001, 150_000, 50_000, 0, 0), "0.465006"),
        // 18,480 x 1.25e-6 + 2,209 x 1e-5
        (pro, usage(18_480, 0, 0, 2_209, 1_089), "0.04519"),
        // A price that the tier lacks is the one below: 100,001 x 2.5e-6 + 200,000 x 3.125e-7.
        (pro, usage(300_001, 200_000, 0, 0, 0), "0.3125025"),
        // 300 x 1e-5, but 1.5e-5 above 200,000: 200,001 x 2.5e-6 + 300 x 1.5e-5.
        (pro, usage(200_001, 0, 0, 300, 0), "0.5045025"),
        // 10 x 3e-7 + 20 x 2.5e-6 + 80 x 3.5e-6
        (flash, usage(10, 0, 0, 100, 80), "0.000333"),
        (flash, usage(10, 0, 0, 100, 100), "0.000353"),
        // 100 x 1.5e-6 + 10 x 1.2e-5
        (
            asked("gcp.vertex_ai", "gemini-2.5-pro", ""),
            usage(100, 0, 0, 10, 0),
            "0.00027",
        ),
        // 7 x 8e-6 + 3 x 2.4e-5
        (
            asked("aws.bedrock", "anthropic.claude-v2", ""),
            usage(7, 0, 0, 3, 0),
            "0.000128",
        ),
        // 0.005 + 100 x 1e-6 + 50 x 1e-6
        (
            asked("perplexity", "sonar", ""),
            usage(100, 0, 0, 50, 0),
            "0.00515",
        ),
        // 256,000 x 5e-8 + 10 x 4e-7
        (
            asked("dashscope", "qwen-flash", ""),
            usage(256_000, 0, 0, 10, 0),
            "0.012804",
        ),
        // 256,001 x 2.5e-7 + 10 x 2e-6
        (
            asked("dashscope", "qwen-flash", ""),
            usage(256_001, 0, 0, 10, 0),
            "0.06402025",
        ),
        // 36 x 2.7e-7 + 64 x 7e-8 + 9 x 1.1e-6
        (
            asked("deepseek", "deepseek-chat", ""),
            usage(100, 64, 0, 9, 0),
            "0.0000241",
        ),
        // 1,234,567 x 2e-8
        (
            asked("openai", "text-embedding-3-small", ""),
            Usage::new().input(1_234_567),
            "0.02469134",
        ),
        // 1,000 x 3e-6 + 1,000 x 1.5e-5
        (
            asked("openrouter", "anthropic/claude-3.5-sonnet", ""),
            usage(1_000, 0, 0, 1_000, 0),
            "0.018",
        ),
        (
            asked("groq", "free-model", ""),
            usage(1_000, 0, 0, 1_000, 0),
            "0",
        ),
    ] {
        let price = prices
            .price(&model)
            .unwrap_or_else(|| panic!("{model:?} has no price"));
        let cost = price.cost(&usage).expect("a cost");
        assert_eq!(cost.amount.to_string(), amount, "{model:?} {usage:?}");
        assert_eq!(cost.currency, Currency::USD);
    }
}

#[test]
fn a_model_is_found_by_its_names_and_by_nobody_elses_price() {
    let prices = list()
        .alias("chat-eu", "azure/gpt-4o")
        .provider("gateway", "openai");
    // The price of a token of input says which entry it is.
    for (model, input) in [
        (asked("openai", "gpt-4o", ""), Some("0.0000025")),
        (asked("", "gpt-4o", ""), Some("0.0000025")),
        (asked("", "openai/gpt-4o", ""), Some("0.0000025")),
        (asked("openai", "openai/gpt-4o", ""), Some("0.0000025")),
        (
            asked("openai", "gpt-4o", "gpt-4o-2024-08-06"),
            Some("0.0000025"),
        ),
        (asked("openai", "", "gpt-4o-2024-08-06"), Some("0.0000025")),
        (
            asked("openai", "gpt-4o", "gpt-4o-2024-05-13"),
            Some("0.000005"),
        ),
        // What a router answered with, if it is known, and not what it was asked for.
        (
            asked("deepseek", "deepseek-chat", "deepseek-lite-20250101"),
            Some("0.00000027"),
        ),
        (
            asked("", "openai/gpt-4o", "gemini-2.5-pro-001"),
            Some("0.0000015"),
        ),
        (asked("openai", "gpt-4o-latest", ""), Some("0.0000025")),
        (asked("azure.ai.openai", "gpt-4o", ""), Some("0.00000275")),
        (
            asked("azure.ai.openai", "my-deployment", "gpt-4o-2024-08-06"),
            Some("0.00000275"),
        ),
        (asked("azure.ai.openai", "chat-eu", ""), Some("0.00000275")),
        (asked("gateway", "gpt-4o", ""), Some("0.0000025")),
        (
            asked("gcp.gemini", "models/gemini-2.5-pro", ""),
            Some("0.00000125"),
        ),
        (
            asked("gcp.vertex_ai", "gemini-2.5-pro", ""),
            Some("0.0000015"),
        ),
        (
            asked("gcp.gemini", "gemini-2.5-pro-001", ""),
            Some("0.00000125"),
        ),
        (
            asked("anthropic", "claude-sonnet-4-20250514", ""),
            Some("0.000003"),
        ),
        // Known to the list, but not as this provider's.
        (asked("groq", "gpt-4o", ""), None),
        (asked("", "groq/gpt-4o", ""), None),
        (asked("openrouter", "openai/gpt-4o", ""), None),
        (asked("anthropic", "claude-3.5-sonnet", ""), None),
        // Not known.
        (asked("openai", "gpt-4o-mini", ""), None),
        (asked("openai", "gpt-4", ""), None),
        (asked("openai", "", ""), None),
        (asked("", "", ""), None),
        // Priced by other measures than tokens, not priced in full, or broken.
        (asked("openai", "dall-e-3", ""), None),
        (asked("openai", "no-output-price", ""), None),
        (asked("openai", "negative", ""), None),
        (asked("openai", "not-an-amount", ""), None),
        (asked("openai", "not-an-object", ""), None),
    ] {
        let price = prices
            .price(&model)
            .map(|price| price.tokens.input.to_string());
        assert_eq!(price.as_deref(), input, "{model:?}");
    }
}

#[test]
fn own_prices_win_over_those_of_a_file() {
    let tokens = |dollars| TokenPrices::per_million(Money::units(dollars), Money::units(dollars));
    let own = PriceList::new()
        .model("gpt-4o", Price::new(Currency::EUR, tokens(1)))
        .model_of(
            "azure.ai.openai",
            "deployment",
            Price::new(Currency::EUR, tokens(2)),
        )
        .dated("negotiated in May");
    let prices = own.over(list().dated("2026-11-01"));
    for (model, input, currency) in [
        (asked("openai", "gpt-4o", ""), "0.000001", Currency::EUR),
        // An entry of anybody's is also that of this provider.
        (
            asked("azure.ai.openai", "gpt-4o", ""),
            "0.000001",
            Currency::EUR,
        ),
        (
            asked("azure.ai.openai", "deployment", ""),
            "0.000002",
            Currency::EUR,
        ),
        (
            asked("deepseek", "deepseek-chat", ""),
            "0.00000027",
            Currency::USD,
        ),
    ] {
        let price = prices.price(&model).expect("a price");
        assert_eq!(price.tokens.input.to_string(), input, "{model:?}");
        assert_eq!(price.currency, currency);
    }
    assert!(prices.price(&asked("openai", "deployment", "")).is_none());
    let dates: Vec<_> = prices.dates().collect();
    assert_eq!(dates, ["negotiated in May", "2026-11-01"]);
}

#[test]
fn a_service_tier_has_prices_of_its_own_and_no_others() {
    let batch = PriceList::from_reader_at(FILE, ServiceTier::Batch).expect("a list");
    let price = batch
        .price(&asked("openai", "gpt-4o", ""))
        .expect("a price");
    assert_eq!(price.tokens.input.to_string(), "0.00000125");
    assert_eq!(price.tokens.cached_input, None);
    assert!(
        batch
            .price(&asked("deepseek", "deepseek-chat", ""))
            .is_none()
    );
}

#[test]
fn what_is_wrong_with_entries_is_told() {
    let list = list();
    let skipped: Vec<_> = list
        .skipped()
        .map(|skipped| {
            (
                skipped.model.as_str(),
                skipped.field.as_str(),
                skipped.error,
            )
        })
        .collect();
    let (negative, not_decimal) = (ParseMoneyError::Negative, ParseMoneyError::NotDecimal);
    let expected = [
        ("negative", "input_cost_per_token", negative),
        ("not-an-amount", "output_cost_per_token", not_decimal),
    ];
    assert_eq!(skipped, expected);
}

#[test]
fn what_is_no_list_is_refused() {
    let error = |text: &[u8]| PriceList::from_reader(text).expect_err("no list");
    assert!(matches!(error(b"[]"), PriceListError::NotAList(_)));
    assert!(matches!(error(b"{"), PriceListError::NotAList(_)));
    let endless = std::io::Read::chain(&b"{\"a\":\""[..], std::io::repeat(b'a'));
    let error = PriceList::from_reader(endless).expect_err("no list");
    assert!(matches!(error, PriceListError::TooLong), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_ends_early_is_estimated_by_its_characters() {
    let characters = Characters::per_token(4.0)
        .model("gpt-", 2.0)
        .model("gpt-4o", 5.0);
    let script =
        Script::new().attempt(|a| a.token("twelve chars").reasoning("ten chars!").token("-"));
    for (model, input, output) in [("gpt-4o-mini", 4, 5), ("gpt-3", 10, 11), ("other", 5, 6)] {
        let l0 = L0::builder()
            .monitoring(Monitoring::new())
            .estimate_usage(characters.clone().estimator())
            .build();
        let mut run = l0
            .stream(script.source())
            .metadata("model", model)
            .input(json!([{"role": "user", "content": "Twenty characters...!"[..16]}]))
            .start();
        for _ in 0..2 {
            assert!(matches!(run.next().await, Some(Ok(_))));
        }
        run.handle().abort();
        assert!(run.text().await.is_err());
        let telemetry = run.telemetry().expect("it is measured");
        let usage = telemetry.estimated_usage.expect("an estimate");
        assert_eq!(
            (usage.input, usage.output),
            (Some(input), Some(output)),
            "{model}"
        );
        assert_eq!(telemetry.usage, None);
    }
}
