//! HTTP as this node serves it: listener, gate, admission, answers.
//!
//! | module | is |
//! |---|---|
//! | [`listen`] | opens the listener, and says who has the port if it cannot |
//! | [`accept`] | takes connections in |
//! | [`connections`] | every open connection, and how they end when the node leaves |
//! | [`connection`] | one of them: request, answer, request |
//! | [`gate`] | from bytes to a request that can be relied on |
//! | [`admission`] | permits, and a short queue |
//! | [`forward`] | what happens to fields on the way through |
//! | [`hosts`] | what a browser's pages may read |
//! | [`request`] | what has passed the gate |
//! | [`body`] | the one body type of answers |
//! | [`problem`] | every error as problem+json |
//! | [`respond`] | from our errors to problems |
//! | [`meter`] | what is counted here |

pub mod accept;
pub mod admission;
pub mod body;
pub mod connection;
pub mod connections;
pub mod forward;
pub mod gate;
pub mod hosts;
pub mod listen;
pub mod meter;
pub mod problem;
pub mod request;
pub mod respond;
