//! How segments and records look on disk. No I/O, and nothing here trusts the bytes it reads.
//!
//! ```text
//!     segment   0     header   "PLIMSEVT", version u32, kind u32, salt u64, number u32, uses u32, size u64, CRC u32
//!               2048  the header again, so that one damaged byte does not cost the segment
//!               4096  records; each commit begins at a multiple of 4096, and zeros fill what is left of its last block;
//!                     then zeros to the end or, if the file was used before, one block of zeros and bytes of then
//!
//!     record    0     CRC u32 over salt, offset and the rest of the head
//!               4     length of the body u32
//!               8     CRC u32 over salt, offset, length and body
//!               12    kind u32
//!               16    sequence number u64
//!               24    body, then zeros up to a multiple of 8
//! ```
//!
//! All numbers are little-endian. The checks are [CRC-32C](https://www.rfc-editor.org/rfc/rfc3720#appendix-B.4). The
//! salt is random and nowhere but in the header, so bytes that a producer chose can never read as a record. A file that
//! is used again gets another salt, so what it held before can never read as a record either.

use std::ops::Range;

/// Bytes of a record before its body.
pub(crate) const HEAD: usize = 24;

/// A commit writes whole blocks of this many bytes, so it never writes again what an earlier one made durable.
pub(crate) const BLOCK: u64 = 4096;

/// Where a segment's header ends and its records begin.
pub(crate) const FIRST: u64 = BLOCK;

/// Where the copies of the header stand.
const COPIES: [usize; 2] = [0, 2048];

const MAGIC: [u8; 8] = *b"PLIMSEVT";

/// The format that this code writes, and the only one that it reads.
pub(crate) const VERSION: u32 = 1;

/// Most bytes of a segment: an eighth of the largest queue.
const MOST_SIZE: u64 = 512 << 20;

/// The highest number that an event can have, so that there is always a next one.
const LAST_SEQUENCE: u64 = i64::MAX as u64;

/// Bytes of a header under its check.
const CHECKED: usize = 40;

/// What the records of a segment are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Events that are to be delivered.
    Live = 1,
    /// Dead letters.
    Dead = 2,
    /// Keys that producers gave.
    Keys = 3,
}

impl Purpose {
    /// How the names of such segments end.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Live => "log",
            Self::Dead => "dead",
            Self::Keys => "keys",
        }
    }
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) purpose: Purpose,
    pub(crate) number: u32,
    pub(crate) salt: u64,
    /// How many segments the file was before. If it was any, their bytes stand behind the records.
    pub(crate) uses: u32,
    /// Bytes of the whole file.
    pub(crate) size: u64,
}

/// Why a header could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// Neither copy is whole.
    Damaged,
    /// It is whole, and of a format that this code does not know.
    Version(u32),
}

impl Header {
    /// The header of the next segment in the same file. `None` once all salts of the file were used.
    ///
    /// Of the salt only the lower half counts on. A CRC of 32 bits differs for any two inputs that differ in 32 adjacent
    /// bits only, so no head that an earlier segment wrote passes the check of this one, at whatever offset it stands.
    pub(crate) fn again(&self, number: u32) -> Option<Self> {
        const LOWER: u64 = u32::MAX as u64;
        Some(Self {
            number,
            salt: self.salt & !LOWER | self.salt.wrapping_add(1) & LOWER,
            uses: self.uses.checked_add(1)?,
            ..*self
        })
    }

    /// The block that a segment begins with.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(CHECKED + 4);
        copy.extend_from_slice(&MAGIC);
        copy.extend_from_slice(&VERSION.to_le_bytes());
        copy.extend_from_slice(&(self.purpose as u32).to_le_bytes());
        copy.extend_from_slice(&self.salt.to_le_bytes());
        copy.extend_from_slice(&self.number.to_le_bytes());
        copy.extend_from_slice(&self.uses.to_le_bytes());
        copy.extend_from_slice(&self.size.to_le_bytes());
        copy.extend_from_slice(&crc32c::crc32c(&copy).to_le_bytes());
        let mut block = vec![0; to_usize(BLOCK)];
        for at in COPIES {
            block[at..at + copy.len()].copy_from_slice(&copy);
        }
        block
    }

    /// Reads the block that a segment begins with; what a truncated file lacks may be missing.
    pub(crate) fn decode(block: &[u8]) -> Result<Self, BadHeader> {
        let mut found = Err(BadHeader::Damaged);
        for at in COPIES {
            let Some(copy) = block.get(at..at + CHECKED + 4) else {
                break;
            };
            if copy[..8] != MAGIC || u32_at(copy, CHECKED) != crc32c::crc32c(&copy[..CHECKED]) {
                continue;
            }
            let version = u32_at(copy, 8);
            if version != VERSION {
                return Err(BadHeader::Version(version));
            }
            let purpose = match u32_at(copy, 12) {
                1 => Purpose::Live,
                2 => Purpose::Dead,
                3 => Purpose::Keys,
                _ => continue,
            };
            let size = u64_at(copy, 32);
            if !(FIRST..=MOST_SIZE).contains(&size) || !size.is_multiple_of(BLOCK) {
                continue;
            }
            found = Ok(Self {
                purpose,
                salt: u64_at(copy, 16),
                number: u32_at(copy, 24),
                uses: u32_at(copy, 28),
                size,
            });
            break;
        }
        found
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An event.
    Event = 1,
    /// How far the delivery of events has come: [`Note`]s.
    Notes = 2,
    /// Events that are over: [`Done`]s.
    Done = 3,
    /// Keys that producers gave.
    Keys = 4,
}

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHead {
    pub(crate) kind: Kind,
    /// Bytes of the body.
    pub(crate) length: u32,
    /// Which event, counted from the first that the queue ever took; 0 for what is not an event.
    pub(crate) sequence: u64,
    body_crc: u32,
}

