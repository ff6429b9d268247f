//! `/members` and `/members/{id}`: views over the table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use isle_mesh::member::Member;
use isle_mesh::mesh::Islands;

use crate::api::view::{IslandView, MemberView, MembersPage, SelfView};

/// The whole table as of `now`. O(n log n).
#[must_use]
pub fn page(me: &Member, mut members: Vec<Arc<Member>>, others: &Islands, now: Instant) -> MembersPage {
    members.sort_by(|a, b| a.record.name.cmp(&b.record.name).then(a.id.cmp(&b.id)));
    MembersPage {
        me: SelfView {
            id: me.id.to_string(),
            name: me.record.name.clone(),
            island: me.record.island.clone(),
        },
        islands: islands(&me.record.island, &members, others),
        members: members.iter().map(|member| MemberView::of(member, now)).collect(),
    }
}

/// Islands that members count themselves to, and those that bridges have ways to.
fn islands(own: &str, members: &[Arc<Member>], others: &Islands) -> Vec<IslandView> {
    let mut found: BTreeMap<&str, usize> = others.keys().map(|name| (name.as_str(), 0)).collect();
    found.insert(own, 0);
    for member in members {
        *found.entry(&member.record.island).or_default() += usize::from(!member.standing.is_gone());
    }
    let mut islands: Vec<_> = found
        .into_iter()
        .map(|(name, members)| {
            let other = others.get(name);
            let way = other.and_then(|island| island.ways.first());
            let path = way.map(|way| way.reach.path.islands()).unwrap_or_default();
            IslandView {
                name: name.to_owned(),
                reachable: name == own || other.is_some_and(|island| island.reachable),
                members,
                path: std::iter::once(own.to_owned()).chain(path.iter().cloned()).collect(),
            }
        })
        .collect();
    islands.sort_by_key(|island| island.name != own);
    islands
}

/// Why a word names no single member.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotFound {
    /// Nobody is called so and no id begins so.
    #[error("no member is called {0}, and no id begins with it")]
    Nobody(String),
    /// Several are meant by it.
    #[error("{word} may be {}", candidates.join(", "))]
    Several {
        /// The word.
        word: String,
        /// What would tell them apart, as `name~prefix`; at most 10.
        candidates: Vec<String>,
    },
}

/// Finds the member that a person means: by id, by name, by `name~prefix of the id`, or by a unique prefix of
/// the id. Of equal names the one that is not gone is meant.
///
/// # Errors
/// See [`NotFound`].
pub fn find(members: &[Arc<Member>], word: &str) -> Result<Arc<Member>, NotFound> {
    let lower = word.to_ascii_lowercase();
    if let Some(exact) = members.iter().find(|member| member.id.to_string() == lower) {
        return Ok(exact.clone());
    }
    let named: Vec<_> = members.iter().filter(|member| member.record.name == word).collect();
    if !named.is_empty() {
        return single(word, &named);
    }
    if let Some((name, prefix)) = word.rsplit_once('~') {
        let prefix = prefix.to_ascii_lowercase();
        let both: Vec<_> = members
            .iter()
            .filter(|member| member.record.name == name && member.id.to_string().starts_with(&prefix))
            .collect();
        return single(word, &both);
    }
    let begins: Vec<_> = members.iter().filter(|member| member.id.to_string().starts_with(&lower)).collect();
    single(word, &begins)
}

fn single(word: &str, found: &[&Arc<Member>]) -> Result<Arc<Member>, NotFound> {
    let here: Vec<_> = found.iter().copied().filter(|member| !member.standing.is_gone()).collect();
    match (found, &*here) {
        ([], _) => Err(NotFound::Nobody(word.to_owned())),
        ([only], _) | (_, [only]) => Ok(Arc::clone(only)),
        _ => {
            let candidates =
                found.iter().take(10).map(|m| format!("{}~{}", m.record.name, m.id.short())).collect();
            Err(NotFound::Several { word: word.to_owned(), candidates })
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use isle_mesh::member::{Load, MemberId, Record, Stamp, Standing};

    use super::*;

    pub(crate) fn member(byte: u8, name: &str, standing: Standing) -> Arc<Member> {
        Arc::new(Member {
            id: MemberId([byte; 32]),
            stamp: Stamp::new(1, 1),
            record: Arc::new(Record {
                name: name.into(),
                roles: vec!["pieces".into()],
                addresses: Vec::new(),
                http_port: 1233,
                unicast_port: 4000,
                island: "north".into(),
                island_given: true,
                draining: false,
                catalogue: None,
                watchers: Vec::new(),
                protocol: (1, 1),
                version: "0.1.0".into(),
                tags: Vec::new(),
            }),
            record_bytes: bytes::Bytes::new(),
            standing,
            proven: true,
            reachable: !standing.is_gone(),
            reason: None,
            since: Instant::now(),
            heard: None,
            load: Load::default(),
            http_addresses: vec!["10.77.0.2:1233".parse().unwrap()],
            is_self: false,
            far: false,
        })
    }

    #[test]
    fn a_word_finds_the_member_a_person_means() {
        let (old, new, other) = (
            member(1, "p1", Standing::Left),
            member(2, "p1", Standing::Alive),
            member(3, "hub", Standing::Suspect),
        );
        let all = [old.clone(), new.clone(), other.clone()];
        let found = |word: &str| find(&all, word).map(|member| member.id);
        assert_eq!(found("p1"), Ok(new.id), "the one that is not gone");
        assert_eq!(found(&format!("p1~{}", &old.id.to_string()[..4])), Ok(old.id));
        assert_eq!(found(&old.id.to_string().to_uppercase()), Ok(old.id));
        assert_eq!(found(&other.id.to_string()[..5]), Ok(other.id));
        assert!(matches!(found("nobody"), Err(NotFound::Nobody(_))));
        assert!(matches!(found("p1~zz"), Err(NotFound::Nobody(_))));
        assert!(matches!(found("a"), Err(NotFound::Several { .. })), "three ids begin with a");
    }

    #[test]
    fn equal_names_of_members_here_must_be_told_apart() {
        let all = [member(1, "p1", Standing::Alive), member(2, "p1", Standing::Alive)];
        let Err(NotFound::Several { candidates, .. }) = find(&all, "p1") else { panic!("found one") };
        assert_eq!(candidates.len(), 2);
        assert!(find(&all, &candidates[0]).is_ok() && find(&all, &candidates[1]).is_ok());
    }

    #[test]
    fn the_page_has_the_form_of_the_contract() {
        let me = member(9, "hub", Standing::Alive);
        let left = member(1, "p1", Standing::Left);
        let page = page(&me, vec![left, me.clone()], &Islands::default(), me.since);
        let json = serde_json::to_value(&page).unwrap();
        assert_eq!(json["self"]["name"], "hub");
        assert_eq!(
            json["islands"],
            serde_json::json!([{"name":"north","reachable":true,"members":1,"path":["north"]}])
        );
        assert_eq!(
            json["members"][1],
            serde_json::json!({
                "id": page.members[1].id, "name": "p1", "roles": ["pieces"], "island": "north",
                "standing": "left", "draining": false, "reachable": false, "address": "10.77.0.2",
                "port": 1233, "load": {"in_flight": 0, "capacity": 0}, "figures": null, "heard_ms": null,
                "version": "0.1.0", "protocol": 1, "since_ms": page.members[1].since_ms, "reason": null,
                "do": null
            })
        );
        assert_eq!(serde_json::from_value::<MembersPage>(json).unwrap(), page, "programs read it back");
    }
}
