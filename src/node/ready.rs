//! The one line a node prints on standard output: it is ready, and this is where.

use std::io::{self, Write};
use std::net::SocketAddr;

use isle_mesh::member::MemberId;
use serde::Serialize;

/// What the line says. Values without spaces.
#[derive(Debug, Serialize)]
pub struct Ready {
    /// Label of this node.
    pub name: String,
    /// Its key, in full.
    #[serde(serialize_with = "as_text")]
    pub id: MemberId,
    /// The island it counts itself to.
    pub island: String,
    /// Where others can dial its listener.
    pub http: SocketAddr,
}

fn as_text<S: serde::Serializer>(id: &MemberId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

impl Ready {
    /// Prints the line and flushes it. A reader that is gone is no error: the node was not started for it.
    ///
    /// # Errors
    /// Standard output fails otherwise.
    pub fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let written = if json {
            let mut line = serde_json::json!({ "ready": true });
            line.as_object_mut().expect("made as an object above").extend(
                serde_json::to_value(self)
                    .ok()
                    .and_then(|value| value.as_object().cloned())
                    .unwrap_or_default(),
            );
            writeln!(out, "{line}")
        } else {
            writeln!(out, "ready name={} id={} island={} http={}", self.name, self.id, self.island, self.http)
        };
        match written.and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}
