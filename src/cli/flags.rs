//! The settings of a node as flags of a command: made of the one list, so that help, environment and file
//! cannot say different things.

use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueHint};

use crate::config::Roles;
use crate::config::layer::{self, Given, Layer, Origin};
use crate::config::setting::{Form, Part, SETTINGS, Setting, Unset};

const CONFIG: &str = "config";
const TETHER: &str = "tether";

/// A node that holds figures.
pub const PIECES: u8 = 1;
/// A node that takes clients' requests.
pub const CLIENTS: u8 = 2;
/// A node that links islands.
pub const LINKS: u8 = 4;

/// The flags of a node that does all of this.
#[derive(Clone, Debug, Default)]
pub struct Flags<const ROLES: u8> {
    /// What they say.
    pub layer: Layer,
    /// `--config`.
    pub file: Option<PathBuf>,
    /// `--tether`, which is not in the help: end at once when standard input ends.
    pub tether: bool,
}

impl<const ROLES: u8> Flags<ROLES> {
    /// What such a node does.
    pub const ROLES: Roles =
        Roles { pieces: ROLES & PIECES != 0, intermediary: ROLES & CLIENTS != 0, bridge: ROLES & LINKS != 0 };

    fn settings() -> impl Iterator<Item = &'static Setting> {
        SETTINGS.iter().filter(|setting| match setting.part {
            Part::Node => true,
            Part::Pieces => Self::ROLES.pieces,
            Part::Intermediary => Self::ROLES.intermediary,
            Part::Bridge => Self::ROLES.bridge,
        })
    }
}

impl<const ROLES: u8> Args for Flags<ROLES> {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .value_parser(ValueParser::path_buf())
            .value_hint(ValueHint::FilePath)
            .help_heading(heading(Part::Node))
            .help("Read settings from this TOML file, too: the same names as the flags, without dashes [default: none]");
        let tether = Arg::new(TETHER).long(TETHER).hide(true).action(ArgAction::SetTrue);
        Self::settings().map(flag).fold(command, Command::arg).arg(file).arg(tether)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const ROLES: u8> FromArgMatches for Flags<ROLES> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut layer = Layer::new();
        for setting in Self::settings() {
            let values: Vec<String> = match setting.form {
                Form::Switch if matches.get_flag(setting.name) => vec!["true".to_owned()],
                Form::Switch => Vec::new(),
                Form::Count => match matches.get_count(setting.name) {
                    0 => Vec::new(),
                    times => vec![times.to_string()],
                },
                Form::One => matches.get_one::<String>(setting.name).cloned().into_iter().collect(),
                Form::Many => matches
                    .get_many::<String>(setting.name)
                    .into_iter()
                    .flatten()
                    // A path may have a comma in its name.
                    .flat_map(
                        |text| if setting.value == "PATH" { vec![text.clone()] } else { layer::list(text) },
                    )
                    .collect(),
            };
            if !values.is_empty() {
                layer.insert(setting.name, Given { values, origin: Origin::Flag });
            }
        }
        let file = matches.get_one::<PathBuf>(CONFIG).cloned();
        Ok(Self { layer, file, tether: matches.get_flag(TETHER) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn flag(setting: &'static Setting) -> Arg {
    let arg = Arg::new(setting.name).long(setting.name).help_heading(heading(setting.part));
    let arg = match setting.short {
        Some(short) => arg.short(short),
        None => arg,
    };
    let arg = match setting.form {
        Form::Switch => return arg.action(ArgAction::SetTrue).help(setting.help),
        Form::Count => return arg.action(ArgAction::Count).help(setting.help),
        Form::One => arg.action(ArgAction::Set),
        Form::Many => arg.action(ArgAction::Append),
    };
    let (Unset::Value(default) | Unset::Means(default)) = setting.unset;
    // Values are texts here and judged with those of the other sources; a default of clap's would hide theirs.
    arg.value_name(setting.value)
        .value_parser(ValueParser::string())
        .value_hint(match setting.value {
            "PATH" => ValueHint::AnyPath,
            "DIR" => ValueHint::DirPath,
            "URL" => ValueHint::Url,
            _ => ValueHint::Other,
        })
        .help(format!("{} [default: {default}]", setting.help))
}

fn heading(part: Part) -> &'static str {
    match part {
        Part::Node => "Options of every node",
        Part::Pieces => "Figures",
        Part::Intermediary => "Requests",
        Part::Bridge => "Links",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Flags<{ PIECES | CLIENTS }> {
        let command = Flags::<{ PIECES | CLIENTS }>::augment_args(Command::new("up"));
        let matches = command.try_get_matches_from([&["up"], arguments].concat()).unwrap();
        Flags::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn only_what_was_said_is_in_the_layer() {
        assert!(parsed(&[]).layer.is_empty());
        let flags =
            parsed(&["--seed", "a,b", "--seed", "c", "-vv", "-q", "--figures", "a,b", "--config", "x.toml"]);
        let values = |name: &str| flags.layer[name].values.join(" ");
        assert_eq!(
            (values("seed"), values("verbose"), values("quiet")),
            ("a b c".into(), "2".into(), "true".into())
        );
        assert_eq!(values("figures"), "a,b");
        assert_eq!(flags.layer.len(), 4);
        assert_eq!(flags.file, Some("x.toml".into()));
    }

    #[test]
    fn commands_take_only_the_flags_of_their_roles() {
        let names = |command: Command| -> Vec<String> {
            command.get_arguments().map(|arg| arg.get_id().to_string()).collect()
        };
        let pieces = names(Flags::<PIECES>::augment_args(Command::new("pieces")));
        assert!(pieces.contains(&"figures".to_owned()) && !pieces.contains(&"shed".to_owned()));
        let all = names(Flags::<{ PIECES | CLIENTS | LINKS }>::augment_args(Command::new("all")));
        assert_eq!(all.len(), SETTINGS.len() + 2);
    }
}
