//! A node with few descriptors, and one with very many connections: in a process of its own, whose limits and
//! memory are then the node's alone.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{get, start, status};

/// Set for the process that serves: its limit of descriptors.
const LIMIT: &str = "ISLE_TEST_DESCRIPTORS";

/// Runs until its standard input ends.
#[tokio::test]
#[ignore = "is the node of the tests beside it"]
async fn node_of_its_own() {
    let Ok(limit) = std::env::var(LIMIT) else { return };
    let limit = limit.parse().unwrap();
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) }).unwrap();
    let node = start().await;
    println!("\naddress={}", node.address);
    // A thread of its own waits; the runtime goes on serving.
    let wait = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    wait.await.unwrap().unwrap();
}

/// A process of this test program that serves.
pub struct Process {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    pub address: SocketAddr,
}

impl Process {
    fn start(descriptors: u64) -> Self {
        Self::start_test("descriptors::node_of_its_own", descriptors)
    }

    /// Runs the ignored test of this name, which says where it listens.
    pub fn start_test(name: &str, descriptors: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env(LIMIT, descriptors.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = said
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("address=").map(|address| address.parse().unwrap()))
            .expect("the node says where it listens");
        Self { child, said, address }
    }

    /// Gives it a line and waits until it is done with it.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
        self.said.by_ref().map_while(Result::ok).find(|line| line == "done").expect("it is done");
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// CPU used so far, in clock ticks of 10 ms.
    fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let after_name: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        after_name[11].parse::<u64>().unwrap() + after_name[12].parse::<u64>().unwrap()
    }

    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// First bytes of an answer.
fn first_line(stream: &mut TcpStream) -> String {
    let mut buffer = [0; 4096];
    let length = stream.read(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn idle_connections_give_way_to_newcomers_when_descriptors_run_short() {
    let node = Process::start(64);
    let hoard: Vec<_> = (0..200).map(|_| node.connect()).collect();
    let mut newcomer = node.connect();
    newcomer.write_all(get("/x").as_bytes()).unwrap();
    assert_eq!(status(&first_line(&mut newcomer)), 200);
    drop(hoard);
}

#[test]
fn requests_that_never_end_give_way_too() {
    let node = Process::start(64);
    let hoard: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = node.connect();
            stream.write_all(b"GET /never-ends HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    let begun = Instant::now();
    let mut newcomer = node.connect();
    newcomer.write_all(get("/x").as_bytes()).unwrap();
    assert_eq!(status(&first_line(&mut newcomer)), 200);
    assert!(begun.elapsed() < Duration::from_secs(5), "before their heads time out: {:?}", begun.elapsed());
    drop(hoard);
}

#[test]
fn without_descriptors_the_listener_waits_without_spinning_and_recovers() {
    let node = Process::start(64);
    let mut busy: Vec<_> = (0..80).map(|_| node.connect()).collect();
    for stream in &mut busy {
        stream.write_all(get("/wait").as_bytes()).unwrap();
    }
    let mut newcomer = node.connect();
    newcomer.write_all(get("/x").as_bytes()).unwrap();
    let before = node.cpu_ticks();
    // Nothing to wait for: the claim is that nothing happens for a while.
    std::thread::sleep(Duration::from_secs(1));
    let used = node.cpu_ticks() - before;
    assert!(used <= 10, "{used} % of a core while there is nothing to do");
    drop(busy);
    let freed = Instant::now();
    assert_eq!(status(&first_line(&mut newcomer)), 200);
    assert!(freed.elapsed() < Duration::from_secs(2), "{:?}", freed.elapsed());
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_all_are_served() {
    const MANY: u64 = 10_000;
    let hard = getrlimit(Resource::Nofile).maximum;
    if hard.is_some_and(|hard| hard < MANY + 200) {
        eprintln!("skipped: at most {hard:?} descriptors here");
        return;
    }
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
    let node = Process::start(MANY + 1200);
    let before = node.resident_kib();
    let mut idle: Vec<_> = (0..MANY).map(|_| node.connect()).collect();
    let mut client = node.connect();
    for _ in 0..20 {
        client.write_all(get("/x").as_bytes()).unwrap();
        assert_eq!(status(&first_line(&mut client)), 200);
    }
    let each = (node.resident_kib() - before) * 1024 / MANY;
    eprintln!("{each} bytes for an idle connection");
    assert!(each < 8 * 1024, "{each} bytes for an idle connection");
    for stream in idle.iter_mut().step_by(100) {
        stream.write_all(get("/late").as_bytes()).unwrap();
        assert_eq!(status(&first_line(stream)), 200);
    }
}
