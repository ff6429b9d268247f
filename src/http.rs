//! HTTP as this node serves it: listener, gate, admission, answers.
//!
//! | module | is |
//! |---|---|
//! | [`body`] | the one body type of answers |
//! | [`problem`] | every error as problem+json |
//! | [`request`] | what has passed the gate |

pub mod body;
pub mod problem;
pub mod request;
