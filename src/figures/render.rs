//! A figure for people: a table for terminals, a page for browsers. What a stranger wrote in it stays text in both.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, TableStyle};

use crate::figures::figure::Figure;

/// What a piece without a colour is shown as.
const ANY_COLOR: &str = "any colour";

/// `Content-Security-Policy` of the page: it needs its own style and nothing else, and may do nothing else.
pub const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox; \
     frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The figure as aligned columns of plain text, for `text/plain` and for terminals: no line ends in white space, and
/// no character is there that a terminal would obey.
#[must_use]
pub fn table(figure: &Figure) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).force_no_tty();
    table.set_header(["quantity", "part", "colour"]);
    for piece in figure.pieces() {
        table.add_row([&piece.quantity().to_string(), piece.part(), piece.color().unwrap_or(ANY_COLOR)]);
    }
    if let Some(column) = table.column_mut(0) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = heading(figure) + "\n\n";
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The figure as a page, for `text/html`, to be sent with [`PAGE_POLICY`]: no script, nothing loaded from anywhere.
#[must_use]
pub fn page(figure: &Figure) -> String {
    let heading = heading(figure);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{heading}</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n<h1>{heading}</h1>\n<table>\n\
         <tr><th scope=\"col\">quantity<th scope=\"col\">part<th scope=\"col\">colour</tr>\n"
    );
    for piece in figure.pieces() {
        let color = piece
            .color()
            .map_or_else(|| format!("<i>{ANY_COLOR}</i>"), |color| format!("<bdi>{}</bdi>", escaped(color)));
        let part = escaped(piece.part());
        writeln!(page, "<tr><td>{}<td><bdi>{part}</bdi><td>{color}</tr>", piece.quantity())
            .expect("a String takes everything");
    }
    page + "</table>\n</body>\n</html>\n"
}

const STYLE: &str = ":root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;margin:2rem;max-width:50rem}\
     table{border-collapse:collapse}th,td{padding:.2rem 1rem .2rem 0;text-align:left;overflow-wrap:anywhere}\
     td:first-child,th:first-child{text-align:right;font-variant-numeric:tabular-nums}";

/// `giraffe: 28 pieces` or `giraffe, share 2/3: 9 pieces`. Names have no characters that need escaping.
fn heading(figure: &Figure) -> String {
    let share = if figure.share().is_whole() { String::new() } else { format!(", share {}", figure.share()) };
    let pieces = if figure.total() == 1 { "piece" } else { "pieces" };
    format!("{}{share}: {} {pieces}", figure.name(), figure.total())
}

/// Text as HTML, safe in elements and in quoted attributes.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::figures::figure::Piece;
    use crate::figures::name::Share;
    use crate::figures::testing;

    fn figure() -> Figure {
        let pieces = [
            Piece::new("brick 2x4", Some("translucent red"), 12).unwrap(),
            Piece::new("積み木 2×2", Some("赤"), 1).unwrap(),
            Piece::new("<b onclick='x'>&\"", None, 1).unwrap(),
        ];
        Figure::new("duck".parse().unwrap(), Share { index: 2, of: 3 }, None, pieces).unwrap()
    }

    #[test]
    fn columns_stand_below_each_other() {
        let expected = r#"duck, share 2/3: 14 pieces

quantity  part               colour
       1  <b onclick='x'>&"  any colour
      12  brick 2x4          translucent red
       1  積み木 2×2         赤
"#;
        assert_eq!(table(&figure()), expected);
    }

    #[test]
    fn what_strangers_write_stays_text_on_the_page() {
        let page = page(&figure());
        assert!(page.contains(
            "<tr><td>1<td><bdi>&lt;b onclick=&#39;x&#39;&gt;&amp;&quot;</bdi><td><i>any colour</i></tr>\n\
             <tr><td>12<td><bdi>brick 2x4</bdi><td><bdi>translucent red</bdi></tr>\n"
        ));
        assert!(page.contains("<title>duck, share 2/3: 14 pieces</title>"));
        assert!(!page.contains("<script") && !page.contains("<b "));
    }

    proptest! {
        #[test]
        fn every_kind_is_one_line_of_the_table(figure in testing::figures()) {
            let text = table(&figure);
            prop_assert_eq!(text.lines().count(), figure.pieces().len() + 3);
            prop_assert!(text.chars().all(|c| c == '\n' || crate::figures::text::is_plain(c)));
        }
    }
}
