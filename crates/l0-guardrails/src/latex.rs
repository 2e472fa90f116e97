//! The rule for LaTeX: environments, math delimiters, and the braces of commands.
//!
//! A state machine over bytes. It keeps only the start of the name being read, and a hash of the name
//! of each open environment.

use l0_core::{Check, Ended, Findings, Severity, Violation};

use crate::fence::{self, Fence, FenceLine};
use crate::hash::Fnv;

/// The maximum number of open environments that are tracked. Beyond it, only their number is known.
const MAX_OPEN: usize = 64;

/// The number of open environments from which a warning is reported.
const MANY_OPEN: u64 = 6;

/// A rule that checks the LaTeX in an answer: a complete document, or formulas in Markdown.
///
/// All violations are recoverable, and each distinct one is reported once:
///
/// | violation | when | severity | problem |
/// |---|---|---|---|
/// | `latex-environments` | immediately | error | an `\end{..}` does not match the open `\begin{..}` |
/// | | immediately | warning | more than five environments are open |
/// | | end | error | an environment is not closed (one violation for each) |
/// | `latex-math` | end | error | `\[` and `\]`, or `\(` and `\)`, are not balanced; an odd number of `$$` |
/// | | end | warning | an odd number of `$` |
/// | `latex-common` | end | warning | a brace opened after a command (`\textbf{..`) is not closed |
///
/// - An `\end` that does not match closes the open environment with its name and those inside it. If
///   there is none, it counts as the misspelled end of the innermost one.
/// - In `verbatim`, `Verbatim`, `lstlisting`, `minted` and `comment`, everything except their end is
///   ignored. The text of `\verb|..|` is ignored too.
/// - Code in Markdown is not LaTeX, so `sed 's/\(a/'` is not a violation. Text in single backticks on
///   one line is ignored, and so are code fences, except those marked as `latex`, `tex`, `math` or
///   `katex`. Text after a single backtick is therefore checked only at the end of its line, or at the
///   fifth `\begin` or `\end` after it.
/// - `\$` and runs of three or more `$` do not count. A `$` before a digit is ambiguous: a price, or
///   the beginning of a formula. It counts as a formula if a closing `$` follows in the same paragraph.
///   A closing `$` has no blank before it and no digit after it. Otherwise it counts as a price and is
///   ignored. So `$5 and $10` is valid, `$2x$` is a formula, and a truncated `$2x` is not detected. In
///   the paragraph of an unclosed `$`, a `$$` that does not begin its line is read as two single ones.
/// - Messages name an environment only if it is in a fixed list of common ones, so they contain no text
///   of the answer.
///
/// A text without LaTeX has no violations, unless its prose contains an odd number of `$` (`the $
/// sign`).
///
/// The rule takes time proportional to the text, and bounded memory: less than one kilobyte, plus 32
/// bytes for each of up to 64 open environments. Beyond those, an `\end` closes the last one, whatever
/// its name. The only text kept is up to 16 bytes of the name being read.
///
/// Known limits: comments (`% ..`) are read as text. A bracket that Markdown escapes (`\[1]`) counts as
/// a delimiter, and a price class like `$$` as an unclosed formula. Escapes like `\n{` in JSON or in
/// unmarked code look like commands. Environments that macros begin and end are not seen. A brace
/// belongs to a command only if it directly follows the command, its star, its option or its other
/// argument.
///
/// ```
/// use l0_core::L0;
/// use l0_guardrails::Latex;
///
/// let l0 = L0::builder().guardrails(Latex::new).build();
/// # drop(l0);
/// ```
#[derive(Debug, Default)]
pub struct Latex {
    /// The number of bytes before the current piece.
    before: u64,
    /// The last byte of the previous piece, or 0.
    last: u8,
    state: State,
    /// `true` if the line contains a non-blank character.
    text_in_line: bool,
    /// The start of the command, or of the run of `$`, being read.
    token_at: u64,
    name: Name,
    block: Option<Block>,
    code: Option<Code>,
    environments: Environments,
    math: Math,
    braces: Braces,
}

