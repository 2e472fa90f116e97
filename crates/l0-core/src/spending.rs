//! Spending: what a run has produced and cost so far, compared with its limits and budgets.

use std::sync::Arc;

use crate::attempt_stats::Names;
use crate::budget::{Account, Budget};
use crate::end::LimitKind;
use crate::error::Refusal;
use crate::estimate::unreported;
use crate::limits::Limits;
use crate::money::{Currency, Money};
use crate::price::{Cost, Price};
use crate::token::TokenView;
use crate::usage::Usage;

/// The spending of one run. It exists only if the run has a limit or a budget.
pub(crate) struct Spending {
    max_tokens: u64,
    money_limits: Vec<MoneyLimit>,
    /// The current attempt's usage and cost, as reported by its source.
    pub(crate) reported: Reported,
    /// The tokens of earlier attempts.
    tokens_before: u64,
    /// The current attempt's model and its price; `None` until it is looked up.
    pub(crate) priced: Option<(Names, Option<Arc<Price>>)>,
    reached: Option<LimitKind>,
}

/// The usage and cost that a source has reported about an attempt so far.
#[derive(Default, Clone, Copy)]
pub(crate) struct Reported {
    pub(crate) usage: Option<Usage>,
    pub(crate) cost: Option<Cost>,
    /// `true` once it sent a finish reason.
    pub(crate) is_whole: bool,
    pub(crate) tokens: u64,
}

/// One limit of money: the run's own, or a budget.
struct MoneyLimit {
    currency: Currency,
    from: From,
    /// The cost of earlier attempts.
    before: Money,
    /// The cost of the current attempt so far.
    current: Money,
}

enum From {
    Limit(Money),
    Budget(Account),
}

impl Spending {
    /// Begins a run with these limits, unless a budget is spent. `None` if nothing limits it.
    pub(crate) fn begin(limits: Limits, budgets: &[Budget]) -> Result<Option<Box<Self>>, Refusal> {
        if limits.output_tokens.is_none() && limits.cost.is_none() && budgets.is_empty() {
            return Ok(None);
        }
        let own = limits.cost.map(|(max, currency)| MoneyLimit {
            currency,
            from: From::Limit(max),
            before: Money::ZERO,
            current: Money::ZERO,
        });
        let mut money_limits: Vec<_> = own.into_iter().collect();
        for (index, budget) in budgets.iter().enumerate() {
            // A budget of both an `L0` and its run is spent from once.
            if budgets[..index].iter().any(|before| before.is(budget)) {
                continue;
            }
            let account = budget.enter()?;
            money_limits.push(MoneyLimit {
                currency: account.currency(),
                from: From::Budget(account),
                before: Money::ZERO,
                current: Money::ZERO,
            });
        }
        Ok(Some(Box::new(Self {
            max_tokens: limits.output_tokens.unwrap_or(u64::MAX),
            money_limits,
            reported: Reported::default(),
            tokens_before: 0,
            priced: None,
            reached: None,
        })))
    }

    /// Returns the limit that was crossed. A budget can be crossed by other runs, at any time.
    #[inline]
    pub(crate) fn reached(&mut self) -> Option<LimitKind> {
        if self.reached.is_none() {
            self.reached = self.money_limits.iter().find_map(MoneyLimit::crossed);
        }
        self.reached
    }

    /// Returns `true` if money limits the run.
    pub(crate) fn has_money_limits(&self) -> bool {
        !self.money_limits.is_empty()
    }

    /// Records an item. `tokens` is the number of the run's tokens so far. Returns `true` if the
    /// item reports usage or a cost.
    #[inline]
    pub(crate) fn item(&mut self, view: &TokenView<'_>, tokens: u64) -> bool {
        if tokens > self.max_tokens {
            self.reached = Some(LimitKind::OutputTokens);
        }
        let reported = &mut self.reported;
        reported.tokens = tokens - self.tokens_before;
        reported.is_whole |= view.finish.is_some();
        reported.usage = view.usage.or(reported.usage);
        reported.cost = view.cost.copied().or(reported.cost);
        view.usage.is_some() || view.cost.is_some()
    }

    /// Updates the cost of the current attempt: what was reported, or else an estimate of what it
    /// used.
    pub(crate) fn count(&mut self, price: Option<&Price>, estimated: Option<Usage>) {
        let cost = self.reported.cost.or_else(|| {
            let mut usage = self.reported.usage.unwrap_or_default();
            if let Some(more) = estimated.and_then(|all| unreported(all, self.reported.usage)) {
                usage = usage.plus(more);
            }
            // Unknown parts count as 0 so far.
            usage.input = usage.input.or(Some(0));
            usage.output = usage.output.or(Some(0));
            price?.cost(&usage)
        });
        for limit in &mut self.money_limits {
            limit.set(cost.into_iter());
        }
    }

    /// Ends the current attempt with its final costs: reported and estimated.
    pub(crate) fn end_attempt(&mut self, costs: [Option<Cost>; 2]) {
        let is_known = costs.iter().any(Option::is_some);
        for limit in &mut self.money_limits {
            // If no cost is known, the last value counted while it was live is the best available.
            if is_known {
                limit.set(costs.into_iter().flatten());
            }
            limit.before += std::mem::take(&mut limit.current);
        }
        self.tokens_before += self.reported.tokens;
        (self.reported, self.priced) = (Reported::default(), None);
    }
}

impl MoneyLimit {
    fn set(&mut self, costs: impl Iterator<Item = Cost>) {
        let known = costs.filter(|cost| cost.currency == self.currency);
        let current = known.map(|cost| cost.amount).sum();
        let was = self.before + std::mem::replace(&mut self.current, current);
        if let From::Budget(account) = &self.from {
            account.charge(was, self.before + current);
        }
    }

    fn crossed(&self) -> Option<LimitKind> {
        match &self.from {
            From::Limit(max) => (self.before + self.current > *max).then_some(LimitKind::Cost),
            From::Budget(account) => account.is_overspent().then_some(LimitKind::Budget),
        }
    }
}
