//! The bytes of a body, in blocks of one size.
//!
//! Bodies of all sizes come and go. If each were one allocation, the holes that old ones leave would not fit new ones,
//! and far more would be resident than is kept; blocks of one size fit wherever another was. They are not given back to
//! the allocator, which would keep those of each thread apart from the others'.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::panics::lock;

/// Bytes of a block. Only the last one of a body is smaller.
pub(super) const BLOCK: usize = 4096;

/// Blocks that are not in use, for any body that comes.
#[derive(Default)]
pub(super) struct Spare(Mutex<SpareBlocks>);

#[derive(Default)]
struct SpareBlocks {
    blocks: Vec<Box<[u8]>>,
    /// Most that are kept.
    most: usize,
}

impl Spare {
    /// Keeps blocks of at most this many bytes together from now on.
    pub(super) fn keep(&self, bytes: usize) {
        let mut spare = self.spare();
        spare.most = bytes / BLOCK;
        let most = spare.most;
        spare.blocks.truncate(most);
    }

    /// An empty block.
    fn take(&self) -> Vec<u8> {
        let block = self.spare().blocks.pop();
        block.map_or_else(
            || Vec::with_capacity(BLOCK),
            |block| {
                let mut block = block.into_vec();
                block.clear();
                block
            },
        )
    }

    /// Takes back those of whole size.
    fn give(&self, blocks: impl Iterator<Item = Box<[u8]>>) {
        let mut spare = self.spare();
        for block in blocks.filter(|block| block.len() == BLOCK) {
            if spare.blocks.len() < spare.most {
                spare.blocks.push(block);
            }
        }
    }

    fn spare(&self) -> MutexGuard<'_, SpareBlocks> {
        lock(&self.0)
    }
}

impl fmt::Debug for Spare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.spare().blocks.len();
        f.debug_tuple("Spare").field(&count).finish()
    }
}

/// A whole body.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    pieces: Vec<Box<[u8]>>,
    length: usize,
    /// Where its blocks go once it is forgotten.
    spare: Option<Arc<Spare>>,
}

impl Drop for Blocks {
    fn drop(&mut self) {
        if let Some(spare) = &self.spare {
            spare.give(self.pieces.drain(..));
        }
    }
}

impl Blocks {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Bytes that it takes, with the links to its blocks and what the allocator needs for each.
    pub(super) fn cost(&self) -> usize {
        self.length + self.pieces.len() * (size_of::<Box<[u8]>>() + 16)
    }

    /// The bytes of a range that it has, block by block.
    pub(super) fn slices(&self, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        let first = range.start / BLOCK;
        let blocks = self.pieces.iter().enumerate().skip(first);
        blocks
            .take_while(move |(index, _)| index * BLOCK < range.end)
            .map(move |(index, block)| {
                let start = range.start.saturating_sub(index * BLOCK);
                let end = (range.end - index * BLOCK).min(block.len());
                &block[start..end]
            })
    }
}

/// A body that is still coming.
#[derive(Debug)]
pub(super) struct Growing {
    full: Vec<Box<[u8]>>,
    last: Vec<u8>,
    spare: Arc<Spare>,
}

impl Growing {
    /// Of blocks from there.
    pub(super) fn new(spare: Arc<Spare>) -> Self {
        Self {
            full: Vec::new(),
            last: Vec::new(),
            spare,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.full.len() * BLOCK + self.last.len()
    }

    /// Adds what the block at hand still takes, with a new one if there is none, and gives back the rest.
    pub(super) fn push<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.last.capacity() == 0 {
            self.last = self.spare.take();
        }
        let (taken, rest) = bytes.split_at(bytes.len().min(BLOCK - self.last.len()));
        self.last.extend_from_slice(taken);
        if self.last.len() == BLOCK {
            self.full.push(std::mem::take(&mut self.last).into());
        }
        rest
    }

    /// Whether the next byte needs a new block.
    pub(super) fn needs_block(&self) -> bool {
        self.last.is_empty()
    }

    /// What has come, as a whole; nothing is left.
    pub(super) fn finish(&mut self) -> Blocks {
        let length = self.len();
        if !self.last.is_empty() {
            // A copy of its own size; the block that it came in fits the next body.
            self.full.push(self.last.as_slice().into());
            self.give_last();
        }
        // As above: the list has grown by doubling.
        let pieces = self.full.drain(..).collect::<Box<[_]>>().into_vec();
        Blocks {
            pieces,
            length,
            spare: Some(Arc::clone(&self.spare)),
        }
    }

    fn give_last(&mut self) {
        let mut last = std::mem::take(&mut self.last);
        if last.capacity() == BLOCK {
            last.resize(BLOCK, 0);
            self.spare.give(std::iter::once(last.into()));
        }
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.give_last();
        self.spare.give(self.full.drain(..));
    }
}
