//! Requests that another intermediary serves: because we are full, or because we stop.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use isle_mesh::member::{Load, Member, MemberId};
use metrics::{Counter, counter, describe_counter};
use tracing::debug;

use super::{Shared, lock};
use crate::config::Shed;
use crate::figures::name::FigureName;
use crate::http::admission::Permit;
use crate::http::body::{Answer, empty};
use crate::http::forward;
use crate::http::problem::Problem;
use crate::http::request::Gated;
use crate::roles::pieces::WithPermit;
use crate::shed::{Peers, Why};

/// Who answers a request.
pub(super) enum Turn {
    /// We do, with this right.
    Ours(Permit),
    /// It is answered: by a peer, or because nobody has room.
    Answered(Answer),
}

/// Requests that we did not serve ourselves: what became of them, and why.
fn shed(action: &'static str, why: Why) -> Counter {
    counter!("isle_requests_shed_total", "action" => action, "reason" => why.as_str())
}

/// Says what the metric of this module is, and makes it appear before it first moves.
pub(super) fn describe() {
    describe_counter!(
        "isle_requests_shed_total",
        "Requests that this intermediary was too full for, and what it did"
    );
    for action in ["forward", "redirect", "refuse"] {
        shed(action, Why::Full).absolute(0);
    }
}

impl Shared {
    /// Decides whether we serve a request, and has it served elsewhere if not. A request is handed over once at most.
    pub(super) async fn whose_turn(&self, request: &Gated, name: &FigureName, deadline: Instant) -> Turn {
        let draining = self.connections.is_closing();
        let first = request.hops == 0;
        if first && (draining || self.admission.is_busy()) {
            let why = if draining { Why::Draining } else { Why::Full };
            if let Some(answer) = self.hand_over(request, name, deadline, why).await {
                return Turn::Answered(answer);
            }
        }
        if let Some(permit) = self.admission.admit() {
            return Turn::Ours(permit);
        }
        if first && let Some(answer) = self.hand_over_far(request, name, deadline).await {
            return Turn::Answered(answer);
        }
        match self.admission.queue().await {
            Some(permit) => Turn::Ours(permit),
            None => {
                shed("refuse", Why::Full).increment(1);
                Turn::Answered(self.nobody_has_room().into_answer())
            }
        }
    }

    /// A peer's answer, or a pointer to it; `None` if nobody clearly has more room, or whoever was asked did not answer.
    async fn hand_over(
        &self,
        request: &Gated,
        name: &FigureName,
        deadline: Instant,
        why: Why,
    ) -> Option<Answer> {
        // Whoever was told to refuse still hands over while stopping: the request must go somewhere.
        if self.config.shed == Shed::Refuse && why == Why::Full {
            return None;
        }
        let mut avoid = forward::passed(&request.headers);
        let peers = self.mesh.table().all();
        // A peer that does not answer is avoided, and another asked once.
        for _ in 0..2 {
            let ours = self.admission.load();
            let others = peers.iter().map(|member| &**member);
            let chosen = lock(&self.peers).peer(Instant::now(), ours, why, others, &avoid)?;
            let peer = self.mesh.table().get(&chosen)?;
            let permit = self.admission.hand_over()?;
            avoid.push(peer.id);
            if self.config.shed == Shed::Redirect && why == Why::Full {
                return redirect(&peer, name, request);
            }
            if let Some(answer) = self.ask_peer(request, name, deadline, &peer, permit).await {
                shed("forward", why).increment(1);
                return Some(answer);
            }
        }
        None
    }

    /// The answer of an intermediary on another island, when all of our own are full and so are we; `None` if no island has
    /// clearly more room, or whoever was asked did not answer.
    async fn hand_over_far(&self, request: &Gated, name: &FigureName, deadline: Instant) -> Option<Answer> {
        // A client cannot be pointed there, for nobody dials another island's addresses.
        if self.config.shed != Shed::Forward {
            return None;
        }
        let mut avoid = forward::passed(&request.headers);
        let members = self.mesh.table().all();
        // As on our own island.
        for _ in 0..2 {
            let islands = self.islands.borrow().clone();
            let (now, ours) = (Instant::now(), self.admission.load());
            let others = members.iter().map(|member| &**member);
            let chosen = lock(&self.peers).far_peer(now, ours, others, &islands, &avoid)?;
            let peer = self.mesh.table().get(&chosen)?;
            let permit = self.admission.hand_over()?;
            avoid.push(peer.id);
            if let Some(answer) = self.ask_peer(request, name, deadline, &peer, permit).await {
                shed("forward", Why::Full).increment(1);
                return Some(answer);
            }
        }
        None
    }

