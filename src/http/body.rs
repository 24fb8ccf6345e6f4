//! Content-Length and chunked bodies, bounded.
//!
//! [`Body`] does no I/O: it is given what has arrived, in pieces of any size, and the result does not depend on how it
//! was split. Each byte is looked at once, so a body of one-byte chunks costs time linear in its length.

use super::head::{Framing, is_token_byte};
use super::refusal::Refusal;

/// Most bytes of chunk extensions on one chunk's line. Signatures, the extensions met in practice, take about 85.
const MAX_EXTENSIONS_PER_CHUNK: usize = 1024;
/// Most bytes of chunk extensions in one body. RFC 9112 7.1.1 asks for a limit on the total.
const MAX_EXTENSIONS: usize = 64 * 1024;
/// Hexadecimal digits that always fit a `u64`.
const MAX_SIZE_DIGITS: u8 = 16;

const BAD_SIZE: Refusal =
    Refusal::Malformed("Write each chunk's size as 1 to 16 hexadecimal digits, then CR LF.\n");
const BAD_EXTENSION: Refusal = Refusal::Malformed(
    "Write chunk extensions as ;name or ;name=value, then CR LF, or leave them out.\n",
);
const LONG_EXTENSION: Refusal =
    Refusal::Malformed("The chunk extensions are too long: leave them out.\n");
const BAD_CHUNK_END: Refusal =
    Refusal::Malformed("End each chunk's data with CR LF, after as many bytes as its size says.\n");
const BAD_TRAILER: Refusal =
    Refusal::Malformed("Write each trailer as name:value on one line, ended by CR LF.\n");

/// Decodes one request's body.
#[derive(Debug)]
pub(crate) struct Body {
    state: State,
    /// Bytes of data the remaining chunks may have.
    data_left: u64,
    /// Bytes the trailer section may still have, the empty line at its end aside.
    trailers_left: usize,
    /// Bytes the extensions of the current chunk may still have.
    chunk_extensions_left: usize,
    /// Bytes the extensions of all remaining chunks may still have.
    extensions_left: usize,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy)]
enum State {
    /// The data of a body with a Content-Length, of which this many bytes are missing.
    Identity(u64),
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

impl Body {
    /// A decoder for a body of at most `max_body` bytes, with at most `max_trailers` bytes of trailer fields.
    ///
    /// # Errors
    ///
    /// `BodyTooLarge` when the Content-Length already says so.
    pub(crate) fn new(
        framing: Framing,
        max_body: usize,
        max_trailers: usize,
    ) -> Result<Self, Refusal> {
        let max_body = u64::try_from(max_body).unwrap_or(u64::MAX);
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Complete,
            Framing::Length(length) if length > max_body => return Err(Refusal::BodyTooLarge),
            Framing::Length(length) => State::Identity(length),
            Framing::Chunked => State::Size { size: 0, digits: 0 },
        };
        Ok(Self {
            state,
            data_left: max_body,
            trailers_left: max_trailers,
            chunk_extensions_left: MAX_EXTENSIONS_PER_CHUNK,
            extensions_left: MAX_EXTENSIONS,
        })
    }

    /// Bytes of data that are sure to come before anything else: the rest of the body, or of the chunk at hand.
    pub(crate) fn missing(&self) -> u64 {
        match self.state {
            State::Identity(missing) | State::Data(missing) => missing,
            _ => 0,
        }
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
        out: &mut Vec<u8>,
    ) -> Result<(usize, bool), Refusal> {
        let mut rest = input;
        while let Some((&byte, after)) = rest.split_first() {
            match self.state {
                State::Complete => break,
                State::Identity(missing) => {
                    let missing = take(missing, missing, &mut rest, out);
                    self.state = if missing == 0 {
                        State::Complete
                    } else {
                        State::Identity(missing)
                    };
                }
                State::Data(missing) => {
                    let most = missing + self.data_left;
                    let missing = take(missing, most, &mut rest, out);
                    self.state = if missing == 0 {
                        State::DataCarriageReturn
                    } else {
                        State::Data(missing)
                    };
                }
                state => {
                    self.state = self.step(state, byte)?;
                    rest = after;
                }
            }
        }
        Ok((
            input.len() - rest.len(),
            matches!(self.state, State::Complete),
        ))
    }

