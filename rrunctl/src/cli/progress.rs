//! Progress of a pull, a push, a load: on a terminal a line for each layer, which changes where it stands; plain lines
//! elsewhere, and those without the bars.

#![forbid(unsafe_code)]

use super::human;
use crate::progress::Event;
use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A terminal is told no oftener than this how far one layer is.
const REDRAW: Duration = Duration::from_millis(100);
/// The bar, and the numbers behind it, need so many columns.
const WITH_BAR: u16 = 110;

/// Draws events as they come, from any thread.
pub(crate) struct Progress<W> {
    state: Mutex<State<W>>,
}

struct State<W> {
    out: W,
    how: How,
    lines: HashMap<String, Line>,
}

struct Line {
    /// From the first line of a layer.
    number: usize,
    shown: String,
    drawn: Instant,
}

/// What is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// On a terminal with so many columns.
    Terminal(u16),
    /// One line for each step.
    Plain,
    /// Nothing: `-q`.
    Quiet,
}

impl<W: Write> Progress<W> {
    pub(crate) fn new(out: W, how: How) -> Self {
        Self { state: Mutex::new(State { out, how, lines: HashMap::new() }) }
    }

    /// Draws one event. A terminal that is gone is not the work's failure.
    pub(crate) fn show(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = match state.how {
            How::Quiet => Ok(()),
            How::Plain => state.plain(event),
            How::Terminal(columns) => state.terminal(event, columns),
        };
    }
}

impl<W: Write> State<W> {
    fn plain(&mut self, event: Event) -> std::io::Result<()> {
        match event {
            Event::Line(text) => writeln!(self.out, "{}", clean(&text))?,
            Event::Status { id, text } => writeln!(self.out, "{}: {}", clean(&id), clean(&text))?,
            Event::Bytes { .. } => return Ok(()),
        }
        self.out.flush()
    }

    fn terminal(&mut self, event: Event, columns: u16) -> std::io::Result<()> {
        let (id, text, steady) = match event {
            Event::Line(text) => {
                // What comes next is below it, and never goes up beyond.
                self.lines.clear();
                writeln!(self.out, "{}", clean(&text))?;
                return self.out.flush();
            }
            Event::Status { id, text } => (id, clean(&text), true),
            Event::Bytes { id, text, done, total } => (id, bar(text, done, total, columns), false),
        };
        let shown = format!("{}: {text}", clean(&id));
        let shown: String = shown.chars().take(usize::from(columns).max(20)).collect();
        let count = self.lines.len();
        let line = match self.lines.get_mut(&id) {
            Some(line) if line.shown == shown || (!steady && line.drawn.elapsed() < REDRAW) => return Ok(()),
            Some(line) => line,
            None => {
                writeln!(self.out)?;
                self.lines.entry(id).or_insert_with(|| Line {
                    number: count,
                    shown: String::new(),
                    drawn: Instant::now(),
                })
            }
        };
        let up = count.max(line.number + 1) - line.number;
        write!(self.out, "\x1b[{up}A\r\x1b[2K{shown}\r\x1b[{up}B")?;
        line.shown = shown;
        line.drawn = Instant::now();
        self.out.flush()
    }
}

/// `Downloading [=====>      ]  1.2MB/4.8MB`.
fn bar(text: &str, done: u64, total: u64, columns: u16) -> String {
    let sizes = match total {
        0 => human::precise_size(done),
        // A registry may have told less than it sends.
        total if done > total => human::precise_size(done),
        total => format!("{:>8}/{}", human::precise_size(done), human::precise_size(total)),
    };
    if columns < WITH_BAR || total == 0 {
        return format!("{text} {sizes}");
    }
    let half = usize::try_from(u128::from(done.min(total)) * 50 / u128::from(total)).unwrap_or(50);
    let head = if half < 50 { ">" } else { "" };
    format!("{text} [{}{head}{}] {sizes}", "=".repeat(half), " ".repeat(50 - half - head.len()))
}

