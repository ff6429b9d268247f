//! The node: roles, HTTP, routing, figures, command line.

pub mod api;
pub mod cli;
pub mod config;
pub mod embed;
pub mod endpoint;
pub mod figures;
pub mod http;
pub mod index;
pub mod node;
pub mod roles;
pub mod route;
pub mod shed;
pub mod shutdown;
pub mod telemetry;
pub mod upstream;

pub use isle_mesh as mesh;
