//! A way through islands: which lie on it, in which order. Built only if no loop is in it.

use crate::wire::text::is_label;

/// Most islands on a path, the one it starts from not counted.
pub const PATH_ISLANDS_MAX: usize = 8;

/// The islands on a way, the nearest first, the destination last; the one it starts from is not among them.
///
/// 1 to [`PATH_ISLANDS_MAX`] labels, each once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Path(Vec<String>);

/// Islands that are no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// None, or more than may be.
    #[error("a path has 1 to {PATH_ISLANDS_MAX} islands")]
    Length,
    /// An island twice: following it would lead round in a circle.
    #[error("an island is twice on the path")]
    Loop,
    /// Not the name of an island.
    #[error("an island's name is not a label")]
    Label,
}

impl Path {
    /// Of these islands in this order.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(islands: Vec<String>) -> Result<Self, PathError> {
        if !(1..=PATH_ISLANDS_MAX).contains(&islands.len()) {
            return Err(PathError::Length);
        }
        if !islands.iter().all(|island| is_label(island)) {
            return Err(PathError::Label);
        }
        let is_repeated = |index: usize| islands[..index].contains(&islands[index]);
        if (1..islands.len()).any(is_repeated) {
            return Err(PathError::Loop);
        }
        Ok(Self(islands))
    }

    /// The same way from one island earlier: `island` first, then these.
    ///
    /// # Errors
    /// It would be too long, or `island` is on it already.
    pub fn through(&self, island: &str) -> Result<Self, PathError> {
        let islands = std::iter::once(island).chain(self.0.iter().map(String::as_str));
        Self::new(islands.map(str::to_owned).collect())
    }

    /// All of them, the nearest first.
    #[must_use]
    pub fn islands(&self) -> &[String] {
        &self.0
    }

    /// Where it leads.
    #[must_use]
    pub fn destination(&self) -> &str {
        self.0.last().expect("a path has at least one island")
    }

    /// The first island on the way.
    #[must_use]
    pub fn next(&self) -> &str {
        self.0.first().expect("a path has at least one island")
    }

    /// Whether `island` lies on it, its end included.
    #[must_use]
    pub fn contains(&self, island: &str) -> bool {
        self.0.iter().any(|on_path| on_path == island)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(islands: &str) -> Result<Path, PathError> {
        Path::new(islands.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn a_path_has_no_loop_and_no_more_than_eight_islands() {
        assert!(path("a b c d e f g h").is_ok());
        assert_eq!(path("a b c d e f g h i"), Err(PathError::Length));
        assert_eq!(path(""), Err(PathError::Length));
        assert_eq!(path("a b a"), Err(PathError::Loop));
        assert_eq!(Path::new(vec!["two words".into()]), Err(PathError::Label));
    }

    #[test]
    fn an_island_earlier_is_put_in_front() {
        let way = path("b c").unwrap();
        let longer = way.through("a").unwrap();
        assert_eq!((longer.next(), longer.destination()), ("a", "c"));
        assert_eq!(way.through("c"), Err(PathError::Loop));
        assert_eq!(path("b c d e f g h i").unwrap().through("a"), Err(PathError::Length));
    }
}
