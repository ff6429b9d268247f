//! A figure put together: each share from a member that holds it, all at once, checked against the signed catalogue.
//!
//! A share that one member fails to give is asked of another, within budget and deadline. When nobody is left, one waits a
//! little for somebody to appear: members restart, and catalogues are on their way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use http::StatusCode;
use http_body_util::BodyExt;
use isle_mesh::member::{Load, Member, MemberId, Standing};
use tokio::time::timeout_at;
use tracing::{debug, warn};

use super::negotiate::{self, Form};
use super::{Shared, lock};
use crate::api::figures::SourceView;
use crate::endpoint::EndpointError;
use crate::figures::catalogue::Mismatch;
use crate::figures::figure::{BODY_BYTES_MAX, Figure, Hash};
use crate::figures::merge::{MergeError, merge};
use crate::figures::name::{FigureName, Share};
use crate::http::admission::Permit;
use crate::http::body::Answer;
use crate::http::forward;
use crate::http::problem::Problem;
use crate::http::request::Gated;
use crate::index::{self, ShareHolders, Snapshot};
use crate::roles::pieces::{WithPermit, no_such_figure};
use crate::route::{Candidate, Ended};
use crate::upstream::{Ask, Reply, UpstreamError};

/// Second tries on other members, for each share.
const RETRIES_MAX: usize = 2;
/// Checking a body takes 10 µs per KiB: a larger one is not for a task that others wait for.
const INLINE_BYTES_MAX: usize = 16 * 1024;
/// Longest wait for one member while another could be asked; half of what is left, if that is less.
const TRY_MAX: Duration = Duration::from_secs(3);
/// A member that said farewell so long ago does not come back by itself.
const GONE_FOR_GOOD: Duration = Duration::from_secs(2);

/// Why a figure, or a share of it, could not be had.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody listed announces it.
    Unknown,
    /// Catalogues are still being fetched; perhaps one of them has it.
    Pending,
    /// Nobody who may be asked holds these.
    Missing(Vec<Share>),
    /// Somebody holds it, but gave no answer that counts.
    Broke(String),
    /// Time ran out first.
    Deadline,
    /// The shares do not belong together.
    Unmergeable(MergeError),
}

/// A share, and who sent it.
type Sourced = (Figure, Arc<Member>);

impl Shared {
    /// Serves a figure from its holders. The permit lasts until the answer is made, or streamed.
    pub(super) async fn serve(
        &self,
        request: &Gated,
        name: &FigureName,
        deadline: Instant,
        permit: Permit,
    ) -> Answer {
        lock(&self.retries).request(Instant::now());
        let retries = if request.hops == 0 { RETRIES_MAX } else { 0 };
        let wait_until = deadline.min(Instant::now() + self.config.wait);
        let mut changes = self.index.changes();
        // What was found before time ran out says more than that it did.
        let mut found = None;
        loop {
            changes.mark_unchanged();
            let snapshot = self.index.snapshot();
            let shares = self.shares(&snapshot, name);
            if shares.first().is_some_and(|share| share.entry.is_passed_on()) {
                match self.pass_on(request, name, &shares[0], deadline, retries).await {
                    Ok(reply) => return streamed(reply, permit),
                    Err(failure) => {
                        let failure = telling(failure, found.take());
                        let is_over = Instant::now() >= deadline;
                        let waits = !is_over && self.worth_waiting(&failure, &shares);
                        if !waits || !changed(&mut changes, wait_until).await {
                            return self.explained(name, &snapshot, &shares, failure).into_answer();
                        }
                        found = Some(failure);
                    }
                }
                continue;
            }
            match self.assemble(name, &snapshot, &shares, deadline, retries).await {
                Ok((figure, sources)) => {
                    return negotiate::answer(&figure, sources, Form::wanted(&request.headers));
                }
                Err(failure) => {
                    let failure = telling(failure, found.take());
                    let is_over = Instant::now() >= deadline;
                    let waits = !is_over && self.worth_waiting(&failure, &shares);
                    if !waits || !changed(&mut changes, wait_until).await {
                        return self.explained(name, &snapshot, &shares, failure).into_answer();
                    }
                    found = Some(failure);
                }
            }
        }
    }

