//! What one piece server holds: bodies ready to send, and the catalogue of them.

use bytes::Bytes;

use crate::figures::catalogue::{Catalogue, ENTRIES_MAX, Entry};
use crate::figures::figure::Figure;
use crate::figures::name::{FigureName, Share};

/// One figure or share as it is held: the pieces are only in the body, to hold 100,000 in little memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shelved {
    entry: Entry,
    body: Bytes,
}

impl From<&Figure> for Shelved {
    fn from(figure: &Figure) -> Self {
        Self { entry: Entry::of(figure), body: figure.body().clone() }
    }
}

impl Shelved {
    /// A figure that is not here but passed on from a service beside this node: has no body.
    #[must_use]
    pub fn passed_on(name: FigureName) -> Self {
        Self { entry: Entry::passed_on(name), body: Bytes::new() }
    }

    /// Its line of the catalogue: name, share, size and hash.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The exact body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    fn is_same(&self, other: &Self) -> bool {
        self.entry.name == other.entry.name && self.entry.share == other.entry.share
    }
}

/// Everything that a piece server holds at one moment; replaced as a whole when files change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shelf {
    catalogue: Catalogue,
    catalogue_text: Bytes,
    /// In the order of the catalogue's entries.
    bodies: Vec<Bytes>,
}

impl Default for Shelf {
    fn default() -> Self {
        Self::new(&[]).0
    }
}

impl Shelf {
    /// A shelf of these. Of two with the same name and share the first is held; at most [`ENTRIES_MAX`] are held, the
    /// first by name. Says what was left out. O(n log n): some 100 ms for 100,000, not for an async task.
    #[must_use]
    pub fn new(figures: &[Shelved]) -> (Self, Vec<LeftOut>) {
        let mut left_out = Vec::new();
        let mut lines: Vec<_> = figures.iter().map(|shelved| shelved.entry.line()).enumerate().collect();
        // A stable sort that looks at name and share only: of equals the first stays first.
        lines.sort_by(|(_, a), (_, b)| key(a).cmp(key(b)));
        let mut held: Vec<usize> = Vec::with_capacity(lines.len().min(ENTRIES_MAX));
        for (at, _) in &lines {
            let last = held.last().copied().filter(|&last| figures[last].is_same(&figures[*at]));
            match last {
                Some(of) => left_out.push(LeftOut { at: *at, why: Why::Duplicate { of } }),
                None if held.len() == ENTRIES_MAX => left_out.push(LeftOut { at: *at, why: Why::Full }),
                None => held.push(*at),
            }
        }
        let (entries, bodies) =
            held.into_iter().map(|at| (figures[at].entry.clone(), figures[at].body.clone())).unzip();
        let (catalogue, catalogue_text) = Catalogue::of_sorted(entries);
        (Self { catalogue, catalogue_text, bodies }, left_out)
    }

    /// The 17 figures that every isle knows.
    #[must_use]
    pub fn builtin() -> Self {
        Self::new(&builtin()).0
    }

    /// The body of one share of a figure ([`Share::WHOLE`] for all of it), with its entry. O(log n).
    #[must_use]
    pub fn get(&self, name: &FigureName, share: Share) -> Option<(&Entry, &Bytes)> {
        let at = self.catalogue.position(name, share)?;
        Some((&self.catalogue.entries()[at], &self.bodies[at]))
    }

    /// Everything held under a name, in the order of the catalogue: the whole, shares, or both.
    pub fn shares(&self, name: &FigureName) -> impl Iterator<Item = (&Entry, &Bytes)> {
        let range = self.catalogue.range(name);
        self.catalogue.entries()[range.clone()].iter().zip(&self.bodies[range])
    }

    /// What is held.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// The catalogue as `GET /local/catalog` sends it; its hash is the digest.
    #[must_use]
    pub fn catalogue_text(&self) -> &Bytes {
        &self.catalogue_text
    }

    /// How many figures and shares there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bodies.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bodies.is_empty()
    }
}

