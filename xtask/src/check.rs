//! What must pass before a merge, and what looks for inputs that break decoders.

use anyhow::{Result, ensure};

use crate::run::{cargo, demand, works};

/// All checks, the quick ones first; the first that fails ends it.
pub(crate) fn everything() -> Result<()> {
    demand(&mut cargo(&["fmt", "--all", "--check"]))?;
    demand(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    demand(&mut cargo(&["test", "--workspace"]))?;
    demand(
        cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    if works(&mut cargo(&["deny", "--version"])) {
        // Advisories need a database from outside; licences, bans and sources do not.
        demand(&mut cargo(&["deny", "check", "licenses", "bans", "sources"]))?;
    } else {
        eprintln!("xtask: cargo-deny is not installed, licences and bans were not checked");
    }
    Ok(())
}

/// One fuzz target for so long, or all of them built and listed.
pub(crate) fn fuzz(target: Option<&str>, seconds: u32) -> Result<()> {
    ensure!(
        works(&mut cargo(&["+nightly", "fuzz", "--version"])),
        "fuzzing needs a nightly toolchain and `cargo install cargo-fuzz`"
    );
    match target {
        Some(target) => {
            // A table is fetched over TCP and may be large; everything else is a datagram.
            let length = if target == "transfer" { "-max_len=65536" } else { "-max_len=1200" };
            let time = format!("-max_total_time={seconds}");
            demand(&mut cargo(&["+nightly", "fuzz", "run", target, "--", length, &time]))
        }
        None => {
            demand(&mut cargo(&["+nightly", "fuzz", "build"]))?;
            demand(&mut cargo(&["+nightly", "fuzz", "list"]))
        }
    }
}
