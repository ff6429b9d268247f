//! What is told to people: status and refusals.

use std::error::Error;

use super::*;
use crate::bridge::status::{LinkStatus, State};

impl Hub {
    pub(super) fn status(&self) -> Status {
        // One that was taken away is only saying goodbye.
        let is_new = |(_, live): &(&MemberId, &Live)| live.greeting.is_none();
        let strangers = self.links.iter().filter(is_new).map(|(peer, _)| peer);
        let keys: BTreeSet<_> = self.known.keys().chain(strangers).copied().collect();
        let links = keys.into_iter().map(|peer| self.link_status(peer)).collect();
        Status { links, refused: self.refused.iter().copied().collect() }
    }

    fn link_status(&self, peer: MemberId) -> LinkStatus {
        let (live, known) = (self.links.get(&peer), self.known.get(&peer));
        let target = self.configured.get(&peer).map(|configured| &configured.target);
        let greeting = live.and_then(|live| live.greeting.as_ref());
        let shown = live.map(Live::shown).unwrap_or_default();
        let state = match (live, greeting, target) {
            (Some(_), Some(_), _) => State::Up,
            (Some(_), None, _) => State::Greeting,
            (None, _, Some(_)) => State::Calling,
            (None, _, None) => State::Waiting,
        };
        let of_known = |part: fn(&Known) -> Option<String>| known.and_then(part);
        LinkStatus {
            peer,
            target: target.map(Target::place),
            addr: live
                .map(|live| live.connection.remote_addr())
                .or_else(|| known.and_then(|known| known.addr)),
            island: greeting
                .map(|greeting| greeting.island.clone())
                .or_else(|| of_known(|known| known.island.clone())),
            state,
            since: known.map(|known| known.since.elapsed()).unwrap_or_default(),
            refused: known.and_then(|known| known.refused),
            trouble: of_known(|known| known.trouble.clone()),
            round_trip: shown.round_trip,
            counters: shown.counters,
            tunnels: self.lines.counters(&peer),
        }
    }

    /// Remembers a refusal, and logs it once a minute for each key.
    pub(super) fn note_refusal(&mut self, peer: MemberId, refused: Refused) {
        if self.refusals.is_due(Instant::now().into_std(), peer) {
            let Refused { reason, by_peer } = refused;
            warn!(key = %peer, reason = reason.as_str(), by_peer, advice = advice(reason), "link refused");
        }
        match self.known.get_mut(&peer) {
            Some(known) => known.refused = Some(refused),
            None => {
                self.refused.retain(|(stranger, _)| *stranger != peer);
                self.refused.push_back((peer, refused));
                if self.refused.len() > REFUSED_MAX {
                    self.refused.pop_front();
                }
            }
        }
    }
}

/// What whoever reads the log may do about it.
fn advice(reason: Refusal) -> &'static str {
    match reason {
        Refusal::UnknownKey => "the side that refuses has to allow the other's key",
        Refusal::Version => "the older side needs an update",
        Refusal::SameName => "one of the islands needs another name",
        Refusal::InviteExpired | Refusal::InviteUsed => "a new invite is needed",
    }
}

/// An error with all that led to it.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
