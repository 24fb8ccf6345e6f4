//! What of a message's head goes on, in both directions (RFC 9110 7.6, RFC 9112).
//!
//! Names are compared as the services behind read them: many turn a dash into an underscore (CGI, WSGI, PHP), so to them
//! `X_Forwarded_For` is `X-Forwarded-For`. A field that is removed is removed in both forms.

use std::net::IpAddr;

use crate::http::fields;

/// The name of this proxy in `Via` and `Proxy-Status`.
pub(super) const PSEUDONYM: &str = "plimsoll";

/// A request as the client sent it.
#[derive(Debug, Clone)]
pub(super) struct Received<'a, F> {
    pub(super) method: &'a str,
    /// `1.0` or `1.1`.
    pub(super) version: &'a str,
    pub(super) fields: F,
    pub(super) body_len: usize,
    pub(super) peer: IpAddr,
    /// Whether what the peer says of the client is believed.
    pub(super) trusted: bool,
    /// The request's id.
    pub(super) id: &'a str,
    /// What Host is sent as, if it is not the client's.
    pub(super) host: Option<&'a str>,
}

/// What one request line and one head for all tries are made of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Forwarded {
    /// All fields but those that depend on the try, each ended by CR LF.
    fields: Vec<u8>,
    has_host: bool,
    /// The protocols that the client wants to switch to, as it wrote them.
    pub(super) upgrade: Option<Vec<u8>>,
    /// The client takes trailers.
    pub(super) trailers: bool,
    /// An X-Forwarded-Proto was replaced, as that of a peer which is not trusted.
    pub(super) replaced_proto: bool,
}

/// What else than a head to send may come of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Forward(Forwarded),
    /// `Max-Forwards` is used up: it is for this server to answer.
    Answer,
    /// `Max-Forwards` is no number.
    BadMaxForwards,
}

/// What a field is to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Goes on, unless Connection names it.
    EndToEnd,
    /// Goes on, whatever Connection says.
    Kept,
    /// Is for this connection.
    Connection,
    Te,
    Upgrade,
    /// Is for one connection, whether or not Connection names it.
    HopByHop,
    /// Names what comes behind the body: of a response it goes on where that does; of a request nothing does.
    Trailer,
    /// Frames the message.
    Framing,
    Host,
    ForwardedFor,
    ForwardedProto,
    ForwardedHost,
    /// What else says where a request comes from.
    Forwarding,
    MaxForwards,
    RequestId,
    /// Is made anew for each try.
    Timeout,
}

/// The longest name that is told apart from others.
const LONGEST_KNOWN: usize = 31;

impl Kind {
    /// What a field is, however its dashes are written; and whether it is written with dashes.
    fn of(name: &str) -> (Self, bool) {
        let mut lower = [0; LONGEST_KNOWN];
        let prefix = name.as_bytes().get(..12).unwrap_or_default();
        let is_forwarded = prefix
            .iter()
            .zip(b"x-forwarded-")
            .all(|(&byte, &expected)| plain(byte) == expected)
            && !prefix.is_empty();
        let dashed = !name.contains('_');
        let Some(lower) = lower.get_mut(..name.len()) else {
            let kind = if is_forwarded {
                Self::Forwarding
            } else {
                Self::EndToEnd
            };
            return (kind, dashed);
        };
        for (to, &from) in lower.iter_mut().zip(name.as_bytes()) {
            *to = plain(from);
        }
        let kind = match &*lower {
            b"connection" => Self::Connection,
            b"te" => Self::Te,
            b"upgrade" => Self::Upgrade,
            // Expect is answered by the event loop. Proxy is read as a setting by
            // programs behind CGI (https://httpoxy.org).
            b"keep-alive"
            | b"close"
            | b"proxy-connection"
            | b"proxy-authorization"
            | b"proxy-authenticate"
            | b"proxy-authentication-info"
            | b"proxy"
            | b"expect" => Self::HopByHop,
            b"trailer" => Self::Trailer,
            b"content-length" | b"transfer-encoding" => Self::Framing,
            b"host" => Self::Host,
            b"x-forwarded-for" => Self::ForwardedFor,
            b"x-forwarded-proto" => Self::ForwardedProto,
            b"x-forwarded-host" => Self::ForwardedHost,
            b"forwarded" | b"x-real-ip" => Self::Forwarding,
            // By the key, a request is sent again: without it, the service could not tell.
            b"via" | b"idempotency-key" => Self::Kept,
            b"max-forwards" => Self::MaxForwards,
            b"x-request-id" => Self::RequestId,
            b"x-envoy-expected-rq-timeout-ms" => Self::Timeout,
            _ if is_forwarded => Self::Forwarding,
            _ => Self::EndToEnd,
        };
        (kind, dashed)
    }
}

