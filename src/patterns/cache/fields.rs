//! The fields of a head, in one block.

use std::fmt;
use std::io::Write;

use crate::http::fields::is_token_byte;

/// The fields of a request's or a reply's head, in order, with duplicates, and with any bytes that HTTP allows in
/// values.
///
/// They are held as they are written on the wire, `name: value` and CR LF for each, so a head is one allocation and
/// [`as_bytes`](Self::as_bytes) can be sent as it is.
///
/// ```
/// use plimsoll::patterns::Fields;
///
/// let fields: Fields = [("Accept", "text/html"), ("accept", "text/plain")].into_iter().collect();
/// assert_eq!(fields.first("ACCEPT"), Some(&b"text/html"[..]));
/// assert_eq!(fields.all("accept").count(), 2);
/// assert_eq!(fields.as_bytes(), b"Accept: text/html\r\naccept: text/plain\r\n");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<u8>);

impl Fields {
    /// No fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field at the end. One that HTTP cannot express (a name that is no token, a value with CR, LF or NUL) is
    /// left out, so that no value can make another field.
    pub fn push(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref().trim_ascii();
        let is_name = !name.is_empty() && name.bytes().all(is_token_byte);
        if is_name && !value.iter().any(|byte| b"\r\n\0".contains(byte)) {
            self.0.reserve(name.len() + value.len() + 4);
            self.0.extend_from_slice(name.as_bytes());
            self.0.extend_from_slice(b": ");
            self.0.extend_from_slice(value);
            self.0.extend_from_slice(b"\r\n");
        }
    }

    /// All fields, in order: name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.0
            .split_inclusive(|&byte| byte == b'\n')
            .filter_map(|line| {
                let line = line.strip_suffix(b"\r\n")?;
                let colon = line.iter().position(|&byte| byte == b':')?;
                let (name, value) = line.split_at(colon);
                Some((str::from_utf8(name).ok()?, value.get(2..)?))
            })
    }

    /// The values of all fields with this name, in order, in any case.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.iter()
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The value of the first field with this name, in any case.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// The first value of this name, where it is text of visible ASCII.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let value = str::from_utf8(self.first(name)?).ok()?;
        value.is_ascii().then_some(value)
    }

    /// Whether there is a field with this name, in any case.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// Leaves out the fields for whose names `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        let mut kept = Vec::with_capacity(self.0.len());
        for line in self.0.split_inclusive(|&byte| byte == b'\n') {
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
            if keep(str::from_utf8(name).unwrap_or_default()) {
                kept.extend_from_slice(line);
            }
        }
        self.0 = kept;
    }

    /// The fields as they are written on the wire, without the empty line that ends a head.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The fields as they are written on the wire, for good.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A copy with room for some more.
    pub(super) fn with_room(&self, bytes: usize) -> Self {
        let mut copy = Vec::with_capacity(self.0.len() + bytes);
        copy.extend_from_slice(&self.0);
        Self(copy)
    }

    /// Adds a field whose name and value are known to be ones.
    pub(super) fn push_made(&mut self, name: &str, value: fmt::Arguments<'_>) {
        // To write to memory never fails.
        let _ = write!(self.0, "{name}: {value}\r\n");
    }

    /// Moves to an allocation of its own size, and tells how many bytes that is.
    pub(super) fn pack(&mut self) -> usize {
        self.0 = self.0.as_slice().to_vec();
        self.0.len()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        let mut all = Self::new();
        for (name, value) in fields {
            all.push(name.as_ref(), value);
        }
        all
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.iter();
        f.debug_map()
            .entries(fields.map(|(name, value)| (name, String::from_utf8_lossy(value))))
            .finish()
    }
}

/// The members of a comma-separated list, without those that are empty; a comma within a quoted string parts nothing
/// (RFC 9110 section 5.6.1).
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let mut escaped = false;
    value
        .split(move |&byte| {
            if escaped {
                escaped = false;
                return false;
            }
            match byte {
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b',' if !quoted => return true,
                _ => {}
            }
            false
        })
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// Bytes that these names take: each also has what tells of it, and what the allocator needs.
pub(super) fn cost_of(names: &[String]) -> usize {
    let each = size_of::<String>() + 16;
    names.iter().map(|name| name.capacity() + each).sum()
}
