//! A piece server: figures from a shelf, or those of a service beside it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use isle_mesh::member::{CatalogueSummary, Load};
use isle_mesh::membership::Announcement;
use isle_mesh::mesh::Mesh;
use tokio::sync::watch;
use tracing::debug;

use crate::api::figures::{FigureRow, FiguresPage};
use crate::api::ready::Service;
use crate::config::PiecesConfig;
use crate::figures::catalogue::{Catalogue, Entry};
use crate::figures::figure::Figure;
use crate::figures::name::{FigureName, Share};
use crate::figures::shelf::Shelf;
use crate::figures::watch::{FigureWatch, WatchTask, watch_figures};
use crate::http::admission::Admission;
use crate::http::body::{Answer, full};
use crate::http::forward;
use crate::http::problem::Problem;
use crate::http::request::Gated;
use crate::roles::pieces::sidecar::Sidecar;
pub use crate::roles::pieces::sidecar::SidecarError;
pub(super) use crate::roles::pieces::sidecar::WithPermit;
use crate::upstream::Upstreams;

mod sidecar;

/// Requests a piece server serves at once: each is a lookup and a write. Announced, so that others spread theirs.
const IN_FLIGHT_MAX: usize = 256;

/// A piece server. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Pieces {
    stock: Stock,
    admission: Admission,
}

#[derive(Clone, Debug)]
enum Stock {
    Shelf(FigureWatch),
    Sidecar(Arc<Sidecar>),
}

/// Keeps a piece server's stock current and announced; to be spawned.
#[derive(Debug)]
pub struct PiecesTask {
    pieces: Pieces,
    watching: Option<WatchTask>,
}

impl Pieces {
    /// Loads the figures, or prepares for the service beside this node.
    ///
    /// # Errors
    /// The upstream's URL or an offered name cannot be used.
    pub async fn new(
        config: &PiecesConfig,
        upstreams: Upstreams,
    ) -> Result<(Self, PiecesTask), SidecarError> {
        let (stock, watching) = match &config.upstream {
            Some(url) => (Stock::Sidecar(Arc::new(Sidecar::new(url, &config.offers, upstreams)?)), None),
            None => {
                let (figures, task) = watch_figures(config).await;
                (Stock::Shelf(figures), Some(task))
            }
        };
        let pieces = Self { stock, admission: Admission::new(IN_FLIGHT_MAX) };
        Ok((pieces.clone(), PiecesTask { pieces, watching }))
    }

    /// How busy it is, and every change of that.
    #[must_use]
    pub fn loads(&self) -> watch::Receiver<Load> {
        self.admission.loads()
    }

    fn load(&self) -> Load {
        self.admission.load()
    }

    /// What this node announces of its figures now.
    #[must_use]
    pub fn summary(&self) -> Option<CatalogueSummary> {
        let (catalogue, _) = self.catalogue()?;
        let entries = u32::try_from(catalogue.entries().len()).unwrap_or(u32::MAX);
        (entries > 0).then(|| CatalogueSummary { digest: catalogue.digest().0, entries })
    }

    /// The service beside this node, if it has its figures from one.
    #[must_use]
    pub fn service(&self) -> Service {
        match &self.stock {
            Stock::Shelf(_) => Service::None,
            Stock::Sidecar(sidecar) => sidecar.away_for().map_or(Service::There, Service::Away),
        }
    }

    fn catalogue(&self) -> Option<(Catalogue, Bytes)> {
        match &self.stock {
            Stock::Shelf(figures) => {
                let shelf = figures.shelf.borrow();
                Some((shelf.catalogue().clone(), shelf.catalogue_text().clone()))
            }
            Stock::Sidecar(sidecar) => sidecar.is_up().then(|| sidecar.catalogue()),
        }
    }

