//! Attempt stats: what each attempt of a run measured, as plain data, and how attempts add up.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::distribution::Distribution;
use crate::failure::NetworkErrorKind;
use crate::price::Cost;
use crate::stats::{DriftStats, ErrorRecord, GuardrailStats, add_up};
use crate::token::FinishReason;
use crate::units::millis;
use crate::usage::Usage;
use crate::verdict::Outcome;

/// What one attempt of a run measured: one call of one source.
///
/// The last entry of a run is the attempt that nothing follows: its tokens are the answer's. Those of
/// the entries before it were thrown away. The sums over all entries are the run's totals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct AttemptStats {
    /// Which attempt, from 1. Of an entry that stands for several, the first of them.
    pub number: u32,
    /// How many attempts this entry stands for: 1, unless the run made more than
    /// [`MAX`](Self::MAX). In JSON, 1 is left out.
    #[serde(skip_serializing_if = "is_one")]
    pub count: u32,
    /// Which source was called, from 1: the run's own is the first, then come its fallbacks.
    pub source: u32,
    /// The model asked for; absent if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Who serves the model; absent if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// What was done, such as `chat`; absent if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// From the start of the run to the call of the source. Absent in a run that is not measured.
    #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub start_offset: Option<Duration>,
    /// How long the run was to wait before it, for a retry; absent if it is the first of its source.
    #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// From the call of the source to the attempt's end, without the back-off that follows. Absent
    /// before the end, and in a run that is not measured.
    #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
    /// From the call of the source to the attempt's first token of any kind. Absent without a token
    /// or without timings.
    #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub time_to_first_token: Option<Duration>,
    /// Tokens. One item of the stream is one token.
    pub tokens: u64,
    /// The gaps between two tokens. Absent without a gap or without timings, and in a run of one
    /// attempt, of which they are [the run's](crate::Metrics::inter_token).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inter_token: Option<Distribution>,
    /// How the attempt ended; absent while it lasts. An attempt after which another one follows did
    /// not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why the attempt did not complete; absent if it completed or was dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorRecord>,
    /// Why the model stopped; absent if the source did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<FinishReason>,
    /// The provider's own token counts; absent if the source did not carry any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What the attempt cost: what the provider told, or else what a [price](crate::Pricing) makes of
    /// its usage. Absent if neither is known, which does not mean that it was for nothing.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "Cost::read_back"
    )]
    pub cost: Option<Cost>,
    /// How many attempts told their usage, and no price of their model was known. 0 where no prices are
    /// [set](crate::Builder::pricing).
    #[serde(skip_serializing_if = "is_zero")]
    pub unpriced: u32,
    /// What the attempt may have used besides what was told, where it ended early and usage is
    /// [estimated](crate::Builder::estimate_usage). It is no part of [`usage`](Self::usage).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_usage: Option<Usage>,
    /// What a price makes of the estimated usage. It is no part of [`cost`](Self::cost). Absent if no
    /// price is known, and where the provider told what the attempt cost.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "Cost::read_back"
    )]
    pub estimated_cost: Option<Cost>,
    /// The model that answered, as the provider names it, cut to 256 bytes; absent if the source did
    /// not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_model: Option<String>,
    /// The provider's id of the response, cut to 256 bytes; absent if the source did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// The network errors that it met, by type.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "add_up"
    )]
    pub network_errors: BTreeMap<NetworkErrorKind, u64>,
    /// How many retries for network errors, rate limits and server errors it led to.
    #[serde(skip_serializing_if = "is_zero")]
    pub network_retries: u32,
    /// How many retries for the model's answer it led to.
    #[serde(skip_serializing_if = "is_zero")]
    pub model_retries: u32,
    /// How many fallbacks to the next source it led to.
    #[serde(skip_serializing_if = "is_zero")]
    pub fallbacks: u32,
    /// Guardrail violations; absent if there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guardrails: Option<GuardrailStats>,
    /// Drift; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftStats>,
}

/// What was asked of whom.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) model: Option<String>,
    pub(crate) provider: Option<String>,
    pub(crate) operation: Option<String>,
}

impl Names {
    pub(crate) fn tell(self, stats: &mut AttemptStats) {
        stats.model = self.model;
        stats.provider = self.provider;
        stats.operation = self.operation;
    }
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
const fn is_one(count: &u32) -> bool {
    *count == 1
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// The first attempt of the first source, of which nothing is known.
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
    /// How many entries a run keeps. When it makes more attempts, the ones that were thrown away are
    /// folded into the last entry of their source, and of their currency, that stays, so that sums stay
    /// exact.
    pub const MAX: usize = 32;

    /// Adds what another attempt of the same source, which came later, measured. What is no sum is
    /// the later one's.
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

    /// Whether what the two cost can be added up.
    fn fits(&self, other: &Self) -> bool {
        Cost::fits(self.cost, other.cost) && Cost::fits(self.estimated_cost, other.estimated_cost)
    }

    /// Puts an attempt at the end of a list, which is kept short. Returns where it is.
    pub(crate) fn push(list: &mut Vec<Self>, attempt: Self) -> &mut Self {
        if list.len() == Self::MAX {
            // The last one, unless its cost is in another currency than those of its source.
            let pair = |fits: fn(&Self, &Self) -> bool| {
                (1..list.len()).rev().find_map(|later| {
                    let earlier = &list[..later];
                    let into = earlier.iter().rposition(|one| fits(one, &list[later]))?;
                    Some((into, later))
                })
            };
            let of_source =
                |one: &Self, later: &Self| one.source == later.source && one.fits(later);
            let pair = pair(of_source).or_else(|| pair(Self::fits));
            let (into, later) = pair.unwrap_or((Self::MAX - 2, Self::MAX - 1));
            let later = list.remove(later);
            list[into].fold(later);
        }
        if list.capacity() == 0 {
            // Most runs make one attempt.
            list.reserve_exact(1);
        }
        list.push(attempt);
        let last = list.len() - 1;
        &mut list[last]
    }
}

/// Adds up usages of which either may be unknown.
pub(crate) fn plus(one: Option<Usage>, other: Option<Usage>) -> Option<Usage> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.plus(other)),
        (one, other) => one.or(other),
    }
}

/// Adds up what may be absent in either.
pub(crate) fn merge<T: Clone>(all: &mut Option<T>, more: Option<&T>, add: fn(&mut T, &T)) {
    match (all, more) {
        (Some(all), Some(more)) => add(all, more),
        (all @ None, Some(more)) => *all = Some(more.clone()),
        (_, None) => {}
    }
}
