//! The JSON of figures: lists, a figure with its sources, and why a request would go where.

use serde::{Deserialize, Serialize};

use crate::figures::figure::Piece;

/// Body of `GET /figures`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FiguresPage {
    /// Sorted by name.
    pub figures: Vec<FigureRow>,
    /// Value of `after` for the next page; `null` after the last.
    pub next: Option<String>,
}

/// A figure in a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FigureRow {
    /// Its name, lower case.
    pub name: String,
    /// Pieces in all; `null` where that cannot be known now (a share is missing, or a sidecar vouches for nothing).
    pub total: Option<u32>,
    /// Shares that can be had, of how many there are.
    pub shares: String,
    /// Members that hold any of it and may be asked.
    pub sources: usize,
}

/// Body of `GET /figures/{name}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FigureBody {
    /// Its name, lower case.
    pub name: String,
    /// Sum of the quantities.
    pub total: u32,
    /// Sorted by part, then colour.
    pub pieces: Vec<Piece>,
    /// Who sent its shares.
    pub sources: Vec<SourceView>,
}

/// Who sent a share.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SourceView {
    /// Its key.
    pub id: String,
    /// Its bare label.
    pub name: String,
    /// Its island.
    pub island: String,
    /// Which share, as `1/3`.
    pub share: String,
}

/// Body of `GET /figures/{name}/route`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RouteView {
    /// The figure, lower case.
    pub name: String,
    /// Label of the node that says so.
    pub asked_at: String,
    /// How many shares there are.
    pub shares: u16,
    /// Who could serve which share, by share, then id.
    pub candidates: Vec<CandidateView>,
    /// Status that a request would be answered with now.
    pub status: u16,
    /// Shares nobody can serve, as `2/3`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// A member that announces a share.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CandidateView {
    /// Which share, as `1/3`.
    pub share: String,
    /// Its key.
    pub id: String,
    /// Its bare label.
    pub name: String,
    /// Its island.
    pub island: String,
    /// Whether a request may go to it now.
    pub can_serve: bool,
    /// Whether it has the lowest cost of those that can. The draw may fall on another.
    pub preferred: bool,
    /// Why, or why not: a stable word.
    pub reason: Option<String>,
    /// The same as a sentence.
    pub why: String,
}
