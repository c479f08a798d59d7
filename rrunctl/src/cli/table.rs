//! Lists: columns as docker's, or what `--format` says of each row.

#![forbid(unsafe_code)]

use super::template::Template;
use crate::error::Result;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Docker's columns are at least so wide, the gap included.
const NARROWEST: usize = 10;
const GAP: usize = 3;

/// One row: what a template can name.
pub(crate) type Row = Map<String, Value>;

/// A row of these fields, in the order in which docker prints them as JSON, which is that of their names.
pub(crate) fn row<const N: usize>(fields: [(&str, Value); N]) -> Row {
    let mut fields = fields;
    fields.sort_by(|a, b| a.0.cmp(b.0));
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The text of `rows` as `format` says, or as the columns of `usual` (`{{.ID}}\t{{.Name}}`) if it says nothing or
/// `table`. `titles` has one for every field there is.
///
/// # Errors
/// A template that does not parse or names what is not there.
pub(crate) fn list(
    format: Option<&str>,
    usual: &str,
    titles: &[(&str, &str)],
    rows: Vec<Row>,
) -> Result<String> {
    written(format, usual, titles, rows, |template, row| template.render(&Value::Object(row)))
}

/// The same of rows that have labels, for `{{.Label "KEY"}}`.
///
/// # Errors
/// As [`list`].
pub(crate) fn list_labelled(
    format: Option<&str>,
    usual: &str,
    titles: &[(&str, &str)],
    rows: Vec<(Row, BTreeMap<String, String>)>,
) -> Result<String> {
    written(format, usual, titles, rows, |template, (row, labels)| {
        template.render_labelled(&Value::Object(row), &labels)
    })
}

fn written<R>(
    format: Option<&str>,
    usual: &str,
    titles: &[(&str, &str)],
    rows: Vec<R>,
    render: impl Fn(&Template, R) -> Result<String>,
) -> Result<String> {
    let format = format.unwrap_or("table").trim_matches(' ');
    let (table, format) = match format {
        "table" => (true, usual.to_owned()),
        "json" => (false, "{{json .}}".to_owned()),
        format => match format.strip_prefix("table ") {
            Some(format) => (true, unescape(format.trim_matches(' '))),
            None => (false, unescape(format)),
        },
    };
    let template = Template::parse(&format)?;
    let mut text = String::new();
    if table {
        let titles = titles.iter().map(|(field, title)| ((*field).to_owned(), (*title).into())).collect();
        text.push_str(&template.render_titles(&Value::Object(titles))?);
        text.push('\n');
    }
    for row in rows {
        text.push_str(&render(&template, row)?);
        text.push('\n');
    }
    Ok(if table { align(&text) } else { text })
}

/// A shell leaves `\t` as it is within quotes.
fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

/// Makes columns of what tabs end: a column is as wide as the widest of the cells above and below one another, as
/// Go's text/tabwriter does it. What no tab ends is no cell.
pub(crate) fn align(text: &str) -> String {
    align_to(text, NARROWEST)
}

/// The same with columns that are at least so wide, the gap included.
pub(crate) fn align_to(text: &str, narrowest: usize) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
    for first in 0..lines.len() {
        for column in 0..widths[first].len() {
            if first > 0 && widths[first - 1].len() > column {
                // Measured with the line above.
                continue;
            }
            let block = lines[first..].iter().take_while(|cells| cells.len() > column + 1).count();
            let widest = lines[first..first + block].iter().map(|cells| cells[column].chars().count()).max();
            let width = (widest.unwrap_or(0) + GAP).max(narrowest);
            for line in &mut widths[first..first + block] {
                line[column] = width;
            }
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        for (cell, width) in cells.iter().zip(widths) {
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
        }
        out.push_str(cells.last().copied().unwrap_or_default());
        out.push('\n');
    }
    out
}

/// `text`, with `…` in place of what is beyond `width` letters.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Without what a terminal would obey: names and labels are foreign.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        vec![
            row([("Name", "a".into()), ("ID", "0123456789ab".into())]),
            row([("Name", "a long name".into()), ("ID", "b".into())]),
        ]
    }

    const TITLES: &[(&str, &str)] = &[("ID", "IMAGE ID"), ("Name", "NAME")];

    fn listed(format: Option<&str>) -> String {
        list(format, "{{.ID}}\t{{.Name}}", TITLES, rows()).expect("a list")
    }

    #[test]
    fn columns_are_ten_wide_or_as_wide_as_the_widest_cell_and_three() {
        assert_eq!(align("A\tB\nb\tc\n"), "A         B\nb         c\n");
        assert_eq!(align("A\tBB\tC\n12345678\tc\td\n"), "A          BB        C\n12345678   c         d\n");
        assert_eq!(align("é\tx\n"), "é         x\n");
    }

    #[test]
    fn a_line_without_the_cell_ends_the_column() {
        assert_eq!(align("a\tb\nx\n1234567890\tb\n"), "a         b\nx\n1234567890   b\n");
        assert_eq!(align("\n\n"), "\n\n");
        assert_eq!(align(""), "");
    }

    #[test]
    fn a_list_is_a_table_or_what_the_format_says() {
        let table = "IMAGE ID       NAME\n0123456789ab   a\nb              a long name\n";
        assert_eq!(listed(None), table);
        assert_eq!(listed(Some("table")), table);
        assert_eq!(listed(Some(r"table {{.ID}}\t{{.Name}}")), table);
        assert_eq!(listed(Some(r"{{.ID}}\t{{upper .Name}}")), "0123456789ab\tA\nb\tA LONG NAME\n");
        assert_eq!(listed(Some("table {{upper .Name}}")), "NAME\nA\nA LONG NAME\n");
        assert_eq!(
            listed(Some("json")),
            "{\"ID\":\"0123456789ab\",\"Name\":\"a\"}\n{\"ID\":\"b\",\"Name\":\"a long name\"}\n"
        );
    }

    #[test]
    fn an_unknown_field_is_refused_with_those_that_there_are() {
        let e = list(Some("{{.Id}}"), "", TITLES, rows()).expect_err("no such field").to_string();
        assert_eq!(
            e,
            "template parsing error: template: :1:2: executing \"\" at <.Id>: map has no entry for key \"Id\" \
             (there are ID Name)"
        );
        assert!(list(Some("table {{.Id}}"), "", TITLES, Vec::new()).is_err());
    }

    #[test]
    fn what_is_too_long_ends_in_an_ellipsis() {
        assert_eq!(ellipsis("abc", 3), "abc");
        assert_eq!(ellipsis("abcd", 3), "ab…");
        assert_eq!(ellipsis("äöüä", 3), "äö…");
    }
}
