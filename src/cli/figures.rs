//! `isle figures`: what can be asked for.

use crate::api::figures::{FigureRow, FiguresPage};
use crate::cli::arguments::Figures;
use crate::cli::ask;
use crate::cli::client::{AskError, Client, escaped};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::table::{Cell, Column, table};
use crate::cli::output::{Screen, counted, print, print_json};
use crate::config::similar::closest;

/// Figures asked for at once: the most that a node gives.
const PAGE: usize = 1000;
/// Figures looked through for one that was probably meant: a misspelt name is not worth more.
const SIMILAR_MAX: usize = 3;

/// Runs the command.
///
/// # Errors
/// Nobody answers.
pub async fn run(figures: &Figures, screen: Screen) -> Result<Exit, Failure> {
    let node = ask::node(&figures.ask).await?;
    let asked = ask::patiently(node.authority(), pages(&node, figures.text.as_deref(), usize::MAX));
    let all = asked.await.map_err(|error| ask::failed(&error))?;
    if figures.json {
        print_json(&FiguresPage { figures: all, next: None })?;
    } else {
        print(shown(screen, &all))?;
    }
    Ok(Exit::Done)
}

/// The name of a figure there that is like `name`, if there is one. Errors are no news: there was one already.
pub async fn similar(node: &Client, name: &str) -> Option<String> {
    // Most slips are not in the first letter; that keeps large catalogues short.
    let beginning: String = name.chars().take(1).collect();
    for text in [Some(&*beginning), None] {
        let listed = pages(node, text, SIMILAR_MAX).await.unwrap_or_default();
        if let Some(found) = closest(name, listed.iter().map(|listed| &*listed.name)) {
            return Some(found.to_owned());
        }
    }
    None
}

async fn pages(node: &Client, text: Option<&str>, most: usize) -> Result<Vec<FigureRow>, AskError> {
    let query = text.map(|text| format!("&q={}", escaped(text))).unwrap_or_default();
    let mut all = Vec::new();
    let mut after = String::new();
    for _ in 0..most {
        let page: FiguresPage = node.json(&format!("/figures?limit={PAGE}{query}{after}")).await?;
        all.extend(page.figures);
        let Some(next) = page.next else { break };
        after = format!("&after={}", escaped(&next));
    }
    Ok(all)
}

fn shown(screen: Screen, all: &[FigureRow]) -> String {
    const COLUMNS: [Column; 4] = [
        Column::new("NAME").cut(),
        Column::new("PIECES").right().rank(2),
        Column::new("SHARES").right().rank(3),
        Column::new("SOURCES").right().rank(1),
    ];
    let rows: Vec<_> = all
        .iter()
        .map(|figure| {
            let total = figure.total.map(|total| total.to_string()).unwrap_or_default();
            vec![
                Cell::from(&figure.name),
                total.into(),
                (&figure.shares).into(),
                figure.sources.to_string().into(),
            ]
        })
        .collect();
    let mut text = table(screen, &COLUMNS, &rows);
    if screen.is_terminal() {
        text.push_str(&counted(all.len(), "figure", "figures"));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_listed_with_what_is_known_of_them() {
        let page: FiguresPage = serde_json::from_str(
            r#"{"figures":[{"name":"dragon","total":null,"shares":"2/3","sources":2},
                {"name":"giraffe","total":28,"shares":"1/1","sources":12,"new":true}],"next":null}"#,
        )
        .unwrap();
        assert_eq!(
            shown(Screen { width: Some(60), ..Screen::pipe() }, &page.figures),
            "\
NAME     PIECES  SHARES  SOURCES
dragon        -     2/3        2
giraffe      28     1/1       12
2 figures
"
        );
        assert!(!shown(Screen::pipe(), &page.figures).contains("2 figures"));
    }
}
