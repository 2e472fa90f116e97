//! The cost of runs, computed from your own price list.
//!
//! A [`PriceList`] is read from a file in [LiteLLM's public JSON layout][layout], built in code, or
//! both: your own prices take precedence over those of the file. This crate contains no prices, because
//! they change independently of it. Fetch the file when you deploy, and keep it next to your
//! configuration.
//!
//! ```
//! use l0_core::{Currency, Money, Price, Priced, Pricing, TokenPrices, Usage};
//! use l0_pricing::PriceList;
//!
//! // std::fs::File::open("model_prices.json")?
//! let file = br#"{ "gpt-4o": {
//!     "litellm_provider": "openai",
//!     "mode": "chat",
//!     "input_cost_per_token": 2.5e-06,
//!     "cache_read_input_token_cost": 1.25e-06,
//!     "output_cost_per_token": 1e-05
//! } }"#;
//! let negotiated = TokenPrices::per_million(Money::units(1), Money::units(4));
//! let prices = PriceList::new()
//!     .model("gpt-4o-mini", Price::new(Currency::USD, negotiated))
//!     .over(PriceList::from_reader(&file[..])?);
//!
//! let model = Priced::model("gpt-4o").response_model("gpt-4o-2024-08-06").provider("openai");
//! let price = prices.price(&model).expect("a price");
//! let cost = price.cost(&Usage::new().input(1_000).cached_input(400).output(50));
//! assert_eq!(cost.expect("a cost").amount.to_string(), "0.0025");
//!
//! assert!(prices.price(&Priced::model("a-model-of-tomorrow")).is_none());
//! # Ok::<(), l0_pricing::PriceListError>(())
//! ```
//!
//! # Model lookup
//!
//! A model that is not found has no price, and its runs have no cost. It is never treated as free. A
//! run knows the provider, the requested model, and possibly the model that answered, which has the
//! more exact name. These names are tried in order, and the first one in the list wins:
//!
//! 1. the alias set with [`PriceList::alias`] for the model that answered, then for the requested one;
//! 2. the model that answered, first as it is, then without its version: `gpt-4o-2024-08-06`,
//!    `claude-sonnet-4-20250514`, `gemini-2.0-flash-001`, `mistral-large-latest`;
//! 3. the requested model, in the same two forms.
//!
//! A name is searched with the provider's prefix, as in `azure/gpt-4o`, and without it, as in `gpt-4o`.
//! A known provider must match that of the entry, because OpenAI and Azure can charge different prices
//! for `gpt-4o`. An entry without a provider matches every provider. If the provider is unknown, the
//! part before a `/` in the name counts as the provider, as in `openai/gpt-4o`.
//!
//! With several lists, all of this is tried in the upper list first. Aliases and providers apply to all lists.
//!
//! # Limitations
//!
//! A cost is computed from token counts only. It does not include other charges of providers (images,
//! seconds of audio, searches, a cache that lives for an hour), taxes or discounts. See the guide on
//! cost and limits.
//!
//! [layout]: https://github.com/BerriAI/litellm/blob/main/model_prices_and_context_window.json
//!
//! # Guide
//!
//! In the [guide](https://docs.rs/l0-core/latest/l0_core/guide/) of `l0-core`:
//!
//! - [Cost and limits](https://docs.rs/l0-core/latest/l0_core/guide/cost/)

mod characters;
mod list;
mod litellm;
mod names;

pub use characters::Characters;
pub use list::PriceList;
pub use litellm::{PriceListError, ServiceTier, Skipped};
