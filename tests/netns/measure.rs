//! Numbers that scenarios take, shown with their spread.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// Samples by what they measure.
#[derive(Default, Debug)]
pub(crate) struct Measures {
    samples: Mutex<BTreeMap<String, Vec<Duration>>>,
    notes: Mutex<Vec<String>>,
}

impl Measures {
    /// Adds one sample.
    pub(crate) fn add(&self, what: &str, took: Duration) {
        let mut samples = self.samples.lock().expect("nothing panics while holding it");
        samples.entry(what.to_owned()).or_default().push(took);
    }

    /// Adds a number that is no length of time, in words.
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.notes.lock().expect("nothing panics while holding it").push(text.into());
    }

    /// This percentile (0-100) of the samples of `what`; zero if there are none.
    pub(crate) fn percentile(&self, what: &str, percent: usize) -> Duration {
        let samples = self.samples.lock().expect("nothing panics while holding it");
        samples.get(what).map_or(Duration::ZERO, |taken| percentile(taken, percent))
    }

    /// Prints a line for each.
    pub(crate) fn show(&self) {
        for (what, taken) in &*self.samples.lock().expect("nothing panics while holding it") {
            println!("    {what}: {}", spread(taken));
        }
        for note in &*self.notes.lock().expect("nothing panics while holding it") {
            println!("    {note}");
        }
    }
}

/// The smallest sample that at least this share of all does not exceed; zero for none.
pub(crate) fn percentile(samples: &[Duration], percent: usize) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Samples in one line.
pub(crate) fn spread(samples: &[Duration]) -> String {
    let at = |percent| millis(percentile(samples, percent));
    match samples {
        [one] => millis(*one),
        _ => {
            format!(
                "p50 {}  p99 {}  max {}  min {}  ({} samples)",
                at(50),
                at(99),
                at(100),
                at(0),
                samples.len()
            )
        }
    }
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