/// The element being read.
#[derive(Debug, Clone, Copy, Default)]
enum State {
    /// Only blanks and list or quote markers so far in this line.
    #[default]
    LineStart,
    /// A line that may open or close a code fence.
    Fence(FenceLine),
    /// The rest of a line in code.
    Skip,
    Text,
    Backslash,
    Command,
    /// After `\begin` or `\end`.
    Environment {
        end: bool,
    },
    /// In the braces after it.
    EnvironmentName {
        end: bool,
        brace_at: u64,
    },
    /// After a command or one of its arguments.
    Arguments,
    Option,
    /// After `\verb`.
    Verb,
    /// In the text of `\verb`, up to this byte.
    VerbText(u8),
    Dollars {
        count: u32,
        after_blank: bool,
        begins_line: bool,
    },
    Backticks(u32),
}

impl Latex {
    /// Creates the rule for one attempt.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the classes of bytes that matter from here on, if most bytes do not.
    #[inline]
    fn indifferent_until(&self) -> Option<u8> {
        match self.state {
            State::Text if self.braces.depth > 0 => Some(SPECIAL | LINE_END | BRACE),
            State::Text => Some(SPECIAL | LINE_END),
            State::Skip => Some(LINE_END),
            _ => None,
        }
    }

    /// Reads a byte. Returns `false` if the state has changed and the byte must be read in the new one.
    fn step(&mut self, byte: u8, last: u8, at: u64, findings: &mut Findings) -> bool {
        if byte == b'\n' {
            self.end_line(findings);
            return true;
        }
        let mut again = false;
        let mut leave = |state| {
            again = true;
            state
        };
        self.state = match self.state {
            State::LineStart => self.line_start(byte).unwrap_or_else(|| {
                self.text_in_line = true;
                match byte {
                    _ if self.is_skipped() => State::Skip,
                    b'$' if self.environments.verbatim.is_none() => {
                        self.token_at = at;
                        let after_blank = last == 0 || last.is_ascii_whitespace();
                        State::Dollars {
                            count: 1,
                            after_blank,
                            begins_line: true,
                        }
                    }
                    _ => leave(State::Text),
                }
            }),
            State::Fence(line) => match line.next(byte, self.open_fence()) {
                Some(line) => {
                    if line.run().is_none() {
                        self.name.add_to_first_word(byte);
                    }
                    State::Fence(line)
                }
                None if self.is_skipped() => State::Skip,
                None => leave(match line.run() {
                    Some((b'`', count)) => State::Backticks(count),
                    _ => State::Text,
                }),
            },
            State::Skip => State::Skip,
            State::Text => self.text_byte(byte, last, at),
            State::Backslash => match byte {
                b'a'..=b'z' | b'A'..=b'Z' => {
                    self.name = Name::default();
                    self.name.add(byte);
                    State::Command
                }
                // Each backslash can start the end.
                b'\\' if self.environments.verbatim.is_some() => {
                    self.token_at = at;
                    State::Backslash
                }
                _ if self.environments.verbatim.is_some() => leave(State::Text),
                // Inline code has no escapes.
                b'`' if self.code.is_some() => leave(State::Text),
                _ => {
                    let at = self.token_at;
                    match byte {
                        b'[' => self.math.display.open(at),
                        b']' => self.math.display.close(at),
                        b'(' => self.math.inline.open(at),
                        b')' => self.math.inline.close(at),
                        _ => {}
                    }
                    State::Text
                }
            },
            State::Command => match byte {
                b'a'..=b'z' | b'A'..=b'Z' => {
                    self.name.add(byte);
                    State::Command
                }
                _ => leave(match self.name.as_bytes() {
                    b"end" => State::Environment { end: true },
                    _ if self.environments.verbatim.is_some() => State::Text,
                    b"begin" => State::Environment { end: false },
                    b"verb" => State::Verb,
                    _ => State::Arguments,
                }),
            },
            State::Environment { .. } if is_blank(byte) => self.state,
            State::Environment { end } if byte == b'{' => {
                self.name = Name::default();
                State::EnvironmentName { end, brace_at: at }
            }
            State::Environment { .. } => leave(State::Text),
            State::EnvironmentName { end, brace_at } => match byte {
                b'}' => {
                    if self.name.len > 0 {
                        self.environment(end, findings);
                    }
                    State::Arguments
                }
                b'{' | b'\\' | b'$' | b'`' | b'\r' => {
                    self.no_environment_name(brace_at);
                    leave(State::Text)
                }
                _ => {
                    self.name.add(byte);
                    self.state
                }
            },
            State::Arguments if self.environments.verbatim.is_some() => leave(State::Text),
            State::Arguments => match byte {
                b'{' => {
                    self.braces.open(at);
                    State::Text
                }
                b'[' => State::Option,
                b'*' => State::Arguments,
                _ => leave(State::Text),
            },
            State::Option => match byte {
                b']' => State::Arguments,
                b'\\' | b'$' | b'`' | b'{' | b'}' => leave(State::Text),
                _ => State::Option,
            },
            State::Verb => match byte {
                b'*' => State::Verb,
                b'{' => leave(State::Arguments),
                b'!'..=b'~' if byte != b'`' => State::VerbText(byte),
                _ => leave(State::Text),
            },
            State::VerbText(end) if byte == end => State::Text,
            State::VerbText(_) if byte == b'`' && self.code.is_some() => leave(State::Text),
            State::VerbText(_) => self.state,
            State::Dollars {
                count,
                after_blank,
                begins_line,
            } if byte == b'$' => State::Dollars {
                count: count.saturating_add(1),
                after_blank,
                begins_line,
            },
            State::Backticks(count) if byte == b'`' => State::Backticks(count.saturating_add(1)),
            State::Dollars { .. } | State::Backticks(_) => {
                self.end_run(Some(byte));
                leave(State::Text)
            }
        };
        !again
    }

