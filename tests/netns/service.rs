//! A service that knows nothing of Isle: what a sidecar stands beside. Answers slowly on purpose.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::network::Host;

/// A running service; ends with the test.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    delay: Duration,
    at: SocketAddr,
    served: AtomicUsize,
    /// `Via` of each request, all fields joined.
    vias: Mutex<Vec<String>>,
}

impl Service {
    /// Listens at 127.0.0.1 of a host; every answer takes `delay`.
    pub(crate) fn start(host: &Host, delay: Duration) -> Result<Self> {
        let listener = host.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))??;
        let shared = Arc::new(Shared {
            delay,
            at: listener.local_addr()?,
            served: AtomicUsize::new(0),
            vias: Mutex::default(),
        });
        let service = Self { shared };
        let background = service.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let one = background.clone();
                thread::spawn(move || one.serve(stream));
            }
        });
        Ok(service)
    }

    /// For `--upstream`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.shared.at)
    }

    /// Requests answered.
    pub(crate) fn served(&self) -> usize {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// The `Via` of every request so far.
    pub(crate) fn vias(&self) -> Vec<String> {
        self.shared.vias.lock().expect("nothing panics while holding it").clone()
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut writer = stream;
        loop {
            let (mut vias, mut line) = (Vec::new(), String::new());
            reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
            loop {
                let mut field = String::new();
                reader.read_line(&mut field).ok().filter(|length| *length > 0)?;
                match field.trim_end().split_once(':') {
                    Some((name, value)) if name.eq_ignore_ascii_case("via") => {
                        vias.push(value.trim().to_owned())
                    }
                    Some(_) => (),
                    None => break,
                }
            }
            self.shared.vias.lock().expect("nothing panics while holding it").push(vias.join(", "));
            thread::sleep(self.shared.delay);
            let body = "slow but sure\n";
            write!(
                writer,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .ok()?;
            self.shared.served.fetch_add(1, Ordering::Relaxed);
        }
    }
}
