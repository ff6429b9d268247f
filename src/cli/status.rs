//! `isle status`: one screen about a node and what it knows, what is wrong at the end.

use serde::Serialize;

use crate::api::view::{IslandView, MemberView, MembersPage, ReadyView};
use crate::cli::arguments::Status;
use crate::cli::ask;
use crate::cli::client::{AskError, Client};
use crate::cli::failure::{Exit, Failure};
use crate::cli::members::{labels, meaning};
use crate::cli::output::sign::Stand;
use crate::cli::output::{Ink, Screen, ago, counted, in_parts, print, print_json};
use crate::figures::text::visible;

/// What is wrong with one thing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Trouble {
    /// A member's name, or a check's.
    what: String,
    reason: String,
    #[serde(rename = "do")]
    advice: Option<String>,
    since_ms: Option<u64>,
    #[serde(skip)]
    sign: (&'static str, Ink),
}

/// All of it, for programs.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(rename = "self")]
    me: Option<&'a MemberView>,
    islands: &'a [IslandView],
    ready: bool,
    problems: &'a [Trouble],
}

/// Runs the command.
///
/// # Errors
/// Nobody answers.
pub async fn run(status: &Status, screen: Screen) -> Result<Exit, Failure> {
    let node = ask::node(&status.ask).await?;
    let asked = ask::patiently(node.authority(), node.json::<MembersPage>("/members"));
    let page = asked.await.map_err(|error| ask::failed(&error))?;
    let ready = readiness(&node).await.map_err(|error| ask::failed(&error))?;
    let troubles = troubles(screen, &page, &ready);
    if status.json {
        let me = page.members.iter().find(|member| member.id == page.me.id);
        print_json(&Report { me, islands: &page.islands, ready: ready.ready, problems: &troubles })?;
    } else {
        print(shown(screen, &page, &ready, &troubles))?;
    }
    Ok(if status.check && !troubles.is_empty() { Exit::Failed } else { Exit::Done })
}

/// A node that is not ready says so with 503, and why: an answer like any other here.
async fn readiness(node: &Client) -> Result<ReadyView, AskError> {
    let reply = node.get_any("/readyz?verbose", "application/json").await?;
    node.parse(&reply.body)
}

fn troubles(screen: Screen, page: &MembersPage, ready: &ReadyView) -> Vec<Trouble> {
    let labels = labels(&page.members);
    let checks = ready.checks.iter().filter(|check| !check.ok).map(|check| Trouble {
        what: format!("this node: {}", check.check),
        reason: check.reason.clone().unwrap_or_default(),
        advice: check.advice.clone(),
        since_ms: check.since_ms,
        sign: (Stand::Down.sign(screen), Ink::Red),
    });
    let members = page.members.iter().filter_map(|member| {
        let stand = Stand::of(member);
        // Who said farewell or is about to is as it should be.
        let well = matches!(stand, Stand::Alive | Stand::Left | Stand::Draining);
        let reason = member.reason.as_deref().filter(|_| stand != Stand::Left && stand != Stand::Draining);
        (!well || reason.is_some()).then(|| Trouble {
            what: labels[&*member.id].clone(),
            reason: reason.map(meaning).unwrap_or_else(|| stand.word().to_owned()),
            advice: member.advice.clone(),
            since_ms: Some(member.since_ms),
            sign: (stand.sign(screen), stand.ink()),
        })
    });
    checks.chain(members).collect()
}