    /// Returns the state after this byte, before the text of the line has begun.
    fn line_start(&mut self, byte: u8) -> Option<State> {
        match byte {
            _ if fence::is_indent(byte) => Some(State::LineStart),
            _ if self.environments.verbatim.is_some() => None,
            _ if self.block.is_none() && fence::is_item_marker(byte) => {
                self.text_in_line = true;
                Some(State::LineStart)
            }
            _ => FenceLine::begin(byte).map(|line| {
                self.text_in_line = true;
                self.name = Name::default();
                State::Fence(line)
            }),
        }
    }

    fn open_fence(&self) -> Option<Fence> {
        self.block.as_ref().map(|block| block.fence)
    }

    /// Returns `true` if the text is code other than LaTeX.
    fn is_skipped(&self) -> bool {
        self.block.as_ref().is_some_and(|block| !block.latex)
    }

    fn text_byte(&mut self, byte: u8, last: u8, at: u64) -> State {
        let verbatim = self.environments.verbatim.is_some();
        match byte {
            b'\\' => {
                self.token_at = at;
                State::Backslash
            }
            _ if verbatim => State::Text,
            b'$' => {
                self.token_at = at;
                let after_blank = last.is_ascii_whitespace();
                State::Dollars {
                    count: 1,
                    after_blank,
                    begins_line: false,
                }
            }
            b'`' => State::Backticks(1),
            b'{' if self.braces.depth > 0 => {
                self.braces.depth += 1;
                State::Text
            }
            b'}' if self.braces.depth > 0 => {
                self.braces.depth -= 1;
                if self.braces.depth == 0 {
                    State::Arguments
                } else {
                    State::Text
                }
            }
            _ => State::Text,
        }
    }