    async fn ask_peer(
        &self,
        request: &Gated,
        name: &FigureName,
        deadline: Instant,
        peer: &Member,
        permit: Permit,
    ) -> Option<Answer> {
        let at = match self.endpoints.of(&self.mesh, &self.upstreams, peer, deadline).await {
            Ok(at) => at,
            Err(error) => {
                debug!(member = %peer.id.short(), %error, "not handed over");
                return None;
            }
        };
        let query = request.query.as_deref().map(|query| format!("?{query}")).unwrap_or_default();
        let target = format!("/figures/{name}{query}").parse().ok()?;
        let left = deadline.saturating_duration_since(Instant::now());
        let ask = forward::onward(request, target, self.mesh.id(), left);
        lock(&self.peers).handed(peer.id);
        let handed = Handed { peers: self.peers.clone(), id: peer.id, _permit: permit };
        match self.upstreams.send(at, &ask, deadline).await {
            // It has no room either, after all: that is for us to deal with.
            Ok(reply)
                if reply.answer.status() == StatusCode::SERVICE_UNAVAILABLE
                    && is_about_room(&reply.answer) =>
            {
                if let Some(load) = told(reply.answer.headers()) {
                    lock(&self.peers).told(Instant::now(), peer.id, load);
                }
                None
            }
            Ok(reply) => {
                let (mut head, body) = reply.into_parts();
                forward::strip_hop_by_hop(&mut head.headers);
                if let Some(load) = told(&head.headers) {
                    lock(&self.peers).told(Instant::now(), peer.id, load);
                }
                let body = WithPermit { body, _permit: handed }.boxed_unsync();
                Some(Answer::from_parts(head, body))
            }
            Err(error) => {
                debug!(member = %peer.id.short(), %error, "not handed over");
                self.note_refusal(peer, at, &error);
                None
            }
        }
    }

    fn nobody_has_room(&self) -> Problem {
        let load = self.admission.load();
        let others = match self.admission.hand_over() {
            Some(_) => "no other intermediary has room",
            None => "as many as may be are handed over to others",
        };
        let mut problem = Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "full",
            "full",
            format!("{} of {} requests are in flight here, and {others}", load.in_flight, load.capacity),
        )
        .advise("try again after Retry-After; for more room start another intermediary: isle intermediary");
        // Spread, or all who were refused together come back together.
        problem.retry_after = Some(lock(&self.peers).retry_after());
        problem
    }
}

/// A request that a peer has, until its answer has ended.
struct Handed {
    peers: Arc<Mutex<Peers>>,
    id: MemberId,
    _permit: Permit,
}

impl Drop for Handed {
    fn drop(&mut self) {
        lock(&self.peers).returned(self.id);
    }
}

/// How busy the node is that answered.
fn told(headers: &HeaderMap) -> Option<Load> {
    let (in_flight, capacity) = headers.get(forward::LOAD)?.to_str().ok()?.split_once('/')?;
    Some(Load { in_flight: in_flight.parse().ok()?, capacity: capacity.parse().ok()? })
}

/// A 503 that says the peer has no room; others (a share is missing) are the answer.
fn is_about_room<B>(answer: &http::Response<B>) -> bool {
    told(answer.headers()).is_some_and(|load| load.in_flight >= load.capacity)
}

fn redirect(peer: &Member, name: &FigureName, request: &Gated) -> Option<Answer> {
    let at = peer.http_addresses.first()?;
    let at = std::net::SocketAddr::new(at.ip(), at.port());
    let query = request.query.as_deref().map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::try_from(format!("http://{at}/figures/{name}{query}")).ok()?;
    let mut answer = http::Response::new(empty());
    *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    answer.headers_mut().insert(header::LOCATION, location);
    shed("redirect", Why::Full).increment(1);
    Some(answer)
}
