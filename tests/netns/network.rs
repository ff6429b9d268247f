//! Wires and hosts on one machine: a host is a network namespace, a wire is a Linux bridge in a namespace of its own.
//!
//! Broadcast, multicast, neighbour discovery and connection refusals are the kernel's own. Loss and cuts are rules
//! in the wire's bridge, so neither end notices anything but silence. Knows nothing of nodes and HTTP.
//! There is no delay: the kernels that this must run on have no netem.
//!
//! Names carry the process id of this test, so that runs beside each other do not meet, and so that the next
//! run can clear away what a killed one left ([`sweep`]).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";
/// The bridge inside a wire's namespace.
const BRIDGE: &str = "br0";

/// Makes names unique within this process.
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A named network namespace that is gone when this is dropped, with every process still in it.
#[derive(Debug)]
struct Namespace {
    name: String,
    handle: File,
}

impl Namespace {
    fn new() -> Result<Self> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("isle-{}-{number}", std::process::id());
        ip(&["netns", "add", &name])?;
        let handle = File::open(format!("{NAMES}/{name}")).context("the namespace just made")?;
        let namespace = Self { name, handle };
        // Without duplicate address detection an address can be used the moment it is there.
        namespace.enter(|| {
            for scope in ["all", "default"] {
                // A kernel without IPv6 has no such file, and then nothing to detect either.
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0");
            }
        })?;
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets made there stay there, and so do processes.
    fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("entering {}", self.name))?;
                Ok(work())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name], arguments].concat())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// A broadcast domain.
#[derive(Clone, Debug)]
pub(crate) struct Wire(Arc<WireInner>);

#[derive(Debug)]
struct WireInner {
    namespace: Namespace,
    /// Rules in force, each under a name so that it can be lifted.
    rules: Mutex<BTreeMap<String, String>>,
}

impl Wire {
    /// A wire with nobody on it.
    pub(crate) fn new() -> Result<Self> {
        let namespace = Namespace::new()?;
        namespace.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        namespace.ip(&["link", "set", BRIDGE, "up"])?;
        Ok(Self(Arc::new(WireInner { namespace, rules: Mutex::default() })))
    }

    /// A new host on this wire with one interface, `eth0`.
    pub(crate) fn host(&self, label: &str, address: &str) -> Result<Host> {
        let host = Host::new(label)?;
        host.plug(self, &[address])?;
        Ok(host)
    }

    /// Loses this share of all IP packets, each hop of a broadcast on its own dice; 0 ends it.
    pub(crate) fn lose(&self, per_mille: u32) -> Result<()> {
        let rule = format!("ether type {{ ip, ip6 }} numgen random mod 1000 < {per_mille} drop");
        self.rule("loss", (per_mille > 0).then_some(rule))
    }

    /// Nothing goes from one host to the other any more (but it does the other way), or again.
    pub(crate) fn cut_one_way(&self, from: &Host, to: &Host, cut: bool) -> Result<()> {
        let (from, to) = (from.port_on(self)?, to.port_on(self)?);
        self.rule(
            &format!("cut {from} {to}"),
            cut.then(|| format!("iifname \"{from}\" oifname \"{to}\" drop")),
        )
    }

    /// Nothing comes from or reaches this host any more, as if its cable were pulled; or again.
    pub(crate) fn cut_off(&self, host: &Host, cut: bool) -> Result<()> {
        let port = host.port_on(self)?;
        self.rule(&format!("off in {port}"), cut.then(|| format!("iifname \"{port}\" drop")))?;
        self.rule(&format!("off out {port}"), cut.then(|| format!("oifname \"{port}\" drop")))
    }

    /// Nobody hears what this host says to all; what it says to one arrives. Or again.
    pub(crate) fn drop_said_to_all(&self, host: &Host, on: bool) -> Result<()> {
        let port = host.port_on(self)?;
        let rule = format!("iifname \"{port}\" meta pkttype {{ broadcast, multicast }} udp dport 5235 drop");
        self.rule(&format!("mute {port}"), on.then_some(rule))
    }

    /// Drops what these words of nft match, under a name of its own, or no more.
    pub(crate) fn drop_matching(&self, matching: &str, on: bool) -> Result<()> {
        self.rule(matching, on.then(|| format!("{matching} drop")))
    }

    fn rule(&self, name: &str, rule: Option<String>) -> Result<()> {
        let mut rules = self.0.rules.lock().expect("nothing panics while holding it");
        match rule {
            Some(rule) => rules.insert(name.to_owned(), rule),
            None => rules.remove(name),
        };
        let lines: Vec<&str> = rules.values().map(String::as_str).collect();
        // Naming the table first lets `delete` succeed the first time, too; all of it is one transaction.
        let script = format!(
            "table bridge rig\ndelete table bridge rig\ntable bridge rig {{ chain forward {{ \
             type filter hook forward priority 0; policy accept;\n{}\n}}\n}}\n",
            lines.join("\n")
        );
        self.0.namespace.enter(|| run_with_input("nft", &["-f", "-"], &script))?
    }
}

/// A host: interfaces, addresses, sockets and processes of its own.
#[derive(Clone, Debug)]
pub(crate) struct Host(Arc<HostInner>);

