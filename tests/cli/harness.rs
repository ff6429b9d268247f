//! Starts the program, reads it, and ends it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;

use isle_mesh::reserved::ReservedPort;
use rustix::process::{Pid, Signal, kill_process};

/// The program, with nothing of ours in its environment.
pub(crate) fn isle(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isle"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ISLE_")) {
        command.env_remove(name);
    }
    command.env_remove("CLICOLOR_FORCE").args(arguments).stdin(Stdio::null());
    command
}

/// What it prints, and how it ends.
pub(crate) fn run(arguments: &[&str]) -> Said {
    Said::of(&isle(arguments).output().unwrap())
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout.clone()).unwrap(),
            stderr: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }
}

/// A process that goes on; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// The next line of standard output; blocks until there is one.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    /// Ctrl+C, and the exit status.
    pub(crate) fn interrupted(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        self.child.wait().unwrap().code()
    }

    /// Closes its standard input, and waits for its end.
    pub(crate) fn let_go(mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node that meets nobody.
pub(crate) fn node(role: &str, more: &[&str]) -> Command {
    let reserved = ReservedPort::take().unwrap();
    let port = reserved.number();
    // Held until this process ends: the node takes it some time later.
    std::mem::forget(reserved);
    let mesh = format!("test-{}-{port}", std::process::id());
    let mut command =
        isle(&[role, "--interface", "lo", "--mesh", &mesh, "--discovery-port", &port.to_string()]);
    command.args(more);
    command
}

/// The address in a ready line.
pub(crate) fn http(ready: &str) -> String {
    let address = ready.split_whitespace().find_map(|word| word.strip_prefix("http=")).unwrap();
    format!("http://{address}")
}

/// Somebody who answers every request for a path that begins so with this, and everything else with 404.
pub(crate) fn answering(answers: &'static [(&'static str, &'static str)]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or_default() == 1 {
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let found = answers.iter().find(|(beginning, _)| path.starts_with(beginning));
            let answer = match found {
                Some((_, body)) => format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                ),
                None => {
                    let body = r#"{"status":404,"detail":"nobody has it","reason":"no-such-figure"}"#;
                    format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                }
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}
