//! Table: rows of cells as blocks of text, for terminals and in Markdown.

use std::fmt;

use unicode_width::UnicodeWidthStr;

use crate::text::printable;

/// Rows of cells. The first row is the heading, and the first cell of each row is its label.
#[derive(Default)]
pub(crate) struct Block {
    pub(crate) rows: Vec<Vec<String>>,
    /// `true` if the last column is text, aligned to the left like its heading.
    pub(crate) ends_in_text: bool,
}

impl Block {
    /// Returns the width of its longest label.
    fn label_width(&self) -> usize {
        let labels = self.rows.iter().filter_map(|row| row.first());
        labels.map(|label| label.width()).max().unwrap_or_default()
    }
}

/// The minimum width of a column of numbers.
pub(crate) const MIN_WIDTH: usize = 7;

/// The maximum width of the first column that blocks share. A block with longer labels, such as paths, has its own
/// width.
const MAX_SHARED_WIDTH: usize = 48;

/// Writes blocks one below the other, separated by empty lines. The first column is aligned to the left and
/// has the same width in all blocks, except those with long labels. Other columns are aligned to the right.
pub(crate) fn write_aligned(f: &mut fmt::Formatter<'_>, blocks: &[Block]) -> fmt::Result {
    let widths = blocks.iter().map(Block::label_width);
    let shared = widths.filter(|width| *width <= MAX_SHARED_WIDTH).max();
    for (index, block) in blocks.iter().enumerate() {
        let Block { rows, ends_in_text } = block;
        let first = block.label_width().max(shared.unwrap_or_default());
        if index > 0 {
            f.write_str("\n\n")?;
        }
        let columns = rows.first().map_or(0, Vec::len);
        let widths: Vec<_> = (0..columns)
            .map(|column| rows.iter().map(|row| row[column].width()).max())
            .map(|width| width.unwrap_or_default().max(MIN_WIDTH))
            .collect();
        for (line, row) in rows.iter().enumerate() {
            if line > 0 {
                f.write_str("\n")?;
            }
            let mut text = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = if column == 0 { first } else { widths[column] };
                let space = " ".repeat(width - cell.width());
                let parts = match column {
                    0 => [cell, &*space, ""],
                    last if *ends_in_text && last + 1 == columns => ["  ", cell, ""],
                    _ => ["  ", &space, cell],
                };
                text.extend(parts);
            }
            f.write_str(text.trim_end())?;
        }
    }
    Ok(())
}

/// Returns the blocks as Markdown tables, separated by empty lines. Numbers are aligned to the right, as in
/// [`write_aligned`].
pub(crate) fn markdown(blocks: &[Block]) -> String {
    let tables = blocks.iter().map(|Block { rows, ends_in_text }| {
        let mut lines = Vec::new();
        for (line, row) in rows.iter().enumerate() {
            let cells: Vec<_> = row.iter().map(|cell| escaped(cell)).collect();
            lines.push(format!("| {} |", cells.join(" | ")));
            if line == 0 {
                let last = row.len() - 1;
                let rules = (0..row.len()).map(|column| match column {
                    0 => "---",
                    column if *ends_in_text && column == last => "---",
                    _ => "---:",
                });
                lines.push(format!("|{}|", rules.collect::<Vec<_>>().join("|")));
            }
        }
        lines.join("\n")
    });
    tables.collect::<Vec<_>>().join("\n\n")
}

/// Escapes a text of unknown origin for a line of Markdown.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in printable(text) {
        let is_link = character == '/' && escaped.ends_with(':');
        match character {
            // Prevents links.
            '/' if is_link => escaped.push_str("\u{200b}/"),
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            // Prevents mentions of users.
            '@' => escaped.push_str("@\u{200b}"),
            '\\' | '`' | '*' | '[' | ']' | '|' | '~' | '#' | '!' => {
                escaped.push('\\');
                escaped.push(character);
            }
            '_' => escaped.push_str("\\_"),
            _ => escaped.push(character),
        }
    }
    escaped
}
