//! The scenarios of `tests/netns`, short and long: one test target, told by an environment variable which.

use anyhow::Result;

use crate::run::{cargo, demand};

/// Short versions on the development build.
pub(crate) fn short(filters: &[String]) -> Result<()> {
    demand(cargo(&["test", "--package", "isle", "--test", "netns", "--"]).args(filters))
}

/// Long versions on the release build, with the bounds that are promised.
pub(crate) fn long(filters: &[String]) -> Result<()> {
    let mut command = cargo(&["test", "--release", "--package", "isle", "--test", "netns", "--"]);
    demand(command.args(filters).env("ISLE_TRIAL", "1"))
}
