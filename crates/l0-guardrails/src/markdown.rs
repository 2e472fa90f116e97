//! The rule for Markdown: fences, tables, lists, and whether the answer looks complete.
//!
//! A state machine over bytes. It keeps no text, only features of the current line (its beginning, its
//! pipes, its last character) and the blocks that are still open.

use l0_core::{Check, Ended, Findings, Severity, Violation};

use crate::fence::{Fence, FenceLine};
use crate::sentence::ends_sentence;

/// A rule that checks the structure of an answer in Markdown.
///
/// All violations are reported at the end of the answer, at most once each, and are recoverable:
///
/// | violation | severity | problem |
/// |---|---|---|
/// | `markdown-fences` | error | a code fence (three or more `` ` `` or `~`) is not closed |
/// | `markdown-tables` | warning | rows, including the header, have a different number of columns than their table's separator row |
/// | `markdown-lists` | warning | ordered and unordered items at the same indent of a list |
/// | `markdown-complete` | error | the answer ends inside a code fence |
/// | `markdown-complete` | warning | the last line that is not blank looks cut off |
///
/// - Fences follow [the specification](https://spec.commonmark.org), in list items and quotes too. They
///   are indented by up to three spaces beyond the item's text. A closing fence uses the same
///   character, is at least as long, and has nothing after it. Unlike in the specification, the end of
///   a list item or of a quote does not close a fence, so a forgotten one is reported.
/// - A table is a line followed by a separator row (`|---|:-:|`). Its rows are the following lines with
///   pipes. Escaped pipes and pipes in inline code do not separate columns. Lists, headings, rules and
///   tables inside fences are ignored.
/// - A list ends at a heading, rule or fence outside its items, and at a blank line followed by other
///   text outside its items.
/// - A last line looks complete if it ends with one of ``. ! ? ; : ] } ) " ' ` ``, an equivalent mark
///   of another script (`。`, `？`, `…`, `”`, `」`, `।`, ...), the `$` of a formula, or an emoji. Closing
///   emphasis marks `*`, `_` and `~` are skipped. Headings, list items, table rows and other lines that
///   begin with a pipe, fences and rules are always complete.
///
/// The rule takes time proportional to the text, and fixed memory below one kilobyte. It keeps no text.
///
/// Known limits: nested lists are tracked sixteen levels deep, and deeper items are ignored. In a table
/// row with unclosed inline code, all pipes after its opening count. A line without any pipe ends a
/// table. HTML and link definitions are read as text. Indented code is read as text too, except that no
/// fence, heading or table begins in it.
///
/// ```
/// use l0_core::L0;
/// use l0_guardrails::Markdown;
///
/// let l0 = L0::builder().guardrails(Markdown::new).build();
/// # drop(l0);
/// ```
#[derive(Debug, Default)]
pub struct Markdown {
    /// The number of bytes before the current piece.
    before: u64,
    line: Line,
    /// The classes of bytes that matter in the next piece, or 0 if all bytes do.
    ends: u8,
    /// `true` if the last byte was a carriage return that ended its line. A following line feed belongs
    /// to it.
    after_return: bool,
    block: Option<Block>,
    list: List,
    previous: Previous,
    table: Option<Table>,
    /// The state of the last non-blank line, checked at the end.
    last: Last,
    problems: Option<Box<Problems>>,
}

