//! Format collapse: an answer that begins by talking about itself, such as "Here is the code:".

use crate::wording::Opening;

/// How many characters the beginning has.
const BEGINNING: u64 = 100;

/// How many characters there are from the end of "let me" to the end of "for you", at least, if
/// there is something between them.
const OFFER: u64 = " x for you".len() as u64;

/// What the beginning has, one bit per character: where characters stand, and where phrases end,
/// which is right behind their last character.
#[derive(Debug, Default)]
pub(super) struct Format {
    colons: u128,
    line_ends: u128,
    /// Of "here is the".
    introductions: u128,
    /// Of "let me".
    offers: u128,
    for_you: u128,
    changed: bool,
    found: bool,
}

impl Format {
    /// A text of this length goes on.
    #[inline]
    pub(super) fn text(&mut self, delta: &str, length: u64) {
        if length < BEGINNING {
            self.begin(delta, length);
        }
    }

    fn begin(&mut self, delta: &str, length: u64) {
        for (place, c) in (length..BEGINNING).zip(delta.chars()) {
            match c {
                ':' => self.colons |= 1 << place,
                '\n' => self.line_ends |= 1 << place,
                _ => continue,
            }
            self.changed = true;
        }
    }

    /// A phrase ended here.
    pub(super) fn phrase(&mut self, opening: Opening, end: u64) {
        if end > BEGINNING {
            return;
        }
        match opening {
            Opening::Introduction => self.introductions |= 1 << end,
            Opening::Offer => self.offers |= 1 << end,
            Opening::ForYou => self.for_you |= 1 << end,
            Opening::HereYouGo => self.found = true,
        }
        self.changed = true;
    }

    /// Whether the beginning, as far as it is known, talks about itself.
    #[inline]
    pub(super) fn found(&mut self) -> bool {
        if std::mem::take(&mut self.changed) && !self.found {
            // On the same line, with something between them.
            self.found = self.follows(self.introductions, self.colons, 2)
                || self.follows(self.offers, self.for_you, OFFER);
        }
        self.found
    }

    /// Whether one of the second follows one of the first, at this distance or more, on its line.
    fn follows(&self, mut first: u128, second: u128, distance: u64) -> bool {
        while first != 0 {
            let end = u64::from(first.trailing_zeros());
            let behind =
                |bits: u128, place: u64| place + u64::from((bits >> place).trailing_zeros());
            let found = behind(second, end + distance);
            if found <= BEGINNING && found <= behind(self.line_ends, end) {
                return true;
            }
            first &= first - 1;
        }
        false
    }
}
