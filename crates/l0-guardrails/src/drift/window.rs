//! Marks at the end of a text, compared with those in the same number of characters before it.
//!
//! The comparison is between parts of the text, not between deltas, so the length of deltas does not
//! matter. The position of a mark is that of its last character.

use std::collections::VecDeque;

/// The number of characters in the end of a text, and in the part before it.
pub(super) const SIDE: u64 = 200;

/// The length from which the end of a text can be compared with the part before it.
pub(super) const MIN_LENGTH: u64 = SIDE + 100;

/// The positions of marks of one kind in the last `2 * SIDE` characters. Older ones are removed, which
/// limits their number.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// The positions of their last characters.
    places: VecDeque<u64>,
    /// The number of marks before the end.
    before: usize,
}

impl Marks {
    /// Returns the number of marks before the end.
    pub(super) fn before(&self) -> usize {
        self.before
    }

    /// Returns the number of marks at the end.
    pub(super) fn at_end(&self) -> usize {
        self.places.len() - self.before
    }

    /// Returns the length of the text at which the next mark changes sides, or leaves.
    fn next_change(&self) -> u64 {
        let change = |index: usize, sides: u64| match self.places.get(index) {
            Some(place) => place + sides * SIDE + 1,
            None => u64::MAX,
        };
        change(0, 2).min(change(self.before, 1))
    }

    /// Advances to this length of the text.
    fn advance(&mut self, length: u64) {
        let is_before = |place: &u64| place + SIDE < length;
        while self.places.get(self.before).is_some_and(is_before) {
            self.before += 1;
        }
        let is_gone = |place: &u64| place + 2 * SIDE < length;
        while self.places.front().is_some_and(is_gone) {
            self.places.pop_front();
            self.before -= 1;
        }
    }
}

/// Marks of several kinds, and a condition on their numbers. The condition is checked at every length
/// of the text at which a number changes, so the division into pieces does not matter.
#[derive(Debug)]
pub(super) struct Window<const SORTS: usize> {
    marks: [Marks; SORTS],
    condition: fn(&[Marks; SORTS]) -> bool,
    /// The length of the text at which the marks change because it grows.
    next_change: u64,
}

impl<const SORTS: usize> Window<SORTS> {
    pub(super) fn new(condition: fn(&[Marks; SORTS]) -> bool) -> Self {
        Self {
            marks: std::array::from_fn(|_| Marks::default()),
            condition,
            next_change: MIN_LENGTH,
        }
    }

    /// Advances to this length of the text. Returns `true` if the condition became true at one of the
    /// changes on the way.
    #[inline]
    pub(super) fn advance(&mut self, length: u64) -> bool {
        length >= self.next_change && self.change(length)
    }

    #[cold]
    fn change(&mut self, length: u64) -> bool {
        let mut held = false;
        while self.next_change <= length {
            let now = self.next_change;
            for marks in &mut self.marks {
                marks.advance(now);
            }
            held |= self.holds(now);
            self.find_next_change(now);
        }
        held
    }

    fn find_next_change(&mut self, length: u64) {
        let next = self.marks.iter().map(Marks::next_change).min();
        self.next_change = next.unwrap_or(u64::MAX);
        if length < MIN_LENGTH {
            self.next_change = MIN_LENGTH;
        }
    }

    /// Adds a mark at a position that became known at this length of the text. Also returns `true` if
    /// the condition became true on the way to this length.
    pub(super) fn add(&mut self, sort: usize, place: u64, length: u64) -> bool {
        let held = self.advance(length.saturating_sub(1));
        for marks in &mut self.marks {
            marks.advance(length);
        }
        if let Some(marks) = self.marks.get_mut(sort) {
            marks.places.push_back(place);
        }
        self.find_next_change(length);
        held | self.holds(length)
    }

    /// Returns the number of marks of a kind.
    #[cfg(test)]
    pub(super) fn count(&self, sort: usize) -> usize {
        self.marks[sort].places.len()
    }

    /// Returns `true` if the condition is true for a text of this length, to which the window must have
    /// advanced.
    pub(super) fn holds(&self, length: u64) -> bool {
        length >= MIN_LENGTH && (self.condition)(&self.marks)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the numbers of marks before and at the end, for a text of this length.
    fn counts(places: &[u64], length: u64) -> (usize, usize) {
        let mut window = Window::<1>::new(|_| false);
        for place in places {
            window.add(0, *place, place + 1);
        }
        window.advance(length);
        (window.marks[0].before(), window.marks[0].at_end())
    }

    #[test]
    fn marks_change_sides_and_leave_as_the_text_grows() {
        let places = [0, 99, 100, 299];
        // The end contains the positions from length - 200 on, the part before it those from length -
        // 400 on.
        for (length, expected) in [
            (300, (2, 2)),
            (301, (3, 1)),
            (400, (3, 1)),
            (401, (2, 1)),
            (499, (2, 1)),
            (500, (2, 0)),
            (501, (1, 0)),
            (699, (1, 0)),
            (700, (0, 0)),
        ] {
            assert_eq!(counts(&places, length), expected, "{length}");
        }
    }

    #[test]
    fn few_marks_are_kept() {
        let mut window = Window::<1>::new(|_| false);
        for place in 0..100_000 {
            window.add(0, place, place + 1);
        }
        assert_eq!(window.marks[0].places.len() as u64, 2 * SIDE);
    }

    #[test]
    fn a_condition_that_was_true_on_the_way_is_reported() {
        let mut window = Window::<1>::new(|[marks]| marks.before() == 1 && marks.at_end() == 0);
        assert!(!window.add(0, 249, 250));
        assert!(!window.advance(449));
        assert!(window.advance(10_000), "it was true from 450 to 649");
        assert!(!window.holds(10_000));
    }

    proptest! {
        #[test]
        fn the_condition_matches_the_reference(
            gaps in prop::collection::vec(1_u64..150, 0..40),
            rest in 0_u64..500,
        ) {
            let condition = |[marks]: &[Marks; 1]| marks.before() > marks.at_end() + 2;
            let mut place = 0;
            let places: Vec<u64> = gaps.iter().map(|gap| { place += gap; place - 1 }).collect();
            let length = place + rest;
            let holds = |length: u64| {
                let count = |from: u64, to: u64| {
                    let known = places.iter().filter(|place| **place < length);
                    known.filter(|place| **place + from >= length && **place + to < length).count()
                };
                length >= MIN_LENGTH && count(2 * SIDE, SIDE) > count(SIDE, 0) + 2
            };
            let mut window = Window::<1>::new(condition);
            let mut held = false;
            for place in &places {
                held |= window.add(0, *place, place + 1);
            }
            held |= window.advance(length);
            prop_assert_eq!(held, (0..=length).any(holds));
            prop_assert_eq!(window.holds(length), holds(length));
        }
    }
}
