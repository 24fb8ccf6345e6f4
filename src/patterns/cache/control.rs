//! Cache-Control: its directives, from any text (RFC 9111 section 5.2).

use super::fields::{Fields, cost_of};
use crate::http::fields::is_token_byte;

/// The largest number of seconds; a larger one means this one (RFC 9111 section 1.2.2).
pub(super) const MOST_SECONDS: u32 = 1 << 31;

/// A directive that may name fields to which alone it applies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Scope {
    /// It is not there.
    #[default]
    Absent,
    /// It applies to these fields, in lower case.
    Fields(Vec<String>),
    /// It applies to the whole reply.
    Whole,
}

impl Scope {
    /// Adds what another occurrence of the directive says.
    fn add(&mut self, argument: Option<&str>) {
        let Some(names) = argument else {
            *self = Self::Whole;
            return;
        };
        let names = names
            .split(',')
            .map(|name| name.trim().to_ascii_lowercase());
        let names = names.filter(|name| !name.is_empty());
        match self {
            Self::Absent => *self = Self::Fields(names.collect()),
            Self::Fields(fields) => fields.extend(names),
            Self::Whole => {}
        }
    }

    fn cost(&self) -> usize {
        match self {
            Self::Fields(names) => cost_of(names),
            Self::Absent | Self::Whole => 0,
        }
    }

    pub(super) fn names(&self, field: &str) -> bool {
        matches!(self, Self::Fields(names) if names.iter().any(|name| name.eq_ignore_ascii_case(field)))
    }
}

/// The directives of a request or a reply that a shared cache acts on.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a directive that is there or not"
)]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Directives {
    pub(super) no_store: bool,
    pub(super) no_cache: Scope,
    pub(super) private: Scope,
    pub(super) public: bool,
    pub(super) must_revalidate: bool,
    pub(super) proxy_revalidate: bool,
    pub(super) must_understand: bool,
    pub(super) only_if_cached: bool,
    pub(super) max_age: Option<u32>,
    pub(super) s_maxage: Option<u32>,
    pub(super) max_stale: Option<u32>,
    pub(super) min_fresh: Option<u32>,
    pub(super) stale_while_revalidate: Option<u32>,
    pub(super) stale_if_error: Option<u32>,
    /// They are from a targeted field, so Expires is not looked at (RFC 9213 section 2.2).
    pub(super) targeted: bool,
}

impl Directives {
    /// The directives of all Cache-Control fields together.
    pub(super) fn of(fields: &Fields) -> Self {
        let mut directives = Self::default();
        for value in fields.all("Cache-Control") {
            directives.read(value);
        }
        directives
    }

    fn read(&mut self, mut rest: &[u8]) {
        loop {
            let start = rest.iter().position(|&byte| !b" \t,".contains(&byte));
            let Some(start) = start else { return };
            rest = &rest[start..];
            let name_len = rest
                .iter()
                .position(|&byte| !is_token_byte(byte))
                .unwrap_or(rest.len());
            let (name, after) = rest.split_at(name_len);
            let (argument, after) = match after.strip_prefix(b"=") {
                Some(after) => {
                    let Some((argument, after)) = argument(after) else {
                        // A quoted string without an end could hide anything, so the reply is not kept.
                        self.no_store = true;
                        return;
                    };
                    (Some(argument), after)
                }
                None => (None, after),
            };
            // What stands between a directive and the next comma makes it malformed. It still restricts, but grants
            // nothing.
            let end = after.iter().position(|&byte| byte == b',');
            let (junk, after) = after.split_at(end.unwrap_or(after.len()));
            let argument = match junk.trim_ascii() {
                b"" => argument,
                _ => argument.map(|_| String::from("malformed")),
            };
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            self.add(&name, argument.as_deref());
            rest = after;
        }
    }

    /// Adds a directive; of one that comes more than once the first counts (RFC 9111 section 4.2.1).
    pub(super) fn add(&mut self, name: &str, argument: Option<&str>) {
        let number = || argument.and_then(seconds);
        match name {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache.add(argument),
            "private" => self.private.add(argument),
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "only-if-cached" => self.only_if_cached = true,
            // A lifetime that is no number means stale (RFC 9111 section 4.2.1).
            "max-age" => _ = self.max_age.get_or_insert_with(|| number().unwrap_or(0)),
            "s-maxage" => _ = self.s_maxage.get_or_insert_with(|| number().unwrap_or(0)),
            "max-stale" => {
                let any = argument.is_none().then_some(MOST_SECONDS);
                self.max_stale = self.max_stale.or(any).or_else(number);
            }
            "min-fresh" => self.min_fresh = self.min_fresh.or_else(number),
            "stale-while-revalidate" => {
                self.stale_while_revalidate = self.stale_while_revalidate.or_else(number);
            }
            "stale-if-error" => self.stale_if_error = self.stale_if_error.or_else(number),
            _ => {}
        }
    }

    /// Bytes that they take beyond their own size.
    pub(super) fn cost(&self) -> usize {
        self.no_cache.cost() + self.private.cost()
    }

    /// Whether the origin forbids to serve the reply stale (RFC 9111 section 4.2.4). `s-maxage` does as
    /// `proxy-revalidate` does (section 5.2.2.10).
    pub(super) fn forbid_stale(&self) -> bool {
        self.must_revalidate
            || self.proxy_revalidate
            || self.s_maxage.is_some()
            || self.no_cache == Scope::Whole
    }
}

/// The argument of a directive, a token or a quoted string, and what follows it; none if a quote is not closed.
fn argument(value: &[u8]) -> Option<(String, &[u8])> {
    let Some(quoted) = value.strip_prefix(b"\"") else {
        let end = value.iter().position(|&byte| !is_token_byte(byte));
        let (token, after) = value.split_at(end.unwrap_or(value.len()));
        return Some((String::from_utf8_lossy(token).into_owned(), after));
    };
    let mut text = Vec::new();
    let mut bytes = quoted.iter();
    loop {
        match bytes.next()? {
            b'"' => break,
            b'\\' => text.push(*bytes.next()?),
            &byte => text.push(byte),
        }
    }
    Some((
        String::from_utf8_lossy(&text).into_owned(),
        bytes.as_slice(),
    ))
}

/// `delta-seconds` (RFC 9111 section 1.2.2).
pub(super) fn seconds(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| {
        text.parse()
            .map_or(MOST_SECONDS, |number: u32| number.min(MOST_SECONDS))
    })
}
