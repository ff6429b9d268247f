//! `isle completions`, `isle man`, `isle config` and `isle key`: what needs no node.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use isle_mesh::identity::Identity;
use serde::Serialize;

use crate::cli::arguments::{Arguments, Completions, Config, Key, Man};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::table::{Cell, Column, table};
use crate::cli::output::{Ink, Screen, print, print_json};
use crate::config::Roles;
use crate::config::layer::Origin;
use crate::config::load::{Settings, default_state_dir};
use crate::config::setting::{Form, Unset};

/// `isle completions`.
///
/// # Errors
/// The script cannot be written.
pub fn completions(completions: &Completions) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Arguments::command(), "isle", &mut script);
    print(without_hidden(&String::from_utf8_lossy(&script)))?;
    Ok(Exit::Done)
}

/// The script for bash offers flags, too, that are not in the help.
fn without_hidden(script: &str) -> String {
    let command = Arguments::command();
    let hidden = command.get_subcommands().flat_map(clap::Command::get_arguments);
    let hidden = hidden.filter(|argument| argument.is_hide_set()).filter_map(clap::Arg::get_long);
    hidden.fold(script.to_owned(), |script, flag| script.replace(&format!(" --{flag} "), " "))
}

/// `isle man`.
///
/// # Errors
/// The pages cannot be written.
pub fn man(man: &Man) -> Result<Exit, Failure> {
    let written = std::fs::create_dir_all(&man.folder)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), &man.folder))
        .and_then(|()| head_exit_statuses(&man.folder.join("isle.1")));
    written.map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot write to {}: {error}", man.folder.display()))
    })?;
    Ok(Exit::Done)
}

/// What stands after the help of all commands tells how they end, and man(7) has a heading for that.
fn head_exit_statuses(page: &Path) -> std::io::Result<()> {
    let text = std::fs::read_to_string(page)?;
    std::fs::write(page, text.replace(".SH EXTRA\nExit status: ", ".SH \"EXIT STATUS\"\n"))
}

/// One setting as `isle config --json` prints it.
#[derive(Serialize)]
struct Effective {
    name: &'static str,
    values: Vec<String>,
    origin: &'static str,
    /// The file and its line.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
}

/// `isle config`. Prints only settings that a node would start with.
///
/// # Errors
/// It would not start with these.
pub fn config(config: Config, screen: Screen) -> Result<Exit, Failure> {
    let usage = |error: &dyn std::error::Error| Failure::of(Exit::Usage, error);
    let settings = Settings::load(config.flags.layer, config.flags.file).map_err(|error| usage(&error))?;
    settings.node(Roles { pieces: true, intermediary: true, bridge: true }).map_err(|error| usage(&error))?;
    settings.verbosity().map_err(|error| usage(&error))?;
    if config.json {
        let all: Vec<_> = settings
            .effective()
            .map(|(setting, given)| Effective {
                name: setting.name,
                values: given.values,
                at: matches!(given.origin, Origin::File(..)).then(|| given.origin.to_string()),
                origin: given.origin.as_str(),
            })
            .collect();
        print_json(&all)?;
    } else {
        print(shown(screen, &settings))?;
    }
    Ok(Exit::Done)
}

fn shown(screen: Screen, settings: &Settings) -> String {
    let rows: Vec<_> = settings
        .effective()
        .map(|(setting, given)| {
            let separator = if setting.form == Form::Many { "," } else { " " };
            let value = match (&*given.values, setting.unset) {
                ([], Unset::Means(meaning)) if screen.is_terminal() => {
                    Cell::inked(&format!("({meaning})"), Ink::Dim)
                }
                (values, _) => Cell::from(values.join(separator)),
            };
            vec![Cell::from(setting.name), value, Cell::from(given.origin.to_string())]
        })
        .collect();
    table(screen, &[Column::new("SETTING"), Column::new("VALUE").cut(), Column::new("ORIGIN")], &rows)
}

/// `isle key`.
///
/// # Errors
/// The directory holds no usable key, or cannot be written.
pub fn key(key: &Key) -> Result<Exit, Failure> {
    let dir = key.state_dir.clone().filter(|dir| !dir.as_os_str().is_empty()).or_else(default_state_dir);
    let dir: PathBuf = dir.ok_or_else(|| {
        Failure::new(Exit::Failed, "there is no home directory to keep a key in")
            .advise("name one with: --state-dir DIR")
    })?;
    let failed = |error: &dyn std::error::Error| key_failure(&dir, error);
    let id = match Identity::id_in(&dir).map_err(|error| failed(&error))? {
        Some(id) => id,
        None => {
            if let Some(parent) = dir.parent() {
                std::fs::create_dir_all(parent).map_err(|error| failed(&error))?;
            }
            let made = Identity::open(&dir).map_err(|error| failed(&error))?.id();
            // Somebody who wanted that of another directory should see it.
            eprintln!("made a new key in {}", dir.display());
            made
        }
    };
    print(format!("{id}\n"))?;
    Ok(Exit::Done)
}

fn key_failure(dir: &Path, error: &dyn std::error::Error) -> Failure {
    let failure = Failure::of(Exit::Failed, error);
    Failure { what: format!("no key in {}: {}", dir.display(), failure.what), ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layer::{Given, Layer};

    #[test]
    fn every_setting_is_shown_with_where_it_comes_from() {
        let file = Origin::File("isle.toml".into(), 2);
        let layer: Layer =
            [("seed", Given { values: vec!["a".into(), "b".into()], origin: file })].into_iter().collect();
        let settings = Settings::of([layer]);
        let piped = shown(Screen::pipe(), &settings);
        let words = |name: &str| -> Vec<String> {
            let line = piped.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
            line.split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(words("seed"), ["seed", "a,b", "isle.toml:2"]);
        assert_eq!(words("wait"), ["wait", "2s", "default"]);
        assert_eq!(words("name"), ["name", "-", "default"]);
        let terminal = shown(Screen { width: Some(80), ..Screen::pipe() }, &settings);
        assert!(terminal.contains("(this host's name)"), "{terminal}");
    }

    #[test]
    fn what_the_help_does_not_show_no_script_offers() {
        let mut script = Vec::new();
        clap_complete::generate(clap_complete::Shell::Bash, &mut Arguments::command(), "isle", &mut script);
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("--tether"));
        let offered = without_hidden(&script);
        assert!(!offered.contains("tether"), "{offered}");
        assert!(offered.contains("--config --color"), "{offered}");
    }

    #[test]
    fn exit_statuses_have_a_heading_in_the_manual() {
        let folder = tempfile::tempdir().unwrap();
        man(&Man { folder: folder.path().to_owned() }).unwrap();
        let page = std::fs::read_to_string(folder.path().join("isle.1")).unwrap();
        assert!(page.contains(".SH \"EXIT STATUS\"\n0 done; 1 failed"), "{page}");
        assert!(!page.contains("EXTRA"));
    }

    #[test]
    fn a_key_is_made_once_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("state/bridge");
        let key = Key { state_dir: Some(dir.clone()) };
        assert_eq!(super::key(&key).unwrap(), Exit::Done);
        let first = Identity::id_in(&dir).unwrap();
        assert!(first.is_some());
        super::key(&key).unwrap();
        assert_eq!(Identity::id_in(&dir).unwrap(), first);
    }
}
