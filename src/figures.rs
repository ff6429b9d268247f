//! Figures: what they are, how they are counted, split, put together, read from files and shown.
//!
//! Everything here is plain values and files; it knows no HTTP and no mesh. A piece server makes a [`Shelf`] of its
//! files, announces the digest of the shelf's [`Catalogue`], and sends bodies as they stand there. An intermediary
//! reads catalogues, checks each body with [`Entry::check`], and puts shares together with [`merge()`].
//!
//! | module | what it knows |
//! |---|---|
//! | [`name`] | names of figures, and which share of a figure |
//! | [`figure`] | pieces, the one exact body of a figure, its hash and its bounds |
//! | [`catalogue`] | the list of what one piece server holds, as text |
//! | [`shelf`] | what one piece server holds, ready to send |
//! | [`mod@merge`] | shares to a whole, and a whole to shares |
//! | [`formats`] | figures in files: JSON, TOML, Rebrickable's CSV, LDraw |
//! | [`watch`] | files and folders as they change |
//! | [`render`] | a figure for people: a table, a page |
//! | [`text`] | text that shows what it is |

pub mod catalogue;
pub mod figure;
pub mod formats;
pub mod merge;
pub mod name;
pub mod render;
pub mod shelf;
pub mod text;
pub mod watch;

pub use catalogue::{Catalogue, CatalogueError, CatalogueParser, Entry};
pub use figure::{Figure, FigureError, Hash, Piece};
pub use merge::{MergeError, SplitError, merge, split};
pub use name::{FigureName, NotAFigureName, NotAShare, Share};
pub use shelf::{Shelf, Shelved};
pub use watch::{FigureWatch, FileProblem, WatchTask, watch_figures};

#[cfg(test)]
mod measure;
#[cfg(test)]
mod testing;