    /// A share of a figure that this node holds itself: entry and body. `None`: it does not, or passes it on from elsewhere.
    #[must_use]
    pub fn held(&self, name: &FigureName, share: Share) -> Option<(Entry, Bytes)> {
        match &self.stock {
            Stock::Shelf(figures) => {
                let shelf = figures.shelf.borrow();
                shelf.get(name, share).map(|(entry, body)| (entry.clone(), body.clone()))
            }
            Stock::Sidecar(_) => None,
        }
    }

    /// Answers `/catalog`, `/figures`, `/figures/{name}` and the same below `/local`; `None` for other paths.
    pub async fn answer(&self, mesh: &Mesh, request: &Gated) -> Option<Answer> {
        let started = Instant::now();
        let path = request.path.strip_prefix("/local").unwrap_or(&request.path);
        let mut answer = match path.strip_prefix('/')?.split_once('/') {
            None if path == "/catalog" => self.catalogue_text(),
            None if path == "/figures" => self.list(request),
            Some(("figures", name)) if !name.contains('/') => self.figure(request, name).await,
            _ => return None,
        };
        let me = mesh.me();
        let served_by = format!("{}@{}", me.record.name, me.record.island);
        forward::sign(answer.headers_mut(), me.id, &served_by, started.elapsed(), self.load());
        Some(answer)
    }

    fn catalogue_text(&self) -> Answer {
        match self.catalogue() {
            Some((_, text)) => typed("text/tab-separated-values; charset=utf-8", text),
            None => typed("text/tab-separated-values; charset=utf-8", Bytes::new()),
        }
    }

    async fn figure(&self, request: &Gated, name: &str) -> Answer {
        let Ok(name) = name.parse::<FigureName>() else { return bad_name(name).into_answer() };
        let permit = match self.admission.admit() {
            Some(permit) => permit,
            None => match self.admission.queue().await {
                Some(permit) => permit,
                None => return full_here().into_answer(),
            },
        };
        let answer = match &self.stock {
            Stock::Shelf(figures) => {
                let shelf = figures.shelf.borrow().clone();
                from_shelf(&shelf, &name, request.parameter("share").as_deref())
            }
            Stock::Sidecar(sidecar) => return sidecar.answer(request, &name, permit).await,
        };
        drop(permit);
        answer
    }

    fn list(&self, request: &Gated) -> Answer {
        let Paging { after, part, limit } = match Paging::of(request) {
            Ok(paging) => paging,
            Err(problem) => return problem.into_answer(),
        };
        let Some((catalogue, _)) = self.catalogue() else { return page(Vec::new(), None) };
        let mut figures: Vec<FigureRow> = Vec::new();
        let mut next = None;
        let start = after
            .as_ref()
            .map_or(0, |after| catalogue.entries().partition_point(|entry| entry.name <= *after));
        let mut at = start;
        while let Some(entry) = catalogue.entries().get(at) {
            let shares = catalogue.range(&entry.name);
            at = shares.end;
            if !entry.name.as_str().contains(&part) {
                continue;
            }
            if figures.len() == limit {
                next = figures.last().map(|row| row.name.clone());
                break;
            }
            let total = match entry.share.is_whole() {
                true => {
                    self.held(&entry.name, entry.share).and_then(|(_, body)| Figure::from_body(&body).ok())
                }
                false => None,
            };
            figures.push(FigureRow {
                name: entry.name.to_string(),
                total: total.map(|figure| figure.total()),
                shares: format!("{}/{}", shares.len(), entry.share.of),
                sources: 1,
            });
        }
        page(figures, next)
    }
}

impl PiecesTask {
    /// Follows files or the service beside this node, and announces what changes. Never ends by itself.
    pub async fn run(self, mesh: Mesh) {
        let Self { pieces, watching } = self;
        match (&pieces.stock, watching) {
            (Stock::Shelf(figures), Some(task)) => {
                let announcing = announce_changes(&pieces, figures.shelf.clone(), &mesh);
                tokio::join!(task.run(), announcing);
            }
            (Stock::Sidecar(sidecar), _) => {
                let up = sidecar.watch();
                tokio::join!(sidecar.keep_checking(), announce_changes(&pieces, up, &mesh));
            }
            (Stock::Shelf(figures), None) => announce_changes(&pieces, figures.shelf.clone(), &mesh).await,
        }
    }
}