impl Markdown {
    /// Creates the rule for one attempt.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a piece.
    fn read(&mut self, delta: &str) {
        let bytes = delta.as_bytes();
        let mut at = 0;
        if self.after_return && bytes.first() == Some(&b'\n') {
            at = 1;
            self.line.start += 1;
        }
        if !bytes.is_empty() {
            self.after_return = false;
        }
        // The start of the current line in this piece.
        let mut part = at;
        while let Some(&byte) = bytes.get(at) {
            if let Some(ends) = self.line.indifferent_until() {
                let rest = &bytes[at..];
                let plain = rest
                    .iter()
                    .position(|byte| CLASS[usize::from(*byte)] & ends != 0);
                let plain = plain.unwrap_or(rest.len());
                if plain > 0 {
                    self.line.cells.pass(&rest[..plain]);
                    at += plain;
                    continue;
                }
            }
            if CLASS[usize::from(byte)] & LINE_END == 0 {
                self.step(byte);
                at += 1;
                continue;
            }
            self.line.tail.add(&delta[part..at]);
            self.end_line();
            at += 1;
            if byte == b'\r' {
                match bytes.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.after_return = true,
                }
            }
            part = at;
            self.line = Line {
                start: self.before + at as u64,
                ..Line::default()
            };
        }
        self.line.tail.add(&delta[part..]);
        self.before += bytes.len() as u64;
        self.ends = self.line.indifferent_until().unwrap_or_default();
    }

    /// Reads a byte of the current line.
    #[inline]
    fn step(&mut self, byte: u8) {
        match &self.block {
            Some(block) => self.line.step_in_block(byte, block),
            None => self.step_outside_blocks(byte),
        }
    }

    fn step_outside_blocks(&mut self, byte: u8) {
        let line = &mut self.line;
        match line.phase {
            Phase::Indent | Phase::Quote => {
                if line.indent(byte) {
                    return;
                }
                self.content(byte);
            }
            Phase::Bullet => {
                line.look(byte);
                if is_blank(byte) {
                    self.begin_item(false, 1, byte);
                } else {
                    line.phase = Phase::Body;
                }
            }
            Phase::Digits { count, one } => {
                line.look(byte);
                line.phase = match byte {
                    // More digits are not a valid item number.
                    b'0'..=b'9' if count < 9 => Phase::Digits {
                        count: count + 1,
                        one: false,
                    },
                    b'.' | b')' => Phase::Ordered { count, one },
                    _ => Phase::Body,
                };
            }
            Phase::Ordered { count, one } => {
                line.look(byte);
                if is_blank(byte) && self.may_begin_ordered(one) {
                    self.begin_item(true, u32::from(count) + 1, byte);
                } else {
                    self.line.phase = Phase::Body;
                }
            }
            Phase::Hashes(count) => {
                line.look(byte);
                line.phase = match byte {
                    b'#' if count < 6 => Phase::Hashes(count + 1),
                    _ => Phase::Body,
                };
                line.heading = is_blank(byte);
            }
            Phase::Fence(fence) => {
                line.look(byte);
                line.phase = fence.next(byte, None).map_or(Phase::Body, Phase::Fence);
            }
            Phase::Body => line.look(byte),
            Phase::Skip => {}
        }
    }

    /// Reads the first byte after the indent of the line, or of an item's or quote's content.
    fn content(&mut self, byte: u8) {
        let line = &mut self.line;
        if line.item {
            line.open_item();
        } else if !line.foreign {
            if line.depth == self.list.depth {
                line.base = self.list.base(line.column);
            } else if byte != b'>' {
                // The list was in a quote that has ended.
                self.list.clear();
            }
        }
        let indented = line.column - line.base >= 4;
        line.indented = indented;
        line.text = true;

        // `- - -` is a rule, not three items. The items wait while the line can still be a rule.
        if !(line.rule.alive() && line.rule.mark == byte) {
            self.commit_items();
            self.line.rule = Rule::begin(byte);
        } else {
            line.rule.count = line.rule.count.saturating_add(1);
        }

        let line = &mut self.line;
        // Items with too much indent count as intended, if there is a list.
        let item = !indented || line.item || !self.list.is_empty();
        line.phase = match byte {
            b'>' if !indented => return self.enter_quote(),
            b'`' | b'~' if !indented => FenceLine::begin(byte).map_or(Phase::Body, Phase::Fence),
            b'#' if !indented => Phase::Hashes(1),
            b'-' | b'*' | b'+' if item => Phase::Bullet,
            b'0'..=b'9' if item => Phase::Digits {
                count: 1,
                one: byte == b'1',
            },
            _ => Phase::Body,
        };
        line.cells.step(byte);
    }

    fn enter_quote(&mut self) {
        let line = &mut self.line;
        if line.item {
            line.foreign = true;
        } else if !line.foreign && !self.list.is_empty() && self.list.depth == line.depth {
            if line.base > 0 {
                // A quote inside an item: the list continues after it.
                self.list.leave(line.column);
                line.foreign = true;
            } else {
                self.list.clear();
            }
        }
        line.depth = line.depth.saturating_add(1);
        line.column = 0;
        line.base = 0;
        line.item = false;
        line.text = false;
        line.rule = Rule::default();
        line.cells = Cells::default();
        line.phase = Phase::Quote;
    }

    /// Returns `true` if a number can begin an item here. In the middle of a paragraph only 1 can.
    /// Otherwise every line that happens to begin with a number would be an item.
    fn may_begin_ordered(&self, one: bool) -> bool {
        one || !self.list.is_empty() || self.line.any_item || !self.in_paragraph()
    }

    fn in_paragraph(&self) -> bool {
        matches!(self.previous, Previous::Paragraph { depth, .. } if depth == self.line.depth)
    }

    /// Begins an item with a marker of this width, followed by a blank.
    fn begin_item(&mut self, ordered: bool, width: u32, blank: u8) {
        let line = &mut self.line;
        let indent = line.column;
        line.column = line.column.saturating_add(width);
        line.marker_end = line.column;
        if let Some(slot) = line.items.get_mut(usize::from(line.pending)) {
            *slot = Item {
                ordered,
                indent: narrow(indent),
                content: narrow(line.column.saturating_add(1)),
            };
            line.pending += 1;
        }
        line.item = true;
        line.any_item = true;
        line.text = false;
        line.cells = Cells::default();
        line.phase = Phase::Indent;
        line.indent(blank);
    }

    /// Adds the line's items so far to the list, because the line is not a rule.
    fn commit_items(&mut self) {
        let line = &mut self.line;
        if !line.foreign {
            for item in &line.items[..usize::from(line.pending)] {
                if self.list.add(*item, line.depth) {
                    let mixed = &mut self.problems.get_or_insert_default().mixed_lists;
                    mixed.count += 1;
                    mixed.first.get_or_insert(line.start);
                }
            }
        }
        line.pending = 0;
    }

    fn end_line(&mut self) {
        if let Some(block) = &self.block {
            if self.line.closes(block) {
                self.block = None;
                self.last = Last::Complete;
                self.previous = Previous::Other;
            }
            return;
        }

        // A marker with nothing after it.
        match self.line.phase {
            Phase::Bullet if !self.is_underline() => self.begin_item(false, 1, b' '),
            Phase::Ordered { count, one } if self.may_begin_ordered(one) => {
                self.begin_item(true, u32::from(count) + 1, b' ');
            }
            Phase::Hashes(_) => self.line.heading = true,
            _ => {}
        }
        if !self.line.text && !self.line.any_item {
            self.previous = Previous::Blank;
            self.table = None;
            return;
        }

        let rule = self.line.rule.is_break() || self.is_underline();
        if !rule {
            self.commit_items();
        } else if self.line.pending > 0 {
            // The apparent items were a rule with spaces.
            self.line.pending = 0;
            self.line.any_item = false;
            self.line.column = self.line.items[0].indent.into();
        }
        let code = match self.line.phase {
            Phase::Fence(fence) => fence.end(None).map(|fence| Block {
                fence,
                base: self.line.base,
                depth: self.line.depth,
                at: self.line.start,
            }),
            _ => None,
        };
        let no_text = rule || self.line.heading || code.is_some();
        let interrupts = no_text || matches!(self.previous, Previous::Blank);
        let line = &self.line;
        if interrupts && !line.any_item && !line.foreign {
            self.list.leave(line.column);
        }

        let row = self.line.cells.finish();
        let in_table = !no_text && !self.line.any_item && self.row(row);
        let line = &self.line;
        self.previous = if no_text || in_table {
            Previous::Other
        } else if line.text {
            let columns = (!line.indented).then_some(row.columns);
            Previous::Paragraph {
                columns,
                depth: line.depth,
                at: line.start,
            }
        } else {
            Previous::Other
        };
        if !in_table {
            self.table = None;
        }
        if no_text || in_table || line.any_item || row.leading {
            self.last = Last::Complete;
        } else if let Some(end) = line.tail.end {
            self.last = Last::Text(end);
        }
        self.block = code;
    }

    /// Returns `true` if the line makes the paragraph above it a heading.
    fn is_underline(&self) -> bool {
        let mark = self.line.rule.mark;
        self.line.rule.alive()
            && self.in_paragraph()
            && !self.line.any_item
            && (mark == b'=' || (mark == b'-' && self.list.is_empty()))
    }

    /// Compares the columns of a row with the expected number for its table.
    fn check_row(&mut self, columns: u32, expected: u32, at: u64) {
        if columns != expected {
            let bad = &mut self.problems.get_or_insert_default().bad_rows;
            bad.count += 1;
            bad.first.get_or_insert((at, columns, expected));
        }
    }

    /// Returns `true` if the line, which is text, is a row of a table.
    fn row(&mut self, row: Row) -> bool {
        let line = &self.line;
        match self.table {
            Some(table) if table.depth == line.depth && row.pipes > 0 => {
                let at = line.start;
                self.check_row(row.columns, table.columns, at);
                return true;
            }
            _ => {}
        }
        match self.previous {
            Previous::Paragraph {
                columns: Some(columns),
                depth,
                at,
            } if row.separator && depth == line.depth && !line.indented => {
                self.table = Some(Table {
                    columns: row.columns,
                    depth,
                });
                self.check_row(columns, row.columns, at);
                true
            }
            _ => false,
        }
    }
}

