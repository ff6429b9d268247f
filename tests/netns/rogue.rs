//! A bridge that may link and is not to be believed: it listens like an honest one, and says what the library would refuse
//! to say. Its words are frames of its own, over connections of the library's endpoint.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use island_bridge::bridge::{self, Config, Target};
use island_bridge::endpoint::{Closing, Connection, Endpoint, Settings};
use island_bridge::frame::{self, Changes, Cursor, Decoder, Frame, Hello, Stream};
use island_bridge::session::PROTOCOL;
use island_bridge::tls::Purpose;
use isle_mesh::identity::Identity;
use isle_mesh::member::{Epoch, LeaveReason, MemberId, Record, Seq};
use isle_mesh::wire::{Down, Farewell, MeshTag, Message, Suspect};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::network::Host;

/// The island that it claims to be of.
pub(crate) const ISLAND: &str = "west";
/// The number of its test key: it can sign as a member, too.
pub(crate) const NUMBER: u64 = 4242;
/// Long for anything that an honest bridge is to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// A host of its own, and a key that others allow.
#[derive(Debug)]
pub(crate) struct Rogue {
    host: Host,
    address: Ipv4Addr,
    key: SigningKey,
}

impl Rogue {
    pub(crate) fn new(host: Host, address: Ipv4Addr) -> Self {
        Self { host, address, key: Identity::for_test(NUMBER).signing_key().clone() }
    }

    /// Its key, as others allow it.
    pub(crate) fn id(&self) -> MemberId {
        MemberId(self.key.verifying_key().to_bytes())
    }

    fn settings(&self) -> Settings {
        Settings { bind: SocketAddr::from((self.address, 0)), ..Settings::default() }
    }

    /// Runs `work` on its host.
    pub(crate) fn run<T: Send>(&self, work: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
        self.host.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let outcome = runtime.block_on(work());
            // Whatever it left open is closed with it.
            runtime.shutdown_background();
            outcome
        })?
    }

    /// Links like an honest bridge and gives all words that it hears until `stop`.
    pub(crate) async fn listen(
        &self,
        to: SocketAddr,
        key: MemberId,
        stop: Arc<AtomicBool>,
    ) -> Result<Vec<Bytes>> {
        let target: Target = format!("{key}@{to}").parse()?;
        let config =
            Config { endpoint: self.settings(), links: vec![target], ..Config::new(ISLAND.to_owned()) };
        let (bridge, mut feeds, task) = bridge::start(config, &self.key, tag())?;
        let task = tokio::spawn(task);
        let mut heard = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            if let Ok(Some(words)) = timeout(Duration::from_millis(20), feeds.words.recv()).await {
                heard.extend(words.words.iter().cloned());
                words.merged();
            }
        }
        bridge.leave().await;
        task.await??;
        Ok(heard)
    }

    /// A connection for links.
    pub(crate) async fn dial(&self, to: SocketAddr, key: MemberId) -> Result<(Endpoint, Connection)> {
        let endpoint = Endpoint::open(&self.settings(), &self.key, tag())?;
        // The one before may not be over yet at the other side.
        for _ in 0..100 {
            if let Ok(connection) = endpoint.dial(key, to, Purpose::Link).await {
                return Ok((endpoint, connection));
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("{to} does not take our connections any more")
    }

    /// A link that is up and reads what it is told.
    pub(crate) async fn link(&self, to: SocketAddr, key: MemberId) -> Result<RogueLink> {
        let (endpoint, connection) = self.dial(to, key).await?;
        RogueLink::open(endpoint, connection).await
    }
}

/// The tag of the mesh that all are in.
pub(crate) fn tag() -> MeshTag {
    MeshTag::of("isle")
}

pub(crate) fn hello() -> Frame {
    Frame::Hello(Hello {
        protocol: PROTOCOL,
        island: ISLAND.to_owned(),
        island_id: None,
        instance: 7,
        software: "1".to_owned(),
        invite: None,
    })
}

pub(crate) fn encoded(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame::encode(frame, &mut bytes));
    bytes
}

/// Why the other side closed this connection.
pub(crate) async fn closed(connection: &Connection) -> Result<Option<Closing>> {
    let error = timeout(PATIENCE, connection.quic().closed()).await.context("it is not closed")?;
    Ok(Closing::of(&error))
}

/// Its end of a link, on which it says what it wants.
pub(crate) struct RogueLink {
    /// The connection; ends with the endpoint.
    pub(crate) connection: Connection,
    endpoint: Endpoint,
    control: Arc<tokio::sync::Mutex<quinn::SendStream>>,
    table: quinn::SendStream,
    urgent: quinn::SendStream,
    /// Batches that were acknowledged.
    acks: watch::Receiver<u64>,
    batches: u64,
    urgents: u64,
}

impl RogueLink {
    async fn open(endpoint: Endpoint, connection: Connection) -> Result<Self> {
        let quic = connection.quic();
        let mut control = quic.open_uni().await?;
        let mut table = quic.open_uni().await?;
        let urgent = quic.open_uni().await?;
        control.write_all(&encoded(&[hello()])).await?;
        table.write_all(&encoded(&[Frame::Cursor(Cursor { instance: 1, index: 1, urgent: 1 })])).await?;
        let control = Arc::new(tokio::sync::Mutex::new(control));
        let (acked, acks) = watch::channel(0);
        let begun = Arc::new(AtomicU64::new(0));
        for stream in Stream::ALL {
            let inbound = timeout(PATIENCE, quic.accept_uni()).await.context("a stream is missing")??;
            tokio::spawn(read(stream, inbound, control.clone(), acked.clone(), begun.clone()));
        }
        let link = Self { connection, endpoint, control, table, urgent, acks, batches: 0, urgents: 0 };
        let up = async {
            while begun.load(Ordering::Relaxed) == 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, up).await.context("no cursor came")?;
        Ok(link)
    }

