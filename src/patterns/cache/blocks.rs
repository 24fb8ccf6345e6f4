//! The bytes of a body, in blocks of one size.
//!
//! Bodies of all sizes come and go. If each were one allocation, the holes that old ones leave would not fit new ones,
//! and far more would be resident than is kept; blocks of one size fit wherever another was.

use std::ops::Range;

/// Bytes of a block. Only the last one of a body is smaller.
pub(super) const BLOCK: usize = 4096;

/// A whole body.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    blocks: Vec<Box<[u8]>>,
    length: usize,
}

impl Blocks {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Bytes that it takes, with the links to its blocks and what the allocator needs for each.
    pub(super) fn cost(&self) -> usize {
        self.length + self.blocks.len() * (size_of::<Box<[u8]>>() + 16)
    }

    /// The bytes of a range that it has, block by block.
    pub(super) fn slices(&self, range: Range<usize>) -> impl Iterator<Item = &[u8]> {
        let first = range.start / BLOCK;
        let blocks = self.blocks.iter().enumerate().skip(first);
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
#[derive(Debug, Default)]
pub(super) struct Growing {
    full: Vec<Box<[u8]>>,
    last: Vec<u8>,
}

impl Growing {
    pub(super) fn len(&self) -> usize {
        self.full.len() * BLOCK + self.last.len()
    }

    /// Adds what the block at hand still takes, with a new one if there is none, and gives back the rest.
    pub(super) fn push<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        self.last.reserve_exact(BLOCK - self.last.len());
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

    pub(super) fn finish(self) -> Blocks {
        let length = self.len();
        let mut blocks = self.full;
        if !self.last.is_empty() {
            // A copy of its own size; the block that it came in fits the next body.
            blocks.push(self.last.as_slice().into());
        }
        // As above: the list has grown by doubling.
        let blocks = blocks.drain(..).collect::<Box<[_]>>().into_vec();
        Blocks { blocks, length }
    }
}
