//! A path between two bridges that can be cut: a relay of datagrams on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Ends when dropped.
pub(crate) struct Relay {
    /// Where to call.
    pub(crate) addr: SocketAddr,
    is_cut: Arc<AtomicBool>,
    to: watch::Sender<SocketAddr>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// To whoever listens at `to`, for one caller.
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        let back = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        let (caller, callers) = watch::channel(None);
        let (to, goal) = watch::channel(to);
        let is_cut = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let addr = front.local_addr().unwrap();
        let (from, over, cut) = (front.clone(), back.clone(), is_cut.clone());
        tasks.spawn(async move {
            let mut buffer = vec![0; 65_536];
            loop {
                // An ICMP answer to something that was sent shows here; the next read goes on.
                let Ok((length, at)) = from.recv_from(&mut buffer).await else { continue };
                caller.send_replace(Some(at));
                let to = *goal.borrow();
                if !cut.load(Ordering::Relaxed) {
                    let _ = over.send_to(&buffer[..length], to).await;
                }
            }
        });
        let cut = is_cut.clone();
        tasks.spawn(async move {
            let mut buffer = vec![0; 65_536];
            loop {
                let Ok((length, _)) = back.recv_from(&mut buffer).await else { continue };
                let caller = *callers.borrow();
                if let (Some(caller), false) = (caller, cut.load(Ordering::Relaxed)) {
                    let _ = front.send_to(&buffer[..length], caller).await;
                }
            }
        });
        Self { addr, is_cut, to, _tasks: tasks }
    }

    /// Nothing passes from now on, and nobody is told.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }

    /// Whoever was there before is elsewhere now.
    pub(crate) fn lead_to(&self, to: SocketAddr) {
        self.to.send_replace(to);
    }

    pub(crate) fn heal(&self) {
        self.is_cut.store(false, Ordering::Relaxed);
    }
}
