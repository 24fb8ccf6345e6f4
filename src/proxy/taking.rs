//! What comes of an answer that may be kept.

use std::borrow::Cow;
use std::io::{self, Read};
use std::mem;
use std::time::Duration;

use super::answer::{Answer, AnswerBody};
use super::failure::Failure;
use super::headers::{self, Forwarded};
use super::upstreams::fail;
use super::{Core, deadline};
use crate::health::upstreams::EndpointFault;
use crate::net::client::{ClientError, ReplyBody};
use crate::patterns::{
    CacheResult, CacheTime, CachedBody, CachedReply, Deadline, Fetch, Fetched, Fields, Filling,
};
use crate::server::response::Body;
use crate::{Request, Response};

/// Longest that a worker takes a body which is to be kept, after its head. What comes later is relayed, and not kept.
const TAKE_WITHIN: Duration = Duration::from_secs(5);

/// A kept body up to this size is copied into its reply, which is then sent at once.
const COPY_UP_TO: usize = 16 * 1024;

/// Bytes of a body that are taken at once.
const PIECE: usize = 16 * 1024;

impl Core {
    /// Asks the service, for this client and for all who wait for the same. Blocks.
    pub(super) fn fetch(&self, request: &Request, forwarded: &Forwarded, fetch: Fetch) -> Response {
        let result = self.ask(request, forwarded);
        match self.take(result, request, forwarded, fetch) {
            Taken::Reply(response) => response,
            Taken::Fills(fills) => self.fill(*fills, request, forwarded),
        }
    }

    /// What comes of the service's answer, or of there being none. Does not block.
    pub(super) fn take(
        &self,
        result: Result<Answer, Failure>,
        request: &Request,
        forwarded: &Forwarded,
        fetch: Fetch,
    ) -> Taken {
        let cached = fetch.result();
        let taken = match result {
            Ok(answer) => self.taken(answer, request, forwarded, fetch),
            Err(failure) => Taken::Reply(match fetch.fail(CacheTime::now()) {
                Some(stale) => given(stale, request),
                None => self.fail(&failure),
            }),
        };
        if matches!(taken, Taken::Reply(_)) {
            // Unless a kept reply is given after all, which has said so before.
            request.note_cache(cached.as_str());
        }
        taken
    }

    fn taken(
        &self,
        mut answer: Answer,
        request: &Request,
        forwarded: &Forwarded,
        fetch: Fetch,
    ) -> Taken {
        let mut fields: Fields = headers::back(answer.head.fields()).collect();
        if let Some(length) = answer.head.field("content-length") {
            fields.push("Content-Length", length);
        }
        let (fields, filling) = match fetch.respond(answer.head.status, &fields, CacheTime::now()) {
            Fetched::Reply(reply) => return Taken::Reply(given(reply, request)),
            Fetched::Relay { fields, filling } => (fields, filling),
        };
        // What the service has is in the response; what was done with it is said last.
        let status = fields.all("Cache-Status").last().map(<[u8]>::to_vec);
        let body = mem::replace(&mut answer.body, AnswerBody::Whole(Vec::new()));
        answer.body = match (body, filling) {
            (AnswerBody::Whole(bytes), Some(mut filling)) => {
                filling.write(&bytes);
                filling.finish(CacheTime::now());
                AnswerBody::Whole(bytes)
            }
            (AnswerBody::Rest(body), Some(filling)) => {
                return Taken::Fills(Box::new(Fills {
                    answer,
                    body,
                    filling,
                    status,
                }));
            }
            (body, _) => body,
        };
        let response = self.relay(answer, request, forwarded);
        Taken::Reply(with_status(response, status))
    }

    /// Takes the body that is to be kept, then answers. Blocks.
    pub(super) fn fill(&self, fills: Fills, request: &Request, forwarded: &Forwarded) -> Response {
        let response = self.filled(fills, request, forwarded);
        // As above.
        request.note_cache(CacheResult::Miss.as_str());
        response
    }

    fn filled(&self, fills: Fills, request: &Request, forwarded: &Forwarded) -> Response {
        let Fills {
            mut answer,
            body,
            filling,
            status,
        } = fills;
        let by = deadline(request).within(TAKE_WITHIN);
        let response = match fill(body, filling, by) {
            Filled::Whole(whole) => {
                let length = Some(whole.len() as u64);
                let reader = Box::new(whole);
                self.relay(answer, request, forwarded)
                    .with_other_body(Body::Reader { reader, length })
            }
            Filled::Part(begun, rest) => {
                answer.body = AnswerBody::Part(begun, rest);
                self.relay(answer, request, forwarded)
            }
            Filled::Cut(error, stale) => {
                if let Some(pick) = &mut answer.pick {
                    log::debug!("{}: {error}", pick.name());
                    fail(pick, EndpointFault::Broken);
                }
                return match stale {
                    Some(stale) => given(stale, request),
                    None => self.fail(&Failure::Client(ClientError::Incomplete)),
                };
            }
        };
        with_status(response, status)
    }
}

/// What the client gets of an answer.
pub(super) enum Taken {
    Reply(Response),
    /// After its body has come, which is to be kept.
    Fills(Box<Fills>),
}

/// An answer whose body is still to come, and is to be kept.
pub(super) struct Fills {
    /// Without the body.
    answer: Answer,
    body: ReplyBody,
    filling: Box<Filling>,
    status: Option<Vec<u8>>,
}

fn with_status(response: Response, status: Option<Vec<u8>>) -> Response {
    match status {
        Some(status) => response.with_plain_header("Cache-Status", &status),
        None => response,
    }
}

/// Takes a body that is to be kept, at the pace of the service: a client that reads slowly keeps nobody waiting. One that
/// is too large or too slow to be kept goes on to the client as it comes.
fn fill(mut body: ReplyBody, mut filling: Box<Filling>, by: Deadline) -> Filled {
    let mut piece = vec![0; PIECE];
    body.set_deadline(by);
    let untaken = loop {
        match body.read(&mut piece) {
            Ok(0) => return Filled::Whole(filling.finish(CacheTime::now())),
            Ok(count) => {
                let taken = filling.write(&piece[..count]);
                if taken < count {
                    break piece[taken..count].to_vec();
                }
            }
            Err(_) if by.is_over() => break Vec::new(),
            Err(error) => return Filled::Cut(error, filling.fail(CacheTime::now())),
        }
    };
    let begun = filling.into_body().chain(io::Cursor::new(untaken));
    Filled::Part(Box::new(begun), body)
}

/// What came of a body that was to be kept.
enum Filled {
    Whole(CachedBody),
    Part(Box<dyn Read + Send>, ReplyBody),
    /// It was cut, or malformed: this may be given in its place.
    Cut(io::Error, Option<CachedReply>),
}

/// What the client gets of a kept reply.
pub(super) fn given(mut reply: CachedReply, request: &Request) -> Response {
    request.note_cache(reply.result().as_str());
    let (status, fields) = (reply.status(), reply.take_fields());
    let body = match reply.content_length() {
        None => Body::Bytes(Cow::default()),
        // All of it: to HEAD there is none.
        Some(length) if length <= COPY_UP_TO && length == reply.len() => {
            Body::Bytes(reply.body().into_owned().into())
        }
        Some(length) => Body::Reader {
            reader: Box::new(reply.into_reader()),
            length: Some(length as u64),
        },
    };
    // They are of a head that was read, and those of one hop are not kept.
    Response::new(status, Vec::new())
        .with_other_body(body)
        .with_complete_headers(fields.into_bytes())
}
