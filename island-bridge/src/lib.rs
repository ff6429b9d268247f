//! Links between islands: what two bridges say to each other, as state machines without IO.
//!
//! A bridge hands on the words of the members of its table exactly as their authors signed them, so it can leave
//! something out but cannot invent, alter or revive. Nothing here opens a socket, reads a clock or waits: bytes and
//! times go in, frames and events come out.
//!
//! | module | subject |
//! |---|---|
//! | [`frame`] | stream bytes to frames and back, with limits |
//! | [`journal`] | what changed in the own table, as links read it |
//! | [`path`] | the islands that lie on a way |
//! | [`redial`] | when a configured link is tried again |
//! | [`routes`] | which islands can be reached, through whom |
//! | [`session`] | one link: hello, what each side lacks, goodbye |

pub mod frame;
pub mod journal;
pub mod path;
pub mod redial;
pub mod routes;
pub mod session;
