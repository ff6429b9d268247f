//! Readers of `/events`: gone, mute, many.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use isle::api::{Api, Source};
use isle::http::accept::{App, Limits, serve};
use isle::http::body::Answer;
use isle::http::connections::Connections;
use isle::http::hosts::HostRules;
use isle::http::request::Gated;
use isle::http::respond::no_such_path;
use isle_mesh::event::{Event, EventKind, Subject};
use isle_mesh::member::{Load, Member, MemberId, Record, Stamp, Standing};
use isle_mesh::metrics::Counts;
use isle_mesh::shared::{SharedTable, TableWriter, table};

use crate::descriptors::Process;
use crate::harness::{get, status};

struct Table {
    me: Arc<Member>,
    table: SharedTable,
    _writer: TableWriter,
}

impl Source for Table {
    fn me(&self) -> Arc<Member> {
        self.me.clone()
    }
    fn table(&self) -> &SharedTable {
        &self.table
    }
    fn is_complete(&self) -> bool {
        true
    }
    fn may_ask(&self, _: IpAddr) -> bool {
        true
    }
    fn counts(&self) -> Counts {
        Counts::default()
    }
    fn records(&self) -> BoxFuture<'_, Bytes> {
        Box::pin(async { Bytes::new() })
    }
    fn proof(&self, _: &[u8; 16], _: SocketAddr) -> Vec<u8> {
        Vec::new()
    }
}

struct ApiAlone(Api);

impl App for ApiAlone {
    async fn answer(&self, request: Gated) -> Answer {
        match self.0.answer(&request).await {
            Some(answer) => answer,
            None => no_such_path(&request.path).into_answer(),
        }
    }
}

fn member() -> Arc<Member> {
    Arc::new(Member {
        id: MemberId([7; 32]),
        stamp: Stamp::new(1, 1),
        record: Arc::new(Record {
            name: "hub".into(),
            roles: vec!["intermediary".into()],
            addresses: Vec::new(),
            http_port: 5235,
            unicast_port: 1,
            island: "local".into(),
            island_given: false,
            draining: false,
            catalogue: None,
            watchers: Vec::new(),
            protocol: (1, 1),
            version: "0.1.0".into(),
            tags: Vec::new(),
        }),
        record_bytes: Bytes::new(),
        standing: Standing::Alive,
        proven: true,
        reachable: true,
        reason: None,
        since: Instant::now(),
        heard: None,
        load: Load::default(),
        http_addresses: Vec::new(),
        is_self: true,
        far: false,
    })
}

/// Reads numbers from standard input and tells so many events for each, then says so; leaves at "leave".
#[tokio::test]
#[ignore = "is the node of the tests beside it"]
async fn node_with_events() {
    if std::env::var("ISLE_TEST_DESCRIPTORS").is_err() {
        return;
    }
    let (writer, table) = table();
    let me = member();
    writer.put(me.clone());
    let connections = Connections::new();
    let source = Arc::new(Table { me: me.clone(), table, _writer: writer });
    let api = Api::new(source, connections.clone(), isle::telemetry::metrics());
    let listener = isle::http::listen::listen(Some(([127, 0, 0, 1], 0).into()), 0).unwrap();
    println!("\naddress={}", listener.local_addr().unwrap());
    let app = Arc::new(ApiAlone(api.clone()));
    let task =
        tokio::spawn(serve(listener, app, HostRules::default(), Limits::default(), connections.clone()));
    let (lines, mut line) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            lines.blocking_send(line).unwrap();
        }
    });
    let mut number = 0;
    while let Some(line) = line.recv().await {
        if line == "leave" {
            connections.start_closing();
            connections.all_told().await;
            connections.stop();
            connections.finished().await;
        }
        for _ in 0..line.parse().unwrap_or(0) {
            number += 1;
            api.tell(&Event { number, kind: EventKind::Updated, subject: Subject::Member(me.clone()) });
            // As the machine would: readers get to read in between.
            if number % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        println!("\ndone");
    }
    task.abort();
}

fn start() -> Process {
    Process::start_test("streams::node_with_events", 2000)
}

/// Opens a stream from an address of its own.
fn reader(node: &Process, from: u8) -> BufReader<TcpStream> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // A small window, so that little is lost in the kernel.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 1, from), 0)).into()).unwrap();
    socket.connect(&node.address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(get("/events").as_bytes()).unwrap();
    BufReader::new(stream)
}

/// Reads until a line begins so.
fn until(reader: &mut BufReader<TcpStream>, start: &str) -> String {
    loop {
        let mut line = String::new();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "ended before {start}");
        if line.starts_with(start) {
            return line;
        }
    }
}

fn metric(node: &Process, name: &str) -> f64 {
    let mut stream = node.connect();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).expect("it is there")
}

#[test]
fn mute_readers_cost_bounded_memory_and_do_not_hold_up_the_others() {
    let mut node = start();
    let mute: Vec<_> = (0..255).map(|n| reader(&node, n / 8)).collect();
    let mut attentive = reader(&node, 200);
    until(&mut attentive, "event: snapshot");
    let mut refused = reader(&node, 201);
    assert_eq!(status(&until(&mut refused, "HTTP/1.1")), 503);
    let before = node.resident_kib();
    node.tell("2000");
    let begun = Instant::now();
    for _ in 0..50 {
        node.tell("2000");
    }
    let told = begun.elapsed();
    let grown = node.resident_kib().saturating_sub(before);
    eprintln!("100,000 events in {told:?}, {grown} KiB more for 255 mute readers");
    assert!(grown < 16 * 1024, "{grown} KiB");
    // Who reads, but more slowly than things happen, is cut and told to come back.
    until(&mut attentive, ": too far behind");
    until(&mut attentive, "retry: ");
    drop(mute);
}

#[test]
fn readers_that_leave_give_back_their_places_and_descriptors() {
    let node = start();
    for _ in 0..2 {
        let mut readers: Vec<_> = (0..64).map(|n| reader(&node, n / 8)).collect();
        for reader in &mut readers {
            until(reader, "event: snapshot");
        }
        drop(readers);
        // /metrics may be as old as this.
        std::thread::sleep(Duration::from_millis(60));
        let deadline = Instant::now() + Duration::from_secs(20);
        while metric(&node, "isle_event_streams ") > 0.0 {
            assert!(Instant::now() < deadline, "streams of readers that are gone");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert!(metric(&node, "process_open_fds ") < 30.0);
}

#[test]
fn streams_end_first_when_the_node_leaves_and_it_is_quick() {
    let mut node = start();
    let mut readers: Vec<_> = (0..8).map(|n| reader(&node, n)).collect();
    for reader in &mut readers {
        until(reader, "event: snapshot");
    }
    let begun = Instant::now();
    node.tell("leave");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    for reader in &mut readers {
        until(reader, "retry: ");
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with("0\r\n\r\n"), "a whole answer: {rest:?}");
    }
}
