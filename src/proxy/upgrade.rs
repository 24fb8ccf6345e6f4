//! Requests to switch to another protocol (RFC 9110 7.8), which become tunnels.

use super::headers::Forwarded;
use crate::Request;
use crate::http::fields;
use crate::http::response::ResponseHead;

/// The protocol that is asked for on the client's behalf: the first it names that is `allowed`. None: the request goes on
/// without a word of it, which is always right (RFC 9110 7.8).
///
/// WebSocket is asked for by GET, with a key (RFC 6455 4.1). Whatever else is tunnelled has to be a request without a
/// body, as a body would have to be sent in HTTP before the switch.
pub(super) fn wanted<'a>(
    request: &Request,
    forwarded: &Forwarded,
    allowed: &'a [String],
) -> Option<&'a str> {
    let asked = forwarded.upgrade.as_deref()?;
    if request.version() != "1.1" || request.body_len() > 0 {
        return None;
    }
    let names = |token: &&String| names(asked, token);
    let token = allowed.iter().find(names)?;
    let is_websocket = token.eq_ignore_ascii_case("websocket");
    let may_be = !is_websocket
        || request.method() == "GET" && request.header_bytes("sec-websocket-key").is_some();
    may_be.then_some(token)
}

/// Whether a server has switched to the protocol it was asked for.
pub(super) fn has_switched(head: &ResponseHead, wanted: &str) -> bool {
    let mut fields = head.fields();
    fields.any(|(name, value)| name.eq_ignore_ascii_case("upgrade") && names(value, wanted))
}

fn names(list: &[u8], token: &str) -> bool {
    fields::list(list).any(|name| name.eq_ignore_ascii_case(token.as_bytes()))
}
