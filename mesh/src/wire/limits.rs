//! What a record may hold, so that whatever a node says of itself fits one datagram and is taken by everybody.

use super::fields::is_announceable;
use super::{DATAGRAM_BYTES_MAX, Header, MeshTag, Message, SIGNATURE_BYTES, encode, text};
use crate::member::{Address, CatalogueSummary, MemberId, Record, Stamp};

/// Most roles of a record.
pub const ROLES_MAX: usize = 8;
/// Most addresses of a record.
pub const ADDRESSES_MAX: usize = 8;
/// Most watchers of a record.
pub const WATCHERS_MAX: usize = 6;
/// Most tags of a record.
pub const TAGS_MAX: usize = 16;
/// Most bytes of all keys and values of a record's tags.
pub const TAG_BYTES_MAX: usize = 512;

/// Why a record would be refused by everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Not 1 to 63 bytes of visible characters.
    #[error("a name is 1 to {} bytes of visible characters without spaces", text::LABEL_BYTES_MAX)]
    Name,
    /// As for a name.
    #[error("an island's name is 1 to {} bytes of visible characters without spaces", text::LABEL_BYTES_MAX)]
    Island,
    /// Too many, or not of the grammar.
    #[error("at most {ROLES_MAX} roles, each 1 to {} of a-z 0-9 -", text::WORD_BYTES_MAX)]
    Roles,
    /// Too many, or one that no host can have.
    #[error("at most {ADDRESSES_MAX} addresses, none of them multicast, broadcast or unspecified")]
    Addresses,
    /// Too many.
    #[error("at most {WATCHERS_MAX} watchers")]
    Watchers,
    /// Lowest above highest, or zero.
    #[error("the lowest protocol version is at least 1 and not above the highest")]
    Protocol,
    /// Not at most 32 visible ASCII characters.
    #[error("a version is at most {} visible ASCII characters", text::WORD_BYTES_MAX)]
    Version,
    /// Too many, too long, a key twice, or not of the grammar.
    #[error(
        "at most {TAGS_MAX} tags of {TAG_BYTES_MAX} bytes in all; keys a-z 0-9 . _ -, each once; values printable"
    )]
    Tags,
    /// Each part is allowed, all together do not fit.
    #[error("name, roles and tags are {bytes} bytes too long for one datagram")]
    Long {
        /// So much must go.
        bytes: usize,
    },
}

/// Whether everybody would take `record`, now and after its changing parts (addresses, watchers, island,
/// draining, catalogue) have grown to their largest. To be asked before a node starts and whenever what it
/// announces of itself changes; the words of a checked record always fit a datagram.
///
/// # Errors
/// The first rule that is broken.
pub fn check_record(record: &Record) -> Result<(), RecordError> {
    check_grammar(record)?;
    let mut largest = record.clone();
    largest.addresses = vec![Address { ip: [0x20; 16].into(), prefix: 128 }; ADDRESSES_MAX];
    largest.watchers = vec![MemberId([0; 32]); WATCHERS_MAX];
    largest.island = "x".repeat(text::LABEL_BYTES_MAX);
    largest.catalogue = Some(CatalogueSummary { digest: [0; 32], entries: u32::MAX });
    (largest.http_port, largest.unicast_port) = (u16::MAX, u16::MAX);
    (largest.draining, largest.island_given) = (true, true);
    let message = Message::Announce(largest.into());
    let header = Header::of(MeshTag([0; 4]), MemberId([0; 32]), Stamp::new(1, 1), &message);
    let bytes = encode(&header, &message).len() + SIGNATURE_BYTES;
    match bytes.checked_sub(DATAGRAM_BYTES_MAX) {
        None | Some(0) => Ok(()),
        Some(bytes) => Err(RecordError::Long { bytes }),
    }
}

/// The rules that hold for each part of a record by itself.
pub(crate) fn check_grammar(record: &Record) -> Result<(), RecordError> {
    let tag_bytes: usize = record.tags.iter().map(|(key, value)| key.len() + value.len()).sum();
    let well_formed = |(key, value): &(String, String)| text::is_tag_key(key) && text::is_tag_value(value);
    let repeated = |index: usize| record.tags[..index].iter().any(|(key, _)| *key == record.tags[index].0);
    let (lowest, highest) = record.protocol;
    if !text::is_label(&record.name) {
        return Err(RecordError::Name);
    }
    if !text::is_label(&record.island) {
        return Err(RecordError::Island);
    }
    if record.roles.len() > ROLES_MAX || !record.roles.iter().all(|role| text::is_role(role)) {
        return Err(RecordError::Roles);
    }
    if record.addresses.len() > ADDRESSES_MAX || !record.addresses.iter().all(is_announceable) {
        return Err(RecordError::Addresses);
    }
    if record.watchers.len() > WATCHERS_MAX {
        return Err(RecordError::Watchers);
    }
    if lowest == 0 || lowest > highest {
        return Err(RecordError::Protocol);
    }
    if !text::is_version(&record.version) {
        return Err(RecordError::Version);
    }
    if record.tags.len() > TAGS_MAX
        || tag_bytes > TAG_BYTES_MAX
        || !record.tags.iter().all(well_formed)
        || (0..record.tags.len()).any(repeated)
    {
        return Err(RecordError::Tags);
    }
    Ok(())
}