    /// The shares of a figure, each in the version that counts.
    pub(super) fn shares(&self, snapshot: &Snapshot, name: &FigureName) -> Vec<ShareHolders> {
        index::shares(snapshot, name, |id| self.mesh.table().get(id))
    }

    /// All shares at once, put together.
    pub(super) async fn assemble(
        &self,
        name: &FigureName,
        snapshot: &Snapshot,
        shares: &[ShareHolders],
        deadline: Instant,
        retries: usize,
    ) -> Result<(Figure, Vec<SourceView>), Failure> {
        let missing = self.missing(snapshot, shares)?;
        if !missing.is_empty() {
            return Err(Failure::Missing(missing));
        }
        let fetched = join_all(shares.iter().map(|share| self.share(name, share, deadline, retries))).await;
        let mut parts = Vec::with_capacity(shares.len());
        let mut sources = Vec::with_capacity(shares.len());
        for part in fetched {
            let (figure, member) = part?;
            sources.push(SourceView {
                id: member.id.to_string(),
                name: member.record.name.clone(),
                island: member.record.island.clone(),
                share: figure.share().to_string(),
            });
            parts.push(figure);
        }
        if let [whole] = parts.as_slice()
            && whole.share().is_whole()
        {
            return Ok((whole.clone(), sources));
        }
        let whole = merge(&parts).map_err(Failure::Unmergeable)?;
        Ok((whole, sources))
    }

    /// Shares that nobody who may be asked holds.
    pub(super) fn missing(
        &self,
        snapshot: &Snapshot,
        shares: &[ShareHolders],
    ) -> Result<Vec<Share>, Failure> {
        let Some(first) = shares.first() else {
            let pending = snapshot.is_pending() || !self.mesh.is_complete() || self.is_behind(snapshot);
            return Err(if pending { Failure::Pending } else { Failure::Unknown });
        };
        let of = first.entry.share.of;
        let there = |index: u16| {
            let share = shares.iter().find(|share| share.entry.share.index == index);
            share.is_some_and(|share| share.holders.iter().any(|id| self.choosable(id).is_some()))
        };
        Ok((1..=of).filter(|index| !there(*index)).map(|index| Share { index, of }).collect())
    }

    /// Whether somebody has just come with a catalogue that the index has not heard of yet: it follows the table by
    /// events, so for a moment it knows less. Only asked before a figure is said to be unknown.
    fn is_behind(&self, snapshot: &Snapshot) -> bool {
        let unheard = |member: &Arc<Member>| {
            let digest = member.record.catalogue.map(|summary| Hash(summary.digest));
            member.since.elapsed() < self.config.wait && digest.is_some_and(|digest| !snapshot.has(&digest))
        };
        self.mesh.table().all().iter().any(|member| member.is_choosable() && unheard(member))
    }

    /// The member, if a request may be sent to it.
    pub(super) fn choosable(&self, id: &MemberId) -> Option<Arc<Member>> {
        // We ourselves stay a holder while we are being stopped: what is still asked here is still answered.
        self.mesh
            .table()
            .get(id)
            .filter(|member| member.is_choosable() || member.is_self && self.own.is_some())
    }

    fn candidates(&self, share: &ShareHolders, tried: &[MemberId]) -> Vec<Candidate> {
        let untried = share.holders.iter().filter(|id| !tried.contains(id));
        untried.filter_map(|id| self.choosable(id)).map(|member| self.candidate(&member)).collect()
    }

    /// One share, from one of its holders.
    async fn share(
        &self,
        name: &FigureName,
        share: &ShareHolders,
        deadline: Instant,
        retries: usize,
    ) -> Result<Sourced, Failure> {
        let of = share.entry.share;
        let target = match of.is_whole() {
            true => format!("/local/figures/{name}"),
            false => format!("/local/figures/{name}?share={}", of.index),
        };
        let ask = &Ask::get(&target);
        let attempt = |member, until| self.share_from(member, name, share, ask, until).boxed();
        self.try_holders(share, deadline, retries, attempt).await
    }