    /// Ends a run of `$` or backticks. `next` is the byte after it, or `None` at the end of the line or
    /// text.
    fn end_run(&mut self, next: Option<u8>) {
        match self.state {
            State::Dollars {
                count: 1,
                after_blank,
                ..
            } => {
                let digit = next.is_some_and(|next| next.is_ascii_digit());
                self.math.dollar(self.token_at, after_blank, digit);
            }
            State::Dollars {
                count: 2,
                after_blank,
                begins_line,
            } => {
                let digit = next.is_some_and(|next| next.is_ascii_digit());
                self.math
                    .two_dollars(self.token_at, after_blank, begins_line, digit);
            }
            State::Backticks(1) => match self.code.take() {
                // The text was code, so restore the state before it.
                Some(code) => {
                    self.math = code.math;
                    self.braces = code.braces;
                }
                None => {
                    self.code = Some(Code {
                        math: self.math,
                        braces: self.braces,
                        marks: [Mark::default(); 4],
                        len: 0,
                    });
                }
            },
            _ => {}
        }
    }

    fn end_line(&mut self, findings: &mut Findings) {
        match self.state {
            State::Dollars { .. } | State::Backticks(_) => self.end_run(None),
            State::EnvironmentName { brace_at, .. } => self.no_environment_name(brace_at),
            State::Fence(line) => {
                let fence = line.end(self.open_fence());
                let before = self.block.take();
                self.block = fence.map(|fence| {
                    let latex = self.name.is_latex();
                    before.unwrap_or(Block { fence, latex })
                });
            }
            _ => {}
        }
        self.no_code(findings);
        if !self.text_in_line {
            self.math.end_paragraph();
        }
        self.text_in_line = false;
        self.state = State::LineStart;
    }

    /// The backtick did not start inline code, so the text after it counts.
    fn no_code(&mut self, findings: &mut Findings) {
        if let Some(code) = self.code.take() {
            for mark in &code.marks[..code.len] {
                self.environments.apply(mark, findings);
            }
        }
    }

    fn no_environment_name(&mut self, brace_at: u64) {
        if self.environments.verbatim.is_none() {
            self.braces.open(brace_at);
        }
    }

    /// Begins or ends an environment whose name has been read.
    fn environment(&mut self, end: bool, findings: &mut Findings) {
        let mark = Mark {
            end,
            hash: self.name.hash.0,
            name: self.name.known(),
            at: self.token_at,
        };
        if let Some(code) = &mut self.code {
            if let Some(slot) = code.marks.get_mut(code.len) {
                *slot = mark;
                code.len += 1;
                return;
            }
            self.no_code(findings);
        }
        self.environments.apply(&mark, findings);
    }
}

impl Check for Latex {
    fn name(&self) -> &'static str {
        "latex-environments"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings) {
        let bytes = delta.as_bytes();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let Some(ends) = self.indifferent_until() {
                let rest = &bytes[at..];
                let plain = rest
                    .iter()
                    .position(|byte| CLASS[usize::from(*byte)] & ends != 0);
                let plain = plain.unwrap_or(rest.len());
                if plain > 0 {
                    at += plain;
                    continue;
                }
            }
            let last = if at > 0 { bytes[at - 1] } else { self.last };
            if self.step(byte, last, self.before + at as u64, findings) {
                at += 1;
            }
        }
        if let Some(last) = bytes.last() {
            self.last = *last;
        }
        self.before += bytes.len() as u64;
    }

    fn end(&mut self, _: &Ended, findings: &mut Findings) {
        self.end_line(findings);
        self.math.end_paragraph();
        self.environments.end(findings);
        self.math.end(findings);
        if self.braces.depth > 0 {
            let unclosed = Violation::new(
                "latex-common",
                Severity::Warning,
                "A brace opened after a command is not closed",
            );
            findings.report(unclosed.position(self.braces.at));
        }
    }
}

/// The name being read: of a command, an environment, or a code fence's language.
#[derive(Debug, Default)]
struct Name {
    hash: Fnv,
    len: usize,
    start: [u8; 16],
}

