//! What standard output is, and how answers are put on it: colour and signs on a terminal, plain columns in a
//! pipe. A reader that goes away (`| head`) is no failure.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};

use unicode_width::UnicodeWidthStr;

use crate::cli::arguments::{Look, When};
use crate::cli::failure::{Exit, Failure};
use crate::figures::text::visible;

pub mod sign;
pub mod table;

/// How standard output is written on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Screen {
    /// Escape sequences for colours are understood and wanted.
    pub color: bool,
    /// Any colour, not only the 16.
    pub true_color: bool,
    /// More than ASCII can be shown.
    pub unicode: bool,
    /// Columns of the terminal; `None`: no terminal, nothing is cut and signs are left out.
    pub width: Option<usize>,
}

/// What decides how output looks, gathered so that tests can make it up.
#[derive(Clone, Copy)]
struct Surroundings<'a> {
    terminal: bool,
    /// Columns that the terminal says it has.
    columns: Option<usize>,
    variable: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Screen {
    /// For this process's standard output.
    #[must_use]
    pub fn stdout(look: Look) -> Self {
        let stdout = io::stdout();
        let columns = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        let variable = |name: &str| std::env::var_os(name);
        Self::of(look, Surroundings { terminal: stdout.is_terminal(), columns, variable: &variable })
    }

    /// `--color` over `NO_COLOR` over `CLICOLOR_FORCE` over what the terminal is.
    fn of(look: Look, around: Surroundings<'_>) -> Self {
        let set = |name: &str| (around.variable)(name).is_some_and(|value| !value.is_empty());
        let forced =
            (around.variable)("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
        let dumb = (around.variable)("TERM").is_none_or(|term| term == "dumb");
        let color = match look.color {
            When::Always => true,
            When::Never => false,
            When::Auto if set("NO_COLOR") => false,
            When::Auto => forced || (around.terminal && !dumb),
        };
        // The first of these that is set decides, as in setlocale(3).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find(|name| set(name));
        let locale =
            locale.and_then(around.variable).unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let unicode = !look.ascii && (locale.ends_with("utf-8") || locale.ends_with("utf8"));
        let told = (around.variable)("COLUMNS").and_then(|columns| columns.to_str()?.parse().ok());
        let width = told.or(around.columns).filter(|&columns: &usize| columns > 0).unwrap_or(80);
        let depth = (around.variable)("COLORTERM");
        Self {
            color,
            true_color: color && depth.is_some_and(|depth| depth == "truecolor" || depth == "24bit"),
            unicode,
            width: around.terminal.then_some(width.max(20)),
        }
    }

    /// A pipe.
    #[must_use]
    pub fn pipe() -> Self {
        Self { color: false, true_color: false, unicode: true, width: None }
    }

    /// The text in a colour, where that is wanted.
    #[must_use]
    pub fn paint(self, ink: Ink, text: &str) -> String {
        match ink.code() {
            Some(code) if self.color && !text.is_empty() => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            _ => text.to_owned(),
        }
    }

    /// Whether people read it as it appears.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self.width.is_some()
    }
}

/// Colours by what they mean. Of the 16 only, and none that vanishes on a light or a dark ground.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ink {
    /// As the terminal has it.
    #[default]
    Plain,
    /// Well.
    Green,
    /// Doubtful.
    Yellow,
    /// Broken.
    Red,
    /// Out of reach.
    Magenta,
    /// On its way out.
    Cyan,
    /// Over and done.
    Dim,
    /// What the eye should find first.
    Bold,
}

impl Ink {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Green => Some("32"),
            Self::Yellow => Some("33"),
            Self::Red => Some("31"),
            Self::Magenta => Some("35"),
            Self::Cyan => Some("36"),
            Self::Dim => Some("2"),
            Self::Bold => Some("1"),
        }
    }
}

/// Columns that a text takes on a terminal.
#[must_use]
pub fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// The text within so many columns, its end replaced by `…` (`.` in ASCII) where it is too long.
#[must_use]
pub fn cut(text: &str, columns: usize, unicode: bool) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let mut kept = String::new();
    for c in text.chars() {
        kept.push(c);
        if width(&kept) >= columns.max(1) {
            kept.pop();
            break;
        }
    }
    kept.push(if unicode { '…' } else { '.' });
    Cow::Owned(kept)
}

/// What stands between the parts of a line.
const GAP: &str = "   ";

/// The parts of a line that begins at a column: on lines of their own, from that column on, where the terminal is too narrow.
#[must_use]
pub fn in_parts(screen: Screen, begin: usize, parts: &[String]) -> String {
    let mut text = String::new();
    let mut column = begin;
    for part in parts.iter().map(|part| visible(part)) {
        let wide = width(&part);
        if !text.is_empty() && screen.width.is_some_and(|most| column + GAP.len() + wide > most) {
            text.push('\n');
            text.push_str(&" ".repeat(begin));
            column = begin;
        } else if !text.is_empty() {
            text.push_str(GAP);
            column += GAP.len();
        }
        text.push_str(&part);
        column += wide;
    }
    text
}

