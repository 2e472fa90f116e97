//! Label sets: one cell for each label set up to a limit, and one shared cell beyond it.
//!
//! A look-up of an existing cell allocates nothing. Each recording thread holds the cell's `Arc`. A cell
//! that only the map holds is therefore not written to, and can be dropped without losing a count.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use crate::labels::Labels;

/// The value of every label of the shared label set beyond the limit.
const OTHER: &str = "other";

/// The data of one label set.
#[derive(Debug)]
pub(crate) struct Cell<S> {
    /// The default labels, then the labels of the call.
    pub(crate) labels: Labels,
    pub(crate) value: S,
    /// `true` if the cell was looked up since the last sweep.
    used: AtomicBool,
    /// The time of the last sweep that found it used, in milliseconds since the map was created.
    used_at: AtomicU64,
    forgotten: AtomicBool,
}

impl<S> Cell<S> {
    /// Returns `true` if the map was cleared since this cell was looked up.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Relaxed)
    }

    fn touch(&self) {
        // Usually it is already set, and reading it is cheaper than writing.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
pub(crate) struct LabelSets<S> {
    defaults: Labels,
    max: usize,
    began: Instant,
    map: RwLock<Map<S>>,
}

#[derive(Debug)]
struct Map<S> {
    /// Cells by the canonical text of the labels of the call.
    cells: HashMap<Box<str>, Arc<Cell<S>>>,
    /// The key of the shared cell beyond the limit.
    other: Option<Box<str>>,
}

/// A cell, and whether it is the shared one beyond the limit.
pub(crate) struct Found<S> {
    pub(crate) cell: Arc<Cell<S>>,
    pub(crate) folded: bool,
}

impl<S> LabelSets<S> {
    pub(crate) fn new(defaults: Labels, max: usize) -> Self {
        Self {
            defaults,
            max,
            began: Instant::now(),
            map: RwLock::new(Map {
                cells: HashMap::new(),
                other: None,
            }),
        }
    }

    /// Returns the cell of this label set. Creates it on first use if the limit allows.
    #[inline]
    pub(crate) fn get(&self, labels: &Labels, make: impl FnOnce() -> S) -> Found<S> {
        // Keys are canonical, so a match by the unchanged labels is exact.
        let found = self.read().cells.get(labels.as_str()).map(Arc::clone);
        match found {
            Some(cell) => {
                cell.touch();
                Found {
                    cell,
                    folded: false,
                }
            }
            None => self.get_slowly(labels, make),
        }
    }

    fn get_slowly(&self, labels: &Labels, make: impl FnOnce() -> S) -> Found<S> {
        let key = labels.canonical(&self.defaults);
        {
            let map = self.read();
            let other = map.other_if_full(self.max);
            if let Some(cell) = map.cells.get(&*key) {
                cell.touch();
                return found(cell, false);
            }
            if let Some(cell) = other {
                cell.touch();
                return found(cell, true);
            }
        }
        // Created before the lock is taken, to keep the lock short.
        let value = make();
        let map = &mut *self.write();
        if let Some(cell) = map.cells.get(&*key) {
            return found(cell, false);
        }
        let folded = map.is_full(self.max);
        let (key, labels) = if folded {
            let labels = labels.with_every_value(OTHER);
            let key: Box<str> = labels.canonical(&self.defaults).into();
            (map.other.get_or_insert(key).clone(), labels)
        } else {
            (key.into(), labels.clone())
        };
        let cell = map.cells.entry(key).or_insert_with(|| {
            Arc::new(Cell {
                labels: labels.after(&self.defaults),
                value,
                used: AtomicBool::new(true),
                used_at: AtomicU64::new(0),
                forgotten: AtomicBool::new(false),
            })
        });
        found(cell, folded)
    }

    /// Returns all cells, sorted by their labels.
    pub(crate) fn all(&self) -> Vec<Arc<Cell<S>>> {
        let cells = self.all_with(|_| ());
        cells.into_iter().map(|(cell, ())| cell).collect()
    }

    /// Returns all cells, sorted by their labels, with a value read from each while the map was locked.
    pub(crate) fn all_with<R>(&self, read: impl Fn(&S) -> R) -> Vec<(Arc<Cell<S>>, R)> {
        let cell = |cell: &Arc<Cell<S>>| (Arc::clone(cell), read(&cell.value));
        let mut cells: Vec<_> = self.read().cells.values().map(cell).collect();
        cells.sort_unstable_by(|(a, _), (b, _)| a.labels.cmp(&b.labels));
        cells
    }

    pub(crate) fn len(&self) -> usize {
        self.read().cells.len()
    }

    /// Drops unused cells that `keep` rejects. Returns the number of dropped cells.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&Labels) -> bool) -> usize {
        // The closure can be slow, panic or record, so it does not run under the lock.
        let labels = |cell: &Arc<Cell<S>>| cell.labels.clone();
        let all: Vec<Labels> = self.read().cells.values().map(labels).collect();
        let unwanted: HashSet<Labels> = all.into_iter().filter(|labels| !keep(labels)).collect();
        self.drop_if(|cell| unwanted.contains(&cell.labels))
    }

    /// Drops unused cells that match. Returns the number of dropped cells.
    fn drop_if(&self, unwanted: impl Fn(&Cell<S>) -> bool) -> usize {
        let map = &mut *self.write();
        let before = map.cells.len();
        // `Arc`s are cloned only under the lock, so a unique one stays unique.
        map.cells
            .retain(|_, cell| Arc::get_mut(cell).is_none_or(|cell| !unwanted(cell)));
        map.other = map.other.take().filter(|key| map.cells.contains_key(key));
        before - map.cells.len()
    }

    /// Drops cells that were not used for the timeout.
    pub(crate) fn sweep(&self, timeout: Duration, now: Instant) {
        let now = millis(now.saturating_duration_since(self.began));
        let timeout = millis(timeout);
        let idle = |cell: &Cell<S>| {
            let used_at = cell.used_at.load(Ordering::Relaxed);
            now.saturating_sub(used_at) >= timeout
        };
        let mut any_idle = false;
        for cell in self.read().cells.values() {
            let used = cell.used.swap(false, Ordering::Relaxed);
            if used || Arc::strong_count(cell) > 1 {
                cell.used_at.store(now, Ordering::Relaxed);
            }
            any_idle |= idle(cell);
        }
        // Most sweeps find nothing, and then recording is not blocked.
        if any_idle {
            self.drop_if(|cell| !cell.used.load(Ordering::Relaxed) && idle(cell));
        }
    }

    /// Drops all cells. Remaining holders see it through [`Cell::is_forgotten`].
    pub(crate) fn clear(&self) {
        let map = &mut *self.write();
        for (_, cell) in map.cells.drain() {
            cell.forgotten.store(true, Ordering::Relaxed);
        }
        map.other = None;
    }

    // Nothing that panics runs under the lock.
    fn read(&self) -> RwLockReadGuard<'_, Map<S>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Map<S>> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Map<S> {
    /// Returns `true` if the limit is reached. The shared cell does not count.
    fn is_full(&self, max: usize) -> bool {
        self.cells.len() >= max.saturating_add(usize::from(self.other.is_some()))
    }

    fn other_if_full(&self, max: usize) -> Option<&Arc<Cell<S>>> {
        let key = self.other.as_ref().filter(|_| self.is_full(max))?;
        self.cells.get(key)
    }
}

