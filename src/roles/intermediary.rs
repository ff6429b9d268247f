//! An intermediary: any figure, from whoever holds it, or from a peer that has room.
//!
//! | module | subject |
//! |---|---|
//! | `assemble` | the shares of a figure, fetched from several members at once, checked and put together |
//! | `handover` | requests that another intermediary serves |
//! | `listing` | what there is, and why a request would go where |
//! | `negotiate` | JSON, text or a page |
//! | `retry` | how many second tries there may be |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use isle_mesh::event::EventKind;
use isle_mesh::island::Island;
use isle_mesh::member::{Load, Member, MemberId};
use isle_mesh::mesh::{Ended, Mesh};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::IntermediaryConfig;
use crate::endpoint::Endpoints;
use crate::figures::name::FigureName;
use crate::http::admission::Admission;
use crate::http::body::Answer;
use crate::http::connections::Connections;
use crate::http::forward;
use crate::http::problem::Problem;
use crate::http::request::Gated;
use crate::index::{Index, IndexTask, index};
use crate::roles::intermediary::handover::Turn;
use crate::roles::intermediary::listing::Totals;
use crate::roles::intermediary::retry::RetryBudget;
use crate::roles::pieces::{self, Pieces};
use crate::route::Routes;
use crate::shed::Peers;
use crate::upstream::Upstreams;

mod assemble;
mod handover;
mod listing;
mod negotiate;
mod retry;
mod vanished;

/// How often old connections and measurements are dropped.
const SWEEP: Duration = Duration::from_secs(2);

/// An intermediary. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Intermediary {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    mesh: Mesh,
    islands: watch::Receiver<Arc<BTreeMap<String, Arc<Island>>>>,
    config: IntermediaryConfig,
    index: Index,
    upstreams: Upstreams,
    endpoints: Arc<Endpoints>,
    routes: Mutex<Routes>,
    peers: Arc<Mutex<Peers>>,
    retries: Mutex<RetryBudget>,
    totals: Mutex<Totals>,
    admission: Admission,
    connections: Connections,
    /// Figures of this very node, if it is a piece server too.
    own: Option<Pieces>,
}

/// Keeps an intermediary current; to be spawned.
#[derive(Debug)]
pub struct IntermediaryTask {
    shared: Arc<Shared>,
    index: IndexTask,
}

/// Says what the metrics of an intermediary are.
fn describe() {
    handover::describe();
    metrics::describe_histogram!(
        "isle_upstream_duration_seconds",
        metrics::Unit::Seconds,
        "How long asking another node for something took, by how that ended"
    );
}

impl Intermediary {
    /// An intermediary of `mesh`. `connections` says when it is draining; `own` are the figures of this very node.
    #[must_use]
    pub fn new(
        mesh: Mesh,
        config: IntermediaryConfig,
        upstreams: Upstreams,
        connections: Connections,
        own: Option<Pieces>,
    ) -> (Self, IntermediaryTask) {
        describe();
        let endpoints: Arc<Endpoints> = Arc::default();
        let (index, task) = index(mesh.clone(), upstreams.clone(), endpoints.clone());
        let shared = Arc::new(Shared {
            admission: Admission::new(config.max_in_flight),
            islands: mesh.islands(),
            mesh,
            config,
            index,
            upstreams,
            endpoints,
            routes: Mutex::new(Routes::new(rand::random())),
            peers: Arc::new(Mutex::new(Peers::new(rand::random()))),
            retries: Mutex::new(RetryBudget::new(Instant::now())),
            totals: Mutex::default(),
            connections,
            own,
        });
        (Self { shared: shared.clone() }, IntermediaryTask { shared, index: task })
    }

    /// How busy it is, and every change of that.
    #[must_use]
    pub fn loads(&self) -> watch::Receiver<Load> {
        self.shared.admission.loads()
    }

    /// Answers `/figures`, `/figures/{name}` and `/figures/{name}/route`; `None` for other paths.
    pub async fn answer(&self, request: &Gated) -> Option<Answer> {
        let rest = request.path.strip_prefix("/figures")?;
        let answer = match rest.strip_prefix('/') {
            None if rest.is_empty() => self.shared.list(request).await,
            None => return None,
            Some(rest) => match rest.split_once('/') {
                None => self.shared.figure(request, rest).await,
                Some((name, "route")) => self.shared.explain(name),
                Some(_) => return None,
            },
        };
        Some(self.shared.signed(request, answer))
    }
}

