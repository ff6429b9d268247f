//! The command line: commands and what they take. What they do is in the modules beside.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::cli::flags::{CLIENTS, Flags, LINKS, PIECES};
use crate::config::value::{self, Wanted};

/// What `isle` alone says.
pub const FIRST_STEPS: &str = "\
isle demo --tour     see it all on this machine, in half a minute
isle up              join the nodes of this network, or be the first
isle members         who is there
isle get giraffe     ask for a figure
isle help            all commands
";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "isle",
    version,
    about = "A zero-config mesh: servers on a network find each other and answer for one another",
    before_help = "Examples:\n  \
        isle demo --tour              see it all on this machine, in half a minute\n  \
        isle up                       on each of two machines: they find each other\n  \
        isle get giraffe              from either: a figure, from whoever has it\n  \
        isle pieces --figures ./toys  serve figures of your own",
    after_help = "Exit status: 0 done; 1 failed; 2 wrong use; 3 no such figure; 130 stopped by a second Ctrl+C.\n\
        isle help COMMAND tells more about each.",
    disable_help_subcommand = false,
    max_term_width = 100
)]
pub struct Arguments {
    /// Colours and signs.
    #[command(flatten)]
    pub look: Look,
    /// What to do; nothing: say what can be done.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// How output looks.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct Look {
    /// Colour the output. Without it: on a terminal, unless NO_COLOR is set or TERM is dumb
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_default_value = true)]
    pub color: When,
    /// Draw with ASCII alone. Without it: where the locale is not UTF-8
    #[arg(long, global = true)]
    pub ascii: bool,
}

/// When to colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum When {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run an island on this machine, to look at and play with
    #[command(before_help = "Examples:\n  \
        isle demo --tour          discovery, a figure, a crash, a hand-over, farewells: each step checked\n  \
        isle demo                 the same island, yours to play with until Ctrl+C")]
    Demo(Demo),
    /// Run a piece server and an intermediary in one: the first command on a new network
    #[command(before_help = "Examples:\n  \
        isle up                   serve the built-in figures and take requests on port 5235\n  \
        isle up --name kitchen --figures ./toys --figures builtin")]
    Up(Flags<{ PIECES | CLIENTS }>),
    /// Run a piece server
    #[command(before_help = "Examples:\n  \
        isle pieces                                   the built-in figures, on port 1233\n  \
        isle pieces --figures ./toys --only cat,dog   two of those in a folder\n  \
        isle pieces --upstream http://127.0.0.1:8080 --offers status,report")]
    Pieces(Flags<PIECES>),
    /// Run an intermediary: takes clients' requests and forwards them to whoever can answer
    #[command(before_help = "Examples:\n  \
        isle intermediary                             on port 5235\n  \
        isle intermediary --max-in-flight 64 --shed redirect")]
    Intermediary(Flags<CLIENTS>),
    /// Run a bridge: joins this island with others, over UDP port 5236
    #[command(before_help = "Examples:\n  \
        isle bridge --link KEY@gate.example.org:5236   call the bridge with this key there\n  \
        isle bridge --allow KEY                        let the bridge with this key call\n  \
        isle key                                       what the other side needs to know of this one\n  \
        isle bridge links                              how the links of the bridge on this host are")]
    Bridge(Bridge),
    /// Make an invite: one word with which another island's bridge links with the one on this host
    #[command(before_help = "Examples:\n  \
        isle invite                                    for one bridge, within 15 minutes\n  \
        isle invite --address gate.example.org:5236    where this host is called from outside\n  \
        isle invite list                               those that were made")]
    Invite(Invite),
    /// List the links between islands
    #[command(before_help = "Examples:\n  \
        isle links                as the nodes of this island know them\n  \
        isle links --at http://10.0.0.5:5236 --json")]
    Links(Links),
    /// Fetch figures
    #[command(before_help = "Examples:\n  \
        isle get giraffe          as a table\n  \
        isle get giraffe --json   as it was sent\n  \
        isle get cat dog          several")]
    Get(Get),
    /// List what can be asked for
    #[command(before_help = "Examples:\n  \
        isle figures              all of them\n  \
        isle figures drag         those with drag in their name")]
    Figures(Figures),
    /// List who is there, or tell more about one
    #[command(before_help = "Examples:\n  \
        isle members              everybody, with standing and load\n  \
        isle members kitchen      one of them\n  \
        isle members --json | jq '.members[].name'")]
    Members(Members),
    /// Tell what happens, as it happens, until Ctrl+C
    #[command(before_help = "Examples:\n  \
        isle watch                who comes, who goes\n  \
        isle watch --json         one JSON object a line")]
    Watch(Watch),
    /// Show one screen: this node, its island, and what is wrong, last
    #[command(before_help = "Examples:\n  \
        isle status\n  \
        isle status --check && echo all is well")]
    Status(Status),
    /// Say who could serve a figure, who would be chosen, and why not the others
    #[command(before_help = "Examples:\n  isle explain dragon")]
    Explain(Explain),
    /// Show every setting, its value and where that comes from
    #[command(before_help = "Examples:\n  \
        isle config\n  \
        isle config --config isle.toml --name kitchen")]
    Config(Config),
    /// Print the public key kept on this host, made if there is none
    #[command(before_help = "Examples:\n  \
        isle key                          of this host's bridge\n  \
        isle key --state-dir ./kitchen    of another node")]
    Key(Key),
    /// Print a completion script
    #[command(before_help = "Examples:\n  \
        isle completions bash > ~/.local/share/bash-completion/completions/isle\n  \
        isle completions fish > ~/.config/fish/completions/isle.fish")]
    Completions(Completions),
    /// Write the manual's pages into a folder
    #[command(before_help = "Examples:\n  isle man ~/.local/share/man/man1")]
    Man(Man),
}

