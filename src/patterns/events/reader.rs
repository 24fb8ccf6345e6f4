//! Reads the records of a segment forward, whatever its bytes are.
//!
//! What is not a record is skipped: the next head that validates is looked for at every multiple of 8. Zeros up to a
//! block's end after a record, and zeros to the end of the segment, are no damage: there a commit ended, and there
//! nothing has been written. In a file that was used before, a block of zeros behind the last record says that nothing
//! has been written from there on. A commit that a crash cut short looks like damage; its events were never acknowledged.

use std::io;

use super::record::{BLOCK, FIRST, HEAD, Header, RecordHead, to_usize};

/// What is read at once, unless a record is longer.
const WINDOW: usize = 64 * 1024;

/// Bytes that can be read at any offset.
pub(crate) trait Source {
    /// Reads into `buffer` from `offset` on; fewer bytes only at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl Source for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let offset = usize::try_from(offset).map_or(self.len(), |offset| offset.min(self.len()));
        let count = buffer.len().min(self.len() - offset);
        buffer[..count].copy_from_slice(&self[offset..offset + count]);
        Ok(count)
    }
}

/// What stands in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// A record.
    Record {
        /// Where it begins.
        offset: u64,
        head: RecordHead,
        body: &'a [u8],
    },
    /// Bytes that are no record.
    Damage(Hole),
}

/// A part of a segment that cannot be read as records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// The event whose body is damaged, where its head is whole.
    pub(crate) sequence: Option<u64>,
    /// Whether no record follows, so that this may be what a crash left of the last commit.
    pub(crate) last: bool,
}