/// A byte of a name as it is compared.
fn plain(byte: u8) -> u8 {
    match byte {
        b'_' => b'-',
        byte => byte.to_ascii_lowercase(),
    }
}

pub(super) fn is_same_name(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(&one, &other)| plain(one) == plain(other))
}

/// Which fields the Connection fields of a message name; without those two that never go on, which most messages name.
struct Named<'a>(Vec<&'a [u8]>);

impl<'a> Named<'a> {
    fn of(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let options = fields
            .filter(|(name, _)| is_same_name(name.as_bytes(), b"connection"))
            .flat_map(|(_, value)| fields::list(value));
        Self(options.filter(|option| !is_common(option)).collect())
    }

    fn has(&self, name: &str) -> bool {
        let mut options = self.0.iter();
        options.any(|option| is_same_name(option, name.as_bytes()))
    }
}

/// Whether an option says nothing but whether the connection stays.
fn is_common(option: &[u8]) -> bool {
    option.eq_ignore_ascii_case(b"keep-alive") || option.eq_ignore_ascii_case(b"close")
}

/// What a cache has to know of a GET to look for a reply.
#[cfg(feature = "cache")]
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    pub(super) https: bool,
    pub(super) host: &'a str,
}

/// Reads that off a request as its client sent it; None where that takes more than a look at each field. `trusted`: what
/// the peer says of the client is believed.
#[cfg(feature = "cache")]
pub(super) fn asked<'a>(
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    trusted: impl Fn() -> bool,
) -> Option<Asked<'a>> {
    let (mut host, mut proto) = (None, None);
    for (name, value) in fields {
        match Kind::of(name) {
            (Kind::Host, _) => host = Some(str::from_utf8(value).ok()?),
            // Other options take fields away.
            (Kind::Connection, _) if !fields::list(value).all(is_common) => return None,
            (Kind::ForwardedProto, true) if trusted() => proto = proto.or(Some(value)),
            (Kind::ForwardedProto, true) | (Kind::Upgrade, _) => return None,
            _ => {}
        }
    }
    Some(Asked {
        https: proto == Some(b"https"),
        host: host.unwrap_or_default(),
    })
}

/// Whether fields of this name go on as they are, unless Connection names them.
#[cfg(feature = "cache")]
pub(super) fn goes_on(name: &str) -> bool {
    Kind::of(name).0 == Kind::EndToEnd
}

/// Whether fields of this name say how long a message is.
#[cfg(feature = "events")]
pub(super) fn is_framing(name: &str) -> bool {
    Kind::of(name).0 == Kind::Framing
}

/// Makes what is forwarded of a request.
pub(super) fn forward<'a, F>(request: &Received<'a, F>) -> Decision
where
    F: Iterator<Item = (&'a str, &'a [u8])> + Clone,
{
    let mut sorted = Sorted::new();
    sorted.has_framing = request.body_len > 0;
    let named = Named::of(request.fields.clone());
    for (name, value) in request.fields.clone() {
        let (kind, dashed) = Kind::of(name);
        if kind == Kind::EndToEnd && named.has(name) {
            continue;
        }
        match kind {
            Kind::MaxForwards if matches!(request.method, "TRACE" | "OPTIONS") => {
                let count = fields::parse_length(value);
                let (Some(count), None) = (count, sorted.max_forwards) else {
                    return Decision::BadMaxForwards;
                };
                sorted.max_forwards = Some(count);
            }
            Kind::Host => {
                sorted.host = Some(value);
                let value = request.host.map_or(value, str::as_bytes);
                fields::push(&mut sorted.out.fields, name, value);
            }
            Kind::Te => {
                let mut codings = fields::list(value);
                let takes = codings.any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
                // HTTP/1.0 has no trailers.
                sorted.out.trailers |= takes && request.version == "1.1";
            }
            // Nobody who is trusted writes these with underscores.
            _ if request.trusted && dashed => sorted.of_trusted(kind, name, value),
            _ => sorted.of_anybody(kind, name, value, dashed),
        }
    }
    if sorted.max_forwards == Some(0) {
        return Decision::Answer;
    }
    sorted.finish(request, &named)
}

