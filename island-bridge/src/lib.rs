//! Links between islands.
//!
//! This crate will hold what two bridges say to each other: sessions as a state machine without IO, QUIC
//! endpoints and tunnels. It has no code yet: a mesh is one island today. Its place in the
//! workspace is fixed so that `isle-mesh` stays free of QUIC, and the node free of sessions.
