//! The bodies of a link's frames as they are on the wire.

use std::time::Duration;

use bytes::Bytes;
use isle_mesh::member::MemberId;
use isle_mesh::wire::DATAGRAM_BYTES_MAX;

use super::reader::{Reader, put_blob, put_list, put_text};
use super::{
    BATCH_BYTES_MAX, BATCH_WORDS_MAX, BUCKET_BITS_MAX, Changes, Cursor, Digest, DigestRequest, Frame,
    FrameError, Goodbye, HELD_MAX, Hello, IslandLoad, LOADS_MAX, ROUTES_MAX, Reach, Refusal, Route, Stream,
    URGENT_WORDS_MAX, WITHDRAWN_MAX, Wanted,
};
use isle_mesh::path::{PATH_ISLANDS_MAX, Path};

const HELLO: u8 = 1;
const REFUSED: u8 = 2;
const PING: u8 = 3;
const PONG: u8 = 4;
const LOAD: u8 = 5;
const CURSOR: u8 = 16;
const ACK: u8 = 17;
const CHANGES: u8 = 18;
const DIGEST: u8 = 19;
const DIGEST_REQUEST: u8 = 20;
const URGENT: u8 = 32;
const ROUTES: u8 = 33;
const GOODBYE: u8 = 34;

pub(super) fn kind(frame: &Frame) -> u8 {
    match frame {
        Frame::Hello(_) => HELLO,
        Frame::Refused(_) => REFUSED,
        Frame::Ping { .. } => PING,
        Frame::Pong { .. } => PONG,
        Frame::Load(_) => LOAD,
        Frame::Cursor(_) => CURSOR,
        Frame::Ack { .. } => ACK,
        Frame::Changes(_) => CHANGES,
        Frame::Digest(_) => DIGEST,
        Frame::DigestRequest(_) => DIGEST_REQUEST,
        Frame::Urgent { .. } => URGENT,
        Frame::Routes(_) => ROUTES,
        Frame::Goodbye(_) => GOODBYE,
    }
}

/// Where frames of this kind belong; `None` for a kind that there is not.
pub(super) fn stream_of(kind: u8) -> Option<Stream> {
    match kind {
        HELLO..=LOAD => Some(Stream::Control),
        CURSOR..=DIGEST_REQUEST => Some(Stream::Table),
        URGENT..=GOODBYE => Some(Stream::Urgent),
        _ => None,
    }
}

