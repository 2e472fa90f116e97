//! Markdown collapse: an answer in Markdown that continues as plain text.

use super::delta::{self, Delta};
use super::window::{Marks, Window};
use crate::fence::{self, Fence, FenceLine};

/// The minimum number of marks before an end without marks.
const MIN_MARKS: usize = 4;

/// Reads marks: fences, headers, bold text and links.
#[derive(Debug)]
pub(super) struct Markdown {
    window: Window<1>,
    /// `true` if a character without a meaning in Markdown would change nothing.
    plain: bool,
    /// `true` if a fence can still begin in this line.
    line_start: bool,
    /// The line, while it can open a fence or close the open one.
    fence_line: Option<FenceLine>,
    /// The end of the run of marks at the beginning of this line.
    run_end: u64,
    /// The open fence. The text inside is code.
    fence: Option<Fence>,
    /// The number of `#`, if the line contains nothing else so far.
    hashes: Option<u8>,
    /// The number of consecutive backticks read last.
    ticks: u32,
    /// `true` if the last character was a `*`, which the next one can complete to two.
    star: bool,
    bold: Bold,
    link: Link,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bold {
    No,
    /// Opened, and still empty.
    Opened,
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    No,
    Text,
    /// After the closing bracket of the text.
    TextClosed,
    Target,
}

impl Markdown {
    pub(super) fn new() -> Self {
        let collapsed = |[marks]: &[Marks; 1]| marks.before() >= MIN_MARKS && marks.at_end() == 0;
        Self {
            window: Window::new(collapsed),
            plain: false,
            line_start: true,
            fence_line: None,
            run_end: 0,
            fence: None,
            hashes: Some(0),
            ticks: 0,
            star: false,
            bold: Bold::No,
            link: Link::No,
        }
    }

    /// Reads more text. Returns `true` if it is found to have collapsed.
    #[inline]
    pub(super) fn text(&mut self, delta: &Delta<'_>) -> bool {
        let marked = (delta.has_markup() || !self.plain) && self.markup(delta);
        marked | self.advance(delta.end)
    }

    #[inline(never)]
    fn markup(&mut self, delta: &Delta<'_>) -> bool {
        let mut collapsed = false;
        for (place, c) in (delta.start..).zip(delta.text.chars()) {
            if self.plain && !is_markup(c) {
                continue;
            }
            collapsed |= self.character(c, place);
            self.plain = self.is_plain();
        }
        collapsed
    }

    /// Returns `true` if a character without a meaning in Markdown would change nothing.
    fn is_plain(&self) -> bool {
        !self.line_start
            && self.fence_line.is_none()
            && self.hashes.is_none()
            && self.ticks == 0
            && !self.star
            && self.bold != Bold::Opened
            && self.link != Link::TextClosed
    }

    /// Returns `true` if the text of this length ends collapsed.
    pub(super) fn end(&mut self, length: u64) -> bool {
        self.end_fence_line(length);
        !self.in_code() && self.window.holds(length)
    }

    /// Code has no marks, but is part of Markdown.
    fn in_code(&self) -> bool {
        self.fence.is_some()
    }

    #[inline]
    fn advance(&mut self, length: u64) -> bool {
        self.window.advance(length) && !self.in_code()
    }

    fn character(&mut self, c: char, place: u64) -> bool {
        if c == '\n' {
            return self.new_line(place);
        }
        let mut fence = self.read_fence_line(c, place);
        if self.in_code() {
            return false;
        }
        let header = match (self.hashes, c) {
            (Some(hashes @ 0..6), '#') => {
                self.hashes = Some(hashes + 1);
                false
            }
            (Some(1..), c) if c.is_whitespace() => {
                self.hashes = None;
                true
            }
            _ => {
                self.hashes = None;
                false
            }
        };
        fence |= self.backtick(c);
        let bold = self.star(c);
        let link = self.link(c);
        (header || fence || bold || link) && self.mark(place)
    }

    /// Reads a character of a line that may open or close a fence. Returns `true` at the third tilde,
    /// because tildes elsewhere are not fences.
    fn read_fence_line(&mut self, c: char, place: u64) -> bool {
        // All non-ASCII characters have the same meaning.
        let byte = if c.is_ascii() { c as u8 } else { 0xFF };
        if let Some(line) = self.fence_line {
            self.fence_line = line.next(byte, self.fence);
        } else if self.line_start {
            self.fence_line = FenceLine::begin(byte);
            self.line_start =
                fence::is_indent(byte) || (self.fence.is_none() && fence::is_item_marker(byte));
        } else {
            return false;
        }
        let run = self.fence_line.and_then(FenceLine::run);
        if run.is_some() {
            self.run_end = place;
        }
        run == Some((b'~', 3))
    }

