//! LDraw models, `.ldr` and `.mpd`: each line of type 1 is one part, or a submodel that stands in the same file.
//!
//! The part is the file name it refers to, in lower case and without `.dat`; the colour is the LDraw code as text
//! (direct colours as `0x2rrggbb`). Code 16 means "as whoever uses me": in a submodel the colour of the line that
//! uses it, in the model itself no colour. No other file is ever opened: a submodel that is not in the file is an error,
//! and what is called `.dat` is a part, even if the file brings its drawing along.
//!
//! Source: LDraw file format 1.0.2 and its MPD extension, ldraw.org.

use std::collections::{BTreeMap, HashMap};

use super::{FormatError, count};
use crate::figures::figure::{Piece, Tally};

/// Submodels within submodels. Required by DESIGN's threat model; people nest five deep.
const DEPTH_MAX: usize = 32;

/// Additions while submodels are counted. Required by DESIGN's threat model: ten levels of ten submodels of ten would
/// otherwise be ten thousand million parts.
const EXPANSIONS_MAX: usize = 1_000_000;

/// Counts the pieces of an `.ldr` or `.mpd` file, submodels expanded.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub(super) fn parse(bytes: &[u8]) -> Result<Tally, FormatError> {
    let models = Models::read(bytes)?;
    let mut counting = Counting { models: &models, counts: HashMap::new(), expansions: 0 };
    counting.model(models.main, 1)?;
    let main = &models.list[models.main];
    let mut tally = Tally::default();
    for ((part, color), quantity) in counting.counts.remove(&models.main).flatten().into_iter().flatten() {
        count(&mut tally, main.line, (part, color, quantity))?;
    }
    Ok(tally)
}

/// All models of a file, and the one that it is about: the first.
struct Models {
    list: Vec<Model>,
    by_name: HashMap<String, usize>,
    main: usize,
}

#[derive(Default)]
struct Model {
    line: usize,
    references: Vec<Reference>,
}

/// A line of type 1.
struct Reference {
    line: usize,
    /// `None`: code 16.
    color: Option<String>,
    /// Lower case, with `/`.
    target: String,
}

impl Models {
    fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        // What stands before the first `0 FILE` is a model without a name.
        let mut list = vec![Model { line: 1, ..Model::default() }];
        let mut by_name = HashMap::new();
        let mut current = Some(0);
        for (number, line) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
            let line = line.trim_ascii();
            let kind = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
            match kind {
                b"" | b"2" | b"3" | b"4" | b"5" => {}
                // Remarks may be in any old encoding; names and parts may not.
                b"0" => match meta(&String::from_utf8_lossy(&line[1..])) {
                    Meta::File(name) => {
                        if by_name.insert(name.clone(), list.len()).is_some() {
                            return Err(FormatError::new(number, format_args!("a second model {name:?}")));
                        }
                        current = Some(list.len());
                        list.push(Model { line: number, ..Model::default() });
                    }
                    Meta::NoFile => current = None,
                    Meta::Other => {}
                },
                b"1" => {
                    let text =
                        std::str::from_utf8(line).map_err(|_| FormatError::new(number, "not UTF-8"))?;
                    let reference = reference(number, text)?;
                    if let Some(current) = current {
                        list[current].references.push(reference);
                    }
                }
                _ => return Err(FormatError::new(number, "an LDraw line begins with 0 to 5")),
            }
        }
        let main = usize::from(list[0].references.is_empty() && list.len() > 1);
        Ok(Self { list, by_name, main })
    }
}

enum Meta {
    File(String),
    NoFile,
    Other,
}

