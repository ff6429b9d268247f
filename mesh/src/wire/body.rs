//! The bodies as they are on the wire: private structs whose field names are the msgpack keys.
//!
//! Keys are one or two letters. A reader skips keys it does not know; a key left out means zero, false or
//! empty unless NETWORK.md calls it required.
//!
//! Source: NETWORK.md, "Messages".

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::fields::{
    Few, Fixed, Label, Role, TagKey, TagValue, Text, Version, WireAddress, Word, endpoint_bytes, endpoint_of,
};
use super::routes::RoutesBody;
use super::{
    Beacon, Cookie, DecodeError, Down, Farewell, Hello, Hint, Message, Offer, Ping, Pong, Proof, Suspect,
    VOTES_MAX, kind, shape,
};
use crate::member::{CatalogueSummary, LeaveReason, Load, MemberId, Record, Seq, Stamp};

/// A HELLO without its signature is exactly so long, so that no answer to it is longer (NETWORK.md, "HELLO").
pub(crate) const HELLO_SAID_BYTES: usize = 192;

/// Appends the body of `message` to `out`, which holds the header.
pub(crate) fn write(message: &Message, out: &mut Vec<u8>) {
    match message {
        Message::Announce(record) => put(&AnnounceBody::from(&**record), out),
        Message::Beacon(beacon) => put(&BeaconBody::from(beacon), out),
        Message::Hello(hello) => put_hello(hello, out),
        Message::Offer(offer) => put(&OfferBody::from(offer), out),
        Message::Cookie(cookie) => put(&CookieBody { n: cookie.nonce, c: Fixed(cookie.cookie) }, out),
        Message::Ping(ping) => {
            let (t, u, q) = (Fixed(ping.target.0), ping.unicast_port, ping.wants_record);
            put(&PingBody { n: ping.nonce, t, u, q }, out);
        }
        Message::Pong(pong) => put(&PongBody::from(pong), out),
        Message::Farewell(farewell) => put(&FarewellBody { r: reason_number(farewell.reason) }, out),
        Message::Hint(hint) => put(&HintBody { t: Fixed(hint.target.0) }, out),
        Message::Suspect(vote) => put(&SuspectBody::from(vote), out),
        Message::Down(down) => put(&DownBody { v: Few(down.votes.iter().cloned().map(Word).collect()) }, out),
        Message::Proof(proof) => put(&ProofBody { p: Word(proof.pulse.clone()) }, out),
        Message::Routes(routes) => put(&RoutesBody::from(routes), out),
    }
}

/// The message of `kind` in `body`; `None` for a kind that this version does not have.
pub(crate) fn read(kind: u8, body: &[u8]) -> Result<Option<Message>, DecodeError> {
    if !(kind::ANNOUNCE..=kind::ROUTES).contains(&kind) {
        return Ok(None);
    }
    shape::check(body)?;
    Ok(Some(match kind {
        kind::ANNOUNCE => Message::Announce(take::<AnnounceBody>(body)?.record()?.into()),
        kind::BEACON => Message::Beacon(take::<BeaconBody>(body)?.beacon()?),
        kind::HELLO => Message::Hello(take::<HelloBody>(body)?.hello()?),
        kind::OFFER => Message::Offer(take::<OfferBody>(body)?.offer()),
        kind::COOKIE => {
            let CookieBody { n, c } = take(body)?;
            Message::Cookie(Cookie { nonce: n, cookie: c.0 })
        }
        kind::PING => Message::Ping(take::<PingBody>(body)?.ping()?),
        kind::PONG => Message::Pong(take::<PongBody>(body)?.pong()?),
        kind::FAREWELL => Message::Farewell(Farewell { reason: reason_of(take::<FarewellBody>(body)?.r) }),
        kind::HINT => Message::Hint(Hint { target: MemberId(take::<HintBody>(body)?.t.0) }),
        kind::SUSPECT => Message::Suspect(take::<SuspectBody>(body)?.vote()?),
        kind::DOWN => Message::Down(take::<DownBody>(body)?.down()?),
        kind::PROOF => Message::Proof(Proof { pulse: take::<ProofBody>(body)?.p.0 }),
        _ => Message::Routes(take::<RoutesBody>(body)?.routes()?),
    }))
}

/// Reads one body of a shape that was checked; extra depth or length cannot occur any more.
pub(crate) fn take<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    rmp_serde::from_slice(body)
        .map_err(|_| DecodeError::Malformed("a value is missing, doubled or out of bounds"))
}

/// Appends one body.
pub(crate) fn put<T: Serialize>(body: &T, out: &mut Vec<u8>) {
    body.serialize(&mut rmp_serde::Serializer::new(out).with_struct_map())
        .expect("a Vec takes every byte, and these structs have only string keys and known lengths");
}

