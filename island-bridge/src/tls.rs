//! TLS between two bridges: each proves its node key, and is judged by that key alone.
//!
//! The certificate is only the wrapping that TLS wants around a key: self-signed, and neither its names nor its dates
//! are looked at. Who dials demands the key it was given; who accepts learns which key the other side has proven
//! and decides afterwards. Nothing is resumed: each connection proves its keys anew.
//!
//! Source: NETWORK.md, "Links".

use std::fmt;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use isle_mesh::member::MemberId;
use isle_mesh::wire::MeshTag;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerMisbehaved, ServerConfig, SignatureScheme,
};

#[cfg(test)]
mod tests;

/// What comes before the 32 bytes of an ed25519 key in a certificate (RFC 8410).
const ED25519_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What a node needs to speak TLS with its own key.
pub struct Tls {
    id: MemberId,
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    provider: Arc<CryptoProvider>,
    tag: MeshTag,
    reset_key: [u8; 32],
}

impl fmt::Debug for Tls {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why there is no TLS with this key. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The key cannot be written down as TLS wants it.
    #[error("the key cannot be encoded: {0}")]
    Key(String),
    /// No certificate could be made of it.
    #[error("no certificate can be made")]
    Certificate(#[from] rcgen::Error),
    /// The two do not make a configuration.
    #[error("no configuration can be made")]
    Config(#[from] Error),
}

/// The other side has another key than the one that was to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other side has the key {found}, not {expected}")]
pub struct WrongKey {
    /// Who was to be reached.
    pub expected: MemberId,
    /// Who answered.
    pub found: MemberId,
}

impl Tls {
    /// For the node with this key, in the mesh with this tag: nodes of two meshes have no protocol in common.
    ///
    /// # Errors
    /// What keeps the key from being used; none does that was made by [`isle_mesh::identity`].
    pub fn new(key: &SigningKey, tag: MeshTag) -> Result<Self, TlsError> {
        let encoded = key.to_pkcs8_der().map_err(|error| TlsError::Key(error.to_string()))?;
        let key_der = PrivatePkcs8KeyDer::from(encoded.as_bytes().to_vec());
        let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&key_der, &rcgen::PKCS_ED25519)?;
        let mut params = rcgen::CertificateParams::new(Vec::new())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "isle node");
        Ok(Self {
            id: MemberId(key.verifying_key().to_bytes()),
            certificate: params.self_signed(&pair)?.der().clone(),
            key: key_der,
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            tag,
            reset_key: blake3::derive_key("isle 2026 link stateless reset", key.as_bytes()),
        })
    }

    /// The key that is proven.
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// To dial the node with the key `expected`, and no other, for this purpose.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn client(&self, expected: MemberId, purpose: Purpose) -> Result<ClientConfig, TlsError> {
        let verifier = Arc::new(Pinned { expected, provider: self.provider.clone() });
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(vec![self.certificate.clone()], self.key())?;
        config.alpn_protocols = vec![purpose.protocol(self.tag)];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }

    /// To accept whoever proves a key; [`proven`] says which.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn server(&self) -> Result<ServerConfig, TlsError> {
        let verifier = Arc::new(AnyKey { provider: self.provider.clone() });
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.certificate.clone()], self.key())?;
        config.alpn_protocols = Purpose::ALL.map(|purpose| purpose.protocol(self.tag)).to_vec();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// A secret of the node that outlives the process: by it a restarted node disowns the connections of its last life.
    pub(crate) fn reset_key(&self) -> [u8; 32] {
        self.reset_key
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

/// The key that the other side of a finished handshake has proven; `None` if `certificates` are not those of one.
#[must_use]
pub fn proven(certificates: &[CertificateDer<'_>]) -> Option<MemberId> {
    key_of(certificates.first()?).ok()
}

/// What a connection between two bridges is for. Agreed on by ALPN; versions within it are the hello's business.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// A link: tables, routes.
    Link,
    /// Tunnels: nothing that they carry may hold up the link beside them.
    Tunnels,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Link, Self::Tunnels];

    /// Its name in the handshake.
    #[must_use]
    pub fn protocol(self, MeshTag(tag): MeshTag) -> Vec<u8> {
        let name = match self {
            Self::Link => "link",
            Self::Tunnels => "tunnels",
        };
        format!("isle-{name}/{:08x}", u32::from_be_bytes(tag)).into_bytes()
    }
}

fn key_of(certificate: &CertificateDer<'_>) -> Result<MemberId, Error> {
    let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
    key.strip_prefix(&ED25519_SPKI_PREFIX)
        .and_then(|key| key.try_into().ok())
        .map(MemberId)
        .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// Takes one key.
#[derive(Debug)]
struct Pinned {
    expected: MemberId,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = key_of(certificate)?;
        if found == self.expected {
            return Ok(ServerCertVerified::assertion());
        }
        let wrong = WrongKey { expected: self.expected, found };
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(wrong)))))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Takes any key that is proven.
#[derive(Debug)]
struct AnyKey {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        key_of(certificate).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// It is never offered.
fn tls12() -> Error {
    Error::PeerMisbehaved(PeerMisbehaved::SelectedUnusableCipherSuiteForVersion)
}
