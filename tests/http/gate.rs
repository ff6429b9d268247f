//! What passes the gate and what does not, byte for byte.

use crate::harness::{get, has, start, status};

#[tokio::test]
async fn each_malformed_request_gets_its_status_and_a_closed_connection() {
    let node = start().await;
    let with = |fields: &str| format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    for (bytes, expected) in [
        ("GET /x HTTP/1.1\r\n\r\n".to_owned(), 400),
        (with("Host: a\r\n"), 400),
        ("GET /x HTTP/1.1\r\nHost: u@a\r\n\r\n".to_owned(), 400),
        ("GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /a/%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /x HTTP/1.1\nHost: a\n\n".to_owned(), 400),
        ("\x16\x03\x01\x02\0\x01\0\x01\u{7c}".to_owned(), 400),
        ("hello\r\n\r\n".to_owned(), 400),
        (with("A : b\r\n"), 400),
        (with("A: b\r\n c\r\n"), 400),
        (with("A: b\rc\r\n"), 400),
        (with("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n"), 400),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400),
        (with("Transfer-Encoding: xchunked\r\n"), 400),
        (with("Content-Length: 1\r\nContent-Length: 1\r\n"), 400),
        (with("Content-Length: -1\r\n"), 400),
        (with("Transfer-Encoding: chunked\r\n") + "zz\r\n", 400),
        ("GET /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 400),
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned(), 405),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 405),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".to_owned(), 405),
        (with("Content-Length: 65537\r\n"), 413),
        (with("Transfer-Encoding: chunked\r\n") + "10001\r\n", 413),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(8192)), 414),
        (with("Expect: a-pony\r\n"), 417),
        (with(&"A: b\r\n".repeat(100)), 431),
        (with(&format!("A: {}\r\n", "b".repeat(33_000))), 431),
        ("BREW /x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 501),
        ("get /x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 501),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_owned(), 505),
        ("GET /x HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), 505),
    ] {
        // What follows a refused request must not be taken for a request of its own.
        let answer = node.exchange(bytes.clone() + &get("/smuggled")).await;
        let sent = bytes.get(..60).unwrap_or(&bytes);
        assert_eq!(status(&answer), expected, "{sent:?}: {answer}");
        assert_eq!(answer.matches("\r\ndate: ").count(), 1, "{sent:?}: {answer}");
        assert!(has(&answer, "connection: close"), "{sent:?}: {answer}");
        assert!(has(&answer, "content-type: application/problem+json"), "{sent:?}: {answer}");
        assert_eq!(has(&answer, "allow: GET, HEAD"), expected == 405, "{sent:?}: {answer}");
    }
    node.until("in flight", |node| node.connections.in_flight(), 0).await;
    assert_eq!(node.seen.asked.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_megabyte_of_headers_is_refused_and_the_client_gets_to_read_why() {
    let node = start().await;
    let mut request = get("/x");
    request.insert_str(request.len() - 2, &format!("A: {}\r\n", "b".repeat(1 << 20)));
    let answer = node.exchange(request).await;
    assert_eq!(status(&answer), 431);
    assert!(answer.contains("\"reason\":\"head-too-large\""), "{answer}");
}

#[tokio::test]
async fn requests_come_through_whole_and_cleaned() {
    let node = start().await;
    let mut client = node.connect().await;
    client
        .send(concat!(
            "GET /a%20b?q=%2F&r HTTP/1.1\r\nHOST: Localhost:1\r\nAccept: x\r\nConnection: x-secret\r\n",
            "X-Secret: 1\r\nUpgrade: h2c\r\nTransfer_Encoding: chunked\r\nIsle-Load: 1/2\r\n\r\n"
        ))
        .await;
    let answer = client.answer().await;
    assert!(answer.ends_with("GET /a b q=%2F&r Localhost:1 [\"accept\"]"), "{answer}");
    assert!(has(&answer, "x-content-type-options: nosniff"), "{answer}");
    assert!(client.get("/again").await.contains("GET /again"), "the connection is kept");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let node = start().await;
    let mut client = node.connect().await;
    client.send([get("/1"), get("/2"), get("/3")].concat()).await;
    for path in ["/1", "/2", "/3"] {
        assert!(client.answer().await.contains(&format!("GET {path} ")));
    }
}

#[tokio::test]
async fn small_bodies_are_skipped_and_the_next_request_begins_behind_them() {
    let node = start().await;
    let mut client = node.connect().await;
    let body = get("/smuggled");
    let sized = format!("GET /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let chunked = format!(
        "GET /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    client.send([sized, chunked, get("/3")].concat()).await;
    for path in ["/1", "/2", "/3"] {
        assert!(client.answer().await.contains(&format!("GET {path} ")));
    }
}

#[tokio::test]
async fn who_asks_before_sending_a_body_is_answered_at_once_and_the_connection_closed() {
    let node = start().await;
    let answer = node
        .exchange("GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(status(&answer), 200);
    assert!(has(&answer, "connection: close"), "{answer}");
}

#[tokio::test]
async fn head_has_the_fields_of_get_and_no_body() {
    let node = start().await;
    let mut client = node.connect().await;
    client.send("HEAD /big?bytes=5000 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned() + &get("/next")).await;
    let both = {
        client.half_close().await;
        client.rest().await
    };
    let (head, rest) = both.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("content-length: 5000"), "{head}");
    assert!(rest.starts_with("HTTP/1.1 200") && rest.contains("/next"), "{rest}");
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed_unless_asked_otherwise() {
    let node = start().await;
    let answer = node.exchange("GET /x HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&answer), 200);
    assert!(has(&answer, "connection: close") && !has(&answer, "keep-alive"), "{answer}");
    let streamed = node.exchange("GET /stream?frames=3 HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let body = streamed.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(body.len(), 3 * 1024, "not chunked: {streamed}");
    let mut client = node.connect().await;
    for _ in 0..2 {
        client.send("GET /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
        let answer = client.answer().await;
        assert!(has(&answer, "connection: keep-alive"), "{answer}");
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_is_chunked() {
    let node = start().await;
    let mut client = node.connect().await;
    client.send(get("/stream?frames=2")).await;
    client.send(get("/next")).await;
    client.half_close().await;
    let both = client.rest().await;
    assert!(has(&both, "transfer-encoding: chunked"), "{both}");
    assert!(both.contains("\r\n0\r\n\r\nHTTP/1.1 200 OK"), "{both}");
}

#[tokio::test]
async fn foreign_names_and_foreign_pages_are_turned_away_and_the_connection_lives() {
    let node = start().await;
    let mut client = node.connect().await;
    client.send("GET /members HTTP/1.1\r\nHost: evil.example\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(status(&answer), 421);
    assert!(answer.contains("--allow-host evil.example"), "{answer}");
    client.send("GET /figures/a HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(status(&answer), 403);
    assert!(!answer.to_ascii_lowercase().contains("access-control"), "{answer}");
    assert_eq!(status(&client.get("/members").await), 200);
}

#[tokio::test]
async fn a_panic_is_a_500_for_its_request_alone() {
    let node = start().await;
    let mut client = node.connect().await;
    assert_eq!(status(&client.get("/panic").await), 500);
    assert_eq!(status(&client.get("/fine").await), 200, "on the same connection");
}

#[tokio::test]
async fn a_body_that_breaks_off_resets_the_connection() {
    use tokio::io::AsyncReadExt;
    let node = start().await;
    for (path, version) in [("/broken", "1.1"), ("/broken", "1.0"), ("/panic-later", "1.0")] {
        let mut client = node.connect().await;
        client.send(format!("GET {path} HTTP/{version}\r\nHost: a\r\n\r\n")).await;
        let mut all = Vec::new();
        let end = client.stream.read_to_end(&mut all).await;
        let shown = String::from_utf8_lossy(&all);
        assert!(end.is_err(), "half a body ended like a whole one: {shown}");
    }
}
