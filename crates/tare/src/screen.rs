//! Standard output: lines, JSON lines, and a picture that is drawn anew where it goes to a terminal.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use terminal_size::{Height, Width, terminal_size};

use crate::exit::Failure;
use crate::text::{Line, Span, Tone};

/// Where a terminal does not tell its size.
const SIZE: (usize, usize) = (80, 24);

/// Where a command's output goes.
pub(crate) struct Screen {
    out: Box<dyn Write + Send>,
    /// Whether control sequences are understood and wanted.
    is_terminal: bool,
    /// Lines of the picture that is drawn anew.
    drawn: usize,
}

impl Screen {
    /// Standard output. Control sequences go to terminals only, and not where the user wants none (`NO_COLOR`).
    pub(crate) fn stdout() -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        let is_terminal = io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb;
        Self { is_terminal, ..Self::plain(io::stdout()) }
    }

    /// Lines and nothing else.
    pub(crate) fn plain(out: impl Write + Send + 'static) -> Self {
        Self { out: Box::new(out), is_terminal: false, drawn: 0 }
    }

    /// Whether a picture can be drawn anew; otherwise changes are told line by line.
    pub(crate) fn redraws(&self) -> bool {
        self.is_terminal
    }

    /// Prints lines below what stands there.
    pub(crate) fn print<'a>(&mut self, lines: impl IntoIterator<Item = &'a Line>) -> Result<(), Failure> {
        self.settle();
        let mut text = String::new();
        for line in lines {
            // Terminals wrap long lines by themselves.
            let line = if self.is_terminal { line.coloured(usize::MAX) } else { line.to_string() };
            text.push_str(line.trim_end());
            text.push('\n');
        }
        self.write(&text)
    }

    /// Puts a picture in the place of the one before.
    pub(crate) fn redraw(&mut self, lines: &[Line]) -> Result<(), Failure> {
        let (columns, rows) = terminal_size()
            .map_or(SIZE, |(Width(width), Height(height))| (usize::from(width), usize::from(height)));
        let text = picture(lines, self.drawn, columns, rows);
        self.drawn = lines.len().min(rows.saturating_sub(1));
        self.write(&text)
    }

    /// What is drawn stays; the next picture comes below it.
    pub(crate) fn settle(&mut self) {
        self.drawn = 0;
    }

    /// Prints a value as a line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let mut text =
            serde_json::to_string(value).map_err(|error| Failure::other(anyhow::Error::new(error)))?;
        text.push('\n');
        self.write(&text)
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(Failure::output)
    }
}

/// The control sequences and lines of a picture over one of `drawn` lines. A terminal scrolls away what does not fit,
/// and could not go back to it.
fn picture(lines: &[Line], drawn: usize, columns: usize, rows: usize) -> String {
    let room = rows.saturating_sub(1);
    let mut text = if drawn > 0 { format!("\u{1b}[{drawn}A\r\u{1b}[J") } else { String::new() };
    let fits = lines.len() <= room;
    let shown = if fits { lines.len() } else { room.saturating_sub(1) };
    for line in lines.iter().take(shown) {
        text.push_str(&line.coloured(columns));
        text.push('\n');
    }
    if !fits && room > 0 {
        let left = lines.len() - shown;
        text.push_str(&Line::new(Span::new(format!("... {left} more lines"), Tone::Faint)).coloured(columns));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_take_the_place_of_the_one_before() {
        let lines = [Line::new("one"), Line::new("two"), Line::new("three")];
        assert_eq!(picture(&lines, 0, 80, 24), "one\ntwo\nthree\n");
        assert_eq!(picture(&lines, 3, 4, 24), "\u{1b}[3A\r\u{1b}[Jone\ntwo\nthre\n");
    }

    #[test]
    fn pictures_do_not_scroll() {
        let lines: Vec<_> = (0..10).map(|number| Line::new(number.to_string())).collect();
        let text = picture(&lines, 0, 80, 5);
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains("... 7 more lines"), "{text}");
    }
}
