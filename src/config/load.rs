//! The layers put together and made into a [`NodeConfig`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::layer::{self, Given, Layer, LayerError, Origin};
use crate::config::setting::{Form, SETTINGS, Setting, Unset};
use crate::config::value::{self, Wanted};
use crate::config::{BridgeConfig, IntermediaryConfig, NodeConfig, PiecesConfig, Roles};
use crate::figures::FigureName;
use crate::figures::text::visible;
use crate::telemetry::Verbosity;

/// Why a node cannot be started as it is asked to. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A source cannot be used.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A value means nothing.
    #[error("{setting}: \"{text}\" is not {wanted}")]
    Value {
        /// The setting, as its writer wrote it.
        setting: String,
        /// The value, made printable.
        text: String,
        /// What it should have been.
        wanted: Wanted,
    },
    /// One of them has no sense with the other.
    #[error("{one} and {other} exclude each other")]
    Together {
        /// One, as its writer wrote it.
        one: String,
        /// The other.
        other: String,
    },
    /// One of them has no sense without the other.
    #[error("{one} needs --{other}")]
    Alone {
        /// The one there is, as its writer wrote it.
        one: String,
        /// The one that is missing.
        other: &'static str,
    },
}

/// Everything that was said about settings, the loudest source first.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    given: BTreeMap<&'static str, Given>,
}

impl Settings {
    /// Of several layers, the first that says something about a setting decides it.
    #[must_use]
    pub fn of(layers: impl IntoIterator<Item = Layer>) -> Self {
        let mut given = BTreeMap::new();
        for layer in layers {
            for (name, said) in layer {
                given.entry(name).or_insert(said);
            }
        }
        Self { given }
    }

