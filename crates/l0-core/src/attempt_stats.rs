//! Attempt stats: the measurements of each attempt of a run, as plain data, and how attempts add up.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::distribution::Distribution;
use crate::failure::NetworkErrorKind;
use crate::price::Cost;
use crate::stats::{DriftStats, ErrorRecord, GuardrailStats, add_up};
use crate::token::FinishReason;
use crate::units::millis;
use crate::usage::Usage;
use crate::verdict::Outcome;

/// The measurements of one attempt of a run: one call of one source.
///
/// The last entry of a run is its final attempt, whose tokens make up the answer. The output of earlier
/// attempts was discarded. The entries add up to the run's totals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct AttemptStats {
    /// The number of the attempt, from 1. If the entry stands for several attempts, the number of the
    /// first.
    pub number: u32,
    /// The number of attempts that this entry stands for: 1, unless the run made more than
    /// [`MAX`](Self::MAX) attempts. In JSON, 1 is omitted.
    #[serde(skip_serializing_if = "is_one")]
    pub count: u32,
    /// The number of the source that was called, from 1. The run's own source is the first, followed by
    /// its fallbacks.
    pub source: u32,
    /// The requested model. `None` if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The provider that serves the model. `None` if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The operation, such as `chat`. `None` if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The time from the start of the run to the call of the source. `None` in an unmeasured run.
    #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub start_offset: Option<Duration>,
    /// The delay before this attempt, if it is a retry. `None` for the first attempt of a source.
    #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// The time from the call of the source to the end of the attempt. The back-off that follows is not
    /// included. `None` before the end, and in an unmeasured run.
    #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
    /// The time from the call of the source to the attempt's first token of any kind. `None` without a
    /// token or without timings.
    #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub time_to_first_token: Option<Duration>,
    /// Tokens. One stream item is one token.
    pub tokens: u64,
    /// The gaps between two tokens. `None` without a gap or without timings. Also `None` in a run with
    /// one attempt, where [the run](crate::Metrics::inter_token) holds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inter_token: Option<Distribution>,
    /// How the attempt ended. `None` while it lasts. An attempt followed by another one did not
    /// complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why the attempt did not complete. `None` if it completed or was dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorRecord>,
    /// Why the model stopped. `None` if the source did not report a reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<FinishReason>,
    /// The provider's own token counts. `None` if the source reported none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The cost of the attempt, as reported by the provider or else computed from its usage by a
    /// [price](crate::Pricing). `None` if neither is known, which does not mean that it was free.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "Cost::read_back"
    )]
    pub cost: Option<Cost>,
    /// The number of attempts that reported usage for a model without a known price. 0 if no prices are
    /// [set](crate::builder::Builder::pricing).
    #[serde(skip_serializing_if = "is_zero")]
    pub unpriced: u32,
    /// An estimate of the usage that was not reported, for an attempt that ended early in a run that
    /// [estimates](crate::builder::Builder::estimate_usage) usage. [`usage`](Self::usage) does not
    /// include it. `None` without an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_usage: Option<Usage>,
    /// The cost of the estimated usage, computed from a price. [`cost`](Self::cost) does not include
    /// it. `None` if no price is known, and if the provider reported the cost of the attempt.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "Cost::read_back"
    )]
    pub estimated_cost: Option<Cost>,
    /// The model that answered, as named by the provider, truncated to 256 bytes. `None` if the source
    /// did not report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_model: Option<String>,
    /// The provider's response id, truncated to 256 bytes. `None` if the source did not report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// Network errors of the attempt, by type.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "add_up"
    )]
    pub network_errors: BTreeMap<NetworkErrorKind, u64>,
    /// Retries that the attempt led to because of network errors, rate limits and server errors.
    #[serde(skip_serializing_if = "is_zero")]
    pub network_retries: u32,
    /// Retries that the attempt led to because of the model's answer.
    #[serde(skip_serializing_if = "is_zero")]
    pub model_retries: u32,
    /// Fallbacks to the next source that the attempt led to.
    #[serde(skip_serializing_if = "is_zero")]
    pub fallbacks: u32,
    /// Guardrail violations. `None` without violations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guardrails: Option<GuardrailStats>,
    /// Drift. `None` without drift.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftStats>,
}

/// The operation, model and provider of an attempt.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) model: Option<String>,
    pub(crate) provider: Option<String>,
    pub(crate) operation: Option<String>,
}

impl Names {
    pub(crate) fn write_to(self, stats: &mut AttemptStats) {
        stats.model = self.model;
        stats.provider = self.provider;
        stats.operation = self.operation;
    }
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "signature required by serde"
)]
const fn is_one(count: &u32) -> bool {
    *count == 1
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "signature required by serde"
)]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// The first attempt of the first source, with everything else unknown.
impl Default for AttemptStats {
    fn default() -> Self {
        Self {
            number: 1,
            count: 1,
            source: 1,
            model: None,
            provider: None,
            operation: None,
            start_offset: None,
            delay: None,
            duration: None,
            time_to_first_token: None,
            tokens: 0,
            inter_token: None,
            outcome: None,
            error: None,
            finish_reason: None,
            usage: None,
            cost: None,
            unpriced: 0,
            estimated_usage: None,
            estimated_cost: None,
            response_model: None,
            response_id: None,
            network_errors: BTreeMap::new(),
            network_retries: 0,
            model_retries: 0,
            fallbacks: 0,
            guardrails: None,
            drift: None,
        }
    }
}

