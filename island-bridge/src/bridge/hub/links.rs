//! The links themselves: whom we call and when, who is let in, and that there is one with each node.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::AbortHandle;
use tracing::{Instrument, info_span};

use super::*;
use crate::link::{Link, Orders, Shown};
use crate::redial::Redial;
use crate::session::{Admission, Bookmark, Settings};

/// A link that we call for.
pub(super) struct Configured {
    pub(super) target: Target,
    attempts: usize,
    /// The call that is under way, or was last.
    call: Option<AbortHandle>,
}

/// What is remembered of a key that may link.
pub(super) struct Known {
    /// When its link went up or down.
    pub(super) since: Instant,
    pub(super) addr: Option<SocketAddr>,
    pub(super) island: Option<String>,
    pub(super) refused: Option<Refused>,
    pub(super) trouble: Option<String>,
}

impl Default for Known {
    fn default() -> Self {
        let (addr, island, refused, trouble) = Default::default();
        Self { since: Instant::now(), addr, island, refused, trouble }
    }
}

/// A link that has a connection.
pub(super) struct Live {
    pub(super) number: u64,
    pub(super) connection: Connection,
    pub(super) orders: Orders,
    shown: Arc<Mutex<Shown>>,
    /// It is up since this was said.
    pub(super) greeting: Option<Greeting>,
    /// It has shown an invite.
    pub(super) by_invite: bool,
}

impl Configured {
    fn stop(&self) {
        if let Some(call) = &self.call {
            call.abort();
        }
    }
}

