//! Hosts that know each other's hardware addresses from the start.
//!
//! The kernel keeps one table of neighbours for all namespaces (one for IPv4, one for IPv6), by default of at most 1,024
//! entries, and clears it out from 512 on. Forty hosts that speak to each other, or a crowd, and whatever else runs on the
//! machine, would fill it, and what is said then is lost, broadcasts too. Entries that were set by hand do not count.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::network::Host;

/// From so many hosts on one wire on they are told of each other: fewer resolve addresses as they would anywhere.
const MANY: usize = 20;
/// Where everybody is reached, and the hardware address that the kernel would use.
const ALL: [(&str, &str); 2] =
    [("255.255.255.255", "ff:ff:ff:ff:ff:ff"), ("239.255.52.35", "01:00:5e:7f:34:23")];

/// What others have to know of a host.
struct Known {
    hardware: String,
    addresses: Vec<String>,
    /// Where all of its networks are reached.
    broadcasts: Vec<String>,
}

/// Tells hosts of each other where there are so many that the kernel's table would not hold them.
pub(crate) fn acquaint_many(hosts: &[&Host]) -> Result<()> {
    if hosts.len() < MANY { Ok(()) } else { acquaint(hosts) }
}

/// Tells these hosts, each with one interface, of each other; once more when one has come.
pub(crate) fn acquaint(hosts: &[&Host]) -> Result<()> {
    let known = hosts.iter().map(|host| look(host)).collect::<Result<Vec<_>>>()?;
    for (number, host) in hosts.iter().enumerate() {
        let others = known.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, known)| known);
        let single =
            others.flat_map(|other| other.addresses.iter().map(|address| (address, &other.hardware)));
        let single = single.map(|(address, hardware)| (address.as_str(), hardware.as_str()));
        let own = known[number].broadcasts.iter().map(|address| (address.as_str(), ALL[0].1));
        let mut batch = String::new();
        for (address, hardware) in single.chain(own).chain(ALL) {
            writeln!(batch, "neighbour replace {address} lladdr {hardware} dev eth0 nud permanent")?;
        }
        ip(host, &["-batch", "-"], &batch)?;
    }
    Ok(())
}

fn look(host: &Host) -> Result<Known> {
    let shown: Value = serde_json::from_str(&ip(host, &["-json", "address", "show", "dev", "eth0"], "")?)?;
    let hardware = shown[0]["address"].as_str().context("an interface without hardware address")?.to_owned();
    let all = shown[0]["addr_info"].as_array().context("an interface without addresses")?;
    let field = |name: &str| -> Vec<String> {
        all.iter().filter_map(|address| Some(address[name].as_str()?.to_owned())).collect()
    };
    Ok(Known { hardware, addresses: field("local"), broadcasts: field("broadcast") })
}

fn ip(host: &Host, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = host.enter(|| command.spawn())?.context("running ip")?;
    child.stdin.take().context("its input was asked for")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "ip: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}
