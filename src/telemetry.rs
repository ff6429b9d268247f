//! Logs and metrics of the process: installed once, by the binary. Everything else only emits.

use std::io::{self, Write};
use std::sync::OnceLock;

use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::telemetry::exposition::Exposition;

pub mod exposition;

/// How much is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Verbosity {
    /// `-q`: warnings and errors.
    Quiet,
    /// Changes of state that an operator would tell a colleague.
    #[default]
    Normal,
    /// `-v`: decisions, and what strangers can trigger.
    Debug,
    /// `-vv`: per packet. Release builds are built without these.
    Trace,
}

impl Verbosity {
    /// Our crates as chosen; others only when they warn.
    fn filter(self) -> &'static str {
        match self {
            Self::Quiet => "warn",
            Self::Normal => "warn,isle=info,isle_mesh=info,island_bridge=info",
            Self::Debug => "warn,isle=debug,isle_mesh=debug,island_bridge=debug",
            // Others' programs may be built without it; asked for all the same, the library complains in its own words.
            Self::Trace if STATIC_MAX_LEVEL < LevelFilter::TRACE => {
                "info,isle=debug,isle_mesh=debug,island_bridge=debug"
            }
            Self::Trace => "info,isle=trace,isle_mesh=trace,island_bridge=trace",
        }
    }
}

/// Starts logging to standard error, as text or one JSON object a line. `RUST_LOG`, if set, decides what
/// is logged instead of `verbosity`. Does nothing when the process logs already.
pub fn log(json: bool, verbosity: Verbosity) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(verbosity.filter()));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Printable { json });
    let _ = if json { builder.json().flatten_event(true).try_init() } else { builder.try_init() };
}

/// The process's metrics; installs their recorder the first time. Until then whatever is counted is lost,
/// so it is called before the parts are built.
pub fn metrics() -> Exposition {
    static METRICS: OnceLock<Exposition> = OnceLock::new();
    METRICS
        .get_or_init(|| {
            let metrics = Exposition::new();
            // It fails only where an embedding program has a recorder of its own, which then gets everything.
            let _ = metrics::set_global_recorder(metrics.clone());
            metrics
        })
        .clone()
}

/// Standard error, on which an event is one line of printable characters: names and paths come from strangers
/// and must not forge lines, move the cursor or turn the reading direction.
#[derive(Clone, Copy, Debug)]
struct Printable {
    json: bool,
}

impl<'a> MakeWriter<'a> for Printable {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl Write for Printable {
    /// The subscriber writes each event with one call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(printable(event, self.json).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn printable(event: &[u8], json: bool) -> String {
    let text = String::from_utf8_lossy(event);
    let (text, end) = match text.strip_suffix('\n') {
        Some(line) => (line, "\n"),
        None => (&*text, ""),
    };
    let mut shown = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        match (is_printable(character), json) {
            (true, _) => shown.push(character),
            // None of them is beyond the basic plane.
            (false, true) => shown.push_str(&format!("\\u{:04x}", u32::from(character))),
            (false, false) => shown.extend(character.escape_unicode()),
        }
    }
    shown + end
}

/// Neither a control character (C0, DEL, C1) nor one that reorders or breaks lines of text.
#[must_use]
pub fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_printable_line() {
        let event = "INFO path=\"/a\x1b[2J\r\nfake\u{202e}\u{9b}é\"\n".as_bytes();
        assert_eq!(printable(event, false), "INFO path=\"/a\\u{1b}[2J\\u{d}\\u{a}fake\\u{202e}\\u{9b}é\"\n");
        let json = printable("{\"path\":\"\u{9b}\u{2028}\"}\n".as_bytes(), true);
        assert_eq!(json, "{\"path\":\"\\u009b\\u2028\"}\n");
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    }

    #[test]
    fn durations_are_histograms_and_the_recorder_is_one() {
        let handle = metrics();
        metrics::histogram!("isle_test_seconds").record(0.003);
        // Other tests write into the same recorder meanwhile, so only our own line is looked at.
        for text in [metrics().render(), handle.render()] {
            assert!(text.contains("isle_test_seconds_bucket{le=\"0.005\"} 1"), "{text}");
        }
    }
}
