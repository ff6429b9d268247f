//! The protocol as recorded bytes: what they mean today they must mean for ever.
//!
//! `vectors/NAME.hex` holds bytes and, in its comments, what they mean. Each is checked three ways: building
//! it anew gives the same bytes, reading the recorded bytes gives the recorded meaning, and where NETWORK.md
//! prints it, it prints these bytes. A deliberate change of the wire is recorded with
//! `ISLE_RECORD=1 cargo test --test compat`, in the same commit as NETWORK.md and the version.

#![expect(clippy::unwrap_used, reason = "helpers of tests may stop at the first surprise, as tests do")]

mod corpus;
mod figures;
mod links;
mod network;
mod recorded;
mod vectors;
