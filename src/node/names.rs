//! A name of its own for a node that was given none.

use std::collections::BTreeSet;
use std::sync::Arc;

use isle_mesh::member::Member;
use isle_mesh::membership::Announcement;
use isle_mesh::mesh::Mesh;
use tracing::debug;

/// A node that was given no name takes another than those that other nodes of this host have: `box`, `box-2`, ...
pub(super) async fn distinguish(mesh: &Mesh) {
    let Some(name) = another_name(&mesh.me(), &mesh.table().all()) else { return };
    let news = Announcement { name: Some(name), ..Announcement::default() };
    if let Err(error) = mesh.announce(news).await {
        debug!(%error, "the name stays as it is");
    }
}

/// What we take if others of this host have our name. Members of other islands are on other hosts, whatever their
/// addresses: those of islands may overlap.
fn another_name(me: &Member, all: &[Arc<Member>]) -> Option<String> {
    let others: BTreeSet<&str> = all
        .iter()
        .filter(|member| !(member.is_self || member.far || member.standing.is_gone()))
        .filter(|member| is_on_this_host(me, member))
        .map(|member| &*member.record.name)
        .collect();
    let ours = &me.record.name;
    if !others.contains(&**ours) {
        return None;
    }
    (2..).map(|number| format!("{ours}-{number}")).find(|name| !others.contains(&**name))
}

/// Whether it announces an address of ours, or nothing but loopback: then we could not hear it from elsewhere.
fn is_on_this_host(me: &Member, other: &Member) -> bool {
    let (ours, theirs) = (&me.record.addresses, &other.record.addresses);
    theirs.iter().all(|address| address.ip.is_loopback())
        || theirs.iter().any(|a| !a.ip.is_loopback() && ours.iter().any(|own| own.ip == a.ip))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Instant;

    use bytes::Bytes;
    use isle_mesh::member::{Address, Load, MemberId, Record, Stamp, Standing};

    use super::*;

    fn member(number: u8, name: &str, ip: [u8; 4], far: bool) -> Arc<Member> {
        let record = Record {
            name: name.to_owned(),
            roles: Vec::new(),
            addresses: vec![Address { ip: IpAddr::from(ip), prefix: 24 }],
            http_port: 1233,
            unicast_port: 4000,
            island: if far { "south" } else { "north" }.to_owned(),
            island_given: true,
            draining: false,
            catalogue: None,
            watchers: Vec::new(),
            protocol: (1, 1),
            version: String::new(),
            tags: Vec::new(),
        };
        Arc::new(Member {
            id: MemberId([number; 32]),
            stamp: Stamp::new(1, 1),
            record: Arc::new(record),
            record_bytes: Bytes::new(),
            standing: Standing::Alive,
            proven: true,
            reachable: true,
            reason: None,
            since: Instant::now(),
            heard: None,
            load: Load::default(),
            http_addresses: Vec::new(),
            is_self: number == 1,
            far,
        })
    }

    #[test]
    fn a_name_differs_from_those_of_this_host_alone() {
        const HERE: [u8; 4] = [10, 0, 0, 1];
        let me = member(1, "box", HERE, false);
        let with = |others: &[Arc<Member>]| another_name(&me, &[std::slice::from_ref(&me), others].concat());
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[member(2, "box", HERE, false)]).as_deref(), Some("box-2"));
        let two = [member(2, "box", HERE, false), member(3, "box-2", HERE, false)];
        assert_eq!(with(&two).as_deref(), Some("box-3"));
        assert_eq!(with(&[member(2, "box", [10, 0, 0, 2], false)]), None, "another host");
        for ip in [HERE, [127, 0, 0, 1]] {
            assert_eq!(with(&[member(2, "box", ip, true)]), None, "another island with the same address");
        }
    }
}