#[derive(Serialize, Deserialize)]
struct AnnounceBody {
    n: Text<Label>,
    #[serde(default, skip_serializing_if = "Few::is_empty")]
    r: Few<Text<Role>, 8>,
    #[serde(default, skip_serializing_if = "Few::is_empty")]
    a: Few<WireAddress, 8>,
    #[serde(default, skip_serializing_if = "is_zero")]
    h: u16,
    u: u16,
    i: Text<Label>,
    #[serde(default, skip_serializing_if = "is_false")]
    ig: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    dr: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    c: Option<Fixed<32>>,
    #[serde(default, skip_serializing_if = "is_zero_wide")]
    ce: u32,
    #[serde(default, skip_serializing_if = "Few::is_empty")]
    w: Few<Fixed<32>, 6>,
    pl: u8,
    ph: u8,
    #[serde(default)]
    v: Text<Version>,
    #[serde(default, skip_serializing_if = "Few::is_empty")]
    t: Few<(Text<TagKey>, Text<TagValue>), 16>,
}

impl From<&Record> for AnnounceBody {
    fn from(record: &Record) -> Self {
        Self {
            n: record.name.clone().into(),
            r: Few(record.roles.iter().map(|role| role.clone().into()).collect()),
            a: Few(record.addresses.iter().copied().map(WireAddress).collect()),
            h: record.http_port,
            u: record.unicast_port,
            i: record.island.clone().into(),
            ig: record.island_given,
            dr: record.draining,
            c: record.catalogue.map(|catalogue| Fixed(catalogue.digest)),
            ce: record.catalogue.map_or(0, |catalogue| catalogue.entries),
            w: Few(record.watchers.iter().map(|id| Fixed(id.0)).collect()),
            pl: record.protocol.0,
            ph: record.protocol.1,
            v: record.version.clone().into(),
            t: Few(record.tags.iter().map(|(k, v)| (k.clone().into(), v.clone().into())).collect()),
        }
    }
}

impl AnnounceBody {
    fn record(self) -> Result<Record, DecodeError> {
        let record = Record {
            name: self.n.0,
            roles: self.r.0.into_iter().map(|role| role.0).collect(),
            addresses: self.a.0.into_iter().map(|address| address.0).collect(),
            http_port: self.h,
            unicast_port: self.u,
            island: self.i.0,
            island_given: self.ig,
            draining: self.dr,
            catalogue: self.c.map(|digest| CatalogueSummary { digest: digest.0, entries: self.ce }),
            watchers: self.w.0.into_iter().map(|id| MemberId(id.0)).collect(),
            protocol: (self.pl, self.ph),
            version: self.v.0,
            tags: self.t.0.into_iter().map(|(key, value)| (key.0, value.0)).collect(),
        };
        super::limits::check_grammar(&record)
            .map_err(|_| DecodeError::Malformed("a record out of bounds"))?;
        Ok(record)
    }
}

#[derive(Serialize, Deserialize)]
struct BeaconBody {
    s: u64,
    #[serde(default, skip_serializing_if = "is_zero_wide")]
    l: u32,
    #[serde(default, skip_serializing_if = "is_zero_wide")]
    c: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    x: u16,
    d: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    f: Option<u64>,
}

/// Bits of `x` in BEACON and PONG; others are ignored.
const FULL: u16 = 1;
const DEAF: u16 = 2;

impl From<&Beacon> for BeaconBody {
    fn from(beacon: &Beacon) -> Self {
        Self {
            s: beacon.record_seq.0,
            l: beacon.load.in_flight,
            c: beacon.load.capacity,
            x: (u16::from(beacon.full) * FULL) | (u16::from(beacon.deaf) * DEAF),
            d: beacon.digest,
            f: beacon.far,
        }
    }
}

