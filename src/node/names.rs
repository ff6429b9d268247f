//! A name of its own for a node that was given none.

use isle_mesh::member::Member;
use isle_mesh::membership::Announcement;
use isle_mesh::mesh::Mesh;
use tracing::debug;

/// A node that was given no name takes another than those that other nodes of this host have: `box`, `box-2`, ...
pub(super) async fn distinguish(mesh: &Mesh) {
    let me = mesh.me();
    let others: Vec<_> = mesh
        .table()
        .all()
        .into_iter()
        .filter(|member| !member.is_self && !member.standing.is_gone() && is_on_this_host(&me, member))
        .map(|member| member.record.name.clone())
        .collect();
    let base = me.record.name.clone();
    if !others.contains(&base) {
        return;
    }
    let free = (2..).map(|number| format!("{base}-{number}")).find(|name| !others.contains(name));
    let news = Announcement { name: free, ..Announcement::default() };
    if let Err(error) = mesh.announce(news).await {
        debug!(%error, "the name stays as it is");
    }
}

/// Whether it announces an address of ours, or nothing but loopback: then we could not hear it from elsewhere.
fn is_on_this_host(me: &Member, other: &Member) -> bool {
    let (ours, theirs) = (&me.record.addresses, &other.record.addresses);
    theirs.iter().all(|address| address.ip.is_loopback())
        || theirs.iter().any(|a| !a.ip.is_loopback() && ours.iter().any(|own| own.ip == a.ip))
}
