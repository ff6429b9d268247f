use super::*;

fn parse(text: &str) -> Result<Head, Refusal> {
    Head::parse(&Bytes::copy_from_slice(text.as_bytes()))
}

/// A GET with these field lines besides `Host`.
fn with(fields: &str) -> Result<Head, Refusal> {
    parse(&format!("GET /a HTTP/1.1\r\nHost: x\r\n{fields}\r\n"))
}

fn refusal(head: Result<Head, Refusal>) -> Option<Refusal> {
    head.err()
}

#[test]
fn a_plain_request_passes() {
    let head =
        parse("GET /figures/a%62?q=1 HTTP/1.1\r\nHost: x:5235\r\nAccept:  text/html \r\n\r\n").unwrap();
    assert!(head.keep_alive);
    assert_eq!(head.framing, Framing::None);
    let here = SocketAddr::from(([127, 0, 0, 1], 1));
    let gated = head.into_gated(here, here, Instant::now());
    assert_eq!((&*gated.path, gated.query.as_deref(), &*gated.host), ("/figures/ab", Some("q=1"), "x:5235"));
    assert_eq!(gated.headers["accept"], "text/html");
    assert_eq!((gated.hops, gated.deadline), (0, None));
}

#[test]
fn request_lines_of_other_forms_are_refused() {
    for (line, expected) in [
        ("GET /", Refusal::RequestLine),
        ("GET  / HTTP/1.1", Refusal::RequestLine),
        ("GET / HTTP/1.1 ", Refusal::RequestLine),
        (" GET / HTTP/1.1", Refusal::RequestLine),
        ("G@T / HTTP/1.1", Refusal::RequestLine),
        ("GET\t/\tHTTP/1.1", Refusal::RequestLine),
        ("GET / http/1.1", Refusal::RequestLine),
        ("GET / HTTP/1.10", Refusal::RequestLine),
        ("GET /\r HTTP/1.1", Refusal::TargetForm),
        ("GET / HTTP/1.2", Refusal::Version),
        ("GET / HTTP/2.0", Refusal::Version),
        ("GET / HTTP/0.9", Refusal::Version),
        ("GET http://x/ HTTP/1.1", Refusal::TargetForm),
        ("GET * HTTP/1.1", Refusal::TargetForm),
        ("GET x:80 HTTP/1.1", Refusal::TargetForm),
        ("BREW / HTTP/1.1", Refusal::MethodUnknown),
        ("get / HTTP/1.1", Refusal::MethodUnknown),
        ("POST / HTTP/1.1", Refusal::MethodNotAllowed),
        ("OPTIONS * HTTP/1.1", Refusal::MethodNotAllowed),
        ("CONNECT / HTTP/1.1", Refusal::TargetForm),
        ("CONNECT x HTTP/1.1", Refusal::TargetForm),
        ("CONNECT me@x:80 HTTP/1.1", Refusal::TargetForm),
        ("CONNECT x:80/path HTTP/1.1", Refusal::TargetForm),
        ("CONNECT x:99999 HTTP/1.1", Refusal::TargetForm),
    ] {
        assert_eq!(refusal(parse(&format!("{line}\r\nHost: x\r\n\r\n"))), Some(expected), "{line}");
    }
}

#[test]
fn framing_is_one_length_or_one_chunked() {
    for (fields, expected) in [
        ("Content-Length: 5\r\n", Ok(Framing::Length(5))),
        ("Transfer-Encoding: Chunked\r\n", Ok(Framing::Chunked)),
        ("Content-Length: 99999999999999999999999\r\n", Ok(Framing::Length(u64::MAX))),
        ("Content-Length:\r\n", Err(Refusal::ContentLength)),
        ("Content-Length: +5\r\n", Err(Refusal::ContentLength)),
        ("Content-Length: 5, 5\r\n", Err(Refusal::ContentLength)),
        ("Content-Length: 0x5\r\n", Err(Refusal::ContentLength)),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(Refusal::ContentLength)),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(Refusal::BothFramings)),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(Refusal::BothFramings)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(Refusal::TransferEncoding)),
        ("Transfer-Encoding: chunked, chunked\r\n", Err(Refusal::TransferEncoding)),
        ("Transfer-Encoding: gzip, chunked\r\n", Err(Refusal::TransferEncoding)),
        ("Transfer-Encoding: xchunked\r\n", Err(Refusal::TransferEncoding)),
        ("Transfer-Encoding: identity\r\n", Err(Refusal::TransferEncoding)),
        ("Transfer-Encoding:\r\n", Err(Refusal::TransferEncoding)),
        ("Transfer-Encoding: \x0cchunked\r\n", Err(Refusal::FieldValue)),
        ("Transfer_Encoding: chunked\r\n", Ok(Framing::None)),
        ("Content--Length: 5\r\n", Ok(Framing::None)),
    ] {
        assert_eq!(with(fields).map(|head| head.framing), expected, "{fields:?}");
    }
    let old = parse("GET / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(refusal(old), Some(Refusal::TransferEncoding));
}

