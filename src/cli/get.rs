//! `isle get`: figures as tables, as they were sent, or into a file.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Instant;

use serde::Deserialize;

use crate::cli::arguments::Get;
use crate::cli::ask;
use crate::cli::client::{AskError, Client, Reply, escaped};
use crate::cli::failure::{Exit, Failure};
use crate::cli::figures::similar;
use crate::cli::output::table::{Cell, Column, table};
use crate::cli::output::{Ink, Screen, counted, note, plain_json, print};
use crate::figures::FigureName;
use crate::figures::text::visible;

/// A figure as an intermediary sends it; also what a program beside a sidecar may send.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
struct Body {
    name: String,
    total: u64,
    pieces: Vec<Piece>,
    #[serde(default)]
    sources: Vec<Source>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
struct Piece {
    part: String,
    #[serde(default)]
    color: Option<String>,
    quantity: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
struct Source {
    name: String,
    island: String,
}

/// Runs the command: all figures, in the order of their names on the command line; ends with the worst exit
/// status of them.
///
/// # Errors
/// Nobody answers, a figure cannot be had, or the file cannot be written.
pub async fn run(get: &Get, screen: Screen) -> Result<Exit, Failure> {
    if get.output.is_some() && get.names.len() > 1 && !get.json {
        let what = "several figures fit into one file only as JSON";
        return Err(Failure::new(Exit::Usage, what).advise("add --json, or fetch one after the other"));
    }
    let node = ask::node(&get.ask).await?;
    let mut file = Vec::new();
    let mut worst = None;
    for name in &get.names {
        match fetch(&node, name, get).await {
            Ok((reply, took_ms)) => {
                let text = rendered(get, screen, &reply)?;
                if get.output.is_some() {
                    file.extend_from_slice(&text);
                } else if !print(&text)? {
                    return Ok(Exit::Done);
                }
                note(&origin(&reply, took_ms));
            }
            // The others may still be had.
            Err(failure) => {
                if let Some(earlier) = worst.replace(failure) {
                    note(&earlier.what);
                }
            }
        }
    }
    match (&get.output, worst) {
        (_, Some(failure)) => Err(failure),
        (Some(path), None) => write(path, &file).map(|()| Exit::Done),
        (None, None) => Ok(Exit::Done),
    }
}

async fn fetch(node: &Client, name: &str, get: &Get) -> Result<(Reply, u128), Failure> {
    let Ok(known) = name.parse::<FigureName>() else {
        let what = format!("there is no figure \"{name}\": names are 1 to 64 of a-z, 0-9, '.', '_' and '-'");
        return Err(Failure::new(Exit::NoSuchFigure, what));
    };
    let accept = if get.html { "text/html" } else { "application/json" };
    let start = Instant::now();
    let path = format!("/figures/{}", escaped(known.as_str()));
    match ask::patiently(&format!("{known} from {}", node.authority()), node.get(&path, accept)).await {
        Ok(reply) => Ok((reply, start.elapsed().as_millis())),
        Err(error) => Err(not_there(node, known.as_str(), &error).await),
    }
}

/// Why a figure, or its route, was not got; with one of a similar name if there is no such figure.
pub(crate) async fn not_there(node: &Client, name: &str, error: &AskError) -> Failure {
    let AskError::Problem { problem, .. } = error else { return ask::failed(error) };
    if problem.reason != "no-such-figure" {
        return ask::failed(error);
    }
    let hint = similar(node, name).await;
    let hint = hint.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
    Failure::new(Exit::NoSuchFigure, format!("there is no figure \"{name}\"{hint}"))
        .advise("see what there is with: isle figures")
}

/// What is written for an answer.
fn rendered(get: &Get, screen: Screen, reply: &Reply) -> Result<Vec<u8>, Failure> {
    let is_json = reply.is("application/json");
    if get.json && is_json {
        let mut line = String::from_utf8_lossy(&reply.body).trim_end().to_owned();
        line.push('\n');
        return Ok(plain_json(&line).into_owned().into_bytes());
    }
    if !get.json
        && !get.html
        && is_json
        && let Ok(body) = serde_json::from_slice::<Body>(&reply.body)
    {
        return Ok(shown(screen, &body).into_bytes());
    }
    // A sidecar's answer may be anything: a file or a pipe takes it as it is, a terminal must not obey it.
    if get.output.is_some() || !screen.is_terminal() && !std::io::stdout().is_terminal() {
        return Ok(reply.body.to_vec());
    }
    match std::str::from_utf8(&reply.body) {
        Ok(text) => {
            Ok(text.lines().map(|line| visible(line).into_owned() + "\n").collect::<String>().into_bytes())
        }
        Err(_) => {
            let kind = reply.field("content-type").unwrap_or("bytes");
            let what = format!("the answer is {kind}, which a terminal cannot show");
            Err(Failure::new(Exit::Failed, what).advise("write it to a file with: -o FILE"))
        }
    }
}

fn shown(screen: Screen, body: &Body) -> String {
    const COLUMNS: [Column; 3] =
        [Column::new("QTY").right(), Column::new("PART").cut(), Column::new("COLOUR")];
    let rows: Vec<_> = body
        .pieces
        .iter()
        .map(|piece| {
            let color = piece.color.as_deref().unwrap_or("any colour");
            vec![Cell::from(piece.quantity.to_string()), Cell::from(&piece.part), Cell::from(color)]
        })
        .collect();
    let table = table(screen, &COLUMNS, &rows);
    if !screen.is_terminal() {
        return table;
    }
    let name = screen.paint(Ink::Bold, &visible(&body.name));
    format!(
        "{name}   {}\n\n{table}",
        counted(usize::try_from(body.total).unwrap_or(usize::MAX), "piece", "pieces")
    )
}

/// `giraffe from p1 and p2 on north, in 6 ms`, as far as it is told.
fn origin(reply: &Reply, took_ms: u128) -> String {
    let told = serde_json::from_slice::<Body>(&reply.body).ok().filter(|body| !body.sources.is_empty());
    let Some(body) = told else {
        let by = reply.field("isle-served-by").map(|by| format!("served by {by}, ")).unwrap_or_default();
        return format!("{by}in {took_ms} ms");
    };
    let mut sources: Vec<_> =
        body.sources.iter().map(|source| format!("{} on {}", source.name, source.island)).collect();
    sources.sort();
    sources.dedup();
    format!("{} from {}, in {took_ms} ms", body.name, sources.join(", "))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = std::fs::File::create(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| Failure::new(Exit::Failed, format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIRAFFE: &str = r#"{"name":"giraffe","total":5,"pieces":[{"part":"brick 2x2","color":"black","quantity":4},
        {"part":"eye","quantity":1}],"sources":[{"id":"k7","name":"p1","island":"north","share":"1/2"},
        {"id":"m3","name":"p2","island":"south","share":"2/2"}]}"#;

    fn reply(kind: &str, body: &str) -> Reply {
        let mut headers = http::HeaderMap::new();
        headers.insert("content-type", kind.parse().unwrap());
        headers.insert("isle-served-by", "hub@north".parse().unwrap());
        Reply { headers, body: body.to_owned().into() }
    }

    #[test]
    fn people_see_what_to_count_out() {
        let body = serde_json::from_str(GIRAFFE).unwrap();
        assert_eq!(
            shown(Screen { width: Some(60), ..Screen::pipe() }, &body),
            "\
giraffe   5 pieces

QTY  PART       COLOUR
  4  brick 2x2  black
  1  eye        any colour
"
        );
        assert_eq!(shown(Screen::pipe(), &body).lines().nth(2), Some("  1  eye        any_colour"));
    }

    #[test]
    fn where_it_came_from_is_told() {
        assert_eq!(
            origin(&reply("application/json", GIRAFFE), 6),
            "giraffe from p1 on north, p2 on south, in 6 ms"
        );
        assert_eq!(origin(&reply("text/plain", "hi"), 6), "served by hub@north, in 6 ms");
    }
}
