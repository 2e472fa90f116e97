//! Price: what the tokens of a model cost, who knows it, and what an attempt came to.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::label::{label_enum, read_back};
use crate::money::{Currency, Money};
use crate::usage::Usage;

label_enum! {
    /// Who says what something cost.
    pub enum CostSource {
        /// The provider told it.
        Provider = "provider",
        /// It was computed from the provider's token counts, by a price list.
        PriceList = "price_list",
        /// A sum of some that the provider told and some that were computed.
        Mixed = "mixed",
    }
    only_read {
        /// A source that this version does not know, read back from a record.
        Other = "other"
    }
}
read_back!(CostSource);

/// What something cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cost {
    /// How much.
    pub amount: Money,
    /// In which currency.
    pub currency: Currency,
    /// Who says so.
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

    /// Adds two costs up; absent if their currencies differ.
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

    /// Adds costs up; absent if there are none, or their currencies differ.
    pub(crate) fn sum(costs: impl IntoIterator<Item = Self>) -> Option<Self> {
        let costs = costs.into_iter().map(Some);
        costs.reduce(|sum, cost| sum?.plus(cost?)).flatten()
    }

    /// Whether the two can be added up.
    pub(crate) fn fits(one: Option<Self>, other: Option<Self>) -> bool {
        one.zip(other)
            .is_none_or(|(one, other)| one.currency == other.currency)
    }

    /// Reads a cost; one that cannot be read is unknown, and loses nothing beside it.
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

/// What a model costs: plain data.
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
    /// What each request costs, besides its tokens.
    pub request: Money,
    /// What tokens cost.
    pub tokens: TokenPrices,
    /// What tokens cost in requests of many tokens, in any order.
    pub tiers: Vec<Tier>,
}

/// What tokens cost in requests whose input is large: all tokens of such a request, the output too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tier {
    /// The tokens of input that a request has more of.
    pub above: u64,
    /// What its tokens cost.
    pub tokens: TokenPrices,
}

/// What one token costs, by what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TokenPrices {
    /// A token of the prompt.
    pub input: Money,
    /// One that came from the provider's cache; absent if it costs as any other.
    pub cached_input: Option<Money>,
    /// One that was written to the provider's cache; absent if it costs as any other.
    pub cache_write_input: Option<Money>,
    /// A token that was generated.
    pub output: Money,
    /// One that was reasoning; absent if it costs as any other.
    pub reasoning: Option<Money>,
}

impl Tier {
    /// Creates a tier of requests with more tokens of input than this.
    #[must_use]
    pub const fn above(tokens_of_input: u64, tokens: TokenPrices) -> Self {
        Self {
            above: tokens_of_input,
            tokens,
        }
    }
}

impl TokenPrices {
    /// Creates prices of one token of input and one of output.
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

    /// Creates prices as providers print them: of a million tokens of input, and a million of output.
    #[must_use]
    pub const fn per_million(input: Money, output: Money) -> Self {
        Self::new(input.millionth(), output.millionth())
    }

    /// Sets what a million tokens from the cache cost.
    #[must_use]
    pub const fn cached_input(mut self, per_million: Money) -> Self {
        self.cached_input = Some(per_million.millionth());
        self
    }

    /// Sets what a million tokens that are written to the cache cost.
    #[must_use]
    pub const fn cache_write_input(mut self, per_million: Money) -> Self {
        self.cache_write_input = Some(per_million.millionth());
        self
    }

    /// Sets what a million tokens of reasoning cost.
    #[must_use]
    pub const fn reasoning(mut self, per_million: Money) -> Self {
        self.reasoning = Some(per_million.millionth());
        self
    }

    /// Returns what these tokens cost; absent if a count is not known whose price is not zero.
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
    /// Creates the price of a model whose requests cost nothing besides their tokens.
    #[must_use]
    pub const fn new(currency: Currency, tokens: TokenPrices) -> Self {
        Self {
            currency,
            request: Money::ZERO,
            tokens,
            tiers: Vec::new(),
        }
    }

    /// Sets what each request costs besides its tokens.
    #[must_use]
    pub const fn request(mut self, amount: Money) -> Self {
        self.request = amount;
        self
    }

    /// Adds what tokens cost in requests of many tokens.
    #[must_use]
    pub fn tier(mut self, tier: Tier) -> Self {
        self.tiers.push(tier);
        self
    }

    /// Returns what tokens cost in a request with so many tokens of input: those of the highest tier
    /// that it is above.
    #[must_use]
    pub fn tokens_at(&self, input: u64) -> &TokenPrices {
        let tiers = self.tiers.iter().filter(|tier| input > tier.above);
        let tier = tiers.max_by_key(|tier| tier.above);
        tier.map_or(&self.tokens, |tier| &tier.tokens)
    }

    /// Returns what one request of this usage costs; absent if a count is not known whose price is not
    /// zero.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Option<Cost> {
        let tokens = self.tokens_at(usage.input.unwrap_or(0)).cost(usage)?;
        let amount = tokens + self.request;
        Some(Cost::new(amount, self.currency, CostSource::PriceList))
    }

    /// What `more` costs besides what was told; all of it, if what was told has no cost.
    pub(crate) fn cost_of_more(&self, told: Option<Usage>, more: Usage) -> Option<Cost> {
        let told = told.unwrap_or_default();
        let all = self.cost(&told.plus(more))?;
        let known = self.cost(&told).filter(|_| told != Usage::new());
        let known = known.map_or(Money::ZERO, |cost| cost.amount);
        let amount = all.amount.saturating_sub(known);
        Some(Cost { amount, ..all })
    }
}

/// What is asked the price of: who served what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Priced<'a> {
    /// Who serves the model; absent if it is not known.
    pub provider: Option<&'a str>,
    /// The model that was asked for; absent if it is not known.
    pub model: Option<&'a str>,
    /// The model that answered, as the provider names it; absent if it did not say, or not yet.
    pub response_model: Option<&'a str>,
    /// What was done, such as `chat`; absent if it is not known.
    pub operation: Option<&'a str>,
}

impl<'a> Priced<'a> {
    /// Creates a question for the price of a model.
    #[must_use]
    pub const fn model(model: &'a str) -> Self {
        Self {
            provider: None,
            model: Some(model),
            response_model: None,
            operation: None,
        }
    }

    /// Sets who serves the model.
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

/// Knows what models cost: the price list of `l0-pricing`, or your own.
///
/// It is asked a few times for each attempt at most, never for a token, and is not to block. A closure is one
/// too.
pub trait Pricing: Send + Sync {
    /// Returns what this model costs; absent if that is not known, which is never taken for nothing.
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
                "cached without a price of its own",
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
            ("no output told", tokens, Usage::new().input(10), None),
            ("no input told", tokens, Usage::new().output(10), None),
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
        let told = Cost::new(Money::cents(1), Currency::USD, CostSource::Provider);
        let computed = Cost::new(Money::cents(2), Currency::USD, CostSource::PriceList);
        let sum = told.plus(computed);
        assert_eq!(
            sum,
            Some(Cost::new(Money::cents(3), Currency::USD, CostSource::Mixed))
        );
        let euros = Cost::new(Money::cents(1), Currency::EUR, CostSource::Provider);
        assert_eq!(told.plus(euros), None);
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
