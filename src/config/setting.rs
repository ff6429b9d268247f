//! The one list of settings. A setting is a flag, a variable of the environment and a key of the file, all of
//! the same name; help, `isle config` and the errors draw from here.

/// What a setting is about; decides which commands take it as a flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Every node.
    Node,
    /// Nodes that hold figures.
    Pieces,
    /// Nodes that take clients' requests.
    Intermediary,
    /// Nodes that link islands.
    Bridge,
}

/// How many values a setting takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// One.
    One,
    /// Any number; a flag is repeated or separates them by commas, a file has an array.
    Many,
    /// On or off; a flag has no value, elsewhere it is `true` or `false`.
    Switch,
    /// 0 or more; a flag is repeated, elsewhere it is a number.
    Count,
}

/// What holds when nobody says anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unset {
    /// This value.
    Value(&'static str),
    /// What this says.
    Means(&'static str),
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// `--NAME`, `ISLE_NAME` (capitals, `_` for `-`), `NAME = …`.
    pub name: &'static str,
    /// `-v`, if there is one.
    pub short: Option<char>,
    /// What it is about.
    pub part: Part,
    /// How many values.
    pub form: Form,
    /// What a value is called in help.
    pub value: &'static str,
    /// What holds when it is not set.
    pub unset: Unset,
    /// One paragraph for `--help`: unit, range, what more and less of it costs.
    pub help: &'static str,
}

impl Setting {
    /// Its variable: `ISLE_MAX_IN_FLIGHT`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("ISLE_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }
}

const fn one(
    part: Part,
    name: &'static str,
    value: &'static str,
    unset: Unset,
    help: &'static str,
) -> Setting {
    Setting { name, short: None, part, form: Form::One, value, unset, help }
}

const fn many(
    part: Part,
    name: &'static str,
    value: &'static str,
    none: &'static str,
    help: &'static str,
) -> Setting {
    Setting { name, short: None, part, form: Form::Many, value, unset: Unset::Means(none), help }
}

use Part::{Bridge, Intermediary, Node, Pieces};
use Unset::{Means, Value};

/// All settings, in the order of help.
pub const SETTINGS: &[Setting] = &[
    many(
        Pieces,
        "figures",
        "PATH",
        "the 17 built-in figures",
        "Files and folders with figures (.json .toml .csv .ldr .mpd), followed as they change; 'builtin' adds the \
         built-in ones",
    ),
    many(Pieces, "only", "NAME", "all of them", "Serve only these of the figures found"),
    one(
        Pieces,
        "upstream",
        "URL",
        Means("none"),
        "Stand beside an HTTP server: pass GET /figures/NAME on to URL/figures/NAME, whatever it answers. Needs \
         --offers",
    ),
    many(Pieces, "offers", "NAME", "none", "The figures to announce for --upstream"),
    one(
        Intermediary,
        "max-in-flight",
        "N",
        // Guessed: two descriptors and some 50 kB each, so 50 MB when full.
        Value("1024"),
        "Requests served at once, 1 to 1000000. Beyond it peers are asked to help; more costs memory (about 50 kB \
         each) and longer waits, fewer hands over sooner",
    ),
    one(
        Intermediary,
        "request-timeout",
        "TIME",
        // Required by the contract.
        Value("10s"),
        "From a request's arrival to the head of its answer, 1ms to 1h, retries and waiting included",
    ),
    one(
        Intermediary,
        "wait",
        "TIME",
        // Required by the contract: a piece server that restarts is back sooner.
        Value("2s"),
        "Longest wait for a piece server to appear when nobody can serve a figure just now, 0s to 1h; 0s fails at \
         once",
    ),
    one(
        Intermediary,
        "shed",
        "HOW",
        Value("forward"),
        "What a full node does with a request: 'forward' it to a peer and its answer back, 'redirect' the client \
         there (307), or 'refuse' (503)",
    ),
    many(
        Bridge,
        "link",
        "KEY@HOST:PORT",
        "none",
        "Bridges of other islands to call, for ever; a name is looked up anew at each try. What 'isle key' prints there \
         is KEY; PORT is UDP. Or an invite, as 'isle invite' prints it there",
    ),
    many(Bridge, "allow", "KEY", "those of --link", "Bridges of other islands that may call this one"),
    one(
        Bridge,
        "quic",
        "IP:PORT",
        Means("all addresses, UDP port 5236"),
        "Where links are accepted and made from; only one side of a link needs to be reached from outside",
    ),
    one(
        Node,
        "name",
        "NAME",
        Means("this host's name"),
        "What people call this node: 1 to 63 bytes of visible characters. Need not be unique",
    ),
    one(
        Node,
        "listen",
        "IP:PORT",
        Means("all addresses, IPv6 and IPv4; TCP port 1233 for pieces, 5236 for a bridge, 5235 otherwise"),
        "Where HTTP is served; port 0 takes any free one",
    ),
    many(
        Node,
        "advertise",
        "IP",
        "the addresses of the interfaces",
        "Addresses to announce, where others reach this host by another address than its own",
    ),
    one(
        Node,
        "island",
        "NAME",
        Means("that of the nodes around, else 'local'"),
        "Name of the island: nodes of another given name on the same network are another island",
    ),
    one(Node, "mesh", "NAME", Value("isle"), "Name of the mesh; nodes of another mesh are not seen at all"),
    one(
        Node,
        "discovery-port",
        "PORT",
        Value("5235"),
        "UDP port of discovery, 1 to 65535, the same on all nodes; nodes of one host share it",
    ),
    many(
        Node,
        "interface",
        "NAME",
        "every one that is up, loopback included",
        "Network interfaces used for discovery; HTTP is not limited by it",
    ),
    many(
        Node,
        "seed",
        "HOST[:PORT]",
        "none",
        "Nodes to greet that broadcast does not reach; PORT is that of discovery",
    ),
    many(
        Node,
        "allow-host",
        "NAME",
        "IP addresses and local names",
        "Further names under which the pages that show the table may be asked for",
    ),
    one(
        Node,
        "state-dir",
        "DIR",
        Means("none: a fresh key each start; a bridge keeps its own in ~/.local/state/isle/bridge"),
        "Keep the key here, so that this node is the same one after a restart. Not to be shared by running nodes",
    ),
    one(
        Node,
        "drain-timeout",
        "TIME",
        // Required by the contract.
        Value("30s"),
        "On Ctrl+C or SIGTERM, the longest wait for requests in flight, 0s to 24h",
    ),
    one(Node, "log", "FORM", Value("text"), "Logs and the ready line as 'text' or 'json'"),
    Setting {
        name: "verbose",
        short: Some('v'),
        part: Node,
        form: Form::Count,
        value: "N",
        unset: Value("0"),
        help: "Log decisions too; twice: packets (debug builds only)",
    },
    Setting {
        name: "quiet",
        short: Some('q'),
        part: Node,
        form: Form::Switch,
        value: "BOOL",
        unset: Value("false"),
        help: "Log warnings and errors only",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_setting_has_a_name_of_its_own() {
        let names: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        assert_eq!(names.len(), SETTINGS.len());
        assert_eq!(Setting::named("max-in-flight").unwrap().variable(), "ISLE_MAX_IN_FLIGHT");
    }
}
