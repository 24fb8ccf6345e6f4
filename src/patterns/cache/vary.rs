//! Vary: which requests a kept reply answers (RFC 9111 section 4.1).

use super::fields::{Fields, members};

/// The names that a reply varies by, in lower case, sorted, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Vary(Vec<String>);

impl Vary {
    /// None if the reply answers only the request it was made for: `*`, or what is no list of names.
    pub(super) fn of(reply: &Fields) -> Option<Self> {
        let mut names = Vec::new();
        for name in reply.all("Vary").flat_map(members) {
            let is_name = name.iter().all(|&byte| super::fields::is_token_byte(byte));
            if name.contains(&b'*') || !is_name {
                return None;
            }
            names.push(String::from_utf8_lossy(name).to_ascii_lowercase());
        }
        names.sort_unstable();
        names.dedup();
        Some(Self(names))
    }

    /// What this request has for these names, as one text that is equal for requests that the reply answers alike.
    pub(super) fn signature(&self, request: &Fields) -> Vec<u8> {
        let mut signature = Vec::new();
        for name in &self.0 {
            // No name has these bytes, and no value CR or LF: what is absent differs from what is empty.
            signature.extend_from_slice(name.as_bytes());
            if request.contains(name) {
                signature.push(b':');
                push_normal(&mut signature, name, request);
            }
            signature.push(b'\n');
        }
        signature
    }
}

/// All fields of this name as one, with one form of white space around commas (allowed by section 4.1, as neither it
/// nor several lines change the meaning of a list). Languages and codings are the same in any case.
fn push_normal(signature: &mut Vec<u8>, name: &str, request: &Fields) {
    let ignores_case = matches!(name, "accept-language" | "accept-encoding");
    for (number, member) in request.all(name).flat_map(members).enumerate() {
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
