//! Prices: the cost of a model's tokens, the source of prices, and the resulting cost of an attempt.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::label::{label_enum, read_back};
use crate::money::{Currency, Money};
use crate::usage::Usage;

label_enum! {
    /// The origin of a cost.
    pub enum CostSource {
        /// The provider reported it.
        Provider = "provider",
        /// Computed from the provider's token counts and a price list.
        PriceList = "price_list",
        /// A sum of reported and computed costs.
        Mixed = "mixed",
    }
    only_read {
        /// A source unknown to this version, read back from a record.
        Other = "other"
    }
}
read_back!(CostSource);

/// A cost and its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cost {
    /// The amount.
    pub amount: Money,
    /// The currency of the amount.
    pub currency: Currency,
    /// The origin of the cost.
    pub source: CostSource,
}

impl Cost {
    /// Creates a cost.
    #[must_use]
    pub const fn new(amount: Money, currency: Currency, source: CostSource) -> Self {
        Self {
            amount,
            currency,
            source,
        }
    }

    /// Adds two costs, or returns `None` if their currencies differ.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        let source = if self.source == other.source {
            self.source
        } else {
            CostSource::Mixed
        };
        (self.currency == other.currency)
            .then(|| Self::new(self.amount + other.amount, self.currency, source))
    }

    /// Adds costs, or returns `None` if there are none or their currencies differ.
    pub(crate) fn sum(costs: impl IntoIterator<Item = Self>) -> Option<Self> {
        let costs = costs.into_iter().map(Some);
        costs.reduce(|sum, cost| sum?.plus(cost?)).flatten()
    }

    /// Returns `true` if the two costs can be added.
    pub(crate) fn fits(one: Option<Self>, other: Option<Self>) -> bool {
        one.zip(other)
            .is_none_or(|(one, other)| one.currency == other.currency)
    }

    /// Deserializes a cost. An unreadable cost is unknown, so the rest of its record is not lost.
    pub(crate) fn read_back<'de, D: Deserializer<'de>>(cost: D) -> Result<Option<Self>, D::Error> {
        let cost = serde_json::Value::deserialize(cost)?;
        Ok(serde_json::from_value(cost).ok())
    }
}

/// Prints the amount and the currency: `0.0123 USD`.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount, self.currency)
    }
}

/// The price of a model, as plain data.
///
/// ```
/// use l0_core::{Currency, Money, Price, TokenPrices, Usage};
///
/// let tokens = TokenPrices::per_million(Money::units(3), Money::units(15));
/// let price = Price::new(Currency::USD, tokens.cached_input(Money::cents(30)));
/// let usage = Usage::new().input(2_000).cached_input(1_500).output(100);
/// let cost = price.cost(&usage).expect("a cost");
/// assert_eq!(cost.amount.to_string(), "0.00345");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Price {
    /// The currency of all its prices.
    pub currency: Currency,
    /// The price of each request, in addition to its tokens.
    pub request: Money,
    /// The prices of tokens.
    pub tokens: TokenPrices,
    /// The prices of tokens in large requests, in any order.
    pub tiers: Vec<Tier>,
}

/// The prices of tokens in requests with a large input. They apply to all tokens of the request,
/// including its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tier {
    /// The number of input tokens above which the tier applies.
    pub above: u64,
    /// The prices of tokens in this tier.
    pub tokens: TokenPrices,
}

/// The prices of one token of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TokenPrices {
    /// The price of a prompt token.
    pub input: Money,
    /// The price of a prompt token read from the provider's cache. `None` if it is the price of other
    /// prompt tokens.
    pub cached_input: Option<Money>,
    /// The price of a prompt token written to the provider's cache. `None` if it is the price of other
    /// prompt tokens.
    pub cache_write_input: Option<Money>,
    /// The price of a generated token.
    pub output: Money,
    /// The price of a reasoning token. `None` if it is the price of other generated tokens.
    pub reasoning: Option<Money>,
}

impl Tier {
    /// Creates a tier for requests with more input tokens than this.
    #[must_use]
    pub const fn above(tokens_of_input: u64, tokens: TokenPrices) -> Self {
        Self {
            above: tokens_of_input,
            tokens,
        }
    }
}

impl TokenPrices {
    /// Creates prices of one input token and one output token.
    #[must_use]
    pub const fn new(input: Money, output: Money) -> Self {
        Self {
            input,
            cached_input: None,
            cache_write_input: None,
            output,
            reasoning: None,
        }
    }

