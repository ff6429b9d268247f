//! A member as the rest of the node sees it, and the telling of what changed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::Membership;
use super::links::is_local_to_link;
use super::peer::marks;
use crate::event::{Event, EventKind, Subject};
use crate::member::{Member, MemberId, Reason, Record, Standing};

impl Membership {
    /// This node as it shows itself; `None` before [`start`](Self::start).
    #[must_use]
    pub fn self_member(&self) -> Option<Arc<Member>> {
        self.me.clone()
    }

    /// How many of our own island are known, listed or not.
    #[must_use]
    pub fn known(&self) -> usize {
        self.table.len()
    }

    /// Everybody else of our own island who is listed, by id.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.peers.values().filter_map(|peer| peer.view.as_ref())
    }

    /// Makes the view of a member anew, and tells of it: as an event, or as a quiet change.
    pub(super) fn publish(&mut self, now: Instant, id: MemberId, kind: Option<EventKind>) {
        let Some(member) = self.view(now, &id) else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.named = marks(&member.record.watchers);
        // In place where nobody else holds it.
        if let Some(view) = peer.view.as_mut().and_then(Arc::get_mut) {
            *view = member;
        } else {
            peer.view = Some(Arc::new(member));
        }
        let Some(member) = peer.view.clone() else { return };
        self.tell(member, kind);
        if kind.is_some() {
            self.reconsider_ways_of(now, &id);
        }
    }

    /// Tells of a pulse of a member that is as it was but for that. Returns false, and has told nothing, where more than
    /// its load and when it was heard may be different: then its view is to be made anew.
    pub(super) fn publish_pulse(&mut self, id: &MemberId) -> bool {
        let Some(entry) = self.table.get(id) else { return false };
        let Some(peer) = self.peers.get_mut(id) else { return false };
        let (Some(view), Some(said)) = (&mut peer.view, &entry.record) else { return false };
        let plainly_well = view.reason.is_none() && view.standing == Standing::Alive && view.proven;
        let still = peer.standing == Standing::Alive && !peer.mute && entry.proven && !entry.duplicate;
        if !(plainly_well && still && view.stamp == said.stamp && !entry.has_left()) {
            return false;
        }
        // In place where nobody else holds it.
        let member = Arc::make_mut(view);
        member.heard = peer.heard;
        member.load = entry.load();
        let member = view.clone();
        self.tell(member, None);
        true
    }

    /// Our networks are others: so are the addresses that members can be dialled at from here.
    pub(super) fn publish_all(&mut self, now: Instant) {
        let listed = self.peers.iter().filter(|(_, peer)| peer.view.is_some());
        let listed: Vec<MemberId> = listed.map(|(id, _)| *id).collect();
        for id in listed {
            self.publish(now, id, None);
        }
    }

    pub(super) fn tell(&mut self, member: Arc<Member>, kind: Option<EventKind>) {
        match kind {
            Some(kind) => {
                self.event_number += 1;
                let subject = Subject::Member(member);
                self.events.push_back(Event { number: self.event_number, kind, subject });
            }
            None => self.changes.push_back(member),
        }
    }

    /// What the rest of the node sees of a member; `None` as long as it has no record.
    pub(super) fn view(&self, now: Instant, id: &MemberId) -> Option<Member> {
        let entry = self.table.get(id)?;
        let peer = self.peers.get(id)?;
        let said = entry.record.as_ref()?;
        let http_addresses = self.addresses_of(&said.value, peer.from, said.value.http_port);
        let standing = if entry.has_left() { Standing::Left } else { peer.standing };
        let reason = match standing {
            Standing::Left => Some(Reason::Farewell),
            Standing::Down => peer.verdict.or(Some(Reason::NoAnswer)),
            Standing::Suspect => Some(Reason::Silent),
            Standing::Alive if entry.duplicate => Some(Reason::DuplicateKey),
            Standing::Alive if said.value.draining => Some(Reason::Draining),
            Standing::Alive if http_addresses.is_empty() && said.value.http_port != 0 => {
                Some(Reason::NoAddress)
            }
            Standing::Alive if !entry.proven => Some(Reason::Unproven),
            Standing::Alive if peer.mute => Some(Reason::Unheard),
            Standing::Alive => None,
        };
        let since = peer.view.as_ref().filter(|old| old.standing == standing && old.reason == reason);
        Some(Member {
            id: *id,
            stamp: said.stamp,
            record: said.value.clone(),
            record_bytes: said.bytes.clone(),
            standing,
            proven: entry.proven,
            reachable: entry.proven && !peer.mute && !standing.is_gone() && !http_addresses.is_empty(),
            reason,
            since: since.map_or(now, |old| old.since),
            heard: peer.heard,
            load: entry.load(),
            http_addresses,
            is_self: false,
            far: false,
        })
    }

    /// Where a member can be dialled from here: where it was heard from, then its announced addresses that are on
    /// a link of ours. Others do not count: a signature proves the speaker, not the address.
    pub(super) fn addresses_of(
        &self,
        record: &Record,
        from: Option<SocketAddr>,
        port: u16,
    ) -> Vec<SocketAddr> {
        let mut found: Vec<SocketAddr> = Vec::new();
        if port == 0 {
            return found;
        }
        if let Some(mut at) = from {
            at.set_port(port);
            found.push(at);
        }
        // Who announces nothing but loopback can only be on this host, or nowhere.
        let on_this_host = record.addresses.iter().all(|address| address.ip.is_loopback());
        for address in &record.addresses {
            // Else, of link-local and loopback addresses only the one it was heard from is known to be its own.
            let local = is_local_to_link(address.ip) && !(on_this_host && address.ip.is_loopback());
            if local || !self.is_on_link(address.ip) {
                continue;
            }
            let at = SocketAddr::new(address.ip, port);
            if !found.iter().any(|known| known.ip() == at.ip()) {
                found.push(at);
            }
        }
        found
    }
}
