//! Membership of one island.
//!
//! | module | is |
//! |---|---|
//! | [`member`] | who a member is, what it says of itself |
//! | [`wire`] | messages; bytes to message and back |
//! | [`event`] | what changed |
//! | [`shared`] | the table as every task reads it |

pub mod event;
pub mod member;
pub mod shared;
pub mod wire;
