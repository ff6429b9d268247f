//! The tour, as in a terminal that is no terminal.

use crate::harness::run;

#[test]
fn the_tour_passes() {
    let said = run(&["demo", "--tour"]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    let (sum, checks): (Vec<_>, Vec<_>) = said.stdout.lines().partition(|line| line.starts_with("# "));
    assert!(checks.len() >= 14 && checks.iter().all(|line| line.starts_with("ok ")), "{}", said.stdout);
    assert_eq!(sum.len(), 1, "{}", said.stdout);
}
