//! NETWORK.md prints a figure and a catalogue: they must be what ours are.

use isle::figures::{Catalogue, Entry, Figure, Hash};

use crate::network;

/// The code block after a mark, without its last line end.
fn block<'a>(text: &'a str, mark: &str) -> &'a str {
    let (_, rest) = text.split_once(mark).unwrap();
    let (_, rest) = rest.split_once("```").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    rest.split_once("\n```").unwrap().0
}

#[test]
fn the_printed_figure_and_catalogue_are_ours() {
    let text = network::network();
    let figure = Figure::from_body(block(&text, "<!-- figure -->").as_bytes()).unwrap();
    let (line, digest) = block(&text, "<!-- catalogue -->").rsplit_once("\n# digest ").unwrap();
    let catalogue = format!("{line}\n");
    let read = Catalogue::parse(catalogue.as_bytes()).unwrap();
    assert_eq!(read.entries(), [Entry::of(&figure)]);
    assert_eq!((read.digest(), digest.parse()), (Hash::of(catalogue.as_bytes()), Ok(read.digest())));
}
