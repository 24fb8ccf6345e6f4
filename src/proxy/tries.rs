//! One request to the endpoints: which try is worth another, and what each says about its endpoint.

use std::borrow::Cow;
#[cfg(feature = "cache")]
use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;

use super::config::{BalanceBy, BreakerMode, ProxyConfig};
use super::failure::Failure;
use super::headers::{Destination, Forwarded};
use super::slots::Slot;
use super::upgrade;
use super::upstreams::{Upstream, Upstreams, fail, fault_of};
use crate::Request;
use crate::health::upstreams::EndpointFault;
use crate::http::body::Framing;
use crate::http::fields;
use crate::http::response::{ResponseError, ResponseHead};
use crate::net::client::{self, ClientError, Meanwhile, Parts, Reply, ReplyBody};
use crate::net::pool::Reuse;
use crate::patterns::{Ask, BreakerState, Deadline, Failed, Pick, Retry, Unavailable};

/// Most bytes of a body that are taken whole, if they are at hand with the head.
const MOST_AT_HAND: usize = 64 * 1024;

/// An endpoint's answer.
pub(super) struct Answer {
    pub(super) head: ResponseHead,
    pub(super) body: AnswerBody,
    /// The interim replies before it.
    pub(super) interim: Vec<ResponseHead>,
    /// None once the body is whole: the endpoint is done with the request, and can do another.
    pub(super) pick: Option<Pick<Upstream>>,
    pub(super) slot: Slot,
}

pub(super) enum AnswerBody {
    Whole(Vec<u8>),
    /// It is still to come, in whole or in part.
    Rest(ReplyBody),
    /// A part of it that has come, and what is still to come.
    #[cfg(feature = "cache")]
    Part(Box<dyn Read + Send>, ReplyBody),
    /// The endpoint has switched to this protocol.
    Tunnel(Parts, String),
}

/// Why a try failed.
enum FailedTry {
    Unanswered(Failure),
    /// The endpoint's answer says that another try may go better.
    Answered(Box<Answer>),
}

/// What goes to an endpoint, beside its head.
pub(super) struct Outgoing<'a> {
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
    /// Whether nobody waits for the answer any more.
    pub(super) abandoned: &'a dyn Fn() -> bool,
}

impl<'a> Outgoing<'a> {
    /// What a client asks.
    pub(super) fn by(
        request: &'a Request,
        forwarded: &Forwarded,
        config: &'a ProxyConfig,
        abandoned: &'a dyn Fn() -> bool,
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
            method,
            target: request.url(),
            body: request.bytes(),
            may_repeat,
            key,
            upgrade: upgrade::wanted(request, forwarded, &config.upgrade),
            request: Some(request),
            abandoned,
        }
    }
}

/// One request, as it goes to the endpoints.
pub(super) struct Tries<'a> {
    pub(super) config: &'a ProxyConfig,
    pub(super) upstreams: &'a Upstreams,
    pub(super) outgoing: &'a Outgoing<'a>,
    pub(super) forwarded: &'a Forwarded,
    pub(super) deadline: Deadline,
    /// Longest that it waits while every endpoint does as much as it can.
    pub(super) patience: Duration,
}