/// Something that is not on the shelf, by its place among what [`Shelf::new`] was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeftOut {
    /// Its place.
    pub at: usize,
    /// The reason.
    pub why: Why,
}

/// Why something is not on the shelf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Another one with the same name and share is held.
    Duplicate {
        /// The place of that one.
        of: usize,
    },
    /// The shelf holds [`ENTRIES_MAX`].
    Full,
}

/// The built-in figures, in the order of their file.
pub(crate) fn builtin() -> Vec<Shelved> {
    let figures: Vec<Figure> =
        serde_json::from_str(include_str!("builtin.json")).expect("checked by a test of this module");
    figures.iter().map(Shelved::from).collect()
}

/// Name and share of a line, with the tabs behind them: sorts these as whole lines would.
fn key(line: &str) -> &str {
    let end = line.match_indices('\t').nth(1).map_or(line.len(), |(at, _)| at + 1);
    &line[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::figure::{Hash, Piece};

    fn shelved(name: &str, index: u16, of: u16, quantity: u32) -> Shelved {
        let piece = Piece::new("brick", None, quantity).unwrap();
        let share = Share::new(index, of).unwrap();
        Shelved::from(&Figure::new(name.parse().unwrap(), share, None, [piece]).unwrap())
    }

    #[test]
    fn the_built_in_figures_are_the_seventeen_with_their_totals() {
        let shelf = Shelf::builtin();
        let mut all = String::new();
        for entry in shelf.catalogue().entries() {
            let (_, body) = shelf.get(&entry.name, entry.share).unwrap();
            let figure = entry.check(body).unwrap();
            all += &format!("{} {}, ", figure.name(), figure.total());
        }
        assert_eq!(
            all,
            "blacksheep 6, dragon 23, duck 9, elephant 27, fish 12, giraffe 28, horse 18, lion 29, monkey 14, \
             penguin 9, roadrunner 28, shark 22, squid 25, swan 11, turtle 12, unicorn 40, whitesheep 6, "
        );
    }

    #[test]
    fn its_catalogue_text_reads_back_as_its_catalogue() {
        for shelf in [Shelf::builtin(), Shelf::default()] {
            let read = Catalogue::parse(shelf.catalogue_text()).unwrap();
            assert_eq!(read, *shelf.catalogue());
            assert_eq!(read.digest(), Hash::of(shelf.catalogue_text()));
        }
    }

    #[test]
    fn of_two_with_one_name_and_share_the_first_is_held() {
        let (shelf, left_out) =
            Shelf::new(&[shelved("b", 1, 1, 9), shelved("a", 1, 1, 2), shelved("b", 1, 1, 1)]);
        assert_eq!(left_out, [LeftOut { at: 2, why: Why::Duplicate { of: 0 } }]);
        assert_eq!(shelf.get(&"b".parse().unwrap(), Share::WHOLE).unwrap().1, shelved("b", 1, 1, 9).body());
        assert_eq!(shelf.len(), 2);
    }

    #[test]
    fn shares_of_a_name_stand_together_in_the_order_of_their_text() {
        let figures = vec![
            shelved("a-b", 1, 1, 1),
            shelved("a", 2, 12, 1),
            shelved("a", 12, 12, 1),
            shelved("a", 1, 12, 1),
            shelved("a0", 1, 1, 1),
        ];
        let (shelf, _) = Shelf::new(&figures);
        let name = "a".parse().unwrap();
        let shares: Vec<String> = shelf.shares(&name).map(|(entry, _)| entry.share.to_string()).collect();
        assert_eq!(shares, ["1/12", "12/12", "2/12"]);
        assert!(shelf.get(&name, Share { index: 2, of: 12 }).is_some());
        assert!(shelf.get(&name, Share::WHOLE).is_none());
        assert_eq!(Catalogue::parse(shelf.catalogue_text()).as_ref(), Ok(shelf.catalogue()));
    }
}
