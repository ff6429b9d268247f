//! `isle members`: who is there; and what is known of one.

use std::collections::HashMap;

use crate::api::view::{MemberView, MembersPage};
use crate::cli::arguments::Members;
use crate::cli::ask;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::sign::Stand;
use crate::cli::output::table::{Cell, Column, table};
use crate::cli::output::{Ink, Screen, ago, counted, in_parts, print, print_json};
use crate::config::similar::closest;
use crate::figures::text::visible;

/// Runs the command.
///
/// # Errors
/// Nobody answers, or there is no such member.
pub async fn run(members: &Members, screen: Screen) -> Result<Exit, Failure> {
    let node = ask::node(&members.ask).await?;
    let asked = ask::patiently(node.authority(), node.json::<MembersPage>("/members"));
    let page = asked.await.map_err(|error| ask::failed(&error))?;
    match &members.member {
        Some(word) => {
            let member = find(&page, word)?;
            if members.json {
                print_json(member)?
            } else {
                print(one(screen, &page, member))?
            };
        }
        None if members.json => {
            print_json(&page)?;
        }
        None => {
            let screen = if members.wide {
                Screen { width: screen.width.map(|_| usize::MAX), ..screen }
            } else {
                screen
            };
            print(all(screen, &page))?;
        }
    }
    Ok(Exit::Done)
}

/// What each member is called: its name, or `name~` and as much of its id as tells it from others of that name
/// that are not gone.
#[must_use]
pub fn labels(members: &[MemberView]) -> HashMap<&str, String> {
    let mut named: HashMap<&str, Vec<&MemberView>> = HashMap::new();
    for member in members {
        named.entry(&member.name).or_default().push(member);
    }
    let mut labels = HashMap::new();
    for (name, same) in named {
        let here = same.iter().filter(|member| !Stand::of(member).is_gone()).count();
        for member in &same {
            let alone = same.len() == 1 || (here == 1 && !Stand::of(member).is_gone());
            let label = if alone { name.to_owned() } else { format!("{name}~{}", telling(member, &same)) };
            labels.insert(&*member.id, label);
        }
    }
    labels
}

/// The shortest beginning of its id, of at least two characters, that no other's begins with.
fn telling<'a>(member: &'a MemberView, others: &[&MemberView]) -> &'a str {
    let differs = |length: &usize| {
        let beginning = member.id.get(..*length);
        others.iter().all(|other| other.id == member.id || other.id.get(..*length) != beginning)
    };
    let length = (2..member.id.len()).find(differs).unwrap_or(member.id.len());
    member.id.get(..length).unwrap_or(&member.id)
}

/// The member that a person means, by the rules of `GET /members/{id}`.
///
/// # Errors
/// None, or more than one.
pub fn find<'a>(page: &'a MembersPage, word: &str) -> Result<&'a MemberView, Failure> {
    let lower = word.to_ascii_lowercase();
    let single = |found: Vec<&'a MemberView>| -> Result<&'a MemberView, Failure> {
        let here: Vec<_> = found.iter().copied().filter(|member| !Stand::of(member).is_gone()).collect();
        match (&*found, &*here) {
            ([], _) => {
                let names = page.members.iter().map(|member| &*member.name);
                let hint =
                    closest(word, names).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
                let what = format!("no member is called \"{word}\"{hint}");
                Err(Failure::new(Exit::Failed, what).advise("see who is there with: isle members"))
            }
            ([only], _) | (_, [only]) => Ok(only),
            (several, _) => {
                let labels = labels(&page.members);
                let which: Vec<_> = several.iter().take(10).map(|member| &*labels[&*member.id]).collect();
                Err(Failure::new(Exit::Failed, format!("\"{word}\" may be {}", which.join(", "))))
            }
        }
    };
    let matching = |test: &dyn Fn(&MemberView) -> bool| {
        page.members.iter().filter(|member| test(member)).collect::<Vec<_>>()
    };
    let named = matching(&|member| member.id == lower || member.name == word);
    if !named.is_empty() {
        return single(named);
    }
    if let Some((name, prefix)) = word.rsplit_once('~') {
        let prefix = prefix.to_ascii_lowercase();
        return single(matching(&|member| member.name == name && member.id.starts_with(&prefix)));
    }
    single(matching(&|member| !lower.is_empty() && member.id.starts_with(&lower)))
}

