//! Costs computed from LiteLLM's list are equal to LiteLLM's own, except for known differences. Runs if
//! the output of `litellm/costs.py` is available.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};

use l0_core::{Price, Priced, Pricing, Usage};
use l0_pricing::PriceList;
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
struct Computed {
    provider: String,
    model: String,
    input: u64,
    cached: u64,
    written: u64,
    output: u64,
    reasoning: u64,
    cost: Option<f64>,
}

#[test]
fn costs_are_equal_to_those_of_litellm() {
    let (Ok(costs), Ok(prices)) = (
        std::env::var("L0_LITELLM_COSTS"),
        std::env::var("L0_LITELLM_PRICES"),
    ) else {
        println!("skipped: L0_LITELLM_COSTS and L0_LITELLM_PRICES are not set");
        return;
    };
    let text = std::fs::read(prices).expect("a file");
    let raw: BTreeMap<String, Value> = serde_json::from_slice(&text).expect("JSON");
    let prices = PriceList::from_reader(&text[..]).expect("a list");
    println!("{prices:?}");
    assert_eq!(prices.skipped().next(), None);
    let mut verdicts: BTreeMap<&str, u32> = BTreeMap::new();
    for line in BufReader::new(File::open(costs).expect("a file")).lines() {
        let computed: Computed = serde_json::from_str(&line.expect("a line")).expect("JSON");
        let usage = Usage::new()
            .input(computed.input)
            .cached_input(computed.cached)
            .cache_write_input(computed.written)
            .output(computed.output)
            .reasoning(computed.reasoning);
        let priced = Priced::model(&computed.model).provider(&computed.provider);
        let price = prices.price(&priced);
        let ours = price.as_ref().and_then(|price| price.cost(&usage));
        let ours = ours.map(|cost| cost.amount.as_f64());
        let verdict = match (ours, computed.cost) {
            (Some(ours), Some(theirs)) if is_same(ours, theirs) => "same",
            (Some(ours), Some(theirs)) => {
                let price = price.as_ref().expect("a price");
                computed
                    .reason(price, &raw, ours, theirs)
                    .unwrap_or_else(|| {
                        println!("{computed:?}: {ours}, by {price:?}");
                        "different, without a reason"
                    })
            }
            (None, None) => "unknown to both",
            (ours, _) => {
                println!("{computed:?}: {ours:?}");
                "different, without a reason"
            }
        };
        *verdicts.entry(verdict).or_default() += 1;
    }
    println!("{verdicts:#?}");
    assert!(verdicts["same"] >= 200, "{verdicts:?}");
    assert_eq!(verdicts.get("different, without a reason"), None);
}

fn is_same(ours: f64, theirs: f64) -> bool {
    (ours - theirs).abs() <= theirs.abs() * 1e-9
}

impl Computed {
    /// Returns the reason why LiteLLM computes another cost, if it is known.
    fn reason(
        &self,
        price: &Price,
        raw: &BTreeMap<String, Value>,
        ours: f64,
        theirs: f64,
    ) -> Option<&'static str> {
        let entry = raw.get(&format!("{}/{}", self.provider, self.model));
        let entry = entry.or_else(|| raw.get(&self.model));
        let has = |field| entry.is_some_and(|entry| entry.get(field).is_some());
        let at_threshold = price.tiers.iter().any(|tier| tier.above == self.input);
        let half_of_cached = (price.tokens.input * self.cached).as_f64() / 2.0;
        if has("off_peak_pricing") {
            Some("LiteLLM's depends on the time of day")
        } else if at_threshold && self.provider == "x_ai" {
            Some("LiteLLM applies the upper tier of xAI at the threshold, not above it")
        } else if price.tokens.cached_input.is_none() && is_same(ours - half_of_cached, theirs) {
            Some("LiteLLM uses half a price for cached tokens of Fireworks without one")
        } else if self.model.starts_with("together-ai-") {
            Some("LiteLLM uses this entry, of a class of models, for a model of that size")
        } else {
            None
        }
    }
}
