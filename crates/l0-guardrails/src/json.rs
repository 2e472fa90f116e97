//! Rules for answers that must be JSON.

use l0_core::{Check, Ended, Findings, Severity, Violation};

const STRUCTURE: &str = "json-structure";
const CHUNKS: &str = "json-chunks";
const PARSEABLE: &str = "json-parseable";
const STRICT: &str = "json-strict";

/// A rule that checks answers that look like JSON: those that start with `{` or `[` after spaces, tabs
/// and line breaks. It ignores any other answer, including JSON inside a Markdown fence.
///
/// Every violation is a recoverable [`Severity::Error`]:
///
/// | rule | when | problem |
/// |---|---|---|
/// | `json-structure` | while streaming | a `}` or `]` closes nothing, or something other than the last opener |
/// | `json-chunks` | while streaming | a comma follows a comma, `{`, `[` or `:`, with or without spaces between |
/// | `json-structure` | at the end | a string is not closed, or the numbers of `{` and `}`, or of `[` and `]`, differ |
/// | `json-parseable` | at the end | the answer is not a JSON document, for any of these or another reason |
///
/// A violation reported while streaming is final: a valid document causes no violation at any point.
/// Violations do not depend on how the answer is divided into pieces. Each kind is reported where it
/// first occurs. Its [position](Violation::position) is set unless it concerns the whole text. The
/// message of `json-parseable` names the line and column of the first error, both from 1, with columns
/// in bytes. Messages contain no text of the answer.
///
/// Braces, brackets and commas outside strings count over the whole answer, even after the place where
/// it stops being JSON.
///
/// # JSON documents
///
/// A JSON document is a text that `serde_json::from_str::<serde::de::IgnoredAny>` accepts. Whitespace
/// can follow it, other text cannot. Parsing into a `serde_json::Value` fails in three more cases,
/// which this rule does not report: numbers that do not fit an `f64` (`1e999`), `\u` escapes of
/// unpaired surrogates (`"\ud800"`), and more than 127 levels of arrays and objects.
///
/// # Cost
///
/// The rule takes time proportional to the piece. It uses about 170 bytes of memory while the answer
/// looks like JSON, plus a bit for each open level beyond 128. It keeps no text of the answer.
///
/// ```
/// use l0_core::{Check, Ended, Findings};
/// use l0_guardrails::Json;
///
/// let mut rule = Json::new();
/// let mut findings = Findings::new();
/// for piece in ["{\"list\": [1,", " 2"] {
///     rule.text(piece, &mut findings);
/// }
/// assert_eq!(findings.iter().count(), 0);
///
/// rule.end(&Ended::new(true), &mut findings);
/// let messages: Vec<_> = findings.iter().map(|one| &*one.message).collect();
/// assert_eq!(
///     messages,
///     [
///         "Unbalanced braces: 1 open, 0 close",
///         "Unbalanced brackets: 1 open, 0 close",
///         "Invalid JSON at line 1, column 15: the text ends inside an array",
///     ]
/// );
/// ```
#[derive(Debug)]
pub struct Json {
    /// `None` once the answer does not look like JSON.
    scanner: Option<Box<Scanner>>,
}

impl Json {
    /// Creates the rule for one attempt.
    #[must_use]
    pub fn new() -> Self {
        Self {
            scanner: Some(Box::default()),
        }
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::new()
    }
}

impl Check for Json {
    fn name(&self) -> &'static str {
        STRUCTURE
    }

    #[inline]
    fn text(&mut self, delta: &str, findings: &mut Findings) {
        let Some(scanner) = &mut self.scanner else {
            return;
        };
        scanner.text(delta, findings);
        if !scanner.is_container && scanner.state != State::Start {
            self.scanner = None;
        }
    }

    fn end(&mut self, _: &Ended, findings: &mut Findings) {
        match &self.scanner {
            Some(scanner) if scanner.is_container => scanner.end(findings),
            _ => {}
        }
    }
}