impl Check for Markdown {
    fn name(&self) -> &'static str {
        "markdown-structure"
    }

    #[inline]
    fn text(&mut self, delta: &str, _: &mut Findings) {
        let ends = self.ends;
        let is_plain = |byte: u8| CLASS[usize::from(byte)] & ends == 0;
        // Most pieces lie within a line.
        if ends != 0 && delta.bytes().all(is_plain) {
            self.line.cells.pass(delta.as_bytes());
            self.line.tail.add(delta);
            self.before += delta.len() as u64;
        } else {
            self.read(delta);
        }
    }

    fn end(&mut self, _: &Ended, findings: &mut Findings) {
        self.end_line();
        self.line = Line {
            start: self.before,
            ..Line::default()
        };

        if let Some(block) = &self.block {
            let unclosed = Violation::new(
                "markdown-fences",
                Severity::Error,
                "A code fence is not closed",
            );
            findings.report(unclosed.position(block.at));
        }
        let problems = self.problems.as_deref();
        let bad_rows = problems.map(|problems| &problems.bad_rows);
        if let Some(BadRows {
            count,
            first: Some((at, columns, expected)),
        }) = bad_rows
        {
            let message = format!(
                "Table rows with a different number of columns than their separator row: {count}, \
                 the first with {columns} instead of {expected}"
            );
            let rows = Violation::new("markdown-tables", Severity::Warning, message);
            findings.report(rows.position(*at));
        }
        let mixed_lists = problems.map(|problems| &problems.mixed_lists);
        if let Some(MixedLists {
            count,
            first: Some(at),
        }) = mixed_lists
        {
            let message =
                format!("Lists with ordered and unordered items at the same indent: {count}",);
            let lists = Violation::new("markdown-lists", Severity::Warning, message);
            findings.report(lists.position(*at));
        }
        if self.block.is_some() {
            findings.report(Violation::new(
                "markdown-complete",
                Severity::Error,
                "The answer ends inside a code fence",
            ));
        } else if self.last.is_cut() {
            findings.report(Violation::new(
                "markdown-complete",
                Severity::Warning,
                "The last line looks cut off",
            ));
        }
    }
}

