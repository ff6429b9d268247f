//! `isle watch`: what happens, as it happens, through breaks of the stream.

use std::collections::HashMap;

use jiff::Zoned;
use serde::de::IgnoredAny;

use crate::api::view::{MemberEvent, MemberView, MembersPage};
use crate::cli::arguments::Watch;
use crate::cli::ask;
use crate::cli::client::events::{Events, Next, SentEvent};
use crate::cli::failure::{Exit, Failure};
use crate::cli::members::{labels, meaning};
use crate::cli::output::sign::Stand;
use crate::cli::output::{Ink, Screen, counted, note, plain_json, print};
use crate::figures::text::visible;

/// Runs the command: until Ctrl+C, or until nobody reads it any more.
///
/// # Errors
/// Nobody answers at the start; later that is noted, and tried again.
pub async fn run(watch: &Watch, screen: Screen) -> Result<Exit, Failure> {
    let node = ask::node(&watch.ask).await?;
    let mut events = Events::open(node.clone()).await.map_err(|error| ask::failed(&error))?;
    let mut teller = Teller::new(screen);
    let mut lost = false;
    loop {
        let next = tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
            next = events.next() => next,
        };
        let event = match next {
            Next::Event(event) => event,
            Next::Lost(error) => {
                // Once, not at each attempt.
                if !std::mem::replace(&mut lost, true) {
                    note(&format!(
                        "{}; trying again until it is back",
                        Failure::of(Exit::Failed, &error).what
                    ));
                }
                continue;
            }
        };
        if std::mem::replace(&mut lost, false) {
            note(&format!("{} is back", node.authority()));
        }
        let goes_on = if watch.json {
            print(plain_json(&json_line(&event)).as_bytes())?
        } else {
            let time = Zoned::now().strftime("%H:%M:%S").to_string();
            let lines = teller.tell(&time, &event);
            if lines.is_empty() { true } else { print(lines)? }
        };
        if !goes_on {
            return Ok(Exit::Done);
        }
    }
}

/// One event as `--json` prints it; its data as it was sent, if that is JSON on one line.
fn json_line(event: &SentEvent) -> String {
    let text = |text: &str| serde_json::to_string(text).expect("texts are JSON");
    let is_json = !event.data.contains('\n') && serde_json::from_str::<IgnoredAny>(&event.data).is_ok();
    // A node that sends something else is not silenced.
    let data = if is_json { event.data.clone() } else { text(&event.data) };
    format!("{{\"id\":{},\"event\":{},\"data\":{data}}}\n", text(&event.id), text(&event.name))
}

/// Events in words; remembers who is there to call each by a name that is its own.
#[derive(Debug)]
struct Teller {
    screen: Screen,
    members: HashMap<String, MemberView>,
    started: bool,
}

impl Teller {
    fn new(screen: Screen) -> Self {
        Self { screen, members: HashMap::new(), started: false }
    }

    /// Lines about an event; none when it says nothing new to people.
    fn tell(&mut self, time: &str, event: &SentEvent) -> String {
        if event.name == "snapshot" {
            return match serde_json::from_str::<MembersPage>(&event.data) {
                Ok(page) => self.snapshot(time, page),
                Err(_) => String::new(),
            };
        }
        match serde_json::from_str::<MemberEvent>(&event.data) {
            Ok(MemberEvent { member }) => self.member(time, &event.name, member),
            // Islands and links: a word, a name.
            Err(_) => self.line(time, &event.name, Ink::Plain, &other(&event.data), "", ""),
        }
    }

    fn snapshot(&mut self, time: &str, page: MembersPage) -> String {
        let again = std::mem::replace(&mut self.started, true);
        let here = page.members.iter().filter(|member| !Stand::of(member).is_gone()).count();
        let me = format!("{} {}", page.me.name, page.me.id.get(..8).unwrap_or_default());
        self.members = page.members.into_iter().map(|member| (member.id.clone(), member)).collect();
        if !self.screen.is_terminal() {
            return String::new();
        }
        let missed = if again { "; what happened meanwhile may be missing here" } else { "" };
        let text = format!("{} listed by {}{missed}", counted(here, "member", "members"), me);
        self.line(time, "snapshot", Ink::Dim, &page.me.island, "", &text)
    }

