//! How this host's user changes a bridge while it runs: a Unix socket in its state directory, for nobody else.
//!
//! One JSON object a line, one answer a line. Whoever could read the directory's key could do all of this anyway.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use island_bridge::bridge::{Place, Target};
use isle_mesh::member::MemberId;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::invites::Invite;
use super::token::Token;
use crate::api::view::LinkView;

/// Name of the socket in the state directory.
pub const SOCKET: &str = "bridge.sock";
/// Programs that may be connected at once.
const CLIENTS_MAX: usize = 8;
/// Longest line.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// A question takes a moment; whoever is silent for longer is sent away.
const PATIENCE: Duration = Duration::from_secs(5);

/// What may be asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// All links.
    Links,
    /// To call this bridge from now on: `KEY@HOST:PORT`, or an invite.
    Link {
        /// Whom.
        target: String,
    },
    /// To let this key call.
    Allow {
        /// Whom.
        key: String,
    },
    /// To end the link with this key, for good.
    Unlink {
        /// Whom.
        key: String,
    },
    /// For a new invite.
    Invite {
        /// How long it holds, in seconds.
        expires_s: u64,
        /// How often it may be used.
        uses: u32,
        /// Where this bridge is to be called: `HOST:PORT`; empty for its own addresses.
        #[serde(default)]
        places: Vec<String>,
    },
    /// For all invites.
    Invites,
    /// To take an invite back.
    Revoke {
        /// Its id.
        id: String,
    },
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Reply {
    /// Links, and strangers that were refused lately.
    Links {
        /// By key.
        links: Vec<LinkView>,
        /// The key of each, and why.
        refused: Vec<(String, String)>,
    },
    /// It is done; a sentence about what follows.
    Done {
        /// For people.
        note: String,
    },
    /// An invite, which is shown once.
    Token {
        /// What people call it.
        id: String,
        /// The word to give away.
        token: String,
    },
    /// All invites.
    Invites {
        /// By age.
        invites: Vec<Invite>,
    },
    /// It is not done.
    Failed {
        /// Why.
        why: String,
        /// What to do.
        advice: String,
    },
}

impl Reply {
    pub(super) fn failed(why: impl ToString, advice: &str) -> Self {
        Self::Failed { why: why.to_string(), advice: advice.to_owned() }
    }
}

/// Whom a text names: `KEY@HOST:PORT`, or an invite.
///
/// # Errors
/// What is wrong with it, for people.
pub fn target(text: &str) -> Result<Target, String> {
    if text.starts_with("isle1") {
        return text.parse::<Token>().map(|token| token.target()).map_err(|error| error.to_string());
    }
    text.parse::<Target>().map_err(|error| error.to_string())
}

/// What the bridge does when asked.
pub(super) trait Obey: Send + Sync + 'static {
    /// Answers one request.
    fn obey(&self, request: Request) -> impl Future<Output = Reply> + Send;
}

/// The socket; its file goes with it.
#[derive(Debug)]
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Opens it in the state directory `dir`, in place of one that nobody listens at. The directory is locked by the key's
    /// owner, so that nobody does. Blocks on the disk.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // The directory lets in its user alone, so there is no moment at which another could connect.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Answers until dropped.
    pub(super) async fn serve(&self, bridge: Arc<impl Obey>) {
        let seats = Arc::new(Semaphore::new(CLIENTS_MAX));
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let Ok(seat) = seats.clone().try_acquire_owned() else { continue };
                        let bridge = bridge.clone();
                        clients.spawn(async move {
                            if let Err(error) = timeout(PATIENCE, converse(stream, bridge)).await.unwrap_or(Ok(())) {
                                debug!(%error, "control");
                            }
                            drop(seat);
                        });
                    }
                    Err(error) => {
                        warn!(%error, "the control socket cannot accept");
                        tokio::time::sleep(PATIENCE).await;
                    }
                },
                Some(_) = clients.join_next() => {}
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // A new one may be there already, or the directory gone.
        let _ = fs::remove_file(&self.path);
    }
}

/// One question, one answer.
async fn converse(stream: UnixStream, bridge: Arc<impl Obey>) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let peer = stream.peer_cred()?.uid();
    if peer != own && peer != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read).take(LINE_BYTES_MAX as u64).read_line(&mut line).await?;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => bridge.obey(request).await,
        Err(error) => Reply::failed(error, "use a program of the same version as the bridge's"),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// Asks the bridge that runs with this state directory.
///
/// # Errors
/// Nobody answers there.
pub async fn ask(dir: &Path, request: &Request) -> io::Result<Reply> {
    let exchange = async {
        let stream = UnixStream::connect(dir.join(SOCKET)).await?;
        let (read, mut write) = stream.into_split();
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        write.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(read).take(16 * LINE_BYTES_MAX as u64).read_line(&mut answer).await?;
        Ok(serde_json::from_str(&answer)?)
    };
    timeout(PATIENCE * 2, exchange).await.unwrap_or_else(|late| Err(late.into()))
}

/// The places that a text names.
pub(super) fn places(texts: &[String]) -> Result<Vec<Place>, String> {
    texts.iter().map(|text| text.parse().map_err(|_| format!("\"{text}\" is not HOST:PORT"))).collect()
}

/// The key that a text names, for people's errors.
pub(super) fn key(text: &str) -> Result<MemberId, String> {
    text.parse().map_err(|_| format!("\"{text}\" is not a key: 52 characters of a-z and 2-7"))
}
