//! Links between islands: what two bridges say to each other, as state machines without IO.
//!
//! A bridge hands on the words of the members of its table exactly as their authors signed them, so it can leave
//! something out but cannot invent, alter or revive. What is said is decided by state machines that open no socket,
//! read no clock and never wait: bytes and times go in, frames and events come out. [`endpoint`] and what is above it
//! carry them over QUIC.
//!
//! | module | subject |
//! |---|---|
//! | [`bridge`] | all links of one node, and what the program around it has to do with them |
//! | [`endpoint`] | QUIC connections between nodes that have proven their keys |
//! | [`frame`] | stream bytes to frames and back, with limits |
//! | [`journal`] | what changed in the own table, as links read it |
//! | [`junction`] | what a bridge decides of its links: calls, cursors, ways, loads |
//! | [`link`] | one link over one connection |
//! | [`redial`] | when a configured link is tried again |
//! | [`routes`] | which islands can be reached, through whom |
//! | [`session`] | one link: hello, what each side lacks, goodbye |
//! | [`shared`] | the journal as all links of a bridge read it |
//! | [`tls`] | certificates that are nothing but node keys |
//! | [`tunnel`] | streams of bytes to members of other islands |

pub mod bridge;
pub mod endpoint;
pub mod frame;
pub mod journal;
pub mod junction;
pub mod link;
pub mod redial;
pub mod routes;
pub mod session;
pub mod shared;
pub mod tls;
pub mod tunnel;
