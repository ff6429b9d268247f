//! The scenarios of `tests/netns`, short and long: one test target, told by an environment variable which.

use std::process::Command;

use anyhow::Result;

use crate::run::{cargo, demand};

/// Short versions on the development build.
pub(crate) fn short(filters: &[String]) -> Result<()> {
    demand(cargo(&["test", "--package", "isle", "--test", "netns", "--"]).args(filters))
}

/// Long versions on the release build, with the bounds that are promised.
pub(crate) fn long(filters: &[String]) -> Result<()> {
    demand(trial().args(filters))
}

/// The command for it, still without filters: then all of them.
pub(crate) fn trial() -> Command {
    let mut command = cargo(&["test", "--release", "--package", "isle", "--test", "netns", "--"]);
    command.env("ISLE_TRIAL", "1");
    command
}
