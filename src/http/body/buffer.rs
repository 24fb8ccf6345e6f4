//! The bytes of a body in memory.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use memmap2::MmapMut;

use super::{Sink, Spare};

/// A body that outgrows its room on the heap and this gets pages of its own, which whatever thread drops it can give back
/// to the system. An allocator keeps what it is given back, for who asks next: after a burst of uploads, most of it.
/// Smaller bodies are left to it, as fresh pages cost more time than such a body itself.
const MAPPED_FROM: usize = 64 * 1024;

/// A body, or what has come of it.
#[derive(Default)]
pub(crate) struct BodyBuffer {
    place: Place,
    /// Where its pages come from and go to, if not the system.
    spare: Option<Arc<Spare>>,
}

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
        let whole = self.len().saturating_add(most);
        if length > MAPPED_FROM && length > self.capacity() {
            // Untouched pages take no memory. Where the system gives no more mappings, the heap has to do.
            let pages = self.spare.as_ref().and_then(|spare| spare.take(whole));
            let pages = pages.or_else(|| MmapMut::map_anon(whole).ok());
            if let Some(mut pages) = pages {
                pages[..self.len()].copy_from_slice(self);
                self.place = Place::Mapped(pages, self.len());
            }
        }
        match &mut self.place {
            Place::Heap(bytes) => {
                if bytes.is_empty() && whole <= MAPPED_FROM {
                    bytes.reserve_exact(whole);
                }
                bytes.put(data, most);
            }
            Place::Mapped(pages, filled) => {
                pages[*filled..length].copy_from_slice(data);
                *filled = length;
            }
        }
    }
}

impl BodyBuffer {
    /// An empty one.
    pub(crate) fn new(spare: Arc<Spare>) -> Self {
        Self {
            place: Place::default(),
            spare: Some(spare),
        }
    }

    /// Bytes that it has room for.
    pub(crate) fn capacity(&self) -> usize {
        match &self.place {
            Place::Heap(bytes) => bytes.capacity(),
            Place::Mapped(pages, _) => pages.len(),
        }
    }
}

impl Drop for BodyBuffer {
    fn drop(&mut self) {
        if let Some(spare) = &self.spare
            && let Place::Mapped(pages, _) = std::mem::take(&mut self.place)
        {
            spare.put(pages);
        }
    }
}

impl From<Vec<u8>> for BodyBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            place: Place::Heap(bytes),
            spare: None,
        }
    }
}

impl Deref for BodyBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.place {
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
                match &buffer.place {
                    Place::Heap(bytes) => assert!(bytes.capacity() <= 2 * MAPPED_FROM),
                    Place::Mapped(..) => assert!(most > MAPPED_FROM, "{most} {piece}"),
                }
            }
        }
    }
}