impl Live {
    pub(super) fn shown(&self) -> Shown {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    pub(super) fn configure(&mut self, target: Target) {
        let key = target.key;
        if key == self.endpoint.id() {
            return warn!(%target, "a link to our own key is left out");
        }
        let known = self.known.entry(key).or_default();
        // What the last target met says nothing of this one.
        (known.refused, known.trouble) = (None, None);
        self.refused.retain(|(stranger, _)| *stranger != key);
        self.junction.call(Instant::now().into_std(), key, rand::random());
        let configured = Configured { target, attempts: 0, call: None };
        if let Some(before) = self.configured.insert(key, configured) {
            before.stop();
        }
    }

    /// Lets this key link from now on.
    pub(super) fn allow(&mut self, key: MemberId) {
        self.known.entry(key).or_default();
        self.refused.retain(|(stranger, _)| *stranger != key);
    }

    pub(super) fn unlink(&mut self, key: MemberId) -> bool {
        if let Some(configured) = self.configured.remove(&key) {
            configured.stop();
        }
        if let Some(live) = self.links.get(&key) {
            live.orders.end(End::Goodbye(Goodbye::Unlinked));
        }
        self.junction.forget(&key);
        self.known.remove(&key).is_some()
    }

    /// Calls all that are due.
    pub(super) fn call_due(&mut self, now: Instant) {
        while let Some(key) = self.junction.poll_call(now.into_std()) {
            let Some(configured) = self.configured.get_mut(&key) else { continue };
            let call = call(self.endpoint.clone(), configured.target.clone(), configured.attempts);
            configured.attempts = configured.attempts.wrapping_add(1);
            let call = async move { Outcome::Called { key, started_at: now, result: call.await } };
            configured.call = Some(self.tasks.spawn(call));
        }
    }

    /// A call has come to its end.
    pub(super) fn called(
        &mut self,
        key: MemberId,
        started_at: Instant,
        result: Result<Connection, CallError>,
    ) {
        if !self.configured.contains_key(&key) {
            return;
        }
        match result {
            Ok(connection) => self.connect(connection),
            Err(error) => {
                self.junction.call_failed(started_at.into_std(), &key);
                let trouble = report::chain(&error);
                debug!(peer = %key.short(), trouble, "not reached");
                if let Some(known) = self.known.get_mut(&key) {
                    known.trouble = Some(trouble);
                }
            }
        }
    }

    /// A connection stands: whether it becomes the link with that node.
    pub(super) fn connect(&mut self, connection: Connection) {
        let peer = connection.peer();
        if self.leaving.is_some() || peer == self.endpoint.id() {
            return connection.close(Closing::Ended);
        }
        let is_known = self.known.contains_key(&peer);
        if !is_known && let Err(closing) = self.admit_stranger() {
            connection.close(closing);
            if let Closing::Refused(reason) = closing {
                self.note_refusal(peer, Refused { reason, by_peer: false });
            }
            return;
        }
        if let Some(live) = self.links.get(&peer) {
            if !is_preferred(&connection, &live.connection, self.endpoint.id() < peer) {
                return connection.close(Closing::Replaced);
            }
            let bookmark = live.shown().bookmark;
            live.orders.end(End::Replaced);
            self.down(Instant::now(), peer, EndReason::Replaced, bookmark);
        }
        self.start(connection, if is_known { Admission::Known } else { Admission::ByInvite });
    }

    fn admit_stranger(&self) -> Result<(), Closing> {
        let any_open = self.config.invites.as_ref().is_some_and(|invites| invites.any_open());
        let strangers = self.links.keys().filter(|key| !self.known.contains_key(key)).count();
        match any_open {
            false => Err(Closing::Refused(Refusal::UnknownKey)),
            true if strangers >= STRANGERS_MAX => Err(Closing::Busy),
            true => Ok(()),
        }
    }

    fn start(&mut self, connection: Connection, admission: Admission) {
        let peer = connection.peer();
        let configured = self.configured.get(&peer).filter(|_| connection.is_dialled());
        let settings = Settings {
            peer,
            admission,
            island: self.config.island.clone(),
            island_id: self.config.island_id,
            software: self.config.software.clone(),
            protocol: self.config.protocol,
            invite: configured.and_then(|configured| configured.target.invite),
            bookmark: self.junction.connected(peer),
        };
        self.links_ever += 1;
        let live = Live {
            number: self.links_ever,
            connection: connection.clone(),
            orders: Orders::default(),
            shown: Arc::default(),
            greeting: None,
            by_invite: false,
        };
        let link = Link {
            number: live.number,
            connection,
            settings,
            journal: self.journal.clone(),
            orders: live.orders.clone(),
            shown: live.shown.clone(),
            outlets: link::Outlets { events: self.link_events_tx.clone(), words: self.outlets.words.clone() },
        };
        if let Some(known) = self.known.get_mut(&peer) {
            known.addr = Some(link.connection.remote_addr());
        }
        self.links.insert(peer, live);
        let run = async {
            link.run().await;
            Outcome::LinkOver
        };
        self.tasks.spawn(run.instrument(info_span!("bridge", member = %peer.short())));
    }

    pub(super) fn up(&mut self, now: Instant, peer: MemberId, greeting: Greeting) {
        let Some(live) = self.links.get_mut(&peer) else { return };
        info!(peer = %peer.short(), island = greeting.island, "link up");
        live.greeting = Some(greeting.clone());
        live.connection.welcome(0);
        let round_trip = live.connection.quic().rtt();
        self.junction.up(now.into_std(), peer, greeting.island.clone(), round_trip);
        self.lines.up(peer, &greeting.island, round_trip);
        if live.connection.is_dialled() {
            let (endpoint, lines, link) =
                (self.endpoint.clone(), self.lines.clone(), live.connection.clone());
            let carry = async move {
                carriers(&endpoint, &lines, &link).await;
                Outcome::LinkOver
            };
            self.tasks.spawn(carry.instrument(info_span!("tunnels", member = %peer.short())));
        }
        if live.by_invite {
            self.known.entry(peer).or_default();
            self.refused.retain(|(stranger, _)| *stranger != peer);
        }
        if let Some(configured) = self.configured.get_mut(&peer) {
            // Both sides know each other now.
            configured.target.invite = None;
        }
        if let Some(known) = self.known.get_mut(&peer) {
            known.addr = Some(live.connection.remote_addr());
            known.island = Some(greeting.island.clone());
            known.since = now;
            (known.refused, known.trouble) = (None, None);
        }
        // Nobody may be listening.
        let _ = self.outlets.events.send(Event::LinkUp { peer, greeting });
    }

    /// A connection for tunnels: whoever may link with us and does may have one. Who is about to show an invite may not.
    pub(super) fn carry(&mut self, connection: Connection) {
        let peer = connection.peer();
        let has_link = self.known.contains_key(&peer) && self.links.contains_key(&peer);
        if self.leaving.is_some() || !has_link {
            return connection.close(Closing::Refused(Refusal::UnknownKey));
        }
        let (lines, carrier) = (self.lines.clone(), self.lines.carry(connection));
        self.tasks.spawn(async move {
            tunnel::serve(lines, carrier).await;
            Outcome::LinkOver
        });
    }

    pub(super) fn down(
        &mut self,
        now: Instant,
        peer: MemberId,
        reason: EndReason,
        bookmark: Option<Bookmark>,
    ) {
        let Some(live) = self.links.remove(&peer) else { return };
        if let Some(known) = self.known.get_mut(&peer) {
            if live.greeting.is_some() {
                known.since = now;
            }
            known.trouble = Some(report::chain(&reason));
        }
        if let Some((reason, by_peer)) = reason.refusal() {
            self.note_refusal(peer, Refused { reason, by_peer });
        }
        let bookmark = bookmark.filter(|_| self.known.contains_key(&peer));
        self.junction.down(now.into_std(), &peer, bookmark);
        if !matches!(reason, EndReason::Replaced) {
            // Also where it was never up: there may be tunnels of the one that it replaced.
            self.lines.down(peer);
        }
        if live.greeting.is_some() {
            info!(peer = %peer.short(), %reason, "link down");
            // Nobody may be listening.
            let _ = self.outlets.events.send(Event::LinkDown { peer, reason });
        }
    }
}

/// Keeps a connection for tunnels beside a link that we have called, for as long as that lasts: who called is the one who
/// can, for the other may be behind a NAT.
async fn carriers(endpoint: &Endpoint, lines: &Lines, link: &Connection) {
    let mut redial = Redial::new(rand::random());
    let keep = async {
        loop {
            let now = Instant::now();
            match endpoint.dial(link.peer(), link.remote_addr(), Purpose::Tunnels).await {
                Ok(connection) => {
                    redial.up(now.into_std());
                    tunnel::serve(lines.clone(), lines.carry(connection)).await;
                }
                Err(error) => debug!(%error, "no connection for tunnels"),
            }
            sleep_until(Instant::from_std(redial.next(Instant::now().into_std()))).await;
        }
    };
    tokio::select! {
        () = keep => {}
        _ = link.quic().closed() => {}
    }
    lines.settle(link.peer());
}

/// Whether of two connections of the same nodes the new one is kept. Of two that the same side has dialled it is, for
/// that side would not have called while the other was good; else the one that the lower key has dialled, so that both
/// sides keep the same.
fn is_preferred(new: &Connection, old: &Connection, own_is_lower: bool) -> bool {
    new.is_dialled() == old.is_dialled() || new.is_dialled() == own_is_lower
}
