//! What there is, and why a request for it would go where.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use http::StatusCode;
use isle_mesh::member::{Member, Reason, Standing};

use super::assemble::Failure;
use super::{Shared, lock};
use crate::api::figures::{CandidateView, FigureRow, RouteView};
use crate::figures::figure::Hash;
use crate::figures::name::FigureName;
use crate::http::body::Answer;
use crate::http::request::Gated;
use crate::index::{ShareHolders, Snapshot};
use crate::roles::pieces::{Paging, bad_name, no_such_figure, page, typed};
use crate::shed;

/// Totals remembered, by hash of what was counted; 48 bytes each.
const TOTALS_MAX: usize = 200_000;
/// Figures of a page counted at once.
const COUNTED_AT_ONCE: usize = 32;
/// A list does not wait longer than this for figures it has not counted yet.
const COUNTING_MAX: Duration = Duration::from_secs(2);

/// How many pieces a figure has. Catalogues do not say, so it is counted once for each content.
#[derive(Debug, Default)]
pub(super) struct Totals {
    by_hash: HashMap<Hash, u32>,
}

impl Shared {
    pub(super) async fn list(&self, request: &Gated) -> Answer {
        let Paging { after, part, limit } = match Paging::of(request) {
            Ok(paging) => paging,
            Err(problem) => return problem.into_answer(),
        };
        let snapshot = self.index.snapshot();
        let mut names = snapshot.names(after.as_ref(), &part, limit + 1);
        let next = (names.len() > limit).then(|| {
            names.truncate(limit);
            names[limit - 1].to_string()
        });
        let deadline = Instant::now() + COUNTING_MAX.min(self.config.request_timeout);
        let rows =
            stream::iter(names).map(|name| self.row(&snapshot, name, deadline)).buffered(COUNTED_AT_ONCE);
        page(rows.filter_map(async |row| row).collect().await, next)
    }

    /// A figure that can be had at least in part; `None` for those whose holders are all gone.
    async fn row(&self, snapshot: &Snapshot, name: FigureName, deadline: Instant) -> Option<FigureRow> {
        let shares = self.shares(snapshot, &name);
        let of = shares.first()?.entry.share.of;
        let missing = self.missing(snapshot, &shares).ok()?.len();
        let mut sources: Vec<_> = shares
            .iter()
            .flat_map(|share| &share.holders)
            .filter(|id| self.choosable(id).is_some())
            .collect();
        sources.sort_unstable();
        sources.dedup();
        if sources.is_empty() {
            return None;
        }
        let total = if missing == 0 { self.total(snapshot, &name, &shares, deadline).await } else { None };
        Some(FigureRow {
            name: name.to_string(),
            total,
            shares: format!("{}/{of}", usize::from(of) - missing),
            sources: sources.len(),
        })
    }

    async fn total(
        &self,
        snapshot: &Snapshot,
        name: &FigureName,
        shares: &[ShareHolders],
        deadline: Instant,
    ) -> Option<u32> {
        if shares.iter().any(|share| share.entry.is_passed_on()) {
            return None;
        }
        let known: Option<Vec<u32>> = {
            let totals = lock(&self.totals);
            shares.iter().map(|share| totals.by_hash.get(&share.entry.hash).copied()).collect()
        };
        if let Some(known) = known {
            return known.into_iter().try_fold(0_u32, u32::checked_add);
        }
        let (figure, _) = self.assemble(name, snapshot, shares, deadline, 0).await.ok()?;
        if let [whole] = shares {
            let mut totals = lock(&self.totals);
            if totals.by_hash.len() >= TOTALS_MAX {
                totals.by_hash.clear();
            }
            totals.by_hash.insert(whole.entry.hash, figure.total());
        }
        Some(figure.total())
    }