    /// Flags over environment over file. The file is `path`, else that of `ISLE_CONFIG`. Blocks on the disk.
    ///
    /// # Errors
    /// See [`LayerError`].
    pub fn load(flags: Layer, path: Option<PathBuf>) -> Result<Self, LayerError> {
        let environment = layer::environment(|name| std::env::var_os(name))?;
        let path = path
            .or_else(|| std::env::var_os("ISLE_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
        let file = path.map(|path| layer::file(&path)).transpose()?.unwrap_or_default();
        Ok(Self::of([flags, environment, file]))
    }

    /// Values and origin of each setting, as people wrote them, in the order of help.
    pub fn effective(&self) -> impl Iterator<Item = (&'static Setting, Given)> {
        SETTINGS.iter().map(|setting| {
            let given = self.given.get(setting.name).cloned().unwrap_or_else(|| Given {
                values: match setting.unset {
                    Unset::Value(value) => vec![value.to_owned()],
                    Unset::Means(_) => Vec::new(),
                },
                origin: Origin::Default,
            });
            (setting, given)
        })
    }

    /// How much is logged.
    ///
    /// # Errors
    /// A value means nothing.
    pub fn verbosity(&self) -> Result<Verbosity, ConfigError> {
        let verbose =
            self.one("verbose", |text| text.parse::<u8>().map_err(|_| Wanted("a number, 0 to 2")))?;
        let quiet = self.one("quiet", value::switch)?;
        Ok(match (quiet.unwrap_or(false), verbose.unwrap_or(0)) {
            (true, 0) => Verbosity::Quiet,
            (_, 0) => Verbosity::Normal,
            (_, 1) => Verbosity::Debug,
            (_, _) => Verbosity::Trace,
        })
    }

    /// Where the key is kept, if that was said.
    #[must_use]
    pub fn state_dir(&self) -> Option<PathBuf> {
        let given = self.given.get("state-dir")?;
        given.values.first().map(PathBuf::from)
    }

    /// As a node of these roles needs it; settings of roles that it has not are checked all the same.
    ///
    /// # Errors
    /// A value means nothing, or two do not go together.
    pub fn node(&self, roles: Roles) -> Result<NodeConfig, ConfigError> {
        let hour = Duration::from_secs(3600);
        Ok(NodeConfig {
            roles,
            name: self.one("name", value::label)?,
            listen: self.one("listen", value::listen)?,
            advertise: self.many::<IpAddr>("advertise", value::advertised)?,
            island: self.one("island", value::label)?,
            mesh: self.required("mesh", value::label)?,
            discovery_port: self.required("discovery-port", value::port)?,
            interfaces: self.many("interface", value::interface)?,
            seeds: self.many("seed", value::seed)?,
            allow_hosts: self.many("allow-host", value::host)?,
            // The key of a bridge is pinned by others, so it has to be kept.
            state_dir: self.state_dir().or_else(|| roles.bridge.then(default_state_dir)?),
            drain_timeout: self.required("drain-timeout", |text| {
                value::time(text, Duration::ZERO, 24 * hour, "a length of time from 0s to 24h, such as 1m30s")
            })?,
            log_json: self.required("log", |text| match text {
                "text" => Ok(false),
                "json" => Ok(true),
                _ => Err(Wanted("text or json")),
            })?,
            pieces: self.pieces()?,
            intermediary: IntermediaryConfig {
                max_in_flight: self.required("max-in-flight", value::in_flight)?,
                request_timeout: self.required("request-timeout", |text| {
                    value::time(
                        text,
                        Duration::from_millis(1),
                        hour,
                        "a length of time from 1ms to 1h, such as 10s",
                    )
                })?,
                wait: self.required("wait", |text| {
                    value::time(text, Duration::ZERO, hour, "a length of time from 0s to 1h, such as 2s")
                })?,
                shed: self.required("shed", value::shed)?,
            },
            bridge: BridgeConfig {
                links: self.many("link", value::link)?,
                allow: self.many("allow", value::key)?.into_iter().collect(),
                quic: self.one("quic", value::listen)?,
            },
        })
    }

    fn pieces(&self) -> Result<PiecesConfig, ConfigError> {
        let name = |text: &str| match text.parse::<FigureName>() {
            Ok(name) => Ok(name.as_str().to_owned()),
            Err(_) => Err(Wanted("the name of a figure: 1 to 64 of a-z, 0-9, '.', '_' and '-'")),
        };
        for other in ["figures", "only"] {
            if let (Some(one), Some(other)) = (self.writing("upstream"), self.writing(other)) {
                return Err(ConfigError::Together { one, other });
            }
        }
        for (one, other) in [("upstream", "offers"), ("offers", "upstream")] {
            if let (Some(one), None) = (self.writing(one), self.writing(other)) {
                return Err(ConfigError::Alone { one, other });
            }
        }
        Ok(PiecesConfig {
            figures: self.many("figures", |path| Ok(path.to_owned()))?,
            only: self.many("only", name)?,
            upstream: self.one("upstream", value::upstream)?,
            offers: self.many("offers", name)?,
        })
    }

    /// How its writer wrote it, if anybody did.
    fn writing(&self, name: &'static str) -> Option<String> {
        let given = self.given.get(name).filter(|given| !given.values.is_empty())?;
        Some(given.origin.of(setting(name)))
    }

    fn many<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Wanted>,
    ) -> Result<Vec<T>, ConfigError> {
        let Some(given) = self.given.get(name) else { return Ok(Vec::new()) };
        given
            .values
            .iter()
            .map(|text| {
                parse(text).map_err(|wanted| ConfigError::Value {
                    setting: given.origin.of(setting(name)),
                    text: visible(text).into_owned(),
                    wanted,
                })
            })
            .collect()
    }

    /// The last of the values, as with flags that are given twice.
    fn one<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Wanted>,
    ) -> Result<Option<T>, ConfigError> {
        debug_assert_ne!(setting(name).form, Form::Many, "{name}");
        Ok(self.many(name, parse)?.pop())
    }

    fn required<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Wanted>,
    ) -> Result<T, ConfigError> {
        if let Some(value) = self.one(name, &parse)? {
            return Ok(value);
        }
        let Unset::Value(default) = setting(name).unset else { unreachable!("{name} has a default value") };
        Ok(parse(default).expect("defaults are values; a test reads them all"))
    }
}

