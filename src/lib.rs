//! The node: roles, HTTP, routing, figures, command line.

pub mod api;
pub mod cli;
pub mod config;
pub mod figures;
pub mod http;
pub mod node;
pub mod shutdown;
pub mod telemetry;