    /// Who could serve this figure, who would be preferred, why not the others.
    pub(super) fn explain(&self, name: &str) -> Answer {
        let Ok(name) = name.parse::<FigureName>() else { return bad_name(name).into_answer() };
        let snapshot = self.index.snapshot();
        let shares = self.shares(&snapshot, &name);
        let (status, missing) = match self.missing(&snapshot, &shares) {
            Ok(missing) if missing.is_empty() => (StatusCode::OK, missing),
            Ok(missing) => (StatusCode::SERVICE_UNAVAILABLE, missing),
            Err(Failure::Unknown) => {
                return no_such_figure(name.as_str(), &snapshot.similar(name.as_str())).into_answer();
            }
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, Vec::new()),
        };
        let view = RouteView {
            asked_at: self.mesh.me().record.name.clone(),
            shares: shares.first().map_or(0, |share| share.entry.share.of),
            candidates: shares.iter().flat_map(|share| self.candidates_of(share)).collect(),
            status: status.as_u16(),
            missing: missing.iter().map(ToString::to_string).collect(),
            name: name.to_string(),
        };
        typed("application/json", serde_json::to_vec(&view).expect("strings and numbers only"))
    }

    fn candidates_of(&self, share: &ShareHolders) -> Vec<CandidateView> {
        let now = Instant::now();
        let members: Vec<_> = share.holders.iter().filter_map(|id| self.mesh.table().get(id)).collect();
        let routes = lock(&self.routes);
        let able = members.iter().filter(|member| member.is_choosable() && !routes.is_out(&member.id, now));
        let preferred = able
            .map(|member| self.candidate(member))
            .map(|candidate| ((candidate.last, candidate.way), routes.cost(&candidate, now), candidate.id))
            .min_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)))
            .map(|(_, _, id)| id);
        let mut views: Vec<CandidateView> = members
            .iter()
            .map(|member| {
                let out = routes.is_out(&member.id, now);
                let (reason, why) = standing_in_words(member, out, self.way_to(member));
                CandidateView {
                    share: share.entry.share.to_string(),
                    id: member.id.to_string(),
                    name: member.record.name.clone(),
                    island: member.record.island.clone(),
                    can_serve: member.is_choosable(),
                    preferred: preferred == Some(member.id),
                    reason: reason.map(str::to_owned),
                    why,
                }
            })
            .collect();
        let others = share.conflicting.iter().filter_map(|id| self.mesh.table().get(id));
        views.extend(others.map(|member| CandidateView {
            share: share.entry.share.to_string(),
            id: member.id.to_string(),
            name: member.record.name.clone(),
            island: member.record.island.clone(),
            can_serve: false,
            preferred: false,
            reason: Some("conflict".to_owned()),
            why: "holds something else under this name".to_owned(),
        }));
        views
    }
}

fn standing_in_words(member: &Member, out: bool, way: Option<Duration>) -> (Option<&'static str>, String) {
    let since = member.since.elapsed().as_secs();
    match member.standing {
        Standing::Left => (Some("farewell"), format!("left {since} s ago")),
        Standing::Down => (Some("no-answer"), format!("down for {since} s")),
        _ if member.record.draining => (Some("draining"), "draining: it stops soon".to_owned()),
        _ if member.far && !member.reachable => {
            let reason = member.reason.map_or("island-unreachable", Reason::as_str);
            (Some(reason), format!("{} cannot be reached", member.record.island))
        }
        _ if member.far && out => {
            (Some("failing"), "its last answers failed: tried again in a moment".to_owned())
        }
        _ if member.far => match way {
            Some(way) => {
                (None, format!("on {}, {:.0} ms away", member.record.island, way.as_secs_f64() * 1000.0))
            }
            None => (None, format!("on {}", member.record.island)),
        },
        _ if member.http_addresses.is_empty() => {
            (Some("no-address"), "announces no address on our networks".to_owned())
        }
        _ if out => (Some("failing"), "its last answers failed: tried again in a moment".to_owned()),
        Standing::Suspect => (Some("silent"), "not heard lately: asked last".to_owned()),
        Standing::Alive if !member.proven && !member.is_self => {
            (Some("unproven"), "not heard by this node yet: asked last".to_owned())
        }
        Standing::Alive => (None, format!("load {:.0} %", 100.0 * shed::share(member.load))),
    }
}
