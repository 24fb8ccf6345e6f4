//! Which replies may be kept, and which of their fields (RFC 9111 section 3).

use super::control::{Directives, Scope};
use super::fields::{Fields, members};
use super::freshness::{Freshness, explicit_lifetime, is_heuristically_cacheable};
use super::vary::Vary;

/// Whether this reply to a GET without a body may be kept for others.
pub(super) fn is_storable(
    status: u16,
    request: &Fields,
    reply: &Fields,
    directives: &Directives,
    freshness: &Freshness,
) -> bool {
    // A part is not kept, and a 304 is not a reply of its own.
    if status < 200 || status == 206 || status == 304 {
        return false;
    }
    // Section 5.2.2.3: a status that is understood makes the no-store beside it void.
    let understood = is_understood(status);
    let no_store = directives.no_store && !(directives.must_understand && understood);
    if no_store || (directives.must_understand && !understood) {
        return false;
    }
    if directives.private == Scope::Whole || Directives::of(request).no_store {
        return false;
    }
    // Section 3.5.
    let for_all = directives.public || directives.must_revalidate || directives.s_maxage.is_some();
    if request.contains("Authorization") && !for_all {
        return false;
    }
    if Vary::of(reply).is_none() {
        return false;
    }
    let explicit = explicit_lifetime(reply, directives, freshness.date).is_some();
    if reply.contains("Set-Cookie") && !explicit {
        return false;
    }
    // What is of no use later is not kept: it has no lifetime, and nothing to ask with whether it is still valid.
    let useful = freshness.lifetime > freshness.age_at_receipt()
        || reply.contains("ETag")
        || reply.contains("Last-Modified")
        || directives.stale_if_error.is_some()
        || directives.stale_while_revalidate.is_some();
    useful && (explicit || directives.public || is_heuristically_cacheable(status))
}

/// Status codes whose rules for caches are known here: those of RFC 9110 section 15, and 308, 428, 429, 431 and 451.
fn is_understood(status: u16) -> bool {
    matches!(
        status,
        200..=206 | 300..=308 | 400..=417 | 421 | 422 | 426 | 428 | 429 | 431 | 451 | 500..=505
    )
}

/// Fields that concern one connection, one hop or one message, and are never kept (RFC 9111 section 3.1). Age and the
/// length are made anew for each reply.
fn is_of_one_hop(name: &str) -> bool {
    [
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authenticate",
        "Proxy-Authentication-Info",
        "Proxy-Authorization",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Age",
        "Content-Length",
    ]
    .iter()
    .any(|listed| listed.eq_ignore_ascii_case(name))
}

/// The fields of a reply that are kept: not those of one hop, and not those that Connection, `no-cache` or `private`
/// name.
pub(super) fn kept_fields(reply: &Fields, directives: &Directives) -> Fields {
    let named: Vec<&[u8]> = reply.all("Connection").flat_map(members).collect();
    let mut kept = reply.clone();
    kept.retain(|name| {
        !is_of_one_hop(name)
            && !named
                .iter()
                .any(|named| named.eq_ignore_ascii_case(name.as_bytes()))
            && !directives.no_cache.names(name)
            && !directives.private.names(name)
    });
    kept
}

/// The fields of a kept reply after a 304 or a reply to HEAD (RFC 9111 section 3.2): each field that the new head has
/// replaces the old ones of its name. What describes the bytes that are kept stays as it is.
pub(super) fn updated_fields(kept: &Fields, new: &Fields, directives: &Directives) -> Fields {
    const OF_THE_BYTES: [&str; 4] = ["Content-Encoding", "Content-MD5", "Content-Range", "ETag"];
    let mut new = kept_fields(new, directives);
    new.retain(|name| {
        !OF_THE_BYTES
            .iter()
            .any(|listed| listed.eq_ignore_ascii_case(name))
    });
    let mut updated = kept.clone();
    updated.retain(|name| !new.contains(name));
    for (name, value) in new.iter() {
        updated.push(name, value);
    }
    updated
}
