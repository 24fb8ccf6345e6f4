//! Questions to a name server, and what is believed of its answers: SRV (RFC 2782) and addresses.
//!
//! Pure: messages in and out are bytes.

mod message;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use message::{A, AAAA, Data, HEADER, LEAST_RECORD, Message, Record, SRV};

/// Largest answer over UDP that is asked for: what passes every usual path in one piece (DNS flag day 2020).
pub(super) const UDP_SIZE: u16 = 1232;

/// Most records in an answer: each of 256 endpoints may have one of its own and some addresses.
const MOST_RECORDS: u32 = 2048;

/// Codes of answers (RFC 1035 section 4.1.1).
const NO_ERROR: u16 = 0;
const NO_SUCH_NAME: u16 = 3;

/// Most addresses of one name that are believed: more endpoints than that are not taken.
const MOST_ADDRESSES: usize = 257;

/// Most aliases between the name that was asked for and the one that has records.
const MOST_ALIASES: usize = 8;

/// Longest that an answer is believed, and shortest.
const LONGEST_TTL: Duration = Duration::from_secs(60);
const SHORTEST_TTL: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Srv,
    V4,
    V6,
}

impl Kind {
    /// The type of the records.
    fn number(self) -> u16 {
        match self {
            Self::Srv => SRV,
            Self::V4 => A,
            Self::V6 => AAAA,
        }
    }
}

/// Why an answer is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DnsError {
    /// It is no message of DNS.
    Malformed,
    /// It has too many records.
    TooManyRecords,
    /// It answers another question.
    OtherQuestion,
    /// It was cut to fit a datagram: it has to be asked for over TCP.
    Truncated,
    /// There is no such name.
    NoSuchName,
    /// The server does not answer, with this code.
    Refused(u8),
    /// Its aliases do not end.
    EndlessAlias,
    /// The name cannot be asked for.
    BadName,
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the name server's answer is malformed",
            Self::TooManyRecords => "the name server's answer has too many records",
            Self::OtherQuestion => "the name server answers another question",
            Self::Truncated => "the name server's answer is cut",
            Self::NoSuchName => "there is no such name",
            Self::Refused(code) => return write!(f, "the name server refuses with code {code}"),
            Self::EndlessAlias => "the name's aliases do not end",
            Self::BadName => "the name cannot be asked for",
        })
    }
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Srv {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    /// In lower case, without a dot at its end. Empty: the service is not there (RFC 2782).
    pub(super) target: String,
    /// The addresses of the target that came along.
    pub(super) addresses: Vec<IpAddr>,
}

/// What a name server says about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// For a question for SRV.
    pub(super) services: Vec<Srv>,
    /// For a question for addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// How long it may be believed, between 1 s and 60 s.
    pub(super) ttl: Duration,
}

impl Answer {
    /// That there is nothing.
    pub(super) fn none() -> Self {
        Self {
            services: Vec::new(),
            addresses: Vec::new(),
            ttl: LONGEST_TTL,
        }
    }
}

/// A question, as it goes over the wire.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Result<Vec<u8>, DnsError> {
    message::question(id, name, kind.number(), UDP_SIZE).ok_or(DnsError::BadName)
}

/// Reads the answer to that question.
pub(super) fn answer(message: &[u8], id: u16, name: &str, kind: Kind) -> Result<Answer, DnsError> {
    check_counts(message)?;
    let message = Message::parse(message).ok_or(DnsError::Malformed)?;
    if message.id != id || !message.is_response() {
        return Err(DnsError::OtherQuestion);
    }
    let asked = (name.to_ascii_lowercase(), kind.number());
    // Some servers leave the question out when they refuse.
    let question = message.question.as_ref();
    if question.map_or(message.code() == NO_ERROR, |found| *found != asked) {
        return Err(DnsError::OtherQuestion);
    }
    match message.code() {
        NO_ERROR => {}
        NO_SUCH_NAME => return Err(DnsError::NoSuchName),
        code => return Err(DnsError::Refused(u8::try_from(code).unwrap_or(u8::MAX))),
    }
    if message.is_truncated() {
        return Err(DnsError::Truncated);
    }
    let owner = owner(&message, asked.0)?;
    let known = addresses(&message);
    let mut answer = Answer::none();
    for record in message.answers {
        if record.owner != owner {
            continue;
        }
        match (record.data, kind) {
            (
                Data::Service {
                    priority,
                    weight,
                    port,
                    target,
                },
                Kind::Srv,
            ) => {
                if !is_host_name(&target) {
                    return Err(DnsError::Malformed);
                }
                let addresses = known.get(&target).cloned().unwrap_or_default();
                answer.services.push(Srv {
                    priority,
                    weight,
                    port,
                    target,
                    addresses,
                });
            }
            (Data::Address(address), Kind::V4 | Kind::V6) => answer.addresses.push(address),
            _ => continue,
        }
        let ttl = Duration::from_secs(record.ttl.into());
        answer.ttl = answer.ttl.min(ttl).max(SHORTEST_TTL);
    }
    Ok(answer)
}

/// The counts of the header say how much the parser makes room for: they have to fit the message.
fn check_counts(message: &[u8]) -> Result<(), DnsError> {
    let (header, rest) = message
        .split_at_checked(HEADER)
        .ok_or(DnsError::Malformed)?;
    let count = |at: usize| u32::from(u16::from_be_bytes([header[at], header[at + 1]]));
    let records = count(6) + count(8) + count(10);
    if count(4) > 1 {
        return Err(DnsError::OtherQuestion);
    }
    if records as usize > rest.len() / LEAST_RECORD {
        return Err(DnsError::Malformed);
    }
    if records > MOST_RECORDS {
        return Err(DnsError::TooManyRecords);
    }
    Ok(())
}

/// The name that has the records: the end of the aliases from `owner` on.
fn owner(message: &Message, mut owner: String) -> Result<String, DnsError> {
    for _ in 0..=MOST_ALIASES {
        let mut aliases = message.answers.iter();
        let alias = aliases.find_map(|record| match &record.data {
            Data::Alias(alias) if record.owner == owner => Some(alias),
            _ => None,
        });
        match alias {
            Some(alias) => owner.clone_from(alias),
            None => return Ok(owner),
        }
    }
    Err(DnsError::EndlessAlias)
}

/// The addresses of all names in the answer.
fn addresses(message: &Message) -> HashMap<String, Vec<IpAddr>> {
    let mut addresses: HashMap<_, Vec<_>> = HashMap::new();
    for Record { owner, data, .. } in message.additional.iter().chain(&message.answers) {
        if let Data::Address(address) = data {
            let of_name = addresses.entry(owner.clone()).or_default();
            if of_name.len() < MOST_ADDRESSES {
                of_name.push(*address);
            }
        }
    }
    addresses
}

/// Whether a name can stand in a Host field: a label may hold any byte in DNS.
fn is_host_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    name.bytes().all(allowed)
}

#[cfg(test)]
mod tests;
