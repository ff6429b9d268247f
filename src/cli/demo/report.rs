//! What a tour tells: parts and checks for people, a line a check for programs.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::failure::Failure;
use crate::cli::output::{Ink, Screen, plain_json, print, width};
use crate::figures::text::visible;

/// How it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// To people on a terminal.
    People,
    /// `ok 1 discovery equal-tables members=5 ms=41.0`.
    Lines,
    /// A JSON object a line.
    Json,
}

/// What one step found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// For programs: which check of its part.
    pub name: &'static str,
    /// For people: what is so.
    pub text: String,
    /// For programs: the numbers behind it.
    pub facts: Vec<(&'static str, String)>,
    /// How long it took.
    pub took: Option<Duration>,
    /// What was expected and what came instead; `None`: all is well.
    pub wrong: Option<(String, String)>,
}

impl Check {
    /// A check that is well if `got` is `expected`.
    #[must_use]
    pub fn same(
        name: &'static str,
        text: impl Into<String>,
        expected: impl ToString,
        got: impl ToString,
    ) -> Self {
        let (expected, got) = (expected.to_string(), got.to_string());
        let wrong = (expected != got).then_some((expected, got));
        Self { name, text: text.into(), facts: Vec::new(), took: None, wrong }
    }

    /// Adds a number.
    #[must_use]
    pub fn fact(mut self, name: &'static str, value: impl ToString) -> Self {
        self.facts.push((name, value.to_string()));
        self
    }

    /// Adds how long it took.
    #[must_use]
    pub fn took(mut self, took: Duration) -> Self {
        self.took = Some(took);
        self
    }
}

/// Tells checks as they come, and counts them.
#[derive(Debug)]
pub struct Report {
    form: Form,
    screen: Screen,
    part: usize,
    topic: &'static str,
    passed: usize,
    failed: usize,
}

impl Report {
    /// Nothing told yet.
    #[must_use]
    pub fn new(json: bool, screen: Screen) -> Self {
        let form = if json {
            Form::Json
        } else if screen.is_terminal() {
            Form::People
        } else {
            Form::Lines
        };
        Self { form, screen, part: 0, topic: "", passed: 0, failed: 0 }
    }

    /// Lines for people alone.
    ///
    /// # Errors
    /// As [`print()`].
    pub fn say(&self, text: &str) -> Result<(), Failure> {
        if self.form == Form::People {
            print(text)?;
        }
        Ok(())
    }

    /// Begins a part.
    ///
    /// # Errors
    /// As [`print()`].
    pub fn part(&mut self, topic: &'static str, title: &str, about: &str) -> Result<(), Failure> {
        self.part += 1;
        self.topic = topic;
        let title = format!("{title:<15}");
        self.say(&format!("{:>2}  {} {about}\n", self.part, self.screen.paint(Ink::Bold, &title)))
    }

    /// Tells a check.
    ///
    /// # Errors
    /// As [`print()`].
    pub fn check(&mut self, check: &Check) -> Result<(), Failure> {
        *(if check.wrong.is_none() { &mut self.passed } else { &mut self.failed }) += 1;
        let line = match self.form {
            Form::People => self.for_people(check),
            Form::Lines => self.as_line(check),
            Form::Json => self.as_json(check),
        };
        print(line).map(|_| ())
    }