/// What was found among the fields so far.
struct Sorted<'a> {
    out: Forwarded,
    /// What is in X-Forwarded-For, if that is believed.
    forwarded_for: Vec<u8>,
    has_proto: bool,
    has_forwarded_host: bool,
    has_framing: bool,
    max_forwards: Option<u64>,
    /// The client's Host.
    host: Option<&'a [u8]>,
}

impl Sorted<'_> {
    fn new() -> Self {
        Self {
            out: Forwarded {
                fields: Vec::with_capacity(1024),
                has_host: false,
                upgrade: None,
                trailers: false,
                replaced_proto: false,
            },
            forwarded_for: Vec::new(),
            has_proto: false,
            has_forwarded_host: false,
            has_framing: false,
            max_forwards: None,
            host: None,
        }
    }

    /// Takes a field of a peer whose word on the client is believed.
    fn of_trusted(&mut self, kind: Kind, name: &str, value: &[u8]) {
        match kind {
            Kind::ForwardedFor => {
                push_element(&mut self.forwarded_for, value);
                return;
            }
            Kind::ForwardedProto => self.has_proto = true,
            Kind::ForwardedHost => self.has_forwarded_host = true,
            Kind::Forwarding => {}
            _ => return self.of_anybody(kind, name, value, true),
        }
        fields::push(&mut self.out.fields, name, value);
    }

    fn of_anybody(&mut self, kind: Kind, name: &str, value: &[u8], dashed: bool) {
        match kind {
            Kind::EndToEnd | Kind::Kept | Kind::MaxForwards => {
                fields::push(&mut self.out.fields, name, value);
            }
            Kind::ForwardedProto => self.out.replaced_proto |= dashed,
            Kind::Upgrade => push_element(self.out.upgrade.get_or_insert_default(), value),
            Kind::Framing => self.has_framing |= dashed,
            _ => {}
        }
    }

    /// Adds what the proxy says itself.
    fn finish<F>(mut self, request: &Received<'_, F>, named: &Named<'_>) -> Decision {
        let lines = &mut self.out.fields;
        if let Some(count) = self.max_forwards {
            fields::push_number(lines, "Max-Forwards", count - 1);
        }
        if self.out.trailers {
            lines.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n");
        }
        let comma: &[u8] = match *self.forwarded_for {
            [] => b"",
            _ => b", ",
        };
        let peer = request.peer.to_canonical().to_string();
        let clients = [&self.forwarded_for, comma, peer.as_bytes()];
        fields::push_parts(lines, "X-Forwarded-For", &clients);
        if !self.has_proto {
            fields::push(lines, "X-Forwarded-Proto", b"http");
        }
        // Without that option an older proxy may have passed the field on by mistake (RFC 9110 7.8).
        if self.out.upgrade.is_some() && !named.has("upgrade") {
            self.out.upgrade = None;
        }
        if let Some(host) = self.host {
            self.out.has_host = true;
            if !self.has_forwarded_host {
                fields::push(lines, "X-Forwarded-Host", host);
            }
        }
        fields::push(lines, "X-Request-Id", request.id.as_bytes());
        let via = [request.version.as_bytes(), b" ", PSEUDONYM.as_bytes()];
        fields::push_parts(lines, "Via", &via);
        if self.has_framing {
            fields::push_number(lines, "Content-Length", request.body_len as u64);
        }
        Decision::Forward(self.out)
    }
}

/// Appends an element to a comma-separated list.
fn push_element(list: &mut Vec<u8>, element: &[u8]) {
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(element);
}

