//! What a node does for others: hold figures, take clients' requests.

pub mod intermediary;
pub mod pieces;