    /// Says these on the table's stream, and waits until they are merged.
    pub(crate) async fn say(&mut self, withdrawn: Vec<MemberId>, words: Vec<Bytes>) -> Result<()> {
        self.batches += 1;
        let changes = Changes { through: self.batches, withdrawn, words, gone: Vec::new() };
        self.table.write_all(&encoded(&[Frame::Changes(changes)])).await?;
        let merged = self.acks.wait_for(|acked| *acked >= self.batches);
        timeout(PATIENCE, merged).await.context("a batch is not acknowledged")??;
        Ok(())
    }

    /// All these, in batches as large as may be.
    pub(crate) async fn say_all(&mut self, words: &[Bytes]) -> Result<()> {
        for some in words.chunks(200) {
            self.say(Vec::new(), some.to_vec()).await?;
        }
        Ok(())
    }

    /// Says one past all others.
    pub(crate) async fn say_urgent(&mut self, word: Bytes) -> Result<()> {
        self.urgents += 1;
        let frame = Frame::Urgent { index: self.urgents, words: vec![word], gone: Vec::new() };
        Ok(self.urgent.write_all(&encoded(&[frame])).await?)
    }

    /// Says what may be no frame on the table's stream; it may be cut off while it does.
    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        let _ = self.table.write_all(bytes).await;
    }

    /// Says ways that need not exist.
    pub(crate) async fn say_routes(&mut self, routes: Vec<frame::Route>) -> Result<()> {
        Ok(self.urgent.write_all(&encoded(&[Frame::Routes(routes)])).await?)
    }

    /// A connection for tunnels beside the link.
    pub(crate) async fn tunnels(&self, to: SocketAddr, key: MemberId) -> Result<Connection> {
        Ok(self.endpoint.dial(key, to, Purpose::Tunnels).await?)
    }

    /// Whether the link still carries: it is asked.
    pub(crate) async fn is_up(&self) -> bool {
        let ping = encoded(&[Frame::Ping { nonce: 1 }]);
        self.control.lock().await.write_all(&ping).await.is_ok()
            && self.connection.quic().close_reason().is_none()
    }
}

/// Reads a stream to its end, and answers what an honest bridge would, so that the link stands.
async fn read(
    stream: Stream,
    mut inbound: quinn::RecvStream,
    control: Arc<tokio::sync::Mutex<quinn::SendStream>>,
    acked: watch::Sender<u64>,
    begun: Arc<AtomicU64>,
) {
    let mut decoder = Decoder::new(stream);
    while let Ok(Some(chunk)) = inbound.read_chunk(64 << 10, true).await {
        let mut bytes = &*chunk.bytes;
        while let Ok(Some(frame)) = decoder.read(&mut bytes) {
            match frame {
                Frame::Ping { nonce } => {
                    let _ = control.lock().await.write_all(&encoded(&[Frame::Pong { nonce }])).await;
                }
                Frame::Ack { through } => {
                    acked.send_replace(through);
                }
                Frame::Cursor(_) => begun.store(1, Ordering::Relaxed),
                _ => {}
            }
        }
    }
}

/// A member that never was.
pub(crate) fn made_up(number: u64, island: &str, watchers: Vec<MemberId>) -> Bytes {
    let record = Record {
        name: format!("made-up-{number}"),
        roles: vec!["pieces".to_owned()],
        addresses: Vec::new(),
        http_port: 1233,
        unicast_port: 4000,
        island: island.to_owned(),
        island_given: true,
        draining: false,
        catalogue: None,
        watchers,
        protocol: (1, 1),
        version: String::new(),
        tags: Vec::new(),
    };
    signed(number, 1, &Message::Announce(record.into()))
}

/// What the made-up member with this number says.
pub(crate) fn signed(number: u64, seq: u64, message: &Message) -> Bytes {
    Identity::for_test(number).sign_word(tag(), message, Seq(seq))
}

pub(crate) fn made_up_id(number: u64) -> MemberId {
    Identity::for_test(number).id()
}

/// Votes of made-up members that this one is silent.
pub(crate) fn certificate(
    target: MemberId,
    epoch: Epoch,
    record: u64,
    last: u64,
    voters: std::ops::Range<u64>,
) -> Bytes {
    let vote = Suspect { target, epoch, record_seq: Seq(record), last_seq: Seq(last), silence_ms: 700 };
    let first = voters.start;
    let votes = voters.map(|voter| signed(voter, 1_000_000, &Message::Suspect(vote))).collect();
    signed(first, 1_000_001, &Message::Down(Down { votes }))
}

/// A farewell that a made-up member signs in another's name.
pub(crate) fn farewell_in_the_name_of(target: MemberId, epoch: Epoch, signer: u64) -> Bytes {
    let message = Message::Farewell(Farewell { reason: LeaveReason::Stopped });
    let mut bytes = signed(signer, 1 << 40, &message).to_vec();
    bytes[8..40].copy_from_slice(&target.0);
    bytes[40..44].copy_from_slice(&epoch.0.to_be_bytes());
    bytes.into()
}

/// Demands that the other side has broken a connection that broke the protocol.
pub(crate) async fn demand_breach(connection: &Connection, what: &str) -> Result<()> {
    let why = closed(connection).await.with_context(|| what.to_owned())?;
    ensure!(why == Some(Closing::Breach), "{what}: closed with {why:?}");
    Ok(())
}