/// The setting of a name that this module wrote.
fn setting(name: &'static str) -> &'static Setting {
    Setting::named(name).expect("this module names only settings; a test reads them all")
}

/// Where `isle bridge` and `isle key` keep their key when nobody says otherwise: `$XDG_STATE_HOME/isle/bridge`,
/// else `~/.local/state/isle/bridge`; `None` without a home.
#[must_use]
pub fn default_state_dir() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("isle/bridge"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Shed;

    const BOTH: Roles = Roles { pieces: true, intermediary: true, bridge: false };

    fn layer(origin: &Origin, said: &[(&'static str, &[&str])]) -> Layer {
        said.iter()
            .map(|(name, values)| {
                let values = values.iter().map(|&value| value.to_owned()).collect();
                (*name, Given { values, origin: origin.clone() })
            })
            .collect()
    }

    fn flags(said: &[(&'static str, &[&str])]) -> Result<NodeConfig, String> {
        Settings::of([layer(&Origin::Flag, said)]).node(BOTH).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_said_is_a_working_node() {
        let node = flags(&[]).unwrap();
        assert_eq!((node.mesh.as_str(), node.discovery_port), ("isle", 5235));
        assert_eq!(node.drain_timeout, Duration::from_secs(30));
        assert_eq!(node.intermediary.request_timeout, Duration::from_secs(10));
        assert_eq!(node.intermediary.shed, Shed::Forward);
        assert!(node.listen.is_none() && node.name.is_none() && node.pieces.figures.is_empty());
        assert_eq!(Settings::default().verbosity().unwrap(), Verbosity::Normal);
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let file = Origin::File("isle.toml".into(), 4);
        let settings = Settings::of([
            layer(&Origin::Flag, &[("name", &["flag"])]),
            layer(&Origin::Environment, &[("name", &["env"]), ("island", &["env"])]),
            layer(&file, &[("name", &["file"]), ("island", &["file"]), ("mesh", &["file"])]),
        ]);
        let node = settings.node(BOTH).unwrap();
        assert_eq!(
            (node.name.as_deref(), node.island.as_deref(), node.mesh.as_str()),
            (Some("flag"), Some("env"), "file")
        );
        let origins: Vec<_> = settings
            .effective()
            .filter(|(_, given)| given.origin != Origin::Default)
            .map(|(setting, given)| format!("{} {}", setting.name, given.origin))
            .collect();
        assert_eq!(origins, ["name flag", "island env", "mesh isle.toml:4"]);
    }

    #[test]
    fn what_is_wrong_is_named_as_it_was_written() {
        let wrong = |said: &[(&'static str, &[&str])]| flags(said).unwrap_err();
        assert_eq!(
            wrong(&[("listen", &["localhost:80"])]),
            "--listen: \"localhost:80\" is not IP:PORT, such as 0.0.0.0:1233 or [::1]:0"
        );
        assert_eq!(wrong(&[("shed", &["drop"])]), "--shed: \"drop\" is not forward, redirect or refuse");
        assert_eq!(wrong(&[("upstream", &["http://a"])]), "--upstream needs --offers");
        assert_eq!(
            wrong(&[("upstream", &["http://a"]), ("offers", &["a"]), ("figures", &["x"])]),
            "--upstream and --figures exclude each other"
        );
        let environment = Settings::of([layer(&Origin::Environment, &[("max-in-flight", &["0"])])]);
        assert_eq!(
            environment.node(BOTH).unwrap_err().to_string(),
            "ISLE_MAX_IN_FLIGHT: \"0\" is not a number from 1 to 1000000"
        );
        let file = Settings::of([layer(&Origin::File("a.toml".into(), 7), &[("name", &["a\u{1b}b"])])]);
        assert_eq!(
            file.node(BOTH).unwrap_err().to_string(),
            "a.toml:7: name: \"a\\u{1b}b\" is not 1 to 63 bytes of visible characters without spaces"
        );
    }

    #[test]
    fn figures_are_asked_for_in_lower_case() {
        let node = flags(&[("only", &["Giraffe", "duck"])]).unwrap();
        assert_eq!(node.pieces.only, ["giraffe", "duck"]);
    }

    #[test]
    fn quiet_and_verbose_are_heard_from_every_source() {
        let verbosity = |said: &[(&'static str, &[&str])]| {
            Settings::of([layer(&Origin::Environment, said)]).verbosity().map_err(|error| error.to_string())
        };
        assert_eq!(verbosity(&[("quiet", &["true"])]), Ok(Verbosity::Quiet));
        assert_eq!(verbosity(&[("quiet", &["true"]), ("verbose", &["1"])]), Ok(Verbosity::Debug));
        assert_eq!(
            verbosity(&[("verbose", &["x"])]).unwrap_err(),
            "ISLE_VERBOSE: \"x\" is not a number, 0 to 2"
        );
    }
}