    /// Creates prices per million input tokens and per million output tokens, as providers publish
    /// them.
    #[must_use]
    pub const fn per_million(input: Money, output: Money) -> Self {
        Self::new(input.millionth(), output.millionth())
    }

    /// Sets the price of a million tokens read from the cache.
    #[must_use]
    pub const fn cached_input(mut self, per_million: Money) -> Self {
        self.cached_input = Some(per_million.millionth());
        self
    }

    /// Sets the price of a million tokens written to the cache.
    #[must_use]
    pub const fn cache_write_input(mut self, per_million: Money) -> Self {
        self.cache_write_input = Some(per_million.millionth());
        self
    }

    /// Sets the price of a million reasoning tokens.
    #[must_use]
    pub const fn reasoning(mut self, per_million: Money) -> Self {
        self.reasoning = Some(per_million.millionth());
        self
    }

    /// Returns the cost of these tokens, or `None` if a count with a non-zero price is unknown.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Option<Money> {
        let cached = usage.cached_input.unwrap_or(0);
        let written = usage.cache_write_input.unwrap_or(0);
        let reasoning = usage.reasoning.unwrap_or(0);
        let input = match usage.input {
            Some(all) => {
                self.input * all.saturating_sub(cached).saturating_sub(written)
                    + self.cached_input.unwrap_or(self.input) * cached
                    + self.cache_write_input.unwrap_or(self.input) * written
            }
            None if self.input == Money::ZERO => Money::ZERO,
            None => return None,
        };
        let output = match usage.output {
            Some(all) => {
                self.output * all.saturating_sub(reasoning)
                    + self.reasoning.unwrap_or(self.output) * reasoning
            }
            None if self.output == Money::ZERO => Money::ZERO,
            None => return None,
        };
        Some(input + output)
    }
}

impl Price {
    /// Creates the price of a model that charges for tokens only.
    #[must_use]
    pub const fn new(currency: Currency, tokens: TokenPrices) -> Self {
        Self {
            currency,
            request: Money::ZERO,
            tokens,
            tiers: Vec::new(),
        }
    }

    /// Sets the price of each request, in addition to its tokens.
    #[must_use]
    pub const fn request(mut self, amount: Money) -> Self {
        self.request = amount;
        self
    }

    /// Adds the prices of tokens in large requests.
    #[must_use]
    pub fn tier(mut self, tier: Tier) -> Self {
        self.tiers.push(tier);
        self
    }

    /// Returns the token prices for a request with this many input tokens: those of the highest tier
    /// below it.
    fn tokens_at(&self, input: u64) -> &TokenPrices {
        let tiers = self.tiers.iter().filter(|tier| input > tier.above);
        let tier = tiers.max_by_key(|tier| tier.above);
        tier.map_or(&self.tokens, |tier| &tier.tokens)
    }

    /// Returns the cost of one request with this usage, or `None` if a count with a non-zero price is
    /// unknown.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Option<Cost> {
        let tokens = self.tokens_at(usage.input.unwrap_or(0)).cost(usage)?;
        let amount = tokens + self.request;
        Some(Cost::new(amount, self.currency, CostSource::PriceList))
    }

    /// Returns the cost of `more` tokens on top of the reported usage. Returns the cost of both if the
    /// reported usage has no cost.
    pub(crate) fn cost_of_more(&self, reported: Option<Usage>, more: Usage) -> Option<Cost> {
        let reported = reported.unwrap_or_default();
        let all = self.cost(&reported.plus(more))?;
        let known = self.cost(&reported).filter(|_| reported != Usage::new());
        let known = known.map_or(Money::ZERO, |cost| cost.amount);
        let amount = all.amount.saturating_sub(known);
        Some(Cost { amount, ..all })
    }
}

/// The model whose price is requested, and its provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Priced<'a> {
    /// The provider that serves the model. `None` if unknown.
    pub provider: Option<&'a str>,
    /// The requested model. `None` if unknown.
    pub model: Option<&'a str>,
    /// The model that answered, as named by the provider. `None` if unknown, or not yet known.
    pub response_model: Option<&'a str>,
    /// The operation, such as `chat`. `None` if unknown.
    pub operation: Option<&'a str>,
}

impl<'a> Priced<'a> {
    /// Creates a price request for a model.
    #[must_use]
    pub const fn model(model: &'a str) -> Self {
        Self {
            provider: None,
            model: Some(model),
            response_model: None,
            operation: None,
        }
    }