impl Name {
    fn add(&mut self, byte: u8) {
        self.hash.push(byte.into());
        if let Some(slot) = self.start.get_mut(self.len) {
            *slot = byte;
        }
        self.len = self.len.saturating_add(1);
    }

    /// Adds a byte, unless it is after the first word.
    fn add_to_first_word(&mut self, byte: u8) {
        let over = self.start[..self.len.min(16)].last() == Some(&b' ');
        if is_blank(byte) {
            if self.len > 0 && !over {
                self.add(b' ');
            }
        } else if !over {
            self.add(byte.to_ascii_lowercase());
        }
    }

    /// Returns the name, or an empty slice if it is longer than any relevant name.
    fn as_bytes(&self) -> &[u8] {
        self.start.get(..self.len).unwrap_or_default()
    }

    fn is_latex(&self) -> bool {
        matches!(
            self.as_bytes().trim_ascii(),
            b"latex" | b"tex" | b"math" | b"katex"
        )
    }

    fn known(&self) -> Option<&'static str> {
        let name = self.as_bytes();
        let found = KNOWN.binary_search_by(|known| known.as_bytes().cmp(name));
        found.ok().map(|at| KNOWN[at])
    }
}

/// The code after an opening fence.
#[derive(Debug)]
struct Block {
    fence: Fence,
    /// `true` if it contains LaTeX.
    latex: bool,
}

/// The state before a backtick, and the marks since. The marks count only if they are not code.
#[derive(Debug)]
struct Code {
    math: Math,
    braces: Braces,
    marks: [Mark; 4],
    len: usize,
}

/// A `\begin{..}` or `\end{..}`.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    end: bool,
    hash: u64,
    name: Option<&'static str>,
    at: u64,
}

#[derive(Debug, Default)]
struct Environments {
    open: Vec<Open>,
    /// The number of further open environments.
    beyond: u64,
    /// The hash of the innermost environment's name, if its content is ignored.
    verbatim: Option<u64>,
    /// `true` once the warning was reported.
    many: bool,
}

#[derive(Debug)]
struct Open {
    hash: u64,
    name: Option<&'static str>,
    at: u64,
}

impl Environments {
    fn apply(&mut self, mark: &Mark, findings: &mut Findings) {
        if self
            .verbatim
            .is_some_and(|hash| !mark.end || mark.hash != hash)
        {
            return;
        }
        self.verbatim = None;
        if mark.end {
            self.close(mark, findings);
        } else {
            self.begin(mark, findings);
        }
    }

    fn begin(&mut self, mark: &Mark, findings: &mut Findings) {
        if self.open.len() < MAX_OPEN {
            self.open.push(Open {
                hash: mark.hash,
                name: mark.name,
                at: mark.at,
            });
        } else {
            self.beyond += 1;
        }
        if mark.name.is_some_and(|name| VERBATIM.contains(&name)) {
            self.verbatim = Some(mark.hash);
        }
        if !self.many && self.open.len() as u64 >= MANY_OPEN {
            self.many = true;
            let many = Violation::new(
                "latex-environments",
                Severity::Warning,
                "More than 5 environments are open",
            );
            findings.report(many.position(mark.at));
        }
    }

    fn close(&mut self, mark: &Mark, findings: &mut Findings) {
        if self.beyond > 0 {
            self.beyond -= 1;
            return;
        }
        let message = match self.open.pop() {
            Some(innermost) if innermost.hash == mark.hash => return,
            Some(innermost) => {
                if let Some(at) = self.open.iter().rposition(|open| open.hash == mark.hash) {
                    self.open.truncate(at);
                }
                mismatch(innermost.name, mark.name)
            }
            None => match mark.name {
                Some(name) => format!(r"\end{{{name}}} without \begin{{{name}}}"),
                None => r"An \end without its \begin".to_owned(),
            },
        };
        let mismatch = Violation::new("latex-environments", Severity::Error, message);
        findings.report(mismatch.position(mark.at));
    }

