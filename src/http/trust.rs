//! Who a request comes from when it comes through proxies.
//!
//! Each proxy appends to `X-Forwarded-For` the address that it was asked from, so the entries on the right were written
//! by the proxies nearest to us, and what is on the left may be anybody's invention. Read from the right, the first
//! address that is not a trusted proxy's is the client's.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::fields;

/// A range of IP addresses in the notation of [RFC 4632](https://www.rfc-editor.org/rfc/rfc4632#section-3.1) and
/// [RFC 4291](https://www.rfc-editor.org/rfc/rfc4291#section-2.3): `10.0.0.0/8`, `fd00::/8`, or one address.
///
/// The bits beyond the prefix have to be zero: `10.0.0.1/8` is more likely a slip than a wish for 16 million addresses.
/// An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`) counts as the IPv4 address in it, here and in
/// [`contains`](Self::contains).
///
/// ```
/// use plimsoll::Cidr;
///
/// let inside: Cidr = "10.0.0.0/8".parse()?;
/// assert!(inside.contains("10.1.2.3".parse()?));
/// assert!(inside.contains("::ffff:10.1.2.3".parse()?));
/// assert!(!inside.contains("11.0.0.1".parse()?));
/// assert!("10.0.0.1/8".parse::<Cidr>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    /// Leading bits that an address has in common with the network: at most as many as an address has.
    prefix: u32,
}

impl Cidr {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(parse_prefix(prefix)?)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().ok()?;
        let network = written.to_canonical();
        // Of an IPv4-mapped address, as many bits of the prefix are those in front of the IPv4 address.
        let in_front = bits(written) - bits(network);
        let prefix = prefix.unwrap_or(bits(written)).checked_sub(in_front)?;
        let zeros = match network {
            IpAddr::V4(address) => address.to_bits().trailing_zeros(),
            IpAddr::V6(address) => address.to_bits().trailing_zeros(),
        };
        let fits = prefix <= bits(network) && zeros >= bits(network) - prefix;
        fits.then_some(Self { network, prefix })
    }

    /// Whether the address is in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let in_common = match (self.network, address.to_canonical()) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                (one.to_bits() ^ other.to_bits()).leading_zeros()
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => {
                (one.to_bits() ^ other.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        in_common >= self.prefix
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// How many bits an address has.
fn bits(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn parse_prefix(text: &str) -> Option<u32> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// The proxies that are believed.
#[derive(Debug, Default)]
pub(crate) struct Trust(Vec<Cidr>);

impl Trust {
    pub(crate) fn new(proxies: Vec<Cidr>) -> Self {
        Self(proxies)
    }

    /// Whether what it says of a client is believed.
    pub(crate) fn includes(&self, address: IpAddr) -> bool {
        self.0.iter().any(|proxies| proxies.contains(address))
    }

    /// Whom a request of `peer` with these fields is from, IPv4-mapped addresses as IPv4.
    ///
    /// Of a peer that is not trusted no field is read. An entry that is no address (`unknown`, a name, garbage) ends the
    /// search: then the last proxy before it is all that is known. So it is when every address is a proxy's.
    pub(crate) fn client<'a>(
        &self,
        peer: IpAddr,
        fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.includes(client) {
            return client;
        }
        let is_ours = |(name, _): &(&str, _)| name.eq_ignore_ascii_case("x-forwarded-for");
        // Several lines are one list (RFC 9110 section 5.2).
        let lines: Vec<_> = fields.filter(is_ours).map(|(_, value)| value).collect();
        let lists = lines.into_iter().map(fields::list);
        for entry in lists.flatten().rev() {
            let Some(address) = parse_entry(entry) else {
                break;
            };
            client = address;
            if !self.includes(client) {
                break;
            }
        }
        client
    }
}

/// The address in an entry: bare, in brackets, and with or without a port, as some proxies write it.
fn parse_entry(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?;
    let bracketed = || {
        let text = text.strip_prefix('[')?.strip_suffix(']')?;
        text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    };
    let bare = text.parse().ok().or_else(bracketed);
    let address = bare.or_else(|| {
        text.parse()
            .ok()
            .map(|with_port: SocketAddr| with_port.ip())
    });
    Some(address?.to_canonical())
}

#[cfg(test)]
mod tests;
