//! What answers this node's requests, and tells readers of its events what happens.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use isle_mesh::event::{Event, EventKind};
use isle_mesh::member::{Member, MemberId};
use isle_mesh::mesh::{Ended, Islands, Mesh};
use isle_mesh::metrics::Counts;
use isle_mesh::shared::SharedTable;
use tracing::{debug, info, warn};

use super::Ending;
use crate::api::ready::Service;
use crate::api::view::{self, LinkView};
use crate::api::{Api, Source};
use crate::http::accept::{App, Opened};
use crate::http::body::Answer;
use crate::http::request::{Connect, Gated};
use crate::http::respond;
use crate::roles::bridge::BridgeRole;
use crate::roles::intermediary::Intermediary;
use crate::roles::pieces::Pieces;

/// What answers this node's requests.
pub(super) struct NodeApp {
    pub(super) mesh: Mesh,
    pub(super) api: Api,
    pub(super) pieces: Option<Pieces>,
    pub(super) intermediary: Option<Intermediary>,
    pub(super) bridge: Option<BridgeRole>,
}

impl App for NodeApp {
    async fn connect(&self, request: Connect) -> Option<Result<Opened, Answer>> {
        Some(self.bridge.as_ref()?.connect(&request).await)
    }

    async fn answer(&self, request: Gated) -> Answer {
        if let Some(answer) = self.api.answer(&request).await {
            return answer;
        }
        if let Some(intermediary) = &self.intermediary
            && let Some(answer) = intermediary.answer(&request).await
        {
            return answer;
        }
        if let Some(pieces) = &self.pieces
            && let Some(answer) = pieces.answer(&self.mesh, &request).await
        {
            return answer;
        }
        respond::no_such_path(&request.path).into_answer()
    }
}

/// The mesh as the API sees it.
pub(crate) struct NodeSource {
    pub(crate) mesh: Mesh,
    pub(crate) bridge: Option<BridgeRole>,
    pub(crate) pieces: Option<Pieces>,
}

impl Source for NodeSource {
    fn service(&self) -> Service {
        self.pieces.as_ref().map_or(Service::None, Pieces::service)
    }

    fn far_records(&self, instance: u64, since: u64) -> BoxFuture<'_, Bytes> {
        Box::pin(self.mesh.far_records(instance, since))
    }

    fn islands(&self) -> Islands {
        self.mesh.islands().borrow().clone()
    }

    fn links(&self) -> BoxFuture<'_, Vec<LinkView>> {
        Box::pin(async move {
            match &self.bridge {
                Some(bridge) => bridge.links(&self.mesh.island()).await,
                None => links_of(&self.mesh),
            }
        })
    }

    fn me(&self) -> Arc<Member> {
        self.mesh.me()
    }

    fn table(&self) -> &SharedTable {
        self.mesh.table()
    }

    fn is_complete(&self) -> bool {
        self.mesh.is_complete()
    }

    fn may_ask(&self, asker: IpAddr) -> bool {
        self.mesh.may_ask(asker)
    }

    fn counts(&self) -> Counts {
        self.mesh.counts()
    }

    fn records(&self) -> BoxFuture<'_, Bytes> {
        Box::pin(self.mesh.records())
    }

    fn proof(&self, nonce: &[u8; 16], dialled: SocketAddr) -> Vec<u8> {
        self.mesh.proof(nonce, dialled)
    }
}

/// The links of our island's bridges, as these say what they reach: all up, for of others they say nothing.
fn links_of(mesh: &Mesh) -> Vec<LinkView> {
    let (own, islands, members) = (mesh.island(), mesh.islands(), mesh.table().all());
    let islands = islands.borrow();
    let ways = islands.values().flat_map(|island| island.ways.iter().map(move |way| (island, way)));
    let links = ways.filter(|(_, way)| way.reach.path.islands().len() == 1);
    links
        .map(|(island, way)| {
            let far = only_bridge(&members, &island.name);
            let mut ends = [way.bridge.to_string(), far.map(|id| id.to_string()).unwrap_or_default()];
            let mut between = [own.clone(), island.name.clone()];
            // In the order of their keys, as the bridges themselves show it.
            if far.is_some_and(|far| far < way.bridge) {
                ends.reverse();
                between.reverse();
            }
            LinkView {
                ends,
                islands: between,
                state: "up".to_owned(),
                round_trip_ms: Some(view::millis(way.reach.cost)),
                since_ms: view::millis(island.since.elapsed()),
                reason: None,
                advice: None,
            }
        })
        .collect()
}

/// The bridge of another island at which a link to that island must end; `None` where there are several, or none is known.
fn only_bridge(members: &[Arc<Member>], island: &str) -> Option<MemberId> {
    let is_one = |member: &&Arc<Member>| {
        member.far
            && !member.standing.is_gone()
            && member.has_role("bridge")
            && member.record.island == island
    };
    let mut bridges = members.iter().filter(is_one);
    let first = bridges.next()?;
    bridges.next().is_none().then_some(first.id)
}

/// Passes every change of the table on to the readers of the API.
pub(crate) async fn tell(mesh: Mesh, api: Api) -> Ending {
    let Ok(mut events) = mesh.subscribe().await else { return ("events", Ok(())) };
    loop {
        match events.next().await {
            Ok(event) => {
                log(&event);
                api.tell(&event);
            }
            Err(Ended::Lagged(_)) => api.missed(),
            Err(Ended::Left(_)) => return ("events", Ok(())),
        }
    }
}

/// What an operator would tell a colleague.
fn log(event: &Event) {
    let Some(member) = event.member() else {
        if let Some(island) = event.island() {
            info!(island = island.name, "{}", event.kind.as_str());
        }
        return;
    };
    let (name, id) = (&member.record.name, member.id.short());
    match event.kind {
        EventKind::Updated | EventKind::Forgotten => debug!(member = id, name, "{}", event.kind.as_str()),
        EventKind::DuplicateKey => warn!(member = id, name, "two nodes use this key"),
        EventKind::Joined
        | EventKind::Draining
        | EventKind::Suspect
        | EventKind::Down
        | EventKind::Back
        | EventKind::Left
        | EventKind::IslandUp
        | EventKind::IslandDown => {
            info!(member = id, name, island = member.record.island, "{}", event.kind.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use isle_mesh::member::Standing;

    use super::*;
    use crate::api::members::tests::member;

    #[test]
    fn a_link_ends_at_the_only_bridge_of_the_other_island() {
        let of = |byte, standing, role: &str, island: &str| {
            let mut member = Member::clone(&member(byte, "n", standing));
            let record = Arc::make_mut(&mut member.record);
            (record.roles, record.island) = (vec![role.to_owned()], island.to_owned());
            Arc::new(Member { far: true, ..member })
        };
        let mut members = vec![
            of(1, Standing::Alive, "pieces", "south"),
            of(2, Standing::Alive, "bridge", "south"),
            of(3, Standing::Left, "bridge", "south"),
            of(4, Standing::Alive, "bridge", "west"),
        ];
        assert_eq!(only_bridge(&members, "south"), Some(MemberId([2; 32])));
        assert_eq!(only_bridge(&members, "east"), None);
        members.push(of(5, Standing::Alive, "bridge", "south"));
        assert_eq!(only_bridge(&members, "south"), None, "either");
    }
}
