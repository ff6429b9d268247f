//! What the figures must be: read from the same data file, counted by other code.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::client::Answer;

/// Pieces by part and colour.
type Pieces = BTreeMap<(String, String), u64>;

/// The built-in figures: name to (total, pieces).
static BUILTIN: LazyLock<BTreeMap<String, (u64, Pieces)>> = LazyLock::new(|| {
    let list: Vec<Value> =
        serde_json::from_str(include_str!("../../src/figures/builtin.json")).expect("valid JSON");
    list.iter()
        .map(|figure| {
            let name = figure["name"].as_str().expect("a name").to_owned();
            (name, (figure["total"].as_u64().expect("a total"), pieces(figure)))
        })
        .collect()
});

/// Names of the built-in figures.
pub(crate) fn names() -> Vec<&'static str> {
    BUILTIN.keys().map(String::as_str).collect()
}

/// Paths of all built-in figures.
pub(crate) fn paths() -> Vec<String> {
    names().iter().map(|name| format!("/figures/{name}")).collect()
}

/// Whether an answer to `/figures/NAME` is that built-in figure, whole.
pub(crate) fn check(path: &str, answer: &Answer) -> Result<(), String> {
    if answer.status != 200 {
        return Err(format!("{} {}", answer.status, answer.text()));
    }
    let name = path.trim_start_matches("/figures/").to_ascii_lowercase();
    let (total, expected) = BUILTIN.get(&name).ok_or("not a built-in figure")?;
    let figure: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    if figure["name"] != json!(name) || figure["total"] != json!(total) || pieces(&figure) != *expected {
        return Err(format!("wrong figure: {figure}"));
    }
    Ok(())
}

/// A built-in figure cut into shares, each as a file's content: pieces are dealt out in turn.
pub(crate) fn shares(name: &str, of: usize) -> Result<Vec<String>> {
    let (_, pieces) = BUILTIN.get(name).context("no such figure")?;
    let share = |index: usize| {
        let own = pieces.iter().enumerate().filter(|(number, _)| number % of == index);
        let list: Vec<Value> = own
            .map(|(_, ((part, color), quantity))| json!({"part": part, "color": color, "quantity": quantity}))
            .collect();
        json!({"name": name, "share": {"index": index + 1, "of": of}, "pieces": list}).to_string()
    };
    Ok((0..of).map(share).collect())
}

/// The pieces of a figure in JSON, summed.
fn pieces(figure: &Value) -> Pieces {
    let mut sum = Pieces::new();
    for piece in figure["pieces"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let word = |key: &str| piece[key].as_str().unwrap_or_default().to_owned();
        *sum.entry((word("part"), word("color"))).or_default() += piece["quantity"].as_u64().unwrap_or(0);
    }
    sum
}
