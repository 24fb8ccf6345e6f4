//! Questions to a name server, and what is believed of its answers: SRV (RFC 2782) and addresses.
//!
//! Pure: messages in and out are bytes.

mod error;
mod message;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

pub(super) use error::DnsError;
use message::{A, AAAA, Data, Message, Record, SRV};

use crate::patterns::MOST_ENDPOINTS;

/// Largest answer over UDP that is asked for: what passes every usual path in one piece (DNS flag day 2020).
pub(super) const UDP_SIZE: u16 = 1232;

/// Codes of answers (RFC 1035 section 4.1.1).
const NO_ERROR: u16 = 0;
const NO_SUCH_NAME: u16 = 3;

/// Most addresses of one name that are believed: one more than are taken, so that it shows that there are more.
const MOST_ADDRESSES: usize = MOST_ENDPOINTS + 1;

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
    let message = Message::parse(message)?;
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
    let known = match kind {
        Kind::Srv => addresses(&message),
        Kind::V4 | Kind::V6 => HashMap::new(),
    };
    let mut answer = Answer::none();
    for record in &message.answers {
        if record.owner != owner {
            continue;
        }
        match (&record.data, kind) {
            (
                Data::Service {
                    priority,
                    weight,
                    port,
                    target,
                },
                Kind::Srv,
            ) => {
                if !is_host_name(target) {
                    return Err(DnsError::Malformed);
                }
                let addresses = known.get(target.as_str()).cloned();
                answer.services.push(Srv {
                    priority: *priority,
                    weight: *weight,
                    port: *port,
                    target: target.clone(),
                    addresses: addresses.unwrap_or_default(),
                });
            }
            (Data::Address(address), Kind::V4 | Kind::V6) => answer.addresses.push(*address),
            _ => continue,
        }
        let ttl = Duration::from_secs(record.ttl.into());
        answer.ttl = answer.ttl.min(ttl).max(SHORTEST_TTL);
    }
    Ok(answer)
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
fn addresses(message: &Message) -> HashMap<&str, Vec<IpAddr>> {
    let mut addresses: HashMap<_, Vec<_>> = HashMap::new();
    for Record { owner, data, .. } in message.additional.iter().chain(&message.answers) {
        if let Data::Address(address) = data {
            let of_name = addresses.entry(owner.as_str()).or_default();
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