/// Everybody, as a table.
#[must_use]
pub fn all(screen: Screen, page: &MembersPage) -> String {
    const COLUMNS: [Column; 9] = [
        Column::sign(),
        Column::new("NAME").cut(),
        Column::new("ISLAND").rank(5),
        Column::new("ROLES").rank(4),
        Column::new("STANDING"),
        Column::new("LOAD").right().rank(2),
        Column::new("FIGS").piped("FIGURES").right().rank(3),
        Column::new("HEARD").piped("HEARD_MS").right().rank(6),
        Column::new("ADDRESS").rank(1),
    ];
    let labels = labels(&page.members);
    let piped = !screen.is_terminal();
    let rows: Vec<_> = page
        .members
        .iter()
        .map(|member| {
            let stand = Stand::of(member);
            let me = member.id == page.me.id;
            let label = &labels[&*member.id];
            let load = member.load.filter(|load| load.capacity > 0 && !stand.is_gone());
            let heard = match member.heard_ms {
                Some(ms) if piped => ms.to_string(),
                Some(ms) => ago(ms),
                None => String::new(),
            };
            vec![
                Cell::inked(stand.sign(screen), stand.ink()),
                if me && !piped { format!("{label}*") } else { label.clone() }.into(),
                (&member.island).into(),
                if piped { member.roles.join(",") } else { letters(&member.roles) }.into(),
                Cell::inked(stand.word(), stand.ink()),
                load.map(|load| format!("{}/{}", load.in_flight, load.capacity)).unwrap_or_default().into(),
                member.figures.map(|figures| figures.to_string()).unwrap_or_default().into(),
                if me { String::new() } else { heard }.into(),
                if stand == Stand::Left && !piped {
                    "said farewell".to_owned()
                } else {
                    member.http().unwrap_or_default()
                }
                .into(),
            ]
        })
        .collect();
    let mut text = table(screen, &COLUMNS, &rows);
    if !piped {
        let here = page.members.iter().filter(|member| !Stand::of(member).is_gone()).count();
        let islands = counted(page.islands.len(), "island", "islands");
        let members = format!("{} on {islands}", counted(here, "member", "members"));
        let legend = "P pieces  I intermediary  B bridge  * who answers".to_owned();
        text.push_str(&in_parts(screen, 0, &[members, legend]));
        text.push('\n');
    }
    text
}

/// `PI` for pieces and intermediary; roles that have no letter in full.
fn letters(roles: &[String]) -> String {
    let known = |role: &str| match role {
        "pieces" => Some("P"),
        "intermediary" => Some("I"),
        "bridge" => Some("B"),
        _ => None,
    };
    let mut text: String = roles.iter().filter_map(|role| known(role)).collect();
    for role in roles.iter().filter(|role| known(role).is_none()) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(role);
    }
    text
}

/// All that is known of one.
#[must_use]
pub fn one(screen: Screen, page: &MembersPage, member: &MemberView) -> String {
    let stand = Stand::of(member);
    let label = &labels(&page.members)[&*member.id];
    let since = if screen.is_terminal() {
        format!("since {}", ago(member.since_ms))
    } else {
        format!("since_ms {}", member.since_ms)
    };
    let mut text = format!(
        "{} {}   {}   {since}\n",
        screen.paint(stand.ink(), stand.sign(screen)),
        screen.paint(Ink::Bold, &visible(label)),
        screen.paint(stand.ink(), stand.word()),
    );
    let mut line = |key: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("  {key:<9} {}\n", visible(&value)));
        }
    };
    let or_none = |value: Option<String>| value.unwrap_or_default();
    line("why", or_none(member.reason.as_deref().map(meaning)));
    line("do", or_none(member.advice.clone()));
    line("id", member.id.clone());
    line("island", member.island.clone());
    line("roles", member.roles.join(", "));
    line("address", or_none(member.http().map(|http| format!("http://{http}"))));
    let load = member.load.filter(|load| load.capacity > 0);
    line("load", or_none(load.map(|load| format!("{} of {} requests", load.in_flight, load.capacity))));
    line("figures", or_none(member.figures.map(|figures| figures.to_string())));
    line("heard", or_none(member.heard_ms.map(|ms| format!("{} ago", ago(ms)))));
    line("version", format!("{} (protocol {})", member.version, member.protocol));
    text
}

