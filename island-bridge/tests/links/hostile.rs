//! A bridge that may link and does not keep to the protocol.

use std::time::Duration;

use island_bridge::bridge::{EndReason, State};
use island_bridge::endpoint::{Closing, Connection, Endpoint};
use island_bridge::frame::{self, Cursor, Frame, Hello};
use island_bridge::session::{DownReason, PROTOCOL};
use island_bridge::tls::Purpose;
use tokio::time::timeout;

use crate::node::{MESH, Node, config, id, key, loopback, word};
use crate::relay::Relay;

const PATIENCE: Duration = Duration::from_secs(10);

async fn attacker(south: &Node) -> (Endpoint, Connection) {
    let endpoint = Endpoint::open(&loopback(0), &key(1), MESH).unwrap();
    let connection = endpoint.dial(id(2), south.addr(), Purpose::Link).await.unwrap();
    (endpoint, connection)
}

fn encoded(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        frame::encode(frame, &mut bytes);
    }
    bytes
}

fn hello() -> Frame {
    Frame::Hello(Hello {
        protocol: PROTOCOL,
        island: "north".to_owned(),
        island_id: None,
        instance: 1,
        software: "1".to_owned(),
        invite: None,
    })
}

async fn closing(connection: &Connection) -> Option<Closing> {
    let error = timeout(PATIENCE, connection.quic().closed()).await.expect("it is not closed");
    Closing::of(&error)
}

#[tokio::test]
async fn what_is_no_frame_ends_the_link() {
    let south = Node::start(2, config("south", &[1]));
    let huge = [encoded(&[hello()]), vec![0xff, 0xff, 0xff, 0xff, 3]].concat();
    let early = encoded(&[Frame::Ping { nonce: 1 }]);
    let twice = encoded(&[hello(), hello()]);
    let elsewhere = encoded(&[hello(), Frame::Cursor(Cursor::default())]);
    let refused_at_once = [vec![0x55; 4000], huge, early, twice, elsewhere];
    for bytes in refused_at_once {
        let (_endpoint, connection) = attacker(&south).await;
        let mut control = connection.quic().open_uni().await.unwrap();
        // It may be closed while this is being sent.
        let _ = control.write_all(&bytes).await;
        assert_eq!(closing(&connection).await, Some(Closing::Breach), "{bytes:?}");
    }
    south.shows(1, |link| link.state == State::Waiting && link.trouble.is_some()).await;
}

#[tokio::test]
async fn more_streams_than_a_link_has_end_it() {
    let south = Node::start(2, config("south", &[1]));
    let (_endpoint, connection) = attacker(&south).await;
    let mut control = connection.quic().open_uni().await.unwrap();
    control.write_all(&encoded(&[hello()])).await.unwrap();
    let opened = async {
        for _ in 0..10_000 {
            let mut stream = connection.quic().open_uni().await?;
            // Ended at once, so that there is room for another.
            let _ = stream.finish();
        }
        Ok::<_, quinn::ConnectionError>(())
    };
    assert!(timeout(PATIENCE, opened).await.unwrap().is_err());
    assert_eq!(closing(&connection).await, Some(Closing::Breach));
}

#[tokio::test]
async fn who_does_not_read_gets_little_and_is_dropped() {
    let mut south = Node::start(2, config("south", &[1]));
    for number in 0..20_000 {
        south.say(number, number % 2 == 0);
    }
    let (_endpoint, connection) = attacker(&south).await;
    let mut control = connection.quic().open_uni().await.unwrap();
    let mut table = connection.quic().open_uni().await.unwrap();
    control.write_all(&encoded(&[hello()])).await.unwrap();
    table.write_all(&encoded(&[Frame::Cursor(Cursor { instance: 7, index: 3, urgent: 3 })])).await.unwrap();
    south.sees_up(1).await;
    for number in 20_000..40_000 {
        south.say(number, true);
    }
    let reason = south.sees_down(1).await;
    assert!(matches!(reason, EndReason::Session(DownReason::Silent(_))), "{reason:?}");
    let sent = south.bridge.status().await.links[0].counters;
    // The other side's window, what is on its way, and one frame gathered.
    let most = (512 << 10) / word(0).len() as u64 + 200;
    assert!(sent.urgent_sent <= most, "{sent:?}");
}

#[tokio::test]
async fn a_hello_that_does_not_end_is_not_waited_for() {
    let south = Node::start(2, config("south", &[1]));
    let (_endpoint, connection) = attacker(&south).await;
    let mut control = connection.quic().open_uni().await.unwrap();
    let drip = async {
        for byte in encoded(&[hello()]) {
            control.write_all(&[byte]).await?;
            // A byte in less than the silence limit.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok::<_, quinn::WriteError>(())
    };
    assert!(timeout(PATIENCE, drip).await.expect("it is not closed").is_err());
    assert_eq!(closing(&connection).await, Some(Closing::Ended));
}

#[tokio::test]
async fn a_restarted_node_disowns_its_old_connections() {
    let north = Endpoint::open(&loopback(0), &key(1), MESH).unwrap();
    let south = Endpoint::open(&loopback(0), &key(2), MESH).unwrap();
    let relay = Relay::start(south.local_addr().unwrap()).await;
    let dial = north.dial(id(2), relay.addr, Purpose::Link);
    let accept = async { south.incoming().await.unwrap().accept().await.unwrap() };
    let (dialled, _accepted) = tokio::join!(dial, accept);
    let again = Endpoint::open(&loopback(0), &key(2), MESH).unwrap();
    relay.lead_to(again.local_addr().unwrap());
    let dialled = dialled.unwrap();
    let mut stream = dialled.quic().open_uni().await.unwrap();
    stream.write_all(&[0; 1000]).await.unwrap();
    let error = timeout(PATIENCE, dialled.quic().closed()).await.unwrap();
    assert_eq!(error, quinn::ConnectionError::Reset);
}
