//! The rig itself: without these, the other scenarios prove nothing.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Claim;
use crate::load::{Check, Load, Plan};
use crate::network::{self, Host, Wire};
use crate::node::eventually;
use crate::runner::Run;
use crate::service::Service;
use crate::tap::{DISCOVERY, Tap, speaker};

pub(super) const SCENARIOS: &[Claim] = &[
    ("rig::a_broadcast_reaches_every_host_of_its_wire_and_no_other", broadcast),
    ("rig::a_wire_loses_what_it_is_told_to_lose", loss),
    ("rig::a_cut_may_go_one_way", cut),
    ("rig::clients_notice_what_goes_wrong", clients),
    ("rig::nothing_is_left_of_a_dropped_network", cleanup),
];

/// Long enough for a datagram between two namespaces on a busy machine.
const SOON: Duration = Duration::from_secs(5);

fn broadcast(_: &Run) -> Result<()> {
    let (wire, other) = (Wire::new()?, Wire::new()?);
    let speaking = wire.host("a", "10.77.0.2/28")?;
    let hearing = Tap::open(&wire.host("b", "10.77.0.3/28")?)?;
    let elsewhere = Tap::open(&other.host("c", "10.77.0.4/28")?)?;
    let socket = speaker(&speaking, Ipv4Addr::new(10, 77, 0, 2))?;
    socket.send_to(b"directed", (Ipv4Addr::new(10, 77, 0, 15), DISCOVERY))?;
    hearing.wait("the directed broadcast", SOON, |heard| heard.bytes == b"directed")?;
    // 10.77.0.255 is no broadcast of a /28, and without a router it is nowhere.
    ensure!(
        socket.send_to(b"wrong", (Ipv4Addr::new(10, 77, 0, 255), DISCOVERY)).is_err(),
        "a /28 reached .255"
    );
    ensure!(elsewhere.all().is_empty(), "the other wire heard it, too");
    Ok(())
}

fn loss(run: &Run) -> Result<()> {
    let wire = Wire::new()?;
    let (a, b) = (wire.host("a", "10.77.0.2/24")?, wire.host("b", "10.77.0.3/24")?);
    wire.lose(200)?;
    let arrived = count_arrivals(&a, &b, 2000)?;
    run.measures.note(format!("{arrived} of 2000 datagrams passed a wire that loses 20 %"));
    // 1600 expected, deviation 18: a span of more than 8 deviations to both sides.
    ensure!((1450..=1750).contains(&arrived), "{arrived} of 2000 arrived through 20 % loss");
    wire.lose(0)?;
    let arrived = count_arrivals(&a, &b, 500)?;
    ensure!(arrived == 500, "{arrived} of 500 arrived after the loss had ended");
    Ok(())
}

fn cut(_: &Run) -> Result<()> {
    let wire = Wire::new()?;
    let (a, b) = (wire.host("a", "10.77.0.2/24")?, wire.host("b", "10.77.0.3/24")?);
    // Both know the other's hardware address before the cut, as hosts that have spoken do.
    ensure!(count_arrivals(&a, &b, 1)? == 1 && count_arrivals(&b, &a, 1)? == 1, "no way even without cut");
    wire.cut_one_way(&a, &b, true)?;
    ensure!(count_arrivals(&a, &b, 10)? == 0, "datagrams crossed the cut");
    ensure!(count_arrivals(&b, &a, 10)? == 10, "the cut was not one way");
    wire.cut_one_way(&a, &b, false)?;
    ensure!(count_arrivals(&a, &b, 10)? == 10, "the cut did not heal");
    wire.cut_off(&b, true)?;
    ensure!(count_arrivals(&a, &b, 10)? == 0, "datagrams reached a host that is cut off");
    Ok(())
}

fn clients(_: &Run) -> Result<()> {
    let host = Host::new("a")?;
    let service = Service::start(&host, Duration::ZERO)?;
    let at: SocketAddr = service.url().trim_start_matches("http://").parse()?;
    let check: Check = |path, answer| {
        let right = path == "/right" && answer.status == 200 && answer.body == b"slow but sure\n";
        if right { Ok(()) } else { Err("wrong".to_owned()) }
    };
    // Nobody listens at the first target; both clients end up at the second, and one answer in four is judged wrong.
    let paths = ["/right", "/right", "/right", "/wrong"].map(str::to_owned).to_vec();
    let targets = vec![SocketAddr::new(at.ip(), 1), at];
    let load = Load::start(&host, &Plan { targets, paths, per_second: 200, clients: 2, check });
    eventually("40 requests", SOON, || Ok(service.served() >= 40))?;
    let outcome = load.stop();
    let wrong = outcome.failures.len() as u64;
    ensure!(outcome.count(200) as u64 == outcome.right, "{:?}", outcome.latencies.keys());
    ensure!(wrong * 5 > outcome.right && wrong < outcome.right, "{wrong} wrong of {}", outcome.sent());
    ensure!(outcome.refused >= 1, "nobody met the refused target");
    ensure!(outcome.demand_flawless(Instant::now()).is_err(), "failures were forgiven");
    Ok(())
}

fn cleanup(_: &Run) -> Result<()> {
    let before = network::own_names().len();
    let wire = Wire::new()?;
    let host = wire.host("a", "10.77.0.2/24")?;
    let mut sleeper = host.enter(|| std::process::Command::new("sleep").arg("600").spawn())??;
    ensure!(network::own_names().len() == before + 2, "a wire and a host are two namespaces");
    drop((wire, host));
    ensure!(network::own_names().len() == before, "left: {:?}", network::own_names());
    ensure!(!sleeper.wait()?.success(), "a process outlived its host");
    Ok(())
}

/// Sends so many datagrams from the first address of one host to that of the other, and counts those that arrive
/// before a last one that is repeated until it does.
fn count_arrivals(from: &Host, to: &Host, count: usize) -> Result<usize> {
    let address = |host: &Host| {
        if host.label() == "a" { Ipv4Addr::new(10, 77, 0, 2) } else { Ipv4Addr::new(10, 77, 0, 3) }
    };
    let receiver = to.enter(|| UdpSocket::bind((address(to), 0)))??;
    let sender = from.enter(|| UdpSocket::bind((address(from), 0)))??;
    let mut buffer = [0; 16];
    let mut arrived = 0;
    for _ in 0..count {
        // One at a time: no receive buffer is ever full, so only the wire can lose it.
        sender.send_to(b"x", receiver.local_addr()?)?;
        receiver.set_nonblocking(true)?;
        arrived += usize::from(receiver.recv(&mut buffer).is_ok());
        receiver.set_nonblocking(false)?;
    }
    // A veth hands over in softirq: what has not come after this pause never will.
    receiver.set_read_timeout(Some(Duration::from_millis(50)))?;
    while receiver.recv(&mut buffer).is_ok() {
        arrived += 1;
    }
    Ok(arrived)
}
