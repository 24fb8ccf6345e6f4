//! The id under which a request is known to its client, to a proxy in front, and in the log.

use crate::http::head::Head;
use crate::random;

/// The longest id that is taken over, in bytes: it comes from anybody, and goes into logs and other requests.
pub(crate) const LONGEST: usize = 128;

/// The value of the request's `X-Request-Id` if that is 1 to 128 visible ASCII characters; else a new one of 32
/// hexadecimal digits.
pub(crate) fn of(head: &Head) -> Box<str> {
    incoming(head).map_or_else(make, Into::into)
}

fn incoming(head: &Head) -> Option<&str> {
    let mut fields = head.fields();
    let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case("x-request-id"))?;
    let is_fit = (1..=LONGEST).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    is_fit.then(|| str::from_utf8(value).ok())?
}

pub(crate) fn make() -> Box<str> {
    format!("{:016x}{:016x}", random::bits(), random::bits()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{Progress, parse};

    fn id_of(fields: &str) -> String {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let parsed = parse(bytes.as_bytes(), 16 * 1024, &mut Progress::default());
        let (_, head) = parsed.expect("a fit head").expect("a whole head");
        of(&head).into()
    }

    #[test]
    fn an_id_of_visible_characters_is_kept() {
        let longest = "x".repeat(LONGEST);
        for id in ["a", "0f-/+=.:~!\"\\<>", &longest] {
            assert_eq!(id_of(&format!("x-request-ID: {id}\r\n")), id);
        }
        let two = "X-Request-Id: first\r\nX-Request-Id: second\r\n";
        assert_eq!(id_of(two), "first");
    }

    #[test]
    fn another_is_made_anew_and_never_twice_the_same() {
        let too_long = "x".repeat(LONGEST + 1);
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