/// `isle bridge`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Bridge {
    /// What to do with the bridge that runs on this host; nothing: run one.
    #[command(subcommand)]
    pub command: Option<BridgeCommand>,
    /// Its settings.
    #[command(flatten)]
    pub flags: Flags<LINKS>,
}

/// What to do with the bridge that runs on this host.
#[derive(Clone, Debug, Subcommand)]
pub enum BridgeCommand {
    /// Call another island's bridge from now on, and after every start
    #[command(before_help = "Examples:\n  \
        isle bridge link KEY@gate.example.org:5236\n  \
        isle bridge link isle1abc...    with an invite: then neither side needs more")]
    Link {
        /// KEY@HOST:PORT, or an invite
        #[arg(value_name = "TARGET")]
        target: String,
        /// Which bridge.
        #[command(flatten)]
        host: Local,
    },
    /// Let another island's bridge call, from now on and after every start
    #[command(before_help = "Examples:\n  isle bridge allow KEY")]
    Allow {
        /// What 'isle key' prints there
        #[arg(value_name = "KEY")]
        key: String,
        /// Which bridge.
        #[command(flatten)]
        host: Local,
    },
    /// End a link, for good
    #[command(before_help = "Examples:\n  isle bridge unlink KEY    the beginning of a key is enough")]
    Unlink {
        /// The key of the other side, or its beginning
        #[arg(value_name = "KEY")]
        key: String,
        /// Which bridge.
        #[command(flatten)]
        host: Local,
    },
    /// List its links, and who was refused
    #[command(before_help = "Examples:\n  isle bridge links\n  isle bridge links --json")]
    Links {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Which bridge.
        #[command(flatten)]
        host: Local,
    },
}

/// A bridge of this host.
#[derive(Clone, Debug, Args)]
pub struct Local {
    /// Its state directory [default: $XDG_STATE_HOME/isle/bridge, else ~/.local/state/isle/bridge]
    #[arg(long, value_name = "DIR", env = "ISLE_STATE_DIR", hide_env_values = true, value_hint = clap::ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
}

/// `isle invite`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Invite {
    /// What to do with invites; nothing: make one.
    #[command(subcommand)]
    pub command: Option<InviteCommand>,
    /// How long it holds, 1s to 24h
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = invite_time)]
    pub expires: Duration,
    /// How many bridges it lets in, 1 to 100
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub uses: u32,
    /// Where this bridge is called from outside, up to four times [default: its own addresses]
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Vec<String>,
    /// Which bridge.
    #[command(flatten)]
    pub host: Local,
}

/// What to do with invites.
#[derive(Clone, Debug, Subcommand)]
pub enum InviteCommand {
    /// List those that were made
    #[command(before_help = "Examples:\n  isle invite list")]
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Which bridge.
        #[command(flatten)]
        host: Local,
    },
    /// Take one back
    #[command(before_help = "Examples:\n  isle invite revoke 3f2a91")]
    Revoke {
        /// What 'isle invite list' calls it
        #[arg(value_name = "ID")]
        id: String,
        /// Which bridge.
        #[command(flatten)]
        host: Local,
    },
}