    /// Sets the provider that serves the model.
    #[must_use]
    pub const fn provider(mut self, provider: &'a str) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Sets the model that answered.
    #[must_use]
    pub const fn response_model(mut self, model: &'a str) -> Self {
        self.response_model = Some(model);
        self
    }
}

/// A source of prices: the price list of `l0-pricing`, or your own.
///
/// It is called at most a few times for each attempt, never for a token, and must not block. Closures
/// and `Arc`s implement it too.
pub trait Pricing: Send + Sync {
    /// Returns the price of this model, or `None` if unknown. An unknown price is never treated as
    /// zero.
    fn price(&self, model: &Priced<'_>) -> Option<Arc<Price>>;
}

impl<F> Pricing for F
where
    F: Fn(&Priced<'_>) -> Option<Arc<Price>> + Send + Sync,
{
    fn price(&self, model: &Priced<'_>) -> Option<Arc<Price>> {
        self(model)
    }
}

impl<P: Pricing + ?Sized> Pricing for Arc<P> {
    fn price(&self, model: &Priced<'_>) -> Option<Arc<Price>> {
        (**self).price(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(text: &str) -> Money {
        text.parse().expect("an amount")
    }

    #[test]
    fn a_cost_is_the_sum_of_its_parts_and_absent_where_a_priced_count_is() {
        let tokens = TokenPrices::per_million(Money::units(10), Money::units(50));
        let priced = tokens
            .cached_input(Money::units(1))
            .cache_write_input(money("12.5"));
        let usage = Usage::new().input(1_000).output(100);
        for (name, prices, usage, cost) in [
            ("plain", tokens, usage, Some("0.015")),
            (
                "cached without a separate price",
                tokens,
                usage.cached_input(400),
                Some("0.015"),
            ),
            ("cached", priced, usage.cached_input(400), Some("0.0114")),
            (
                "written",
                priced,
                usage.cached_input(400).cache_write_input(100),
                Some("0.01165"),
            ),
            (
                "reasoning",
                tokens.reasoning(Money::units(60)),
                usage.reasoning(80),
                Some("0.0158"),
            ),
            ("no output reported", tokens, Usage::new().input(10), None),
            ("no input reported", tokens, Usage::new().output(10), None),
            (
                "output that costs nothing",
                TokenPrices::per_million(Money::cents(2), Money::ZERO),
                Usage::new().input(1_000_000),
                Some("0.02"),
            ),
        ] {
            let cost = cost.map(money);
            assert_eq!(prices.cost(&usage), cost, "{name}");
        }
    }

    #[test]
    fn a_tier_prices_the_whole_request_from_one_token_above_on() {
        let cheap = TokenPrices::new(money("0.001"), money("0.002"));
        let dear = TokenPrices::new(money("0.002"), money("0.003"));
        let dearest = TokenPrices::new(money("0.003"), money("0.004"));
        let price = Price::new(Currency::USD, cheap)
            .request(Money::cents(1))
            .tier(Tier::above(300, dearest))
            .tier(Tier::above(200, dear));
        for (input, amount) in [
            (200, "0.212"),
            (201, "0.415"),
            (300, "0.613"),
            (301, "0.917"),
        ] {
            let cost = price.cost(&Usage::new().input(input).output(1));
            assert_eq!(cost.map(|cost| cost.amount), Some(money(amount)), "{input}");
        }
    }

    #[test]
    fn costs_of_one_currency_add_up() {
        let reported = Cost::new(Money::cents(1), Currency::USD, CostSource::Provider);
        let computed = Cost::new(Money::cents(2), Currency::USD, CostSource::PriceList);
        let sum = reported.plus(computed);
        assert_eq!(
            sum,
            Some(Cost::new(Money::cents(3), Currency::USD, CostSource::Mixed))
        );
        let euros = Cost::new(Money::cents(1), Currency::EUR, CostSource::Provider);
        assert_eq!(reported.plus(euros), None);
    }

    #[test]
    fn a_cost_reads_back_as_it_was_written() {
        let cost = Cost::new(money("0.0123"), Currency::USD, CostSource::Provider);
        let json = serde_json::to_string(&cost).expect("JSON");
        assert_eq!(
            json,
            r#"{"amount":"0.0123","currency":"USD","source":"provider"}"#
        );
        assert_eq!(serde_json::from_str::<Cost>(&json).expect("a cost"), cost);
    }
}