/// The line being read.
#[derive(Debug, Default)]
struct Line {
    /// The start of the line in the answer.
    start: u64,
    phase: Phase,
    /// The number of quote markers so far.
    depth: u32,
    /// The column of the next byte while indent is read, then of the content. In a quote, columns count
    /// from its marker.
    column: u32,
    /// The column of the text of the item that the line belongs to.
    base: u32,
    /// `true` if the content is indented like code.
    indented: bool,
    /// `true` if a non-blank character follows all markers.
    text: bool,
    heading: bool,
    /// `true` if the last marker belongs to an item.
    item: bool,
    any_item: bool,
    /// `true` if the line is in a quote inside an item, whose lists are ignored.
    foreign: bool,
    marker_end: u32,
    pending: u8,
    items: [Item; 4],
    rule: Rule,
    cells: Cells,
    tail: Tail,
}

/// The meaning of the next byte of a line. Its tag is a separate byte, because every byte reads it.
#[derive(Debug, Clone, Copy, Default)]
#[repr(u8)]
enum Phase {
    #[default]
    Indent,
    /// After a quote marker, to which one space belongs.
    Quote,
    Bullet,
    Digits {
        count: u8,
        one: bool,
    },
    /// After the number of an item and its `.` or `)`.
    Ordered {
        count: u8,
        one: bool,
    },
    Hashes(u8),
    /// A fence may open, or the open one may close.
    Fence(FenceLine),
    Body,
    /// Inside a fence, where nothing matters until the line ends.
    Skip,
}

