//! How a tunnel is opened: the caller's first frame names the whole way, the answer says whether it stands.
//!
//! Because the way is fixed by whoever starts it, no table on the way decides anything: a tunnel cannot go in a
//! circle whatever those tables say.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use isle_mesh::member::MemberId;
use isle_mesh::proof::PROOF_BYTES_MAX;

use super::reader::{Reader, put_blob, put_list, put_text};
use super::{FrameError, with_prefix};
use isle_mesh::path::{PATH_ISLANDS_MAX, Path};

/// Most bytes that may follow the length of a tunnel's frame.
pub(super) const FRAME_BYTES_MAX: usize = 2048;

const OPEN: u8 = 48;
const OPENED: u8 = 49;
const FAILED: u8 = 50;

/// What is said before a tunnel carries bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TunnelFrame {
    /// "Connect me to that member."
    Open(Open),
    /// "You are connected."
    Opened(Opened),
    /// "You are not."
    Failed(TunnelFailure),
}

/// Where a tunnel leads, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Open {
    /// The islands on the way, the caller's own left out, the member's last; each once.
    pub hops: Vec<Hop>,
    /// Who is to be reached.
    pub target: MemberId,
    /// The TCP port it announced; not 0.
    pub port: u16,
    /// What the member's proof is to be made for.
    pub nonce: [u8; 16],
}

/// Who is at the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Where the member was dialled, on its own island.
    pub dialled: SocketAddr,
    /// The member's endpoint proof over that address and the caller's nonce, as the member gave it.
    pub proof: Bytes,
}

/// One island on the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hop {
    /// Its name.
    pub island: String,
    /// Which of its bridges is to take the tunnel on, where the caller minds.
    pub bridge: Option<MemberId>,
}

/// Why a tunnel does not stand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum TunnelFailure {
    /// Not a member of the table, or not the port it announced.
    #[error("no such member and port")]
    Forbidden,
    /// No link to the next island on the way.
    #[error("the next island cannot be reached")]
    NoRoute,
    /// The member refused the connection.
    #[error("the connection was refused")]
    ConnectionRefused,
    /// Nothing came back in time.
    #[error("the member did not answer in time")]
    Timeout,
    /// Whoever listens there is not that member.
    #[error("the endpoint did not prove its key")]
    NotProven,
    /// So many tunnels are open that no other is.
    #[error("too many tunnels")]
    Busy,
}

impl TunnelFailure {
    /// All of them; the place of each, counted from 1, is its number on the wire.
    pub const ALL: [Self; 6] =
        [Self::Forbidden, Self::NoRoute, Self::ConnectionRefused, Self::Timeout, Self::NotProven, Self::Busy];

    /// The word used in logs, metrics and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::NoRoute => "no-route",
            Self::ConnectionRefused => "connection-refused",
            Self::Timeout => "timeout",
            Self::NotProven => "not-proven",
            Self::Busy => "busy",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Forbidden => 1,
            Self::NoRoute => 2,
            Self::ConnectionRefused => 3,
            Self::Timeout => 4,
            Self::NotProven => 5,
            Self::Busy => 6,
        }
    }
}

/// Appends `frame` as it is on the stream.
///
/// # Panics
/// If there are more hops than a path may have, or the proof is longer than one can be.
pub fn encode(frame: &TunnelFrame, out: &mut Vec<u8>) {
    let kind = match frame {
        TunnelFrame::Open(_) => OPEN,
        TunnelFrame::Opened(_) => OPENED,
        TunnelFrame::Failed(_) => FAILED,
    };
    with_prefix(kind, FRAME_BYTES_MAX, out, |out| match frame {
        TunnelFrame::Open(open) => put_open(open, out),
        TunnelFrame::Opened(Opened { dialled, proof }) => {
            match dialled.ip() {
                IpAddr::V4(ip) => out.extend_from_slice(&[&[4], ip.octets().as_slice()].concat()),
                IpAddr::V6(ip) => out.extend_from_slice(&[&[6], ip.octets().as_slice()].concat()),
            }
            out.extend_from_slice(&dialled.port().to_be_bytes());
            put_blob(proof, out);
        }
        TunnelFrame::Failed(failure) => out.push(failure.code()),
    });
}

pub(super) fn is_kind(kind: u8) -> bool {
    (OPEN..=FAILED).contains(&kind)
}

pub(super) fn read(kind: u8, body: &[u8]) -> Result<TunnelFrame, FrameError> {
    let mut body = Reader::new(body);
    let frame = match kind {
        OPEN => TunnelFrame::Open(open(&mut body)?),
        OPENED => {
            let ip = match body.byte()? {
                4 => IpAddr::from(body.array::<4>()?),
                6 => IpAddr::from(body.array::<16>()?),
                _ => return Err(FrameError::Malformed("an address of no family")),
            };
            let dialled = SocketAddr::new(ip, body.short()?);
            TunnelFrame::Opened(Opened { dialled, proof: body.blob(PROOF_BYTES_MAX)? })
        }
        FAILED => {
            let code = body.byte()?;
            let failure = TunnelFailure::ALL.into_iter().find(|failure| failure.code() == code);
            TunnelFrame::Failed(failure.ok_or(FrameError::Malformed("failed for an unknown reason"))?)
        }
        kind => return Err(FrameError::Kind { kind }),
    };
    body.finish()?;
    Ok(frame)
}

fn put_open(open: &Open, out: &mut Vec<u8>) {
    put_list(&open.hops, out, |hop, out| {
        put_text(&hop.island, out);
        out.push(u8::from(hop.bridge.is_some()));
        out.extend(hop.bridge.map(|bridge| bridge.0).into_iter().flatten());
    });
    out.extend_from_slice(&open.target.0);
    out.extend_from_slice(&open.port.to_be_bytes());
    out.extend_from_slice(&open.nonce);
}

fn open(body: &mut Reader<'_>) -> Result<Open, FrameError> {
    let hops = body.list(PATH_ISLANDS_MAX, |body| {
        let island = body.label()?;
        let bridge = if body.flag()? { Some(body.member()?) } else { None };
        Ok(Hop { island, bridge })
    })?;
    Path::new(hops.iter().map(|hop| hop.island.clone()).collect())
        .map_err(|_| FrameError::Malformed("the way has no island or a loop"))?;
    let (target, port, nonce) = (body.member()?, body.short()?, body.array()?);
    if port == 0 {
        return Err(FrameError::Malformed("port 0"));
    }
    Ok(Open { hops, target, port, nonce })
}
