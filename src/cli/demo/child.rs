//! A node as a process of its own: started, told to leave, killed. It never outlives this process.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use isle_mesh::reserved::ReservedPort;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::cli::client::Client;

/// Longest wait for the ready line: 0.5 s when nobody answers, and more on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// What all nodes of an island have in common.
#[derive(Debug)]
pub struct Common {
    /// Name of the mesh; no other program uses it.
    pub mesh: String,
    /// UDP port of discovery.
    pub discovery_port: ReservedPort,
    /// Where logs and figures go.
    pub folder: PathBuf,
}

/// A running node. Dropped, it is killed; should this process be killed first, the node ends with its standard
/// input.
#[derive(Debug)]
pub struct Node {
    name: String,
    child: Child,
    /// The other end of its standard input, held so that it goes on.
    _tether: ChildStdin,
    stdout: Option<BufReader<ChildStdout>>,
    http: Option<SocketAddr>,
    log: PathBuf,
}

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// The system starts no process.
    #[error("{name} cannot be started")]
    Start {
        /// Its name.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ended, or says something else.
    #[error("{name} did not become ready; its log: {}", log.display())]
    NotReady {
        /// Its name.
        name: String,
        /// Its log.
        log: PathBuf,
    },
    /// It goes on where it should have left.
    #[error("{name} has not left within {waited:?}; its log: {}", log.display())]
    Stays {
        /// Its name.
        name: String,
        /// How long.
        waited: Duration,
        /// Its log.
        log: PathBuf,
    },
}

impl Node {
    /// Starts `isle ROLE ARGUMENTS` on loopback alone, and does not wait for it.
    ///
    /// # Errors
    /// See [`ChildError`].
    pub fn start(
        common: &Common,
        role: &str,
        name: &str,
        arguments: &[OsString],
    ) -> Result<Self, ChildError> {
        let log = common.folder.join(format!("{name}.log"));
        let failed = |source| ChildError::Start { name: name.to_owned(), source };
        let log_file = std::fs::File::options().create(true).append(true).open(&log).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args([role, "--tether", "--interface", "lo", "--listen", "127.0.0.1:0", "--name", name]);
        let port = common.discovery_port.number().to_string();
        command.args(["--mesh", &common.mesh, "--discovery-port", &port]);
        command.args(arguments);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("ISLE_") {
                command.env_remove(variable);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log_file).kill_on_drop(true);
        // Ctrl+C in the terminal is for us alone; we tell the nodes.
        command.process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let tether = child.stdin.take().expect("asked for above, taken once");
        let stdout = child.stdout.take().map(BufReader::new);
        Ok(Self { name: name.to_owned(), child, _tether: tether, stdout, http: None, log })
    }

    /// Waits for the ready line.
    ///
    /// # Errors
    /// See [`ChildError`].
    pub async fn ready(&mut self) -> Result<(), ChildError> {
        let mut line = String::new();
        if let Some(stdout) = &mut self.stdout {
            let _ = timeout(READY_WITHIN, stdout.read_line(&mut line)).await;
        }
        let http = line.split_whitespace().find_map(|word| word.strip_prefix("http="));
        self.http = http.filter(|_| line.starts_with("ready ")).and_then(|http| http.parse().ok());
        match self.http {
            Some(_) => Ok(()),
            None => Err(ChildError::NotReady { name: self.name.clone(), log: self.log.clone() }),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is asked.
    ///
    /// # Panics
    /// Before [`Node::ready`] came back well.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http.expect("only nodes that are ready are asked")
    }

    /// Asks it.
    ///
    /// # Panics
    /// As [`Node::http`].
    #[must_use]
    pub fn client(&self) -> Client {
        Client::of(self.http())
    }

    /// Its process, unless it has ended.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ctrl+C. Does nothing when it has ended.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// It stands still from now on, as a host does whose network is gone; or goes on. Does nothing when it has ended.
    pub fn pause(&self, stands_still: bool) {
        self.signal(if stands_still { Signal::STOP } else { Signal::CONT });
    }

    /// `kill -9`. Does nothing when it has ended.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // `id` is none once the process was waited for, so the number is never someone else's.
        let process = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(process) = process {
            let _ = kill_process(process, signal);
        }
    }

    /// Waits for its end. Cancel safe.
    ///
    /// # Errors
    /// See [`ChildError`].
    pub async fn ended(&mut self, within: Duration) -> Result<ExitStatus, ChildError> {
        match timeout(within, self.child.wait()).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(source)) => Err(ChildError::Start { name: self.name.clone(), source }),
            Err(_) => {
                Err(ChildError::Stays { name: self.name.clone(), waited: within, log: self.log.clone() })
            }
        }
    }
}
