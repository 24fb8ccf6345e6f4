//! What goes to the endpoints, and by which rules: what one try sends, and what its end means.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;

use super::answer::AnswerBody;
use super::config::{BalanceBy, ProxyConfig};
use super::headers::{Destination, Forwarded};
use super::upgrade;
use super::upstreams::{Upstream, Upstreams};
use crate::Request;
use crate::http::body::Framing;
use crate::http::fields;
use crate::http::response::{ResponseError, ResponseHead};
use crate::net::client::{self, Call, ClientError, ReplyBody};
use crate::net::pool::Reuse;
use crate::patterns::{BreakerState, CircuitBreaker, Deadline, Failed, Pick, Retry};

/// Most bytes of a body that are taken whole, if they are at hand with the head.
const MOST_AT_HAND: usize = 64 * 1024;

/// What goes to an endpoint.
pub(super) struct Outgoing<'a> {
    pub(super) forwarded: &'a Forwarded,
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) body: &'a [u8],
    /// Whether it may be sent twice.
    pub(super) may_repeat: bool,
    /// What decides which endpoint gets it, if anything of it does.
    pub(super) key: Option<Cow<'a, [u8]>>,
    /// The protocol to switch to.
    pub(super) upgrade: Option<&'a str>,
    /// The client's request that it is, which the access log tells of.
    pub(super) request: Option<&'a Request>,
}

impl<'a> Outgoing<'a> {
    /// What a client asks.
    pub(super) fn by(
        request: &'a Request,
        forwarded: &'a Forwarded,
        config: &'a ProxyConfig,
    ) -> Self {
        let method = request.method();
        // Its method is idempotent (RFC 9110 9.2.2), or the client has given it a key by which the service knows it again.
        let may_repeat = matches!(
            method,
            "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "TRACE"
        ) || request.header_bytes("idempotency-key").is_some();
        let key = match &config.balance {
            BalanceBy::Latency | BalanceBy::RoundRobin => None,
            BalanceBy::HashIp => Some(match request.client() {
                IpAddr::V4(address) => address.octets().to_vec().into(),
                IpAddr::V6(address) => address.octets().to_vec().into(),
            }),
            BalanceBy::HashHeader(name) => request.header_bytes(name).map(Cow::Borrowed),
        };
        Self {
            forwarded,
            method,
            target: request.url(),
            body: request.bytes(),
            may_repeat,
            key,
            upgrade: upgrade::wanted(request, forwarded, &config.upgrade),
            request: Some(request),
        }
    }
}

/// What goes to the endpoints, and by which rules.
pub(super) struct Way<'a> {
    pub(super) config: &'a ProxyConfig,
    pub(super) upstreams: &'a Upstreams,
    pub(super) retry: &'a Retry,
    pub(super) outgoing: Outgoing<'a>,
}

impl Way<'_> {
    pub(super) fn request<'b>(&'b self, head: &'b [u8], reuse: Reuse) -> client::Request<'b> {
        client::Request {
            method: self.outgoing.method,
            head,
            body: self.outgoing.body,
            upgrade: self.outgoing.upgrade.is_some(),
            reuse,
        }
    }

    /// Sends what can be sent at once of a try, on a kept connection if there is one.
    pub(super) fn send(
        &self,
        to: &Upstream,
        deadline: Deadline,
        reuse: Reuse,
    ) -> Result<Sent, ClientError> {
        let left = deadline
            .remaining()
            .map_err(|_| ClientError::ResponseTimeout)?;
        let destination = Destination {
            authority: &to.authority,
            prefix: &to.prefix,
            timeout_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            upgrade: self.outgoing.upgrade,
        };
        let Outgoing { method, target, .. } = self.outgoing;
        let head = self.outgoing.forwarded.head(method, target, &destination);
        let connect_by = deadline.within(self.config.connect_timeout);
        let call = Call::begin(&to.pool, &self.request(&head, reuse), connect_by)?;
        Ok(Sent { head, call })
    }

    /// The body of a reply, as far as it is at hand.
    pub(super) fn body(
        &self,
        head: &ResponseHead,
        mut body: ReplyBody,
    ) -> Result<AnswerBody, ClientError> {
        // Only what is relayed keeps its trailers.
        let has_trailers = self.outgoing.forwarded.trailers && head.framing == Framing::Chunked;
        Ok(match self.outgoing.upgrade {
            Some(protocol) if head.status == 101 => {
                let parts = body.into_parts().ok_or(ClientError::Incomplete)?;
                if !upgrade::has_switched(head, protocol) {
                    return Err(ResponseError::UnaskedUpgrade.into());
                }
                AnswerBody::Tunnel(parts, protocol.to_owned())
            }
            _ if has_trailers => AnswerBody::Rest(body),
            _ => match body.whole_at_hand(MOST_AT_HAND)? {
                Some(whole) => AnswerBody::Whole(whole),
                None => AnswerBody::Rest(body),
            },
        })
    }

    pub(super) fn is_worth_another(&self, error: &ClientError) -> bool {
        match error {
            // Nothing was sent.
            ClientError::Connect(_) | ClientError::ConnectTimeout => true,
            ClientError::Closed | ClientError::Stale | ClientError::Incomplete => {
                self.outgoing.may_repeat
            }
            // Without a limit of its own, a try takes all the time there is.
            ClientError::SendTimeout | ClientError::ResponseTimeout => {
                self.outgoing.may_repeat && self.config.try_timeout.is_some()
            }
            ClientError::StatusLine(_) | ClientError::Response(_) | ClientError::Cancelled => false,
        }
    }

    /// What follows a try that is worth another one.
    pub(super) fn next(
        &self,
        pick: &Pick<Upstream>,
        tried: &[Arc<str>],
        retry_after: Option<Duration>,
        now: Instant,
    ) -> Failed<()> {
        let breaker = pick.data().breaker.as_ref();
        let is_open = |breaker: &CircuitBreaker| breaker.status().state == BreakerState::Open;
        if self.upstreams.balancer.has_another_at(tried, now) {
            Failed::again_at_once(())
        } else if breaker.is_some_and(is_open) {
            Failed::for_good(())
        } else if let Some(time) = retry_after {
            Failed::again_after((), time)
        } else {
            Failed::again(())
        }
    }
}

/// What was sent, and what it was sent on.
pub(super) struct Sent {
    pub(super) head: Vec<u8>,
    pub(super) call: Call,
}

/// Whether the endpoint is at fault, and not this host or the client.
pub(super) fn blames_endpoint(error: &ClientError) -> bool {
    match error {
        // Another connection may be closed between two requests; that says nothing about the endpoint.
        ClientError::Stale | ClientError::Cancelled => false,
        ClientError::Connect(error) => {
            let number = error.raw_os_error().map(Errno::from_raw);
            !matches!(
                number,
                Some(
                    Errno::EMFILE
                        | Errno::ENFILE
                        | Errno::ENOBUFS
                        | Errno::ENOMEM
                        | Errno::EADDRNOTAVAIL
                )
            )
        }
        _ => true,
    }
}

/// How long the endpoint asks to be left alone: seconds, or a date (RFC 9110 10.2.3).
pub(super) fn retry_after(head: &ResponseHead) -> Option<Duration> {
    let value = head.field("retry-after")?;
    if let Some(seconds) = fields::parse_length(value) {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(str::from_utf8(value).ok()?).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}
