//! Content-Length and chunked bodies, bounded.
//!
//! [`BodyDecoder`] does no I/O: it is given what has arrived, in pieces of any size, and the result does not depend on how it
//! was split. Each byte is looked at once, so a body of one-byte chunks costs time linear in its length.

mod buffer;
mod spare;

use super::fields::is_token_byte;

pub(crate) use buffer::BodyBuffer;
pub(crate) use spare::Spare;

/// Most bytes of chunk extensions on one chunk's line. Signatures, the extensions met in practice, take about 85.
const MAX_EXTENSIONS_PER_CHUNK: usize = 1024;
/// Most bytes of chunk extensions in one body. RFC 9112 7.1.1 asks for a limit on the total.
const MAX_EXTENSIONS: usize = 64 * 1024;
/// Hexadecimal digits that always fit a `u64`.
const MAX_SIZE_DIGITS: u8 = 16;

/// How the end of a body is found (RFC 9112 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    None,
    /// The body has this many bytes.
    Length(u64),
    /// The body is chunked.
    Chunked,
    /// The body is all that comes until the connection closes; responses only.
    UntilClose,
}

/// Why a body cannot be read on. What follows it on the connection cannot be told any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// A chunk's size is not 1 to 16 hexadecimal digits and CR LF.
    ChunkSize,
    /// A chunk's extension is not `;name` or `;name=value`.
    ChunkExtension,
    /// The extensions of a chunk, or of all of them, are too long.
    LongExtension,
    /// A chunk's data is not followed by CR LF.
    ChunkEnd,
    /// A trailer field is not `name:value` and CR LF.
    Trailer,
    /// The trailer section is too long.
    LongTrailers,
    /// There is more data than is allowed.
    TooLarge,
}

/// Where the data of a body is put.
pub(crate) trait Sink {
    /// Appends data. With it, `most` bytes may still come in all; room is made for no more.
    fn put(&mut self, data: &[u8], most: usize);
}

impl Sink for Vec<u8> {
    fn put(&mut self, data: &[u8], most: usize) {
        if self.capacity() - self.len() < data.len() {
            self.reserve_exact(data.len().max(self.len().min(most)));
        }
        self.extend_from_slice(data);
    }
}

/// Decodes the body of one message.
#[derive(Debug, Clone)]
pub(crate) struct BodyDecoder {
    state: NextByte,
    /// Bytes of data the remaining chunks may have.
    data_left: u64,
    /// Bytes the trailer section may still have, the empty line at its end aside.
    trailers_left: usize,
    /// Bytes the extensions of the current chunk may still have.
    chunk_extensions_left: usize,
    /// Bytes the extensions of all remaining chunks may still have.
    extensions_left: usize,
    /// The trailer section as it came, where it is asked for.
    trailers: Option<Vec<u8>>,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy)]
enum NextByte {
    /// The data of a body with a Content-Length, of which this many bytes are missing.
    Identity(u64),
    /// The data of a body that ends with the connection.
    UntilClose,
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
        part: Extension,
    },
    SizeLineFeed(u64),
    /// The data of a chunk, of which this many bytes are missing.
    Data(u64),
    DataCarriageReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    FinalLineFeed,
    Complete,
}

/// `chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`, RFC 9112 7.1.1.
#[derive(Debug, Clone, Copy)]
enum Extension {
    SpaceBeforeSemicolon,
    BeforeName,
    Name,
    SpaceAfterName,
    BeforeValue,
    Value,
    Quoted,
    Escaped,
    AfterQuoted,
}

impl BodyDecoder {
    /// A decoder for a body of at most `max_body` bytes, with at most `max_trailers` bytes of trailer fields.
    ///
    /// # Errors
    ///
    /// `TooLarge` when the Content-Length already says so.
    pub(crate) fn new(
        framing: Framing,
        max_body: usize,
        max_trailers: usize,
    ) -> Result<Self, BodyError> {
        let max_body = u64::try_from(max_body).unwrap_or(u64::MAX);
        let state = match framing {
            Framing::None | Framing::Length(0) => NextByte::Complete,
            Framing::Length(length) if length > max_body => return Err(BodyError::TooLarge),
            Framing::Length(length) => NextByte::Identity(length),
            Framing::Chunked => NextByte::Size { size: 0, digits: 0 },
            Framing::UntilClose => NextByte::UntilClose,
        };
        Ok(Self {
            state,
            data_left: max_body,
            trailers_left: max_trailers,
            chunk_extensions_left: MAX_EXTENSIONS_PER_CHUNK,
            extensions_left: MAX_EXTENSIONS,
            trailers: None,
        })
    }

