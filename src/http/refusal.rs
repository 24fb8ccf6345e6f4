//! What the event loop refuses, and what it says when it does.

use super::body::BodyError;

/// Why the event loop answers a request itself instead of handing it to the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request breaks HTTP/1.1's syntax or framing. Carries the whole answer: one line, ended by `\n`.
    Malformed(&'static str),
    /// The head or the body did not arrive before its deadline.
    TooSlow,
    /// The body is, or would become, larger than the limit.
    BodyTooLarge,
    /// The request line alone is larger than the limit for a head.
    TargetTooLong,
    /// `Expect` asks for something other than `100-continue`.
    ExpectationFailed,
    /// The head or the trailer section is too large, or has too many fields.
    HeadTooLarge,
    /// `CONNECT` asks for a tunnel, which only a proxy has.
    TunnelUnsupported,
    /// The body is wrapped in a transfer coding other than `chunked`.
    UnknownTransferCoding,
    /// The client asks more often than a limit allows.
    Throttled,
    /// There is more work than can be done in time.
    Shed,
    /// The same, where the work is to wait for another server.
    AllWait,
    /// The body has waited for room among all bodies as long as it may.
    NoRoom,
    /// The average service time is over the threshold.
    Unhealthy,
    /// The server is about to stop.
    Draining,
    /// The handler did not reply before the request's deadline.
    HandlerTooSlow,
    /// The request is in a version of HTTP other than 1.0 and 1.1.
    Version,
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::ChunkSize => Self::Malformed(
                "Write each chunk's size as 1 to 16 hexadecimal digits, then CR LF.\n",
            ),
            BodyError::ChunkExtension => Self::Malformed(
                "Write chunk extensions as ;name or ;name=value, then CR LF, or leave them out.\n",
            ),
            BodyError::LongExtension => {
                Self::Malformed("The chunk extensions are too long: leave them out.\n")
            }
            BodyError::ChunkEnd => Self::Malformed(
                "End each chunk's data with CR LF, after as many bytes as its size says.\n",
            ),
            BodyError::Trailer => {
                Self::Malformed("Write each trailer as name:value on one line, ended by CR LF.\n")
            }
            BodyError::LongTrailers => Self::HeadTooLarge,
            BodyError::TooLarge => Self::BodyTooLarge,
        }
    }
}

impl Refusal {
    /// The status code of the answer.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::TooSlow => 408,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::ExpectationFailed => 417,
            Self::Throttled => 429,
            Self::HeadTooLarge => 431,
            // 405 would promise an Allow list under which the same target takes other methods; an authority takes none.
            Self::TunnelUnsupported | Self::UnknownTransferCoding => 501,
            Self::Shed | Self::AllWait | Self::NoRoom | Self::Unhealthy | Self::Draining => 503,
            Self::HandlerTooSlow => 504,
            Self::Version => 505,
        }
    }

    /// The reason in a word, for the access log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::TooSlow => "slow",
            Self::BodyTooLarge => "body",
            Self::TargetTooLong => "target",
            Self::ExpectationFailed => "expectation",
            Self::HeadTooLarge => "head",
            Self::TunnelUnsupported => "tunnel",
            Self::UnknownTransferCoding => "coding",
            Self::Throttled => "throttle",
            Self::Shed | Self::AllWait => "shed",
            Self::NoRoom => "bodies",
            Self::Unhealthy => "gate",
            Self::Draining => "drain",
            Self::HandlerTooSlow => "timeout",
            Self::Version => "version",
        }
    }

    /// The body of the answer: one line, ended by `\n`, that says what to do.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Malformed(text) => text,
            Self::TooSlow => "The request took too long to arrive: send it again, faster.\n",
            Self::BodyTooLarge => "The body is larger than --max-body: send a smaller one.\n",
            Self::TargetTooLong => "The request target is too long: send a shorter one.\n",
            Self::ExpectationFailed => {
                "The only expectation met here is 100-continue: leave the Expect field out.\n"
            }
            Self::HeadTooLarge => {
                "The header or trailer section is too large: send fewer or shorter fields.\n"
            }
            Self::TunnelUnsupported => {
                "This is not a proxy: send the request to the server it is meant for.\n"
            }
            Self::UnknownTransferCoding => {
                "The only transfer coding understood here is chunked: use no other.\n"
            }
            Self::Throttled => "Too many requests: try again later.\n",
            Self::Shed => "The server is overloaded: try again later.\n",
            Self::AllWait => {
                "The server is overloaded, all workers wait for the upstream: try again later.\n"
            }
            Self::NoRoom => "Too many request bodies are held at once: try again later.\n",
            Self::Unhealthy => "The service is unhealthy and recovers: try again later.\n",
            Self::Draining => "The server is stopping: try another one.\n",
            Self::HandlerTooSlow => "The server took too long to reply: try again later.\n",
            Self::Version => "Only HTTP/1.0 and HTTP/1.1 are spoken here: use one of these.\n",
        }
    }

    /// Whether the connection must close after the answer.
    ///
    /// True where the end of this request, hence the start of the next, is unknown or may never arrive, and while
    /// draining. Otherwise the request's framing is known and the connection can carry on once its body has been read.
    pub(crate) fn must_close(self) -> bool {
        !matches!(
            self,
            Self::Throttled | Self::Shed | Self::AllWait | Self::Unhealthy | Self::HandlerTooSlow
        )
    }

    /// Whether the client, rather than the server's state, is the reason.
    pub(crate) fn is_client_fault(self) -> bool {
        self.status() < 500
            || matches!(
                self,
                Self::TunnelUnsupported | Self::UnknownTransferCoding | Self::Version
            )
    }
}

#[cfg(test)]
mod tests {
    use super::Refusal;

    /// Refusal, status, closes, client's fault.
    const ALL: [(Refusal, u16, bool, bool); 16] = [
        (
            Refusal::Malformed("Send one Host field.\n"),
            400,
            true,
            true,
        ),
        (Refusal::TooSlow, 408, true, true),
        (Refusal::BodyTooLarge, 413, true, true),
        (Refusal::TargetTooLong, 414, true, true),
        (Refusal::ExpectationFailed, 417, true, true),
        (Refusal::Throttled, 429, false, true),
        (Refusal::HeadTooLarge, 431, true, true),
        (Refusal::TunnelUnsupported, 501, true, true),
        (Refusal::UnknownTransferCoding, 501, true, true),
        (Refusal::Shed, 503, false, false),
        (Refusal::AllWait, 503, false, false),
        (Refusal::NoRoom, 503, true, false),
        (Refusal::Unhealthy, 503, false, false),
        (Refusal::Draining, 503, true, false),
        (Refusal::HandlerTooSlow, 504, false, false),
        (Refusal::Version, 505, true, true),
    ];

    #[test]
    fn each_refusal_has_its_status_fault_and_fate() {
        for (refusal, status, closes, client) in ALL {
            assert_eq!(refusal.status(), status, "{refusal:?}");
            assert_eq!(refusal.must_close(), closes, "{refusal:?}");
            assert_eq!(refusal.is_client_fault(), client, "{refusal:?}");
        }
    }

    #[test]
    fn each_text_is_one_line() {
        for (refusal, ..) in ALL {
            let text = refusal.text();
            assert_eq!(text.find('\n'), Some(text.len() - 1), "{refusal:?}");
        }
    }
}