    async fn share_from(
        &self,
        member: Arc<Member>,
        name: &FigureName,
        share: &ShareHolders,
        ask: &Ask,
        deadline: Instant,
    ) -> Result<Figure, Attempt> {
        if member.is_self
            && let Some(own) = &self.own
        {
            let (_, body) =
                own.held(name, share.entry.share).ok_or(Attempt::Stale("no longer held here".to_owned()))?;
            return self.checked(share, body).await;
        }
        let at = self.endpoints.of(&self.mesh, &self.upstreams, &member, deadline).await?;
        let answer = self.upstreams.fetch(at, ask, BODY_BYTES_MAX, deadline).await;
        let answer = answer.inspect_err(|error| self.note_refusal(&member, at, error))?;
        match answer.status {
            StatusCode::OK => self.checked(share, answer.body).await,
            StatusCode::NOT_FOUND => Err(Attempt::Stale("does not have it".to_owned())),
            status => Err(Attempt::Failed(format!("answered {}", status.as_u16()))),
        }
    }

    /// A sidecar's answer, which nobody can check.
    async fn pass_on(
        &self,
        request: &Gated,
        name: &FigureName,
        share: &ShareHolders,
        deadline: Instant,
        retries: usize,
    ) -> Result<Reply, Failure> {
        if self.candidates(share, &[]).is_empty() {
            return Err(Failure::Missing(vec![Share::WHOLE]));
        }
        let query = request.query.as_deref().map(|query| format!("?{query}")).unwrap_or_default();
        let target: http::Uri =
            format!("/local/figures/{name}{query}").parse().map_err(|_| Failure::Unknown)?;
        let target = &target;
        let attempt = |member, until| self.reply_from(member, request, target, until).boxed();
        let (reply, _) = self.try_holders(share, deadline, retries, attempt).await?;
        Ok(reply)
    }

