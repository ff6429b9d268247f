//! The process's metrics, and their text for Prometheus.
//!
//! Of our own, because the usual recorder measures a clock when it is made, for up to 200 ms before the node listens: ADR 0010.
//!
//! Source: "Exposition formats" in the documentation of Prometheus, text format 0.0.4.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{
    Counter, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use metrics_util::registry::{Registry, Storage};

/// Upper bounds of the buckets of durations, in seconds: OpenTelemetry's for requests, and three finer ones for a LAN.
const DURATION_BUCKETS: [f64; 17] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// All counters, gauges and histograms of the process. Every histogram is of durations in seconds. Cheap to clone: all
/// clones are one.
#[derive(Clone, Debug)]
pub struct Exposition(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry<Key, Atomics>,
    descriptions: Mutex<BTreeMap<KeyName, SharedString>>,
}

#[derive(Debug)]
struct Atomics;

impl Storage<Key> for Atomics {
    type Counter = Arc<AtomicU64>;
    type Gauge = Arc<AtomicU64>;
    type Histogram = Arc<Durations>;

    fn counter(&self, _: &Key) -> Self::Counter {
        Arc::default()
    }

    fn gauge(&self, _: &Key) -> Self::Gauge {
        Arc::default()
    }

    fn histogram(&self, _: &Key) -> Self::Histogram {
        Arc::default()
    }
}

/// A histogram; each observation is counted at once.
#[derive(Debug, Default)]
struct Durations {
    /// Of each bucket alone; the last has no upper bound.
    counts: [AtomicU64; DURATION_BUCKETS.len() + 1],
    /// Bits of an `f64`.
    sum: AtomicU64,
}

impl HistogramFn for Durations {
    fn record(&self, seconds: f64) {
        let bucket = DURATION_BUCKETS.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        GaugeFn::increment(&self.sum, seconds);
    }
}

impl Exposition {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner { registry: Registry::new(Atomics), descriptions: Mutex::default() }))
    }

    /// Everything, by name and labels. A histogram's count is that of its buckets; its sum may be newer by a moment.
    #[must_use]
    pub fn render(&self) -> String {
        let mut families = BTreeMap::new();
        let registry = &self.0.registry;
        registry.visit_counters(|key, counter| {
            let lines = lines_of(&mut families, key, "counter");
            add(lines, key, "", None, counter.load(Ordering::Relaxed));
        });
        registry.visit_gauges(|key, gauge| {
            // Counters of ours are whole numbers, so one of seconds is kept as a gauge.
            let kind = if key.name().ends_with("_total") { "counter" } else { "gauge" };
            let lines = lines_of(&mut families, key, kind);
            add(lines, key, "", None, Number(f64::from_bits(gauge.load(Ordering::Relaxed))));
        });
        registry.visit_histograms(|key, durations| {
            let lines = lines_of(&mut families, key, "histogram");
            let mut count = 0;
            let bounds = DURATION_BUCKETS.into_iter().chain([f64::INFINITY]);
            for (bound, own) in bounds.zip(&durations.counts) {
                count += own.load(Ordering::Relaxed);
                add(lines, key, "_bucket", Some(bound), count);
            }
            let sum = Number(f64::from_bits(durations.sum.load(Ordering::Relaxed)));
            add(lines, key, "_sum", None, sum);
            add(lines, key, "_count", None, count);
        });
        let descriptions = self.0.descriptions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (name, family) in families {
            if let Some(description) = descriptions.get(name.as_str()) {
                let description = description.replace('\\', "\\\\").replace('\n', "\\n");
                let _ = writeln!(text, "# HELP {name} {description}");
            }
            let _ = writeln!(text, "# TYPE {name} {}", family.kind);
            text.extend(family.series.into_values());
        }
        text
    }

    fn describe(&self, name: KeyName, description: SharedString) {
        let mut descriptions = self.0.descriptions.lock().unwrap_or_else(PoisonError::into_inner);
        descriptions.insert(name, description);
    }
}

