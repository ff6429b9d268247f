//! Clients that are slow, silent, gone or many.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{Node, PATIENCE, get, has, short, start, start_with, status};

/// Sends one byte now and then until the node closes; returns what it said.
async fn drip(node: &Node, bytes: &[u8], every: Duration) -> String {
    let mut client = node.connect().await;
    let (mut read, mut write) = client.stream.split();
    let drip = async {
        for byte in bytes.iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(every).await;
        }
        std::future::pending().await
    };
    let mut all = Vec::new();
    let read = async {
        // The refusal comes first; that the client went on sending may reset the connection after it.
        let _ = read.read_to_end(&mut all).await;
    };
    timeout(PATIENCE, async {
        tokio::select! { () = read => {}, () = drip => {} }
    })
    .await
    .expect("the node closes");
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_head_that_drips_in_is_refused() {
    let node = start_with(short()).await;
    let answer = drip(&node, b"GET /aaaaaaaaaaaaaaaaa", Duration::from_millis(20)).await;
    assert_eq!(status(&answer), 408);
    assert!(has(&answer, "connection: close"), "{answer}");
}

#[tokio::test]
async fn a_body_that_drips_in_is_refused() {
    let node = start_with(short()).await;
    let head = "GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n";
    let mut client = node.connect().await;
    client.send(head).await;
    assert_eq!(status(&client.answer().await), 408);
    assert_eq!(node.seen.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn silent_and_idle_connections_are_closed_without_a_word() {
    let node = start_with(short()).await;
    let mut silent = node.connect().await;
    assert_eq!(silent.rest().await, "");
    let mut idle = node.connect().await;
    idle.get("/x").await;
    assert_eq!(idle.rest().await, "");
}

#[tokio::test]
async fn a_connection_in_use_outlives_the_idle_limit() {
    let node = start_with(short()).await;
    let mut client = node.connect().await;
    let until = Instant::now() + short().idle * 3;
    while Instant::now() < until {
        assert_eq!(status(&client.get("/x").await), 200);
        sleep(short().idle / 4).await;
    }
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut() {
    let node = start_with(short()).await;
    let mut client = node.connect().await;
    client.send(get("/big?bytes=50000000")).await;
    node.until("asked", |node| node.seen.asked.load(Ordering::SeqCst), 1).await;
    node.until("open", |node| node.connections.open(), 0).await;
    assert_eq!(node.connections.in_flight(), 0);
}

#[tokio::test]
async fn a_steady_reader_gets_all_of_a_large_answer() {
    let node = start_with(short()).await;
    let mut client = node.connect().await;
    client.send(get("/big?bytes=20000000")).await;
    client.half_close().await;
    assert_eq!(client.rest().await.split_once("\r\n\r\n").unwrap().1.len(), 20_000_000);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let node = start_with(short()).await;
    let mut client = node.connect().await;
    client.send(get("/wait")).await;
    node.until("asked", |node| node.seen.asked.load(Ordering::SeqCst), 1).await;
    drop(client);
    node.until("cancelled", |node| node.seen.cancelled.load(Ordering::SeqCst), 1).await;
    node.until("open", |node| node.connections.open(), 0).await;
    assert_eq!(node.connections.in_flight(), 0);
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_still_gets_its_answer() {
    let node = start().await;
    let mut client = node.connect().await;
    client.send(get("/wait")).await;
    client.half_close().await;
    node.until("asked", |node| node.seen.asked.load(Ordering::SeqCst), 1).await;
    node.seen.release.notify_one();
    assert!(client.rest().await.ends_with("waited"));
}

#[tokio::test]
async fn half_a_request_and_a_closed_side_end_the_connection() {
    let node = start().await;
    let mut client = node.connect().await;
    client.send("GET /x HT").await;
    client.half_close().await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn clients_that_leave_in_the_middle_leave_nothing_behind() {
    let node = start_with(short()).await;
    for path in ["/endless", "/big?bytes=9000000", "/wait", "/stream?frames=9999"] {
        for _ in 0..50 {
            let mut client = node.connect().await;
            client.send(get(path)).await;
            if path != "/wait" {
                client.stream.read_u8().await.unwrap();
            }
        }
    }
    node.until("open", |node| node.connections.open(), 0).await;
    assert_eq!(node.connections.in_flight(), 0);
}

#[tokio::test]
async fn many_idle_connections_do_not_slow_the_others() {
    let node = start().await;
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(node.connect().await);
    }
    node.until("open", |node| node.connections.open(), 400).await;
    let mut client = node.connect().await;
    for _ in 0..50 {
        assert_eq!(status(&client.get("/x").await), 200);
    }
    for client in &mut idle {
        client.send(get("/late")).await;
    }
    for client in &mut idle {
        assert_eq!(status(&client.answer().await), 200, "none was dropped");
    }
}
