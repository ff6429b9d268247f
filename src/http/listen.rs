//! Opens the HTTP listener, and says who has the port if it cannot.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

mod holder;

/// Connections that may wait to be accepted; the kernel lowers it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Why there is no listener. Nothing was left open.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody listens there already: choose another port, or stop them.
    #[error("{address} is taken{}", holder.as_deref().map(|by| format!(" by {by}")).unwrap_or_default())]
    Taken {
        /// Where we wanted to listen.
        address: SocketAddr,
        /// Who has it, as far as this user can see.
        holder: Option<String>,
    },
    /// Ports below 1024 need a privilege.
    #[error("no permission to listen on {address}")]
    NotPermitted {
        /// Where we wanted to listen.
        address: SocketAddr,
    },
    /// The address belongs to none of this host's interfaces.
    #[error("{address} is not an address of this host")]
    NotOurs {
        /// Where we wanted to listen.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}")]
    Other {
        /// Where we wanted to listen.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl ListenError {
    /// What to do about it, with a command.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Taken { address, holder } => {
                let stop = match holder {
                    Some(holder) => format!("stop {holder}"),
                    None => format!("see who has it with: ss -ltnp 'sport = :{}'", address.port()),
                };
                let any = SocketAddr::new(address.ip(), 0);
                format!("{stop}; or choose another port, any free one with: --listen {any}")
            }
            Self::NotPermitted { .. } => "choose a port of 1024 or above with --listen".to_owned(),
            Self::NotOurs { .. } => "see the addresses of this host with: ip addr".to_owned(),
            Self::Other { .. } => "choose another address or port with --listen".to_owned(),
        }
    }
}

/// Opens the listener: at `listen`, or at `port` on every address of both families (IPv4 alone on a host
/// without IPv6). Needs a tokio runtime.
///
/// # Errors
/// See [`ListenError`].
pub fn listen(listen: Option<SocketAddr>, port: u16) -> Result<TcpListener, ListenError> {
    if let Some(address) = listen {
        return open(address).map_err(|error| explain(address, error));
    }
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match open(both) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(explain(both, error)),
        // No IPv6 in this kernel, or switched off: the reasons differ, the way out is the same.
        Err(_) => {
            let four = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            open(four).map_err(|error| explain(four, error))
        }
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // So that a node can come back while its old connections are in TIME_WAIT. It does not let two listen.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Makes the kernel ignore new connections on `listener` and complete those that have begun: a listener that
/// just closes resets the latter, and their clients believe that they are connected. Who is ignored asks
/// again after a second, and is then refused, which is safe to repeat elsewhere.
///
/// # Errors
/// The kernel takes no filter; nothing has changed then.
pub(super) fn begin_no_more(listener: &TcpListener) -> io::Result<()> {
    use socket2::SockFilter;
    // Classic BPF over the TCP header: load the flags (byte 13), keep SYN and ACK, drop if SYN is alone.
    let drop_first_packets = [
        SockFilter::new(0x30, 0, 0, 13),
        SockFilter::new(0x54, 0, 0, 0x12),
        SockFilter::new(0x15, 0, 1, 0x02),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    socket2::SockRef::from(listener).attach_filter(&drop_first_packets)
}

fn explain(address: SocketAddr, error: io::Error) -> ListenError {
    match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken { address, holder: holder::of_port(address.port()) },
        io::ErrorKind::PermissionDenied => ListenError::NotPermitted { address },
        io::ErrorKind::AddrNotAvailable => ListenError::NotOurs { address },
        _ => ListenError::Other { address, source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_reported_with_its_holder_and_a_way_out() {
        let first = listen(Some(SocketAddr::from(([127, 0, 0, 1], 0))), 0).unwrap();
        let address = first.local_addr().unwrap();
        let error = listen(Some(address), 0).unwrap_err();
        assert!(
            matches!(&error, ListenError::Taken { holder: Some(holder), .. }
            if holder.contains(&std::process::id().to_string())),
            "{error}"
        );
        assert!(error.advice().contains("--listen 127.0.0.1:0"), "{}", error.advice());
        let anywhere = listen(None, address.port()).unwrap_err();
        assert!(matches!(anywhere, ListenError::Taken { .. }), "{anywhere}");
    }

    #[tokio::test]
    async fn an_address_of_another_host_is_reported_as_such() {
        let error = listen(Some(SocketAddr::from(([192, 0, 2, 1], 0))), 0).unwrap_err();
        assert!(matches!(error, ListenError::NotOurs { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_listener_that_begins_no_more_completes_what_has_begun() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = listen(Some(SocketAddr::from(([127, 0, 0, 1], 0))), 0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut early = tokio::net::TcpStream::connect(address).await.unwrap();
        begin_no_more(&listener).unwrap();
        let late = tokio::net::TcpStream::connect(address);
        let patience = std::time::Duration::from_millis(100);
        assert!(tokio::time::timeout(patience, late).await.is_err(), "neither connected nor refused yet");
        early.write_all(b"hello").await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        let mut heard = [0; 5];
        accepted.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }

    #[tokio::test]
    async fn by_default_both_families_are_served() {
        let listener = listen(None, 0).unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    }
}
