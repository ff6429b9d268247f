//! What a node does for others: hold figures, take clients' requests, join islands.

pub mod bridge;
pub mod intermediary;
pub mod pieces;
