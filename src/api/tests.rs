use std::time::Duration;

use http_body_util::BodyExt;
use isle_mesh::event::{EventKind, Subject};
use isle_mesh::member::{MemberId, Standing};
use isle_mesh::metrics::Counts;
use isle_mesh::shared::{TableWriter, table};

use super::members::tests::member;
use super::*;

struct Fake {
    me: Arc<Member>,
    table: SharedTable,
    complete: bool,
}

impl Source for Fake {
    fn me(&self) -> Arc<Member> {
        self.me.clone()
    }
    fn table(&self) -> &SharedTable {
        &self.table
    }
    fn is_complete(&self) -> bool {
        self.complete
    }
    fn may_ask(&self, asker: IpAddr) -> bool {
        asker.is_loopback()
    }
    fn counts(&self) -> Counts {
        Counts::default()
    }
    fn records(&self) -> BoxFuture<'_, Bytes> {
        Box::pin(async { Bytes::from_static(b"records") })
    }
    fn proof(&self, nonce: &[u8; 16], dialled: SocketAddr) -> Vec<u8> {
        format!("{nonce:?} {dialled}").into_bytes()
    }
}

struct Rig {
    api: Api,
    writer: TableWriter,
    connections: Connections,
}

fn rig(complete: bool) -> Rig {
    let (writer, table) = table();
    let me = member(9, "hub", Standing::Alive);
    writer.put(me.clone());
    let connections = Connections::new();
    let source = Arc::new(Fake { me, table, complete });
    let api = Api::new(source, connections.clone(), crate::telemetry::metrics());
    Rig { api, writer, connections }
}

fn request(target: &str) -> Gated {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let here = SocketAddr::from(([127, 0, 0, 1], 5235));
    Gated {
        method: Method::GET,
        path: path.into(),
        query: query.map(Into::into),
        headers: http::HeaderMap::new(),
        host: "localhost".into(),
        peer: here,
        dialled: here,
        arrived: Instant::now(),
        hops: 0,
        deadline: None,
    }
}

