//! Validators: asking the origin whether a kept reply is still valid, and telling a client that its own copy is (RFC
//! 9111 section 4.3, RFC 9110 section 13).

use std::time::SystemTime;

use super::date;
use super::fields::{Fields, members};

/// The fields that make a request conditional for a cache.
const PRECONDITIONS: [&str; 2] = ["If-None-Match", "If-Modified-Since"];

/// Whether the request has conditions that only the origin can judge (RFC 9111 section 4.3.2).
pub(super) fn is_for_origin(request: &Fields) -> bool {
    request.contains("If-Match") || request.contains("If-Unmodified-Since")
}

/// Whether a client asks if its copy is still valid.
pub(super) fn is_conditional(request: &Fields) -> bool {
    PRECONDITIONS.iter().any(|name| request.contains(name))
}

/// Whether a kept reply can be validated.
pub(super) fn has_validator(kept: &Fields) -> bool {
    kept.contains("ETag") || kept.contains("Last-Modified")
}

/// Makes a request ask whether the kept reply is still valid, instead of what it asked before (section 4.3.1).
pub(super) fn validate(request: &mut Fields, kept: &Fields) {
    request.retain(|name| {
        !PRECONDITIONS
            .iter()
            .any(|listed| listed.eq_ignore_ascii_case(name))
    });
    if let Some(tag) = kept.first("ETag") {
        request.push("If-None-Match", tag);
    }
    if let Some(modified) = kept.first("Last-Modified") {
        request.push("If-Modified-Since", modified);
    }
}

/// Whether the client's copy is the kept reply, so that a 304 says all (RFC 9110 sections 13.1.2, 13.1.3, 13.2.2).
pub(super) fn is_not_modified(request: &Fields, kept: &Fields, dated: SystemTime) -> bool {
    if request.contains("If-None-Match") {
        let tag = kept.first("ETag").map(opaque);
        return request
            .all("If-None-Match")
            .flat_map(members)
            .any(|listed| listed == b"*" || tag == Some(opaque(listed)));
    }
    let Some(since) = request.text("If-Modified-Since").and_then(date::parse) else {
        return false;
    };
    // Without a Last-Modified the date of the reply stands for it (RFC 9111 section 4.3.2).
    let modified = match kept.text("Last-Modified") {
        Some(modified) => date::parse(modified),
        None => Some(dated),
    };
    modified.is_some_and(|modified| modified <= since)
}

/// A tag for weak comparison, where its weakness does not count (RFC 9110 section 8.8.3.2).
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Whether a reply that says the kept one is valid can mean it: a strong tag that differs belongs to another
/// (RFC 9111 section 4.3.4).
pub(super) fn is_of_another(kept: &Fields, not_modified: &Fields) -> bool {
    match (kept.first("ETag"), not_modified.first("ETag")) {
        (Some(kept), Some(new)) => !new.starts_with(b"W/") && opaque(kept) != opaque(new),
        _ => false,
    }
}

/// Whether a reply to HEAD describes the reply that is kept for GET, whose body has this length (section 4.3.5).
pub(super) fn describes(head: &Fields, kept: &Fields, length: usize) -> bool {
    let same = |name| {
        head.first(name)
            .is_none_or(|value| kept.first(name) == Some(value))
    };
    let length = length.to_string();
    let same_length = head
        .first("Content-Length")
        .is_none_or(|value| value == length.as_bytes());
    same("ETag") && same("Last-Modified") && same_length
}

/// Whether a client that has a part of a reply may get another part of the kept one: If-Range is absent, or is its
/// strong validator (RFC 9110 section 13.1.5).
pub(super) fn may_have_part(request: &Fields, kept: &Fields) -> bool {
    let Some(condition) = request.first("If-Range") else {
        return true;
    };
    if condition.starts_with(b"\"") {
        return kept.first("ETag") == Some(condition);
    }
    // A time of last modification is strong if it is at least a second before the reply (section 8.8.2.2).
    let modified = kept.text("Last-Modified").and_then(date::parse);
    let dated = kept.text("Date").and_then(date::parse);
    let is_strong = modified
        .zip(dated)
        .is_some_and(|(modified, dated)| modified < dated);
    is_strong && kept.first("Last-Modified") == Some(condition)
}
