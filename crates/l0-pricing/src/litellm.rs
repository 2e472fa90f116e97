//! LiteLLM's JSON layout: an object of models, of which each has prices under names that say what of.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::sync::Arc;

use l0_core::{Currency, Money, ParseMoneyError, Price, Tier, TokenPrices};
use serde_json::{Map, Value};

/// The longest list that is read.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// How a request is served, which providers price apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ServiceTier {
    /// As most requests are.
    #[default]
    Standard,
    /// In a batch, some hours later.
    Batch,
    /// Slower, and cheaper.
    Flex,
    /// Faster, and dearer.
    Priority,
}

impl ServiceTier {
    /// What stands after the names of its prices.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Standard => "",
            Self::Batch => "_batches",
            Self::Flex => "_flex",
            Self::Priority => "_priority",
        }
    }
}

/// Why a price list could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PriceListError {
    /// Reading failed.
    #[error("the price list could not be read")]
    Read(#[source] io::Error),
    /// It is longer than 64 MiB.
    #[error("the price list is longer than 64 MiB")]
    TooLong,
    /// It is not a JSON object of models.
    #[error("the price list is not a JSON object of models")]
    NotAList(#[source] serde_json::Error),
}

/// An entry of a file that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// The model, as the file names it.
    pub model: String,
    /// The field at fault, as the file names it.
    pub field: String,
    /// What is wrong with it.
    pub error: ParseMoneyError,
}

/// The price of a model.
#[derive(Clone)]
pub(crate) struct Entry {
    /// Whose price it is; absent if it is anybody's.
    pub(crate) provider: Option<String>,
    pub(crate) price: Arc<Price>,
}

type Models = (HashMap<String, Entry>, Vec<Skipped>);

/// Reads the models of a list, and what of it cannot be used.
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
            // It is priced by other measures than tokens.
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

/// The field at fault, and what is wrong with it.
type Fault = (String, ParseMoneyError);

/// Returns the price of a model; absent if its tokens have none.
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

/// Reads the prices of tokens whose names end so. What is not there is that of `base`, if there is one.
fn tokens(
    fields: &Map<String, Value>,
    suffix: &str,
    base: Option<TokenPrices>,
) -> Result<Option<TokenPrices>, Fault> {
    let read = |name: &str| amount(fields, &format!("{name}{suffix}"));
    // What is no chat, such as an embedding, has no output; of all else it must be known.
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
        // As it was called at first.
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

/// Returns the thresholds that prices of this service tier have, in thousands of tokens.
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

/// Reads prices that are given by ranges of tokens of input.
fn by_ranges(ranges: &[Value], tier: ServiceTier) -> Result<Option<Price>, Fault> {
    let mut tiers = Vec::new();
    for range in ranges.iter().filter_map(Value::as_object) {
        let from = range.get("range").and_then(|range| range.get(0)?.as_f64());
        let (Some(from), Some(tokens)) = (from, tokens(range, tier.suffix(), None)?) else {
            return Ok(None);
        };
        // Thresholds are whole numbers, also where they are written as `32e3`.
        tiers.push(Tier::above(from as u64, tokens));
    }
    tiers.sort_unstable_by_key(|tier| tier.above);
    let price = tiers.split_first().map(|(first, above)| {
        let price = Price::new(Currency::USD, first.tokens);
        above.iter().copied().fold(price, Price::tier)
    });
    Ok(price)
}

/// Reads an amount; absent if it is not there, or null.
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
