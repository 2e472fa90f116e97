//! Tone shift: formal or informal words that set in or stop.

use super::window::{Marks, Window};

/// How much the count of a sort of words may change.
const MAX_DIFFERENCE: usize = 2;

/// A sort of words.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tone {
    Formal = 0,
    Informal = 1,
}

/// Where the formal and the informal words stand.
pub(super) fn words() -> Window<2> {
    Window::new(|sorts| {
        let differs = |one: &Marks| one.before().abs_diff(one.at_end()) > MAX_DIFFERENCE;
        sorts.iter().any(differs)
    })
}
