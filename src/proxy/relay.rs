//! From an endpoint's response to the client's: what is at hand as bytes, the rest as it comes.

use std::io;
use std::time::Duration;

use super::answer::{Answer, AnswerBody};
use super::headers;
use super::slots::Slot;
use super::upstreams::{Upstream, fail};
use crate::Response;
use crate::health::upstreams::EndpointFault;
use crate::http::body::Framing;
use crate::http::fields;
use crate::http::response::ResponseHead;
use crate::patterns::Pick;
use crate::server::relay::{IsPassed, OnEnd, Relay, Tunnel};
use crate::server::response::usual_reason;

/// What the client has asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// No body: the method is HEAD.
    pub(super) head: bool,
    /// The trailers too.
    pub(super) trailers: bool,
}

impl Asked {
    /// Which trailers the client gets.
    fn trailers(self) -> Option<IsPassed> {
        self.trailers.then_some(headers::is_trailer)
    }
}

/// Longest silences.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) body_idle: Duration,
    pub(super) tunnel_idle: Duration,
}

/// What the client gets of an endpoint's answer.
pub(super) fn respond(answer: Answer, asked: Asked, times: Times) -> Response {
    let Answer {
        head,
        body,
        interim,
        pick,
        slot,
    } = answer;
    let response = match body {
        // The length is that of the body which a GET would have.
        AnswerBody::Whole(_) if asked.head => {
            let length = head.field("content-length").and_then(fields::parse_length);
            Response::reader(head.status, io::empty(), length)
        }
        AnswerBody::Whole(bytes) => Response::new(head.status, bytes),
        AnswerBody::Rest(body) => {
            let length = match head.framing {
                Framing::Length(length) => Some(length),
                _ => None,
            };
            match body.into_parts() {
                Some(parts) => {
                    let on_end = Box::new(Pending::new(pick, slot));
                    let relay = Relay::new(parts, times.body_idle, asked.trailers(), on_end);
                    Response::relayed(head.status, relay, length)
                }
                // It has ended since.
                None => Response::new(head.status, Vec::new()),
            }
        }
        #[cfg(feature = "cache")]
        AnswerBody::Part(begun, body) => match body.into_parts() {
            Some(parts) => {
                let on_end = Box::new(Pending::new(pick, slot));
                let relay = Relay::new(parts, times.body_idle, asked.trailers(), on_end);
                Response::relayed(head.status, relay.behind(begun), None)
            }
            None => Response::reader(head.status, begun, None),
        },
        AnswerBody::Tunnel(parts, protocol) => {
            let on_end = Box::new(Pending::new(pick, slot));
            Response::switching(protocol, Tunnel::new(parts, times.tunnel_idle, on_end))
        }
    };
    let response = interim.iter().fold(response, |response, interim| {
        response.with_interim(interim.status, headers::back(interim.fields()))
    });
    let response = match str::from_utf8(head.reason()) {
        Ok(reason) if !reason.is_empty() && reason != usual_reason(head.status) => {
            response.with_reason(reason.to_owned())
        }
        _ => response,
    };
    with_fields(response, &head)
}

/// Gives a response what goes on of an endpoint's fields. They were checked as the head came: if there is nothing to add or
/// to take away, the server need not look at them again.
fn with_fields(response: Response, head: &ResponseHead) -> Response {
    let mut lines = Vec::with_capacity(head.fields_len());
    let (mut has_date, mut has_trailer) = (false, false);
    for (name, value) in headers::back(head.fields()) {
        has_date |= name.eq_ignore_ascii_case("date");
        has_trailer |= name.eq_ignore_ascii_case("trailer");
        fields::push(&mut lines, name, value);
    }
    if has_date && !has_trailer {
        return response.with_complete_headers(lines);
    }
    fields::iterate(&lines).fold(response, |response, (name, value)| {
        response.with_added_header(name, value)
    })
}

/// An endpoint's request, which is pending until this is dropped.
struct Pending {
    pick: Option<Pick<Upstream>>,
    _slot: Option<Slot>,
}

impl Pending {
    fn new(pick: Option<Pick<Upstream>>, slot: Option<Slot>) -> Self {
        Self { pick, _slot: slot }
    }
}

impl OnEnd for Pending {
    fn ended(&mut self, whole: bool) {
        match &mut self.pick {
            Some(pick) if whole => pick.success(),
            Some(pick) => fail(pick, EndpointFault::Broken),
            None => {}
        }
    }
}
