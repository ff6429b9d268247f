//! What one source says about settings: text, with where it stands. What it means is judged in
//! [`super::load`], the same for all sources.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::config::setting::{Form, SETTINGS, Setting};
use crate::figures::text::visible;

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// A file and its line, counted from 1.
    File(PathBuf, usize),
    /// Nobody said anything.
    Default,
}

impl Origin {
    /// The word used in `isle config`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Environment => "env",
            Self::File(..) => "file",
            Self::Default => "default",
        }
    }

    /// The setting as its writer wrote it: `--listen`, `ISLE_LISTEN`, `isle.toml:3: listen`.
    #[must_use]
    pub fn of(&self, setting: &Setting) -> String {
        match self {
            Self::Flag => format!("--{}", setting.name),
            Self::Environment => setting.variable(),
            Self::File(path, line) => {
                format!("{}:{line}: {}", visible(&path.to_string_lossy()), setting.name)
            }
            Self::Default => setting.name.to_owned(),
        }
    }
}

/// The values of one setting, and who gave them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given {
    /// One, unless the setting takes many.
    pub values: Vec<String>,
    /// Who gave them.
    pub origin: Origin,
}

/// What one source says, by name of the setting.
pub type Layer = BTreeMap<&'static str, Given>;

/// Why a source cannot be used. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The file is not there or not readable.
    #[error("cannot read the settings in {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{path}:{line}: {what}")]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser missed.
        what: String,
    },
    /// The file has a key that is no setting.
    #[error("{path}:{line}: there is no setting \"{key}\"{}", hint.map(|name| format!("; did you mean {name}?")).unwrap_or_default())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key, made printable.
        key: String,
        /// A setting of a similar name.
        hint: Option<&'static str>,
    },
    /// The file has a value of a wrong kind.
    #[error("{path}:{line}: {setting} takes {wanted}")]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The setting.
        setting: &'static str,
        /// What it takes.
        wanted: &'static str,
    },
    /// A variable is not UTF-8.
    #[error("{0} is not UTF-8")]
    NotText(String),
}

/// What the variables `ISLE_*` say. Empty ones say nothing; unknown ones are ignored, for they may belong to a
/// later version or to somebody else.
///
/// # Errors
/// A variable that we know is not UTF-8.
pub fn environment(variable: impl Fn(&OsStr) -> Option<OsString>) -> Result<Layer, LayerError> {
    let mut layer = Layer::new();
    for setting in SETTINGS {
        let name = setting.variable();
        let Some(value) = variable(OsStr::new(&name)).filter(|value| !value.is_empty()) else { continue };
        let value = value.into_string().map_err(|_| LayerError::NotText(name))?;
        let values = match setting.form {
            Form::Many => list(&value),
            Form::One | Form::Switch | Form::Count => vec![value],
        };
        layer.insert(setting.name, Given { values, origin: Origin::Environment });
    }
    Ok(layer)
}

/// What a file says. Blocks on the disk.
///
/// # Errors
/// See [`LayerError`]; an unknown key is an error, since a misspelt one would be missed only when it matters.
pub fn file(path: &Path) -> Result<Layer, LayerError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| LayerError::Unreadable { path: path.to_owned(), source })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Layer, LayerError> {
    let line_at = |at: usize| text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| LayerError::NotToml {
        path: path.to_owned(),
        line: line_at(error.span().map_or(0, |span| span.start)),
        what: error.message().to_owned(),
    })?;
    let mut layer = Layer::new();
    for (key, value) in table.get_ref() {
        let line = line_at(key.span().start);
        let key: &str = key.get_ref();
        let Some(setting) = Setting::named(key) else {
            return Err(LayerError::Unknown {
                path: path.to_owned(),
                line,
                key: visible(key).into_owned(),
                hint: crate::config::similar::closest(key, SETTINGS.iter().map(|setting| setting.name)),
            });
        };
        let values = values(setting, value.get_ref()).map_err(|wanted| LayerError::WrongKind {
            path: path.to_owned(),
            line,
            setting: setting.name,
            wanted,
        })?;
        layer.insert(setting.name, Given { values, origin: Origin::File(path.to_owned(), line) });
    }
    Ok(layer)
}