/// A rule that checks that the answer is one JSON object or array and nothing else.
///
/// It reports the violations of [`Json`], at the same time and with the same severity. An answer that
/// does not start with `{` or `[` is reported as `json-strict` at the end, also as a recoverable
/// [`Severity::Error`]. This applies to empty, prose and fenced answers, and to other JSON documents.
/// If the answer is not a JSON document at all, `json-parseable` is reported too: `42` is one, prose is
/// not.
#[derive(Debug, Default)]
pub struct StrictJson {
    scanner: Scanner,
}

impl StrictJson {
    /// Creates the rule for one attempt.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Check for StrictJson {
    fn name(&self) -> &'static str {
        STRICT
    }

    #[inline]
    fn text(&mut self, delta: &str, findings: &mut Findings) {
        self.scanner.text(delta, findings);
    }

    fn end(&mut self, _: &Ended, findings: &mut Findings) {
        if !self.scanner.is_container {
            let message = match self.scanner.state {
                State::Start => "The answer is empty, not a JSON object or array",
                _ => "The answer does not start as a JSON object or array",
            };
            findings.report(error(STRICT, message));
        }
        self.scanner.end(findings);
    }
}

fn error(rule: &'static str, message: impl Into<String>) -> Violation {
    Violation::new(rule, Severity::Error, message)
}

/// The part of the document being read, or expected next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Only whitespace so far.
    #[default]
    Start,
    /// The value of a member, or the value of the whole document.
    Value,
    /// After `[`: an element or `]`.
    FirstElement,
    /// After a comma in an array.
    Element,
    /// After `{`: a key or `}`.
    FirstKey,
    /// After a comma in an object.
    Key,
    /// After a key.
    Colon,
    /// After a value inside an array or object.
    Next,
    /// After the document.
    Done,
    String,
    /// After a backslash in a string.
    Escape,
    /// In the four digits of a `\u` escape.
    Hex,
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    /// In `true`, `false` or `null`.
    Literal,
    /// The document is broken. Only checks that apply to broken documents continue.
    Broken,
    BrokenString,
    BrokenEscape,
    /// The document is broken, and no further check applies.
    Stopped,
}

/// The open levels: one bit per level, set for an object.
#[derive(Debug, Default)]
struct Nesting {
    /// The innermost levels, the last one in the lowest bit.
    objects: u128,
    /// The levels around them, in full words. Empty except in contrived documents.
    outer: Vec<u128>,
    depth: u64,
}

impl Nesting {
    #[inline]
    fn open(&mut self, object: bool) {
        if self.is_full() {
            self.outer.push(self.objects);
        }
        self.objects = self.objects << 1 | u128::from(object);
        self.depth += 1;
    }

    #[inline]
    fn close(&mut self) {
        self.objects >>= 1;
        self.depth -= 1;
        if self.is_full() {
            self.objects = self.outer.pop().unwrap_or_default();
        }
    }

    /// Returns `true` if every bit of the word is in use.
    #[inline]
    fn is_full(&self) -> bool {
        self.depth > 0 && self.depth % 128 == 0
    }