    /// The state after one byte of a chunked body's framing.
    fn step(&mut self, state: State, byte: u8) -> Result<State, Refusal> {
        match (state, byte) {
            (State::Size { size, digits }, _) => self.size(size, digits, byte),
            (State::Extension { size, part }, _) => self.extension(size, part, byte),
            (State::SizeLineFeed(0), b'\n') => Ok(State::TrailerStart),
            (State::SizeLineFeed(size), b'\n') => Ok(State::Data(size)),
            (State::SizeLineFeed(_), _) => Err(BAD_SIZE),
            (State::DataCarriageReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => {
                self.chunk_extensions_left = MAX_EXTENSIONS_PER_CHUNK;
                Ok(State::Size { size: 0, digits: 0 })
            }
            (State::DataCarriageReturn | State::DataLineFeed, _) => Err(BAD_CHUNK_END),
            (State::TrailerStart, b'\r') => Ok(State::FinalLineFeed),
            (State::FinalLineFeed, b'\n') => Ok(State::Complete),
            (State::FinalLineFeed, _) => Err(BAD_TRAILER),
            (
                State::TrailerStart
                | State::TrailerName
                | State::TrailerValue
                | State::TrailerLineFeed,
                _,
            ) => self.trailer(state, byte),
            // `decode` handles these in bulk.
            (State::Identity(_) | State::Data(_) | State::Complete, _) => Ok(state),
        }
    }

    fn size(&mut self, size: u64, digits: u8, byte: u8) -> Result<State, Refusal> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            return if digits < MAX_SIZE_DIGITS {
                Ok(State::Size {
                    size: size << 4 | u64::from(digit),
                    digits: digits + 1,
                })
            } else {
                Err(BAD_SIZE)
            };
        }
        if digits == 0 || !matches!(byte, b'\r' | b';' | b' ' | b'\t') {
            return Err(BAD_SIZE);
        }
        // Only now is the size whole: a digit too many is malformed, not merely too large.
        self.data_left = self
            .data_left
            .checked_sub(size)
            .ok_or(Refusal::BodyTooLarge)?;
        if byte == b'\r' {
            Ok(State::SizeLineFeed(size))
        } else {
            self.extension(size, Extension::SpaceBeforeSemicolon, byte)
        }
    }

    fn extension(&mut self, size: u64, part: Extension, byte: u8) -> Result<State, Refusal> {
        use Extension as E;
        let part = match (part, byte) {
            (E::Name | E::Value | E::AfterQuoted, b'\r') => return Ok(State::SizeLineFeed(size)),
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
            _ => return Err(BAD_EXTENSION),
        };
        self.chunk_extensions_left = self
            .chunk_extensions_left
            .checked_sub(1)
            .ok_or(LONG_EXTENSION)?;
        self.extensions_left = self.extensions_left.checked_sub(1).ok_or(LONG_EXTENSION)?;
        Ok(State::Extension { size, part })
    }

    fn trailer(&mut self, state: State, byte: u8) -> Result<State, Refusal> {
        self.trailers_left = self
            .trailers_left
            .checked_sub(1)
            .ok_or(Refusal::HeadTooLarge)?;
        match (state, byte) {
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => {
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLineFeed),
            (State::TrailerValue, _) if is_field_byte(byte) => Ok(State::TrailerValue),
            (State::TrailerLineFeed, b'\n') => Ok(State::TrailerStart),
            _ => Err(BAD_TRAILER),
        }
    }
}

/// Moves up to `missing` bytes from `rest` to `out`; returns how many are still missing.
///
/// `out` makes room for no more than `most` bytes: its capacity, like its length, stays within `max_body`.
fn take(missing: u64, most: u64, rest: &mut &[u8], out: &mut Vec<u8>) -> u64 {
    let available = usize::try_from(missing)
        .unwrap_or(usize::MAX)
        .min(rest.len());
    let (data, after) = rest.split_at(available);
    if out.capacity() - out.len() < data.len() {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        out.reserve_exact(data.len().max(out.len().min(most)));
    }
    out.extend_from_slice(data);
    *rest = after;
    missing - data.len() as u64
}

/// Whether a field value or a quoted string may hold this byte (RFC 9110 5.5, 5.6.4).
fn is_field_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=0x7e | 0x80..)
}

#[cfg(test)]
mod tests;
