//! One attempt to deliver an event, and what its outcome means.

use std::borrow::Cow;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use super::super::answer::{Answer, AnswerBody};
use super::super::config::{BalanceBy, ProxyConfig};
use super::super::failure::Failure;
use super::super::headers::{Forwarded, is_framing, is_same_name};
use super::super::tries::Tries;
use super::super::upstreams::Upstreams;
use super::super::way::{Outgoing, Way, retry_after};
use crate::http::fields;
use crate::net::client::{ClientError, ReplyBody};
use crate::patterns::{Deadline, Delivery, Event, Outcome, Retry, RetryBudget};

/// Most bytes of an answer that are read to see its end. Nobody reads more of it.
const MOST_READ: u64 = 64 * 1024;

/// The headers that this makes anew for each attempt.
const ID: &str = "Idempotency-Key";
const ATTEMPT: &str = "Event-Attempt";

/// Whether a producer's header of this name is not sent on, as this sends its own.
pub(super) fn is_own(name: &str) -> bool {
    [ID, ATTEMPT]
        .iter()
        .any(|own| is_same_name(own.as_bytes(), name.as_bytes()))
}

/// Delivers events by the ways that requests go.
pub(super) struct Deliverer {
    config: ProxyConfig,
    upstreams: Arc<Upstreams>,
    retry: Retry,
    /// Longest that an attempt may take.
    timeout: Duration,
}

impl Deliverer {
    pub(super) fn new(config: ProxyConfig, upstreams: Arc<Upstreams>, timeout: Duration) -> Self {
        // With a budget of its own: what is tried again for an event is not taken from the clients.
        let budget = Arc::new(RetryBudget::default());
        Self {
            retry: Retry::new().retries(config.retries).budget(budget),
            config,
            upstreams,
            timeout,
        }
    }

    pub(super) fn deliver(&self, delivery: &Delivery) -> Outcome {
        let event = &delivery.event;
        if !is_request(event) {
            return Outcome::Rejected {
                reason: "it is not a request as this server keeps it".to_owned(),
            };
        }
        let mut stored = event.attributes.clone();
        let id = format!("\"{}\"", delivery.id);
        fields::push(&mut stored, ID, id.as_bytes());
        fields::push_number(&mut stored, ATTEMPT, u64::from(delivery.attempt));
        let forwarded = Forwarded::of_fields(stored, self.config.upstream_host.as_deref());
        let key = match &self.config.balance {
            BalanceBy::HashHeader(name) => {
                let mut fields = fields::iterate(&event.attributes);
                let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
                found.map(|(_, value)| Cow::Borrowed(value))
            }
            BalanceBy::Latency | BalanceBy::RoundRobin | BalanceBy::HashIp => None,
        };
        let way = Way {
            config: &self.config,
            upstreams: &self.upstreams,
            retry: &self.retry,
            outgoing: Outgoing {
                forwarded: &forwarded,
                method: "POST",
                target: &event.topic,
                body: &event.body,
                may_repeat: true,
                key,
                upgrade: None,
                request: None,
            },
        };
        let deadline = Deadline::after(self.timeout);
        let tries = Tries::new(&self.retry, &self.upstreams, deadline, self.timeout);
        match tries.run(&way, &|| false) {
            Ok(answer) => judge(answer, deadline),
            Err(Failure::Unavailable(_)) => Outcome::Unreachable,
            Err(Failure::Client(ClientError::Connect(_) | ClientError::ConnectTimeout)) => {
                Outcome::Unreachable
            }
            Err(Failure::Client(error)) => Outcome::Failed {
                reason: error.to_string(),
                retry_after: None,
            },
        }
    }
}

/// Whether an event is one request to a path, as each is that was kept here. Others can write to a redis too, and the
/// service would take what they made up for something else, or for two requests.
fn is_request(event: &Event) -> bool {
    let Event {
        topic,
        attributes,
        body,
        ..
    } = event;
    let is_path = topic.starts_with('/') && topic.bytes().all(|byte| byte.is_ascii_graphic());
    let mut framing = fields::iterate(attributes).filter(|(name, _)| is_framing(name));
    let is_framed = match framing.next() {
        None => body.is_empty(),
        Some((name, length)) => {
            let length = fields::parse_length(length);
            name.eq_ignore_ascii_case("content-length") && length == Some(body.len() as u64)
        }
    };
    is_path && fields::are_whole(attributes) && is_framed && framing.next().is_none()
}

/// What an answer means: delivered, not now, or never.
fn judge(answer: Answer, deadline: Deadline) -> Outcome {
    let Answer {
        head, body, pick, ..
    } = answer;
    let reason = format!("the service answered {}", head.status);
    match head.status {
        200..=299 => {
            let read = match body {
                AnswerBody::Whole(_) | AnswerBody::Tunnel(..) => Ok(()),
                #[cfg(feature = "cache")]
                AnswerBody::Part(_, rest) => read_on(rest, deadline),
                AnswerBody::Rest(rest) => read_on(rest, deadline),
            };
            match read {
                Ok(()) => Outcome::Delivered,
                Err(error) => {
                    if let Some(mut pick) = pick {
                        pick.failure();
                    }
                    Outcome::Failed {
                        reason: format!("{reason}, and its answer was cut: {error}"),
                        retry_after: None,
                    }
                }
            }
        }
        300..=399 | 400 | 405 | 410 | 413 | 414 | 415 | 422 => Outcome::Rejected { reason },
        _ => Outcome::Failed {
            reason,
            retry_after: retry_after(&head),
        },
    }
}

/// Reads the rest of an answer, to see whether it is cut.
fn read_on(mut rest: ReplyBody, deadline: Deadline) -> io::Result<()> {
    rest.set_deadline(deadline);
    io::copy(&mut rest.take(MOST_READ), &mut io::sink()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_one_request_to_a_path_is_sent() {
        let is_sent = |topic: &str, attributes: &str| {
            is_request(&Event {
                topic: topic.to_owned(),
                attributes: attributes.as_bytes().to_vec(),
                body: b"two".to_vec(),
                ..Event::default()
            })
        };
        for attributes in [
            "Content-Length: 3\r\n",
            "Host: a\r\nX: \u{e9}\tb\r\ncontent-length: 3\r\n",
            "Content-Length: 3\r\nX:\r\n",
        ] {
            assert!(is_sent("/events?a=b", attributes), "{attributes:?}");
        }
        for attributes in [
            "",
            "Host: a\r\n",
            "Content-Length: 3",
            "Content-Length: 4\r\n",
            "Content_Length: 3\r\n",
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Content-Length: 3\r\nX: a\nY: b\r\n",
            "Content-Length: 3\r\nX: a\rY: b\r\n",
            "Content-Length: 3\r\nX: a\0\r\n",
            "Content-Length: 3\r\nX : a\r\n",
            "Content-Length: 3\r\n: a\r\n",
            "Content-Length: 3\r\njunk\r\n",
            "Content-Length: 3\r\n\r\n",
            "Content-Length: 3\r\n\r\nGET / HTTP/1.1\r\n",
        ] {
            assert!(!is_sent("/events", attributes), "{attributes:?}");
        }
        for topic in ["", "events", "http://a/", "/a b", "/a\r\nX: b", "/\u{e9}"] {
            assert!(!is_sent(topic, "Content-Length: 3\r\n"), "{topic:?}");
        }
    }
}
