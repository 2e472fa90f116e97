//! Rules for answers that must be JSON.

use l0_core::{Check, Ended, Findings, Severity, Violation};

const STRUCTURE: &str = "json-structure";
const CHUNKS: &str = "json-chunks";
const PARSEABLE: &str = "json-parseable";
const STRICT: &str = "json-strict";

/// Checks answers that look like JSON: those that start with `{` or `[` after spaces, tabs and line
/// breaks. About any other answer, also one with JSON inside a Markdown fence, it says nothing.
///
/// Everything that it reports is a recoverable [`Severity::Error`]:
///
/// | rule | when | what |
/// |---|---|---|
/// | `json-structure` | while streaming | a `}` or `]` that closes nothing, or not what was opened last |
/// | `json-chunks` | while streaming | a comma after a comma, `{`, `[` or `:`, with or without spaces between |
/// | `json-structure` | at the end | a string that is not closed; not as many `}` as `{`, or `]` as `[` |
/// | `json-parseable` | at the end | anything else that makes it no JSON document, and all of the above |
///
/// What it reports while streaming is wrong whatever follows: a valid document causes no violation
/// at any point. The violations are the same however the answer is cut into pieces. Each kind is
/// reported where it is found first; its [position](Violation::position) is there for everything
/// except what concerns the whole text. The message of `json-parseable` names the line and the
/// column, both from 1, the column in bytes, of the first thing that is wrong. No message has any of
/// the answer's text in it.
///
/// Braces, brackets and commas count outside strings, over the whole answer, also behind the place
/// where it stops being JSON.
///
/// # What is a JSON document
///
/// What `serde_json::from_str::<serde::de::IgnoredAny>` takes for one. Whitespace may follow it,
/// other text not. Parsing into a `serde_json::Value` fails in three more cases, in which nothing is
/// reported here: numbers that do not fit into an `f64` (`1e999`), `\u` escapes of surrogates that
/// are not a pair (`"\ud800"`), and more than 127 levels of arrays and objects.
///
/// # Cost
///
/// Time in proportion to the piece. Memory is about 170 bytes, and beyond 128 open levels a bit for
/// each of them; nothing of the answer is kept.
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
#[derive(Debug, Default)]
pub struct Json {
    scanner: Scanner,
}

impl Json {
    /// Creates the rule, for one attempt.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Check for Json {
    fn name(&self) -> &'static str {
        STRUCTURE
    }

    #[inline]
    fn text(&mut self, delta: &str, findings: &mut Findings) {
        self.scanner.text(delta, findings);
    }

    fn end(&mut self, _: &Ended, findings: &mut Findings) {
        if self.scanner.is_container {
            self.scanner.end(findings);
        }
    }
}

/// Checks that the answer is one JSON object or array and nothing else.
///
/// It reports what [`Json`] does, at the same time and with the same severity. About an answer that
/// does not start with `{` or `[`, be it empty, prose, fenced or a JSON document of another kind, it
/// reports `json-strict` at the end, a recoverable [`Severity::Error`] too; and `json-parseable`, if
/// the answer is no JSON document at all: `42` is one, prose is not.
#[derive(Debug, Default)]
pub struct StrictJson {
    scanner: Scanner,
}

impl StrictJson {
    /// Creates the rule, for one attempt.
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

/// What the scanner is inside of, or waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Only whitespace so far.
    #[default]
    Start,
    /// The value of a member, or one that is the whole document.
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
    /// The document is broken. Only what the rules say about broken ones is still looked for.
    Broken,
    BrokenString,
    BrokenEscape,
    /// The document is broken, and there is nothing else to say about it.
    Stopped,
}

/// What is open: a bit for each level, set if it is an object.
#[derive(Debug, Default)]
struct Nesting {
    /// The innermost levels, the last in the lowest bit.
    objects: u128,
    /// The levels around them, full words; empty in all but contrived documents.
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

    /// Whether every bit of the word is in use.
    #[inline]
    fn is_full(&self) -> bool {
        self.depth > 0 && self.depth % 128 == 0
    }

    /// Whether the innermost is an object.
    #[inline]
    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

/// How many openers and closers of one sort there were.
#[derive(Debug, Default)]
struct Pairs {
    open: u64,
    close: u64,
}

/// The first thing that makes the text no JSON document.
#[derive(Debug, Clone, Copy)]
struct Fault {
    what: &'static str,
    position: u64,
}

/// What was reported while streaming. [`Findings`] would drop the repetitions, but a comparison
/// with all that was reported is too much for every brace of a long text.
#[derive(Debug, Default)]
struct Reported(u8);

impl Reported {
    /// Whether this is the first time.
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
            Self::CrossedBrace => "Closing brace where a bracket is to be closed",
            Self::CrossedBracket => "Closing bracket where a brace is to be closed",
            Self::CommaAfterComma => "Comma after a comma",
            Self::CommaAfterBrace => "Comma after an opening brace",
            Self::CommaAfterBracket => "Comma after an opening bracket",
            Self::CommaAfterColon => "Comma after a colon",
        }
    }
}

/// A validator of JSON that takes the document in pieces, cut anywhere.
///
/// It steps through the grammar byte by byte up to the first fault. From there on it only tells
/// strings from what is outside of them, and looks at braces, brackets and commas.
#[derive(Debug, Default)]
struct Scanner {
    state: State,
    /// Whether the document is an array or an object.
    is_container: bool,
    /// Whether the string is a key.
    in_key: bool,
    /// How many digits of a `\u` escape are to come.
    hex_left: u8,
    /// What is to come of a literal.
    literal: &'static [u8],
    nesting: Nesting,
    braces: Pairs,
    brackets: Pairs,
    /// How many bytes came in earlier pieces.
    offset: u64,
    /// How many line breaks came before the fault. Inside a string a line break is one, so they
    /// are counted between tokens only.
    line_breaks: u64,
    line_start: u64,
    fault: Option<Fault>,
    /// In a broken document: the last byte outside strings that is no whitespace.
    before: u8,
    /// Whether [`Nesting`] is no longer kept: a closer did not fit.
    lost: bool,
    reported: Reported,
}

/// The bytes that do not simply belong to a string: the quote, the backslash, control characters.
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
        // In a local, because through memory every byte would wait for the one before.
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
                    // The byte at fault is looked at again, as part of a broken document.
                    Err(what) => state = self.fault(state, what, at),
                },
            }
        }
        self.state = state;
        self.offset += bytes.len() as u64;
    }

    /// Takes a byte of a document that is valid so far; an error says what is wrong with it.
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
            // Not stepped through.
            State::String
            | State::Broken
            | State::BrokenString
            | State::BrokenEscape
            | State::Stopped => Ok(state),
        }
    }

    /// The first byte of a value.
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

    /// A byte after a value inside an array or object.
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

    /// A byte after the document.
    #[inline]
    fn done(&mut self, byte: u8, at: usize) -> Result<State, &'static str> {
        match byte {
            b' ' | b'\t' | b'\r' => Ok(State::Done),
            b'\n' => Ok(self.line_break(State::Done, at)),
            _ => Err("text after the end of the document"),
        }
    }

    /// A byte after a number, which only it shows to be complete.
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

    /// The document is broken. Gives the state in which to look at the rest.
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

    /// Takes a byte of a broken document, outside strings.
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
        // Counts that exceed show a closer without an opener even when the nesting is lost.
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

    /// What is wrong with a text that ends here, without a fault up to here.
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
