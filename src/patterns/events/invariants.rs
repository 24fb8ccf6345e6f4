//! What must hold for every input: checked by a fuzz target and the property tests.

use super::event::Stored;
use super::reader::{Item, Reader};
use super::record::{FIRST, Header};

/// Any bytes as a segment, and what is in its records as events.
///
/// # Panics
///
/// When an invariant of the reader doesn't hold.
pub(crate) fn segment(bytes: &[u8], salt: u64) {
    let salt = Header::decode(bytes).map_or(salt, |header| header.salt);
    let length = bytes.len() as u64;
    let mut reader = Reader::new(bytes, salt, length);
    let mut position = FIRST;
    while let Some(item) = reader.next().expect("a slice can be read") {
        match item {
            Item::Record { offset, head, body } => {
                assert!(offset >= position && offset.is_multiple_of(8));
                assert!(body.len() as u64 <= length - offset);
                position = (offset + head.span()).min(length);
                let _ = Stored::decode(body);
            }
            Item::Damage(hole) => {
                assert!(hole.offset >= position && hole.length > 0);
                position = hole.offset + hole.length;
            }
        }
        assert!(position <= length.max(FIRST));
    }
    assert!(reader.held() <= bytes.len().max(64 * 1024));
}