impl Line {
    /// Reads a byte of indent. Returns `false` if it is not indent.
    fn indent(&mut self, byte: u8) -> bool {
        match byte {
            b' ' if matches!(self.phase, Phase::Quote) => self.phase = Phase::Indent,
            b' ' => self.column = self.column.saturating_add(1),
            b'\t' => {
                self.phase = Phase::Indent;
                self.column = (self.column / 4).saturating_add(1).saturating_mul(4);
            }
            _ => return false,
        }
        true
    }

    /// Reads a byte of content.
    #[inline]
    fn look(&mut self, byte: u8) {
        self.rule.step(byte);
        self.cells.step(byte);
    }

    /// Opens the last item at the start of its text.
    fn open_item(&mut self) {
        // More than four spaces are indented code.
        let content = if self.column - self.marker_end > 4 {
            self.marker_end.saturating_add(1)
        } else {
            self.column
        };
        self.base = content;
        if let Some(item) = self.items[..usize::from(self.pending)].last_mut() {
            item.content = narrow(content);
        }
    }

    /// Returns the classes of bytes that matter from here on, if most bytes do not.
    #[inline]
    fn indifferent_until(&self) -> Option<u8> {
        match self.phase {
            Phase::Body if self.cells.quiet() && !self.rule.alive() => Some(LINE_END | CELL),
            Phase::Skip => Some(LINE_END),
            _ => None,
        }
    }

    fn step_in_block(&mut self, byte: u8, block: &Block) {
        self.phase = match self.phase {
            Phase::Indent | Phase::Quote => {
                if self.indent(byte) {
                    return;
                }
                if byte == b'>' && self.depth < block.depth {
                    self.depth += 1;
                    self.column = 0;
                    Phase::Quote
                } else if self.column <= block.base.saturating_add(3) {
                    FenceLine::begin(byte).map_or(Phase::Skip, Phase::Fence)
                } else {
                    Phase::Skip
                }
            }
            Phase::Fence(fence) => fence
                .next(byte, Some(block.fence))
                .map_or(Phase::Skip, Phase::Fence),
            _ => Phase::Skip,
        };
    }

    fn closes(&self, block: &Block) -> bool {
        matches!(self.phase, Phase::Fence(fence) if fence.end(Some(block.fence)).is_none())
    }
}

/// The code after an opening fence.
#[derive(Debug)]
struct Block {
    fence: Fence,
    /// The column from which the indent of the closing fence counts.
    base: u32,
    /// The number of quote markers of its lines.
    depth: u32,
    at: u64,
}

/// The kind of the previous line.
#[derive(Debug, Clone, Copy, Default)]
enum Previous {
    #[default]
    Blank,
    /// Text, which can be the header of a table if its columns are known.
    Paragraph {
        columns: Option<u32>,
        depth: u32,
        at: u64,
    },
    Other,
}

#[derive(Debug, Clone, Copy)]
struct Table {
    columns: u32,
    depth: u32,
}

/// The problems to report at the end.
#[derive(Debug, Default)]
struct Problems {
    bad_rows: BadRows,
    mixed_lists: MixedLists,
}

#[derive(Debug, Default)]
struct BadRows {
    count: u64,
    /// The position of the first row, its number of columns, and the expected number.
    first: Option<(u64, u32, u32)>,
}

#[derive(Debug, Default)]
struct MixedLists {
    count: u64,
    first: Option<u64>,
}

/// How the last non-blank line ends.
#[derive(Debug, Default)]
enum Last {
    #[default]
    Complete,
    Text(char),
}

impl Last {
    fn is_cut(&self) -> bool {
        matches!(self, Self::Text(end) if !is_end(*end))
    }
}

/// A list item, by its marker. Columns saturate at the maximum of their type.
#[derive(Debug, Clone, Copy, Default)]
struct Item {
    ordered: bool,
    indent: u16,
    /// The column of its text.
    content: u16,
}

fn narrow(column: u32) -> u16 {
    u16::try_from(column).unwrap_or(u16::MAX)
}

/// The open list, from the outermost level to the innermost.
#[derive(Debug, Default)]
struct List {
    levels: Vec<Level>,
    /// The number of quote markers of its lines.
    depth: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Level {
    last: Item,
    /// `true` if the level was found to be mixed.
    mixed: bool,
}

impl List {
    /// The maximum number of levels tracked.
    const MAX: usize = 16;

    fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    fn clear(&mut self) {
        self.levels.clear();
        self.depth = 0;
    }

    /// Ends the levels that do not contain this column.
    fn leave(&mut self, column: u32) {
        self.end_levels(|item| u32::from(item.content) > column);
        if self.is_empty() {
            self.clear();
        }
    }