/// Where a try goes to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Destination<'a> {
    /// What Host is if the client has sent none.
    pub(super) authority: &'a str,
    /// What comes before each path: empty, or it begins with a slash and does not end with one.
    pub(super) prefix: &'a str,
    /// How long the client waits for the answer, in milliseconds.
    pub(super) timeout_ms: u64,
    /// The protocol to switch to.
    pub(super) upgrade: Option<&'a str>,
}

impl Forwarded {
    /// The fields that each try sends.
    #[cfg(feature = "cache")]
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        fields::iterate(&self.fields)
    }

    /// The same with other fields, as they are written on the wire.
    #[cfg(feature = "cache")]
    pub(super) fn with_fields(&self, fields: &[u8]) -> Self {
        Self {
            fields: fields.to_vec(),
            upgrade: self.upgrade.clone(),
            ..*self
        }
    }

    /// What was made of a request and kept, with another Host if one is given.
    #[cfg(feature = "events")]
    pub(super) fn of_fields(kept: Vec<u8>, host: Option<&str>) -> Self {
        let is_host = |name: &str| name.eq_ignore_ascii_case("host");
        let has_host = fields::iterate(&kept).any(|(name, _)| is_host(name));
        let fields = match host {
            None => kept,
            Some(host) => {
                let mut fields = Vec::with_capacity(kept.len() + host.len());
                for (name, value) in fields::iterate(&kept) {
                    let value = if is_host(name) {
                        host.as_bytes()
                    } else {
                        value
                    };
                    fields::push(&mut fields, name, value);
                }
                fields
            }
        };
        Self {
            fields,
            has_host,
            upgrade: None,
            trailers: false,
            replaced_proto: false,
        }
    }

    /// What is to be kept of it.
    #[cfg(feature = "events")]
    pub(super) fn into_fields(self) -> Vec<u8> {
        self.fields
    }

    /// The whole head of one try, from the request line to the empty line.
    pub(super) fn head(&self, method: &str, target: &str, to: &Destination<'_>) -> Vec<u8> {
        let mut head = Vec::with_capacity(self.fields.len() + target.len() + 128);
        // A prefix has no meaning for the server as a whole, which `OPTIONS *` asks about (RFC 9112 3.2.4).
        let prefix = if target.starts_with('/') {
            to.prefix
        } else {
            ""
        };
        for part in [method, " ", prefix, target, " HTTP/1.1\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
        if !self.has_host {
            fields::push(&mut head, "Host", to.authority.as_bytes());
        }
        head.extend_from_slice(&self.fields);
        if let Some(protocol) = to.upgrade {
            fields::push(&mut head, "Connection", b"Upgrade");
            fields::push(&mut head, "Upgrade", protocol.as_bytes());
        }
        fields::push_number(&mut head, "X-Envoy-Expected-Rq-Timeout-Ms", to.timeout_ms);
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// The fields of a response that go on to the client.
pub(super) fn back<'a>(
    fields: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let named = Named::of(fields.clone());
    fields.filter(move |(name, _)| match Kind::of(name).0 {
        Kind::Connection | Kind::Te | Kind::Upgrade | Kind::HopByHop | Kind::Framing => false,
        Kind::EndToEnd => !named.has(name),
        _ => true,
    })
}

/// Whether a field may go on to the client behind a body: none there frames a message or is for one connection (RFC 9110
/// 6.5.1).
pub(super) fn is_trailer(name: &str) -> bool {
    Kind::of(name).0 == Kind::EndToEnd
}

/// What a server is asked to trace is sent back (RFC 9110 9.3.8), without what tells who the client is.
pub(super) fn trace<'a>(
    method: &str,
    target: &str,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Vec<u8> {
    let mut text = Vec::new();
    for part in [method, " ", target, " HTTP/1.1\r\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    let secret = ["authorization", "proxy-authorization", "cookie"];
    for (name, value) in fields {
        if !secret
            .iter()
            .any(|secret| name.eq_ignore_ascii_case(secret))
        {
            fields::push(&mut text, name, value);
        }
    }
    text.extend_from_slice(b"\r\n");
    text
}

#[cfg(test)]
mod tests;
