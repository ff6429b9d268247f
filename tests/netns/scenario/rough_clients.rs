//! Clients that are slow, many, huge or wrong get what they deserve, and the others do not notice.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Claim;
use crate::client::{self, Answer, Connection};
use crate::figures;
use crate::island::Island;
use crate::load::{Load, Outcome, Plan};
use crate::measure::{percentile, spread};
use crate::runner::Run;

pub(super) const SCENARIOS: &[Claim] = &[
    ("rough_clients::wrong_requests_get_the_right_status", wrong_requests),
    ("rough_clients::slow_and_idle_clients_do_not_slow_the_others", slow_and_idle),
];

/// A slow client sends its head at one byte per this.
const ONE_BYTE_PER: Duration = Duration::from_secs(1);
/// Until a head is complete; the documents promise less than this.
const HEAD_WITHIN: Duration = Duration::from_secs(40);

fn wrong_requests(run: &Run) -> Result<()> {
    let island = Island::start(run, &[("hub", &["intermediary"]), ("p1", &["pieces"])])?;
    let hub = island.node("hub")?.http();
    let huge = "x".repeat(1 << 20);
    let long_target = format!("GET /figures/{} HTTP/1.1\r\nHost: hub\r\n\r\n", "a".repeat(9000));
    let huge_header = format!("GET /figures/giraffe HTTP/1.1\r\nHost: hub\r\nX-Huge: {huge}\r\n\r\n");
    let cases: [(&str, &[u16]); 16] = [
        ("GET /figures/giraffe HTTP/1.1\r\nHost: hub\r\n\r\n", &[200]),
        ("GET /figures/giraffe HTTP/1.0\r\nHost: hub\r\n\r\n", &[200]),
        ("GET /figures/%67iraffe HTTP/1.1\r\nHost: hub\r\n\r\n", &[200]),
        ("HEAD /figures/giraffe HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n", &[200]),
        ("GET /figures/../members HTTP/1.1\r\nHost: hub\r\n\r\n", &[400, 404]),
        ("GET /figures/%2e%2e%2fmembers HTTP/1.1\r\nHost: hub\r\n\r\n", &[400, 404]),
        ("GET /figures/%00 HTTP/1.1\r\nHost: hub\r\n\r\n", &[400, 404]),
        ("GET /figures/%zz HTTP/1.1\r\nHost: hub\r\n\r\n", &[400]),
        ("GET /figures/giraffe HTTP/1.1\r\n\r\n", &[400]),
        ("GET /figures/giraffe HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", &[400]),
        ("BREW /figures/giraffe HTTP/1.1\r\nHost: hub\r\n\r\n", &[501]),
        ("DELETE /figures/giraffe HTTP/1.1\r\nHost: hub\r\n\r\n", &[405]),
        (
            "POST /figures/giraffe HTTP/1.1\r\nHost: hub\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            &[400],
        ),
        ("nonsense\r\n\r\n", &[400]),
        (&long_target, &[414]),
        (&huge_header, &[431]),
    ];
    for (request, expected) in cases {
        let shown = &request[..request.len().min(70)];
        let mut connection = Connection::open(&island.client, hub)?;
        // The answer to something too large may come before all of it is sent.
        let _ = connection.send(request.as_bytes());
        let answer =
            if request.starts_with("HEAD") { head_only(&mut connection) } else { connection.read_answer() };
        let answer = answer.map_err(|error| anyhow::anyhow!("{shown:?}: no answer: {error}"))?;
        ensure!(expected.contains(&answer.status), "{shown:?}: {} instead of {expected:?}", answer.status);
    }
    let answer = client::get(&island.client, hub, "/figures/giraffe")?;
    figures::check("/figures/giraffe", &answer).map_err(anyhow::Error::msg)
}

