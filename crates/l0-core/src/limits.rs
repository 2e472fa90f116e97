//! Limits: how much a run can produce and cost.

use crate::money::{Currency, Money};

/// Limits on what a run produces and costs, over all its attempts. Absent limits never end a run.
///
/// The item that crosses a limit is yielded. The run then ends with
/// [`Error::Limit`](crate::Error::Limit), as [limited](crate::Outcome::Limited), and is not
/// retried. A complete answer is not limited, because discarding it would save nothing: a stream
/// after its finish reason, or the answer of a call. Limits also apply to runs that are not
/// measured, but not to watched streams.
///
/// A cost limit needs [prices](crate::builder::Builder::pricing) and an
/// [estimate](crate::builder::Builder::estimate_usage). Without an estimate it cannot stop answers of the
/// providers that report usage at the end, as most do.
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

    /// Sets the maximum number of tokens, counted as in [`Metrics`](crate::Metrics): each item with
    /// a token is one, including those of discarded attempts. A call has no tokens.
    pub const fn output_tokens(mut self, tokens: u64) -> Self {
        self.output_tokens = Some(tokens);
        self
    }

    /// Sets the maximum cost in US dollars: see [`cost_in`](Self::cost_in).
    pub const fn cost(self, amount: Money) -> Self {
        self.cost_in(amount, Currency::USD)
    }

    /// Sets the maximum cost.
    ///
    /// Reported costs count, and reported usage at the [prices](crate::builder::Builder::pricing) that are
    /// set. Most sources report usage in their last item only. With an
    /// [estimate](crate::builder::Builder::estimate_usage), what the live attempt has produced so far counts
    /// too. Costs in another currency and usage without a known price do not count.
    pub const fn cost_in(mut self, amount: Money, currency: Currency) -> Self {
        self.cost = Some((amount, currency));
        self
    }
}