    /// Ends the line, which can open or close a fence.
    fn end_fence_line(&mut self, length: u64) -> bool {
        let Some(line) = self.fence_line.take() else {
            return false;
        };
        // Changes caused by the text's growth up to here were reported before.
        let collapsed = self.advance(length);
        let was_open = self.fence.is_some();
        self.fence = line.end(self.fence);
        if was_open && self.fence.is_none() {
            self.window.add(0, self.run_end, length);
        }
        collapsed
    }

    /// Returns `true` at the third of consecutive backticks.
    fn backtick(&mut self, c: char) -> bool {
        self.ticks = if c == '`' {
            self.ticks.saturating_add(1)
        } else {
            0
        };
        self.ticks == 3
    }

    fn star(&mut self, c: char) -> bool {
        if c != '*' {
            self.star = false;
            if self.bold == Bold::Opened {
                self.bold = Bold::Text;
            }
            return false;
        }
        self.star = !self.star;
        if self.star {
            return false;
        }
        let closes = self.bold == Bold::Text;
        self.bold = if closes { Bold::No } else { Bold::Opened };
        closes
    }

    fn link(&mut self, c: char) -> bool {
        let closes = (self.link, c) == (Link::Target, ')');
        self.link = match (self.link, c) {
            (Link::No, '[') => Link::Text,
            (Link::Text | Link::TextClosed, ']') => Link::TextClosed,
            (Link::TextClosed, '(') => Link::Target,
            (Link::TextClosed, _) => Link::Text,
            (Link::Target, ')') => Link::No,
            (link, _) => link,
        };
        closes
    }

    fn new_line(&mut self, place: u64) -> bool {
        let mut collapsed = false;
        if self.hashes.take().is_some_and(|hashes| hashes > 0) {
            collapsed |= self.mark(place);
        }
        collapsed |= self.end_fence_line(place + 1);
        self.line_start = true;
        self.hashes = (!self.in_code()).then_some(0);
        self.ticks = 0;
        self.star = false;
        self.bold = Bold::No;
        self.link = Link::No;
        collapsed
    }

    /// Records a mark that ends here.
    fn mark(&mut self, place: u64) -> bool {
        self.window.add(0, place, place + 1) && !self.in_code()
    }
}

/// Returns `true` for a character that can have a meaning in Markdown anywhere.
#[inline]
fn is_markup(c: char) -> bool {
    u8::try_from(c).is_ok_and(|byte| delta::Marks::of(byte).has_markup())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of marks in a text.
    fn marks(text: &str) -> usize {
        let length = text.chars().count() as u64;
        let marks = |mut markdown: Markdown| {
            markdown.end(length);
            markdown.window.count(0)
        };
        let mut markdown = Markdown::new();
        markdown.text(&Delta::read(text, 0));
        let whole = marks(markdown);
        let mut markdown = Markdown::new();
        for (place, c) in text.chars().enumerate() {
            let mut utf8 = [0; 4];
            markdown.text(&Delta::read(c.encode_utf8(&mut utf8), place as u64));
        }
        assert_eq!(marks(markdown), whole, "one character per piece: {text:?}");
        whole
    }

    #[test]
    fn marks_are_counted() {
        for (text, expected) in [
            ("", 0),
            ("plain text, 2 * 3 = 6", 0),
            ("# Header\n", 1),
            ("###### Header\n", 1),
            ("####### none\n", 0),
            ("#hashtag and # none\n", 0),
            ("#\n", 1),
            ("a\n## b\n### c", 2),
            (" # indented", 0),
            ("**bold**", 1),
            ("**a** and **b**", 2),
            ("***both***", 1),
            ("****", 0),
            ("**not\nbold**", 0),
            ("2 ** 3", 0),
            ("* item\n* item", 0),
            ("[text](target)", 1),
            ("[a] [b](c)", 1),
            ("![image](target)", 1),
            ("[a](b", 0),
            ("[a]\n(b)", 0),
            ("[a] (b)", 0),
            ("[a](b) [c](d)", 2),
            ("```\ncode\n```", 2),
            ("```rust\n# **no** [mark](in) code\n```\n", 2),
            ("   ```\ncode\n   ```\n**b**", 3),
            ("> ```\n> # code\n> ```", 2),
            ("````\n```\n# code\n````", 2),
            ("```\n# code\n``` # code\n# code\n```\n# a", 3),
            ("```\n# code\n```\n# a\n", 3),
            ("1. ```\n   # code\n   ```\n- ```\n  # code", 3),
            ("~~struck~~ and ~~~~this~~~~", 0),
            ("~~~\n# code\n~~~\n# a\n", 3),
            ("```code``` and **bold**", 3),
            ("```code```\n**bold**", 3),
            ("a ``` b\n**bold**", 2),
            ("`code` and ``code``", 0),
            ("**日本語**と[é](ü)", 2),
        ] {
            assert_eq!(marks(text), expected, "{text:?}");
        }
    }
}
