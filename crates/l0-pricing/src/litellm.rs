//! LiteLLM's JSON layout: an object of models, whose fields name the priced unit.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::sync::Arc;

use l0_core::{Currency, Money, ParseMoneyError, Price, Tier, TokenPrices};
use serde_json::{Map, Value};

/// The maximum length of a list.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The service tier of a request. Providers price tiers differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ServiceTier {
    /// The usual tier.
    #[default]
    Standard,
    /// In a batch, some hours later.
    Batch,
    /// Slower, and cheaper.
    Flex,
    /// Faster, and more expensive.
    Priority,
}

impl ServiceTier {
    /// Returns the suffix of the price fields of this tier.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Standard => "",
            Self::Batch => "_batches",
            Self::Flex => "_flex",
            Self::Priority => "_priority",
        }
    }
}

/// The reason why a price list could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PriceListError {
    /// Reading failed.
    #[error("the price list could not be read")]
    Read(#[source] io::Error),
    /// The list is longer than 64 MiB.
    #[error("the price list is longer than 64 MiB")]
    TooLong,
    /// The list is not a JSON object of models.
    #[error("the price list is not a JSON object of models")]
    NotAList(#[source] serde_json::Error),
}

/// An entry of a file that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// The model, as named in the file.
    pub model: String,
    /// The invalid field, as named in the file.
    pub field: String,
    /// The reason.
    pub error: ParseMoneyError,
}

/// The price of a model.
#[derive(Clone)]
pub(crate) struct Entry {
    /// The provider to which the price applies. `None` if it applies to every provider.
    pub(crate) provider: Option<String>,
    pub(crate) price: Arc<Price>,
}

type Models = (HashMap<String, Entry>, Vec<Skipped>);

/// Reads the models of a list, and its unusable entries.
pub(crate) fn read(reader: impl Read, tier: ServiceTier) -> Result<Models, PriceListError> {
    let mut text = Vec::new();
    let mut reader = reader.take(MAX_BYTES + 1);
    reader
        .read_to_end(&mut text)
        .map_err(PriceListError::Read)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(PriceListError::TooLong);
    }
    let models: BTreeMap<String, Value> =
        serde_json::from_slice(&text).map_err(PriceListError::NotAList)?;
    let (mut all, mut skipped) = Models::default();
    for (model, fields) in models {
        let Value::Object(fields) = fields else {
            continue;
        };
        match price(&fields, tier) {
            Ok(Some(price)) => {
                let provider = fields.get("litellm_provider").and_then(Value::as_str);
                let entry = Entry {
                    provider: provider.map(str::to_owned),
                    price: Arc::new(price),
                };
                all.insert(model, entry);
            }
            // The model is not priced by tokens.
            Ok(None) => {}
            Err((field, error)) => skipped.push(Skipped {
                model,
                field,
                error,
            }),
        }
    }
    Ok((all, skipped))
}

/// The invalid field and the reason.
type Fault = (String, ParseMoneyError);

/// Returns the price of a model, or `None` if its tokens have no price.
fn price(fields: &Map<String, Value>, tier: ServiceTier) -> Result<Option<Price>, Fault> {
    if let Some(ranges) = fields.get("tiered_pricing").and_then(Value::as_array) {
        return by_ranges(ranges, tier);
    }
    let suffix = tier.suffix();
    let Some(tokens) = tokens(fields, suffix, None)? else {
        return Ok(None);
    };
    let mut price = Price::new(Currency::USD, tokens);
    if let Some(request) = amount(fields, "input_cost_per_request")? {
        price = price.request(request);
    }
    for above in thresholds(fields, suffix) {
        let suffix = format!("_above_{above}k_tokens{suffix}");
        if let Some(tokens) = self::tokens(fields, &suffix, Some(tokens))? {
            price = price.tier(Tier::above(above.saturating_mul(1_000), tokens));
        }
    }
    Ok(Some(price))
}

/// Reads the prices of tokens whose fields have this suffix. Missing prices come from `base`, if given.
fn tokens(
    fields: &Map<String, Value>,
    suffix: &str,
    base: Option<TokenPrices>,
) -> Result<Option<TokenPrices>, Fault> {
    let read = |name: &str| amount(fields, &format!("{name}{suffix}"));
    // Models without output, such as embeddings, need no output price. All others do.
    let mode = fields.get("mode").and_then(Value::as_str);
    let has_output = !matches!(mode, Some("embedding" | "rerank" | "moderation"));
    let input = read("input_cost_per_token")?.or(base.map(|base| base.input));
    let output = match read("output_cost_per_token")?.or(base.map(|base| base.output)) {
        None if !has_output => Some(Money::ZERO),
        output => output,
    };
    let (Some(input), Some(output)) = (input, output) else {
        return Ok(None);
    };
    let mut tokens = TokenPrices::new(input, output);
    tokens.cached_input = match read("cache_read_input_token_cost")? {
        // The former name of the field.
        None => read("input_cost_per_token_cache_hit")?,
        price => price,
    };
    tokens.cache_write_input = read("cache_creation_input_token_cost")?;
    tokens.reasoning = read("output_cost_per_reasoning_token")?;
    if let Some(base) = base {
        tokens.cached_input = tokens.cached_input.or(base.cached_input);
        tokens.cache_write_input = tokens.cache_write_input.or(base.cache_write_input);
        tokens.reasoning = tokens.reasoning.or(base.reasoning);
    }
    Ok(Some(tokens))
}

/// Returns the thresholds of this service tier's prices, in thousands of tokens.
fn thresholds(fields: &Map<String, Value>, suffix: &str) -> Vec<u64> {
    let threshold = |name: &String| {
        let (_, rest) = name.split_once("_above_")?;
        let rest = rest.strip_suffix(suffix)?;
        rest.strip_suffix("k_tokens")?.parse().ok()
    };
    let mut all: Vec<u64> = fields.keys().filter_map(threshold).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Reads prices given by ranges of input tokens.
fn by_ranges(ranges: &[Value], tier: ServiceTier) -> Result<Option<Price>, Fault> {
    let mut tiers = Vec::new();
    for range in ranges.iter().filter_map(Value::as_object) {
        let from = range.get("range").and_then(|range| range.get(0)?.as_f64());
        let (Some(from), Some(tokens)) = (from, tokens(range, tier.suffix(), None)?) else {
            return Ok(None);
        };
        // Thresholds are whole numbers, even if written as `32e3`.
        tiers.push(Tier::above(from as u64, tokens));
    }
    tiers.sort_unstable_by_key(|tier| tier.above);
    let price = tiers.split_first().map(|(first, above)| {
        let price = Price::new(Currency::USD, first.tokens);
        above.iter().copied().fold(price, Price::tier)
    });
    Ok(price)
}

/// Reads an amount. Returns `None` if it is missing or null.
fn amount(fields: &Map<String, Value>, name: &str) -> Result<Option<Money>, Fault> {
    let amount = match fields.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_f64().map(Money::try_from),
        Some(Value::String(text)) => Some(text.parse()),
        Some(_) => None,
    };
    match amount.unwrap_or(Err(ParseMoneyError::NotDecimal)) {
        Ok(amount) => Ok(Some(amount)),
        Err(error) => Err((name.to_owned(), error)),
    }
}
