//! The command line: what people and programs type, and what they get.
//!
//! Answers go to standard output, everything else to standard error. Text is for people; `--json` is the contract
//! for programs, and piped text has one record a line. No command here changes anything on a node but those that talk to
//! the bridge of this host over its socket: the API only reads.
//!
//! | module | is |
//! |---|---|
//! | [`arguments`], [`flags`] | what can be typed |
//! | [`ask`], [`client`] | whom it is asked, and how |
//! | [`figures`], [`get`], [`members`], [`status`], [`watch`], [`explain`] | commands that ask a node |
//! | [`links`] | links between islands, and the bridge of this host |
//! | [`node`], [`demo`] | commands that are a node, or some |
//! | [`shell`] | commands that need none |
//! | [`output`], [`failure`] | what is printed, and how a command ends |

use tokio::runtime;

pub mod arguments;
pub mod ask;
pub mod client;
pub mod demo;
pub mod explain;
pub mod failure;
pub mod figures;
pub mod flags;
pub mod get;
pub mod links;
pub mod members;
pub mod node;
pub mod output;
pub mod shell;
pub mod status;
pub mod watch;

use arguments::{Arguments, Command, FIRST_STEPS};
use failure::{Exit, Failure};
use output::Screen;

/// Does what the command line says, and says how that ended.
///
/// # Errors
/// What is wrong, why, and what to do.
pub fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let screen = Screen::stdout(arguments.look);
    match arguments.command {
        None => output::print(FIRST_STEPS).map(|_| Exit::Done),
        Some(Command::Demo(demo)) => asking(demo::run(&demo, screen)),
        Some(Command::Up(flags)) => node::run(flags),
        Some(Command::Pieces(flags)) => node::run(flags),
        Some(Command::Intermediary(flags)) => node::run(flags),
        Some(Command::Bridge(bridge)) => match bridge.command {
            None => node::run(bridge.flags),
            Some(command) => asking(links::bridge(command, screen)),
        },
        Some(Command::Invite(invite)) => asking(links::invite(invite, screen)),
        Some(Command::Links(links)) => asking(links::run(&links, screen)),
        Some(Command::Get(get)) => asking(get::run(&get, screen)),
        Some(Command::Figures(figures)) => asking(figures::run(&figures, screen)),
        Some(Command::Members(members)) => asking(members::run(&members, screen)),
        Some(Command::Watch(watch)) => asking(watch::run(&watch, screen)),
        Some(Command::Status(status)) => asking(status::run(&status, screen)),
        Some(Command::Explain(explain)) => asking(explain::run(&explain, screen)),
        Some(Command::Config(config)) => shell::config(config, screen),
        Some(Command::Key(key)) => shell::key(&key),
        Some(Command::Completions(completions)) => shell::completions(&completions),
        Some(Command::Man(man)) => shell::man(&man),
    }
}

/// Commands ask a question or two: one thread is enough.
fn asking(question: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::of(Exit::Failed, &error))?;
    runtime.block_on(question)
}