#[test]
fn malformed_fields_are_refused() {
    for (fields, expected) in [
        ("A : b\r\n", Refusal::FieldName),
        (": b\r\n", Refusal::FieldName),
        ("A b\r\n", Refusal::FieldName),
        ("A(b: c\r\n", Refusal::FieldName),
        (" A: b\r\n", Refusal::Folded),
        ("A: b\r\n\tc\r\n", Refusal::Folded),
        ("A: b\0c\r\n", Refusal::FieldValue),
        ("A: b\x7fc\r\n", Refusal::FieldValue),
        ("A: b\rc: d\r\n", Refusal::LineEnd),
    ] {
        assert_eq!(refusal(with(fields)), Some(expected), "{fields:?}");
    }
    assert_eq!(refusal(with(&"A: b\r\n".repeat(100))), Some(Refusal::TooManyFields));
    assert_eq!(refusal(with(&"A: b\r\n".repeat(99))), None);
}

#[test]
fn there_is_exactly_one_well_formed_host() {
    let host = |fields: &str| refusal(parse(&format!("GET / HTTP/1.1\r\n{fields}\r\n")));
    assert_eq!(host(""), Some(Refusal::NoHost));
    assert_eq!(host("Host: a\r\nHost: a\r\n"), Some(Refusal::ManyHosts));
    for bad in ["", "a b", "a@b", "a:b", "a:99999", "a/b", "[::1", "[::1]x", "[x]", ":80", "a\u{e4}", "a:1:2"]
    {
        assert_eq!(host(&format!("Host: {bad}\r\n")), Some(Refusal::BadHost), "{bad}");
    }
    for good in ["a", "a.b.", "127.0.0.1:80", "[::1]", "[fe80::1]:5235", "a_b", "a:"] {
        assert_eq!(host(&format!("Host: {good}\r\n")), None, "{good}");
    }
}

#[test]
fn only_end_to_end_fields_pass() {
    let head = with(concat!(
        "Connection: x-secret, Via, Upgrade, close\r\nX-Secret: 1\r\nVia: 1.1 other\r\nUpgrade: h2c\r\n",
        "HTTP2-Settings: a\r\nTE: trailers\r\nTrailer: a\r\nKeep-Alive: 5\r\nProxy-Connection: a\r\n",
        "Expect: 100-continue\r\nContent-Length: 0\r\nX_Forwarded: a\r\nX--Y: a\r\nCookie: c\r\n",
        "Isle-Hops: 2\r\nIsle-Deadline-Ms: 1500\r\nIsle-Deadline-Ms: 900\r\nIsle-Load: 1/2\r\n",
    ))
    .unwrap();
    let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["cookie", "via"]);
    assert!(!head.keep_alive && head.expects_continue);
    assert_eq!((head.hops, head.deadline), (2, Some(Duration::from_millis(900))));
}

#[test]
fn hops_and_deadline_that_are_no_numbers_say_nothing_and_large_ones_saturate() {
    let head = with("Isle-Hops: many\r\nIsle-Deadline-Ms: -1\r\n").unwrap();
    assert_eq!((head.hops, head.deadline), (0, None));
    assert_eq!(with("Isle-Hops: 70000\r\n").unwrap().hops, u8::MAX);
}

#[test]
fn expectations_other_than_continue_fail() {
    assert_eq!(refusal(with("Expect: 200-ok\r\n")), Some(Refusal::Expectation));
    assert_eq!(refusal(with("Expect: 100-continue\r\nExpect: 100-continue\r\n")), Some(Refusal::Expectation));
}

#[test]
fn http_1_0_closes_unless_asked_not_to() {
    let keep =
        |fields: &str| parse(&format!("GET / HTTP/1.0\r\nHost: x\r\n{fields}\r\n")).unwrap().keep_alive;
    assert!(!keep(""));
    assert!(keep("Connection: Keep-Alive\r\n"));
    assert!(!keep("Connection: keep-alive, close\r\n"));
}

