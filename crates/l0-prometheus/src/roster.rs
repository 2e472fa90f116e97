//! Roster: the current members, oldest first. Adding and removing take constant time, and memory grows only
//! with the largest number of members so far.

/// The index before the oldest and after the newest; it holds no member.
const ENDS: usize = 0;

#[derive(Debug)]
pub(crate) struct Roster<T> {
    /// Occupied places link to their neighbors; free places link to the next free one.
    places: Vec<Place<T>>,
    /// The first free place; [`ENDS`] if there is none.
    free: usize,
    len: usize,
}

#[derive(Debug)]
struct Place<T> {
    older: usize,
    newer: usize,
    value: Option<T>,
}

impl<T> Default for Roster<T> {
    fn default() -> Self {
        let ends = Place {
            older: ENDS,
            newer: ENDS,
            value: None,
        };
        Self {
            places: vec![ends],
            free: ENDS,
            len: 0,
        }
    }
}

impl<T> Roster<T> {
    /// Adds the newest member. Returns its index, which stays valid until the member is removed.
    pub(crate) fn add(&mut self, value: T) -> usize {
        let older = self.places[ENDS].older;
        let place = Place {
            older,
            newer: ENDS,
            value: Some(value),
        };
        let at = match self.free {
            ENDS => {
                self.places.push(place);
                self.places.len() - 1
            }
            free => {
                self.free = self.places[free].newer;
                self.places[free] = place;
                free
            }
        };
        self.places[older].newer = at;
        self.places[ENDS].older = at;
        self.len += 1;
        at
    }

    /// Removes the member at this index.
    pub(crate) fn remove(&mut self, at: usize) -> Option<T> {
        let place = self.places.get_mut(at)?;
        let value = place.value.take()?;
        let (older, newer) = (place.older, place.newer);
        place.newer = self.free;
        self.free = at;
        self.places[older].newer = newer;
        self.places[newer].older = older;
        self.len -= 1;
        Some(value)
    }

    pub(crate) fn oldest(&self) -> Option<&T> {
        self.places[self.places[ENDS].newer].value.as_ref()
    }

    /// Returns all members, in no particular order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| place.value.as_ref())
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_roster_is_a_map_by_numbers_that_ascend(goes in proptest::collection::vec(any::<Option<u8>>(), 0..200)) {
            let mut roster = Roster::default();
            let mut expected = BTreeMap::new();
            let mut most = 0;
            for (number, goes) in goes.into_iter().enumerate() {
                match goes {
                    None => {
                        let at = roster.add(number);
                        expected.insert(number, at);
                    }
                    Some(which) if !expected.is_empty() => {
                        let nth = usize::from(which) % expected.len();
                        let (&number, &at) = expected.iter().nth(nth).unwrap();
                        expected.remove(&number);
                        prop_assert_eq!(roster.remove(at), Some(number));
                        prop_assert_eq!(roster.remove(at), None);
                    }
                    Some(_) => {}
                }
                most = most.max(expected.len());
                prop_assert_eq!(roster.len(), expected.len());
                prop_assert_eq!(roster.oldest(), expected.keys().next());
                let mut all: Vec<_> = roster.all().copied().collect();
                all.sort_unstable();
                prop_assert!(all.iter().eq(expected.keys()));
            }
            // Free places are reused.
            prop_assert_eq!(roster.places.len(), most + 1);
            prop_assert_eq!(roster.remove(ENDS), None);
        }
    }
}
