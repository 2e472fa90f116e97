//! Prices and costs from a list, compared with manually computed values.

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

/// The provider, the requested model and the model that answered; `""` if unknown.
fn priced(provider: &'static str, model: &'static str, response: &'static str) -> Priced<'static> {
    let mut priced = Priced::default();
    priced.provider = Some(provider).filter(|name| !name.is_empty());
    priced.model = Some(model).filter(|name| !name.is_empty());
    priced.response_model = Some(response).filter(|name| !name.is_empty());
    priced
}

/// Input, including cached and written tokens; output, including reasoning.
const fn usage(input: u64, cached: u64, written: u64, output: u64, reasoning: u64) -> Usage {
    Usage::new()
        .input(input)
        .cached_input(cached)
        .cache_write_input(written)
        .output(output)
        .reasoning(reasoning)
}

#[test]
fn costs_match_manual_computation() {
    let prices = list();
    let sonnet = priced("anthropic", "claude-sonnet-4-20250514", "");
    let pro = priced("gcp.gemini", "gemini-2.5-pro", "");
    let flash = priced("gcp.gemini", "gemini-2.5-flash", "");
    let gpt = priced("openai", "gpt-4o", "");
    for (model, usage, amount) in [
        // 1,000 x 2.5e-6 + 100 x 1e-5
        (gpt, usage(1_000, 0, 0, 100, 0), "0.0035"),
        // 600 x 2.5e-6 + 400 x 1.25e-6 + 50 x 1e-5
        (gpt, usage(1_000, 400, 0, 50, 0), "0.0025"),
        (gpt, usage(1, 0, 0, 0, 0), "0.0000025"),
        (gpt, usage(0, 0, 0, 0, 0), "0"),
        // Reasoning has no separate price: 300 x 1e-5.
        (gpt, usage(0, 0, 0, 300, 250), "0.003"),
        // Written to the cache at the usual price: 100 x 2.5e-6.
        (gpt, usage(100, 0, 60, 0, 0), "0.00025"),
        // The list has a cheaper `gpt-4o`, but this model answered: 1,000 x 5e-6 + 10 x 1.5e-5.
        (
            priced("openai", "gpt-4o", "gpt-4o-2024-05-13"),
            usage(1_000, 0, 0, 10, 0),
            "0.00515",
        ),
        // 1,000 x 2.75e-6 + 100 x 1.1e-5
        (
            priced("azure.ai.openai", "gpt-4o", ""),
            usage(1_000, 0, 0, 100, 0),
            "0.00385",
        ),
        // 50 x 3e-6 + 2,400 x 3e-7 + 120 x 3.75e-6 + 80 x 1.5e-5
        (sonnet, usage(2_570, 2_400, 120, 80, 0), "0.00252"),
        // 200,000 x 3e-6 + 1 x 1.5e-5
        (sonnet, usage(200_000, 0, 0, 1, 0), "0.600015"),
        // 200,001 x 6e-6 + 1 x 2.25e-5
        (sonnet, usage(200_001, 0, 0, 1, 0), "1.2000285"),
        // The tier depends on the whole input: 1 x 6e-6 + 150,000 x 6e-7 + 50,000 x 7.5e-6.
        (sonnet, usage(200_001, 150_000, 50_000, 0, 0), "0.465006"),
        // 18,480 x 1.25e-6 + 2,209 x 1e-5
        (pro, usage(18_480, 0, 0, 2_209, 1_089), "0.04519"),
        // A price missing in the tier is that of the tier below: 100,001 x 2.5e-6 + 200,000 x 3.125e-7.
        (pro, usage(300_001, 200_000, 0, 0, 0), "0.3125025"),
        // 300 x 1e-5, but 1.5e-5 above 200,000: 200,001 x 2.5e-6 + 300 x 1.5e-5.
        (pro, usage(200_001, 0, 0, 300, 0), "0.5045025"),
        // 10 x 3e-7 + 20 x 2.5e-6 + 80 x 3.5e-6
        (flash, usage(10, 0, 0, 100, 80), "0.000333"),
        (flash, usage(10, 0, 0, 100, 100), "0.000353"),
        // 100 x 1.5e-6 + 10 x 1.2e-5
        (
            priced("gcp.vertex_ai", "gemini-2.5-pro", ""),
            usage(100, 0, 0, 10, 0),
            "0.00027",
        ),
        // 7 x 8e-6 + 3 x 2.4e-5
        (
            priced("aws.bedrock", "anthropic.claude-v2", ""),
            usage(7, 0, 0, 3, 0),
            "0.000128",
        ),
        // 0.005 + 100 x 1e-6 + 50 x 1e-6
        (
            priced("perplexity", "sonar", ""),
            usage(100, 0, 0, 50, 0),
            "0.00515",
        ),
        // 256,000 x 5e-8 + 10 x 4e-7
        (
            priced("dashscope", "qwen-flash", ""),
            usage(256_000, 0, 0, 10, 0),
            "0.012804",
        ),
        // 256,001 x 2.5e-7 + 10 x 2e-6
        (
            priced("dashscope", "qwen-flash", ""),
            usage(256_001, 0, 0, 10, 0),
            "0.06402025",
        ),
        // 36 x 2.7e-7 + 64 x 7e-8 + 9 x 1.1e-6
        (
            priced("deepseek", "deepseek-chat", ""),
            usage(100, 64, 0, 9, 0),
            "0.0000241",
        ),
        // 1,234,567 x 2e-8
        (
            priced("openai", "text-embedding-3-small", ""),
            Usage::new().input(1_234_567),
            "0.02469134",
        ),
        // 1,000 x 3e-6 + 1,000 x 1.5e-5
        (
            priced("openrouter", "anthropic/claude-3.5-sonnet", ""),
            usage(1_000, 0, 0, 1_000, 0),
            "0.018",
        ),
        (
            priced("groq", "free-model", ""),
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
fn a_model_is_found_by_its_names_and_only_for_its_provider() {
    let prices = list()
        .alias("chat-eu", "azure/gpt-4o")
        .provider("gateway", "openai");
    // The price of an input token identifies the entry.
    for (model, input) in [
        (priced("openai", "gpt-4o", ""), Some("0.0000025")),
        (priced("", "gpt-4o", ""), Some("0.0000025")),
        (priced("", "openai/gpt-4o", ""), Some("0.0000025")),
        (priced("openai", "openai/gpt-4o", ""), Some("0.0000025")),
        (
            priced("openai", "gpt-4o", "gpt-4o-2024-08-06"),
            Some("0.0000025"),
        ),
        (priced("openai", "", "gpt-4o-2024-08-06"), Some("0.0000025")),
        (
            priced("openai", "gpt-4o", "gpt-4o-2024-05-13"),
            Some("0.000005"),
        ),
        // The model that a router answered with takes precedence over the requested one.
        (
            priced("deepseek", "deepseek-chat", "deepseek-lite-20250101"),
            Some("0.00000027"),
        ),
        (
            priced("", "openai/gpt-4o", "gemini-2.5-pro-001"),
            Some("0.0000015"),
        ),
        (priced("openai", "gpt-4o-latest", ""), Some("0.0000025")),
        (priced("azure.ai.openai", "gpt-4o", ""), Some("0.00000275")),
        (
            priced("azure.ai.openai", "my-deployment", "gpt-4o-2024-08-06"),
            Some("0.00000275"),
        ),
        (priced("azure.ai.openai", "chat-eu", ""), Some("0.00000275")),
        (priced("gateway", "gpt-4o", ""), Some("0.0000025")),
        (
            priced("gcp.gemini", "models/gemini-2.5-pro", ""),
            Some("0.00000125"),
        ),
        (
            priced("gcp.vertex_ai", "gemini-2.5-pro", ""),
            Some("0.0000015"),
        ),
        (
            priced("gcp.gemini", "gemini-2.5-pro-001", ""),
            Some("0.00000125"),
        ),
        (
            priced("anthropic", "claude-sonnet-4-20250514", ""),
            Some("0.000003"),
        ),
        // In the list, but for another provider.
        (priced("groq", "gpt-4o", ""), None),
        (priced("", "groq/gpt-4o", ""), None),
        (priced("openrouter", "openai/gpt-4o", ""), None),
        (priced("anthropic", "claude-3.5-sonnet", ""), None),
        // Unknown.
        (priced("openai", "gpt-4o-mini", ""), None),
        (priced("openai", "gpt-4", ""), None),
        (priced("openai", "", ""), None),
        (priced("", "", ""), None),
        // Not priced by tokens, not priced completely, or invalid.
        (priced("openai", "dall-e-3", ""), None),
        (priced("openai", "no-output-price", ""), None),
        (priced("openai", "negative", ""), None),
        (priced("openai", "not-an-amount", ""), None),
        (priced("openai", "not-an-object", ""), None),
    ] {
        let price = prices
            .price(&model)
            .map(|price| price.tokens.input.to_string());
        assert_eq!(price.as_deref(), input, "{model:?}");
    }
}

#[test]
fn own_prices_override_those_of_a_file() {
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
        (priced("openai", "gpt-4o", ""), "0.000001", Currency::EUR),
        // An entry without a provider applies to this provider too.
        (
            priced("azure.ai.openai", "gpt-4o", ""),
            "0.000001",
            Currency::EUR,
        ),
        (
            priced("azure.ai.openai", "deployment", ""),
            "0.000002",
            Currency::EUR,
        ),
        (
            priced("deepseek", "deepseek-chat", ""),
            "0.00000027",
            Currency::USD,
        ),
    ] {
        let price = prices.price(&model).expect("a price");
        assert_eq!(price.tokens.input.to_string(), input, "{model:?}");
        assert_eq!(price.currency, currency);
    }
    assert!(prices.price(&priced("openai", "deployment", "")).is_none());
    let dates: Vec<_> = prices.dates().collect();
    assert_eq!(dates, ["negotiated in May", "2026-11-01"]);
}

#[test]
fn other_names_of_a_list_apply_to_the_lists_below_and_above_it() {
    let price = Price::new(Currency::EUR, TokenPrices::default());
    let names = PriceList::new()
        .alias("chat-eu", "azure/gpt-4o")
        .provider("gateway", "openai");
    let own = PriceList::new().model_of("openai", "own", price);
    let other = PriceList::new()
        .alias("chat-eu", "nowhere")
        .provider("gateway", "groq");
    for (order, prices) in [
        ("over the file", names.clone().over(list())),
        ("under it", list().over(names.clone())),
        (
            "with two below",
            names.clone().over(own.clone()).over(list()),
        ),
        (
            "with other names below",
            names.clone().over(other).over(list()),
        ),
    ] {
        for (model, input) in [
            (priced("azure.ai.openai", "chat-eu", ""), "0.00000275"),
            (priced("gateway", "gpt-4o", ""), "0.0000025"),
        ] {
            let price = prices.price(&model);
            let price = price.unwrap_or_else(|| panic!("{model:?} has no price {order}"));
            assert_eq!(price.tokens.input.to_string(), input, "{model:?} {order}");
        }
    }
    assert!(
        own.over(names)
            .price(&priced("gateway", "own", ""))
            .is_some()
    );
}

#[test]
fn a_provider_that_charges_the_prices_of_another_keeps_its_own() {
    let tokens = TokenPrices::per_million(Money::units(7), Money::units(7));
    let price = Price::new(Currency::EUR, tokens);
    let own =
        PriceList::new()
            .provider("gateway", "openai")
            .model_of("gateway", "house-model", price);
    for prices in [own.clone().over(list()), list().over(own)] {
        for (model, input) in [
            (priced("gateway", "house-model", ""), Some("0.000007")),
            (
                priced("gateway", "gateway/house-model", ""),
                Some("0.000007"),
            ),
            (priced("gateway", "gpt-4o", ""), Some("0.0000025")),
            (priced("gateway", "gateway/gpt-4o", ""), Some("0.0000025")),
            (priced("", "gateway/gpt-4o", ""), Some("0.0000025")),
            (priced("gateway", "deepseek-chat", ""), None),
            (priced("openai", "house-model", ""), None),
        ] {
            let price = prices.price(&model);
            let price = price.map(|price| price.tokens.input.to_string());
            assert_eq!(price.as_deref(), input, "{model:?}");
        }
    }
}

#[test]
fn a_service_tier_has_only_its_own_prices() {
    let batch = PriceList::from_reader_at(FILE, ServiceTier::Batch).expect("a list");
    let price = batch
        .price(&priced("openai", "gpt-4o", ""))
        .expect("a price");
    assert_eq!(price.tokens.input.to_string(), "0.00000125");
    assert_eq!(price.tokens.cached_input, None);
    assert!(
        batch
            .price(&priced("deepseek", "deepseek-chat", ""))
            .is_none()
    );
}

#[test]
fn unusable_entries_are_reported_with_the_reason() {
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
fn an_invalid_list_is_refused() {
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
        let telemetry = run.telemetry().expect("the run is measured");
        let usage = telemetry.estimated_usage.expect("an estimate");
        assert_eq!(
            (usage.input, usage.output),
            (Some(input), Some(output)),
            "{model}"
        );
        assert_eq!(telemetry.usage, None);
    }
}