/// Announces the catalogue whenever it has changed, until nobody changes it any more.
async fn announce_changes<T>(pieces: &Pieces, mut changes: watch::Receiver<T>, mesh: &Mesh) {
    loop {
        changes.mark_unchanged();
        let news = Announcement { catalogue: Some(pieces.summary()), ..Announcement::default() };
        if let Err(error) = mesh.announce(news).await {
            debug!(%error, "catalogue not announced");
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn from_shelf(shelf: &Shelf, name: &FigureName, share: Option<&str>) -> Answer {
    let wanted = match share.map(str::parse::<u16>) {
        None => None,
        Some(Ok(index)) => Some(index),
        Some(Err(_)) => {
            return Problem::new(
                StatusCode::BAD_REQUEST,
                "bad-share",
                "malformed share",
                "share is a number from 1",
            )
            .into_answer();
        }
    };
    let mut shares =
        shelf.shares(name).filter(|(entry, _)| wanted.is_none_or(|index| entry.share.index == index));
    match shares.next() {
        Some((_, body)) => typed("application/json", body.clone()),
        None => no_such_figure(name.as_str(), &[]).into_answer(),
    }
}

/// `after`, `q` and `limit` of a list.
pub(super) struct Paging {
    pub(super) after: Option<FigureName>,
    pub(super) part: String,
    pub(super) limit: usize,
}

impl Paging {
    /// Reads them off a request.
    pub(super) fn of(request: &Gated) -> Result<Self, Box<Problem>> {
        let bad = |detail: &str| {
            let problem =
                Problem::new(StatusCode::BAD_REQUEST, "bad-parameter", "malformed parameter", detail);
            Box::new(problem.advise("for example: /figures?q=duck&limit=50&after=dragon"))
        };
        let limit = match request.parameter("limit").map(|limit| limit.parse::<usize>()) {
            None => 100,
            Some(Ok(limit)) if (1..=1000).contains(&limit) => limit,
            Some(_) => return Err(bad("limit is a number from 1 to 1000")),
        };
        let after =
            match request.parameter("after").filter(|after| !after.is_empty()).map(|after| after.parse()) {
                None => None,
                Some(Ok(after)) => Some(after),
                Some(Err(_)) => return Err(bad("after is the name of a figure")),
            };
        let part = request.parameter("q").unwrap_or_default().to_ascii_lowercase();
        Ok(Self { after, part, limit })
    }
}

/// A page of figures as an answer.
pub(super) fn page(figures: Vec<FigureRow>, next: Option<String>) -> Answer {
    let body = serde_json::to_vec(&FiguresPage { figures, next }).expect("strings and numbers only");
    typed("application/json", body)
}

/// 200 with a body of this type.
pub(super) fn typed(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = http::Response::new(full(body));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Not a name that any figure can have.
pub(super) fn bad_name(name: &str) -> Problem {
    let shown: String = name.chars().take(80).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-such-figure",
        "no such figure",
        format!("\"{shown}\" cannot be a figure: names are 1 to 64 of a-z, 0-9, '.', '_' and '-'"),
    )
    .advise("see what there is with: isle figures")
}

/// Nobody listed announces it.
pub(super) fn no_such_figure(name: &str, similar: &[FigureName]) -> Problem {
    let advice = match similar {
        [] => "see what there is with: isle figures".to_owned(),
        names => {
            let names: Vec<&str> = names.iter().map(FigureName::as_str).collect();
            format!("did you mean {}?", names.join(" or "))
        }
    };
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-such-figure",
        "no such figure",
        format!("no member announces \"{name}\""),
    )
    .advise(advice)
}

fn full_here() -> Problem {
    let mut problem = Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "full",
        "full",
        "this piece server has as many requests in flight as it admits",
    )
    .advise("ask an intermediary, which knows who has room");
    problem.retry_after = Some(1);
    problem
}
