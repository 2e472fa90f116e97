//! What ends a sentence, in any script, and which sentences are too short to count.

/// A sentence of so many characters, or fewer, may be repeated.
pub(crate) const SHORT: u64 = 20;

/// Returns whether a character ends a sentence.
pub(crate) const fn ends_sentence(c: char) -> bool {
    match c {
        '.' | '!' | '?' => true,
        '\0'..='\u{7f}' => false,
        // Ellipsis, doubled marks.
        '…' | '‼' | '⁇' | '⁈' | '⁉' => true,
        // Chinese, Japanese, Korean, in full and half width.
        '。' | '｡' | '．' | '！' | '？' => true,
        // Armenian, Arabic, Urdu, Devanagari, Ethiopic, Khmer, Burmese, Tibetan.
        '։' | '؟' | '۔' | '।' | '॥' | '።' | '፧' | '។' | '៕' | '။' | '།' => true,
        _ => false,
    }
}
