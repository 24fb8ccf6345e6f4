//! A request's head as all who have to do with the request share it, and the id by which it is known to its client, to
//! other servers and in the log.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::http::head::Head;
use crate::random;

/// The longest id that is taken over, in bytes: it comes from anybody, and goes into logs and other requests.
const LONGEST_ID: usize = 128;

/// A head, and the request's id once somebody has asked for it.
#[derive(Debug)]
pub(crate) struct RequestHead {
    head: Head,
    id: OnceLock<Box<str>>,
    asked: OnceLock<AskedEndpoint>,
    /// What a cache did with the request, in a word.
    cache: OnceLock<&'static str>,
}

/// Which endpoint a request was forwarded to.
#[derive(Debug)]
pub(crate) struct AskedEndpoint {
    /// The last that was tried.
    pub(crate) name: Arc<str>,
    pub(crate) tries: usize,
    /// Of all tries together, to the head of the answer.
    pub(crate) time: Duration,
}

impl RequestHead {
    pub(crate) fn new(head: Head) -> Self {
        Self {
            head,
            id: OnceLock::new(),
            asked: OnceLock::new(),
            cache: OnceLock::new(),
        }
    }

    /// Notes which endpoint the request was forwarded to; the first note counts.
    pub(crate) fn note_endpoint(&self, asked: AskedEndpoint) {
        // A second one is of a request in the background.
        let _ = self.asked.set(asked);
    }

    /// Notes what a cache did with the request; the first note counts.
    pub(crate) fn note_cache(&self, result: &'static str) {
        // As above.
        let _ = self.cache.set(result);
    }

    /// What a cache did with the request, if one was asked.
    pub(crate) fn cache(&self) -> Option<&'static str> {
        self.cache.get().copied()
    }

    /// Which endpoint the request was forwarded to, if it was.
    pub(crate) fn endpoint(&self) -> Option<&AskedEndpoint> {
        self.asked.get()
    }

    /// The value of `X-Request-Id` if that is 1 to 128 visible ASCII characters; else a new one, and always the same.
    pub(crate) fn id(&self) -> &str {
        let kept = || incoming_id(&self.head).map(Into::into);
        self.id.get_or_init(|| kept().unwrap_or_else(new_id))
    }

    /// The value of the first field of that name.
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.head.fields();
        let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }
}

impl Deref for RequestHead {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

fn incoming_id(head: &Head) -> Option<&str> {
    let mut fields = head.fields();
    let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case("x-request-id"))?;
    let is_fit = (1..=LONGEST_ID).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    is_fit.then(|| str::from_utf8(value).ok())?
}

/// An id of 32 hexadecimal digits, at random.
pub(crate) fn new_id() -> Box<str> {
    let bits = u128::from(random::bits()) << 64 | u128::from(random::bits());
    format!("{bits:032x}").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{Scan, parse};

    fn id_of(fields: &str) -> String {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let parsed = parse(bytes.as_bytes(), 16 * 1024, &mut Scan::default());
        let (_, head) = parsed.expect("a fit head").expect("a whole head");
        let head = RequestHead::new(head);
        let id = head.id().to_owned();
        assert_eq!(head.id(), id, "it stays");
        id
    }

    #[test]
    fn an_id_of_visible_characters_is_kept() {
        let longest = "x".repeat(LONGEST_ID);
        for id in ["a", "0f-/+=.:~!\"\\<>", &longest] {
            assert_eq!(id_of(&format!("x-request-ID: {id}\r\n")), id);
        }
        let two = "X-Request-Id: first\r\nX-Request-Id: second\r\n";
        assert_eq!(id_of(two), "first");
    }

    #[test]
    fn another_is_made_anew_and_never_twice_the_same() {
        let too_long = "x".repeat(LONGEST_ID + 1);
        let mut made = std::collections::HashSet::new();
        for unfit in ["", " ", "a b", "a\tb", "n\u{e9}e", &too_long] {
            let id = id_of(&format!("X-Request-Id: {unfit}\r\n"));
            let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            assert!(id.len() == 32 && id.bytes().all(is_hex), "{id}");
            assert!(made.insert(id), "{unfit:?}");
        }
        assert!(made.insert(id_of("")), "none at all");
    }
}