    async fn reply_from(
        &self,
        member: Arc<Member>,
        request: &Gated,
        target: &http::Uri,
        deadline: Instant,
    ) -> Result<Reply, Attempt> {
        let at = self.endpoints.of(&self.mesh, &self.upstreams, &member, deadline).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let ask = forward::onward(request, target.clone(), self.mesh.id(), left);
        let reply = self.upstreams.send(at, &ask, deadline).await;
        let reply = reply.inspect_err(|error| self.note_refusal(&member, at, error))?;
        match reply.answer.status() {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                Err(Attempt::Failed(format!("answered {}", reply.answer.status().as_u16())))
            }
            _ => Ok(reply),
        }
    }

    /// Tries holders one after another until one gives what `attempt` takes for an answer.
    async fn try_holders<'a, T>(
        &self,
        share: &ShareHolders,
        deadline: Instant,
        retries: usize,
        attempt: impl Fn(Arc<Member>, Instant) -> BoxFuture<'a, Result<T, Attempt>> + Send + Sync,
    ) -> Result<(T, Arc<Member>), Failure> {
        let mut tried = Vec::new();
        let mut failure = Failure::Missing(vec![share.entry.share]);
        while tried.len() <= retries {
            let candidates = self.candidates(share, &tried);
            let now = Instant::now();
            if now >= deadline {
                return Err(Failure::Deadline);
            }
            if !tried.is_empty() && !candidates.is_empty() && !lock(&self.retries).retry(now) {
                break;
            }
            let Some(id) = lock(&self.routes).choose(&candidates, now) else { break };
            let outcome = Measured { shared: self, id, started: now, ended: None };
            tried.push(id);
            let Some(member) = self.choosable(&id) else { continue };
            // Whoever was stopped in the middle accepts connections and says nothing: time for another must be left.
            let is_last = candidates.len() == 1 || tried.len() > retries;
            let until = if is_last { deadline } else { now + TRY_MAX.min((deadline - now) / 2) };
            match attempt(member.clone(), until).await {
                Ok(value) => {
                    outcome.end(Ended::Answered(now.elapsed()));
                    return Ok((value, member));
                }
                Err(Attempt::Refused(why)) => {
                    outcome.end(Ended::Refused);
                    debug!(member = %id.short(), why, "refused");
                    failure = Failure::Broke(format!("{} {why}", member.record.name));
                }
                Err(Attempt::Failed(why)) => {
                    outcome.end(Ended::Failed);
                    debug!(member = %id.short(), why, "tried in vain");
                    failure = Failure::Broke(format!("{} {why}", member.record.name));
                }
                Err(Attempt::Stale(why)) => {
                    // It may have changed its figures a moment ago, and its announcement or the new catalogue is on the
                    // way: that is no fault of its. A catalogue that it still stands by is.
                    let stands_by = |id| {
                        let digest = self.mesh.table().get(id)?.record.catalogue?.digest;
                        Some(member.record.catalogue?.digest == digest && snapshot_has(&self.index, digest))
                    };
                    let is_fault = stands_by(&id).unwrap_or(false);
                    outcome.end(if is_fault { Ended::Failed } else { Ended::Cancelled });
                    debug!(member = %id.short(), why, is_fault, "catalogue and figure differ");
                    failure = Failure::Broke(format!("{}: {why}", member.record.name));
                }
                Err(Attempt::Deadline) => {
                    outcome.end(Ended::Failed);
                    if Instant::now() >= deadline {
                        return Err(Failure::Deadline);
                    }
                    failure = Failure::Broke(format!("{} did not answer in time", member.record.name));
                }
            }
        }
        Err(failure)
    }

    /// The figure, if the body is what the catalogue promised.
    async fn checked(&self, share: &ShareHolders, body: bytes::Bytes) -> Result<Figure, Attempt> {
        let entry = share.entry.clone();
        let checked = if body.len() <= INLINE_BYTES_MAX {
            entry.check(&body)
        } else {
            let checking = tokio::task::spawn_blocking(move || entry.check(&body));
            checking.await.map_err(|_| Attempt::Failed("could not be checked".to_owned()))?
        };
        checked.map_err(|mismatch: Mismatch| Attempt::Stale(mismatch.to_string()))
    }

    /// Whether somebody may appear who changes things: not if all who held it said farewell a while ago.
    fn worth_waiting(&self, failure: &Failure, shares: &[ShareHolders]) -> bool {
        match failure {
            Failure::Unknown | Failure::Deadline | Failure::Unmergeable(_) => false,
            Failure::Pending | Failure::Broke(_) => true,
            Failure::Missing(missing) => missing.iter().all(|wanted| {
                let Some(share) = shares.iter().find(|share| share.entry.share == *wanted) else {
                    return false;
                };
                let holders = share.holders.iter().filter_map(|id| self.mesh.table().get(id));
                !holders.into_iter().all(|member| {
                    let has_left =
                        member.standing == Standing::Left && member.since.elapsed() > GONE_FOR_GOOD;
                    has_left || member.far && !member.reachable
                })
            }),
        }
    }

    /// The island, if these shares are lacking because it cannot be reached.
    fn beyond_reach(&self, missing: &[Share], shares: &[ShareHolders]) -> Option<String> {
        let of_missing = shares.iter().filter(|share| missing.contains(&share.entry.share));
        let mut holders =
            of_missing.flat_map(|share| &share.holders).filter_map(|id| self.mesh.table().get(id));
        let beyond = holders.find(|member| member.far && !member.reachable && !member.standing.is_gone())?;
        Some(beyond.record.island.clone())
    }

    /// The one place where a failure to serve a figure becomes a status.
    fn explained(
        &self,
        name: &FigureName,
        snapshot: &Snapshot,
        shares: &[ShareHolders],
        failure: Failure,
    ) -> Problem {
        let retry = |mut problem: Problem| {
            problem.retry_after = Some(1);
            problem
        };
        match failure {
            Failure::Unknown => no_such_figure(name.as_str(), &snapshot.similar(name.as_str())),
            Failure::Pending => retry(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "table-incomplete",
                "not all is known yet",
                format!("nobody known so far announces \"{name}\", but not every catalogue has arrived"),
            )),
            Failure::Missing(missing) => {
                let list: Vec<String> = missing.iter().map(Share::to_string).collect();
                if let Some(island) = self.beyond_reach(&missing, shares) {
                    let mut problem = Problem::new(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "island-unreachable",
                        "its island cannot be reached",
                        format!("\"{name}\" is on the island {island}, and no bridge has a way there now"),
                    )
                    .advise("look at its links on each bridge's host with: isle bridge links");
                    problem.missing = list;
                    return retry(problem);
                }
                let mut problem = Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "no-server",
                    "nobody is left to serve it",
                    format!("\"{name}\" is known, but no server is left for share {}", list.join(", ")),
                )
                .advise(format!("see who held it with: isle explain {name}"));
                problem.missing = list;
                retry(problem)
            }
            Failure::Broke(why) => {
                warn!(figure = %name, why, holders = shares.iter().map(|share| share.holders.len()).sum::<usize>(), "not served");
                Problem::new(StatusCode::BAD_GATEWAY, "upstream-broke", "upstream broke off", why)
                    .advise(format!("see who holds it with: isle explain {name}"))
            }
            Failure::Deadline => Problem::new(
                StatusCode::GATEWAY_TIMEOUT,
                "deadline",
                "no answer in time",
                format!("the deadline ran out before \"{name}\" was complete"),
            )
            .advise("try again; for longer deadlines start the intermediary with --request-timeout"),
            Failure::Unmergeable(error) => Problem::new(
                StatusCode::BAD_GATEWAY,
                "shares-disagree",
                "the shares do not belong together",
                format!("\"{name}\": {error}"),
            )
            .advise(format!("see who holds what with: isle explain {name}")),
        }
    }
}

