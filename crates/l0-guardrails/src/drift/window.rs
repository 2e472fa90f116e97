//! Marks at the end of a text: in the last characters, and in as many before them.
//!
//! These two are compared, rather than the text's end before and after a delta: so it does not
//! matter how long deltas are. A mark is where its last character is.

use std::collections::VecDeque;

/// How many characters the end of a text is, and what stands before it.
pub(super) const SIDE: u64 = 200;

/// How many characters a text has before its end can be compared with what stands before it.
pub(super) const MIN_LENGTH: u64 = SIDE + 100;

/// Where marks of one sort stand in the last `2 * SIDE` characters. Older ones are forgotten, so
/// there are at most so many.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// The places of their last characters.
    places: VecDeque<u64>,
    /// How many of them stand before the end.
    before: usize,
}

impl Marks {
    /// How many stand before the end.
    pub(super) fn before(&self) -> usize {
        self.before
    }

    /// How many stand at the end.
    pub(super) fn at_end(&self) -> usize {
        self.places.len() - self.before
    }

    /// How long the text is when the next mark changes sides, or leaves.
    fn next_change(&self) -> u64 {
        let change = |index: usize, sides: u64| match self.places.get(index) {
            Some(place) => place + sides * SIDE + 1,
            None => u64::MAX,
        };
        change(0, 2).min(change(self.before, 1))
    }

    /// The text is so long now.
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

/// Marks of some sorts, and a condition on how many there are, which is looked at at every length
/// of the text at which they change: so it does not matter in which pieces the text comes.
#[derive(Debug)]
pub(super) struct Window<const SORTS: usize> {
    marks: [Marks; SORTS],
    condition: fn(&[Marks; SORTS]) -> bool,
    /// How long the text is when the marks change by its growth.
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

    /// The text is so long now. Whether the condition came to hold at one of the changes on the
    /// way.
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

    /// A mark ends at a place, which is known when the text is so long; what comes to hold up to
    /// then is told too.
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

    /// How many marks of a sort there are.
    #[cfg(test)]
    pub(super) fn count(&self, sort: usize) -> usize {
        self.marks[sort].places.len()
    }

    /// Whether the condition holds for a text of this length, up to which the window has advanced.
    pub(super) fn holds(&self, length: u64) -> bool {
        length >= MIN_LENGTH && (self.condition)(&self.marks)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many marks stand before and at the end, for a text of this length.
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
        // At the end are the places from length - 200 on; before it, those from length - 400 on.
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
    fn a_condition_that_held_on_the_way_is_told() {
        let mut window = Window::<1>::new(|[marks]| marks.before() == 1 && marks.at_end() == 0);
        assert!(!window.add(0, 249, 250));
        assert!(!window.advance(449));
        assert!(window.advance(10_000), "it held from 450 to 649");
        assert!(!window.holds(10_000));
    }

    proptest! {
        #[test]
        fn what_holds_is_what_the_plain_way_finds(
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