    fn end(&self, findings: &mut Findings) {
        for (level, open) in self.open.iter().enumerate() {
            // The level distinguishes environments with the same name.
            let level = level + 1;
            let message = match open.name {
                Some(name) => format!(r"\begin{{{name}}} without \end{{{name}}}, at level {level}"),
                None => format!(r"A \begin without its \end, at level {level}"),
            };
            let unclosed = Violation::new("latex-environments", Severity::Error, message);
            findings.report(unclosed.position(open.at));
        }
        if self.beyond > 0 {
            let message = format!("Environments open beyond level {MAX_OPEN}: {}", self.beyond);
            findings.report(Violation::new(
                "latex-environments",
                Severity::Error,
                message,
            ));
        }
    }
}

fn mismatch(expected: Option<&str>, found: Option<&str>) -> String {
    match (expected, found) {
        (Some(expected), Some(found)) => {
            format!(r"Expected \end{{{expected}}}, found \end{{{found}}}")
        }
        (Some(expected), None) => {
            format!(r"Expected \end{{{expected}}}, found the end of another environment")
        }
        (None, Some(found)) => {
            format!(r"Expected the end of another environment, found \end{{{found}}}")
        }
        (None, None) => r"An \end that does not match its \begin".to_owned(),
    }
}

/// The delimiters of formulas.
#[derive(Debug, Clone, Copy, Default)]
struct Math {
    /// `\[` and `\]`.
    display: Pair,
    /// `\(` and `\)`.
    inline: Pair,
    /// The position of the `$$` without a partner.
    dollars: Option<u64>,
    dollar: Dollar,
    /// The position of the last unmatched `$`, if their number is odd.
    odd: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    unclosed: u64,
    /// The position of the outermost open one.
    at: u64,
    unopened: u64,
    /// The position of the first one without an opener.
    unopened_at: u64,
}

impl Pair {
    fn open(&mut self, at: u64) {
        if self.unclosed == 0 {
            self.at = at;
        }
        self.unclosed += 1;
    }

    fn close(&mut self, at: u64) {
        if self.unclosed > 0 {
            self.unclosed -= 1;
            return;
        }
        if self.unopened == 0 {
            self.unopened_at = at;
        }
        self.unopened += 1;
    }

    fn end(&self, open: &str, close: &str, findings: &mut Findings) {
        let Self {
            unclosed,
            at,
            unopened,
            unopened_at,
        } = *self;
        if unclosed + unopened > 0 {
            let message = format!(
                "{open} and {close} are not balanced: {unclosed} not closed, {unopened} not opened"
            );
            let first = if unopened > 0 { unopened_at } else { at };
            let unbalanced = Violation::new("latex-math", Severity::Error, message);
            findings.report(unbalanced.position(first));
        }
    }
}

/// A `$` that waits for its partner.
#[derive(Debug, Clone, Copy, Default)]
enum Dollar {
    #[default]
    Closed,
    /// Before a digit, so it can be a price.
    Ambiguous,
    Open(u64),
}

impl Dollar {
    fn opened(at: u64, digit: bool) -> Self {
        if digit {
            Self::Ambiguous
        } else {
            Self::Open(at)
        }
    }
}

impl Math {
    fn dollar(&mut self, at: u64, after_blank: bool, digit: bool) {
        self.dollar = match self.dollar {
            Dollar::Closed => Dollar::opened(at, digit),
            Dollar::Open(_) => Dollar::Closed,
            // A `$` that cannot close a formula begins the next one, so the first was a price.
            Dollar::Ambiguous if after_blank || digit => Dollar::opened(at, digit),
            Dollar::Ambiguous => Dollar::Closed,
        };
    }

    fn two_dollars(&mut self, at: u64, after_blank: bool, begins_line: bool, digit: bool) {
        // Between two formulas, as in `$a$$b$`, they close one and open the other.
        let between = match self.dollar {
            Dollar::Open(_) => !begins_line,
            Dollar::Ambiguous => !after_blank,
            Dollar::Closed => false,
        };
        if between {
            self.dollar = Dollar::opened(at + 1, digit);
            return;
        }
        self.dollars = match self.dollars {
            Some(_) => None,
            None => Some(at),
        };
        if matches!(self.dollar, Dollar::Ambiguous) {
            self.dollar = Dollar::Closed;
        }
    }