impl IntermediaryTask {
    /// Follows the table and the catalogues until this node leaves.
    pub async fn run(self) {
        let Self { shared, index } = self;
        tokio::select! {
            () = index.run() => {}
            () = shared.follow() => {}
            () = shared.follow_closed_connections() => {}
        }
    }
}

impl Shared {
    async fn figure(&self, request: &Gated, name: &str) -> Answer {
        let Ok(name) = name.parse::<FigureName>() else { return pieces::bad_name(name).into_answer() };
        if forward::has_passed(&request.headers, self.mesh.id()) {
            return looped().into_answer();
        }
        let limit = self.config.request_timeout;
        let deadline = request.arrived + request.deadline.unwrap_or(limit).min(limit);
        match self.whose_turn(request, &name, deadline).await {
            Turn::Ours(permit) => self.serve(request, &name, deadline, permit).await,
            Turn::Answered(answer) => answer,
        }
    }

    /// Adds who answered and how busy we are, unless another node has said so.
    fn signed(&self, request: &Gated, mut answer: Answer) -> Answer {
        let me = self.mesh.me();
        let took = request.arrived.elapsed();
        let headers = answer.headers_mut();
        let elsewhere = headers.get(forward::SERVED_BY).cloned();
        forward::sign(
            headers,
            me.id,
            &format!("{}@{}", me.record.name, me.record.island),
            took,
            self.admission.load(),
        );
        if let Some(elsewhere) = elsewhere {
            headers.insert(forward::SERVED_BY, elsewhere);
        }
        answer
    }

    /// Something has happened to a member. While it stops it waits until its connections are done: ours are, as far as we are
    /// concerned. So are those of this node to itself, or it would wait for itself.
    fn take(&self, kind: EventKind, member: &Member) {
        if matches!(kind, EventKind::Joined | EventKind::Back) {
            lock(&self.routes).renewed(&member.id, Instant::now());
        }
        if stops(member) && kind != EventKind::Forgotten {
            self.upstreams.stops(member);
            return;
        }
        self.upstreams.stays(&member.id);
        if matches!(kind, EventKind::Down | EventKind::Left) {
            self.upstreams.close(member);
        }
    }

    /// Reads off the table who stops.
    fn take_all(&self, members: &[Arc<Member>]) {
        let stopping: BTreeMap<MemberId, &Arc<Member>> =
            members.iter().filter(|member| stops(member)).map(|member| (member.id, member)).collect();
        self.upstreams.stays_unless(|id| stopping.contains_key(id));
        for member in stopping.into_values() {
            self.upstreams.stops(member);
        }
    }

    /// Closes kept connections to members that stop or are gone, and drops what is old.
    async fn follow(&self) {
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let Ok(mut events) = self.mesh.subscribe().await else { return };
        self.take_all(&events.snapshot);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Ok(event) => {
                        if let Some(member) = event.member() {
                            self.take(event.kind, member);
                        }
                    }
                    Err(Ended::Lagged(_)) => self.take_all(&self.mesh.table().all()),
                    Err(Ended::Left(_)) => return,
                },
                _ = ticks.tick() => {
                    let table = self.mesh.table();
                    self.upstreams.sweep();
                    self.endpoints.sweep(|id| table.get(id).is_some());
                    lock(&self.routes).sweep(|id| table.get(id).is_some());
                }
            }
        }
    }
}

/// Whether it has said that it stops, and is still there.
fn stops(member: &Member) -> bool {
    member.record.draining && !member.standing.is_gone()
}

/// The state behind these locks is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn looped() -> Problem {
    Problem::new(
        StatusCode::LOOP_DETECTED,
        "loop",
        "the request came back",
        "this request has passed this node before: intermediaries or proxies point at each other",
    )
    .advise("look at the Via field of the request, and at what stands before the intermediaries")
}

#[cfg(test)]
mod tests;
