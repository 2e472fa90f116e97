//! The texts of an error and of its source chain, of limited length.

use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::io;
use std::iter;
use std::sync::Arc;

use super::Failure;

/// The maximum length of a source chain, because an error can return itself as its source.
const MAX_LINKS: usize = 32;

/// The maximum length of an error's text that is read, in bytes. Texts are read inside a poll, and
/// can contain a server's response of any length.
pub(crate) const MAX_TEXT: usize = 1024;

/// Iterates over the error and its sources, outermost first.
pub(super) fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    iter::successors(Some(error), |&link| inner(link).or_else(|| link.source())).take(MAX_LINKS)
}

/// Returns the error inside a wrapper whose `source()` skips it.
fn inner<'a>(link: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    if let Some(shared) = link.downcast_ref::<Arc<dyn StdError + Send + Sync>>() {
        return Some(&**shared);
    }
    let inner: &'a (dyn StdError + Send + Sync + 'static) = as_io(link)?.get_ref()?;
    Some(inner)
}

/// Error types that are `Clone` hold their `io::Error` in an `Arc`.
pub(super) fn as_io<'a>(link: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let shared = || link.downcast_ref::<Arc<io::Error>>().map(|io| &**io);
    link.downcast_ref::<io::Error>().or_else(shared)
}

/// The beginning of a text. The rest is not kept, and writing it returns an error.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    text: String,
    /// `true` if there was more.
    pub(crate) cut: bool,
}

impl fmt::Write for Beginning {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if self.cut {
            return Err(fmt::Error);
        }
        let room = MAX_TEXT - self.text.len();
        if more.len() <= room {
            self.text.push_str(more);
            return Ok(());
        }
        self.text.push_str(&more[..char_boundary(more, room)]);
        self.cut = true;
        Err(fmt::Error)
    }
}

impl Beginning {
    pub(crate) fn of(text: impl fmt::Display) -> Self {
        let mut beginning = Self::default();
        // Unlike `to_string`, this does not panic over a faulty `Display`.
        let _ = write!(beginning, "{text}");
        beginning
    }

    /// Creates it from the alternate form (`{:#}`).
    fn in_full(text: &(dyn StdError + 'static)) -> Self {
        let mut beginning = Self::default();
        let _ = write!(beginning, "{text:#}");
        beginning
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// Returns the text up to its last whole word, if it was cut: half a word can have another
    /// meaning, and half a secret is not recognized. Scripts without spaces are cut anywhere.
    pub(crate) fn as_str(&self) -> &str {
        if !self.cut {
            return &self.text;
        }
        let breaks = |c: char| c.is_whitespace() || c >= '\u{2E80}';
        let end = self.text.rfind(breaks);
        &self.text[..end.unwrap_or(0)]
    }
}

/// Returns the last character boundary of the text at or before `index`.
pub(crate) fn char_boundary(text: &str, index: usize) -> usize {
    let is_boundary = |&index: &usize| text.is_char_boundary(index);
    (0..=index).rev().find(is_boundary).unwrap_or(0)
}

/// Returns the texts of the chain, joined by `": "`. Many error types repeat their source's text at
/// the end of their own; the repetition is omitted.
pub(super) fn texts(error: &(dyn StdError + 'static)) -> Beginning {
    joined(error, |link| Beginning::of(link))
}

/// Returns the same texts in the alternate form of each error, which can contain more than its
/// normal display.
pub(crate) fn texts_in_full(error: &(dyn StdError + 'static)) -> Beginning {
    joined(error, Beginning::in_full)
}

fn joined(
    error: &(dyn StdError + 'static),
    text: impl Fn(&(dyn StdError + 'static)) -> Beginning,
) -> Beginning {
    let mut all = Beginning::default();
    for (index, link) in chain(error).enumerate() {
        // A `Failure` only repeats the errors before it.
        if index > 0 && link.is::<Failure>() {
            continue;
        }
        let link = text(link);
        if all.text.ends_with(&link.text) {
            continue;
        }
        let colon = if all.text.is_empty() { "" } else { ": " };
        let _ = write!(all, "{colon}{}", link.text);
        all.cut |= link.cut;
        if all.cut {
            break;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::read;
    use crate::failure::test_error::{say, say_over};

    /// An error that is its own source.
    #[derive(Debug)]
    struct Ouroboros;

    impl fmt::Display for Ouroboros {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("round and round")
        }
    }

    impl StdError for Ouroboros {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(self)
        }
    }

    #[test]
    fn an_endless_chain_is_cut() {
        assert_eq!(chain(&Ouroboros).count(), MAX_LINKS);
        assert_eq!(read(&Ouroboros), Failure::fatal());
        assert_eq!(texts(&Ouroboros).as_str(), "round and round");
    }

    #[test]
    fn a_long_text_is_cut_at_a_word() {
        for (text, expected) in [
            (String::new(), String::new()),
            ("a".repeat(MAX_TEXT), "a".repeat(MAX_TEXT)),
            ("a".repeat(MAX_TEXT + 1), String::new()),
            (
                "ab ".repeat(MAX_TEXT),
                "ab ".repeat(MAX_TEXT / 3).trim_end().to_owned(),
            ),
            (format!("ab {}", "é".repeat(MAX_TEXT)), "ab".to_owned()),
        ] {
            let beginning = Beginning::of(&text);
            assert_eq!(beginning.as_str(), expected);
            assert_eq!(beginning.cut, text.len() > MAX_TEXT);
        }
    }

    #[test]
    fn a_repeated_text_of_the_chain_is_omitted() {
        let error = say_over("outer: inner", say_over("inner", say("in")));
        assert_eq!(texts(&error).as_str(), "outer: inner: in");
        let error = io::Error::other(say_over("a", say("b")));
        assert_eq!(texts(&error).as_str(), "a: b");
        assert_eq!(texts(&say_over("", say("b"))).as_str(), "b");
        assert_eq!(texts(&say_over("a", Failure::fatal())).as_str(), "a");
    }

    /// An error with a text of 10 MB. It counts the pieces that it writes, and can continue after
    /// an error.
    #[derive(Debug, Default)]
    struct Endless {
        stubborn: bool,
        pieces: std::cell::Cell<usize>,
    }

    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for _ in 0..100_000 {
                self.pieces.set(self.pieces.get() + 1);
                let result = f.write_str(&"endless and ".repeat(8));
                if !self.stubborn {
                    result?;
                }
            }
            Ok(())
        }
    }

    impl StdError for Endless {}

    #[test]
    fn a_text_is_not_formatted_beyond_what_is_read() {
        for stubborn in [false, true] {
            let error = Endless {
                stubborn,
                ..Endless::default()
            };
            let all = texts(&error);
            assert!(all.cut && all.text.capacity() <= 2 * MAX_TEXT);
            assert_eq!(error.pieces.get(), if stubborn { 100_000 } else { 11 });
            assert_eq!(read(&error), Failure::fatal());
        }
    }
}
