//! Why a name server's answer is not believed.

use std::fmt;

/// Why an answer is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::patterns::discovery) enum DnsError {
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
