//! What heads of requests and of responses have in common: fields, their lists, lengths and codings.

/// Most fields in a head; what Apache allows. `httparse` needs an array of fixed size.
pub(crate) const MAX_FIELDS: usize = 100;

/// What may end a line of a head (RFC 9112 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineEnds {
    /// CR LF only.
    CrLf,
    /// LF with or without a CR before it. What else is wrong with a CR is the parser's to find.
    Lf,
}

/// How far an unfinished head has been looked at, so that one that drips in is not parsed anew for each byte.
///
/// Belongs to one head: start with a new one, and pass it along with a growing input until the parser gives a result.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Bytes whose line ends have been checked.
    scanned: usize,
    /// Length at which the unfinished head is parsed again for errors. It doubles, so that all parses together look at
    /// no more than about twice the bytes of the head.
    pub(super) parse_at: usize,
}

impl Scan {
    /// Whether nothing has been looked at yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.scanned == 0
    }

    /// Looks at the new bytes of `window`: is it worth parsing it? None when a line ends as it must not.
    pub(crate) fn advance(&mut self, window: &[u8], line_ends: LineEnds) -> Option<bool> {
        let mut due = window.len() >= self.parse_at;
        let (old, new) = window.split_at(self.scanned.min(window.len()));
        let mut previous = old.last().copied();
        for (index, &byte) in new.iter().enumerate() {
            if line_ends == LineEnds::CrLf && (byte == b'\n') != (previous == Some(b'\r')) {
                return None;
            }
            previous = Some(byte);
            if byte == b'\n' && ends_head(&window[..=old.len() + index]) {
                due = true;
                break;
            }
        }
        self.scanned = window.len();
        if due {
            self.parse_at = window.len().saturating_mul(2);
        }
        Some(due)
    }
}

/// Whether the last line of `head` is empty.
fn ends_head(head: &[u8]) -> bool {
    head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n")
}

/// What the Transfer-Encoding fields say, read together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Coding {
    #[default]
    Absent,
    /// There are fields, but they name no coding.
    Empty,
    /// `chunked` and nothing else.
    Chunked,
    /// Codings other than `chunked`, first.
    Unknown,
    /// `chunked` twice, or something applied after it.
    Unframed,
}

impl Coding {
    /// This and what one more field says.
    pub(crate) fn and(self, value: &[u8]) -> Self {
        let start = if self == Self::Absent {
            Self::Empty
        } else {
            self
        };
        list(value).fold(start, |coding, name| {
            match (coding, name.eq_ignore_ascii_case(b"chunked")) {
                (Self::Absent | Self::Empty, true) => Self::Chunked,
                (Self::Absent | Self::Empty, false) | (Self::Unknown, _) => Self::Unknown,
                (Self::Chunked | Self::Unframed, _) => Self::Unframed,
            }
        })
    }
}

/// Appends `name: value CR LF`, the form in which fields are kept.
pub(crate) fn push(lines: &mut Vec<u8>, name: &str, value: &[u8]) {
    push_parts(lines, name, &[value]);
}

/// The same with a value that is put together.
pub(crate) fn push_parts(lines: &mut Vec<u8>, name: &str, value: &[&[u8]]) {
    lines.extend_from_slice(name.as_bytes());
    lines.extend_from_slice(b": ");
    for part in value {
        lines.extend_from_slice(part);
    }
    lines.extend_from_slice(b"\r\n");
}

/// The same with a number.
pub(crate) fn push_number(lines: &mut Vec<u8>, name: &str, value: u64) {
    lines.extend_from_slice(name.as_bytes());
    lines.extend_from_slice(b": ");
    push_decimal(lines, value);
    lines.extend_from_slice(b"\r\n");
}

/// Appends `number` in decimal, without the formatting machinery.
pub(crate) fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The names and values of fields that [`push`] has written, or that came as trailers.
pub(crate) fn iterate(lines: &[u8]) -> impl Iterator<Item = (&str, &[u8])> + Clone {
    lines.split(|&byte| byte == b'\r').filter_map(|line| {
        let line = line.strip_prefix(b"\n").unwrap_or(line);
        let colon = line.iter().position(|&byte| byte == b':')?;
        let name = str::from_utf8(&line[..colon]).ok()?;
        Some((name, line[colon + 1..].trim_ascii()))
    })
}

/// Whether these are fields as [`push`] writes them, and nothing else.
#[cfg(all(feature = "events", feature = "proxy"))]
pub(crate) fn are_whole(lines: &[u8]) -> bool {
    lines.split_inclusive(|&byte| byte == b'\n').all(|line| {
        let line = line.strip_suffix(b"\r\n").unwrap_or_default();
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return false;
        };
        let (name, value) = line.split_at(colon);
        !name.is_empty() && name.iter().copied().all(is_token_byte) && !has_control(value)
    })
}

/// The elements of a comma-separated list (RFC 9110 5.6.1), empty ones left out.
pub(crate) fn list(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// `Content-Length = 1*DIGIT` (RFC 9110 8.6).
pub(crate) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |length, &byte| {
        let digit = char::from(byte).to_digit(10)?;
        length.checked_mul(10)?.checked_add(digit.into())
    })
}

/// Whether a value holds control characters, which it must not (RFC 9110 5.5).
pub(crate) fn has_control(value: &[u8]) -> bool {
    // No early exit, so that it can be vectorised.
    value
        .iter()
        .fold(false, |bad, &byte| bad | is_control(byte))
}

/// Whether it is a control character that no value may hold (RFC 9110 5.5).
pub(crate) fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// Whether a token may hold this byte (RFC 9110 5.6.2).
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