async fn ask(api: &Api, request: Gated) -> (u16, String, String) {
    let answer = api.answer(&request).await.expect("one of the API's paths");
    let content_type = answer.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, content_type, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(api: &Api, target: &str) -> (u16, serde_json::Value) {
    let (status, _, body) = ask(api, request(target)).await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn other_paths_are_left_to_others() {
    let rig = rig(true);
    for other in ["/", "/figures", "/members/", "/mesh", "/mesh/", "/mesh/records/x", "/events/1", "/Members"]
    {
        assert!(rig.api.answer(&request(other)).await.is_none(), "{other}");
    }
}

#[tokio::test]
async fn the_table_and_each_of_its_members_are_shown() {
    let rig = rig(true);
    let p1 = member(1, "p1", Standing::Alive);
    rig.writer.put(p1.clone());
    let (status, page) = get(&rig.api, "/members").await;
    assert_eq!((status, page["members"].as_array().unwrap().len()), (200, 2));
    for word in ["p1", &p1.id.to_string(), &p1.id.to_string()[..8]] {
        let (status, shown) = get(&rig.api, &format!("/members/{word}")).await;
        assert_eq!((status, &shown), (200, &page["members"][1]), "{word}");
    }
    let (status, problem) = get(&rig.api, "/members/nobody").await;
    assert_eq!((status, problem["reason"].as_str()), (404, Some("no-such-member")));
    assert_eq!(get(&rig.api, "/links").await, (200, serde_json::json!({"links": []})));
}

#[tokio::test]
async fn a_large_table_is_rendered_once_for_all_and_changes_show_at_once() {
    let rig = rig(true);
    for byte in 10..100 {
        rig.writer.put(member(byte, "p", Standing::Alive));
    }
    let first = rig.api.members().await;
    assert_eq!(rig.api.members().await.at, first.at, "the same page");
    let left = member(10, "p", Standing::Left);
    rig.writer.put(left.clone());
    rig.api.tell(&Event { number: 1, kind: EventKind::Left, subject: Subject::Member(left) });
    let second = rig.api.members().await;
    assert!(second.at > first.at && second.version == 1);
}

#[tokio::test]
async fn events_begin_with_a_snapshot_and_resume_after_an_id() {
    let rig = rig(true);
    let p1 = member(1, "p1", Standing::Alive);
    rig.writer.put(p1.clone());
    let answer = rig.api.answer(&request("/events")).await.unwrap();
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut body = answer.into_body();
    rig.api.tell(&Event { number: 1, kind: EventKind::Joined, subject: Subject::Member(p1.clone()) });
    let mut next = async || {
        let frame =
            tokio::time::timeout(Duration::from_secs(5), body.frame()).await.unwrap().unwrap().unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    };
    let snapshot = next().await;
    assert!(snapshot.contains("event: snapshot\ndata: {\"self\":"), "{snapshot}");
    let joined = next().await;
    assert!(joined.contains("event: joined\ndata: {\"member\":{\"id\":"), "{joined}");
    let id = joined.lines().next().unwrap().strip_prefix("id: ").unwrap().to_owned();
    drop(body);
    rig.api.tell(&Event { number: 2, kind: EventKind::Left, subject: Subject::Member(p1) });
    let mut again = request("/events");
    again.headers.insert("last-event-id", id.parse().unwrap());
    let mut body = rig.api.answer(&again).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(std::str::from_utf8(&frame).unwrap().contains("event: left"), "no snapshot, and nothing missed");
}

#[tokio::test]
async fn event_streams_are_bounded_per_address_and_refused_while_leaving() {
    let rig = rig(true);
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(rig.api.answer(&request("/events")).await.unwrap());
    }
    assert_eq!(rig.api.answer(&request("/events")).await.unwrap().status(), 503);
    let mut head = request("/events");
    head.method = Method::HEAD;
    assert_eq!(rig.api.answer(&head).await.unwrap().status(), 200, "it takes no place");
    open.pop();
    assert_eq!(rig.api.answer(&request("/events")).await.unwrap().status(), 200);
    rig.connections.start_closing();
    let (status, problem) = get(&rig.api, "/events").await;
    assert_eq!((status, problem["reason"].as_str()), (503, Some("draining")));
}

#[tokio::test]
async fn readiness_follows_the_table_and_leaving() {
    let fetching = rig(false);
    let (status, view) = get(&fetching.api, "/readyz").await;
    assert_eq!((status, view["checks"][0]["reason"].as_str()), (503, Some("fetching-table")));
    let rig = rig(true);
    assert_eq!(get(&rig.api, "/readyz").await, (200, serde_json::json!({"ready": true})));
    assert_eq!(get(&rig.api, "/readyz?verbose").await.1["checks"].as_array().unwrap().len(), 2);
    rig.connections.start_closing();
    assert_eq!(get(&rig.api, "/readyz").await.0, 503);
    assert_eq!(ask(&rig.api, request("/healthz")).await.0, 200, "alive all the same");
}

#[tokio::test]
async fn records_and_proofs_are_for_nodes_of_this_network() {
    let rig = rig(true);
    assert_eq!(ask(&rig.api, request("/mesh/records")).await.2, "records");
    let nonce = "/mesh/proof?nonce=000102030405060708090A0b0c0d0e0f";
    let (status, _, proof) = ask(&rig.api, request(nonce)).await;
    assert_eq!(
        (status, &*proof),
        (200, "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] 127.0.0.1:5235")
    );
    for bad in ["", "?nonce=", "?nonce=00", "?nonce=zz0102030405060708090a0b0c0d0e0f"] {
        assert_eq!(ask(&rig.api, request(&format!("/mesh/proof{bad}"))).await.0, 400, "{bad}");
    }
    for path in ["/mesh/records", nonce] {
        let mut stranger = request(path);
        stranger.peer = SocketAddr::from(([192, 0, 2, 1], 1));
        assert_eq!(ask(&rig.api, stranger).await.0, 403, "{path}");
    }
}

#[tokio::test]
async fn metrics_count_members_by_standing_and_never_name_them() {
    let rig = rig(true);
    rig.writer.put(member(1, "secret-name", Standing::Left));
    let (status, content_type, text) = ask(&rig.api, request("/metrics")).await;
    assert_eq!((status, &*content_type), (200, METRICS));
    for line in [
        "isle_mesh_members{standing=\"left\"} 1",
        "isle_mesh_members{standing=\"alive\"} 1",
        "isle_mesh_members_by_role{role=\"pieces\"} 1",
        "isle_ready 1",
        "isle_mesh_datagrams_refused_total{reason=\"signature\"} 0",
        "# TYPE isle_mesh_member_transitions_total counter",
        "isle_mesh_member_transitions_total{to=\"duplicate-key\"} 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(text.contains("process_open_fds "), "{text}");
    assert!(!text.contains("secret-name") && !text.contains(&MemberId([1; 32]).to_string()));
}
