//! Rows in columns. On a terminal they are fitted to its width: columns that matter less are left out first, then
//! those that may be cut are cut. In a pipe every row is a line, every column is there, no cell is empty or has a
//! blank in it, and nothing is cut.

use crate::cli::output::{Ink, Screen, cut, width};
use crate::figures::text::visible;

/// Least columns that a text is cut to.
const CUT_MIN: usize = 6;
/// Between two columns.
const GAP: usize = 2;

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    title: &'static str,
    /// Its title in a pipe, where its unit is another.
    piped: &'static str,
    right: bool,
    /// 0: never left out; else those with the highest go first.
    rank: u8,
    cut: bool,
    /// Signs, for terminals only.
    sign: bool,
}

impl Column {
    /// A column that is always shown whole, aligned left.
    #[must_use]
    pub const fn new(title: &'static str) -> Self {
        Self { title, piped: title, right: false, rank: 0, cut: false, sign: false }
    }

    /// A column of signs: one character, without title, for terminals only.
    #[must_use]
    pub const fn sign() -> Self {
        Self { sign: true, ..Self::new("") }
    }

    /// Aligned right.
    #[must_use]
    pub const fn right(self) -> Self {
        Self { right: true, ..self }
    }

    /// Left out where space is short; those with the highest rank first.
    #[must_use]
    pub const fn rank(self, rank: u8) -> Self {
        Self { rank, ..self }
    }

    /// Cut where space is short.
    #[must_use]
    pub const fn cut(self) -> Self {
        Self { cut: true, ..self }
    }

    /// Has another title in a pipe.
    #[must_use]
    pub const fn piped(self, title: &'static str) -> Self {
        Self { piped: title, ..self }
    }
}

/// What stands in one place.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    text: String,
    ink: Ink,
}

impl Cell {
    /// Text in a colour. What a terminal would obey is shown instead.
    #[must_use]
    pub fn inked(text: &str, ink: Ink) -> Self {
        Self { text: visible(text).into_owned(), ink }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::inked(text.as_ref(), Ink::Plain)
    }
}

/// Rows in columns, with a line of titles in capitals.
///
/// # Panics
/// If a row has more or fewer cells than there are columns.
#[must_use]
pub fn table(screen: Screen, columns: &[Column], rows: &[Vec<Cell>]) -> String {
    assert!(rows.iter().all(|row| row.len() == columns.len()), "as many cells as columns");
    let piped = !screen.is_terminal();
    let shown: Vec<usize> = (0..columns.len()).filter(|&i| !(piped && columns[i].sign)).collect();
    let title = |i: usize| if piped { columns[i].piped } else { columns[i].title };
    let text = |row: &[Cell], i: usize| -> String {
        let text = &row[i].text;
        match (text.is_empty(), piped) {
            (true, _) if columns[i].sign => " ".to_owned(),
            (true, _) => "-".to_owned(),
            (false, true) => text.replace(' ', "_"),
            (false, false) => text.clone(),
        }
    };
    let mut widths: Vec<usize> = (0..columns.len())
        .map(|i| {
            rows.iter().map(|row| width(&text(row, i))).chain([width(title(i))]).max().unwrap_or_default()
        })
        .collect();
    let shown = match screen.width {
        Some(most) => fit(columns, shown, &mut widths, most),
        None => shown,
    };
    let mut out = String::new();
    let mut line = |cells: &mut dyn FnMut(usize) -> (String, Ink)| {
        let mut blanks = 0;
        for (at, &i) in shown.iter().enumerate() {
            let (text, ink) = cells(i);
            let text = cut(&text, widths[i], screen.unicode);
            let pad = widths[i].saturating_sub(width(&text));
            // A sign stands close to what it is a sign of.
            let gap = if at == 0 {
                0
            } else if columns[shown[at - 1]].sign {
                1
            } else {
                GAP
            };
            blanks += gap + if columns[i].right { pad } else { 0 };
            if !text.trim().is_empty() {
                out.extend(std::iter::repeat_n(' ', std::mem::take(&mut blanks)));
                out.push_str(&screen.paint(ink, &text));
            } else {
                blanks += width(&text);
            }
            blanks += if columns[i].right { 0 } else { pad };
        }
        out.push('\n');
    };
    line(&mut |i| (title(i).to_owned(), Ink::Plain));
    for row in rows {
        line(&mut |i| (text(row, i), row[i].ink));
    }
    out
}