/// Reads a segment's records forward: call [`next`](Self::next) until it gives nothing.
#[derive(Debug)]
pub(crate) struct Reader<'a, S: Source + ?Sized> {
    source: &'a S,
    salt: u64,
    /// Whether bytes of an earlier segment may stand behind the records.
    used_before: bool,
    /// Whether a block of zeros has said so, since the last record.
    over: bool,
    /// Where to go on.
    position: u64,
    /// Where the last record, or the last damage before one, ended.
    end: u64,
    /// Bytes that are there.
    length: u64,
    /// Where bytes began that are no record.
    lost: Option<u64>,
    /// The end of the last byte that is not zero, and not known to be of an earlier segment.
    written: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a, S: Source + ?Sized> Reader<'a, S> {
    /// Reads a segment, of which `length` bytes are there, from its first record on.
    pub(crate) fn new(source: &'a S, header: &Header, length: u64) -> Self {
        Self {
            source,
            salt: header.salt,
            used_before: header.uses > 0,
            over: false,
            position: FIRST,
            end: FIRST,
            length,
            lost: None,
            written: FIRST,
            window: Vec::new(),
            window_at: 0,
        }
    }

    /// Bytes that it has allocated.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn held(&self) -> usize {
        self.window.capacity()
    }

    /// Goes on at the end of a record that another reader of this segment has read.
    pub(crate) fn skip_to(&mut self, position: u64) {
        self.position = position;
        self.end = position;
        self.written = position;
    }

    /// Where the next call goes on.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The first block after the last record: where the next commit may go, once what is [`dirty`](Self::dirty) is zeros.
    pub(crate) fn free(&self) -> u64 {
        self.end.next_multiple_of(BLOCK)
    }

    /// The end of what is to become zeros behind the last record: all that is not or, in a file that was used before, one
    /// block.
    pub(crate) fn dirty(&self) -> u64 {
        if self.used_before {
            self.written.min(self.free() + BLOCK)
        } else {
            self.written
        }
    }

    /// The next record, or the next bytes that are none.
    ///
    /// # Errors
    ///
    /// When the source cannot be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Item<'_>>> {
        loop {
            let offset = self.position;
            let Some(head) = self.head_at(offset)? else {
                if offset + HEAD as u64 > self.length {
                    return self.finish();
                }
                self.step()?;
                continue;
            };
            self.over = false;
            if let Some(lost) = self.lost.take() {
                // The record is read again at the next call.
                return Ok(Some(Item::Damage(Hole {
                    offset: lost,
                    length: offset - lost,
                    sequence: None,
                    last: false,
                })));
            }
            let body_at = offset + HEAD as u64;
            let length = u64::from(head.length);
            // A record is padded, but the padding of the last one may be missing from a truncated file.
            if length > self.length - body_at {
                self.position = self.length;
                self.end = self.length;
                return Ok(Some(Item::Damage(Hole {
                    offset,
                    length: self.length - offset,
                    sequence: (head.sequence != 0).then_some(head.sequence),
                    last: true,
                })));
            }
            self.position = (offset + head.span()).min(self.length);
            self.end = self.position;
            self.written = self.position;
            let salt = self.salt;
            let body = self.window(body_at, to_usize(length))?;
            let range = body.0..body.1;
            if head.fits(salt, offset, &self.window[range.clone()]) {
                return Ok(Some(Item::Record {
                    offset,
                    head,
                    body: &self.window[range],
                }));
            }
            return Ok(Some(Item::Damage(Hole {
                offset,
                length: self.position - offset,
                sequence: (head.sequence != 0).then_some(head.sequence),
                last: false,
            })));
        }
    }

    /// Tells what stands behind the last record, once.
    fn finish(&mut self) -> io::Result<Option<Item<'_>>> {
        if self.position < self.length {
            let rest = to_usize(self.length - self.position);
            let (start, end) = self.window(self.position, rest)?;
            let last = self.window[start..end].iter().rposition(|byte| *byte != 0);
            if let Some(last) = last.filter(|_| !self.over) {
                self.lost.get_or_insert(self.position);
                self.written = self.position + last as u64 + 1;
            }
            self.position = self.length;
        }
        let Some(lost) = self.lost.take() else {
            return Ok(None);
        };
        if self.written <= lost {
            return Ok(None);
        }
        Ok(Some(Item::Damage(Hole {
            offset: lost,
            length: self.written - lost,
            sequence: None,
            last: true,
        })))
    }

    fn head_at(&mut self, offset: u64) -> io::Result<Option<RecordHead>> {
        if offset + HEAD as u64 > self.length {
            return Ok(None);
        }
        let salt = self.salt;
        let (start, end) = self.window(offset, HEAD)?;
        Ok(RecordHead::decode(&self.window[start..end], salt, offset))
    }

    /// Goes on from where there is no head: to the next block if there are only zeros before it, else by 8 bytes.
    fn step(&mut self) -> io::Result<()> {
        let offset = self.position;
        let next_block = (offset + 1).next_multiple_of(BLOCK).min(self.length);
        let (start, end) = self.window(offset, to_usize(next_block - offset))?;
        let bytes = &self.window[start..end];
        // Padding follows a record directly, and ends before a block does. Zeros elsewhere are lost bytes if a record
        // follows them.
        let Some(first) = bytes.iter().position(|byte| *byte != 0) else {
            if offset.is_multiple_of(BLOCK) {
                self.lost.get_or_insert(offset);
                self.over |= self.used_before && next_block - offset == BLOCK;
            }
            self.position = next_block;
            return Ok(());
        };
        self.lost.get_or_insert(offset);
        if first < 8 && !self.over {
            self.written = offset + 8;
        }
        // The kind of a record is not zero, so its head begins less than 16 bytes before the first byte that is not.
        let earliest = (offset + first as u64)
            .saturating_sub(16)
            .next_multiple_of(8);
        self.position = earliest.max(offset + 8);
        Ok(())
    }

    /// Where the bytes from `offset` on stand in the window, which is filled as needed. The caller has made sure that
    /// the segment is as long; a file that has become shorter meanwhile reads as zeros.
    fn window(&mut self, offset: u64, count: usize) -> io::Result<(usize, usize)> {
        let held = self.window_at..self.window_at + self.window.len() as u64;
        if !(held.contains(&offset) && offset + count as u64 <= held.end) {
            let rest = to_usize(self.length - offset);
            self.window.clear();
            self.window.shrink_to(WINDOW);
            self.window.resize(rest.min(WINDOW.max(count)), 0);
            self.window_at = offset;
            self.source.read_at(&mut self.window, offset)?;
        }
        let start = to_usize(offset - self.window_at);
        Ok((start, start + count))
    }
}