impl Recorder for Exposition {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(name, description);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(name, description);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(name, description);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.0.registry.get_or_create_counter(key, |counter| Counter::from_arc(counter.clone()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.0.registry.get_or_create_gauge(key, |gauge| Gauge::from_arc(gauge.clone()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.0.registry.get_or_create_histogram(key, |durations| Histogram::from_arc(durations.clone()))
    }
}

/// All that has one name.
struct Family {
    kind: &'static str,
    /// Lines of each series, by its labels.
    series: BTreeMap<String, String>,
}

/// Where the lines of this series go.
fn lines_of<'a>(families: &'a mut BTreeMap<String, Family>, key: &Key, kind: &'static str) -> &'a mut String {
    let of_none = || Family { kind, series: BTreeMap::new() };
    let family = families.entry(key.name().to_owned()).or_insert_with(of_none);
    family.series.entry(Labels(key, None).to_string()).or_default()
}

fn add(lines: &mut String, key: &Key, suffix: &str, bound: Option<f64>, value: impl Display) {
    let _ = writeln!(lines, "{}{suffix}{} {value}", key.name(), Labels(key, bound));
}

/// Labels of a series, and the upper bound of a bucket. Names of labels are the program's, their values may be anybody's.
struct Labels<'a>(&'a Key, Option<f64>);

impl Display for Labels<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = '{';
        for label in self.0.labels() {
            let value = label.value().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(out, "{before}{}=\"{value}\"", label.key())?;
            before = ',';
        }
        if let Some(bound) = self.1 {
            write!(out, "{before}le=\"{}\"", Number(bound))?;
            before = ',';
        }
        if before == ',' { out.write_char('}') } else { Ok(()) }
    }
}

/// A number as Prometheus writes it.
struct Number(f64);

impl Display for Number {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_infinite() {
            out.write_str(if self.0 > 0.0 { "+Inf" } else { "-Inf" })
        } else {
            write!(out, "{}", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics::{counter, describe_counter, gauge, histogram, with_local_recorder};

    use super::*;

    #[test]
    fn everything_is_told_in_the_text_format() {
        let exposition = Exposition::new();
        assert_eq!(exposition.render(), "");
        with_local_recorder(&exposition, || {
            describe_counter!("asked_total", "What was asked\nby \\ whom");
            counter!("asked_total", "by" => "z").increment(2);
            counter!("asked_total", "by" => "a\"\\\n", "to" => "b").absolute(7);
            gauge!("open").set(1.5);
            gauge!("most").set(f64::INFINITY);
        });
        let text = "\
# HELP asked_total What was asked\\nby \\\\ whom
# TYPE asked_total counter
asked_total{by=\"a\\\"\\\\\\n\",to=\"b\"} 7
asked_total{by=\"z\"} 2
# TYPE most gauge
most +Inf
# TYPE open gauge
open 1.5
";
        assert_eq!(exposition.render(), text);
    }

    #[test]
    fn a_histogram_counts_what_is_not_above_each_bound() {
        let exposition = Exposition::new();
        with_local_recorder(&exposition, || {
            for seconds in [0.0004, 0.0005, 0.0006, 11.0] {
                histogram!("took_seconds", "by" => "a").record(seconds);
            }
        });
        let text = exposition.render();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + DURATION_BUCKETS.len() + 3, "{text}");
        assert_eq!(lines[0], "# TYPE took_seconds histogram");
        assert_eq!(lines[1], "took_seconds_bucket{by=\"a\",le=\"0.0005\"} 2");
        assert_eq!(lines[2], "took_seconds_bucket{by=\"a\",le=\"0.001\"} 3");
        assert_eq!(lines[17], "took_seconds_bucket{by=\"a\",le=\"10\"} 3");
        assert_eq!(lines[18], "took_seconds_bucket{by=\"a\",le=\"+Inf\"} 4");
        assert_eq!(lines[19], "took_seconds_sum{by=\"a\"} 11.0015");
        assert_eq!(lines[20], "took_seconds_count{by=\"a\"} 4");
    }
}
