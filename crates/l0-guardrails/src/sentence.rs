//! What ends a sentence, in any script.

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