    /// Bytes of data that are sure to come before anything else: the rest of the body, or of the chunk at hand.
    pub(crate) fn missing(&self) -> u64 {
        match self.state {
            NextByte::Identity(missing) | NextByte::Data(missing) => missing,
            _ => 0,
        }
    }

    /// The same, and keeps the trailer section.
    pub(crate) fn keeping_trailers(mut self) -> Self {
        self.trailers = Some(Vec::new());
        self
    }

    /// The trailer section so far: fields as they came, each ended by CR LF. Empty unless it is kept.
    pub(crate) fn trailers(&self) -> &[u8] {
        self.trailers.as_deref().unwrap_or_default()
    }

    /// Whether the body has ended by its own framing.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.state, NextByte::Complete)
    }

    /// Whether the body is whole now that the connection has closed.
    pub(crate) fn is_whole_at_close(&self) -> bool {
        matches!(self.state, NextByte::Complete | NextByte::UntilClose)
    }

    /// Takes the framing at the start of `input`, then data: the bytes used of `input`, of which the data is the end.
    ///
    /// The data is empty only when all of `input` was framing, or the body is complete; what is behind its end is never
    /// used.
    ///
    /// # Errors
    ///
    /// Why the body is refused. The decoder must not be used again.
    pub(crate) fn next<'a>(&mut self, input: &'a [u8]) -> Result<(usize, &'a [u8]), BodyError> {
        let mut rest = input;
        while let Some((&byte, after)) = rest.split_first() {
            let data = match &mut self.state {
                NextByte::Complete => break,
                NextByte::UntilClose => {
                    self.data_left = self
                        .data_left
                        .checked_sub(rest.len() as u64)
                        .ok_or(BodyError::TooLarge)?;
                    rest
                }
                NextByte::Identity(missing) => {
                    let data = take(missing, rest);
                    if *missing == 0 {
                        self.state = NextByte::Complete;
                    }
                    data
                }
                NextByte::Data(missing) => {
                    let data = take(missing, rest);
                    if *missing == 0 {
                        self.state = NextByte::DataCarriageReturn;
                    }
                    data
                }
                &mut state => {
                    self.state = self.step(state, byte)?;
                    rest = after;
                    continue;
                }
            };
            return Ok((input.len() - rest.len() + data.len(), data));
        }
        Ok((input.len() - rest.len(), &[]))
    }

    /// Decodes from `input`, appending the data to `out`; returns how many bytes it used, never one past the body's
    /// end, and whether the body is complete. All of `input` is used unless the body is complete.
    ///
    /// `out` grows by no more than the data in `input`, and by no more than `max_body` in total, capacity included.
    ///
    /// # Errors
    ///
    /// Why the body is refused. The connection can't be trusted further, so the decoder must not be used again.
    pub(crate) fn decode(
        &mut self,
        input: &[u8],
        out: &mut impl Sink,
    ) -> Result<(usize, bool), BodyError> {
        let mut used = 0;
        loop {
            let (count, data) = self.next(&input[used..])?;
            used += count;
            if data.is_empty() {
                return Ok((used, self.is_complete()));
            }
            // The capacity, like the length, stays within `max_body`.
            let most = usize::try_from(self.most_missing()).unwrap_or(usize::MAX);
            out.put(data, most.saturating_add(data.len()));
        }
    }

    /// The most data that may still come.
    pub(crate) fn most_missing(&self) -> u64 {
        match self.state {
            NextByte::Complete => 0,
            NextByte::Identity(missing) => missing,
            NextByte::Data(missing) => missing + self.data_left,
            _ => self.data_left,
        }
    }

    /// The state after one byte of a chunked body's framing.
    fn step(&mut self, state: NextByte, byte: u8) -> Result<NextByte, BodyError> {
        match (state, byte) {
            (NextByte::Size { size, digits }, _) => self.size(size, digits, byte),
            (NextByte::Extension { size, part }, _) => self.extension(size, part, byte),
            (NextByte::SizeLineFeed(0), b'\n') => Ok(NextByte::TrailerStart),
            (NextByte::SizeLineFeed(size), b'\n') => Ok(NextByte::Data(size)),
            (NextByte::SizeLineFeed(_), _) => Err(BodyError::ChunkSize),
            (NextByte::DataCarriageReturn, b'\r') => Ok(NextByte::DataLineFeed),
            (NextByte::DataLineFeed, b'\n') => {
                self.chunk_extensions_left = MAX_EXTENSIONS_PER_CHUNK;
                Ok(NextByte::Size { size: 0, digits: 0 })
            }
            (NextByte::DataCarriageReturn | NextByte::DataLineFeed, _) => Err(BodyError::ChunkEnd),
            (NextByte::TrailerStart, b'\r') => Ok(NextByte::FinalLineFeed),
            (NextByte::FinalLineFeed, b'\n') => Ok(NextByte::Complete),
            (NextByte::FinalLineFeed, _) => Err(BodyError::Trailer),
            (
                NextByte::TrailerStart
                | NextByte::TrailerName
                | NextByte::TrailerValue
                | NextByte::TrailerLineFeed,
                _,
            ) => self.trailer(state, byte),
            // `next` handles these in bulk.
            (
                NextByte::Identity(_)
                | NextByte::UntilClose
                | NextByte::Data(_)
                | NextByte::Complete,
                _,
            ) => Ok(state),
        }
    }

    fn size(&mut self, size: u64, digits: u8, byte: u8) -> Result<NextByte, BodyError> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            return if digits < MAX_SIZE_DIGITS {
                Ok(NextByte::Size {
                    size: size << 4 | u64::from(digit),
                    digits: digits + 1,
                })
            } else {
                Err(BodyError::ChunkSize)
            };
        }
        if digits == 0 || !matches!(byte, b'\r' | b';' | b' ' | b'\t') {
            return Err(BodyError::ChunkSize);
        }
        // Only now is the size whole: a digit too many is malformed, not merely too large.
        self.data_left = self
            .data_left
            .checked_sub(size)
            .ok_or(BodyError::TooLarge)?;
        if byte == b'\r' {
            Ok(NextByte::SizeLineFeed(size))
        } else {
            self.extension(size, Extension::SpaceBeforeSemicolon, byte)
        }
    }

    fn extension(&mut self, size: u64, part: Extension, byte: u8) -> Result<NextByte, BodyError> {
        use Extension as E;
        let part = match (part, byte) {
            (E::Name | E::Value | E::AfterQuoted, b'\r') => {
                return Ok(NextByte::SizeLineFeed(size));
            }
            (E::Quoted, b'"') => E::AfterQuoted,
            (E::Quoted, b'\\') => E::Escaped,
            (E::Quoted | E::Escaped, _) if is_field_byte(byte) => E::Quoted,
            (E::SpaceBeforeSemicolon | E::Value | E::AfterQuoted, b' ' | b'\t') => {
                E::SpaceBeforeSemicolon
            }
            (E::Name | E::SpaceAfterName, b' ' | b'\t') => E::SpaceAfterName,
            (E::BeforeName | E::BeforeValue, b' ' | b'\t') => part,
            (
                E::SpaceBeforeSemicolon | E::Name | E::SpaceAfterName | E::Value | E::AfterQuoted,
                b';',
            ) => E::BeforeName,
            (E::Name | E::SpaceAfterName, b'=') => E::BeforeValue,
            (E::BeforeValue, b'"') => E::Quoted,
            (E::BeforeName | E::Name, _) if is_token_byte(byte) => E::Name,
            (E::BeforeValue | E::Value, _) if is_token_byte(byte) => E::Value,
            _ => return Err(BodyError::ChunkExtension),
        };
        self.chunk_extensions_left = self
            .chunk_extensions_left
            .checked_sub(1)
            .ok_or(BodyError::LongExtension)?;
        self.extensions_left = self
            .extensions_left
            .checked_sub(1)
            .ok_or(BodyError::LongExtension)?;
        Ok(NextByte::Extension { size, part })
    }

    fn trailer(&mut self, state: NextByte, byte: u8) -> Result<NextByte, BodyError> {
        self.trailers_left = self
            .trailers_left
            .checked_sub(1)
            .ok_or(BodyError::LongTrailers)?;
        if let Some(trailers) = &mut self.trailers {
            trailers.push(byte);
        }
        match (state, byte) {
            (NextByte::TrailerStart | NextByte::TrailerName, _) if is_token_byte(byte) => {
                Ok(NextByte::TrailerName)
            }
            (NextByte::TrailerName, b':') => Ok(NextByte::TrailerValue),
            (NextByte::TrailerValue, b'\r') => Ok(NextByte::TrailerLineFeed),
            (NextByte::TrailerValue, _) if is_field_byte(byte) => Ok(NextByte::TrailerValue),
            (NextByte::TrailerLineFeed, b'\n') => Ok(NextByte::TrailerStart),
            _ => Err(BodyError::Trailer),
        }
    }
}

/// The start of `input` that is at most `missing` bytes, which it is made less by.
fn take<'a>(missing: &mut u64, input: &'a [u8]) -> &'a [u8] {
    let count = usize::try_from(*missing)
        .unwrap_or(usize::MAX)
        .min(input.len());
    *missing -= count as u64;
    &input[..count]
}

/// Whether a field value or a quoted string may hold this byte (RFC 9110 5.5, 5.6.4).
fn is_field_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=0x7e | 0x80..)
}

#[cfg(test)]
mod tests;
