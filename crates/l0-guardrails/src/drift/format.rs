//! Format collapse: an answer that begins by announcing itself, such as "Here is the code:".

use crate::wording::Opening;

/// The number of characters of the beginning.
pub(super) const BEGINNING: u64 = 100;

/// The minimum number of characters from the end of "here is the" to the colon, if there is something
/// between them.
const COLON: u64 = " x".len() as u64;

/// The minimum number of characters from the end of "let me" to the end of "for you", if there is
/// something between them.
const OFFER: u64 = " x for you".len() as u64;

/// The matches in the current line of the beginning: the ends of the first "here is the" and the first
/// "let me", directly after their last character.
#[derive(Debug, Default)]
pub(super) struct Format {
    introduction: Option<u8>,
    offer: Option<u8>,
    found: bool,
}

impl Format {
    /// Reads a character of the beginning. Phrases that end before it must be reported first.
    pub(super) fn character(&mut self, c: char, place: u64) {
        match c {
            ':' => self.found |= is_behind(self.introduction, COLON, place),
            '\n' => {
                self.introduction = None;
                self.offer = None;
            }
            _ => {}
        }
    }

    /// Records a phrase that ended here.
    pub(super) fn phrase(&mut self, opening: Opening, end: u64) {
        if end > BEGINNING {
            return;
        }
        match opening {
            Opening::Introduction => _ = self.introduction.get_or_insert(end as u8),
            Opening::Offer => _ = self.offer.get_or_insert(end as u8),
            Opening::ForYou => self.found |= is_behind(self.offer, OFFER, end),
            Opening::HereYouGo => self.found = true,
        }
    }

    /// Returns `true` if the beginning, as far as it is known, announces the answer.
    pub(super) fn found(&self) -> bool {
        self.found
    }
}

fn is_behind(end: Option<u8>, distance: u64, place: u64) -> bool {
    end.is_some_and(|end| u64::from(end) + distance <= place)
}
