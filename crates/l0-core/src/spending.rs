//! Spending: what a run has given and cost so far, against its limits and budgets.

use std::sync::Arc;

use crate::budget::{Account, Budget};
use crate::end::LimitKind;
use crate::error::Refusal;
use crate::limits::Limits;
use crate::money::{Currency, Money};
use crate::price::{Cost, Price};
use crate::token::TokenView;
use crate::usage::Usage;

/// One run's. It is there only if the run has a limit or a budget.
pub(crate) struct Spending {
    max_tokens: u64,
    purses: Vec<Purse>,
    /// What the present attempt's source told.
    told: Told,
    /// What the present attempt's model costs: not known, or not asked for yet.
    price: Option<Option<Arc<Price>>>,
    reached: Option<LimitKind>,
}

/// What a source told.
#[derive(Default, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) usage: Option<Usage>,
    pub(crate) cost: Option<Cost>,
}

/// What is spent from: the run's own limit, or a budget.
struct Purse {
    currency: Currency,
    from: From,
    /// What the attempts before the present one came to.
    before: Money,
    /// What the present one came to so far.
    present: Money,
}

enum From {
    Limit(Money),
    Budget(Account),
}

impl Spending {
    /// Begins a run with these limits, unless a budget is spent. Absent if nothing limits it.
    pub(crate) fn begin(limits: Limits, budgets: &[Budget]) -> Result<Option<Box<Self>>, Refusal> {
        let own = limits.cost.map(|(max, currency)| Purse {
            currency,
            from: From::Limit(max),
            before: Money::ZERO,
            present: Money::ZERO,
        });
        let mut purses: Vec<_> = own.into_iter().collect();
        for budget in budgets {
            let account = budget.enter()?;
            purses.push(Purse {
                currency: account.currency(),
                from: From::Budget(account),
                before: Money::ZERO,
                present: Money::ZERO,
            });
        }
        let limits_any = limits.output_tokens.is_some() || !purses.is_empty();
        Ok(limits_any.then(|| {
            Box::new(Self {
                max_tokens: limits.output_tokens.unwrap_or(u64::MAX),
                purses,
                told: Told::default(),
                price: None,
                reached: None,
            })
        }))
    }

    /// Which limit was crossed.
    pub(crate) fn reached(&self) -> Option<LimitKind> {
        self.reached
    }

    /// What the present attempt's source told.
    pub(crate) fn told(&self) -> Told {
        self.told
    }

    /// An item came; the run has given so many tokens. Returns whether its cost has changed.
    #[inline]
    pub(crate) fn item(&mut self, view: &TokenView<'_>, tokens: u64) -> bool {
        if tokens > self.max_tokens {
            self.reached = Some(LimitKind::OutputTokens);
        }
        let tells = view.usage.is_some() || view.cost.is_some();
        if tells {
            self.told.usage = view.usage.or(self.told.usage);
            self.told.cost = view.cost.copied().or(self.told.cost);
        }
        tells && !self.purses.is_empty()
    }

    /// Counts what the present attempt came to so far; `price` is asked once for each attempt.
    pub(crate) fn count(&mut self, price: impl FnOnce() -> Option<Arc<Price>>) {
        let cost = self.told.cost.or_else(|| {
            let price = self.price.get_or_insert_with(price).as_deref()?;
            let mut usage = self.told.usage?;
            // What is not told yet comes to nothing so far.
            usage.input = usage.input.or(Some(0));
            usage.output = usage.output.or(Some(0));
            price.cost(&usage)
        });
        self.set(cost);
    }

    /// The present attempt has ended, and came to this: what was told, and what was estimated.
    pub(crate) fn end_attempt(&mut self, costs: [Option<Cost>; 2]) {
        let is_known = costs.iter().any(Option::is_some);
        for purse in &mut self.purses {
            // Where nobody knows, what was counted while it was live is the best that there is.
            if is_known {
                purse.set(costs.into_iter().flatten());
            }
            purse.before += std::mem::take(&mut purse.present);
        }
        self.look();
        (self.told, self.price) = (Told::default(), None);
    }

    fn set(&mut self, cost: Option<Cost>) {
        for purse in &mut self.purses {
            purse.set(cost.into_iter());
        }
        self.look();
    }

    fn look(&mut self) {
        let crossed = self.purses.iter().find_map(Purse::crossed);
        self.reached = self.reached.or(crossed);
    }
}

impl Purse {
    fn set(&mut self, costs: impl Iterator<Item = Cost>) {
        let known = costs.filter(|cost| cost.currency == self.currency);
        let present = known.map(|cost| cost.amount).sum();
        let was = self.before + std::mem::replace(&mut self.present, present);
        if let From::Budget(account) = &self.from {
            account.charge(was, self.before + present);
        }
    }

    fn crossed(&self) -> Option<LimitKind> {
        match &self.from {
            From::Limit(max) => (self.before + self.present > *max).then_some(LimitKind::Cost),
            From::Budget(account) => account.is_overspent().then_some(LimitKind::Budget),
        }
    }
}