    /// Returns `true` if the innermost level is an object.
    #[inline]
    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

/// The numbers of openers and closers of one kind.
#[derive(Debug, Default)]
struct Pairs {
    open: u64,
    close: u64,
}

/// The first error that makes the text an invalid JSON document.
#[derive(Debug, Clone, Copy)]
struct Fault {
    what: &'static str,
    position: u64,
}

/// The violations reported while streaming. [`Findings`] would remove repetitions, but comparing with
/// all findings at every brace of a long text is too slow.
#[derive(Debug, Default)]
struct Reported(u8);

impl Reported {
    /// Returns `true` if this is the first report.
    fn first(&mut self, misplaced: Misplaced) -> bool {
        let bit = 1 << misplaced as u8;
        let first = self.0 & bit == 0;
        self.0 |= bit;
        first
    }
}

#[derive(Debug, Clone, Copy)]
enum Misplaced {
    UnopenedBrace,
    UnopenedBracket,
    CrossedBrace,
    CrossedBracket,
    CommaAfterComma,
    CommaAfterBrace,
    CommaAfterBracket,
    CommaAfterColon,
}

impl Misplaced {
    const fn message(self) -> &'static str {
        match self {
            Self::UnopenedBrace => "Closing brace without an opening one",
            Self::UnopenedBracket => "Closing bracket without an opening one",
            Self::CrossedBrace => "Closing brace where a closing bracket is expected",
            Self::CrossedBracket => "Closing bracket where a closing brace is expected",
            Self::CommaAfterComma => "Comma after a comma",
            Self::CommaAfterBrace => "Comma after an opening brace",
            Self::CommaAfterBracket => "Comma after an opening bracket",
            Self::CommaAfterColon => "Comma after a colon",
        }
    }
}

/// A JSON validator that reads the document in arbitrary pieces.
///
/// It follows the grammar byte by byte up to the first fault. After it, it only distinguishes strings
/// from other text, and checks braces, brackets and commas.
#[derive(Debug, Default)]
struct Scanner {
    state: State,
    /// `true` if the document is an array or an object.
    is_container: bool,
    /// `true` if the string is a key.
    in_key: bool,
    /// The number of remaining digits of a `\u` escape.
    hex_left: u8,
    /// The remaining bytes of a literal.
    literal: &'static [u8],
    nesting: Nesting,
    braces: Pairs,
    brackets: Pairs,
    /// The number of bytes in earlier pieces.
    offset: u64,
    /// The number of line breaks before the fault. A line break inside a string is a fault, so they are
    /// counted between tokens only.
    line_breaks: u64,
    line_start: u64,
    fault: Option<Fault>,
    /// In a broken document: the last non-whitespace byte outside strings.
    before: u8,
    /// `true` if [`Nesting`] is no longer tracked, because a closer did not match.
    lost: bool,
    reported: Reported,
}

/// The bytes that end a run of plain string bytes: the quote, the backslash, control characters.
const ENDS_RUN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