#[derive(Debug)]
struct HostInner {
    label: String,
    namespace: Namespace,
    ports: Mutex<Vec<Port>>,
}

/// One interface of a host and the other end of its cable.
#[derive(Debug)]
struct Port {
    interface: String,
    far_end: String,
    wire: String,
}

impl Host {
    /// A host with nothing but loopback. `label` is the node name used by [`crate::node::Node`].
    pub(crate) fn new(label: &str) -> Result<Self> {
        let namespace = Namespace::new()?;
        Ok(Self(Arc::new(HostInner { label: label.to_owned(), namespace, ports: Mutex::default() })))
    }

    /// Its label.
    pub(crate) fn label(&self) -> &str {
        &self.0.label
    }

    /// Plugs another interface (`eth0`, `eth1`, ...) into a wire; addresses as `10.77.0.2/24` or `fd77::2/64`.
    pub(crate) fn plug(&self, wire: &Wire, addresses: &[&str]) -> Result<String> {
        let mut ports = self.0.ports.lock().expect("nothing panics while holding it");
        let interface = format!("eth{}", ports.len());
        let far_end = format!("v{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let inner = &self.0.namespace;
        let outer = &wire.0.namespace;
        inner.ip(&[
            "link",
            "add",
            &interface,
            "type",
            "veth",
            "peer",
            "name",
            &far_end,
            "netns",
            &outer.name,
        ])?;
        outer.ip(&["link", "set", &far_end, "master", BRIDGE, "up"])?;
        for address in addresses {
            let rest: &[&str] = if address.contains(':') { &["nodad"] } else { &["broadcast", "+"] };
            inner.ip(&[&["address", "add", address, "dev", &interface], rest].concat())?;
        }
        inner.ip(&["link", "set", &interface, "up"])?;
        ports.push(Port { interface: interface.clone(), far_end, wire: outer.name.clone() });
        Ok(interface)
    }

    /// Adds or removes an address of an interface while everything runs.
    pub(crate) fn address(&self, verb: &str, address: &str, interface: &str) -> Result<()> {
        self.0.namespace.ip(&["address", verb, address, "dev", interface])
    }

    /// Runs `work` inside this host: sockets opened and processes started there belong to it.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.0.namespace.enter(work)
    }

    /// The far end of this host's cable on that wire.
    fn port_on(&self, wire: &Wire) -> Result<String> {
        let ports = self.0.ports.lock().expect("nothing panics while holding it");
        let found = ports.iter().find(|port| port.wire == wire.0.namespace.name);
        match found {
            Some(port) => Ok(port.far_end.clone()),
            None => bail!("{} is not on that wire: {ports:?}", self.0.label),
        }
    }

    /// Names of its interfaces besides loopback.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let ports = self.0.ports.lock().expect("nothing panics while holding it");
        ports.iter().map(|port| port.interface.clone()).collect()
    }
}

/// Why wires and hosts cannot be made here, if they cannot.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root to make network namespaces".to_owned());
    }
    for (tool, package) in [("ip", "iproute2"), ("nft", "nftables")] {
        let works = Command::new(tool).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !works.is_ok_and(|status| status.success()) {
            return Some(format!("needs `{tool}` (Debian package {package})"));
        }
    }
    let trial = Wire::new().and_then(|wire| {
        let host = wire.host("trial", "10.77.0.2/24")?;
        wire.lose(1)?;
        host.enter(|| ())
    });
    trial.err().map(|error| format!("cannot make network namespaces: {error:#}"))
}

/// Removes what an earlier run that was killed has left: namespaces named after a process that is no more.
pub(crate) fn sweep() {
    for (name, process) in names() {
        if !fs::exists(format!("/proc/{process}")).unwrap_or(true) {
            remove(&name);
        }
    }
}

/// Removes everything of this very process, for an end in a hurry.
pub(crate) fn sweep_own() {
    for (name, process) in names() {
        if process == std::process::id() {
            remove(&name);
        }
    }
}

/// Names of the namespaces that still belong to this process.
pub(crate) fn own_names() -> Vec<String> {
    names().into_iter().filter(|(_, process)| *process == std::process::id()).map(|(name, _)| name).collect()
}

/// All namespaces that any run of these tests made, with the process that did.
fn names() -> Vec<(String, u32)> {
    let Ok(entries) = fs::read_dir(NAMES) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter_map(|name| {
            let process = name.strip_prefix("isle-")?.split_once('-')?.0.parse().ok()?;
            Some((name, process))
        })
        .collect()
}

/// Ends whatever still runs in a namespace of ours and forgets its name.
fn remove(name: &str) {
    if let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() {
        let listed = String::from_utf8_lossy(&output.stdout);
        for process in listed.lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?)) {
            // A thread of ours that is inside would name ourselves.
            if process != rustix::process::getpid() {
                let _ = kill_process(process, Signal::KILL);
            }
        }
    }
    let _ = ip(&["netns", "delete", name]);
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("running ip")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), complaint.trim());
    Ok(())
}

fn run_with_input(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("running {program}"))?;
    let mut stdin = child.stdin.take().context("its standard input was asked for")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}\n{input}", complaint.trim());
    Ok(())
}
