//! Hosts that know each other's hardware addresses from the start.
//!
//! The kernel keeps one table of IPv4 neighbours for all namespaces, by default of at most 1,024 entries. A crowd's
//! addresses, once for each host that speaks to them, and whatever else runs on the machine, would fill it, and what is
//! said then is lost, broadcasts too. Entries that were set by hand do not count.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::network::Host;

/// Where everybody of 10.77.0.0/16 is reached, and the hardware address that the kernel would use.
const ALL: [(&str, &str); 3] = [
    ("10.77.255.255", "ff:ff:ff:ff:ff:ff"),
    ("255.255.255.255", "ff:ff:ff:ff:ff:ff"),
    ("239.255.52.35", "01:00:5e:7f:34:23"),
];

/// Tells these hosts, each with one interface, of each other; once more when one has come.
pub(crate) fn acquaint(hosts: &[&Host]) -> Result<()> {
    let known = hosts.iter().map(|host| addresses(host)).collect::<Result<Vec<_>>>()?;
    for (number, host) in hosts.iter().enumerate() {
        let mut batch = String::new();
        let others = known.iter().enumerate().filter(|(other, _)| *other != number);
        let others = others.flat_map(|(_, (hardware, of))| of.iter().map(move |address| (address, hardware)));
        for (address, hardware) in others {
            writeln!(batch, "neighbour replace {address} lladdr {hardware} dev eth0 nud permanent")?;
        }
        for (address, hardware) in ALL {
            writeln!(batch, "neighbour replace {address} lladdr {hardware} dev eth0 nud permanent")?;
        }
        ip(host, &["-batch", "-"], &batch)?;
    }
    Ok(())
}

/// Its hardware address and what it is called by.
fn addresses(host: &Host) -> Result<(String, Vec<String>)> {
    let shown: Value = serde_json::from_str(&ip(host, &["-json", "address", "show", "dev", "eth0"], "")?)?;
    let hardware = shown[0]["address"].as_str().context("an interface without hardware address")?;
    let all = shown[0]["addr_info"].as_array().context("an interface without addresses")?;
    let fours = all.iter().filter(|address| address["family"] == "inet");
    let fours = fours.filter_map(|address| Some(address["local"].as_str()?.to_owned()));
    Ok((hardware.to_owned(), fours.collect()))
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
