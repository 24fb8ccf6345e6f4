//! A range of bytes out of a whole reply (RFC 9110 section 14).

use std::ops::Range;

/// What a Range field asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// These bytes.
    Bytes(Range<usize>),
    /// Bytes that the reply does not have.
    Unsatisfiable,
    /// Another unit, several ranges, or what is no range: the whole reply is the answer (section 14.2).
    Whole,
}

impl Part {
    pub(super) fn of(range: &[u8], length: usize) -> Self {
        Self::parse(range, length).unwrap_or(Self::Whole)
    }

    fn parse(range: &[u8], length: usize) -> Option<Self> {
        let (unit, range) = str::from_utf8(range).ok()?.split_once('=')?;
        let (first, last) = range.trim().split_once('-')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let bytes = match (number(first), number(last)) {
            (Some(first), Some(last)) if first > last => return None,
            (Some(first), Some(last)) => first..last.saturating_add(1).min(length),
            (Some(first), None) if last.is_empty() => first..length,
            (None, Some(count)) if first.is_empty() => length.saturating_sub(count)..length,
            _ => return None,
        };
        Some(if bytes.is_empty() {
            Self::Unsatisfiable
        } else {
            Self::Bytes(bytes)
        })
    }
}

/// A position; one beyond all lengths is the largest.
fn number(text: &str) -> Option<usize> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(usize::MAX))
}
