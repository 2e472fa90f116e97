//! Spending: what a run has given and cost so far, against its limits and budgets.

use std::sync::Arc;

use crate::attempt_stats::Names;
use crate::budget::{Account, Budget};
use crate::end::LimitKind;
use crate::error::Refusal;
use crate::estimate::untold;
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
    pub(crate) told: Told,
    /// The tokens of the attempts before.
    tokens_before: u64,
    /// The present attempt's model, and what it costs; absent until it is asked for.
    pub(crate) priced: Option<(Names, Option<Arc<Price>>)>,
    reached: Option<LimitKind>,
}

/// What a source told of an attempt so far.
#[derive(Default, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) usage: Option<Usage>,
    pub(crate) cost: Option<Cost>,
    /// Whether it said why the model stopped.
    pub(crate) is_whole: bool,
    pub(crate) tokens: u64,
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
        for (index, budget) in budgets.iter().enumerate() {
            // One that was given to an `L0`, and to its run once more, is spent from once.
            if budgets[..index].iter().any(|before| before.is(budget)) {
                continue;
            }
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
                tokens_before: 0,
                priced: None,
                reached: None,
            })
        }))
    }

    /// Which limit was crossed; that of a budget by other runs too, at any time.
    #[inline]
    pub(crate) fn reached(&mut self) -> Option<LimitKind> {
        if self.reached.is_none() {
            self.reached = self.purses.iter().find_map(Purse::crossed);
        }
        self.reached
    }

    /// Whether money limits the run.
    pub(crate) fn has_purses(&self) -> bool {
        !self.purses.is_empty()
    }

    /// An item came; the run has given so many tokens. Returns whether it tells what was used.
    #[inline]
    pub(crate) fn item(&mut self, view: &TokenView<'_>, tokens: u64) -> bool {
        if tokens > self.max_tokens {
            self.reached = Some(LimitKind::OutputTokens);
        }
        let told = &mut self.told;
        told.tokens = tokens - self.tokens_before;
        told.is_whole |= view.finish.is_some();
        told.usage = view.usage.or(told.usage);
        told.cost = view.cost.copied().or(told.cost);
        view.usage.is_some() || view.cost.is_some()
    }

    /// Counts what the present attempt came to so far: what was told, or else what was used by an estimate
    /// besides.
    pub(crate) fn count(&mut self, price: Option<&Price>, estimated: Option<Usage>) {
        let cost = self.told.cost.or_else(|| {
            let mut usage = self.told.usage.unwrap_or_default();
            if let Some(more) = estimated.and_then(|all| untold(all, self.told.usage)) {
                usage = usage.plus(more);
            }
            // What is not known yet comes to nothing so far.
            usage.input = usage.input.or(Some(0));
            usage.output = usage.output.or(Some(0));
            price?.cost(&usage)
        });
        for purse in &mut self.purses {
            purse.set(cost.into_iter());
        }
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
        self.tokens_before += self.told.tokens;
        (self.told, self.priced) = (Told::default(), None);
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
