//! The bytes of a body in memory.

use std::fmt;
use std::ops::Deref;

use memmap2::MmapMut;

use super::Sink;

/// A body that outgrows its room on the heap and this gets pages of its own, which the system has back as soon as it is dropped, by whatever
/// thread. An allocator keeps what it is given back, for who asks next: after a burst of uploads, most of the burst.
/// Smaller bodies are left to it, as fresh pages cost more time than such a body itself.
const MAPPED_FROM: usize = 64 * 1024;

/// A body, or what has come of it.
#[derive(Default)]
pub(crate) struct BodyBuffer(Place);

enum Place {
    Heap(Vec<u8>),
    /// Pages of its own, and how many of their bytes have come.
    Mapped(MmapMut, usize),
}

impl Default for Place {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Sink for BodyBuffer {
    fn put(&mut self, data: &[u8], most: usize) {
        let length = self.len() + data.len();
        if length > MAPPED_FROM && length > self.capacity() {
            // Untouched pages take no memory. Where the system gives no more mappings, the heap has to do.
            if let Ok(mut pages) = MmapMut::map_anon(self.len().saturating_add(most)) {
                pages[..self.len()].copy_from_slice(self);
                self.0 = Place::Mapped(pages, self.len());
            }
        }
        match &mut self.0 {
            Place::Heap(bytes) => bytes.put(data, most),
            Place::Mapped(pages, filled) => {
                pages[*filled..length].copy_from_slice(data);
                *filled = length;
            }
        }
    }
}

impl BodyBuffer {
    /// Bytes that it has room for.
    pub(crate) fn capacity(&self) -> usize {
        match &self.0 {
            Place::Heap(bytes) => bytes.capacity(),
            Place::Mapped(pages, _) => pages.len(),
        }
    }
}

impl From<Vec<u8>> for BodyBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Place::Heap(bytes))
    }
}

impl Deref for BodyBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Place::Heap(bytes) => bytes,
            Place::Mapped(pages, filled) => &pages[..*filled],
        }
    }
}

impl AsRef<[u8]> for BodyBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
impl<T: AsRef<[u8]>> PartialEq<T> for BodyBuffer {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl fmt::Debug for BodyBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_in_pieces_is_whole_on_the_heap_and_in_pages_of_its_own() {
        for most in [
            1,
            1000,
            MAPPED_FROM - 1,
            MAPPED_FROM,
            MAPPED_FROM + 1,
            1 << 20,
        ] {
            let whole: Vec<u8> = (0..most)
                .map(|index| index.to_le_bytes()[0] ^ 0x5a)
                .collect();
            for piece in [997, MAPPED_FROM, 1 << 20] {
                let mut buffer = BodyBuffer::default();
                for data in whole.chunks(piece) {
                    buffer.put(data, most - buffer.len());
                    assert!(buffer.capacity() <= most, "{most} {piece}");
                }
                assert_eq!(buffer, whole, "{most} {piece}");
                match buffer.0 {
                    Place::Heap(bytes) => assert!(bytes.capacity() <= 2 * MAPPED_FROM),
                    Place::Mapped(..) => assert!(most > MAPPED_FROM, "{most} {piece}"),
                }
            }
        }
    }
}