mod any {
    use proptest::prelude::*;

    use super::super::*;
    use crate::http::gate::discard::Discard;
    use crate::http::gate::scan::Scanner;

    /// What the gate makes of a stream: the requests it would let pass, or where it stopped.
    fn read(stream: &[u8], pieces: &[usize]) -> Vec<Result<String, Refusal>> {
        let mut read = Vec::new();
        let mut at = 0;
        while at < stream.len() {
            let mut scanner = Scanner::default();
            let mut end = at;
            let mut cuts = pieces.iter().cycle();
            let extent = loop {
                match scanner.scan(&stream[at..end]) {
                    Ok(Some(extent)) => break extent,
                    Err(refusal) => {
                        read.push(Err(refusal));
                        return read;
                    }
                    Ok(None) if end == stream.len() => return read,
                    Ok(None) => end = (end + cuts.next().unwrap()).min(stream.len()),
                }
            };
            let head = Head::parse(&Bytes::copy_from_slice(&stream[at + extent.start..at + extent.end]))
                .and_then(|head| Ok((Discard::new(head.framing)?, head)));
            at += extent.end;
            match head {
                Ok((mut discard, head)) => {
                    match discard.skip(&stream[at..]) {
                        Ok(taken) => at += taken,
                        Err(refusal) => {
                            read.push(Err(refusal));
                            return read;
                        }
                    }
                    read.push(Ok(format!("{head:?}")));
                }
                Err(refusal) => {
                    read.push(Err(refusal));
                    return read;
                }
            }
        }
        read
    }

    /// Streams that are nearly requests: fragments of them in any order.
    fn nearly_requests() -> impl Strategy<Value = Vec<u8>> {
        let fragment = prop::sample::select(vec![
            "GET / HTTP/1.1\r\n",
            "HEAD /a%41?b HTTP/1.0\r\n",
            "Host: a\r\n",
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Connection: x, close\r\n",
            "X: y\r\n",
            "\r\n",
            "5\r\nhello\r\n",
            "0\r\n\r\n",
            "hello",
            " ",
            "\t",
            ":",
            "\r",
            "\n",
            "%",
            "\0",
        ]);
        let noise = prop::collection::vec(any::<u8>(), 0..4);
        prop::collection::vec(
            prop_oneof![9 => fragment.prop_map(|text| text.as_bytes().to_vec()), 1 => noise],
            0..30,
        )
        .prop_map(|fragments| fragments.concat())
    }

    proptest! {
        #[test]
        fn what_is_read_does_not_depend_on_how_it_arrives(
            stream in nearly_requests(),
            pieces in prop::collection::vec(1_usize..9, 1..9),
        ) {
            prop_assert_eq!(read(&stream, &pieces), read(&stream, &[usize::from(u16::MAX)]));
        }

        #[test]
        fn no_bytes_panic(stream in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&stream, &[7]);
            let _ = Head::parse(&Bytes::from(stream));
        }
    }
}

#[test]
fn connect_names_a_host_and_a_port_and_has_no_body() {
    let head = parse(
        "CONNECT k7:1233 HTTP/1.1\r\nHost: x\r\nIsle-Nonce: 000102030405060708090a0b0c0d0e0F\r\nIsle-Path: b, c\r\n\r\n",
    );
    let connect = head.unwrap().into_connect(Bytes::new(), "10.0.0.1:9".parse().unwrap(), Instant::now());
    assert_eq!(&*connect.target, "k7:1233");
    assert_eq!(connect.nonce.unwrap()[15], 15);
    assert_eq!(connect.islands, ["b", "c"]);
    assert!(connect.headers.is_empty());
    for fields in ["Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n"] {
        let head = parse(&format!("CONNECT k7:1233 HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
        assert_eq!(refusal(head), Some(Refusal::ContentLength));
    }
    for nonce in ["", "00", "0g0102030405060708090a0b0c0d0e0f", "000102030405060708090a0b0c0d0e0f00"] {
        let head = parse(&format!("CONNECT k7:1 HTTP/1.1\r\nHost: x\r\nIsle-Nonce: {nonce}\r\n\r\n"));
        assert_eq!(
            head.unwrap().into_connect(Bytes::new(), "10.0.0.1:9".parse().unwrap(), Instant::now()).nonce,
            None
        );
    }
}