/// How one try at one member went wrong.
enum Attempt {
    /// Its connection was refused or broke off: its process may be gone.
    Refused(String),
    /// It gave no answer, or one that says it cannot.
    Failed(String),
    /// What it has is not what its catalogue says, as far as we know.
    Stale(String),
    /// Time ran out.
    Deadline,
}

impl From<UpstreamError> for Attempt {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Deadline { .. } => Self::Deadline,
            UpstreamError::TooLong { .. } => Self::Stale(error.to_string()),
            UpstreamError::NoPassage { .. } => Self::Failed(error.to_string()),
            UpstreamError::Connect { .. } | UpstreamError::Broken { .. } => Self::Refused(error.to_string()),
        }
    }
}

impl From<EndpointError> for Attempt {
    fn from(error: EndpointError) -> Self {
        match error {
            EndpointError::Upstream(error) if error.is_refusal() => Self::Refused(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// A request in flight to a member: however it ends, also when it is dropped, that is noted.
struct Measured<'a> {
    shared: &'a Shared,
    id: MemberId,
    started: Instant,
    ended: Option<Ended>,
}

impl Measured<'_> {
    fn end(mut self, how: Ended) {
        self.ended = Some(how);
    }
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        let how = self.ended.unwrap_or(Ended::Cancelled);
        let now = Instant::now();
        lock(&self.shared.routes).ended(&self.id, how, now);
        let result = match how {
            Ended::Answered(_) => "ok",
            Ended::Refused => "refused",
            Ended::Failed => "failed",
            Ended::Cancelled => "cancelled",
        };
        let took = now.saturating_duration_since(self.started);
        metrics::histogram!("isle_upstream_duration_seconds", "result" => result).record(took);
    }
}

impl Shared {
    /// A member as routing sees it.
    pub(super) fn candidate(&self, member: &Member) -> Candidate {
        Candidate { way: self.way_to(member), ..candidate(member) }
    }

    /// What the way to a member of another island costs.
    pub(super) fn way_to(&self, member: &Member) -> Option<Duration> {
        let way = || {
            let islands = self.islands.borrow();
            Some(islands.get(&member.record.island)?.ways.first()?.reach.cost)
        };
        member.far.then(|| way().unwrap_or(Duration::MAX))
    }
}

/// The same for a member of our own island.
fn candidate(member: &Member) -> Candidate {
    let doubted = member.standing != Standing::Alive || !(member.reachable || member.is_self);
    let Load { in_flight, capacity } = member.load;
    let full = capacity > 0 && in_flight >= capacity;
    Candidate { id: member.id, capacity, last: doubted, heard: member.heard, way: None, full }
}

fn snapshot_has(index: &index::Index, digest: [u8; 32]) -> bool {
    index.snapshot().has(&Hash(digest))
}

/// The failure to tell of, after an earlier one.
fn telling(failure: Failure, earlier: Option<Failure>) -> Failure {
    match (failure, earlier) {
        (Failure::Deadline, Some(earlier)) => earlier,
        (failure, _) => failure,
    }
}

/// Waits for a change of what is known. `false` when time runs out first.
async fn changed(changes: &mut tokio::sync::watch::Receiver<u64>, until: Instant) -> bool {
    matches!(timeout_at(until.into(), changes.changed()).await, Ok(Ok(())))
}

fn streamed(reply: Reply, permit: Permit) -> Answer {
    let (mut head, body) = reply.into_parts();
    forward::strip_hop_by_hop(&mut head.headers);
    Answer::from_parts(head, WithPermit { body, _permit: permit }.boxed_unsync())
}
