//! Text for a terminal: without control characters of data, and in columns.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The columns of spaces between two cells of a table.
const GAP: usize = 2;

/// Returns the text with every character escaped that would move the cursor, change colours, or show the text in another order.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => plain.push_str("\\n"),
            '\r' => plain.push_str("\\r"),
            '\t' => plain.push_str("\\t"),
            c if is_control(c) => plain.extend(c.escape_unicode()),
            c => plain.push(c),
        }
    }
    Cow::Owned(plain)
}

fn is_control(c: char) -> bool {
    // Line and paragraph separators, and marks and overrides of the direction of writing.
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns the columns that a text without control characters takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Returns the text with at most so many columns; what does not fit is replaced by `…`.
pub fn shortened(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let (mut short, mut used) = (String::new(), 1);
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > columns {
            break;
        }
        short.push(c);
    }
    if columns > 0 {
        short.push('…');
    }
    short
}

/// Returns the text with spaces after it, up to so many columns.
pub fn padded(text: &str, columns: usize) -> String {
    let spaces = " ".repeat(columns.saturating_sub(width(text)));
    format!("{text}{spaces}")
}

/// Returns the number and the noun, with an `s` unless it is one.
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", indicatif::HumanCount(number))
}

/// The alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Returns the rows as lines of aligned columns. With a width, the last column is shortened to fit.
pub fn table(columns: &[Align], rows: &[Vec<String>], width_of_line: Option<usize>) -> Vec<String> {
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| width(cell))
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let is_last = column + 1 == columns.len();
            let columns_of_cell = widths.get(column).copied().unwrap_or(0);
            let spaces = " ".repeat(columns_of_cell.saturating_sub(width(cell)));
            match columns.get(column) {
                Some(Align::Right) => line.extend([spaces.as_str(), cell]),
                _ if is_last => {
                    let left = width_of_line.map(|of_line| of_line.saturating_sub(width(&line)));
                    line.push_str(&left.map_or_else(|| cell.clone(), |left| shortened(cell, left)));
                }
                _ => line.extend([cell, spaces.as_str()]),
            }
            if !is_last {
                line.push_str(&" ".repeat(GAP));
            }
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(plain("\u{1b}[31mA\r\n\tna\u{202e}"), "\\u{1b}[31mA\\r\\n\\tna\\u{202e}");
        assert_eq!(plain("Ana María 王 👩‍👧"), "Ana María 王 👩‍👧");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(shortened("王小明", 6), "王小明");
        assert_eq!(shortened("王小明", 5), "王小…");
        assert_eq!(shortened("王小明", 4), "王…");
        assert_eq!(padded("王", 4), "王  ");
        let rows = [
            vec!["王".to_owned(), "1".to_owned()],
            vec!["Ana".to_owned(), "20".to_owned()],
        ];
        assert_eq!(table(&[Align::Left, Align::Right], &rows, None), ["王    1", "Ana  20"]);
    }
}