impl Tries<'_> {
    /// Tries until there is an answer, or no other try is worth it.
    pub(super) fn run(&self, retry: &Retry) -> Result<Answer, Failure> {
        let began = Instant::now();
        self.upstreams.note_request(began);
        let (mut tried, mut last) = (Vec::new(), None);
        let result = retry.call(self.deadline, |_| {
            self.attempt(&mut tried).map_err(|(failure, next)| {
                // That there is no other endpoint says less than why the last try failed.
                let is_unavailable =
                    matches!(failure, FailedTry::Unanswered(Failure::Unavailable(_)));
                if last.is_none() || !is_unavailable {
                    last = Some(failure);
                }
                next
            })
        });
        if let Some(endpoint) = tried.last() {
            let time = began.elapsed();
            if let Some(request) = self.outgoing.request {
                request.note_endpoint(endpoint.clone(), tried.len(), time);
            }
        }
        result.or_else(|()| match last {
            Some(FailedTry::Answered(answer)) => Ok(*answer),
            Some(FailedTry::Unanswered(failure)) => Err(failure),
            None => Err(Failure::Unavailable(Unavailable::Empty)),
        })
    }

    /// One try; what it fails with, and whether another one is worth it.
    fn attempt(&self, tried: &mut Vec<Arc<str>>) -> Result<Answer, (FailedTry, Failed<()>)> {
        let deadline = match self.config.try_timeout {
            Some(timeout) => self.deadline.within(timeout),
            None => self.deadline,
        };
        let unavailable = |why| {
            let failure = FailedTry::Unanswered(Failure::Unavailable(why));
            (failure, Failed::for_good(()))
        };
        let slot = self.upstreams.slots.take();
        let slot = slot.ok_or_else(|| unavailable(Unavailable::Full))?;
        let ask = Ask::by(deadline).avoid(tried).patience(self.patience);
        let ask = self.outgoing.key.as_deref().map_or(ask, |key| ask.key(key));
        let picked = self.upstreams.balancer.pick(ask);
        let mut pick = picked.map_err(unavailable)?;
        tried.push(pick.name().clone());
        match self.ask(&pick, deadline) {
            Ok((head, body, interim)) => {
                let is_refusal = matches!(head.status, 502..=504);
                let on_5xx = matches!(self.config.breaker, BreakerMode::On { on_5xx: true, .. });
                let is_whole = matches!(body, AnswerBody::Whole(_));
                if is_refusal || (on_5xx && head.status >= 500) {
                    fail(&mut pick, EndpointFault::Unable);
                } else if is_whole || matches!(body, AnswerBody::Tunnel(..)) {
                    pick.success();
                } else {
                    pick.answered();
                }
                let next = (is_refusal && self.outgoing.may_repeat)
                    .then(|| self.next(&pick, tried, retry_after(&head)));
                let answer = Answer {
                    head,
                    body,
                    interim,
                    pick: (!is_whole).then_some(pick),
                    slot,
                };
                match next {
                    Some(next) => Err((FailedTry::Answered(Box::new(answer)), next)),
                    None => Ok(answer),
                }
            }
            Err(error) => {
                log::debug!("{}: {error}", pick.name());
                if blames_endpoint(&error) {
                    fail(&mut pick, fault_of(&error));
                }
                let next = if self.is_worth_another(&error) {
                    self.next(&pick, tried, None)
                } else {
                    Failed::for_good(())
                };
                Err((FailedTry::Unanswered(Failure::Client(error)), next))
            }
        }
    }

    /// What follows a try that is worth another one.
    fn next(
        &self,
        pick: &Pick<Upstream>,
        tried: &[Arc<str>],
        retry_after: Option<Duration>,
    ) -> Failed<()> {
        let breaker = pick.data().breaker.as_ref();
        if self.upstreams.balancer.has_another(tried) {
            Failed::again_at_once(())
        } else if breaker.is_some_and(|breaker| breaker.status().state == BreakerState::Open) {
            Failed::for_good(())
        } else if let Some(time) = retry_after {
            Failed::again_after((), time)
        } else {
            Failed::again(())
        }
    }

    /// Sends the request to an endpoint, on a kept connection if there is one.
    fn ask(
        &self,
        pick: &Pick<Upstream>,
        deadline: Deadline,
    ) -> Result<(ResponseHead, AnswerBody, Vec<ResponseHead>), ClientError> {
        let to = &**pick.data();
        let may_repeat = self.outgoing.may_repeat;
        let mut reuse = if may_repeat {
            Reuse::Any
        } else {
            Reuse::Recent
        };
        let upgrade = self.outgoing.upgrade;
        loop {
            let left = deadline
                .remaining()
                .map_err(|_| ClientError::ResponseTimeout)?;
            let destination = Destination {
                authority: &to.authority,
                prefix: &to.prefix,
                timeout_ms: left.as_millis(),
                upgrade,
            };
            let Outgoing { method, target, .. } = *self.outgoing;
            let head = self.forwarded.head(method, target, &destination);
            let request = client::Request {
                method,
                head: &head,
                body: self.outgoing.body,
                upgrade: upgrade.is_some(),
                reuse,
            };
            let mut interim = Vec::new();
            let mut meanwhile = Meanwhile {
                cancelled: self.outgoing.abandoned,
                interim: &mut |head| {
                    // The event loop answers Expect.
                    if head.status != 100 {
                        interim.push(head.clone());
                    }
                },
            };
            let connect_timeout = self.config.connect_timeout;
            let sent = client::send(
                &to.pool,
                &request,
                connect_timeout,
                deadline,
                &mut meanwhile,
            );
            let Reply { head, mut body } = match sent {
                Err(ClientError::Stale) if may_repeat && reuse != Reuse::Never => {
                    reuse = Reuse::Never;
                    continue;
                }
                sent => sent?,
            };
            // Only what is relayed keeps its trailers.
            let has_trailers = self.forwarded.trailers && head.framing == Framing::Chunked;
            let body = match upgrade {
                Some(protocol) if head.status == 101 => {
                    let parts = body.into_parts().ok_or(ClientError::Incomplete)?;
                    if !upgrade::has_switched(&head, protocol) {
                        return Err(ResponseError::UnaskedUpgrade.into());
                    }
                    AnswerBody::Tunnel(parts, protocol.to_owned())
                }
                _ if has_trailers => AnswerBody::Rest(body),
                _ => match body.whole_at_hand(MOST_AT_HAND)? {
                    Some(whole) => AnswerBody::Whole(whole),
                    None => AnswerBody::Rest(body),
                },
            };
            return Ok((head, body, interim));
        }
    }

    fn is_worth_another(&self, error: &ClientError) -> bool {
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
}

/// Whether the endpoint is at fault, and not this host or the client.
fn blames_endpoint(error: &ClientError) -> bool {
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
