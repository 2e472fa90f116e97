//! What LiteLLM computes from its list is what we compute from it, but for differences that have a
//! reason. Switched on by what `litellm/costs.py` writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};

use l0_core::{Price, Priced, Pricing, Usage};
use l0_pricing::PriceList;
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
struct Told {
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
fn costs_are_those_of_litellm() {
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
        let told: Told = serde_json::from_str(&line.expect("a line")).expect("JSON");
        let usage = Usage::new()
            .input(told.input)
            .cached_input(told.cached)
            .cache_write_input(told.written)
            .output(told.output)
            .reasoning(told.reasoning);
        let asked = Priced::model(&told.model).provider(&told.provider);
        let price = prices.price(&asked);
        let ours = price.as_ref().and_then(|price| price.cost(&usage));
        let ours = ours.map(|cost| cost.amount.as_f64());
        let verdict = match (ours, told.cost) {
            (Some(ours), Some(theirs)) if is_same(ours, theirs) => "same",
            (Some(ours), Some(theirs)) => {
                let price = price.as_ref().expect("a price");
                told.reason(price, &raw, ours, theirs).unwrap_or_else(|| {
                    println!("{told:?}: {ours}, by {price:?}");
                    "different, without a reason"
                })
            }
            (None, None) => "not known to either",
            (ours, _) => {
                println!("{told:?}: {ours:?}");
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

impl Told {
    /// Why LiteLLM computes something else.
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
            Some("theirs depends on the time of day")
        } else if at_threshold && self.provider == "x_ai" {
            Some("theirs has the upper tier of xAI from the threshold on, not above it")
        } else if price.tokens.cached_input.is_none() && is_same(ours - half_of_cached, theirs) {
            Some("theirs takes half a price for cached tokens of Fireworks without one")
        } else if self.model.starts_with("together-ai-") {
            Some("theirs takes this entry, of a class of models, for a model of that size")
        } else {
            None
        }
    }
}
