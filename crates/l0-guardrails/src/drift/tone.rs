//! Tone shift: formal or informal words that start or stop.

use super::window::{Marks, Window};

/// The maximum change in the number of words of a kind.
const MAX_DIFFERENCE: usize = 2;

/// A kind of word.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tone {
    Formal = 0,
    Informal = 1,
}

/// The positions of the formal and the informal words.
pub(super) fn words() -> Window<2> {
    Window::new(|sorts| {
        let differs = |one: &Marks| one.before().abs_diff(one.at_end()) > MAX_DIFFERENCE;
        sorts.iter().any(differs)
    })
}