    /// Ends the innermost levels while `ends` returns `true` for their last item.
    fn end_levels(&mut self, ends: impl Fn(&Item) -> bool) {
        while self.levels.last().is_some_and(|level| ends(&level.last)) {
            self.levels.pop();
        }
    }

    /// Returns the column of the text of the item that contains this column.
    fn base(&self, column: u32) -> u32 {
        let contents = self.levels.iter().rev();
        let mut contents = contents.map(|level| u32::from(level.last.content));
        contents.find(|content| *content <= column).unwrap_or(0)
    }

    /// Adds an item. Returns `true` if its level becomes mixed.
    fn add(&mut self, item: Item, depth: u32) -> bool {
        if self.is_empty() {
            self.depth = depth;
        }
        self.end_levels(|last| last.indent > item.indent);
        match self.levels.last_mut() {
            Some(level) if level.last.indent == item.indent => {
                let newly_mixed = !level.mixed && level.last.ordered != item.ordered;
                level.mixed |= newly_mixed;
                level.last = item;
                return newly_mixed;
            }
            _ => {}
        }
        if self.levels.len() < Self::MAX {
            self.levels.push(Level {
                last: item,
                mixed: false,
            });
        }
        false
    }
}

/// A run of one mark, possibly with spaces, that can become a rule or an underline.
#[derive(Debug, Default)]
struct Rule {
    /// 0 if the line is neither.
    mark: u8,
    count: u32,
}

impl Rule {
    fn begin(byte: u8) -> Self {
        match byte {
            b'-' | b'*' | b'_' | b'=' => Self {
                mark: byte,
                count: 1,
            },
            _ => Self::default(),
        }
    }

    fn alive(&self) -> bool {
        self.mark != 0
    }

    #[inline]
    fn step(&mut self, byte: u8) {
        if byte == self.mark {
            self.count = self.count.saturating_add(1);
        } else if !is_blank(byte) {
            self.mark = 0;
        }
    }

    fn is_break(&self) -> bool {
        matches!(self.mark, b'-' | b'*' | b'_') && self.count >= 3
    }
}

/// The columns of a line, in case it is a row of a table.
#[derive(Debug, Default)]
struct Cells {
    pipes: u32,
    /// The pipes in open inline code. They count if the code is never closed.
    code_pipes: u32,
    /// The length of the backtick run that opened inline code, or 0.
    code: u32,
    /// The length of the backtick run being read.
    run: u32,
    escaped: bool,
    leading: bool,
    /// `true` if the last non-blank byte is a pipe.
    trailing: bool,
    separator: Separator,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    pipes: u32,
    columns: u32,
    leading: bool,
    separator: bool,
}

impl Cells {
    /// Returns `true` if bytes other than pipes, backticks and backslashes change only `trailing`.
    #[inline]
    fn quiet(&self) -> bool {
        self.run == 0 && !self.escaped && matches!(self.separator, Separator::None)
    }

    /// Reads bytes other than pipes, backticks and backslashes.
    #[inline]
    fn pass(&mut self, bytes: &[u8]) {
        if self.trailing {
            self.trailing = bytes.iter().all(|byte| is_blank(*byte));
        }
    }

    fn step(&mut self, byte: u8) {
        if matches!(self.separator, Separator::Begin) {
            self.leading = byte == b'|';
        }
        self.separator = self.separator.after(byte);
        if byte == b'`' && (self.code > 0 || !self.escaped) {
            self.run = self.run.saturating_add(1);
            self.escaped = false;
            self.trailing = false;
            return;
        }
        self.end_run();
        if byte == b'|' && !self.escaped {
            let pipes = if self.code > 0 {
                &mut self.code_pipes
            } else {
                &mut self.pipes
            };
            *pipes = pipes.saturating_add(1);
            self.trailing = true;
        } else if !is_blank(byte) {
            self.trailing = false;
        }
        self.escaped = byte == b'\\' && !self.escaped;
    }

    fn end_run(&mut self) {
        if self.run == 0 {
            return;
        }
        if self.code == 0 {
            self.code = self.run;
            self.code_pipes = 0;
        } else if self.code == self.run {
            self.code = 0;
        }
        self.run = 0;
    }