impl BeaconBody {
    fn beacon(self) -> Result<Beacon, DecodeError> {
        let record_seq = Seq(self.s);
        if !record_seq.is_valid() {
            return Err(DecodeError::Ceiling);
        }
        Ok(Beacon {
            record_seq,
            load: Load { in_flight: self.l, capacity: self.c },
            full: self.x & FULL != 0,
            deaf: self.x & DEAF != 0,
            digest: self.d,
            far: self.f,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct HelloBody {
    n: u64,
    #[serde(default)]
    k: u8,
    d: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    c: Option<Fixed<16>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    i: Option<Text<Label>>,
    u: u16,
    #[serde(default, skip_serializing_if = "is_false")]
    q: bool,
    #[serde(default, skip_deserializing)]
    pad: Padding,
}

/// So many zero bytes, as msgpack bin.
#[derive(Default)]
struct Padding(usize);

impl Serialize for Padding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&vec![0; self.0])
    }
}

fn put_hello(hello: &Hello, out: &mut Vec<u8>) {
    let mut body = HelloBody {
        n: hello.nonce,
        k: hello.attempt,
        d: hello.digest,
        c: hello.cookie.map(Fixed),
        i: hello.island.clone().map(Text::from),
        u: hello.unicast_port,
        q: hello.asking,
        pad: Padding(0),
    };
    let start = out.len();
    put(&body, out);
    body.pad = Padding(HELLO_SAID_BYTES.saturating_sub(out.len()));
    out.truncate(start);
    put(&body, out);
}

impl HelloBody {
    fn hello(self) -> Result<Hello, DecodeError> {
        Ok(Hello {
            nonce: self.n,
            attempt: self.k,
            digest: self.d,
            cookie: self.c.map(|cookie| cookie.0),
            island: self.i.map(|island| island.0),
            unicast_port: answerable(self.u)?,
            asking: self.q,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct OfferBody {
    n: u64,
    o: Fixed<18>,
    d: u64,
    #[serde(default)]
    m: u32,
    #[serde(default)]
    h: u16,
    i: Text<Label>,
    #[serde(default, skip_serializing_if = "is_false")]
    ig: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    im: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    cr: bool,
}

impl From<&Offer> for OfferBody {
    fn from(offer: &Offer) -> Self {
        Self {
            n: offer.nonce,
            o: Fixed(endpoint_bytes(offer.observed)),
            d: offer.digest,
            m: offer.members,
            h: offer.http_port,
            i: offer.island.clone().into(),
            ig: offer.island_given,
            im: offer.intermediary,
            cr: offer.crowd,
        }
    }
}

impl OfferBody {
    fn offer(self) -> Offer {
        Offer {
            nonce: self.n,
            observed: endpoint_of(self.o.0),
            digest: self.d,
            members: self.m,
            http_port: self.h,
            island: self.i.0,
            island_given: self.ig,
            intermediary: self.im,
            crowd: self.cr,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct CookieBody {
    n: u64,
    c: Fixed<16>,
}

#[derive(Serialize, Deserialize)]
struct PingBody {
    n: u64,
    t: Fixed<32>,
    u: u16,
    #[serde(default, skip_serializing_if = "is_false")]
    q: bool,
}

impl PingBody {
    fn ping(self) -> Result<Ping, DecodeError> {
        Ok(Ping {
            nonce: self.n,
            target: MemberId(self.t.0),
            unicast_port: answerable(self.u)?,
            wants_record: self.q,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct PongBody {
    n: u64,
    s: u64,
    #[serde(default, skip_serializing_if = "is_zero_wide")]
    l: u32,
    #[serde(default, skip_serializing_if = "is_zero_wide")]
    c: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    x: u16,
    d: u64,
}

impl From<&Pong> for PongBody {
    fn from(pong: &Pong) -> Self {
        let BeaconBody { s, l, c, x, d, f: _ } = BeaconBody::from(&pong.beacon);
        Self { n: pong.nonce, s, l, c, x, d }
    }
}

impl PongBody {
    fn pong(self) -> Result<Pong, DecodeError> {
        let Self { n, s, l, c, x, d } = self;
        Ok(Pong { nonce: n, beacon: BeaconBody { s, l, c, x, d, f: None }.beacon()? })
    }
}

#[derive(Serialize, Deserialize)]
struct FarewellBody {
    #[serde(default)]
    r: u8,
}

#[derive(Serialize, Deserialize)]
struct HintBody {
    t: Fixed<32>,
}

#[derive(Serialize, Deserialize)]
struct SuspectBody {
    t: Fixed<32>,
    e: u32,
    r: u64,
    p: u64,
    #[serde(default)]
    m: u32,
}

impl From<&Suspect> for SuspectBody {
    fn from(vote: &Suspect) -> Self {
        Self {
            t: Fixed(vote.target.0),
            e: vote.epoch.0,
            r: vote.record_seq.0,
            p: vote.last_seq.0,
            m: vote.silence_ms,
        }
    }
}

impl SuspectBody {
    fn vote(self) -> Result<Suspect, DecodeError> {
        let judged = Stamp::new(self.e, self.r);
        let last = Stamp::new(self.e, self.p);
        if !judged.is_valid() || !last.is_valid() {
            return Err(DecodeError::Ceiling);
        }
        if last < judged {
            return Err(DecodeError::Malformed("a last word before the record"));
        }
        Ok(Suspect {
            target: MemberId(self.t.0),
            epoch: judged.epoch,
            record_seq: judged.seq,
            last_seq: last.seq,
            silence_ms: self.m,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct DownBody {
    v: Few<Word, VOTES_MAX>,
}

impl DownBody {
    fn down(self) -> Result<Down, DecodeError> {
        if self.v.is_empty() {
            return Err(DecodeError::Malformed("a certificate without a vote"));
        }
        Ok(Down { votes: self.v.0.into_iter().map(|vote| vote.0).collect() })
    }
}

#[derive(Serialize, Deserialize)]
struct ProofBody {
    p: Word,
}

fn reason_number(reason: LeaveReason) -> u8 {
    match reason {
        LeaveReason::Stopped => 1,
        LeaveReason::Upgrade => 2,
        LeaveReason::Failed => 3,
    }
}

/// A reason that a later version may add must not make a farewell invalid: it counts as the plainest one.
fn reason_of(number: u8) -> LeaveReason {
    match number {
        2 => LeaveReason::Upgrade,
        3 => LeaveReason::Failed,
        _ => LeaveReason::Stopped,
    }
}

/// A port that an answer can be sent to.
fn answerable(port: u16) -> Result<u16, DecodeError> {
    if port == 0 { Err(DecodeError::Malformed("no port to answer to")) } else { Ok(port) }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u16) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero_wide(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !*flag
}