    fn member(&mut self, time: &str, name: &str, member: MemberView) -> String {
        let before = self.members.insert(member.id.clone(), member.clone());
        let all: Vec<_> = self.members.values().cloned().collect();
        let label = labels(&all)[&*member.id].clone();
        let text = match name {
            "joined" => {
                let figures = member.figures.map(|figures| counted(figures as usize, "figure", "figures"));
                let roles = member.roles.iter().cloned().chain(figures);
                roles.chain(member.http()).collect::<Vec<_>>().join(", ")
            }
            "updated" => match changes(before.as_ref(), &member) {
                Some(changes) => changes,
                // Load and the like: too often for people, and in --json for programs.
                None => return String::new(),
            },
            "back" => "heard again".to_owned(),
            _ => member.reason.as_deref().map(meaning).unwrap_or_default(),
        };
        self.line(time, name, Stand::of(&member).ink(), &label, &member.island, &text)
    }

    fn line(&self, time: &str, event: &str, ink: Ink, name: &str, island: &str, text: &str) -> String {
        let (event, name) = (format!("{:<10}", visible(event)), visible(name));
        let (event, text) = (self.screen.paint(ink, &event), visible(text));
        let line = format!("{time}  {event}  {name:<10}  {:<8}  {text}", visible(island));
        line.trim_end().to_owned() + "\n"
    }
}

/// What people care about in an update; `None` if there is nothing of that.
fn changes(before: Option<&MemberView>, now: &MemberView) -> Option<String> {
    let before = before?;
    let mut changes = Vec::new();
    if before.name != now.name {
        changes.push(format!("was called {}", before.name));
    }
    if before.figures != now.figures {
        changes.push(counted(now.figures.unwrap_or_default() as usize, "figure", "figures"));
    }
    if before.roles != now.roles {
        changes.push(now.roles.join(", "));
    }
    if (&before.address, before.port) != (&now.address, now.port) {
        changes.extend(now.http().map(|http| format!("at {http}")));
    }
    if before.island != now.island {
        changes.push(format!("was on {}", before.island));
    }
    if before.reachable != now.reachable {
        changes.push(if now.reachable { "reachable" } else { "unreachable" }.to_owned());
    }
    (!changes.is_empty()).then(|| changes.join(", "))
}

/// The name in the data of an event that is not about a member.
fn other(data: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
    match value.get("island").and_then(serde_json::Value::as_str) {
        Some(island) => island.to_owned(),
        None => value
            .get("link")
            .and_then(|link| link.get("islands"))
            .map(ToString::to_string)
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::members::tests::{member, page};

    fn event(name: &str, member: &MemberView) -> SentEvent {
        let data = serde_json::to_string(&MemberEvent { member: member.clone() }).unwrap();
        SentEvent { id: "a-1".into(), name: name.into(), data }
    }

    #[test]
    fn what_happens_is_told_in_words() {
        let mut teller = Teller::new(Screen { width: Some(80), ..Screen::pipe() });
        let snapshot = SentEvent {
            id: "a-0".into(),
            name: "snapshot".into(),
            data: serde_json::to_string(&page()).unwrap(),
        };
        let mut told = teller.tell("07:31:00", &snapshot);
        let mut attic = member("e2e", "attic", "alive");
        told += &teller.tell("07:31:04", &event("joined", &attic));
        attic.load = None;
        told += &teller.tell("07:31:05", &event("updated", &attic));
        attic.figures = Some(1);
        told += &teller.tell("07:31:06", &event("updated", &attic));
        attic.standing = "down".into();
        attic.reason = Some("no-answer".into());
        told += &teller.tell("07:31:09", &event("down", &attic));
        told += &teller.tell("07:31:10", &event("joined", &member("f2f", "garage", "alive")));
        told += &teller.tell(
            "07:31:11",
            &SentEvent {
                data: "{\"island\":\"west\"}".into(),
                name: "island-down".into(),
                id: String::new(),
            },
        );
        assert_eq!(
            told,
            "\
07:31:00  snapshot    north                 4 members listed by kitchen k7q2mhf4
07:31:04  joined      attic       north     pieces, 17 figures, 192.168.1.20:1233
07:31:06  updated     attic       north     1 figure
07:31:09  down        attic       north     it has fallen silent and does not answer pings
07:31:10  joined      garage~f2   north     pieces, 17 figures, 192.168.1.20:1233
07:31:11  island-down  west
"
        );
    }

    #[test]
    fn json_keeps_the_data_as_it_was_sent() {
        let event = SentEvent { id: "a-1".into(), name: "joined".into(), data: "{\"b\":1,\"a\":2.0}".into() };
        assert_eq!(json_line(&event), "{\"id\":\"a-1\",\"event\":\"joined\",\"data\":{\"b\":1,\"a\":2.0}}\n");
    }
}
