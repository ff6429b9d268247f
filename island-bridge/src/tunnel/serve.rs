//! Tunnels that the other side of a link asks for.

use std::time::Instant;

use isle_mesh::member::MemberId;
use quinn::{RecvStream, SendStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, error};

use super::backlog::BEHIND_MAX;
use super::{
    Backlog, Carrier, Counts, Dialled, Io, LOOK, Lines, OPEN_MAX, Sending, TUNNELS_MAX, TunnelFailure,
    TunnelFrame, TunnelStream, first_frame, tunnel,
};
use crate::endpoint::Closing;

/// Serves a connection for tunnels until it is gone. Dropped, its tunnels break.
pub(crate) async fn serve(lines: Lines, carrier: Carrier) {
    let Carrier { connection, backlog } = carrier;
    connection.welcome(TUNNELS_MAX);
    let peer = connection.peer();
    let (mut looks, mut behind) = (interval(LOOK), 0);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tunnels = JoinSet::new();
    loop {
        tokio::select! {
            asked = connection.quic().accept_bi() => match asked {
                Ok((send, recv)) => {
                    tunnels.spawn(tunnel_in(lines.clone(), peer, send, recv, backlog.clone()));
                }
                Err(reason) => {
                    debug!(peer = %peer.short(), %reason, "no more tunnels from there");
                    break;
                }
            },
            _ = looks.tick() => {
                let now = backlog.look(Instant::now());
                if now != behind {
                    behind = now;
                    connection.make_room(behind.min(BEHIND_MAX));
                }
            }
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
async fn tunnel_in(lines: Lines, peer: MemberId, send: SendStream, mut recv: RecvStream, backlog: Backlog) {
    let counts = lines.counts(peer);
    let mut sending = Sending::new(send, &counts);
    let Some((TunnelFrame::Open(open), early)) =
        timeout(OPEN_MAX, first_frame(&mut recv)).await.ok().flatten()
    else {
        counts.failed();
        return debug!(peer = %peer.short(), "a tunnel does not say where it leads");
    };
    let Some(_carried) = lines.begin() else {
        return refuse(sending, &counts, TunnelFailure::Busy).await;
    };
    let target = open.target;
    let length = early.len();
    let taken = tokio::select! {
        taken = timeout(OPEN_MAX, lines.take_on(peer, open, early)) => {
            taken.unwrap_or(Err(TunnelFailure::Timeout))
        }
        _ = sending.stopped() => {
            counts.failed();
            return debug!(peer = %peer.short(), member = %target.short(), "nobody waits for the tunnel any more");
        }
    };
    let (Dialled { mut io, opened }, rest) = match taken {
        Ok(dialled) => dialled,
        Err(failure) => {
            debug!(peer = %peer.short(), member = %target.short(), why = failure.as_str(), "no tunnel");
            return refuse(sending, &counts, failure).await;
        }
    };
    if !say(&mut sending.send, &TunnelFrame::Opened(opened)).await {
        return;
    }
    counts.received(length - rest.len());
    let mut near = TunnelStream::new(sending, backlog.add(recv), rest);
    match near.carry(&mut *io).await {
        Ok((down, up)) => {
            // Whoever counts the tunnel as over may close the connection, and with it what is still on its way.
            near.arrived().await;
            debug!(member = %target.short(), up, down, "tunnel over");
        }
        Err(error) => debug!(member = %target.short(), %error, "tunnel broke"),
    }
}

async fn refuse(mut sending: Sending, counts: &Counts, failure: TunnelFailure) {
    counts.failed();
    if say(&mut sending.send, &TunnelFrame::Failed(failure)).await {
        sending.is_over = sending.send.finish().is_ok();
    }
}

/// Whether it was taken.
async fn say(send: &mut SendStream, frame: &TunnelFrame) -> bool {
    let mut bytes = Vec::new();
    tunnel::encode(frame, &mut bytes);
    send.write_all(&bytes).await.is_ok()
}