fn invite_time(text: &str) -> Result<Duration, Wanted> {
    value::time(
        text,
        Duration::from_secs(1),
        Duration::from_secs(24 * 3600),
        "a time from 1s to 24h, such as 15m",
    )
}

/// `isle links`.
#[derive(Clone, Debug, Args)]
pub struct Links {
    /// As JSON, like GET /links
    #[arg(long)]
    pub json: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: Ask,
}

/// Whom to ask, and in what form.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Whom to ask")]
pub struct Ask {
    /// Ask this node, http://HOST:PORT. Without it: the intermediary of this host, else one found by broadcast
    #[arg(long, value_name = "URL", env = "ISLE_AT", hide_env_values = true)]
    pub at: Option<String>,
    /// Look for nodes of this mesh
    #[arg(long, value_name = "NAME", env = "ISLE_MESH", hide_env_values = true, default_value = "isle")]
    pub mesh: String,
    /// UDP port to look on
    #[arg(long, value_name = "PORT", env = "ISLE_DISCOVERY_PORT", hide_env_values = true, default_value = "5235",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub discovery_port: u16,
    /// Look on these interfaces alone
    #[arg(long, value_name = "NAME", env = "ISLE_INTERFACE", hide_env_values = true, value_delimiter = ',')]
    pub interface: Vec<String>,
}

/// `isle demo`.
#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Walk through everything by itself, check each step, and exit with 0 if all went well
    #[arg(long)]
    pub tour: bool,
    /// With --tour: one JSON object for each step
    #[arg(long, requires = "tour")]
    pub json: bool,
}

/// `isle get`.
#[derive(Clone, Debug, Args)]
pub struct Get {
    /// Names of figures
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Print each as it was sent, one a line
    #[arg(long, conflicts_with = "html")]
    pub json: bool,
    /// Print the page that a browser gets
    #[arg(long)]
    pub html: bool,
    /// Write to this file
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: Ask,
}

/// `isle figures`.
#[derive(Clone, Debug, Args)]
pub struct Figures {
    /// Only those with this in their name
    #[arg(value_name = "TEXT")]
    pub text: Option<String>,
    /// As JSON, like GET /figures, all pages in one
    #[arg(long)]
    pub json: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: Ask,
}

/// `isle members`.
#[derive(Clone, Debug, Args)]
pub struct Members {
    /// A name, name~id, or the beginning of an id: tell more about this one
    #[arg(value_name = "MEMBER")]
    pub member: Option<String>,
    /// As JSON, like GET /members
    #[arg(long)]
    pub json: bool,
    /// Show all columns, however narrow the terminal
    #[arg(long)]
    pub wide: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: Ask,
}

/// `isle watch`.
#[derive(Clone, Debug, Args)]
pub struct Watch {
    /// One JSON object a line: {"id", "event", "data"}
    #[arg(long)]
    pub json: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: Ask,
}

/// `isle status`.
#[derive(Clone, Debug, Args)]
pub struct Status {
    /// Exit with 1 if anything is wrong
    #[arg(long)]
    pub check: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: Ask,
}

/// `isle explain`.
#[derive(Clone, Debug, Args)]
pub struct Explain {
    /// Name of the figure
    #[arg(value_name = "NAME")]
    pub name: String,
    /// As JSON, like GET /figures/NAME/route
    #[arg(long)]
    pub json: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: Ask,
}

/// `isle config`.
#[derive(Clone, Debug, Args)]
pub struct Config {
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// What would be said to `isle up`.
    #[command(flatten)]
    pub flags: Flags<{ PIECES | CLIENTS | LINKS }>,
}

/// `isle key`.
#[derive(Clone, Debug, Args)]
pub struct Key {
    /// Where the key is kept [default: $XDG_STATE_HOME/isle/bridge, else ~/.local/state/isle/bridge]
    #[arg(long, value_name = "DIR", env = "ISLE_STATE_DIR", hide_env_values = true, value_hint = clap::ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
}

/// `isle completions`.
#[derive(Clone, Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// `isle man`.
#[derive(Clone, Debug, Args)]
pub struct Man {
    /// Folder for the pages; made if it is not there
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub folder: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_begins_its_help_with_examples() {
        for command in Arguments::command().get_subcommands_mut() {
            let help = command.render_help().to_string();
            assert!(help.starts_with("Examples:\n  isle "), "{}: {help}", command.get_name());
        }
    }
}
