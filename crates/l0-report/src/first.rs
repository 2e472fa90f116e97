//! First: the first items of many by an order, in bounded memory.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// An item with a place in an order. Two items of an input should not have the same place, so that the result does
/// not depend on the order of the input.
pub(crate) trait Placed {
    fn place(&self) -> impl Ord;
}

/// Keeps the first items, up to a maximum number.
#[derive(Debug, Clone)]
pub(crate) struct First<T> {
    max: usize,
    /// The last kept item is on top.
    kept: BinaryHeap<ByPlace<T>>,
}

#[derive(Debug, Clone)]
struct ByPlace<T>(T);

impl<T: Placed> First<T> {
    pub(crate) const fn new(max: usize) -> Self {
        Self {
            max,
            kept: BinaryHeap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Returns the last kept item, if the maximum is reached. Items after it need not be
    /// added.
    pub(crate) fn last(&self) -> Option<&T> {
        let last = self.kept.peek().filter(|_| self.kept.len() >= self.max);
        last.map(|last| &last.0)
    }

    /// Adds an item, and removes the last one if there are too many. Returns the number of removed items.
    pub(crate) fn add(&mut self, value: T) -> u64 {
        self.kept.push(ByPlace(value));
        self.shrink()
    }

    /// Sets the maximum number of items. Returns the number of removed items.
    pub(crate) fn set_max(&mut self, max: usize) -> u64 {
        self.max = max;
        self.shrink()
    }

    fn shrink(&mut self) -> u64 {
        let mut taken = 0;
        while self.kept.len() > self.max {
            self.kept.pop();
            taken += 1;
        }
        taken
    }

    /// Returns all kept items, in order.
    pub(crate) fn in_order(&self) -> Vec<&T> {
        let mut all: Vec<_> = self.kept.iter().collect();
        all.sort();
        all.into_iter().map(|one| &one.0).collect()
    }
}

impl<T: Placed> Ord for ByPlace<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.place().cmp(&other.0.place())
    }
}

impl<T: Placed> PartialOrd for ByPlace<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Placed> PartialEq for ByPlace<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T: Placed> Eq for ByPlace<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    impl Placed for u32 {
        fn place(&self) -> impl Ord {
            *self
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_order_of_the_input() {
        for added in [[5, 1, 4, 2, 3], [1, 2, 3, 4, 5], [5, 4, 3, 2, 1]] {
            let mut first = First::new(3);
            assert_eq!(first.last(), None);
            let taken: u64 = added.into_iter().map(|one| first.add(one)).sum();
            assert_eq!((taken, first.len(), first.last()), (2, 3, Some(&3)));
            assert_eq!(first.in_order(), [&1, &2, &3]);
            assert_eq!(first.set_max(1), 2);
            assert_eq!(first.in_order(), [&1]);
        }
        let mut none = First::new(0);
        assert_eq!((none.add(1), none.len(), none.last()), (1, 0, None));
    }
}
