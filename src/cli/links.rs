//! `isle links`, `isle invite`, and what `isle bridge` does with the bridge that runs on this host.

use std::io;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::api::view::{LinkView, LinksPage};
use crate::cli::arguments::{BridgeCommand, Invite, InviteCommand, Links, Local};
use crate::cli::ask;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::table::{Cell, Column, table};
use crate::cli::output::{Ink, Screen, ago, counted, note, print, print_json};
use crate::config::load::default_state_dir;
use crate::figures::text::visible;
use crate::roles::bridge::control::{self, Reply, Request};
use crate::roles::bridge::invites;

/// `isle links`.
///
/// # Errors
/// Nobody answers.
pub async fn run(links: &Links, screen: Screen) -> Result<Exit, Failure> {
    let node = ask::node(&links.ask).await?;
    let page: LinksPage =
        ask::patiently(node.authority(), node.json("/links")).await.map_err(|error| ask::failed(&error))?;
    if links.json {
        print_json(&page)?
    } else {
        print(shown(screen, &page.links))?
    };
    Ok(Exit::Done)
}

/// `isle bridge link`, `allow`, `unlink`, `links`.
///
/// # Errors
/// No bridge runs here, or it does not do it.
pub async fn bridge(command: BridgeCommand, screen: Screen) -> Result<Exit, Failure> {
    let (request, host, json) = match command {
        BridgeCommand::Link { target, host } => (Request::Link { target }, host, false),
        BridgeCommand::Allow { key, host } => (Request::Allow { key }, host, false),
        BridgeCommand::Unlink { key, host } => (Request::Unlink { key }, host, false),
        BridgeCommand::Links { json, host } => (Request::Links, host, json),
    };
    match asked(&host, &request).await? {
        reply @ Reply::Links { .. } if json => print_json(&reply)?,
        Reply::Links { links, refused } => print(shown(screen, &links) + &strangers(&refused))?,
        Reply::Done { note } => print(format!("{}\n", visible(&note)))?,
        other => return Err(unexpected(&other)),
    };
    Ok(Exit::Done)
}

/// `isle invite`.
///
/// # Errors
/// As [`bridge`].
pub async fn invite(invite: Invite, screen: Screen) -> Result<Exit, Failure> {
    let (request, host, json) = match invite.command {
        None => {
            let expires_s = invite.expires.as_secs().max(1);
            let ask = Request::Invite { expires_s, uses: invite.uses, places: invite.address };
            (ask, invite.host, false)
        }
        Some(InviteCommand::List { json, host }) => (Request::Invites, host, json),
        Some(InviteCommand::Revoke { id, host }) => (Request::Revoke { id }, host, false),
    };
    match asked(&host, &request).await? {
        Reply::Token { id, token } => {
            print(format!("{token}\n"))?;
            let times = counted(invite.uses as usize, "bridge", "bridges");
            let within = in_words(invite.expires.as_secs());
            note(&format!(
                "Shown once. For {times}, within {within}; there: isle bridge link TOKEN. To take it back: isle invite revoke {id}"
            ));
        }
        Reply::Invites { invites } if json => {
            print_json(&invites)?;
        }
        Reply::Invites { invites } => {
            print(made(screen, &invites))?;
        }
        Reply::Done { note } => {
            print(format!("{}\n", visible(&note)))?;
        }
        other => return Err(unexpected(&other)),
    }
    Ok(Exit::Done)
}

/// Asks the bridge that runs with that state directory.
async fn asked(host: &Local, request: &Request) -> Result<Reply, Failure> {
    let named = host.state_dir.clone().filter(|dir| !dir.as_os_str().is_empty());
    let dir: PathBuf = named.or_else(default_state_dir).ok_or_else(|| {
        Failure::new(Exit::Failed, "there is no home directory in which a bridge would have its state")
            .advise("name its state directory with: --state-dir DIR")
    })?;
    match control::ask(&dir, request).await {
        Ok(Reply::Failed { why, advice }) => {
            Err(Failure::new(Exit::Failed, visible(&why)).advise(visible(&advice)))
        }
        Ok(reply) => Ok(reply),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let what = format!("the bridge with the state directory {} is another user's", dir.display());
            Err(Failure::new(Exit::Failed, what)
                .advise("ask as that user, for example with: sudo -u USER isle bridge links"))
        }
        Err(error) => {
            let what = format!("no bridge runs here with the state directory {}: {error}", dir.display());
            Err(Failure::new(Exit::Failed, what)
                .advise("start one with: isle bridge, or name another's directory with: --state-dir DIR"))
        }
    }
}

