//! `isle explain`: who could serve a figure, who would be preferred, and why not the others.

use std::collections::HashMap;

use crate::api::figures::RouteView;
use crate::cli::arguments::Explain;
use crate::cli::ask;
use crate::cli::client::escaped;
use crate::cli::failure::{Exit, Failure};
use crate::cli::get::not_there;
use crate::cli::output::table::{Cell, Column, table};
use crate::cli::output::{Ink, Screen, counted, print, print_json};
use crate::figures::text::visible;

/// Runs the command.
///
/// # Errors
/// Nobody answers, or there is no such figure.
pub async fn run(explain: &Explain, screen: Screen) -> Result<Exit, Failure> {
    let node = ask::node(&explain.ask).await?;
    let path = format!("/figures/{}/route", escaped(&explain.name));
    let route: RouteView = match ask::patiently(node.authority(), node.json(&path)).await {
        Ok(route) => route,
        Err(error) => return Err(not_there(&node, &explain.name, &error).await),
    };
    if explain.json {
        print_json(&route)?
    } else {
        print(shown(screen, &route))?
    };
    Ok(Exit::Done)
}

fn shown(screen: Screen, route: &RouteView) -> String {
    const COLUMNS: [Column; 5] = [
        Column::new("SHARE"),
        Column::new("MEMBER"),
        Column::new("ISLAND").rank(1),
        Column::new("CAN_SERVE"),
        Column::new("WHY").cut(),
    ];
    // Equal names of different members are told apart; one member with two shares has one name.
    let mut ids: HashMap<&str, Vec<&str>> = HashMap::new();
    for candidate in &route.candidates {
        let same = ids.entry(&candidate.name).or_default();
        if !same.contains(&&*candidate.id) {
            same.push(&candidate.id);
        }
    }
    let rows: Vec<_> = route
        .candidates
        .iter()
        .map(|candidate| {
            let alone = ids[&*candidate.name].len() == 1;
            let tail = candidate.id.get(..8).unwrap_or(&candidate.id);
            let label = if alone { candidate.name.clone() } else { format!("{}~{tail}", candidate.name) };
            let preferred = if candidate.preferred { "; would be preferred" } else { "" };
            let (word, ink) = if candidate.can_serve { ("yes", Ink::Green) } else { ("no", Ink::Red) };
            vec![
                Cell::from(&candidate.share),
                label.into(),
                (&candidate.island).into(),
                Cell::inked(word, ink),
                format!("{}{preferred}", candidate.why).into(),
            ]
        })
        .collect();
    let table = table(screen, &COLUMNS, &rows);
    if !screen.is_terminal() {
        return table;
    }
    let name = screen.paint(Ink::Bold, &visible(&route.name));
    let shares = counted(route.shares.into(), "share", "shares");
    let outlook = match &*route.missing {
        [] => format!("would answer {}", route.status),
        missing => {
            format!("would answer {}: nobody can serve share {} now", route.status, missing.join(", "))
        }
    };
    format!("{name}   {shares}, asked at {}\n{table}{}\n", visible(&route.asked_at), visible(&outlook))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_and_why_not_stand_beside_each_other() {
        let route: RouteView = serde_json::from_str(
            r#"{"name":"dragon","asked_at":"kitchen","shares":2,"status":503,"missing":["2/2"],"candidates":[
            {"share":"1/2","id":"k7q2mhf4aa","name":"p1","island":"north","can_serve":true,"preferred":true,
             "reason":null,"why":"load 12 %"},
            {"share":"1/2","id":"m3wd8k2paa","name":"p1","island":"north","can_serve":true,"preferred":false,
             "reason":null,"why":"load 50 %"},
            {"share":"2/2","id":"a2","name":"garage","island":"north","can_serve":false,"preferred":false,
             "reason":"no-answer","why":"down for 40 s"}]}"#,
        )
        .unwrap();
        assert_eq!(
            shown(Screen { width: Some(80), ..Screen::pipe() }, &route),
            "\
dragon   2 shares, asked at kitchen
SHARE  MEMBER       ISLAND  CAN_SERVE  WHY
1/2    p1~k7q2mhf4  north   yes        load 12 %; would be preferred
1/2    p1~m3wd8k2p  north   yes        load 50 %
2/2    garage       north   no         down for 40 s
would answer 503: nobody can serve share 2/2 now
"
        );
    }
}
