//! Membership of one island.
//!
//! | module | is |
//! |---|---|
//! | [`member`] | who a member is, what it says of itself |
//! | [`wire`] | messages; bytes to message and back |
//! | [`verify`] | bytes to a word that its author really said |
//! | [`identity`] | who this node is, and how it signs |
//! | [`proof`] | who listens at an address |
//! | [`transfer`] | the whole table as one body |
//! | [`event`] | what changed |
//! | [`table`] | precedence and merge: which word counts |
//! | [`far`] | what is known of other islands and their members |
//! | [`membership`] | the state machine of one node, without IO |
//! | [`shared`] | the table as every task reads it |
//! | [`path`], [`reach`], [`island`] | ways between islands; other islands |
//! | [`outward`] | what links between islands are told, and what they bring |
//! | [`config`], [`mesh`] | what a program gives and holds |
//! | `driver` | the one task with the sockets |
//! | [`find`] | where an intermediary is, for those who only ask |
//! | [`metrics`] | what was sent, heard, refused |

mod by_member;
pub mod config;
mod driver;
pub mod event;
pub mod far;
pub mod find;
pub mod identity;
pub mod island;
pub mod member;
pub mod membership;
pub mod mesh;
pub mod metrics;
pub mod outward;
pub mod path;
pub mod proof;
pub mod reach;
pub mod reserved;
pub mod shared;
pub mod table;
pub mod transfer;
pub mod verify;
pub mod wire;