impl RecordHead {
    /// Reads a head, if it is whole and was written at this very offset of the segment with this salt.
    pub(crate) fn decode(bytes: &[u8], salt: u64, offset: u64) -> Option<Self> {
        let head = bytes.get(..HEAD)?;
        let kind = match u32_at(head, 12) {
            1 => Kind::Event,
            2 => Kind::Notes,
            3 => Kind::Done,
            4 => Kind::Keys,
            _ => return None,
        };
        if u32_at(head, 0) != head_crc(head, salt, offset) {
            return None;
        }
        Some(Self {
            kind,
            length: u32_at(head, 4),
            sequence: sequence_at(head, 16)?,
            body_crc: u32_at(head, 8),
        })
    }

    /// Bytes that the whole record takes.
    pub(crate) fn span(&self) -> u64 {
        span(u64::from(self.length))
    }

    /// Whether this is the body that was written with this head.
    pub(crate) fn fits(&self, salt: u64, offset: u64, body: &[u8]) -> bool {
        body.len() as u64 == u64::from(self.length)
            && self.body_crc == body_crc(salt, offset, self.length, body)
    }
}

/// Bytes that a record with a body of this many takes.
pub(crate) fn span(length: u64) -> u64 {
    (HEAD as u64 + length).next_multiple_of(8)
}

/// Appends a record that will stand at `offset`; where its body stands in `out`.
///
/// # Panics
///
/// When the body is 4 GiB or longer; a segment is shorter.
pub(crate) fn append(
    out: &mut Vec<u8>,
    salt: u64,
    offset: u64,
    kind: Kind,
    sequence: u64,
    body: &[u8],
) -> Range<usize> {
    let length = u32::try_from(body.len()).expect("a record fits in a segment");
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&body_crc(salt, offset, length, body).to_le_bytes());
    out.extend_from_slice(&(kind as u32).to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    let crc = head_crc(&out[start..], salt, offset);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(body);
    let end = out.len();
    out.resize(start + to_usize(span(u64::from(length))), 0);
    start + HEAD..end
}

fn head_crc(head: &[u8], salt: u64, offset: u64) -> u32 {
    crc32c::crc32c_append(place_crc(salt, offset), &head[4..HEAD])
}

fn body_crc(salt: u64, offset: u64, length: u32, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(place_crc(salt, offset), &length.to_le_bytes());
    crc32c::crc32c_append(crc, body)
}

fn place_crc(salt: u64, offset: u64) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&salt.to_le_bytes());
    place[8..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c(&place)
}

/// How far the delivery of one event has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// When the next attempt is due, in milliseconds since 1970.
    pub(crate) due: u64,
    /// How long that was from the last attempt, in milliseconds.
    pub(crate) delay: u32,
    /// Attempts so far.
    pub(crate) attempts: u32,
}

impl Note {
    /// Bytes on disk: the event's sequence number and these three.
    pub(crate) const SIZE: usize = 24;

    pub(crate) fn append(&self, out: &mut Vec<u8>, sequence: u64) {
        out.extend_from_slice(&sequence.to_le_bytes());
        out.extend_from_slice(&self.due.to_le_bytes());
        out.extend_from_slice(&self.delay.to_le_bytes());
        out.extend_from_slice(&self.attempts.to_le_bytes());
    }

    /// The notes of a record's body, each with the event's sequence number.
    pub(crate) fn decode(body: &[u8]) -> impl Iterator<Item = (u64, Self)> {
        body.chunks_exact(Self::SIZE).map(|bytes| {
            let note = Self {
                due: u64_at(bytes, 8),
                delay: u32_at(bytes, 16),
                attempts: u32_at(bytes, 20),
            };
            (u64_at(bytes, 0), note)
        })
    }
}

/// An event that is over, and the segment that held it. Once that segment is gone, this need not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) sequence: u64,
    pub(crate) segment: u32,
}

impl Done {
    /// Bytes on disk.
    pub(crate) const SIZE: usize = 16;

    pub(crate) fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&u64::from(self.segment).to_le_bytes());
    }

    pub(crate) fn decode(body: &[u8]) -> impl Iterator<Item = Self> {
        body.chunks_exact(Self::SIZE).filter_map(|bytes| {
            Some(Self {
                sequence: sequence_at(bytes, 0)?,
                segment: u32_at(bytes, 8),
            })
        })
    }
}

/// The number at this place of a slice that is long enough.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The number at this place of a slice that is long enough.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The number of an event at this place of a slice that is long enough. `None` if no event has it.
pub(crate) fn sequence_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64_at(bytes, at)).filter(|number| *number <= LAST_SEQUENCE)
}

/// A length or an offset within one segment as an index.
///
/// # Panics
///
/// When it does not fit, on a machine with addresses of 32 bits; a segment is shorter.
pub(crate) fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("a segment is shorter than the address space")
}