/// Which columns are shown within `most`; narrows those that are cut.
fn fit(columns: &[Column], mut shown: Vec<usize>, widths: &mut [usize], most: usize) -> Vec<usize> {
    let total = |shown: &[usize], widths: &[usize]| {
        let gaps =
            shown.iter().skip(1).zip(shown).map(|(_, &before)| if columns[before].sign { 1 } else { GAP });
        shown.iter().map(|&i| widths[i]).sum::<usize>() + gaps.sum::<usize>()
    };
    // Cutting a little is better than leaving out; cutting to nothing is not.
    let reserve = |shown: &[usize], widths: &[usize]| -> usize {
        shown.iter().filter(|&&i| columns[i].cut).map(|&i| widths[i].saturating_sub(CUT_MIN)).sum()
    };
    while total(&shown, widths) > most + reserve(&shown, widths) {
        let Some(&least) = shown.iter().filter(|&&i| columns[i].rank > 0).max_by_key(|&&i| columns[i].rank)
        else {
            break;
        };
        shown.retain(|&i| i != least);
    }
    while total(&shown, widths) > most {
        let widest = shown
            .iter()
            .copied()
            .filter(|&i| columns[i].cut && widths[i] > CUT_MIN)
            .max_by_key(|&i| widths[i]);
        let Some(widest) = widest else { break };
        widths[widest] -= 1;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 5] = [
        Column::sign(),
        Column::new("NAME").cut(),
        Column::new("ISLAND").rank(2),
        Column::new("LOAD").right().rank(1),
        Column::new("STANDING"),
    ];

    fn shown(screen: Screen) -> String {
        let row = |cells: [&str; 5]| cells.map(Cell::from).to_vec();
        table(
            screen,
            &COLUMNS,
            &[
                row(["●", "kitchen-with-a-view", "north", "17/256", "alive"]),
                row(["", "a\u{1b}[2J b", "", "3/256", "down"]),
            ],
        )
    }

    fn terminal(width: usize) -> Screen {
        Screen { width: Some(width), ..Screen::pipe() }
    }

    #[test]
    fn a_wide_terminal_shows_everything() {
        assert_eq!(
            shown(terminal(80)),
            "\
\x20 NAME                 ISLAND    LOAD  STANDING
● kitchen-with-a-view  north   17/256  alive
  a\\u{1b}[2J b         -        3/256  down
"
        );
    }

    #[test]
    fn a_narrow_one_leaves_out_and_cuts_but_keeps_what_matters() {
        assert_eq!(
            shown(terminal(40)),
            "\
\x20 NAME          ISLAND    LOAD  STANDING
● kitchen-wit…  north   17/256  alive
  a\\u{1b}[2J b  -        3/256  down
"
        );
        assert_eq!(
            shown(terminal(22)),
            "\
\x20 NAME        STANDING
● kitchen-w…  alive
  a\\u{1b}[2…  down
"
        );
    }

    #[test]
    fn a_pipe_has_a_record_a_line_and_no_blank_in_a_cell() {
        let text = shown(Screen::pipe());
        assert_eq!(
            text,
            "\
NAME                 ISLAND    LOAD  STANDING
kitchen-with-a-view  north   17/256  alive
a\\u{1b}[2J_b         -        3/256  down
"
        );
        assert!(text.lines().all(|line| line.split_whitespace().count() == 4), "{text}");
    }

    #[test]
    fn colours_do_not_count_as_columns() {
        let screen = Screen { color: true, ..terminal(80) };
        let rows = [
            vec![Cell::inked("down", Ink::Red), Cell::from("x")],
            vec![Cell::from("unreachable"), Cell::from("y")],
        ];
        assert_eq!(
            table(screen, &[Column::new("A"), Column::new("B")], &rows),
            "A            B\n\u{1b}[31mdown\u{1b}[0m         x\nunreachable  y\n"
        );
    }
}
