//! From an endpoint's response to the client's: what is at hand as bytes, the rest as it comes.

use std::io::{self, Read};
use std::time::Duration;

use super::headers;
use super::tries::{Answer, AnswerBody};
use super::upstreams::Upstream;
use crate::Response;
use crate::http::body::Framing;
use crate::http::fields;
use crate::net::client::ReplyBody;
use crate::patterns::{Deadline, Pick};

/// What the client gets of an endpoint's answer.
pub(super) fn respond(answer: Answer, to_head: bool, body_idle: Duration) -> Response {
    let Answer {
        head,
        body,
        interim,
        pick,
    } = answer;
    let response = match body {
        // The length is that of the body which a GET would have.
        AnswerBody::Whole(_) if to_head => {
            let length = head.field("content-length").and_then(fields::parse_length);
            Response::reader(head.status, io::empty(), length)
        }
        AnswerBody::Whole(bytes) => Response::new(head.status, bytes),
        AnswerBody::Rest(body) => {
            let length = match head.framing {
                Framing::Length(length) => Some(length),
                _ => None,
            };
            let reader = Rest {
                body,
                idle: body_idle,
                pick,
            };
            Response::reader(head.status, reader, length)
        }
    };
    let response = interim.iter().fold(response, |response, interim| {
        response.with_interim(interim.status, headers::back(interim.fields()))
    });
    let response = match str::from_utf8(head.reason()) {
        Ok(reason) if !reason.is_empty() => response.with_reason(reason.to_owned()),
        _ => response,
    };
    headers::back(head.fields()).fold(response, |response, (name, value)| {
        response.with_added_header(name, value)
    })
}

/// The rest of a body, read by a worker. The endpoint's request is pending until this is dropped.
struct Rest {
    body: ReplyBody,
    /// Longest that nothing comes.
    idle: Duration,
    pick: Pick<Upstream>,
}

impl Read for Rest {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.set_deadline(Deadline::after(self.idle));
        let read = self.body.read(buffer);
        if read.is_err()
            && let Some(breaker) = &self.pick.data().breaker
            && let Ok(permit) = breaker.permit()
        {
            // The head has counted as a success; the answer was none.
            permit.failure();
        }
        read
    }
}