impl Scanner {
    fn text(&mut self, delta: &str, findings: &mut Findings) {
        let bytes = delta.as_bytes();
        // Kept in a local variable, because through memory each byte would wait for the one before.
        let mut state = self.state;
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match state {
                State::String | State::BrokenString => {
                    let rest = &bytes[at..];
                    let Some(run) = rest.iter().position(|byte| ENDS_RUN[usize::from(*byte)])
                    else {
                        break;
                    };
                    at += run;
                    state = match (state, rest[run]) {
                        (State::String, b'"') if self.in_key => State::Colon,
                        (State::String, b'"') => self.after_value(),
                        (State::String, b'\\') => State::Escape,
                        (State::String, _) => {
                            self.fault(state, "a control character inside a string", at)
                        }
                        (_, b'"') => State::Broken,
                        (_, b'\\') => State::BrokenEscape,
                        _ => state,
                    };
                    at += 1;
                }
                State::BrokenEscape => {
                    state = State::BrokenString;
                    at += 1;
                }
                State::Broken => {
                    state = self.step_broken(byte, at, findings);
                    at += 1;
                }
                State::Stopped => break,
                _ => match self.step(state, byte, at) {
                    Ok(next) => {
                        state = next;
                        at += 1;
                    }
                    // Read the faulty byte again, as part of a broken document.
                    Err(what) => state = self.fault(state, what, at),
                },
            }
        }
        self.state = state;
        self.offset += bytes.len() as u64;
    }

    /// Reads a byte of a document that is valid so far. An error describes the problem.
    #[inline]
    fn step(&mut self, state: State, byte: u8, at: usize) -> Result<State, &'static str> {
        match state {
            State::Start => match byte {
                b' ' | b'\t' | b'\r' => Ok(state),
                b'\n' => Ok(self.line_break(state, at)),
                b'{' | b'[' => {
                    self.is_container = true;
                    self.value(byte)
                }
                _ => self.value(byte),
            },
            State::Value => match byte {
                b' ' | b'\t' | b'\r' => Ok(state),
                b'\n' => Ok(self.line_break(state, at)),
                _ => self.value(byte),
            },
            State::FirstElement => match byte {
                b' ' | b'\t' | b'\r' => Ok(state),
                b'\n' => Ok(self.line_break(state, at)),
                b']' => Ok(self.close_bracket()),
                _ => self.value(byte),
            },
            State::Element => match byte {
                b' ' | b'\t' | b'\r' => Ok(state),
                b'\n' => Ok(self.line_break(state, at)),
                b']' => Err("a comma before the closing bracket"),
                _ => self.value(byte),
            },
            State::FirstKey => match byte {
                b' ' | b'\t' | b'\r' => Ok(state),
                b'\n' => Ok(self.line_break(state, at)),
                b'}' => Ok(self.close_brace()),
                b'"' => Ok(self.key()),
                _ => Err("expected a key in double quotes or `}`"),
            },
            State::Key => match byte {
                b' ' | b'\t' | b'\r' => Ok(state),
                b'\n' => Ok(self.line_break(state, at)),
                b'"' => Ok(self.key()),
                b'}' => Err("a comma before the closing brace"),
                _ => Err("expected a key in double quotes"),
            },
            State::Colon => match byte {
                b':' => Ok(State::Value),
                b' ' | b'\t' | b'\r' => Ok(state),
                b'\n' => Ok(self.line_break(state, at)),
                _ => Err("expected `:` after a key"),
            },
            State::Next => self.next(byte, at),
            State::Done => self.done(byte, at),
            State::Escape => match byte {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(State::String),
                b'u' => {
                    self.hex_left = 4;
                    Ok(State::Hex)
                }
                _ => Err("an invalid escape in a string"),
            },
            State::Hex if byte.is_ascii_hexdigit() => {
                self.hex_left -= 1;
                Ok(match self.hex_left {
                    0 => State::String,
                    _ => State::Hex,
                })
            }
            State::Hex => Err("an invalid escape in a string"),
            State::Minus => match byte {
                b'0' => Ok(State::Zero),
                b'1'..=b'9' => Ok(State::Integer),
                _ => Err("an invalid number"),
            },
            State::Zero => match byte {
                b'.' => Ok(State::Point),
                b'e' | b'E' => Ok(State::Exponent),
                b'0'..=b'9' => Err("a number with a leading zero"),
                _ => self.after_number(byte, at),
            },
            State::Integer => match byte {
                b'0'..=b'9' => Ok(state),
                b'.' => Ok(State::Point),
                b'e' | b'E' => Ok(State::Exponent),
                _ => self.after_number(byte, at),
            },
            State::Point => match byte {
                b'0'..=b'9' => Ok(State::Fraction),
                _ => Err("an invalid number"),
            },
            State::Fraction => match byte {
                b'0'..=b'9' => Ok(state),
                b'e' | b'E' => Ok(State::Exponent),
                _ => self.after_number(byte, at),
            },
            State::Exponent => match byte {
                b'0'..=b'9' => Ok(State::ExponentDigits),
                b'+' | b'-' => Ok(State::ExponentSign),
                _ => Err("an invalid number"),
            },
            State::ExponentSign => match byte {
                b'0'..=b'9' => Ok(State::ExponentDigits),
                _ => Err("an invalid number"),
            },
            State::ExponentDigits => match byte {
                b'0'..=b'9' => Ok(state),
                _ => self.after_number(byte, at),
            },
            State::Literal => match self.literal {
                [due, rest @ ..] if *due == byte => {
                    self.literal = rest;
                    Ok(match rest {
                        [] => self.after_value(),
                        _ => state,
                    })
                }
                _ => Err("an invalid literal"),
            },
            // These states are not handled here.
            State::String
            | State::Broken
            | State::BrokenString
            | State::BrokenEscape
            | State::Stopped => Ok(state),
        }
    }

    /// Reads the first byte of a value.
    #[inline]
    fn value(&mut self, byte: u8) -> Result<State, &'static str> {
        match byte {
            b'"' => {
                self.in_key = false;
                Ok(State::String)
            }
            b'{' => {
                self.nesting.open(true);
                self.braces.open += 1;
                Ok(State::FirstKey)
            }
            b'[' => {
                self.nesting.open(false);
                self.brackets.open += 1;
                Ok(State::FirstElement)
            }
            b'-' => Ok(State::Minus),
            b'0' => Ok(State::Zero),
            b'1'..=b'9' => Ok(State::Integer),
            b't' => Ok(self.literal(b"rue")),
            b'f' => Ok(self.literal(b"alse")),
            b'n' => Ok(self.literal(b"ull")),
            _ => Err("expected a value"),
        }
    }

    fn literal(&mut self, rest: &'static [u8]) -> State {
        self.literal = rest;
        State::Literal
    }

    #[inline]
    fn key(&mut self) -> State {
        self.in_key = true;
        State::String
    }

    /// Reads a byte after a value inside an array or object.
    #[inline]
    fn next(&mut self, byte: u8, at: usize) -> Result<State, &'static str> {
        let in_object = self.nesting.in_object();
        match byte {
            b',' if in_object => Ok(State::Key),
            b',' => Ok(State::Element),
            b'}' if in_object => Ok(self.close_brace()),
            b']' if !in_object => Ok(self.close_bracket()),
            b' ' | b'\t' | b'\r' => Ok(State::Next),
            b'\n' => Ok(self.line_break(State::Next, at)),
            _ if in_object => Err("expected `,` or `}`"),
            _ => Err("expected `,` or `]`"),
        }
    }

    /// Reads a byte after the document.
    #[inline]
    fn done(&mut self, byte: u8, at: usize) -> Result<State, &'static str> {
        match byte {
            b' ' | b'\t' | b'\r' => Ok(State::Done),
            b'\n' => Ok(self.line_break(State::Done, at)),
            _ => Err("text after the end of the document"),
        }
    }

    /// Reads a byte after a number. Only this byte shows that the number is complete.
    #[inline]
    fn after_number(&mut self, byte: u8, at: usize) -> Result<State, &'static str> {
        match self.after_value() {
            State::Done => self.done(byte, at),
            _ => self.next(byte, at),
        }
    }

    #[inline]
    fn after_value(&self) -> State {
        match self.nesting.depth {
            0 => State::Done,
            _ => State::Next,
        }
    }

    #[inline]
    fn close_brace(&mut self) -> State {
        self.braces.close += 1;
        self.nesting.close();
        self.after_value()
    }

    #[inline]
    fn close_bracket(&mut self) -> State {
        self.brackets.close += 1;
        self.nesting.close();
        self.after_value()
    }

    #[inline]
    fn line_break(&mut self, state: State, at: usize) -> State {
        self.line_breaks += 1;
        self.line_start = self.offset + at as u64 + 1;
        state
    }

    /// Records the first fault. Returns the state for the rest of the document.
    #[cold]
    fn fault(&mut self, state: State, what: &'static str, at: usize) -> State {
        let position = self.offset + at as u64;
        self.fault = Some(Fault { what, position });
        if !self.is_container {
            return State::Stopped;
        }
        self.before = match state {
            State::FirstKey => b'{',
            State::FirstElement => b'[',
            State::Key | State::Element => b',',
            State::Value => b':',
            _ => 0,
        };
        match state {
            State::String | State::Escape | State::Hex => State::BrokenString,
            _ => State::Broken,
        }
    }

    /// Reads a byte of a broken document, outside strings.
    fn step_broken(&mut self, byte: u8, at: usize, findings: &mut Findings) -> State {
        let mut state = State::Broken;
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => return state,
            b'"' => state = State::BrokenString,
            b'{' | b'[' => self.open_broken(byte == b'{'),
            b'}' | b']' => {
                if let Some(misplaced) = self.close_broken(byte == b'}') {
                    self.find(STRUCTURE, misplaced, at, findings);
                }
            }
            b',' => {
                let misplaced = match self.before {
                    b',' => Some(Misplaced::CommaAfterComma),
                    b'{' => Some(Misplaced::CommaAfterBrace),
                    b'[' => Some(Misplaced::CommaAfterBracket),
                    b':' => Some(Misplaced::CommaAfterColon),
                    _ => None,
                };
                if let Some(misplaced) = misplaced {
                    self.find(CHUNKS, misplaced, at, findings);
                }
            }
            _ => {}
        }
        self.before = byte;
        state
    }

    fn open_broken(&mut self, object: bool) {
        let pairs = if object {
            &mut self.braces
        } else {
            &mut self.brackets
        };
        pairs.open += 1;
        if !self.lost {
            self.nesting.open(object);
        }
    }

    fn close_broken(&mut self, object: bool) -> Option<Misplaced> {
        let pairs = if object {
            &mut self.braces
        } else {
            &mut self.brackets
        };
        pairs.close += 1;
        // Counts that exceed show a closer without an opener even when nesting is no longer tracked.
        let unopened = pairs.close > pairs.open;
        let crossed = !self.lost && !unopened && self.nesting.in_object() != object;
        if unopened || crossed {
            self.lost = true;
        }
        if !self.lost {
            self.nesting.close();
        }
        match (unopened, crossed, object) {
            (true, _, true) => Some(Misplaced::UnopenedBrace),
            (true, _, false) => Some(Misplaced::UnopenedBracket),
            (false, true, true) => Some(Misplaced::CrossedBrace),
            (false, true, false) => Some(Misplaced::CrossedBracket),
            (false, false, _) => None,
        }
    }

    #[cold]
    fn find(
        &mut self,
        rule: &'static str,
        misplaced: Misplaced,
        at: usize,
        findings: &mut Findings,
    ) {
        if self.reported.first(misplaced) {
            let position = self.offset + at as u64;
            findings.report(error(rule, misplaced.message()).position(position));
        }
    }

    fn end(&self, findings: &mut Findings) {
        if self.is_container {
            if self.in_string() {
                findings.report(error(STRUCTURE, "Unclosed string detected"));
            }
            for (name, Pairs { open, close }) in
                [("braces", &self.braces), ("brackets", &self.brackets)]
            {
                if open != close {
                    let message = format!("Unbalanced {name}: {open} open, {close} close");
                    findings.report(error(STRUCTURE, message));
                }
            }
        }
        let cut = || {
            self.cut().map(|what| Fault {
                what,
                position: self.offset,
            })
        };
        if let Some(Fault { what, position }) = self.fault.or_else(cut) {
            let line = self.line_breaks + 1;
            let column = position - self.line_start + 1;
            let message = format!("Invalid JSON at line {line}, column {column}: {what}");
            findings.report(error(PARSEABLE, message).position(position));
        }
    }

    fn in_string(&self) -> bool {
        matches!(
            self.state,
            State::String | State::Escape | State::Hex | State::BrokenString | State::BrokenEscape
        )
    }

    /// Returns the problem of a text that ends here, if it has no fault up to here.
    fn cut(&self) -> Option<&'static str> {
        let complete = match self.state {
            State::Done => true,
            State::Zero | State::Integer | State::Fraction | State::ExponentDigits => {
                self.nesting.depth == 0
            }
            _ => false,
        };
        if complete {
            None
        } else if self.state == State::Start {
            Some("the text is empty")
        } else if self.in_string() {
            Some("the text ends inside a string")
        } else if self.nesting.depth == 0 {
            Some("the text ends inside a value")
        } else if self.nesting.in_object() {
            Some("the text ends inside an object")
        } else {
            Some("the text ends inside an array")
        }
    }
}