/// A length of time in at most 6 columns: `0.1 s`, `41 s`, `4 m`, `2 h`, `3 d`.
#[must_use]
pub fn ago(ms: u64) -> String {
    match ms {
        ..9_950 => format!("{:.1} s", ms as f64 / 1000.0),
        9_950..60_000 => format!("{} s", ms / 1000),
        60_000..3_600_000 => format!("{} m", ms / 60_000),
        3_600_000..86_400_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// `1 member`, `2 members`.
#[must_use]
pub fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Writes an answer to standard output. `false`: nobody reads it any more, which is no failure.
///
/// # Errors
/// The disk behind it is full, say.
pub fn print(text: impl AsRef<[u8]>) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(Exit::Failed, format!("cannot write to standard output: {error}"))),
    }
}

/// Says something beside the answer, on standard error. Nobody listening is no failure.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", visible(text));
}

/// Says on standard error why a command failed.
pub fn error(failure: &Failure) {
    let _ = writeln!(io::stderr().lock(), "{failure}");
}

/// JSON as it is printed: one line.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &impl serde::Serialize) -> Result<bool, Failure> {
    let mut text = serde_json::to_string(value).expect("views are strings and numbers only");
    text.push('\n');
    print(plain_json(&text).as_bytes())
}

/// JSON with everything escaped that a terminal would obey; the same values.
#[must_use]
pub fn plain_json(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| c == ' ' || c == '\n' || isle_mesh::wire::text::is_visible(c);
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if harmless(c) || c == '\t' || c == '\r' {
            // White space between values; within texts serde writes it as an escape.
            shown.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(color: When, terminal: bool, variables: &[(&str, &str)]) -> Screen {
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        let around = Surroundings { terminal, columns: Some(100), variable: &variable };
        Screen::of(Look { color, ascii: false }, around)
    }

    #[test]
    fn colour_is_for_terminals_unless_somebody_says_otherwise() {
        let term = ("TERM", "xterm");
        assert!(screen(When::Auto, true, &[term]).color);
        assert!(!screen(When::Auto, false, &[term]).color);
        assert!(!screen(When::Auto, true, &[("TERM", "dumb")]).color);
        assert!(!screen(When::Auto, true, &[term, ("NO_COLOR", "1")]).color);
        assert!(screen(When::Auto, true, &[term, ("NO_COLOR", "")]).color);
        assert!(screen(When::Auto, false, &[term, ("CLICOLOR_FORCE", "1")]).color);
        assert!(!screen(When::Auto, true, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]).color);
        assert!(screen(When::Always, false, &[("NO_COLOR", "1")]).color);
        assert!(!screen(When::Never, true, &[term]).color);
        assert!(!screen(When::Auto, true, &[term]).true_color);
        assert!(screen(When::Auto, true, &[term, ("COLORTERM", "truecolor")]).true_color);
    }

    #[test]
    fn the_width_is_that_of_the_terminal_unless_columns_is_set() {
        assert_eq!(screen(When::Auto, true, &[]).width, Some(100));
        assert_eq!(screen(When::Auto, true, &[("COLUMNS", "40")]).width, Some(40));
        assert_eq!(screen(When::Auto, false, &[("COLUMNS", "40")]).width, None);
    }

    #[test]
    fn the_locale_says_whether_more_than_ascii_can_be_shown() {
        assert!(screen(When::Auto, true, &[("LANG", "de_DE.UTF-8")]).unicode);
        assert!(!screen(When::Auto, true, &[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")]).unicode);
        assert!(screen(When::Auto, true, &[("LC_ALL", "C.utf8")]).unicode);
        assert!(!screen(When::Auto, true, &[]).unicode);
    }

    #[test]
    fn texts_are_cut_by_what_they_take_on_the_screen() {
        assert_eq!(cut("kitchen", 7, true), "kitchen");
        assert_eq!(cut("kitchen", 5, true), "kitc…");
        assert_eq!(cut("kitchen", 5, false), "kitc.");
        assert_eq!(cut("積み木", 5, true), "積み…");
        assert_eq!(width(&cut("積み木", 4, true)), 3);
    }

    #[test]
    fn times_are_short() {
        let shown: Vec<_> = [0, 120, 9_949, 41_000, 240_000, 7_300_000, 200_000_000].map(ago).into();
        assert_eq!(shown, ["0.0 s", "0.1 s", "9.9 s", "41 s", "4 m", "2 h", "2 d"]);
    }

    #[test]
    fn json_keeps_its_values_and_loses_what_terminals_obey() {
        let text = serde_json::to_string(&["a\u{202e}b\u{9b}\u{e0001}"]).unwrap();
        let plain = plain_json(&text);
        assert_eq!(plain, "[\"a\\u202eb\\u009b\\udb40\\udc01\"]");
        assert_eq!(serde_json::from_str::<Vec<String>>(&plain).unwrap(), ["a\u{202e}b\u{9b}\u{e0001}"]);
    }
}