/// A reason in words, and the word itself where a later version has one we do not know.
#[must_use]
pub fn meaning(reason: &str) -> String {
    use isle_mesh::member::Reason;
    let known = Reason::ALL.into_iter().find(|known| known.as_str() == reason);
    known.map_or_else(|| reason.to_owned(), |known| crate::api::view::meaning(known).to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::api::view::{IslandView, LoadView, SelfView};

    pub(crate) fn member(id: &str, name: &str, standing: &str) -> MemberView {
        MemberView {
            id: id.to_owned(),
            name: name.to_owned(),
            roles: vec!["pieces".to_owned()],
            island: "north".to_owned(),
            standing: standing.to_owned(),
            draining: false,
            reachable: standing != "left" && standing != "down",
            address: Some("192.168.1.20".to_owned()),
            port: 1233,
            load: Some(LoadView { in_flight: 3, capacity: 256 }),
            figures: Some(17),
            heard_ms: Some(120),
            version: "0.1.0".to_owned(),
            protocol: 1,
            since_ms: 8_123,
            reason: None,
            advice: None,
        }
    }

    pub(crate) fn page() -> MembersPage {
        let mut hub = member("k7q2mhf4", "kitchen", "alive");
        hub.roles = vec!["pieces".into(), "intermediary".into()];
        hub.port = 5235;
        let mut garage = member("m3wd8k2p", "garage", "suspect");
        garage.reason = Some("silent".into());
        garage.advice = Some("Wait a few seconds.".into());
        garage.address = Some("fe80::1".into());
        let mut shed = member("a2aaaaaa", "shed", "alive");
        (shed.draining, shed.figures, shed.heard_ms) = (true, None, None);
        let mut cat = member("b2bbbbbb", "cat", "alive");
        (cat.reachable, cat.load, cat.address) = (false, None, None);
        MembersPage {
            me: SelfView { id: hub.id.clone(), name: "kitchen".into(), island: "north".into() },
            islands: vec![IslandView {
                name: "north".into(),
                reachable: true,
                members: 4,
                path: vec!["north".into()],
            }],
            members: vec![cat, garage, hub, member("c2cccccc", "old-pi", "left"), shed],
        }
    }

    const TERMINAL: Screen = Screen { color: false, true_color: false, unicode: true, width: Some(80) };

    #[test]
    fn people_see_a_table() {
        assert_eq!(
            all(TERMINAL, &page()),
            "\
\x20 NAME      ISLAND  ROLES  STANDING      LOAD  FIGS  HEARD  ADDRESS
◌ cat       north   P      unreachable      -    17  0.1 s  -
◐ garage    north   P      suspect      3/256    17  0.1 s  [fe80::1]:1233
● kitchen*  north   PI     alive        3/256    17      -  192.168.1.20:5235
○ old-pi    north   P      left             -    17  0.1 s  said farewell
▾ shed      north   P      draining     3/256     -      -  192.168.1.20:1233
4 members on 1 island   P pieces  I intermediary  B bridge  * who answers
"
        );
    }

    #[test]
    fn programs_get_fields() {
        assert_eq!(
            all(Screen::pipe(), &page()),
            "\
NAME     ISLAND  ROLES                STANDING      LOAD  FIGURES  HEARD_MS  ADDRESS
cat      north   pieces               unreachable      -       17       120  -
garage   north   pieces               suspect      3/256       17       120  [fe80::1]:1233
kitchen  north   pieces,intermediary  alive        3/256       17         -  192.168.1.20:5235
old-pi   north   pieces               left             -       17       120  192.168.1.20:1233
shed     north   pieces               draining     3/256        -         -  192.168.1.20:1233
"
        );
    }

    #[test]
    fn a_narrow_terminal_keeps_names_and_standings() {
        assert_eq!(
            all(Screen { width: Some(40), unicode: false, ..TERMINAL }, &page())
                .lines()
                .take(3)
                .collect::<Vec<_>>(),
            [
                "  NAME    STANDING     ADDRESS",
                "~ cat     unreachable  -",
                "? garage  suspect      [fe80::1]:1233"
            ]
        );
    }

    #[test]
    fn equal_names_are_told_apart_unless_all_but_one_are_gone() {
        let three =
            [member("k7aa", "p1", "alive"), member("k7bb", "p1", "alive"), member("m3", "p1", "left")];
        let named = labels(&three);
        assert_eq!((&*named["k7aa"], &*named["k7bb"], &*named["m3"]), ("p1~k7a", "p1~k7b", "p1~m3"));
        let two = [member("k7", "p1", "alive"), member("m3", "p1", "left")];
        let named = labels(&two);
        assert_eq!((&*named["k7"], &*named["m3"]), ("p1", "p1~m3"));
    }

    #[test]
    fn members_are_found_as_people_name_them() {
        let page = page();
        assert_eq!(find(&page, "garage").unwrap().id, "m3wd8k2p");
        assert_eq!(find(&page, "M3W").unwrap().name, "garage");
        assert_eq!(find(&page, "garage~m3").unwrap().name, "garage");
        assert_eq!(
            find(&page, "garaeg").unwrap_err().to_string(),
            "isle: no member is called \"garaeg\"; did you mean garage?\n  see who is there with: isle members"
        );
        assert!(find(&page, "").is_err());
    }

    #[test]
    fn one_member_is_told_with_its_reason() {
        let page = page();
        assert_eq!(
            one(TERMINAL, &page, &page.members[1]),
            "\
◐ garage   suspect   since 8.1 s
  why       nothing has been heard from it for longer than usual
  do        Wait a few seconds.
  id        m3wd8k2p
  island    north
  roles     pieces
  address   http://[fe80::1]:1233
  load      3 of 256 requests
  figures   17
  heard     0.1 s ago
  version   0.1.0 (protocol 1)
"
        );
    }
}