fn meta(rest: &str) -> Meta {
    let rest = rest.trim_start();
    let (word, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match word {
        "FILE" => Meta::File(normal(argument)),
        "NOFILE" => Meta::NoFile,
        _ => Meta::Other,
    }
}

/// Names of files differ neither by case nor by the slash.
fn normal(name: &str) -> String {
    name.trim().to_lowercase().replace('\\', "/")
}

/// Reads `1 <colour> <x y z> <a b c d e f g h i> <file>`; the file's name may have spaces.
fn reference(line: usize, text: &str) -> Result<Reference, FormatError> {
    let mut rest = text;
    let mut word = || {
        let trimmed = rest.trim_start();
        let (word, after) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
        rest = after;
        word
    };
    let _one = word();
    let color = color(line, word())?;
    for _ in 0..12 {
        let number = word();
        if !number.parse().is_ok_and(f64::is_finite) {
            return Err(FormatError::new(line, "a part has a colour, twelve numbers and a file"));
        }
    }
    let target = normal(rest);
    // What is wrong with the text is better said here, where the line is known.
    Piece::new(part_of(&target), color.as_deref(), 1).map_err(|error| FormatError::new(line, error))?;
    Ok(Reference { line, color, target })
}

fn color(line: usize, text: &str) -> Result<Option<String>, FormatError> {
    let code = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).map(|code| format!("{code:#x}")),
        None => text.parse().map(|code: u32| code.to_string()),
    };
    match code {
        Ok(code) if code == "16" => Ok(None),
        Ok(code) => Ok(Some(code)),
        Err(_) => Err(FormatError::new(line, format_args!("{text:?} is not a colour code"))),
    }
}

fn part_of(target: &str) -> &str {
    target.strip_suffix(".dat").unwrap_or(target)
}

/// Parts by colour; no colour: that of whoever uses the model.
type Counts<'a> = BTreeMap<(&'a str, Option<&'a str>), u32>;

/// Counts each model once, however often it is used, so that nesting multiplies numbers and not work.
struct Counting<'a> {
    models: &'a Models,
    /// Models that are counted. Those being counted are there, too, empty: to find the one that contains itself.
    counts: HashMap<usize, Option<Counts<'a>>>,
    expansions: usize,
}

impl<'a> Counting<'a> {
    fn model(&mut self, which: usize, depth: usize) -> Result<(), FormatError> {
        let models: &'a Models = self.models;
        self.counts.insert(which, None);
        let mut counts = Counts::new();
        for reference in &models.list[which].references {
            let color = reference.color.as_deref();
            let Some(submodel) = submodel(models, reference)? else {
                self.add(&mut counts, reference, (part_of(&reference.target), color), 1)?;
                continue;
            };
            match self.counts.get(&submodel) {
                Some(Some(_)) => {}
                Some(None) => {
                    let reason = format!("submodel {:?} contains itself", reference.target);
                    return Err(FormatError::new(reference.line, reason));
                }
                None if depth == DEPTH_MAX => {
                    let reason = format!("submodels more than {DEPTH_MAX} deep");
                    return Err(FormatError::new(reference.line, reason));
                }
                None => self.model(submodel, depth + 1)?,
            }
            // Taken out while it is added, because adding counts expansions; put back after.
            let counted = self.counts.insert(submodel, None).flatten().expect("counted above");
            for (&(part, own), &quantity) in &counted {
                self.add(&mut counts, reference, (part, own.or(color)), quantity)?;
            }
            self.counts.insert(submodel, Some(counted));
        }
        self.counts.insert(which, Some(counts));
        Ok(())
    }

    fn add(
        &mut self,
        counts: &mut Counts<'a>,
        reference: &Reference,
        kind: (&'a str, Option<&'a str>),
        quantity: u32,
    ) -> Result<(), FormatError> {
        self.expansions += 1;
        if self.expansions > EXPANSIONS_MAX {
            return Err(FormatError::new(reference.line, "more than a million parts and submodels to count"));
        }
        let count = counts.entry(kind).or_insert(0);
        *count =
            count.checked_add(quantity).ok_or_else(|| FormatError::new(reference.line, "too many pieces"))?;
        Ok(())
    }
}

/// The model of this file that a line refers to; `None`: a part.
fn submodel(models: &Models, reference: &Reference) -> Result<Option<usize>, FormatError> {
    if reference.target.ends_with(".dat") {
        return Ok(None);
    }
    match models.by_name.get(&reference.target) {
        Some(&submodel) => Ok(Some(submodel)),
        None => Err(FormatError::new(
            reference.line,
            format_args!("submodel {:?} is not in this file; save the model as .mpd", reference.target),
        )),
    }
}