    /// Ends all formulas, because none continues after a blank line.
    fn end_paragraph(&mut self) {
        if let Dollar::Open(at) = self.dollar {
            self.odd = match self.odd {
                Some(_) => None,
                None => Some(at),
            };
        }
        self.dollar = Dollar::Closed;
    }

    fn end(&self, findings: &mut Findings) {
        self.display.end(r"\[", r"\]", findings);
        self.inline.end(r"\(", r"\)", findings);
        if let Some(at) = self.dollars {
            let odd = Violation::new("latex-math", Severity::Error, "An odd number of $$");
            findings.report(odd.position(at));
        }
        if let Some(at) = self.odd {
            let odd = Violation::new("latex-math", Severity::Warning, "An odd number of $");
            findings.report(odd.position(at));
        }
    }
}

/// The braces opened after a command, and those inside them.
#[derive(Debug, Clone, Copy, Default)]
struct Braces {
    depth: u64,
    /// The position of the outermost brace.
    at: u64,
}

impl Braces {
    fn open(&mut self, at: u64) {
        if self.depth == 0 {
            self.at = at;
        }
        self.depth += 1;
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

const LINE_END: u8 = 1;
const SPECIAL: u8 = 2;
const BRACE: u8 = 4;

/// The bytes that can begin something in a text.
const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    class[b'\n' as usize] = LINE_END;
    class[b'\\' as usize] = SPECIAL;
    class[b'$' as usize] = SPECIAL;
    class[b'`' as usize] = SPECIAL;
    class[b'{' as usize] = BRACE;
    class[b'}' as usize] = BRACE;
    class
};

/// The environments whose content is ignored.
const VERBATIM: [&str; 6] = [
    "Verbatim",
    "comment",
    "lstlisting",
    "minted",
    "verbatim",
    "verbatim*",
];

/// The environments that messages can name, sorted.
const KNOWN: [&str; 84] = [
    "Bmatrix",
    "Verbatim",
    "Vmatrix",
    "abstract",
    "algorithm",
    "algorithmic",
    "align",
    "align*",
    "alignat",
    "alignat*",
    "aligned",
    "array",
    "axis",
    "block",
    "bmatrix",
    "cases",
    "center",
    "claim",
    "columns",
    "comment",
    "corollary",
    "definition",
    "description",
    "displaymath",
    "document",
    "enumerate",
    "eqnarray",
    "eqnarray*",
    "equation",
    "equation*",
    "example",
    "figure",
    "figure*",
    "flalign",
    "flalign*",
    "flushleft",
    "flushright",
    "frame",
    "gather",
    "gather*",
    "gathered",
    "itemize",
    "landscape",
    "lemma",
    "letter",
    "list",
    "longtable",
    "lstlisting",
    "math",
    "matrix",
    "minipage",
    "minted",
    "multicols",
    "multline",
    "multline*",
    "pmatrix",
    "problem",
    "proof",
    "proposition",
    "quotation",
    "quote",
    "remark",
    "scope",
    "smallmatrix",
    "solution",
    "split",
    "subequations",
    "subfigure",
    "tabbing",
    "table",
    "table*",
    "tabular",
    "tabular*",
    "tabularx",
    "thebibliography",
    "theorem",
    "tikzpicture",
    "titlepage",
    "verbatim",
    "verbatim*",
    "verse",
    "vmatrix",
    "wrapfigure",
    "wraptable",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_can_be_found() {
        assert!(KNOWN.is_sorted());
        for known in KNOWN {
            let mut name = Name::default();
            known.bytes().for_each(|byte| name.add(byte));
            assert_eq!(name.known(), Some(known));
        }
    }
}
