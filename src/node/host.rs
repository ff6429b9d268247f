//! What this host gives us: its name, its descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::debug;

/// The host's own name up to the first dot, reduced to what a label may hold; `node` if nothing is left.
#[must_use]
pub fn name() -> String {
    let full = full_name();
    let label: String = full
        .split('.')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .take(55)
        .collect();
    if label.is_empty() { "node".to_owned() } else { label }
}

/// The host's own name in full.
#[must_use]
pub fn full_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Raises the soft limit of open descriptors to the hard one: 10,000 clients need more than the usual 1,024.
/// Returns the limit now in force; a kernel that refuses leaves it as it was.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, wanted)
    {
        debug!(%error, "descriptor limit stays as it is");
        return limit.current.unwrap_or(u64::MAX);
    }
    limit.maximum.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_a_label() {
        let name = name();
        assert!((1..=55).contains(&name.len()));
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')));
    }
}
