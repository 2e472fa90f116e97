//! Matches that depend on the characters around the phrases.

use l0_core::{Findings, Severity, Violation};

use super::table::{Part, Row, Shape};
use crate::wording::FirstLine;

/// The first lines, and the open shapes.
#[derive(Debug)]
pub(super) struct Lines {
    /// The first line, while it can still be a hedge.
    first: Option<FirstLine>,
    /// The number of complete lines, up to [`Lines::FIRST`].
    complete: u8,
    /// At most one of each kind.
    open: Vec<Gap>,
}

impl Lines {
    /// The number of lines that count as first lines.
    const FIRST: u8 = 3;

    pub(super) fn new() -> Self {
        Self {
            first: Some(FirstLine::default()),
            complete: 0,
            open: Vec::new(),
        }
    }

    /// Reads text up to the end of a phrase, or of the delta.
    pub(super) fn read(&mut self, text: &str, start: u64, findings: &mut Findings) {
        if self.first.is_none() && self.open.is_empty() {
            if self.complete < Self::FIRST {
                let ends = text.bytes().filter(|&byte| byte == b'\n').count();
                self.complete = (usize::from(self.complete) + ends).min(Self::FIRST.into()) as u8;
            }
        } else {
            for (at, c) in text.char_indices() {
                self.read_char(c, start + at as u64, findings);
            }
        }
    }

    fn read_char(&mut self, c: char, at: u64, findings: &mut Findings) {
        self.open.retain_mut(|gap| match gap.read(c) {
            Step::On => true,
            Step::Off => false,
            Step::Before => gap.report(at, findings),
            Step::Here => gap.report(at + c.len_utf8() as u64, findings),
        });
        let Some(first) = &mut self.first else {
            self.complete = (self.complete + u8::from(c == '\n')).min(Self::FIRST);
            return;
        };
        if c == '\n' && !first.is_blank() {
            self.complete = 1;
            self.end_first(at, findings);
        } else if !first.read(c) {
            self.first = None;
        }
    }

    pub(super) fn found(&mut self, row: &'static Row, end: u64, findings: &mut Findings) {
        match row.part {
            Part::Whole => row.kind.report(row.phrase, end, findings),
            Part::Opens(Shape::Intro | Shape::Offer) if self.complete == Self::FIRST => {}
            Part::Opens(shape) => {
                self.open.retain(|gap| gap.shape != shape);
                self.open.push(Gap::new(row, shape));
            }
            Part::Closes(shape) => self.open.retain_mut(|gap| {
                let closes = gap.shape == shape && gap.close();
                !closes || gap.report(end, findings)
            }),
        }
    }

    pub(super) fn end(&mut self, end: u64, findings: &mut Findings) {
        for gap in self.open.drain(..) {
            if gap.ends_with_text() {
                gap.report(end, findings);
            }
        }
        self.end_first(end, findings);
    }

    fn end_first(&mut self, end: u64, findings: &mut Findings) {
        if let Some(hedge) = self.first.take().and_then(|first| first.hedge()) {
            let message = format!("The first line is only \"{hedge}\"");
            let violation = Violation::new("pattern-hedging", Severity::Warning, message);
            findings.report(violation.position(end));
        }
    }
}

/// A shape that has started, with the text read after its beginning.
#[derive(Debug)]
struct Gap {
    /// The phrase that it starts with.
    row: &'static Row,
    shape: Shape,
    length: u8,
    /// The number of non-blank characters.
    filled: u8,
    /// `true` if the last thing read ends the shape, provided the next character allows it.
    closing: bool,
}

enum Step {
    On,
    /// The shape cannot match any more.
    Off,
    /// The shape matched, without this character.
    Before,
    /// The shape matches, with this character.
    Here,
}

impl Gap {
    /// The maximum number of characters after the beginning, including the end.
    const MAX: u8 = 80;

    fn new(row: &'static Row, shape: Shape) -> Self {
        Self {
            row,
            shape,
            length: 0,
            filled: 0,
            closing: false,
        }
    }

    fn read(&mut self, c: char) -> Step {
        let is_blank = c.is_whitespace();
        let closing = std::mem::take(&mut self.closing);
        match (self.shape, c) {
            (Shape::Heading, '\n') => return Step::Before,
            (Shape::Heading, ':') => return Step::Here,
            (Shape::Heading, _) if !is_blank => return Step::Off,
            // Excludes the colon in `10:30`, `https://` or `std::fmt`.
            (Shape::Intro, _) if closing && !c.is_alphanumeric() && !matches!(c, ':' | '/') => {
                return Step::Before;
            }
            (_, '\n') => return Step::Off,
            _ if self.length == Self::MAX => return Step::Off,
            (Shape::Insert, _) if self.length == 0 && !is_blank => return Step::Off,
            (Shape::Insert | Shape::Your, '[') => return Step::Off,
            (Shape::Insert, ']') if self.filled > 0 => return Step::Here,
            (Shape::Your, ']') | (Shape::Braces, '}') if closing => return Step::Here,
            (Shape::Insert | Shape::Your, ']') => return Step::Off,
            (Shape::Braces, '}') if self.filled == 0 => return Step::Off,
            (Shape::Braces, _) if closing => return Step::Off,
            (Shape::Braces, '}') => self.closing = true,
            (Shape::Your, _) => self.closing = closing && is_blank,
            (Shape::Intro, ':') => self.closing = self.filled > 0,
            _ => {}
        }
        self.length += 1;
        self.filled += u8::from(!is_blank);
        Step::On
    }

    /// Reads the phrase that can end the shape. Returns `true` if the shape matches.
    fn close(&mut self) -> bool {
        match self.shape {
            Shape::Offer => self.filled > "foryou".len() as u8,
            _ => {
                self.closing = self.filled > "here".len() as u8;
                false
            }
        }
    }

    /// Returns `true` if the end of the text completes the shape.
    fn ends_with_text(&self) -> bool {
        self.shape == Shape::Heading || self.shape == Shape::Intro && self.closing
    }

    /// Reports the shape. Returns `false`, because it is no longer open.
    fn report(&self, end: u64, findings: &mut Findings) -> bool {
        let rest = match self.shape {
            Shape::Heading => "",
            Shape::Insert => " ...]",
            Shape::Your => " ... here]",
            Shape::Braces => "...}}",
            Shape::Intro => " ...:",
            Shape::Offer => " ... for you",
        };
        let what = format!("{}{rest}", self.row.phrase);
        self.row.kind.report(&what, end, findings);
        false
    }
}
