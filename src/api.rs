//! What every node tells about itself and its table over HTTP: only reading, nothing that changes state.
//!
//! | module | is |
//! |---|---|
//! | [`view`] | the JSON, and what every reason means |

pub mod view;
