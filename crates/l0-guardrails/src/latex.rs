//! The rule for LaTeX: environments, math delimiters, and the braces of commands.
//!
//! A state machine over bytes. Nothing of the text is kept but the start of the name that is being
//! read; an environment is remembered by the hash of its name.

use l0_core::{Check, Ended, Findings, Severity, Violation};

use crate::fence::{self, Fence, FenceLine};
use crate::hash::Fnv;

/// How many open environments are told apart; of further ones only the number is known.
const MAX_OPEN: usize = 64;

/// From this many open environments on, a warning is due.
const MANY_OPEN: u64 = 6;

/// Checks the LaTeX in an answer, which may be a document of its own or formulas in Markdown.
///
/// All violations are recoverable, and each distinct one is reported once:
///
/// | violation | when | severity | what |
/// |---|---|---|---|
/// | `latex-environments` | at once | error | an `\end{..}` that does not fit the open `\begin{..}` |
/// | | at once | warning | more than five environments are open |
/// | | end | error | an environment is not closed: one violation for each |
/// | `latex-math` | end | error | `\[` and `\]`, or `\(` and `\)`, are not balanced; an odd number of `$$` |
/// | | end | warning | an odd number of `$` |
/// | `latex-common` | end | warning | a brace opened after a command (`\textbf{..`) is not closed |
///
/// - An `\end` that does not fit closes the open environment of its name and those inside it; if
///   there is none, it is taken for the misspelt end of the innermost one.
/// - In `verbatim`, `Verbatim`, `lstlisting`, `minted` and `comment` nothing is read but their end,
///   and nothing is read in `\verb|..|`.
/// - Code in Markdown is no LaTeX, so that `sed 's/\(a/'` is no violation: text in single backticks
///   on one line is not read, nor are code fences, except those marked as `latex`, `tex`, `math` or
///   `katex`. What stands behind a single backtick is therefore judged only when its line has
///   ended, or with the fifth `\begin` or `\end` behind it.
/// - `\$` does not count, nor do three and more `$` in a row. A `$` before a digit is ambiguous: a
///   price, or the beginning of a formula. It counts as a formula if a `$` follows in the same
///   paragraph that can close it, as there is no blank before it and no digit behind it; else as a
///   price, and says nothing. So `$5 and $10` is in order, `$2x$` is a formula, and `$2x` that is
///   cut off goes unnoticed. In the paragraph of an unclosed `$`, a `$$` that does not begin its
///   line is read as two single ones.
/// - Messages name an environment only if it is one of the usual ones, from a fixed list, so that
///   nothing of the answer gets into them.
///
/// A text without LaTeX says nothing, unless there is an odd `$` in its prose (`the $ sign`).
///
/// It takes time in proportion to the text, and bounded memory: less than one kilobyte, and 32
/// bytes for each open environment, up to 64 of them; an end beyond those is taken for that of the
/// last one, whatever its name. No text is kept but up to 16 bytes of the name that is being read.
///
/// Known limits: comments (`% ..`) are read as text. A bracket that Markdown escapes (`\[1]`) is a
/// delimiter, and `$$` for a class of prices an unclosed formula. Escapes like `\n{` in JSON or in
/// code that is not marked as such look like commands. The environments that macros begin and end
/// are not seen. Only what directly follows a command, its star, its option or its other argument
/// is taken for the command's brace.
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
    /// The bytes before the current piece.
    before: u64,
    /// The last byte of the piece before, or 0.
    last: u8,
    state: State,
    /// There is something in the line that is not blank.
    text_in_line: bool,
    /// Where the command, or the run of `$`, began that is being read.
    token_at: u64,
    name: Name,
    block: Option<Block>,
    code: Option<Code>,
    environments: Environments,
    math: Math,
    braces: Braces,
}

