//! One attempt to deliver an event, and what its outcome means.

use std::borrow::Cow;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use super::super::answer::{Answer, AnswerBody};
use super::super::config::{BalanceBy, ProxyConfig};
use super::super::failure::Failure;
use super::super::headers::{Forwarded, is_same_name};
use super::super::tries::Tries;
use super::super::upstreams::Upstreams;
use super::super::way::{Outgoing, Way, retry_after};
use crate::http::fields;
use crate::net::client::{ClientError, ReplyBody};
use crate::patterns::{Deadline, Delivery, Outcome, Retry, RetryBudget};

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
        let mut stored = event.attributes.clone();
        let id = format!("\"{}\"", delivery.id);
        fields::push(&mut stored, ID, id.as_bytes());
        fields::push(
            &mut stored,
            ATTEMPT,
            delivery.attempt.to_string().as_bytes(),
        );
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
