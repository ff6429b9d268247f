//! The real program as people and scripts use it: help, wrong use, pipes, and a node asked from outside.
//! Everything is on loopback, under mesh names and discovery ports of its own.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod asking;
mod harness;
mod settings;
mod tour;
mod usage;
