//! The syntax of a host with an optional port (RFC 3986 section 3.2, RFC 9110 section 7.2).

use std::net::Ipv6Addr;

/// Whether this is an empty value or `uri-host [ ":" port ]` (RFC 9110 7.2) with a host. Userinfo is not part of it,
/// nor is a literal of an IP version yet to come.
pub(crate) fn is_authority(value: &[u8]) -> bool {
    if value.is_empty() {
        return true;
    }
    if let Some(literal) = value.strip_prefix(b"[") {
        let Some(end) = literal.iter().position(|&byte| byte == b']') else {
            return false;
        };
        let (address, after) = literal.split_at(end);
        let is_address = str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
        return is_address && after.strip_prefix(b"]").is_some_and(is_optional_port);
    }
    let host_len = value
        .iter()
        .position(|&byte| byte == b':')
        .unwrap_or(value.len());
    let (host, port) = value.split_at(host_len);
    !host.is_empty() && is_reg_name(host) && is_optional_port(port)
}

/// The host in such a value, without its port and brackets.
pub(crate) fn host(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn is_optional_port(value: &[u8]) -> bool {
    match value.split_first() {
        None => true,
        Some((b':', digits)) => digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    }
}

/// `reg-name = *( unreserved / pct-encoded / sub-delims )` (RFC 3986 3.2.2), which IPv4 addresses are too.
fn is_reg_name(host: &[u8]) -> bool {
    let mut rest = host;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'%' => match after.split_first_chunk::<2>() {
                Some((digits, after)) if digits.iter().all(u8::is_ascii_hexdigit) => after,
                _ => return false,
            },
            _ if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte) => after,
            _ => return false,
        };
    }
    true
}
