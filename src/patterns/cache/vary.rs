//! Vary: which requests a kept reply answers (RFC 9111 section 4.1).

use super::fields::{Fields, cost_of, members};
use crate::http::fields::is_token_byte;

/// Most names that a kept reply may vary by: each look-up compares them all.
const MOST_NAMES: usize = 32;

/// The names that a reply varies by, in lower case, sorted, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Vary(Vec<String>);

impl Vary {
    /// None if the reply answers only the request it was made for: `*`, what is no list of names, or one of too many.
    pub(super) fn of(reply: &Fields) -> Option<Self> {
        let mut names = Vec::new();
        for name in reply.all("Vary").flat_map(members) {
            let is_name = name.iter().all(|&byte| is_token_byte(byte));
            if name.contains(&b'*') || !is_name {
                return None;
            }
            names.push(String::from_utf8_lossy(name).to_ascii_lowercase());
        }
        names.sort_unstable();
        names.dedup();
        (names.len() <= MOST_NAMES).then_some(Self(names))
    }

    /// The names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Bytes that they take.
    pub(super) fn cost(&self) -> usize {
        cost_of(&self.0)
    }

    /// What a request with these fields has for these names, as one text that is equal for requests that the reply
    /// answers alike.
    pub(super) fn signature<'f>(
        &self,
        request: &(impl Iterator<Item = (&'f str, &'f [u8])> + Clone),
    ) -> Vec<u8> {
        let mut signature = Vec::new();
        for name in &self.0 {
            let fields = request.clone();
            let values = fields.filter(|(found, _)| found.eq_ignore_ascii_case(name));
            let mut values = values.map(|(_, value)| value).peekable();
            // No name has these bytes, and no value CR or LF: what is absent differs from what is empty.
            signature.extend_from_slice(name.as_bytes());
            if values.peek().is_some() {
                signature.push(b':');
                push_normal(&mut signature, name, values);
            }
            signature.push(b'\n');
        }
        signature
    }
}

/// All fields of this name as one, with one form of white space around commas (allowed by section 4.1, as neither it
/// nor several lines change the meaning of a list). Languages and codings are the same in any case.
fn push_normal<'f>(signature: &mut Vec<u8>, name: &str, values: impl Iterator<Item = &'f [u8]>) {
    let ignores_case = matches!(name, "accept-language" | "accept-encoding");
    for (number, member) in values.flat_map(members).enumerate() {
        if number > 0 {
            signature.push(b',');
        }
        let start = signature.len();
        signature.extend_from_slice(member);
        if ignores_case {
            signature[start..].make_ascii_lowercase();
        }
    }
}
