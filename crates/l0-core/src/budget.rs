//! Budget: money that many runs spend from, and budgets by key.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::error::Refusal;
use crate::money::{Currency, Money};

/// Money that all runs with this budget may spend together.
///
/// A run is refused, and its source never called, when the budget is spent. A live run ends as
/// limited after the item by which it overspends the budget, after its next item where another run does,
/// and before its next attempt where it waits for one. So each run that is alive overspends by at most one
/// item of what is known of its cost, which a provider may tell at the end only: see
/// [`estimate_usage`](crate::Builder::estimate_usage). A run that is given a budget twice spends from it
/// once.
///
/// It is kept in memory, by this process only. Clones share it: make it once.
///
/// ```
/// use std::time::Duration;
///
/// use l0_core::{Budget, L0, Money};
///
/// let day = Duration::from_secs(24 * 60 * 60);
/// let budget = Budget::new(Money::units(20)).per(day);
/// let l0 = L0::builder().budget(budget.clone()).build();
/// println!("{} left, {} refused", budget.left(), budget.refused());
/// # drop(l0);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Budget(Arc<Shared>);

struct Shared {
    limit: Money,
    currency: Currency,
    per: Option<Duration>,
    /// The last one that has begun; absent before the first run.
    window: Mutex<Option<Arc<Window>>>,
    refused: AtomicU64,
}

/// What was spent in one window of time.
struct Window {
    /// Absent if it has no end.
    ends: Option<Instant>,
    /// In billionths of a unit, so that threads add to it without a lock. What they add is rounded once
    /// for each run, not for each item.
    spent: AtomicU64,
}

impl Budget {
    /// Creates a budget of so many dollars of the United States, for ever. It counts up to 18 billion.
    pub fn new(limit: Money) -> Self {
        Self::make(limit, Currency::USD, None)
    }

    /// Sets after which time the budget is whole again. A window of it begins with the first run after
    /// the last one's end, and a run spends from the window that it started in. This makes a new budget:
    /// call it before the first clone.
    pub fn per(self, window: Duration) -> Self {
        Self::make(self.0.limit, self.0.currency, Some(window))
    }

    /// Sets its currency. What costs in another one is not known to it. This makes a new budget: call it
    /// before the first clone.
    pub fn currency(self, currency: Currency) -> Self {
        Self::make(self.0.limit, currency, self.0.per)
    }

    fn make(limit: Money, currency: Currency, per: Option<Duration>) -> Self {
        Self(Arc::new(Shared {
            limit,
            currency,
            per,
            window: Mutex::new(None),
            refused: AtomicU64::new(0),
        }))
    }

    /// Returns what the runs of the present window have spent, those that are live included, to
    /// billionths of a unit.
    #[must_use]
    pub fn spent(&self) -> Money {
        self.present().map_or(Money::ZERO, |window| window.spent())
    }

    /// Returns what is left of the present window.
    #[must_use]
    pub fn left(&self) -> Money {
        self.0.limit.saturating_sub(self.spent())
    }

    /// Returns how many runs were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Lets a run begin.
    pub(crate) fn enter(&self) -> Result<Account, Refusal> {
        let window = {
            let mut last = self.lock();
            let present = last.take().filter(|window| window.lasts());
            let present = present.unwrap_or_else(|| Window::begin(self.0.per));
            Arc::clone(last.insert(present))
        };
        if window.spent() >= self.0.limit {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal::new("the budget is spent"));
        }
        Ok(Account {
            budget: self.clone(),
            window,
        })
    }

    /// The window of now, unless none has begun.
    fn present(&self) -> Option<Arc<Window>> {
        let last = self.lock().clone();
        last.filter(|window| window.lasts())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Window>>> {
        self.0.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the two are one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("limit", &self.0.limit)
            .field("currency", &self.0.currency)
            .field("per", &self.0.per)
            .field("spent", &self.spent())
            .field("refused", &self.refused())
            .finish()
    }
}

impl Window {
    /// Begins now. A time that no clock reaches has no end either.
    fn begin(per: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            ends: per.and_then(|per| clock::now().checked_add(per)),
            spent: AtomicU64::new(0),
        })
    }

    fn lasts(&self) -> bool {
        self.ends.is_none_or(|ends| clock::now() < ends)
    }

    fn spent(&self) -> Money {
        Money::nanos(self.spent.load(Ordering::Relaxed))
    }
}

/// A run's way to a budget.
pub(crate) struct Account {
    budget: Budget,
    window: Arc<Window>,
}

impl Account {
    pub(crate) fn currency(&self) -> Currency {
        self.budget.0.currency
    }

    /// What the run has spent changes. It may have been estimated too high before.
    pub(crate) fn charge(&self, before: Money, after: Money) {
        let (before, after) = (before.as_nanos(), after.as_nanos());
        if before == after {
            return;
        }
        let change = |spent: u64| {
            Some(if after > before {
                spent.saturating_add(after - before)
            } else {
                spent.saturating_sub(before - after)
            })
        };
        let (order, spent) = (Ordering::Relaxed, &self.window.spent);
        let _ = spent.fetch_update(order, order, change);
    }

    pub(crate) fn is_overspent(&self) -> bool {
        self.window.spent() > self.budget.0.limit
    }
}

/// Budgets by key, all alike: one for each user, or each tenant.
///
/// A key takes memory while its window lasts, and for ever if the budget is for ever.
///
/// ```
/// use std::time::Duration;
///
/// use l0_core::{Budget, Budgets, L0, Money};
///
/// let hour = Duration::from_secs(60 * 60);
/// let budgets = Budgets::new(Budget::new(Money::units(1)).per(hour));
/// let l0 = L0::default();
/// # let source = |_| async { Ok::<_, std::io::Error>(futures_util::stream::empty::<std::io::Result<String>>()) };
/// let run = l0.stream(source).budget(budgets.of("tenant-7")).start();
/// # drop(run);
/// ```
#[derive(Clone)]
pub struct Budgets(Arc<Keyed>);

struct Keyed {
    each: Budget,
    by_key: Mutex<ByKey>,
}

struct ByKey {
    budgets: HashMap<String, Budget>,
    /// How many there may be before those whose windows are over are forgotten.
    sweep_at: usize,
}

impl Budgets {
    /// How many keys there are before any is forgotten.
    const MIN: usize = 1_024;

    /// Creates budgets that are each like this one.
    #[must_use]
    pub fn new(each: Budget) -> Self {
        Self(Arc::new(Keyed {
            each,
            by_key: Mutex::new(ByKey {
                budgets: HashMap::new(),
                sweep_at: Self::MIN,
            }),
        }))
    }

    /// Returns the budget of a key, which is the same each time.
    pub fn of(&self, key: &str) -> Budget {
        let mut all = self.0.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(budget) = all.budgets.get(key) {
            return budget.clone();
        }
        if all.budgets.len() >= all.sweep_at {
            // One that somebody has is to stay the same one.
            all.budgets.retain(|_, budget| {
                Arc::strong_count(&budget.0) > 1 || budget.spent() > Money::ZERO
            });
            all.sweep_at = Self::MIN.max(2 * all.budgets.len());
        }
        let each = &self.0.each.0;
        let budget = Budget::make(each.limit, each.currency, each.per);
        all.budgets.insert(key.to_owned(), budget.clone());
        budget
    }

    /// Returns how many keys there are in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        let all = self.0.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        all.budgets.len()
    }

    /// Returns whether there is no key in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Budgets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budgets")
            .field("each", &self.0.each)
            .field("len", &self.len())
            .finish()
    }
}
