//! Ends of sentences, in any script, and the length up to which sentences do not count.

/// The number of characters up to which a sentence may be repeated.
pub(crate) const SHORT: u64 = 20;

/// Returns `true` if a character ends a sentence.
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