/// The values as text, or what the setting takes instead.
fn values(setting: &Setting, value: &DeValue<'_>) -> Result<Vec<String>, &'static str> {
    match (setting.form, value) {
        (Form::Many, DeValue::Array(values)) => {
            let wanted = "a list of texts";
            values.iter().map(|value| scalar(value.get_ref()).ok_or(wanted)).collect()
        }
        (Form::Many, value) => scalar(value).map(|value| vec![value]).ok_or("a list of texts"),
        (Form::Switch, DeValue::Boolean(on)) => Ok(vec![on.to_string()]),
        (Form::Switch, _) => Err("true or false"),
        (Form::Count, DeValue::Integer(number)) => Ok(vec![number.to_string()]),
        (Form::Count, _) => Err("a number"),
        (Form::One, value) => scalar(value).map(|value| vec![value]).ok_or("one text or number"),
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Splits at commas; blanks around and empty parts do not count.
#[must_use]
pub fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", visible(&path.to_string_lossy())),
            other => f.write_str(other.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        match parse(Path::new("isle.toml"), text) {
            Ok(layer) => format!("{layer:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_file_says_what_its_lines_say() {
        let layer = parse(
            Path::new("isle.toml"),
            "# comment\nname = 'kitchen'\ninterface = ['eth0', 'lo']\nmax-in-flight = 8\nquiet = true\nverbose = 2\nonly = 'a'\n",
        )
        .unwrap();
        let values = |name: &str| layer[name].values.clone();
        assert_eq!(values("name"), ["kitchen"]);
        assert_eq!(values("interface"), ["eth0", "lo"]);
        assert_eq!(values("max-in-flight"), ["8"]);
        assert_eq!(
            (values("quiet"), values("verbose"), values("only")),
            (vec!["true".into()], vec!["2".into()], vec!["a".into()])
        );
        assert_eq!(layer["interface"].origin, Origin::File("isle.toml".into(), 3));
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named_with_its_line() {
        assert_eq!(
            said("name = 'a'\nlisen = '[::]:1'\n"),
            "isle.toml:2: there is no setting \"lisen\"; did you mean listen?"
        );
        assert_eq!(
            said("max_in_flight = 8"),
            "isle.toml:1: there is no setting \"max_in_flight\"; did you mean max-in-flight?"
        );
        assert_eq!(said("\"\\u001b[2J\" = 8"), "isle.toml:1: there is no setting \"\\u{1b}[2J\"");
        assert_eq!(said("\n\nquiet = 'yes'"), "isle.toml:3: quiet takes true or false");
        assert_eq!(said("name = ['a']"), "isle.toml:1: name takes one text or number");
        assert_eq!(said("[pieces]\nonly = 'a'"), "isle.toml:1: there is no setting \"pieces\"");
        assert!(
            said("name = 'a'\nname 'b'").starts_with("isle.toml:2: "),
            "{}",
            said("name = 'a'\nname 'b'")
        );
    }

    #[test]
    fn the_environment_says_what_its_variables_say_and_strangers_are_ignored() {
        let variables = |name: &OsStr| match name.to_str()? {
            "ISLE_SEED" => Some("10.0.0.1, host:5 ,".into()),
            "ISLE_NAME" => Some(OsString::new()),
            "ISLE_STRANGE" => panic!("asked for what is no setting"),
            _ => None,
        };
        let layer = environment(variables).unwrap();
        assert_eq!(layer.len(), 1);
        assert_eq!(
            layer["seed"],
            Given { values: vec!["10.0.0.1".into(), "host:5".into()], origin: Origin::Environment }
        );
    }
}
