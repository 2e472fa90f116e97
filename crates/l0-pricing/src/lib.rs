//! What the usage of runs costs, from a price list of yours.
//!
//! A [`PriceList`] is read from a file in [LiteLLM's public JSON layout][layout], made by hand, or
//! both: your own prices over those of the file. No prices come with this crate, since they change
//! without it; fetch the file when you deploy, and keep it beside your configuration.
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
//! let asked = Priced::model("gpt-4o").response_model("gpt-4o-2024-08-06").provider("openai");
//! let price = prices.price(&asked).expect("a price");
//! let cost = price.cost(&Usage::new().input(1_000).cached_input(400).output(50));
//! assert_eq!(cost.expect("a cost").amount.to_string(), "0.0025");
//!
//! assert!(prices.price(&Priced::model("a-model-of-tomorrow")).is_none());
//! # Ok::<(), l0_pricing::PriceListError>(())
//! ```
//!
//! # How a model is found
//!
//! A model that is not found has no price, and its runs no cost: it is never taken for one that costs
//! nothing. A run knows the provider, the model that was asked for, and perhaps the model that
//! answered, which is the more exact name of the two. These are tried, in this order, and the first
//! that is in the list counts:
//!
//! 1. what you gave with [`PriceList::alias`] for the model that answered, then for the one asked for;
//! 2. the model that answered, as it is, then without what dates it: `gpt-4o-2024-08-06`,
//!    `claude-sonnet-4-20250514`, `gemini-2.0-flash-001`, `mistral-large-latest`;
//! 3. the model that was asked for, in the same two ways.
//!
//! A name is looked for under the provider's prefix, as in `azure/gpt-4o`, and by itself, as in
//! `gpt-4o`. A known provider must be that of the entry: what OpenAI charges for `gpt-4o` says nothing
//! of what Azure does. An entry that names no provider fits each. Without a provider, what stands
//! before a `/` of the name is taken for one, as in `openai/gpt-4o`.
//!
//! With several lists, all of this is tried in the upper one first.
//!
//! # What a list does not know
//!
//! Counts of tokens are all that a cost is computed from. What providers charge for by other
//! measures (images, seconds of audio, searches, a cache that lives for an hour) is not in it, nor are
//! taxes and discounts. See the guide on cost and limits.
//!
//! [layout]: https://github.com/BerriAI/litellm/blob/main/model_prices_and_context_window.json
#![cfg_attr(docsrs, feature(doc_cfg))]

mod characters;
mod list;
mod litellm;
mod names;

pub use characters::Characters;
pub use list::PriceList;
pub use litellm::{PriceListError, ServiceTier, Skipped};