    /// Whether no check failed.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.failed == 0
    }

    /// Tells the sum of it.
    ///
    /// # Errors
    /// As [`print()`].
    pub fn end(&self, took: Duration) -> Result<(), Failure> {
        let (passed, failed, seconds) = (self.passed, self.failed, took.as_secs_f64());
        let line = match self.form {
            Form::People if failed == 0 => format!("\nAll {passed} checks passed in {seconds:.1} s.\n"),
            Form::People => format!("\n{failed} of {} checks failed, in {seconds:.1} s.\n", passed + failed),
            Form::Lines => format!("# passed={passed} failed={failed} ms={}\n", took.as_millis()),
            Form::Json => {
                format!("{}\n", json!({"passed": passed, "failed": failed, "ms": millis(took)}))
            }
        };
        print(line).map(|_| ())
    }

    fn for_people(&self, check: &Check) -> String {
        let (sign, ink) = match (&check.wrong, self.screen.unicode) {
            (None, true) => ("✓", Ink::Green),
            (None, false) => ("+", Ink::Green),
            (Some(_), true) => ("✕", Ink::Red),
            (Some(_), false) => ("x", Ink::Red),
        };
        let text = visible(&check.text);
        let took = check.took.map(shown).unwrap_or_default();
        let room =
            self.screen.width.unwrap_or(80).min(80).saturating_sub(6 + width(&text)).max(took.len() + 2);
        let mut lines =
            format!("    {} {text}{took:>room$}", self.screen.paint(ink, sign)).trim_end().to_owned();
        if let Some((expected, got)) = &check.wrong {
            lines.push_str(&format!(
                "\n      expected {}\n      got      {}",
                visible(expected),
                visible(got)
            ));
        }
        lines + "\n"
    }

    fn as_line(&self, check: &Check) -> String {
        let word = if check.wrong.is_none() { "ok" } else { "not ok" };
        let mut line = format!("{word} {} {} {}", self.part, self.topic, check.name);
        for (name, value) in &check.facts {
            line.push_str(&format!(" {name}={}", visible(value).replace(' ', "_")));
        }
        if let Some(took) = check.took {
            line.push_str(&format!(" ms={:.1}", took.as_secs_f64() * 1000.0));
        }
        if let Some((expected, got)) = &check.wrong {
            line.push_str(&format!(" expected={:?} got={:?}", visible(expected), visible(got)));
        }
        line + "\n"
    }

    fn as_json(&self, check: &Check) -> String {
        let facts: Map<String, Value> = check
            .facts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from(value.clone())))
            .collect();
        let mut line = json!({
            "ok": check.wrong.is_none(), "part": self.part, "topic": self.topic, "check": check.name, "text": check.text,
            "facts": facts, "ms": check.took.map(millis),
        });
        if let Some((expected, got)) = &check.wrong {
            line["expected"] = Value::from(expected.clone());
            line["got"] = Value::from(got.clone());
        }
        format!("{}\n", plain_json(&line.to_string()))
    }
}

/// Whole milliseconds, but for the first ten.
fn shown(took: Duration) -> String {
    let ms = took.as_secs_f64() * 1000.0;
    if ms < 9.95 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(form: Form) -> Report {
        let screen = Screen { width: Some(100), ..Screen::pipe() };
        Report { form, screen, part: 4, topic: "crash", passed: 0, failed: 0 }
    }

    #[test]
    fn a_check_is_told_to_people_and_to_programs() {
        let well = Check::same("failures", "0 of 200 requests failed", 0, 0)
            .fact("asked", 200)
            .took(Duration::from_millis(41));
        assert_eq!(report(Form::Lines).as_line(&well), "ok 4 crash failures asked=200 ms=41.0\n");
        let told = report(Form::People).for_people(&well);
        assert_eq!(told.trim_end(), format!("    ✓ 0 of 200 requests failed{:>50}", "41 ms"));
        let bad = Check::same("failures", "0 of 200 requests failed", "0 failed", "2 failed");
        assert_eq!(
            report(Form::Lines).as_line(&bad),
            "not ok 4 crash failures expected=\"0 failed\" got=\"2 failed\"\n"
        );
        assert_eq!(
            report(Form::People).for_people(&bad),
            "    ✕ 0 of 200 requests failed\n      expected 0 failed\n      got      2 failed\n"
        );
        let json: Value = serde_json::from_str(&report(Form::Json).as_json(&bad)).unwrap();
        assert_eq!((&json["ok"], &json["got"]), (&json!(false), &json!("2 failed")));
    }
}