impl AttemptStats {
    /// The number of entries that a run keeps. Attempts beyond it are folded into the last kept entry
    /// of the same source and currency, so sums stay exact.
    pub const MAX: usize = 32;

    /// Adds the measurements of a later attempt of the same source. Values that cannot be added take
    /// the later attempt's value.
    pub(crate) fn fold(&mut self, later: Self) {
        self.count = self.count.saturating_add(later.count);
        self.tokens = self.tokens.saturating_add(later.tokens);
        merge(
            &mut self.inter_token,
            later.inter_token.as_ref(),
            Distribution::merge,
        );
        self.usage = plus(self.usage, later.usage);
        self.cost = Cost::sum(self.cost.into_iter().chain(later.cost));
        self.estimated_usage = plus(self.estimated_usage, later.estimated_usage);
        let estimated = self.estimated_cost.into_iter();
        self.estimated_cost = Cost::sum(estimated.chain(later.estimated_cost));
        self.unpriced = self.unpriced.saturating_add(later.unpriced);
        for (kind, count) in later.network_errors {
            let of_kind = self.network_errors.entry(kind).or_default();
            *of_kind = of_kind.saturating_add(count);
        }
        self.network_retries = self.network_retries.saturating_add(later.network_retries);
        self.model_retries = self.model_retries.saturating_add(later.model_retries);
        self.fallbacks = self.fallbacks.saturating_add(later.fallbacks);
        merge(
            &mut self.guardrails,
            later.guardrails.as_ref(),
            GuardrailStats::merge,
        );
        merge(&mut self.drift, later.drift.as_ref(), DriftStats::merge);
        self.outcome = later.outcome;
        self.error = later.error;
        self.finish_reason = later.finish_reason;
        self.response_model = later.response_model;
        self.response_id = later.response_id;
        self.duration = match (self.start_offset, later.start_offset, later.duration) {
            (Some(first), Some(last), Some(duration)) => {
                Some(last.saturating_add(duration).saturating_sub(first))
            }
            _ => later.duration,
        };
    }

    /// Returns `true` if both attempts have the same source and their costs can be added.
    fn fits(&self, other: &Self) -> bool {
        Cost::fits(self.cost, other.cost) && Cost::fits(self.estimated_cost, other.estimated_cost)
    }

    /// Appends an empty entry to a list of limited length, and returns it. The entry is filled in
    /// place, because it is large.
    pub(crate) fn append(list: &mut Vec<Self>) -> &mut Self {
        if list.len() == Self::MAX {
            Self::fold_two(list);
        }
        if list.capacity() == 0 {
            // Most runs make one attempt, so the list starts at that capacity.
            *list = Vec::with_capacity(1);
        }
        let last = list.len();
        list.resize_with(last + 1, Self::default);
        &mut list[last]
    }

    /// Folds one entry into an earlier one of its source, unless its cost is in another currency than
    /// earlier ones of its source.
    #[cold]
    fn fold_two(list: &mut Vec<Self>) {
        let pair = |fits: fn(&Self, &Self) -> bool| {
            (1..list.len()).rev().find_map(|later| {
                let earlier = &list[..later];
                let into = earlier.iter().rposition(|one| fits(one, &list[later]))?;
                Some((into, later))
            })
        };
        let of_source = |one: &Self, later: &Self| one.source == later.source && one.fits(later);
        let pair = pair(of_source).or_else(|| pair(Self::fits));
        let (into, later) = pair.unwrap_or((Self::MAX - 2, Self::MAX - 1));
        let later = list.remove(later);
        list[into].fold(later);
    }

    /// Deserializes a list and limits its length while reading. A record can hold any number of
    /// entries, and a long list must not fill memory.
    pub(crate) fn read_back<'de, D>(deserializer: D) -> Result<Vec<Self>, D::Error>
    where
        D: Deserializer<'de>,
    {
        struct Short;

        impl<'de> Visitor<'de> for Short {
            type Value = Vec<AttemptStats>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(attempt) = seq.next_element()? {
                    *AttemptStats::append(&mut list) = attempt;
                }
                Ok(list)
            }
        }

        deserializer.deserialize_seq(Short)
    }
}

/// Adds two usages, either of which can be unknown.
pub(crate) fn plus(one: Option<Usage>, other: Option<Usage>) -> Option<Usage> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.plus(other)),
        (one, other) => one.or(other),
    }
}

/// Merges two values, either of which can be absent.
pub(crate) fn merge<T: Clone>(all: &mut Option<T>, more: Option<&T>, add: fn(&mut T, &T)) {
    match (all, more) {
        (Some(all), Some(more)) => add(all, more),
        (all @ None, Some(more)) => *all = Some(more.clone()),
        (_, None) => {}
    }
}