pub(super) fn write(frame: &Frame, out: &mut Vec<u8>) {
    match frame {
        Frame::Hello(hello) => put_hello(hello, out),
        Frame::Refused(refusal) => out.push(refusal.code()),
        Frame::Ping { nonce } | Frame::Pong { nonce } => out.extend_from_slice(&nonce.to_be_bytes()),
        Frame::Load(loads) => put_list(loads, out, |(island, load), out| {
            put_text(island, out);
            put_load(*load, out);
        }),
        Frame::Cursor(Cursor { instance, index, urgent }) => {
            for number in [instance, index, urgent] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        Frame::Ack { through } => out.extend_from_slice(&through.to_be_bytes()),
        Frame::Changes(changes) => {
            out.extend_from_slice(&changes.through.to_be_bytes());
            put_list(&changes.withdrawn, out, |member, out| out.extend_from_slice(&member.0));
            put_list(&changes.words, out, |word, out| put_blob(word, out));
            put_ages(&changes.gone, out);
        }
        Frame::Digest(digest) => {
            out.extend_from_slice(&digest.index.to_be_bytes());
            put_list(&digest.buckets, out, |bucket, out| out.extend_from_slice(&bucket.to_be_bytes()));
        }
        Frame::DigestRequest(request) => {
            out.push(u8::from(request.more));
            put_list(&request.wanted, out, |wanted, out| {
                out.extend_from_slice(&wanted.bucket.to_be_bytes());
                put_list(&wanted.held, out, |hash, out| out.extend_from_slice(&hash.to_be_bytes()));
            });
        }
        Frame::Urgent { index, words, gone } => {
            out.extend_from_slice(&index.to_be_bytes());
            put_list(words, out, |word, out| put_blob(word, out));
            put_ages(gone, out);
        }
        Frame::Routes(routes) => put_list(routes, out, put_route),
        Frame::Goodbye(Goodbye::Leaving) => out.push(1),
        Frame::Goodbye(Goodbye::Unlinked) => out.push(2),
    }
}

pub(super) fn read(kind: u8, body: &[u8]) -> Result<Frame, FrameError> {
    let mut body = Reader::new(body);
    let frame = match kind {
        // Later versions may append to a hello, and it must be understood to find a common version.
        HELLO => return hello(&mut body).map(Frame::Hello),
        REFUSED => Frame::Refused(
            Refusal::of_code(body.byte()?).ok_or(FrameError::Malformed("refused for an unknown reason"))?,
        ),
        PING => Frame::Ping { nonce: body.word64()? },
        PONG => Frame::Pong { nonce: body.word64()? },
        LOAD => Frame::Load(body.list(LOADS_MAX, |body| Ok((body.label()?, load(body)?)))?),
        CURSOR => {
            Frame::Cursor(Cursor { instance: body.word64()?, index: body.word64()?, urgent: body.word64()? })
        }
        ACK => Frame::Ack { through: body.word64()? },
        CHANGES => Frame::Changes(changes(&mut body)?),
        DIGEST => Frame::Digest(digest(&mut body)?),
        DIGEST_REQUEST => Frame::DigestRequest(digest_request(&mut body)?),
        URGENT => Frame::Urgent {
            index: body.word64()?,
            words: urgent_words(&mut body)?,
            gone: ages(&mut body, 1)?,
        },
        ROUTES => Frame::Routes(body.list(ROUTES_MAX, route)?),
        GOODBYE => Frame::Goodbye(match body.byte()? {
            1 => Goodbye::Leaving,
            2 => Goodbye::Unlinked,
            _ => return Err(FrameError::Malformed("goodbye for an unknown reason")),
        }),
        kind => return Err(FrameError::Kind { kind }),
    };
    body.finish()?;
    Ok(frame)
}

/// Bits that say which optional parts of a hello are there.
const HAS_ISLAND_ID: u8 = 1;
const HAS_INVITE: u8 = 2;

fn put_hello(hello: &Hello, out: &mut Vec<u8>) {
    out.extend_from_slice(&[hello.protocol.0, hello.protocol.1]);
    put_text(&hello.island, out);
    out.extend_from_slice(&hello.instance.to_be_bytes());
    put_text(&hello.software, out);
    let has_id = u8::from(hello.island_id.is_some()) * HAS_ISLAND_ID;
    let has_invite = u8::from(hello.invite.is_some()) * HAS_INVITE;
    out.push(has_id | has_invite);
    out.extend(hello.island_id.map(u64::to_be_bytes).into_iter().flatten());
    out.extend(hello.invite.into_iter().flatten());
}

fn hello(body: &mut Reader<'_>) -> Result<Hello, FrameError> {
    let protocol = (body.byte()?, body.byte()?);
    if protocol.0 == 0 || protocol.0 > protocol.1 {
        return Err(FrameError::Malformed("no range of versions"));
    }
    let (island, instance, software) = (body.label()?, body.word64()?, body.version()?);
    let has = body.byte()?;
    let island_id = if has & HAS_ISLAND_ID == 0 { None } else { Some(body.word64()?) };
    let invite = if has & HAS_INVITE == 0 { None } else { Some(body.array()?) };
    Ok(Hello { protocol, island, island_id, instance, software, invite })
}

fn changes(body: &mut Reader<'_>) -> Result<Changes, FrameError> {
    let through = body.word64()?;
    let withdrawn = body.list(WITHDRAWN_MAX, Reader::member)?;
    let mut bytes = 0;
    let words = body.list(BATCH_WORDS_MAX, |body| {
        let word = body.blob(DATAGRAM_BYTES_MAX)?;
        bytes += word.len();
        if bytes > BATCH_BYTES_MAX {
            return Err(FrameError::Malformed("a batch of too many bytes"));
        }
        Ok(word)
    })?;
    Ok(Changes { through, withdrawn, words, gone: ages(body, BATCH_WORDS_MAX)? })
}

/// Who has been gone for how long: left out where nobody is, so that nothing tells it from version 1.
fn put_ages(gone: &[(MemberId, Duration)], out: &mut Vec<u8>) {
    if !gone.is_empty() {
        put_list(gone, out, |(member, age), out| {
            out.extend_from_slice(&member.0);
            let seconds = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
            out.extend_from_slice(&seconds.to_be_bytes());
        });
    }
}

fn ages(body: &mut Reader<'_>, most: usize) -> Result<Vec<(MemberId, Duration)>, FrameError> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    body.list(most, |body| Ok((body.member()?, Duration::from_secs(body.word32()?.into()))))
}

fn urgent_words(body: &mut Reader<'_>) -> Result<Vec<Bytes>, FrameError> {
    let words = body.list(URGENT_WORDS_MAX, |body| body.blob(DATAGRAM_BYTES_MAX))?;
    if words.is_empty() { Err(FrameError::Malformed("an urgent frame without a word")) } else { Ok(words) }
}

fn digest(body: &mut Reader<'_>) -> Result<Digest, FrameError> {
    let index = body.word64()?;
    let buckets = body.list(1 << BUCKET_BITS_MAX, Reader::word64)?;
    if !buckets.len().is_power_of_two() {
        return Err(FrameError::Malformed("buckets are a power of two"));
    }
    Ok(Digest { index, buckets })
}

fn digest_request(body: &mut Reader<'_>) -> Result<DigestRequest, FrameError> {
    let more = body.flag()?;
    let mut hashes = 0;
    let wanted = body.list(1 << BUCKET_BITS_MAX, |body| {
        let wanted = Wanted { bucket: body.short()?, held: body.list(HELD_MAX, Reader::word64)? };
        hashes += wanted.held.len();
        if hashes > HELD_MAX {
            return Err(FrameError::Malformed("too many hashes"));
        }
        Ok(wanted)
    })?;
    if !wanted.is_sorted_by(|one, next| one.bucket < next.bucket) {
        return Err(FrameError::Malformed("buckets are not in order"));
    }
    if !wanted.iter().all(|wanted| wanted.held.is_sorted()) {
        return Err(FrameError::Malformed("hashes are not in order"));
    }
    Ok(DigestRequest { wanted, more })
}

fn put_route(route: &Route, out: &mut Vec<u8>) {
    match route {
        Route::Withdrawn(island) => {
            out.push(0);
            put_text(island, out);
        }
        Route::Reach(reach) => {
            let islands = reach.path.islands();
            out.push(u8::try_from(islands.len()).expect("a path has few islands"));
            for island in islands {
                put_text(island, out);
            }
            let micros = u32::try_from(reach.cost.as_micros()).unwrap_or(u32::MAX);
            out.extend_from_slice(&micros.to_be_bytes());
            put_load(reach.load, out);
        }
    }
}

fn route(body: &mut Reader<'_>) -> Result<Route, FrameError> {
    let count = usize::from(body.byte()?);
    if count == 0 {
        return body.label().map(Route::Withdrawn);
    }
    if count > PATH_ISLANDS_MAX {
        return Err(FrameError::Malformed("a path of too many islands"));
    }
    let islands = (0..count).map(|_| body.label()).collect::<Result<_, _>>()?;
    let path = Path::new(islands).map_err(|_| FrameError::Malformed("a path with a loop"))?;
    let cost = Duration::from_micros(body.word32()?.into());
    Ok(Route::Reach(Reach { path, cost, load: load(body)? }))
}

fn put_load(load: IslandLoad, out: &mut Vec<u8>) {
    for number in [load.members, load.in_flight, load.capacity] {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn load(body: &mut Reader<'_>) -> Result<IslandLoad, FrameError> {
    Ok(IslandLoad { members: body.word32()?, in_flight: body.word32()?, capacity: body.word32()? })
}
