//! Two endpoints on loopback.

use super::*;
use crate::tls::Purpose;

const MESH: MeshTag = MeshTag([1, 2, 3, 4]);

fn open(seed: u8, tag: MeshTag) -> Endpoint {
    let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let settings = Settings { bind, ..Settings::default() };
    Endpoint::open(&settings, &SigningKey::from_bytes(&[seed; 32]), tag).unwrap()
}

async fn accept(endpoint: &Endpoint) -> Option<Connection> {
    endpoint.incoming().await.unwrap().accept().await
}

#[tokio::test]
async fn each_learns_the_others_key() {
    let (north, south) = (open(1, MESH), open(2, MESH));
    let dial = north.dial(south.id(), south.local_addr().unwrap(), Purpose::Link);
    let (dialled, accepted) = tokio::join!(dial, accept(&south));
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!((dialled.peer(), accepted.peer()), (south.id(), north.id()));
    assert!(dialled.is_dialled() && !accepted.is_dialled());
}

#[tokio::test]
async fn the_socket_for_any_address_takes_ipv4_too() {
    let bind = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let settings = Settings { bind, segmentation_offload: false };
    let south = Endpoint::open(&settings, &SigningKey::from_bytes(&[2; 32]), MESH).unwrap();
    let north = open(1, MESH);
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, south.local_addr().unwrap().port()));
    let (dialled, accepted) = tokio::join!(north.dial(south.id(), at, Purpose::Link), accept(&south));
    assert_eq!(dialled.unwrap().remote_addr(), at);
    assert_eq!(accepted.unwrap().remote_addr(), north.local_addr().unwrap());
}

#[tokio::test]
async fn a_refusal_arrives_as_the_close_code() {
    let (north, south) = (open(1, MESH), open(2, MESH));
    let dial = north.dial(south.id(), south.local_addr().unwrap(), Purpose::Link);
    let (dialled, accepted) = tokio::join!(dial, accept(&south));
    accepted.unwrap().close(Closing::Refused(Refusal::UnknownKey));
    let error = dialled.unwrap().quic().closed().await;
    assert_eq!(Closing::of(&error), Some(Closing::Refused(Refusal::UnknownKey)));
}

#[tokio::test]
async fn another_key_or_another_mesh_is_not_reached() {
    let (north, south, far) = (open(1, MESH), open(2, MESH), open(3, MeshTag([9; 4])));
    let dial = north.dial(MemberId([7; 32]), south.local_addr().unwrap(), Purpose::Link);
    let (dialled, accepted) = tokio::join!(dial, accept(&south));
    assert!(matches!(dialled, Err(DialError::Handshake { .. })) && accepted.is_none());
    let dial = north.dial(far.id(), far.local_addr().unwrap(), Purpose::Link);
    let (dialled, accepted) = tokio::join!(dial, accept(&far));
    assert!(matches!(dialled, Err(DialError::OtherMesh { .. })) && accepted.is_none());
}

#[tokio::test]
async fn a_stranger_opens_three_streams_and_no_more() {
    let (north, south) = (open(1, MESH), open(2, MESH));
    let dial = north.dial(south.id(), south.local_addr().unwrap(), Purpose::Link);
    let (dialled, accepted) = tokio::join!(dial, accept(&south));
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    let mut opened = Vec::new();
    for _ in Stream::ALL {
        opened.push(dialled.quic().open_uni().await.unwrap());
    }
    let wait = Duration::from_millis(100);
    assert!(timeout(wait, dialled.quic().open_uni()).await.is_err());
    assert!(timeout(wait, dialled.quic().open_bi()).await.is_err());
    accepted.welcome(1);
    assert!(timeout(Duration::from_secs(5), dialled.quic().open_bi()).await.is_ok());
}

#[tokio::test]
async fn nobody_there_ends_in_time() {
    let (north, south) = (open(1, MESH), open(2, MESH));
    let silent = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let dialled = north.dial(south.id(), silent.local_addr().unwrap(), Purpose::Link).await;
    assert!(matches!(dialled, Err(DialError::Timeout { .. })), "{dialled:?}");
}
