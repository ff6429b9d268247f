//! Isle.
fn main() {}
