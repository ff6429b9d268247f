//! Raw bytes against the real listener with a tiny application behind it, on loopback.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a failed unwrap is a failed test; nobody imports a test"
)]

mod descriptors;
mod gate;
mod harness;
mod leaving;
mod slow;
mod streams;
