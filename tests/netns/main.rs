//! Real nodes on real wires: what an island must show, measured between network namespaces.
//!
//! Scenarios run one after another (`runner`), each with wires and hosts of its own (`network`), the real program in
//! them (`node`), clients (`client`, `load`), ears on the wire (`tap`, `sniffer`) and on `/events` (`events`), hundreds of
//! members that are no processes (`crowd`), and another program to be measured beside (`serf`).
//! All of it is one process: a thread enters a host, opens its sockets there, and every moment is of one clock.
//!
//! Short versions run with `cargo test`, with bounds that a busy machine keeps; `cargo xtask trial` runs the long ones
//! (`ISLE_TRIAL=1`) on the release binary, with the bounds that are promised, and shows what was measured.
//!
//! Needs root, iproute2 and nftables; says that it is skipped without, or fails where `ISLE_REQUIRE_NETNS=1`.

mod archipelago;
mod client;
mod copier;
mod crowd;
mod events;
mod figures;
mod island;
mod load;
mod measure;
mod neighbours;
mod network;
mod node;
mod rogue;
mod runner;
mod scenario;
mod sea;
mod serf;
mod service;
mod sniffer;
mod tap;

use std::process::ExitCode;

fn main() -> ExitCode {
    runner::main(&scenario::all())
}
