//! The rig tells the truth about a rival: what it measures is there, and repeats itself.

use serde_json::Value;

use crate::scenario::{Plan, play};
use crate::tuning::Tuning;

fn played(loss: f64, tuning: &Tuning) -> Value {
    play(&Plan { members: 12, loss, seed: 1, crashes: 2, stalls: 0.0 }, tuning)
}

#[test]
fn the_same_seed_gives_the_same_line() {
    let tuning = Tuning::fast(12);
    assert_eq!(played(0.05, &tuning), played(0.05, &tuning));
}

#[test]
fn every_death_is_found_by_all_and_nobody_is_called_down_who_lives() {
    for tuning in [Tuning::lan(12), Tuning::fast(12)] {
        let line = played(0.0, &tuning);
        assert_eq!(
            (&line["crashes"], &line["leaves"], &line["missed"]),
            (&2.into(), &2.into(), &0.into()),
            "{line}"
        );
        assert_eq!((&line["false_downs"], &line["errors"]), (&0.into(), &0.into()), "{line}");
        assert!(line["crash_p50_ms"].as_f64() > line["leave_p50_ms"].as_f64(), "{line}");
        assert!(line["settled_ms"].is_number() && line["bytes_per_second"].as_f64() > Some(1.0), "{line}");
    }
}
