//! Tunnels that the other side of a link asks for.

use isle_mesh::member::MemberId;
use quinn::SendStream;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, error};

use super::{
    Counts, Dialled, Halves, Lines, OPEN_MAX, TUNNELS_MAX, TunnelFailure, TunnelFrame, TunnelStream,
    first_frame, tunnel,
};
use crate::endpoint::{Closing, Connection};

/// What is under way inside us in each direction of a tunnel; the rest waits at whoever sends it.
const COPY_BYTES: usize = 64 << 10;

/// Serves a connection for tunnels until it is gone. Dropped, its tunnels break.
pub(crate) async fn serve(lines: Lines, connection: Connection) {
    connection.welcome(TUNNELS_MAX);
    let peer = connection.peer();
    let mut tunnels = JoinSet::new();
    loop {
        tokio::select! {
            asked = connection.quic().accept_bi() => match asked {
                Ok((send, recv)) => {
                    let halves = Halves { send, recv, is_over: false };
                    tunnels.spawn(tunnel_in(lines.clone(), peer, halves));
                }
                Err(reason) => {
                    debug!(peer = %peer.short(), %reason, "no more tunnels from there");
                    break;
                }
            },
            Some(ended) = tunnels.join_next() => {
                if ended.is_err_and(|error| error.is_panic()) {
                    error!("a tunnel's task panicked; the tunnel was cut");
                }
            }
        }
    }
    lines.gone(&connection);
    connection.close(Closing::Ended);
}

/// One tunnel, from the first frame to the end.
async fn tunnel_in(lines: Lines, peer: MemberId, mut halves: Halves) {
    let counts = lines.counts(peer);
    let Some((TunnelFrame::Open(open), rest)) =
        timeout(OPEN_MAX, first_frame(&mut halves.recv)).await.ok().flatten()
    else {
        counts.failed();
        return debug!(peer = %peer.short(), "a tunnel does not say where it leads");
    };
    let Some(_carried) = lines.begin() else {
        return refuse(halves, &counts, TunnelFailure::Busy).await;
    };
    let target = open.target;
    let taken = timeout(OPEN_MAX, lines.take_on(open)).await.unwrap_or(Err(TunnelFailure::Timeout));
    let Dialled { mut io, opened } = match taken {
        Ok(dialled) => dialled,
        Err(failure) => {
            debug!(peer = %peer.short(), member = %target.short(), why = failure.as_str(), "no tunnel");
            return refuse(halves, &counts, failure).await;
        }
    };
    if !say(&mut halves.send, &TunnelFrame::Opened(opened)).await {
        return;
    }
    let mut near = TunnelStream::new(halves, rest, &counts);
    match copy_bidirectional_with_sizes(&mut near, &mut io, COPY_BYTES, COPY_BYTES).await {
        Ok((up, down)) => debug!(member = %target.short(), up, down, "tunnel over"),
        Err(error) => debug!(member = %target.short(), %error, "tunnel broke"),
    }
}

async fn refuse(mut halves: Halves, counts: &Counts, failure: TunnelFailure) {
    counts.failed();
    if say(&mut halves.send, &TunnelFrame::Failed(failure)).await {
        halves.is_over = halves.send.finish().is_ok();
    }
}

/// Whether it was taken.
async fn say(send: &mut SendStream, frame: &TunnelFrame) -> bool {
    let mut bytes = Vec::new();
    tunnel::encode(frame, &mut bytes);
    send.write_all(&bytes).await.is_ok()
}