fn found<S>(cell: &Arc<Cell<S>>, folded: bool) -> Found<S> {
    Found {
        cell: Arc::clone(cell),
        folded,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
        Labels::new(pairs).unwrap()
    }

    fn model(name: &str) -> Labels {
        labels([("model", name)])
    }

    fn sets(max: usize) -> LabelSets<AtomicU64> {
        LabelSets::new(labels([("service", "app")]), max)
    }

    fn add(sets: &LabelSets<AtomicU64>, labels: &Labels) -> bool {
        let found = sets.get(labels, || AtomicU64::new(0));
        found.cell.value.fetch_add(1, Ordering::Relaxed);
        found.folded
    }

    fn shown(sets: &LabelSets<AtomicU64>) -> Vec<(String, u64)> {
        let all = sets.all();
        let shown = |cell: &Arc<Cell<AtomicU64>>| {
            (cell.labels.to_string(), cell.value.load(Ordering::Relaxed))
        };
        all.iter().map(shown).collect()
    }

    #[test]
    fn labels_that_prometheus_treats_as_equal_share_a_cell() {
        let sets = sets(10);
        for labels in [
            model("x"),
            labels([("model", "x"), ("service", "app")]),
            labels([("model", "x"), ("user", "")]),
        ] {
            add(&sets, &labels);
        }
        assert_eq!(
            shown(&sets),
            [(r#"{service="app",model="x"}"#.to_owned(), 3)]
        );
    }

    #[test]
    fn a_label_of_the_call_overrides_a_default() {
        let sets = sets(10);
        add(&sets, &labels([("service", "batch")]));
        add(&sets, &Labels::none());
        assert_eq!(
            shown(&sets),
            [
                (r#"{service="app"}"#.to_owned(), 1),
                (r#"{service="batch"}"#.to_owned(), 1)
            ]
        );
    }

    #[test]
    fn label_sets_beyond_the_limit_share_one_cell() {
        let sets = sets(2);
        assert!(!add(&sets, &model("a")));
        assert!(!add(&sets, &model("b")));
        for index in 0..100 {
            assert!(add(&sets, &model(&format!("junk-{index}"))));
        }
        assert!(add(&sets, &labels([("model", "c"), ("user", "u")])));
        assert!(!add(&sets, &model("a")));
        assert_eq!(
            shown(&sets),
            [
                (r#"{service="app",model="a"}"#.to_owned(), 2),
                (r#"{service="app",model="b"}"#.to_owned(), 1),
                (r#"{service="app",model="other"}"#.to_owned(), 101),
            ]
        );
    }

    #[test]
    fn a_label_set_named_other_is_the_shared_one() {
        let sets = sets(2);
        add(&sets, &model("other"));
        add(&sets, &model("b"));
        add(&sets, &model("c"));
        assert_eq!(sets.len(), 2);
        assert_eq!(
            shown(&sets)[1],
            (r#"{service="app",model="other"}"#.to_owned(), 2)
        );
    }

    #[test]
    fn with_a_limit_of_zero_everything_is_other() {
        let sets = sets(0);
        assert!(add(&sets, &model("a")));
        assert!(add(&sets, &model("b")));
        assert_eq!(
            shown(&sets),
            [(r#"{service="app",model="other"}"#.to_owned(), 2)]
        );
    }

    #[test]
    fn a_cell_in_use_is_not_dropped() {
        let sets = sets(2);
        add(&sets, &model("a"));
        let held = sets.get(&model("b"), Default::default);
        assert_eq!(sets.retain(|_| false), 1);
        assert_eq!(
            shown(&sets),
            [(r#"{service="app",model="b"}"#.to_owned(), 0)]
        );
        drop(held);
        assert_eq!(sets.retain(|_| false), 1);
        assert_eq!(sets.len(), 0);
    }

    #[test]
    fn dropping_a_cell_frees_its_place() {
        let sets = sets(1);
        add(&sets, &model("a"));
        assert!(add(&sets, &model("b")));
        assert_eq!(sets.retain(|labels| labels.get("model").unwrap() != "a"), 1);
        assert!(!add(&sets, &model("c")));
        assert!(add(&sets, &model("d")));
        assert_eq!(sets.retain(|_| false), 2);
        assert!(!add(&sets, &model("e")));
    }

    #[test]
    fn a_cleared_cell_is_forgotten() {
        let sets = sets(1);
        let held = sets.get(&model("a"), Default::default).cell;
        assert!(!held.is_forgotten());
        sets.clear();
        assert!(held.is_forgotten());
        assert_eq!(sets.len(), 0);
    }

    #[test]
    fn only_idle_cells_are_swept() {
        let sets = sets(10);
        let timeout = Duration::from_secs(60);
        let at = |seconds| sets.began + Duration::from_secs(seconds);
        add(&sets, &model("busy"));
        add(&sets, &model("idle"));
        let held = sets.get(&model("held"), Default::default);
        for seconds in [30, 60, 89] {
            add(&sets, &model("busy"));
            sets.sweep(timeout, at(seconds));
        }
        assert_eq!(sets.len(), 3);
        add(&sets, &model("busy"));
        sets.sweep(timeout, at(90)); // 60 s after the first sweep, which saw it used
        assert_eq!(sets.len(), 2);
        drop(held);
        sets.sweep(timeout, at(149));
        assert_eq!(sets.len(), 2);
        sets.sweep(timeout, at(151));
        assert_eq!(sets.len(), 0);
    }

    #[test]
    fn nothing_is_lost_while_cells_are_dropped() {
        let sets = sets(8);
        let dropped = AtomicU64::new(0);
        thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        for index in 0..20_000 {
                            add(&sets, &model(&(index % 12).to_string()));
                        }
                    })
                })
                .collect();
            while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
                sets.drop_if(|cell| {
                    dropped.fetch_add(cell.value.load(Ordering::Relaxed), Ordering::Relaxed);
                    true
                });
            }
        });
        let kept: u64 = shown(&sets).iter().map(|(_, count)| count).sum();
        assert_eq!(kept + dropped.into_inner(), 60_000);
    }
}