/// A registry's text shall not steer the terminal.
fn clean(text: &str) -> String {
    super::table::printable(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(how: How, events: &[Event]) -> String {
        let progress = Progress::new(Vec::new(), how);
        for event in events {
            progress.show(event.clone());
        }
        String::from_utf8(progress.state.into_inner().expect("no panic").out).expect("text")
    }

    fn status(id: &str, text: &str) -> Event {
        Event::Status { id: id.into(), text: text.into() }
    }

    fn bytes(done: u64) -> Event {
        Event::Bytes { id: "a".into(), text: "Downloading", done, total: 100 }
    }

    /// What a terminal shows at the end.
    fn screen(text: &str) -> Vec<String> {
        let (mut lines, mut row, mut column) = (vec![String::new()], 0usize, 0usize);
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '\n' => (row, column) = (row + 1, 0),
                '\r' => column = 0,
                '\x1b' => {
                    assert_eq!(rest.next(), Some('['));
                    let mut n = String::new();
                    while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                        n.push(digit);
                    }
                    let n: usize = n.parse().expect("a number");
                    match rest.next() {
                        Some('A') => row -= n,
                        Some('B') => row += n,
                        Some('K') => lines[row].clear(),
                        other => panic!("{other:?}"),
                    }
                }
                c => {
                    let line = &mut lines[row];
                    *line =
                        line.chars().take(column).chain([c]).chain(line.chars().skip(column + 1)).collect();
                    column += 1;
                }
            }
            while lines.len() <= row {
                lines.push(String::new());
            }
        }
        lines
    }

    #[test]
    fn elsewhere_than_on_a_terminal_there_are_lines_without_bars() {
        let events = [
            Event::Line("latest: Pulling".into()),
            status("a", "Pulling fs layer"),
            bytes(1),
            status("a", "Done"),
        ];
        assert_eq!(drawn(How::Plain, &events), "latest: Pulling\na: Pulling fs layer\na: Done\n");
        assert_eq!(drawn(How::Quiet, &events), "");
    }

    #[test]
    fn a_terminal_has_a_line_for_each_layer() {
        let events = [
            Event::Line("latest: Pulling".into()),
            status("a", "Waiting"),
            status("b", "Waiting"),
            status("a", "Pull complete"),
            status("c", "Waiting"),
            status("b", "Pull complete"),
            Event::Line("Digest: x".into()),
            status("a", "again"),
        ];
        assert_eq!(
            screen(&drawn(How::Terminal(80), &events)),
            [
                "latest: Pulling",
                "a: Pull complete",
                "b: Pull complete",
                "c: Waiting",
                "Digest: x",
                "a: again",
                ""
            ]
        );
    }

    #[test]
    fn a_bar_is_50_wide_and_only_where_there_is_room() {
        assert_eq!(
            bar("Downloading", 50, 100, 120),
            format!("Downloading [{}>{}]      50B/100B", "=".repeat(25), " ".repeat(24))
        );
        assert_eq!(
            bar("Downloading", 100, 100, 120),
            format!("Downloading [{}]     100B/100B", "=".repeat(50))
        );
        assert_eq!(
            bar("Downloading", 0, 100, 120),
            format!("Downloading [>{}]       0B/100B", " ".repeat(49))
        );
        assert_eq!(bar("Downloading", 50, 100, 80), "Downloading      50B/100B");
        assert_eq!(bar("Downloading", 50, 0, 120), "Downloading 50B");
        assert_eq!(bar("Downloading", u64::MAX, 7, 80), "Downloading 18.45EB");
    }

    #[test]
    fn many_bytes_are_few_drawings() {
        let events: Vec<Event> = (0..100).map(bytes).collect();
        let text = drawn(How::Terminal(120), &events);
        assert!(text.matches("Downloading").count() < 10, "{text}");
    }

    #[test]
    fn a_registrys_text_does_not_steer_the_terminal() {
        let text = drawn(How::Terminal(80), &[Event::Line("\x1b[2Jgone\n".into()), status("\x1b[9A", "\r")]);
        assert!(!text.contains("\x1b[2J") && !text.contains("\x1b[9A:"), "{text:?}");
    }
}