/// What is being read.
#[derive(Debug, Clone, Copy, Default)]
enum State {
    /// Only blanks and markers of lists and quotes so far in this line.
    #[default]
    LineStart,
    /// A line that may open or close a code fence.
    Fence(FenceLine),
    /// The rest of a line in code.
    Skip,
    Text,
    Backslash,
    Command,
    /// Behind `\begin` or `\end`.
    Environment {
        end: bool,
    },
    /// In the braces behind it.
    EnvironmentName {
        end: bool,
        brace_at: u64,
    },
    /// Behind a command or one of its arguments.
    Arguments,
    Option,
    /// Behind `\verb`.
    Verb,
    /// In its text, up to this byte.
    VerbText(u8),
    Dollars {
        count: u32,
        after_blank: bool,
        begins_line: bool,
    },
    Backticks(u32),
}

impl Latex {
    /// Creates the rule, for one attempt.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The classes of bytes that matter from here on, if most do not.
    #[inline]
    fn indifferent_until(&self) -> Option<u8> {
        match self.state {
            State::Text if self.braces.depth > 0 => Some(SPECIAL | LINE_END | BRACE),
            State::Text => Some(SPECIAL | LINE_END),
            State::Skip => Some(LINE_END),
            _ => None,
        }
    }

    /// Reads a byte; false if the state has changed, and the byte is to be read in the new one.
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
                // Each backslash may be that of the end.
                b'\\' if self.environments.verbatim.is_some() => {
                    self.token_at = at;
                    State::Backslash
                }
                _ if self.environments.verbatim.is_some() => leave(State::Text),
                // Inline code knows no escapes.
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

    /// What follows if the line goes on with this byte, before its text has begun.
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

    /// Whether the text is code that is no LaTeX.
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

    /// The run of `$` or backticks has ended; what follows it, unless the line or the text ends.
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
                // It was code: as if it had not been read.
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

    /// The backtick was none of inline code: what stands behind it counts.
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

    /// An environment begins or ends, its name having been read.
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

/// The name that is being read: of a command, of an environment, of a code fence's language.
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

    /// Adds a byte, unless it stands behind the first word.
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

    /// The name, or nothing if it is longer than any that matters.
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

/// The code behind an open fence.
#[derive(Debug)]
struct Block {
    fence: Fence,
    /// It holds LaTeX.
    latex: bool,
}

/// What was so before a backtick, and what came since: it counts only if it is no code.
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
    /// How many more are open.
    beyond: u64,
    /// The hash of the innermost environment's name, if nothing is read in it.
    verbatim: Option<u64>,
    /// The warning was given.
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
            // The level tells apart those of one name.
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
            format!(r"Expected \end{{{expected}}}, found that of another environment")
        }
        (None, Some(found)) => {
            format!(r"Expected the end of another environment, found \end{{{found}}}")
        }
        (None, None) => r"An \end that does not fit its \begin".to_owned(),
    }
}

/// The delimiters of formulas.
#[derive(Debug, Clone, Copy, Default)]
struct Math {
    /// `\[` and `\]`.
    display: Pair,
    /// `\(` and `\)`.
    inline: Pair,
    /// Where the `$$` is that waits for its second.
    dollars: Option<u64>,
    dollar: Dollar,
    /// Where the last `$` is that was left over, if an odd number of them was.
    odd: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    unclosed: u64,
    /// Where the outermost of them is.
    at: u64,
    unopened: u64,
    /// Where the first of them is.
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

/// Whether a `$` waits for its second.
#[derive(Debug, Clone, Copy, Default)]
enum Dollar {
    #[default]
    Closed,
    /// It stands before a digit, and may be a price.
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
            // What cannot close a formula begins the next one: the first was a price.
            Dollar::Ambiguous if after_blank || digit => Dollar::opened(at, digit),
            Dollar::Ambiguous => Dollar::Closed,
        };
    }

    fn two_dollars(&mut self, at: u64, after_blank: bool, begins_line: bool, digit: bool) {
        // Between two formulas, as in `$a$$b$`, they close the one and open the other.
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

    /// No formula goes on behind a blank line.
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
    /// Where the outermost is.
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

/// Which bytes may begin something in a text.
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

/// The environments in which nothing is read.
const VERBATIM: [&str; 6] = [
    "Verbatim",
    "comment",
    "lstlisting",
    "minted",
    "verbatim",
    "verbatim*",
];

/// The environments that messages may name, sorted.
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
