//! Messages of DNS as bytes (RFC 1035 section 4): the question that is asked, and of an answer the records of addresses,
//! aliases and services.
//!
//! Names are in lower case, without a dot at their end. A byte that no host's name has stays, and makes the name match none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::error::DnsError;

/// Bytes of a message's header.
pub(super) const HEADER: usize = 12;

/// Fewest bytes of a record: a name of one byte, type, class, TTL and length.
const LEAST_RECORD: usize = 11;

/// Most records in an answer: each of 256 endpoints may have one of its own and some addresses.
pub(super) const MOST_RECORDS: usize = 2048;

// Types of records: RFC 1035 section 3.2.2, RFC 3596, RFC 2782, RFC 6891.
pub(super) const A: u16 = 1;
const CNAME: u16 = 5;
pub(super) const AAAA: u16 = 28;
pub(super) const SRV: u16 = 33;
const OPT: u16 = 41;

/// The class of the Internet.
const IN: u16 = 1;

// Bits of a header's flags.
const RESPONSE: u16 = 0x8000;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const CODE: u16 = 0x000f;

/// Longest label, longest name with the lengths of its labels, and so the most labels in one.
const LONGEST_LABEL: usize = 63;
const LONGEST_NAME: usize = 255;
const MOST_LABELS: usize = 127;

/// The two bits that make a label's length a pointer to where the name goes on.
const POINTER: u8 = 0xc0;

/// What is read of a message.
pub(super) struct Message {
    pub(super) id: u16,
    flags: u16,
    /// The part of the code that a record tells (RFC 6891 section 6.1.3).
    extended_code: u16,
    /// Its name and type.
    pub(super) question: Option<(String, u16)>,
    pub(super) answers: Vec<Record>,
    pub(super) additional: Vec<Record>,
}

/// A record.
pub(super) struct Record {
    pub(super) owner: String,
    /// Seconds for which it may be believed.
    pub(super) ttl: u32,
    pub(super) data: Data,
}

/// What a record says.
pub(super) enum Data {
    Address(IpAddr),
    Alias(String),
    Service {
        priority: u16,
        weight: u16,
        port: u16,
        target: String,
    },
    /// What nobody has asked for.
    Other,
}

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// It is malformed, or has more than one question or too many records.
    pub(super) fn parse(message: &[u8]) -> Result<Self, DnsError> {
        let (header, rest) = message
            .split_first_chunk::<HEADER>()
            .ok_or(DnsError::Malformed)?;
        let numbers =
            [0, 2, 4, 6, 8, 10].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
        let [_, _, questions, sections @ ..] = numbers;
        if questions > 1 {
            return Err(DnsError::OtherQuestion);
        }
        let records = sections.into_iter().map(usize::from).sum::<usize>();
        // Before it is too many: who answers in another's place over UDP must not end the wait for the right answer.
        if records > rest.len() / LEAST_RECORD {
            return Err(DnsError::Malformed);
        }
        if records > MOST_RECORDS {
            return Err(DnsError::TooManyRecords);
        }
        Self::read(message, numbers).ok_or(DnsError::Malformed)
    }

    /// Reads what is behind the header, which holds these numbers.
    fn read(message: &[u8], numbers: [u16; 6]) -> Option<Self> {
        let [id, flags, questions, answers, authorities, additional] = numbers;
        let mut reader = Reader {
            message,
            at: HEADER,
        };
        let mut question = None;
        for _ in 0..questions {
            question = Some((reader.name()?, reader.u16()?));
            // Its class.
            reader.u16()?;
        }
        let mut extended_code = 0;
        let mut section = |count: u16| {
            (0..count)
                .map(|_| reader.record(&mut extended_code))
                .collect::<Option<Vec<_>>>()
        };
        let answers = section(answers)?;
        section(authorities)?;
        let additional = section(additional)?;
        Some(Self {
            id,
            flags,
            extended_code,
            question,
            answers,
            additional,
        })
    }

    pub(super) fn is_response(&self) -> bool {
        self.flags & RESPONSE != 0
    }

    /// Whether it was cut to fit a datagram.
    pub(super) fn is_truncated(&self) -> bool {
        self.flags & TRUNCATED != 0
    }

    /// 0 for no error.
    pub(super) fn code(&self) -> u16 {
        self.extended_code << 4 | self.flags & CODE
    }
}

/// Reads a message forward.
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let bytes = self.message.get(self.at..)?.get(..count)?;
        self.at += count;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// A name, which may go on at an earlier place of the message (RFC 1035 section 4.1.4).
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        // Where to go on behind the name, once a pointer has left it.
        let mut behind = None;
        // A label or a pointer each time.
        for _ in 0..2 * MOST_LABELS {
            let begun = self.at;
            let [length] = self.array()?;
            if length == 0 {
                self.at = behind.unwrap_or(self.at);
                return Some(name);
            }
            if length & POINTER == POINTER {
                let [low] = self.array()?;
                behind.get_or_insert(self.at);
                self.at = usize::from(u16::from_be_bytes([length & !POINTER, low]));
                // Backwards only.
                if self.at >= begun {
                    return None;
                }
                continue;
            }
            let label = self.bytes(length.into())?;
            if label.len() > LONGEST_LABEL || name.len() + label.len() > LONGEST_NAME {
                return None;
            }
            if !name.is_empty() {
                name.push('.');
            }
            for byte in label {
                // A dot within a label ends none.
                if *byte == b'.' {
                    name.push('\\');
                }
                name.push(char::from(byte.to_ascii_lowercase()));
            }
        }
        None
    }

    fn record(&mut self, extended_code: &mut u16) -> Option<Record> {
        let owner = self.name()?;
        let (kind, class) = (self.u16()?, self.u16()?);
        let ttl = u32::from_be_bytes(self.array()?);
        let length = usize::from(self.u16()?);
        let end = self.at + length;
        let data = match kind {
            A if class == IN => Data::Address(Ipv4Addr::from(self.array::<4>()?).into()),
            AAAA if class == IN => Data::Address(Ipv6Addr::from(self.array::<16>()?).into()),
            CNAME if class == IN => Data::Alias(self.name()?),
            SRV if class == IN => Data::Service {
                priority: self.u16()?,
                weight: self.u16()?,
                port: self.u16()?,
                target: self.name()?,
            },
            _ => {
                if kind == OPT {
                    *extended_code = u16::from(ttl.to_be_bytes()[0]);
                }
                self.bytes(length)?;
                Data::Other
            }
        };
        (self.at == end).then_some(Record { owner, ttl, data })
    }
}

/// A question for records of type `kind`, which invites answers of up to `udp_size` bytes. `None` if the name cannot be
/// asked for.
pub(super) fn question(id: u16, name: &str, kind: u16, udp_size: u16) -> Option<Vec<u8>> {
    // One question, and the record that is about the message itself.
    let mut message = joined(&[id, RECURSION_DESIRED, 1, 0, 0, 1]);
    for label in name.split('.') {
        if label.is_empty() || label.len() > LONGEST_LABEL {
            return None;
        }
        message.push(u8::try_from(label.len()).ok()?);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    if message.len() > HEADER + LONGEST_NAME {
        return None;
    }
    message.extend(joined(&[kind, IN]));
    // Of the root.
    message.push(0);
    message.extend(joined(&[OPT, udp_size, 0, 0, 0]));
    Some(message)
}

/// Numbers as they go over the wire.
fn joined(numbers: &[u16]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .collect()
}
