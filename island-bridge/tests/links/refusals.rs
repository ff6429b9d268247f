//! Who may not link, and how both sides learn why.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use island_bridge::bridge::{Admitting, Invites, Refused, State, Target};
use island_bridge::frame::Refusal;
use island_bridge::session::PROTOCOL;
use isle_mesh::member::MemberId;
use tracing_subscriber::fmt::MakeWriter;

use crate::node::{Node, config, id, target};

/// What is logged at WARN and above on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start(&self) -> tracing::subscriber::DefaultGuard {
        let level = tracing::Level::WARN;
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_max_level(level).with_writer(self.clone());
        tracing::subscriber::set_default(subscriber.finish())
    }

    /// Lines that contain all of `parts`.
    fn count(&self, parts: &[&str]) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        assert!(!text.contains("ERROR"), "{text}");
        text.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn an_unknown_key_is_refused_and_both_sides_know() {
    let log = Log::default();
    let _guard = log.start();
    let (north, south) = (Node::start(1, config("north", &[])), Node::start(2, config("south", &[])));
    north.bridge.link(target(2, south.addr())).await;
    let refused = Refused { reason: Refusal::UnknownKey, by_peer: true };
    let link = north.shows(2, |link| link.refused.is_some()).await;
    assert_eq!((link.refused, link.state), (Some(refused), State::Calling));
    let told = south.bridge.status().await.refused;
    assert_eq!(told, [(id(1), Refused { by_peer: false, ..refused })]);
    // It goes on calling, and is let in as soon as it may.
    south.bridge.allow(id(1)).await;
    north.say(1, false);
    south.hears(1).await;
    for key in [id(1), id(2)] {
        assert_eq!(log.count(&["WARN", "link refused", "unknown-key", &key.to_string()]), 1);
    }
}

#[tokio::test]
async fn versions_and_names_that_do_not_fit_are_refused_on_both_sides() {
    let mut newer = config("south", &[1]);
    newer.protocol = (PROTOCOL.1 + 1, PROTOCOL.1 + 2);
    for (south, reason) in [(newer, Refusal::Version), (config("north", &[1]), Refusal::SameName)] {
        let log = Log::default();
        let _guard = log.start();
        let (north, south) = (Node::start(1, config("north", &[])), Node::start(2, south));
        north.bridge.link(target(2, south.addr())).await;
        for (node, peer) in [(&north, 2), (&south, 1)] {
            let link = node.shows(peer, |link| link.refused.is_some()).await;
            assert_eq!(link.refused.map(|refused| refused.reason), Some(reason));
            assert_eq!(log.count(&["WARN", "link refused", reason.as_str(), &id(peer).to_string()]), 1);
        }
    }
}

/// One invite, for one use.
#[derive(Default)]
pub(crate) struct OneInvite(Mutex<Option<MemberId>>);

const SECRET: [u8; 32] = [9; 32];

impl Invites for OneInvite {
    fn any_open(&self) -> bool {
        true
    }

    fn admit(&self, peer: MemberId, secret: [u8; 32]) -> Admitting {
        let answer = match &mut *self.0.lock().unwrap() {
            _ if secret != SECRET => Err(Refusal::UnknownKey),
            Some(_) => Err(Refusal::InviteUsed),
            used => {
                *used = Some(peer);
                Ok(())
            }
        };
        Box::pin(async move {
            // As long as a disk takes.
            tokio::time::sleep(Duration::from_millis(20)).await;
            answer
        })
    }
}

#[tokio::test]
async fn an_invite_lets_one_in_for_good() {
    let invites = Arc::new(OneInvite::default());
    let mut open = config("south", &[]);
    open.invites = Some(invites.clone());
    let south = Node::start(2, open);
    let invited = Target { invite: Some(SECRET), ..target(2, south.addr()) };
    let mut north = Node::start(1, config("north", &[]));
    north.bridge.link(invited.clone()).await;
    north.sees_up(2).await;
    assert_eq!(*invites.0.lock().unwrap(), Some(id(1)));
    // Known from now on, without the invite.
    north.leave().await;
    let mut north = Node::start(1, config("north", &[]));
    north.bridge.link(target(2, south.addr())).await;
    north.sees_up(2).await;
    let east = Node::start(3, config("east", &[]));
    east.bridge.link(invited).await;
    let link = east.shows(2, |link| link.refused.is_some()).await;
    assert_eq!(link.refused, Some(Refused { reason: Refusal::InviteUsed, by_peer: true }));
}