fn shown(screen: Screen, page: &MembersPage, ready: &ReadyView, troubles: &[Trouble]) -> String {
    let mut text = String::new();
    let wide = page
        .islands
        .iter()
        .map(|island| crate::cli::output::width(&island.name))
        .max()
        .unwrap_or_default()
        .max(9);
    let mut line = |key: &str, parts: &[String]| {
        let key = visible(key);
        let pad = " ".repeat(wide.saturating_sub(crate::cli::output::width(&key)));
        let begin = crate::cli::output::width(&key) + pad.len() + 2;
        text.push_str(&format!("{key}{pad}  {}\n", in_parts(screen, begin, parts)));
    };
    let me = page.members.iter().find(|member| member.id == page.me.id);
    let mut about = vec![page.me.id.get(..8).unwrap_or_default().to_owned()];
    if let Some(me) = me {
        about.push(format!("isle {}", me.version));
        about.push(me.roles.join(", "));
        about.extend(me.http().map(|http| format!("http://{http}")));
    }
    line(&page.me.name, &about);
    for island in &page.islands {
        line(&island.name, &about_island(page, island, ready));
    }
    if let Some(load) = me.and_then(|me| me.load).filter(|load| load.capacity > 0) {
        line("requests", &[format!("{} of {} inside", load.in_flight, load.capacity)]);
    }
    if !troubles.is_empty() {
        text.push_str(&format!("\n{}\n", screen.paint(Ink::Bold, "Problems")));
    }
    let longest =
        troubles.iter().map(|trouble| crate::cli::output::width(&trouble.what)).max().unwrap_or_default();
    for trouble in troubles {
        let since = trouble.since_ms.map(|ms| format!("   since {}", ago(ms))).unwrap_or_default();
        let pad = " ".repeat(longest - crate::cli::output::width(&trouble.what));
        let sign = screen.paint(trouble.sign.1, trouble.sign.0);
        text.push_str(&format!(
            "  {sign} {}{pad}   {}{since}\n",
            visible(&trouble.what),
            visible(&trouble.reason)
        ));
        if let Some(advice) = &trouble.advice {
            text.push_str(&format!("      {}\n", visible(advice)));
        }
    }
    text
}

fn about_island(page: &MembersPage, island: &IslandView, ready: &ReadyView) -> Vec<String> {
    let count = |of: &[Stand]| -> String {
        let here = page.members.iter().filter(|member| member.island == island.name).map(Stand::of);
        let here: Vec<_> = here.collect();
        let counts = of.iter().map(|stand| (here.iter().filter(|of| *of == stand).count(), stand.word()));
        let counts: Vec<_> =
            counts.filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
        counts.join(", ")
    };
    let here = count(&[Stand::Alive, Stand::Draining, Stand::Unreachable, Stand::Suspect]);
    // Who is down is not counted as a member any more, but somebody may want it back.
    let standings: Vec<String> =
        [here, count(&[Stand::Down])].into_iter().filter(|counts| !counts.is_empty()).collect();
    let mut members = counted(island.members, "member", "members");
    if !standings.is_empty() {
        members.push_str(&format!(": {}", standings.join("; ")));
    }
    let mut parts = vec![members];
    if island.name == page.me.island {
        let complete =
            ready.checks.iter().find(|check| check.check == "table-complete").is_none_or(|check| check.ok);
        parts.push(if complete { "table complete" } else { "still fetching the table" }.to_owned());
    } else if !island.reachable {
        parts.push("out of reach".to_owned());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::members::tests::page;

    #[test]
    fn lines_are_folded_where_a_terminal_is_narrow() {
        let screen = Screen { width: Some(60), ..Screen::pipe() };
        let ready = ReadyView { ready: true, checks: Vec::new() };
        let mut page = page();
        page.members.retain(|member| !["cat", "garage"].contains(&&*member.name));
        assert_eq!(
            shown(screen, &page, &ready, &[]),
            "\
kitchen    k7q2mhf4   isle 0.1.0   pieces, intermediary
           http://192.168.1.20:5235
north      4 members: 1 alive, 1 draining   table complete
requests   3 of 256 inside
"
        );
    }

    #[test]
    fn what_is_wrong_comes_last_and_only_if_something_is() {
        let screen = Screen { width: Some(100), ..Screen::pipe() };
        let ready = ReadyView { ready: true, checks: Vec::new() };
        let mut page = page();
        let found = troubles(screen, &page, &ready);
        assert_eq!(
            shown(screen, &page, &ready, &found),
            "\
kitchen    k7q2mhf4   isle 0.1.0   pieces, intermediary   http://192.168.1.20:5235
north      4 members: 1 alive, 1 draining, 1 unreachable, 1 suspect   table complete
requests   3 of 256 inside

Problems
  ◌ cat      unreachable   since 8.1 s
  ◐ garage   nothing has been heard from it for longer than usual   since 8.1 s
      Wait a few seconds.
"
        );
        page.members.retain(|member| !["cat", "garage"].contains(&&*member.name));
        let found = troubles(screen, &page, &ready);
        assert!(found.is_empty() && !shown(screen, &page, &ready, &found).contains("Problems"));
    }
}