fn slow_and_idle(run: &Run) -> Result<()> {
    let island = Island::start(run, &[("hub", &["intermediary"]), ("p1", &["pieces"]), ("p2", &["pieces"])])?;
    let hub = island.node("hub")?.http();
    let alone = percentiles(&quick(&island, run)?);
    let count = run.count(1000, 10_000);
    let mut idle = Vec::with_capacity(count);
    let opening = Instant::now();
    for number in 0..count {
        let opened = Connection::open(&island.client, hub);
        idle.push(opened.map_err(|error| anyhow::anyhow!("idle connection {number}: {error}"))?);
    }
    run.measures.note(format!("{count} idle connections opened in {:.2} s", opening.elapsed().as_secs_f64()));
    let dripping: Vec<_> = (0..20)
        .map(|_| {
            let mut connection = Connection::open(&island.client, hub)?;
            anyhow::Ok(thread::spawn(move || drip(&mut connection)))
        })
        .collect::<Result<_>>()?;
    let among = percentiles(&quick(&island, run)?);
    let memory = island.node("hub")?.memory_kib()?;
    run.measures.note(format!("the intermediary holds {memory} KiB with {count} idle connections"));
    run.measures.note(format!(
        "requests alone: p50 {:?}, p99 {:?}; among {count} idle and 20 slow clients: p50 {:?}, p99 {:?}",
        alone.0, alone.1, among.0, among.1
    ));
    let bound = alone.1 * 3 + run.bound(Duration::from_millis(100), Duration::from_millis(5));
    ensure!(among.1 <= bound, "p99 is {:?} instead of {:?}", among.1, alone.1);
    for dripper in dripping {
        let (after, answer) = dripper.join().expect("drippers report");
        run.measures.add("one byte per second: ended after", after);
        let status = answer.map(|answer| answer.status);
        ensure!(after < HEAD_WITHIN, "still open after {after:?}");
        ensure!(status.is_none_or(|status| status == 408), "a slow head was answered with {status:?}");
    }
    Ok(())
}

/// A load of ordinary clients.
fn quick(island: &Island, run: &Run) -> Result<Outcome> {
    let plan = Plan {
        targets: vec![island.node("hub")?.http()],
        paths: figures::paths(),
        per_second: 200,
        clients: 16,
        check: figures::check,
    };
    let began = Instant::now();
    let load = Load::start(&island.client, &plan);
    thread::sleep(Duration::from_secs(run.count(3, 20) as u64));
    let outcome = load.stop();
    outcome.demand_flawless(began)?;
    let took: Vec<Duration> = outcome.latencies.values().flatten().copied().collect();
    run.measures.note(format!("ordinary clients: {}", spread(&took)));
    Ok(outcome)
}

fn percentiles(outcome: &Outcome) -> (Duration, Duration) {
    let took: Vec<Duration> = outcome.latencies.values().flatten().copied().collect();
    (percentile(&took, 50), percentile(&took, 99))
}

/// Sends a head at one byte per second until the other side has had enough; what it says then, if anything.
fn drip(connection: &mut Connection) -> (Duration, Option<Answer>) {
    let began = Instant::now();
    let head = format!("GET /figures/giraffe HTTP/1.1\r\nHost: hub\r\nX-Slow: {}", "x".repeat(100));
    let _ = connection.set_patience(ONE_BYTE_PER);
    for byte in head.bytes() {
        if connection.send(&[byte]).is_err() {
            break;
        }
        match connection.read_answer() {
            Ok(answer) => return (began.elapsed(), Some(answer)),
            Err(error) if is_timeout(&error) && began.elapsed() < HEAD_WITHIN => (),
            Err(_) => break,
        }
    }
    (began.elapsed(), None)
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// An answer to HEAD: its length is that of a body that does not come.
fn head_only(connection: &mut Connection) -> std::io::Result<Answer> {
    let status_line = connection.line()?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    while !connection.line()?.is_empty() {}
    Ok(Answer { status, headers: Vec::new(), body: Vec::new(), took: Duration::ZERO })
}