fn unexpected(reply: &Reply) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("the bridge answers something else: {}", visible(&format!("{reply:?}"))),
    )
    .advise("use a program of the same version as the bridge's")
}

fn shown(screen: Screen, links: &[LinkView]) -> String {
    const COLUMNS: [Column; 6] = [
        Column::new("BRIDGES"),
        Column::new("ISLANDS"),
        Column::new("STATE"),
        Column::new("SINCE").right().piped("SINCE_MS").rank(1),
        Column::new("RTT_MS").right().rank(2),
        Column::new("WHY").cut(),
    ];
    if links.is_empty() {
        return "no links\n".to_owned();
    }
    // Which bridge of another island it is, only those at the ends may know.
    let ends = |link: &LinkView| {
        let known = link.ends.iter().filter(|id| !id.is_empty());
        known.map(|id| id.get(..8).unwrap_or(id)).collect::<Vec<_>>().join("-")
    };
    let rows: Vec<Vec<Cell>> = links
        .iter()
        .map(|link| {
            let ink = match link.state.as_str() {
                "up" => Ink::Green,
                "refused" => Ink::Red,
                _ => Ink::Yellow,
            };
            let since = if screen.is_terminal() { ago(link.since_ms) } else { link.since_ms.to_string() };
            // On a terminal the advice is below, for here it would be cut.
            let advice = link.advice.as_deref().filter(|_| !screen.is_terminal());
            let why = [link.reason.as_deref(), advice].into_iter().flatten().collect::<Vec<_>>();
            let name = |island: &String| if island.is_empty() { "?".to_owned() } else { island.clone() };
            vec![
                Cell::from(ends(link)),
                Cell::from(link.islands.iter().map(name).collect::<Vec<_>>().join("-")),
                Cell::inked(&link.state, ink),
                Cell::from(since),
                Cell::from(link.round_trip_ms.map(|ms| ms.to_string()).unwrap_or_default()),
                Cell::from(why.join(": ")),
            ]
        })
        .collect();
    let mut text = table(screen, &COLUMNS, &rows);
    for link in links.iter().filter(|_| screen.is_terminal()) {
        if let Some(advice) = &link.advice {
            let why = visible(link.reason.as_deref().unwrap_or(&link.state));
            text.push_str(&format!("{}: {why}. {}\n", ends(link), visible(advice)));
        }
    }
    text
}

/// A length of time for people.
fn in_words(seconds: u64) -> String {
    if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds.div_ceil(60)) }
}

fn strangers(refused: &[(String, String)]) -> String {
    let line = |(key, why): &(String, String)| {
        // What lets it in, ready to be copied; whoever is unknown has no link that says so.
        let advice = match why.as_str() {
            "unknown-key" => format!(": isle bridge allow {}", visible(key)),
            "invite-expired" | "invite-used" => ": isle invite".to_owned(),
            _ => String::new(),
        };
        format!("refused {} {}{advice}\n", visible(key), visible(why))
    };
    refused.iter().map(line).collect()
}

fn made(screen: Screen, invites: &[invites::Invite]) -> String {
    const COLUMNS: [Column; 4] = [
        Column::new("ID"),
        Column::new("USES_LEFT").right(),
        Column::new("EXPIRES"),
        Column::new("USED_BY").cut(),
    ];
    if invites.is_empty() {
        return "no invites\n".to_owned();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let rows: Vec<Vec<Cell>> = invites
        .iter()
        .map(|invite| {
            let expires = match invite.expires.checked_sub(now) {
                Some(left @ 1..) => format!("in {}", in_words(left)),
                _ => "expired".to_owned(),
            };
            vec![
                Cell::from(&invite.id),
                Cell::from(invite.uses_left.to_string()),
                Cell::from(expires),
                Cell::from(invite.used_by.join(",")),
            ]
        })
        .collect();
    table(screen, &COLUMNS, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_not_known_is_left_out() {
        let link = LinkView {
            ends: ["k7abcdefgh".to_owned(), String::new()],
            islands: ["north".to_owned(), "south".to_owned()],
            state: "up".to_owned(),
            round_trip_ms: Some(12),
            since_ms: 3000,
            reason: None,
            advice: None,
        };
        let pipe = Screen::pipe();
        let text = shown(pipe, std::slice::from_ref(&link));
        assert_eq!(text.lines().nth(1).unwrap().split_whitespace().next(), Some("k7abcdef"), "{text}");
        let known = LinkView { ends: [link.ends[0].clone(), "m2abcdefgh".to_owned()], ..link };
        let text = shown(pipe, &[known]);
        assert_eq!(
            text.lines().nth(1).unwrap().split_whitespace().next(),
            Some("k7abcdef-m2abcdef"),
            "{text}"
        );
    }
}
