//! Handshakes in memory.

use std::io;

use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConnection, ServerConnection};

use super::*;

const MESH: MeshTag = MeshTag([1, 2, 3, 4]);

fn node(seed: u8, tag: MeshTag) -> Tls {
    Tls::new(&SigningKey::from_bytes(&[seed; 32]), tag).unwrap()
}

/// What each has proven to the other.
fn shake(dialler: &Tls, acceptor: &Tls, expected: MemberId) -> Result<[Option<MemberId>; 2], Error> {
    talk(dialler.client(expected, Purpose::Link).unwrap(), acceptor.server().unwrap())
}

/// Lets both talk until neither has more to say.
fn talk(dialler: ClientConfig, acceptor: ServerConfig) -> Result<[Option<MemberId>; 2], Error> {
    let name = ServerName::try_from("isle").unwrap();
    let mut client = ClientConnection::new(Arc::new(dialler), name)?;
    let mut server = ServerConnection::new(Arc::new(acceptor))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut said = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut said).unwrap();
        }
        server.read_tls(&mut io::Cursor::new(said)).unwrap();
        server.process_new_packets()?;
        let mut answered = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answered).unwrap();
        }
        client.read_tls(&mut io::Cursor::new(answered)).unwrap();
        client.process_new_packets()?;
    }
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    Ok([client.peer_certificates(), server.peer_certificates()].map(|proof| proof.and_then(proven)))
}

#[test]
fn both_sides_prove_their_node_keys() {
    let (north, south) = (node(1, MESH), node(2, MESH));
    assert_eq!(shake(&north, &south, south.id()).unwrap(), [Some(south.id()), Some(north.id())]);
}

#[test]
fn another_key_than_the_expected_one_is_refused() {
    let (north, south, other) = (node(1, MESH), node(2, MESH), node(3, MESH));
    let refused = shake(&north, &south, other.id()).unwrap_err();
    assert!(format!("{refused:?}").contains("WrongKey"), "{refused:?}");
}

#[test]
fn two_meshes_have_no_protocol_in_common() {
    let (north, south) = (node(1, MESH), node(2, MeshTag([1, 2, 3, 5])));
    assert_eq!(shake(&north, &south, south.id()).unwrap_err(), Error::NoApplicationProtocol);
}

#[test]
fn a_certificate_is_not_enough_without_its_key() {
    let (north, south, thief) = (node(1, MESH), node(2, MESH), node(3, MESH));
    let key = thief.provider.key_provider.load_private_key(thief.key()).unwrap();
    let stolen = CertifiedKey::new(vec![north.certificate.clone()], key);
    let mut config = thief.client(south.id(), Purpose::Link).unwrap();
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(stolen));
    let refused = talk(config, south.server().unwrap()).unwrap_err();
    assert_eq!(refused, Error::InvalidCertificate(CertificateError::BadSignature));
}

#[test]
fn the_key_is_not_shown() {
    let shown = format!("{:?}", node(1, MESH));
    assert!(shown.starts_with("Tls") && shown.contains("id") && !shown.contains("key:"), "{shown}");
}
