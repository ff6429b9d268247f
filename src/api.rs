//! What every node tells about itself and its table over HTTP: only reading, nothing that changes state.
//!
//! | module | is |
//! |---|---|
//! | [`view`] | the JSON, and what every reason means |
//! | [`members`] | the table, and the member a person means |
//! | [`events`] | what happens, as a stream |

pub mod events;
pub mod members;
pub mod view;