    fn finish(&mut self) -> Row {
        self.end_run();
        let code_pipes = if self.code > 0 { self.code_pipes } else { 0 };
        let pipes = self.pipes.saturating_add(code_pipes);
        let leading = u32::from(self.leading);
        let trailing = u32::from(self.trailing && pipes > leading);
        Row {
            pipes,
            columns: pipes.saturating_add(1) - leading - trailing,
            leading: self.leading,
            separator: pipes > 0 && self.separator.is_complete(),
        }
    }
}

/// The progress of a line as a separator row.
#[derive(Debug, Clone, Copy, Default)]
enum Separator {
    #[default]
    Begin,
    /// After a pipe, with a flag for a cell before it.
    Cell {
        any: bool,
    },
    Colon,
    Dashes,
    /// After the dashes and their colon.
    Done,
    /// Not a separator row.
    None,
}

impl Separator {
    #[inline]
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::None, _) => Self::None,
            (Self::Begin, b'|') => Self::Cell { any: false },
            (Self::Begin | Self::Cell { .. }, b':') => Self::Colon,
            (Self::Begin | Self::Cell { .. } | Self::Colon | Self::Dashes, b'-') => Self::Dashes,
            (Self::Cell { .. }, b' ' | b'\t') => self,
            (Self::Dashes, b':') | (Self::Dashes | Self::Done, b' ' | b'\t') => Self::Done,
            (Self::Dashes | Self::Done, b'|') => Self::Cell { any: true },
            _ => Self::None,
        }
    }

    fn is_complete(self) -> bool {
        matches!(self, Self::Cell { any: true } | Self::Dashes | Self::Done)
    }
}

/// The end of a line: its last character that is neither blank nor closes an emphasis.
#[derive(Debug)]
struct Tail {
    end: Option<char>,
    after_blank: bool,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            end: None,
            after_blank: true,
        }
    }
}

impl Tail {
    /// Reads a further part of the line.
    #[inline]
    fn add(&mut self, part: &str) {
        let plain = |byte: &u8| CLASS[usize::from(*byte)] & PLAIN != 0;
        // Usually a plain character, or one and a space.
        match part.as_bytes() {
            [] => {}
            [.., end] if plain(end) => {
                self.end = Some(char::from(*end));
                self.after_blank = false;
            }
            [.., end, b' '] if plain(end) => {
                self.end = Some(char::from(*end));
                self.after_blank = true;
            }
            _ => self.add_slowly(part),
        }
    }

    fn add_slowly(&mut self, part: &str) {
        let emphasis = |c: char| matches!(c, '*' | '_' | '~');
        let text = part.trim_end();
        if let Some(mark) = text.chars().next_back() {
            let before = text.trim_end_matches(emphasis).chars().next_back();
            let after_blank = before.map_or(self.after_blank, char::is_whitespace);
            if !emphasis(mark) || after_blank {
                // After a blank, it opens an emphasis.
                self.end = Some(mark);
            } else if before.is_some() {
                self.end = before;
            }
            self.after_blank = false;
        }
        if text.len() < part.len() {
            self.after_blank = true;
        }
    }
}

/// Returns `true` if a last line with this end looks complete.
fn is_end(c: char) -> bool {
    match c {
        _ if ends_sentence(c) => true,
        ';' | ':' | ']' | '}' | ')' | '"' | '\'' | '`' | '$' => true,
        // Closing and low quotes, guillemets.
        '’' | '‘' | '”' | '“' | '›' | '»' | '«' => true,
        // Chinese, Japanese, Korean: brackets, quotes, in full and half width.
        '；' | '：' | '）' | '］' | '｝' | '」' | '｣' | '』' | '】' | '》' | '〉' | '〕' | '〗'
        | '〙' | '〞' | '〟' => true,
        // Arabic.
        '؛' => true,
        // Emoji and other pictographs, and their color selectors.
        '\u{2600}'..='\u{27bf}' | '\u{2b00}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}' => true,
        '\u{fe0f}' | '\u{20e3}' => true,
        _ => false,
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

const LINE_END: u8 = 1;
const CELL: u8 = 2;
const PLAIN: u8 = 4;

/// The bytes that end a line, that can change the columns of a row, and the ASCII characters that are
/// neither blank nor close an emphasis.
const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        class[byte] = match byte as u8 {
            b'\n' | b'\r' => LINE_END,
            b'|' | b'`' | b'\\' => CELL | PLAIN,
            b'*' | b'_' | b'~' => 0,
            graphic if graphic.is_ascii_graphic() => PLAIN,
            _ => 0,
        };
        byte += 1;
    }
    class
};
