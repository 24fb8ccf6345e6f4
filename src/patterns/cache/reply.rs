//! A reply made from a kept one.

use std::borrow::Cow;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::blocks::Blocks;
use super::conditional::{is_not_modified, may_have_part};
use super::fields::Fields;
use super::range::Part;
use super::status::{CacheResult, push_hit};
use super::store::Entry;

/// Bytes of Age and Cache-Status, which each reply has of its own.
const ROOM: usize = 128;

/// What a client is to be given, without asking the origin or instead of what it said.
#[derive(Debug, Clone)]
pub struct CachedReply {
    status: u16,
    pub(super) fields: Fields,
    body: Arc<Blocks>,
    range: Range<usize>,
    is_head: bool,
    result: CacheResult,
}

impl CachedReply {
    /// The kept reply for this request: whole, a part, or only that the client's copy is still valid (RFC 9111 section
    /// 4.3.2).
    pub(super) fn new(entry: &Entry, request: &Fields, is_head: bool, now: Instant) -> Self {
        let mut reply = Self {
            status: entry.status,
            fields: entry.fields.with_room(ROOM),
            range: 0..entry.body.len(),
            body: Arc::clone(&entry.body),
            is_head,
            result: match entry.freshness.left(now) {
                Some(_) => CacheResult::Hit,
                None => CacheResult::Stale,
            },
        };
        let age = entry.freshness.age(now).as_secs();
        reply.fields.push_made("Age", format_args!("{age}"));
        if entry.status == 200 && is_not_modified(request, &entry.fields, entry.freshness.date) {
            reply.status = 304;
            reply.range = 0..0;
            // What describes a body is of no use without one (RFC 9110 section 15.4.5).
            reply.fields.retain(|name| {
                ![
                    "Content-Type",
                    "Content-Encoding",
                    "Content-Language",
                    "Content-Range",
                ]
                .iter()
                .any(|listed| listed.eq_ignore_ascii_case(name))
            });
        } else if let Some(range) = request.first("Range")
            && entry.status == 200
            && !is_head
            && may_have_part(request, &entry.fields)
        {
            reply.take_part(range);
        }
        reply
    }

    /// The kept reply, given without asking the origin.
    pub(super) fn hit(entry: &Entry, request: &Fields, is_head: bool, now: Instant) -> Self {
        let mut reply = Self::new(entry, request, is_head, now);
        push_hit(&mut reply.fields, &entry.freshness, now);
        reply
    }

    fn take_part(&mut self, range: &[u8]) {
        let length = self.body.len();
        match Part::of(range, length) {
            Part::Whole => {}
            Part::Bytes(range) => {
                self.status = 206;
                let last = range.end - 1;
                let content_range = format!("bytes {}-{last}/{length}", range.start);
                self.fields.push("Content-Range", content_range);
                self.range = range;
            }
            Part::Unsatisfiable => {
                self.status = 416;
                self.fields
                    .push("Content-Range", format!("bytes */{length}"));
                self.range = 0..0;
            }
        }
    }

    /// The answer to `only-if-cached` when nothing suitable is kept (RFC 9111 section 5.2.1.7).
    pub(super) fn not_cached() -> Self {
        Self {
            status: 504,
            fields: Fields::new(),
            body: Arc::default(),
            range: 0..0,
            is_head: false,
            result: CacheResult::Miss,
        }
    }

    /// The same, which the origin has called valid.
    pub(super) fn validated(self) -> Self {
        Self {
            result: CacheResult::Validated,
            ..self
        }
    }

    /// What the cache did to have it.
    #[must_use]
    pub fn result(&self) -> CacheResult {
        self.result
    }

    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The fields, with Age and Cache-Status, but without those that frame the body.
    #[must_use]
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Takes the fields out of it, so that they need not be copied.
    #[must_use]
    pub fn take_fields(&mut self) -> Fields {
        std::mem::take(&mut self.fields)
    }

    /// The value of a Content-Length: bytes of the body, or of what GET would have got in answer to HEAD. None where a
    /// reply has neither.
    #[must_use]
    pub fn content_length(&self) -> Option<usize> {
        (!matches!(self.status, 204 | 304)).then_some(self.range.len())
    }

    /// How many bytes the body has; none in answer to HEAD.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sent().len()
    }

    /// Whether there is no body.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The body, in pieces of at most 4 KiB; none in answer to HEAD.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.body.slices(self.sent())
    }

    /// The body as one; empty in answer to HEAD. One of more than 4 KiB is copied.
    #[must_use]
    pub fn body(&self) -> Cow<'_, [u8]> {
        let mut chunks = self.chunks();
        match (chunks.next(), chunks.next()) {
            (None, _) => Cow::Borrowed(&[]),
            (Some(only), None) => Cow::Borrowed(only),
            _ => Cow::Owned(self.chunks().collect::<Vec<_>>().concat()),
        }
    }

    /// The body as a reader that shares the kept bytes, and keeps them while it is read.
    #[must_use]
    pub fn into_reader(self) -> CachedBody {
        let left = self.sent();
        CachedBody {
            body: self.body,
            left,
        }
    }

    fn sent(&self) -> Range<usize> {
        if self.is_head {
            0..0
        } else {
            self.range.clone()
        }
    }
}

/// A body as a reader that shares the kept bytes, and keeps them while it is read.
#[derive(Debug)]
pub struct CachedBody {
    body: Arc<Blocks>,
    left: Range<usize>,
}

impl CachedBody {
    pub(super) fn new(body: Arc<Blocks>) -> Self {
        let left = 0..body.len();
        Self { body, left }
    }

    /// How many bytes are left to read.
    #[must_use]
    pub fn len(&self) -> usize {
        self.left.len()
    }

    /// Whether nothing is left to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }
}

impl Read for CachedBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut next) = self.body.slices(self.left.clone()).next() else {
            return Ok(0);
        };
        let read = next.read(buffer)?;
        self.left.start += read;
        Ok(read)
    }
}
