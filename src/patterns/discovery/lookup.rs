//! Asks name servers: over UDP, and over TCP what does not fit a datagram. Blocking, until a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::dns::{self, Answer, DnsError, Kind, Srv};
use crate::patterns::{Deadline, DeadlineStream};
use crate::random;

/// Where the system's name servers are named.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Most bytes of it that are read.
const MOST_CONF: u64 = 64 * 1024;

/// Most name servers that are asked; what `resolv.conf(5)` allows.
const MOST_SERVERS: usize = 3;

/// How often a server is asked before the next one is: datagrams get lost.
const TRIES: u32 = 2;

/// Longest datagram that is read: more than was asked for.
const MOST_DATAGRAM: usize = 4096;

/// What name servers say of a name's services.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Services {
    /// Those whose addresses nobody tells now have none; those that have no address are left out.
    pub(super) list: Vec<Srv>,
    /// How long all this may be believed.
    pub(super) ttl: Duration,
    /// Why some addresses are not told.
    pub(super) complaint: Option<String>,
}

/// The services of a name with their addresses.
///
/// # Errors
/// Why there are none, in a line.
pub(super) fn services(
    name: &str,
    server: Option<SocketAddr>,
    deadline: Deadline,
) -> Result<Services, String> {
    let servers = match server {
        Some(server) => vec![server],
        None => system_servers().map_err(|error| format!("{RESOLV_CONF}: {error}"))?,
    };
    let ask = |name: &str, kind| ask_each(&servers, name, kind, deadline);
    let answer = ask(name, Kind::Srv)?;
    let mut found = Services {
        list: Vec::new(),
        ttl: answer.ttl,
        complaint: None,
    };
    let there = answer.services.into_iter();
    for mut service in there.filter(|service| !service.target.is_empty()) {
        let mut failed = None;
        if service.addresses.is_empty() {
            for kind in [Kind::V4, Kind::V6] {
                match ask(&service.target, kind) {
                    Ok(told) => {
                        service.addresses.extend(told.addresses);
                        found.ttl = found.ttl.min(told.ttl);
                    }
                    Err(error) => failed = Some(format!("{}: {error}", service.target)),
                }
            }
        }
        if !service.addresses.is_empty() {
            found.list.push(service);
        } else if failed.is_some() {
            found.complaint = failed;
            found.list.push(service);
        }
    }
    if found.list.is_empty() {
        return Err("the name has no SRV records".to_owned());
    }
    Ok(found)
}

/// Asks one server after the other until one knows.
fn ask_each(
    servers: &[SocketAddr],
    name: &str,
    kind: Kind,
    deadline: Deadline,
) -> Result<Answer, String> {
    let mut failed = "no answer in time".to_owned();
    for (index, &server) in servers.iter().enumerate() {
        let Ok(left) = deadline.remaining() else {
            break;
        };
        let still = u32::try_from(servers.len() - index).unwrap_or(u32::MAX);
        let part = deadline.within(left / still);
        match ask(server, name, kind, part) {
            Ok(answer) => return Ok(answer),
            Err(error) => failed = format!("{server}: {error}"),
        }
    }
    Err(failed)
}

fn ask(server: SocketAddr, name: &str, kind: Kind, deadline: Deadline) -> Result<Answer, AskError> {
    // An id that nobody can guess keeps others from answering.
    let [first, second, ..] = random::seed().to_ne_bytes();
    let id = u16::from_ne_bytes([first, second]);
    let question = dns::question(id, name, kind)?;
    let read = |message: &[u8]| dns::answer(message, id, name, kind);
    let asked = match ask_udp(server, &question, deadline, read) {
        Err(AskError::Dns(DnsError::Truncated)) => {
            let message = ask_tcp(server, &question, deadline)?;
            Ok(read(&message)?)
        }
        asked => asked,
    };
    match asked {
        // That a host is not there is an answer.
        Err(AskError::Dns(DnsError::NoSuchName)) if kind != Kind::Srv => Ok(Answer::none()),
        asked => asked,
    }
}

/// Why a server did not tell.
enum AskError {
    Dns(DnsError),
    Io(io::Error),
}

impl From<DnsError> for AskError {
    fn from(error: DnsError) -> Self {
        Self::Dns(error)
    }
}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for AskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dns(error) => error.fmt(f),
            Self::Io(error) if error.kind() == ErrorKind::TimedOut => {
                f.write_str("no answer in time")
            }
            Self::Io(error) => error.fmt(f),
        }
    }
}

fn ask_udp(
    server: SocketAddr,
    question: &[u8],
    deadline: Deadline,
    read: impl Fn(&[u8]) -> Result<Answer, DnsError>,
) -> Result<Answer, AskError> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // From here on the system takes datagrams of that server alone.
    socket.connect(server)?;
    let mut message = vec![0; MOST_DATAGRAM];
    let mut failed = AskError::Io(ErrorKind::TimedOut.into());
    for tried in 0..TRIES {
        let part = deadline
            .remaining()
            .map(|left| deadline.within(left / (TRIES - tried)));
        let Ok(part) = part else {
            break;
        };
        socket.send(question)?;
        while let Ok(left) = part.remaining() {
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut message) {
                Ok(count) => match read(&message[..count]) {
                    // It may be forged, or late: the right one may still come.
                    Err(error @ (DnsError::OtherQuestion | DnsError::Malformed)) => {
                        failed = error.into();
                    }
                    read => return Ok(read?),
                },
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => return Err(error.into()),
                },
            }
        }
    }
    Err(failed)
}

/// Over TCP each message has its length before it (RFC 1035 4.2.2).
fn ask_tcp(server: SocketAddr, question: &[u8], deadline: Deadline) -> io::Result<Vec<u8>> {
    let mut stream = DeadlineStream::connect(server, deadline)?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn system_servers() -> io::Result<Vec<SocketAddr>> {
    let mut text = String::new();
    let file = std::fs::File::open(RESOLV_CONF)?;
    file.take(MOST_CONF).read_to_string(&mut text)?;
    Ok(name_servers(&text))
}

/// The name servers of `resolv.conf(5)`; without one, that of this host.
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = (words.next()? == "nameserver").then(|| words.next())??;
        Some(SocketAddr::new(address.parse().ok()?, 53))
    });
    let servers: Vec<_> = servers.take(MOST_SERVERS).collect();
    if servers.is_empty() {
        return vec![(Ipv4Addr::LOCALHOST, 53).into()];
    }
    servers
}

#[cfg(test)]
mod tests;
