//! Where an intermediary is, for a program that only asks: a hello with a throw-away key, and the offers it brings.
//!
//! Whoever asks like this is never listed and raises no event.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::config::DISCOVERY_PORT;
use crate::driver::interfaces::Interfaces;
use crate::driver::socket::{self, Port};
use crate::identity::{Identity, IdentityError};
use crate::member::{MemberId, Seq};
use crate::verify::verify;
use crate::wire::{DATAGRAM_BYTES_MAX, Hello, MeshTag, Message};

/// When the question is asked again, counted from the first time.
const ASKED_AT: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];

/// Where to ask.
#[derive(Clone, Debug)]
pub struct FindOptions {
    /// Which mesh.
    pub mesh: String,
    /// Only intermediaries of this island, if given.
    pub island: Option<String>,
    /// UDP port of discovery.
    pub discovery_port: u16,
    /// Interfaces to ask on; empty: all that are up.
    pub interfaces: Vec<String>,
    /// How long to wait for the first answer.
    pub wait: Duration,
}

impl Default for FindOptions {
    fn default() -> Self {
        Self {
            mesh: "isle".to_owned(),
            island: None,
            discovery_port: DISCOVERY_PORT,
            interfaces: Vec::new(),
            wait: Duration::from_secs(2),
        }
    }
}

/// An intermediary that answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its HTTP listener, at the address it answered from.
    pub http: SocketAddr,
    /// Its key.
    pub id: MemberId,
    /// Its island.
    pub island: String,
}

/// Why nobody could be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// The system gives no socket.
    #[error("no UDP socket")]
    Socket(#[from] io::Error),
    /// The system gives no key.
    #[error("no key")]
    Identity(#[from] IdentityError),
}

/// Asks on every path who is an intermediary. Returns the first that answers and those that answer within the next 20 ms,
/// in the order of their answers; nobody within `wait`: empty.
///
/// # Errors
/// See [`FindError`]: nobody was asked then.
pub async fn intermediaries(options: &FindOptions) -> Result<Vec<Found>, FindError> {
    /// Others may be nearer than the first to answer, but not by much.
    const LINGER: Duration = Duration::from_millis(20);
    let asker = Asker::new(options)?;
    let start = Instant::now();
    let mut end = start + options.wait;
    let mut found: BTreeMap<MemberId, Found> = BTreeMap::new();
    let mut order = Vec::new();
    let mut attempts = (0_u8..).zip(ASKED_AT).peekable();
    loop {
        let ask_at = attempts.peek().filter(|_| found.is_empty()).map(|(_, after)| start + *after);
        let until = ask_at.map_or(end, |at| at.min(end));
        match timeout_at(until, asker.next_offer()).await {
            Ok(offer) => {
                if found.is_empty() {
                    end = end.min(Instant::now() + LINGER);
                }
                if !found.contains_key(&offer.id) {
                    order.push(offer.id);
                }
                found.insert(offer.id, offer);
            }
            Err(_) if Instant::now() >= end => break,
            Err(_) => {
                if let Some((attempt, _)) = attempts.next() {
                    asker.ask(attempt);
                }
            }
        }
    }
    Ok(order.into_iter().filter_map(|id| found.remove(&id)).collect())
}

struct Asker {
    ports: Vec<Port>,
    identity: Identity,
    tag: MeshTag,
    nonce: u64,
    unicast_port: u16,
    island: Option<String>,
}

impl Asker {
    fn new(options: &FindOptions) -> Result<Self, FindError> {
        let (mut ports, unicast_port) = socket::open_private()?;
        let interfaces = Interfaces::new(options.interfaces.clone()).list();
        for interface in interfaces.unwrap_or_default() {
            ports.extend(socket::open_asking(&interface, options.discovery_port));
        }
        let identity = Identity::fresh()?;
        // The key is fresh and random: so is its first half, and nobody can foresee it.
        let mut nonce = [0; 8];
        nonce.copy_from_slice(&identity.id().0[..8]);
        Ok(Self {
            ports,
            identity,
            tag: MeshTag::of(&options.mesh),
            nonce: u64::from_be_bytes(nonce),
            unicast_port,
            island: options.island.clone(),
        })
    }

    fn ask(&self, attempt: u8) {
        let hello = Message::Hello(Hello {
            nonce: self.nonce,
            attempt,
            digest: 0,
            cookie: None,
            island: self.island.clone(),
            unicast_port: self.unicast_port,
            asking: true,
        });
        let bytes = self.identity.sign_word(self.tag, &hello, Seq(u64::from(attempt) + 1));
        for port in &self.ports {
            for path in &port.paths {
                // One path that fails is no matter: the others carry the question.
                let _ = port.send(&bytes, *path);
            }
        }
    }

    /// The next intermediary that answers. Cancel safe: a datagram is taken and judged in one step.
    async fn next_offer(&self) -> Found {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
        loop {
            let (length, from) = self.receive(&mut buffer).await;
            let Ok(word) = verify(self.tag, Bytes::copy_from_slice(&buffer[..length])) else { continue };
            if let Some(Message::Offer(offer)) = &word.message
                && offer.nonce == self.nonce
                && offer.intermediary
                && offer.http_port != 0
                && self.island.as_ref().is_none_or(|island| *island == offer.island)
            {
                let mut http = from;
                http.set_port(offer.http_port);
                return Found { http, id: word.header.author, island: offer.island.clone() };
            }
        }
    }

    async fn receive(&self, buffer: &mut [u8]) -> (usize, SocketAddr) {
        std::future::poll_fn(|context| {
            for port in self.ports.iter().filter(|port| !port.shared) {
                // An ICMP answer to something we sent is an error here: the next datagram is waited for.
                while port.poll_readable(context).is_ready() {
                    if let Ok(received) = port.receive(buffer) {
                        return std::task::Poll::Ready(received);
                    }
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}
