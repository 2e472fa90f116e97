//! Limits: how much a run may give and cost.

use crate::money::{Currency, Money};

/// How much a run may give and cost, over all its attempts. Absent limits end nothing.
///
/// The item that crosses a limit is handed out. After it the run ends with
/// [`Error::Limit`](crate::Error::Limit), as [limited](crate::Outcome::Limited), unless the answer is
/// complete: once the source said why the model stopped, nothing is saved by throwing it away. Neither is
/// by throwing away the answer of a call. No retry and no fallback follows. Limits hold whether or not a
/// run is measured; a watched stream has none.
///
/// A limit of cost needs [prices](crate::Builder::pricing) and an [estimate](crate::Builder::estimate_usage).
/// Without an estimate it stops no answer of a provider that tells usage at the end, as most do.
///
/// ```
/// use l0_core::{Currency, L0, Limits, Money, Price, Priced, TokenPrices, Unfinished, Usage};
/// use std::sync::Arc;
///
/// let price = TokenPrices::per_million(Money::units(2), Money::units(8));
/// let price = Arc::new(Price::new(Currency::USD, price));
/// let l0 = L0::builder()
///     .pricing(move |_: &Priced<'_>| Some(Arc::clone(&price)))
///     .estimate_usage(|attempt: &Unfinished<'_>| {
///         Some(Usage::new().output(attempt.characters.div_ceil(4)))
///     })
///     .limits(Limits::new().output_tokens(4_000).cost(Money::cents(5)))
///     .build();
/// # drop(l0);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Limits {
    pub(crate) output_tokens: Option<u64>,
    pub(crate) cost: Option<(Money, Currency)>,
}

impl Limits {
    /// Creates a set without limits.
    pub const fn new() -> Self {
        Self {
            output_tokens: None,
            cost: None,
        }
    }

    /// Sets how many tokens the run may give, as [`Metrics`](crate::Metrics) counts them: one item of a
    /// stream is one, those of thrown-away attempts included. A call has none.
    pub const fn output_tokens(mut self, tokens: u64) -> Self {
        self.output_tokens = Some(tokens);
        self
    }

    /// Sets how many dollars of the United States the run may cost: see [`cost_in`](Self::cost_in).
    pub const fn cost(self, amount: Money) -> Self {
        self.cost_in(amount, Currency::USD)
    }

    /// Sets what the run may cost.
    ///
    /// What sources tell counts: costs, and usage by the [prices](crate::Builder::pricing) that are set.
    /// Most tell it in their last item only. With [estimates](crate::Builder::estimate_usage) what the
    /// live attempt has given so far counts too. What costs in another currency, or has no price that is
    /// known, does not.
    pub const fn cost_in(mut self, amount: Money, currency: Currency) -> Self {
        self.cost = Some((amount, currency));
        self
    }
}
