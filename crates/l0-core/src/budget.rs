//! Budget: money shared by many runs, and budgets by key.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::error::Refusal;
use crate::money::{Currency, Money};

/// A budget of money, shared by all runs that have it.
///
/// A run is refused, without a call of its source, once the budget is spent. A live run ends as
/// limited after the item that overspends the budget. If another run overspends it, the run ends
/// after its next item, or before its next attempt. So each live run overspends by at most one
/// item, as far as its cost is known. Many providers report the cost only at the end: see
/// [`estimate_usage`](crate::builder::Builder::estimate_usage). A run with the same budget twice spends from
/// it once.
///
/// The budget is kept in memory, by this process only. Clones share it: create it once.
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
    /// The last window that has begun; `None` before the first run.
    window: Mutex<Option<Arc<Window>>>,
    refused: AtomicU64,
}

/// The spending in one window of time.
struct Window {
    /// `None` if it has no end.
    ends: Option<Instant>,
    /// In billionths of a unit, so threads can add to it without a lock. Additions are rounded once
    /// per run, not per item.
    spent: AtomicU64,
}

impl Budget {
    /// Creates a budget in US dollars, without a window. It counts up to 18 billion.
    pub fn new(limit: Money) -> Self {
        Self::make(limit, Currency::USD, None)
    }

    /// Sets the window of time after which the budget is reset. A window begins with the first run
    /// after the end of the previous one, and a run spends from the window in which it started.
    ///
    /// This creates a new budget: call it before the first clone.
    pub fn per(self, window: Duration) -> Self {
        Self::make(self.0.limit, self.0.currency, Some(window))
    }

    /// Sets the currency. Costs in other currencies do not count.
    ///
    /// This creates a new budget: call it before the first clone.
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

    /// Returns what runs have spent in the current window, including live ones, to billionths of a
    /// unit.
    #[must_use]
    pub fn spent(&self) -> Money {
        self.current().map_or(Money::ZERO, |window| window.spent())
    }

    /// Returns what is left in the current window.
    #[must_use]
    pub fn left(&self) -> Money {
        self.0.limit.saturating_sub(self.spent())
    }

    /// Returns the number of refused runs.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Admits a run.
    pub(crate) fn enter(&self) -> Result<Account, Refusal> {
        let window = {
            let mut last = self.lock();
            let current = last.take().filter(|window| window.lasts());
            let current = current.unwrap_or_else(|| Window::begin(self.0.per));
            Arc::clone(last.insert(current))
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

    /// Returns the current window, or `None` if none is open.
    fn current(&self) -> Option<Arc<Window>> {
        let last = self.lock().clone();
        last.filter(|window| window.lasts())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Window>>> {
        self.0.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `true` if both are clones of the same budget.
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
    /// Begins a window now. An end beyond the clock's range counts as none.
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

/// A run's access to a budget.
pub(crate) struct Account {
    budget: Budget,
    window: Arc<Window>,
}

impl Account {
    pub(crate) fn currency(&self) -> Currency {
        self.budget.0.currency
    }

    /// Replaces what the run has spent. An earlier estimate can have been too high.
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

/// Identical budgets by key: one for each user, or for each tenant.
///
/// A key takes memory while its window lasts, and forever if the budget has no window.
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
    /// The number of keys at which those with expired windows are removed.
    sweep_at: usize,
}

impl Budgets {
    /// The number of keys before any is removed.
    const MIN: usize = 1_024;

    /// Creates budgets by key, each with the settings of `each`.
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
            // A budget that is in use must remain the same one.
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

    /// Returns the number of keys in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        let all = self.0.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        all.budgets.len()
    }

    /// Returns `true` if no key is in memory.
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
