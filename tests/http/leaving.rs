//! How connections end when the node leaves: nobody sees an error.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{Client, PATIENCE, get, has, start, status};

#[tokio::test]
async fn while_closing_every_answer_says_so_and_newcomers_are_still_served() {
    let node = start().await;
    let mut kept = node.connect().await;
    assert!(!has(&kept.get("/x").await, "connection: close"));
    node.connections.start_closing();
    assert!(has(&kept.get("/x").await, "connection: close"));
    assert_eq!(kept.rest().await, "");
    let answer = node.exchange(get("/new")).await;
    assert_eq!(status(&answer), 200);
    assert!(has(&answer, "connection: close"));
}

#[tokio::test]
async fn connections_in_use_are_waited_for_and_idle_ones_are_not() {
    let node = start().await;
    let _silent = node.connect().await;
    let mut used = node.connect().await;
    used.get("/x").await;
    node.connections.start_closing();
    let told = tokio::spawn({
        let connections = node.connections.clone();
        async move { connections.all_told().await }
    });
    tokio::task::yield_now().await;
    assert!(!told.is_finished());
    used.get("/x").await;
    timeout(PATIENCE, told).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_on_kept_connections_see_no_error() {
    let node = start().await;
    let address = node.address;
    let clients: Vec<_> = (0..32)
        .map(|_| {
            tokio::spawn(async move {
                let mut served = 0;
                // Refused before anything was sent: the client asks somebody else.
                while let Ok(stream) = TcpStream::connect(address).await {
                    let mut client = Client::over(stream);
                    loop {
                        let answer = client.get("/x").await;
                        assert_eq!(status(&answer), 200);
                        served += 1;
                        if has(&answer, "connection: close") {
                            assert_eq!(client.rest().await, "");
                            break;
                        }
                    }
                }
                served
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    node.connections.start_closing();
    timeout(PATIENCE, node.connections.all_told()).await.unwrap();
    node.connections.stop();
    timeout(PATIENCE, node.connections.finished()).await.unwrap();
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_gets_a_connection_gets_an_answer_to_the_last() {
    let node = start().await;
    let address = node.address;
    let clients: Vec<_> = (0..16)
        .map(|_| {
            // Threads of their own connect as fast as they can, up to the moment when they are refused.
            std::thread::spawn(move || {
                use std::io::{Read, Write};
                while let Ok(mut stream) = std::net::TcpStream::connect(address) {
                    stream.write_all(get("/x").as_bytes()).unwrap();
                    let mut answer = [0; 4096];
                    let length = stream.read(&mut answer).expect("no reset");
                    assert_eq!(status(&String::from_utf8_lossy(&answer[..length])), 200);
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    node.connections.stop();
    timeout(PATIENCE, node.connections.finished()).await.unwrap();
    for client in clients {
        client.join().expect("no error");
    }
}

#[tokio::test]
async fn stopping_closes_idle_connections_and_finishes_the_others() {
    let node = start().await;
    let mut idle = node.connect().await;
    idle.get("/x").await;
    let mut busy = node.connect().await;
    busy.send(get("/wait")).await;
    node.until("asked", |node| node.seen.asked.load(Ordering::SeqCst), 2).await;
    node.connections.stop();
    assert_eq!(idle.rest().await, "");
    assert_eq!(node.connections.in_flight(), 1);
    node.seen.release.notify_one();
    let answer = busy.rest().await;
    assert!(answer.ends_with("waited") && has(&answer, "connection: close"), "{answer}");
    timeout(PATIENCE, node.connections.finished()).await.unwrap();
    assert!(TcpStream::connect(node.address).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn who_waits_in_the_accept_queue_is_served_before_the_listener_closes() {
    let node = start().await;
    // Blocking clients of a current-thread runtime: nobody accepts until we await.
    let mut queued: Vec<_> = (0..20)
        .map(|_| {
            use std::io::Write;
            let mut stream = std::net::TcpStream::connect(node.address).unwrap();
            stream.write_all(get("/x").as_bytes()).unwrap();
            stream
        })
        .collect();
    node.connections.stop();
    timeout(PATIENCE, node.connections.finished()).await.unwrap();
    for stream in &mut queued {
        use std::io::Read;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(status(&answer), 200);
    }
}

#[tokio::test]
async fn a_request_already_sent_on_an_idle_connection_is_served() {
    let node = start().await;
    let mut client = node.connect().await;
    client.get("/x").await;
    // Sent, but not read by the node yet, when it stops.
    client.stream.try_write(get("/late").as_bytes()).unwrap();
    node.connections.stop();
    assert_eq!(status(&client.rest().await), 200);
}

#[tokio::test]
async fn an_idle_node_is_finished_at_once() {
    let node = start().await;
    let begun = std::time::Instant::now();
    node.connections.start_closing();
    node.connections.all_told().await;
    node.connections.stop();
    node.connections.finished().await;
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_does_not_end_is_cut_and_counted() {
    let node = start().await;
    let mut endless = node.connect().await;
    endless.send(get("/endless")).await;
    node.until("in flight", |node| node.connections.in_flight(), 1).await;
    assert_eq!(node.connections.abort(), 1);
    timeout(PATIENCE, node.connections.finished()).await.unwrap();
    assert_eq!(node.connections.in_flight(), 0);
}
