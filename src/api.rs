//! What every node tells about itself and its table over HTTP: only reading, nothing that changes state.
//!
//! | module | is |
//! |---|---|
//! | [`view`] | the JSON, and what every reason means |
//! | [`members`] | the table, and the member a person means |
//! | [`events`] | what happens, as a stream |
//! | [`ready`] | whether this node should be asked |
//! | [`gauges`] | metrics that are read off the node |

pub mod events;
pub mod gauges;
pub mod members;
pub mod ready;
pub mod view;
