//! Isle: arguments, then what they say, then an exit status.

use std::process::ExitCode;

use clap::Parser;
use isle::cli;
use isle::cli::arguments::Arguments;

fn main() -> ExitCode {
    match cli::run(Arguments::parse()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            cli::output::error(&failure);
            failure.exit.into()
        }
    }
}
