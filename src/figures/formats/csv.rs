//! CSV: a part list as Rebrickable exports it, with the columns `Part`, `Color`, `Quantity` and `Is Spare`.
//!
//! Columns are found by their names, in any order and case; others are ignored. `Color` and `Is Spare` may be missing.
//! Spares are not counted. An empty colour is none, and so are Rebrickable's -1 (unknown) and 9999 (any colour).

use super::{FormatError, count};
use crate::figures::figure::Tally;

/// Counts the pieces of a `.csv` file.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub(super) fn parse(bytes: &[u8]) -> Result<Tally, FormatError> {
    let mut rows = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let columns = Columns::find(rows.headers().map_err(|error| malformed(&error))?)?;
    let mut tally = Tally::default();
    let mut row = csv::StringRecord::new();
    while rows.read_record(&mut row).map_err(|error| malformed(&error))? {
        let line =
            row.position().map_or(0, |position| usize::try_from(position.line()).unwrap_or(usize::MAX));
        let field = |column: Option<usize>| column.and_then(|column| row.get(column)).unwrap_or("");
        let quantity = field(Some(columns.quantity));
        let quantity = quantity
            .parse()
            .map_err(|_| FormatError::new(line, format_args!("quantity {quantity:?} is not a number")))?;
        match field(columns.is_spare).to_ascii_lowercase().as_str() {
            "true" | "t" => continue,
            "false" | "f" | "" => {}
            other => {
                return Err(FormatError::new(
                    line,
                    format_args!("is spare {other:?} is neither true nor false"),
                ));
            }
        }
        let color = Some(field(columns.color)).filter(|color| !matches!(*color, "-1" | "9999"));
        count(&mut tally, line, (field(Some(columns.part)), color, quantity))?;
    }
    Ok(tally)
}

struct Columns {
    part: usize,
    color: Option<usize>,
    quantity: usize,
    is_spare: Option<usize>,
}

impl Columns {
    fn find(header: &csv::StringRecord) -> Result<Self, FormatError> {
        let find = |name: &str| header.iter().position(|field| field.eq_ignore_ascii_case(name));
        let need = |name: &str| {
            find(name)
                .ok_or_else(|| FormatError::new(1, format_args!("no column {name:?} in the first line")))
        };
        Ok(Self {
            part: need("Part")?,
            color: find("Color"),
            quantity: need("Quantity")?,
            is_spare: find("Is Spare"),
        })
    }
}

fn malformed(error: &csv::Error) -> FormatError {
    let line = error.position().map(|position| usize::try_from(position.line()).unwrap_or(usize::MAX));
    match error.kind() {
        csv::ErrorKind::Utf8 { .. } => FormatError::new(line, "not UTF-8"),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            FormatError::new(line, format_args!("{len} fields, the first line has {expected_len}"))
        }
        _ => FormatError::new(line, error),
    }
}
