//! The cache between a request and the tries.
//!
//! ```text
//! look up ─▶ a kept reply ────────────────────────────────▶ the client
//!    │           └ stale, but good enough: asked for again in the background
//!    ├─────▶ another request asks for the same: wait for it, then look up again
//!    └─────▶ the tries ─▶ whole, and may be kept: kept ───▶ the client, and all who wait
//!                 └ no answer: a stale reply, where it may stand for an error
//! ```
//!
//! Whoever waits, for the service or for another request, waits with no worker. A body that is to be kept is taken by one,
//! once its head is there.

use std::borrow::Cow;
use std::io::{self, Read};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use super::answer::{Answer, AnswerBody};
use super::config::{BalanceBy, ProxyConfig};
use super::failure::Failure;
use super::headers::{self, Forwarded};
use super::upstreams::fail;
use super::{Core, For, deadline, waiting};
use crate::health::upstreams::EndpointFault;
use crate::net::client::{ClientError, ReplyBody};
use crate::patterns::{
    Cache, CacheRequest, CacheTime, CachedBody, CachedReply, Deadline, Fetch, Fetched, Fields,
    Filling, Lookup, PlainGet, Wait,
};
use crate::server::response::{Body, Later};
use crate::threads::Threads;
use crate::{Request, Response};

/// Threads that ask for what was given stale.
const REFRESHERS: usize = 2;

/// Most replies that wait to be asked for again. Beyond it the next request for one of them tries anew.
const MOST_REFRESHES: usize = 256;

/// Longest that a worker takes a body which is to be kept, after its head. What comes later is relayed, and not kept.
const TAKE_WITHIN: Duration = Duration::from_secs(5);

/// A kept body up to this size is copied into its reply, which is then sent at once.
const COPY_UP_TO: usize = 16 * 1024;

/// Bytes of a body that are taken at once.
const PIECE: usize = 16 * 1024;

/// What is kept, and who asks for it again in the background.
pub(super) struct Caching {
    pub(super) cache: Cache,
    refreshes: Sender<Box<dyn FnOnce() + Send>>,
}

impl Caching {
    /// None if nothing is to be kept.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn new(config: &ProxyConfig, threads: &mut Threads) -> io::Result<Option<Self>> {
        let Some(capacity) = config.cache else {
            return Ok(None);
        };
        let cache = match &config.cache_target {
            Some(target) => Cache::with_target(capacity, target),
            None => Cache::new(capacity),
        };
        let (refreshes, due) = bounded::<Box<dyn FnOnce() + Send>>(MOST_REFRESHES);
        for number in 0..REFRESHERS {
            let due = due.clone();
            // It ends when nobody can ask for anything any more.
            threads.spawn("refreshes", format!("plimsoll-fresh-{number}"), move |_| {
                due.iter().for_each(|refresh| refresh());
            })?;
        }
        Ok(Some(Self { cache, refreshes }))
    }

    /// Has a fetch made in the background. One for which there is no room is given up, and the next request for the same
    /// begins another.
    pub(super) fn in_background(&self, fetch: impl FnOnce() + Send + 'static) {
        drop(self.refreshes.try_send(Box::new(fetch)));
    }
}

impl Core {
    /// A fresh reply that is kept, where the request takes it as it is. Nothing is made of the request for that.
    pub(super) fn hit(&self, request: &Request) -> Option<Response> {
        let caching = self.caching.as_ref()?;
        if request.method() != "GET" || request.body_len() > 0 {
            return None;
        }
        let trusted = || self.trust.includes(request.peer().ip());
        let asked = headers::asked(request.headers_bytes(), trusted)?;
        let plain = PlainGet {
            https: asked.https,
            host: asked.host,
            target: request.url(),
            fields: request.headers_bytes(),
            is_sent_on: headers::goes_on,
        };
        let reply = caching.cache.hit(&plain, Instant::now())?;
        Some(given(reply, request))
    }

    /// Answers from what is kept, or asks the service.
    pub(super) fn look_up(
        self: &Arc<Self>,
        caching: &Caching,
        request: &Request,
        forwarded: Forwarded,
    ) -> Response {
        let fields: Fields = forwarded.fields().collect();
        let question = CacheRequest {
            method: request.method(),
            https: fields.first("X-Forwarded-Proto") == Some(b"https"),
            host: request.header("Host").unwrap_or_default(),
            target: request.url(),
            fields: &fields,
            has_body: request.body_len() > 0,
        };
        let lookup = caching.cache.lookup(&question, CacheTime::now());
        self.act(caching, lookup, request, forwarded)
    }

    /// Does what a look-up says.
    fn act(
        self: &Arc<Self>,
        caching: &Caching,
        lookup: Lookup,
        request: &Request,
        forwarded: Forwarded,
    ) -> Response {
        match lookup {
            Lookup::Reply(reply) => given(reply, request),
            Lookup::ReplyAndRefresh(reply, fetch) => {
                self.refresh(caching, request, forwarded, fetch);
                given(reply, request)
            }
            Lookup::Fetch(fetch) => {
                let forwarded = forwarded.with_fields(fetch.fields().as_bytes());
                if request.is_served() {
                    return waiting::forward(self, request, forwarded, For::All(Box::new(fetch)));
                }
                self.fetch(request, &forwarded, fetch)
            }
            Lookup::Wait(wait) if request.is_served() => self.wait(wait, forwarded),
            Lookup::Wait(wait) => match wait.wait(deadline(request).instant()) {
                Some(lookup) => self.act(caching, lookup, request, forwarded),
                None => self.fail(&Failure::Client(ClientError::ResponseTimeout)),
            },
        }
    }

    /// Answers once another's fetch has ended. Its deadline is before this request's, so that this one still gets a stale
    /// reply in time, if that may be given.
    fn wait(self: &Arc<Self>, wait: Wait, forwarded: Forwarded) -> Response {
        let (core, other) = (self.clone(), wait.clone());
        Response::later(Later::Told {
            when_ready: Box::new(move |wake| other.when_ended(wake)),
            then: Box::new(move |request| match &core.caching {
                Some(caching) => {
                    let lookup = wait.resume(CacheTime::now());
                    core.act(caching, lookup, request, forwarded)
                }
                None => core.forward(request, forwarded),
            }),
        })
    }

    /// Asks the service, for this client and for all who wait for the same. Blocks.
    fn fetch(&self, request: &Request, forwarded: &Forwarded, fetch: Fetch) -> Response {
        let result = self.ask(request, forwarded, !fetch.is_shared());
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
        // Unless a kept reply is given after all, which has said so before.
        request.note_cache(cached.as_str());
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
        let Fills {
            mut answer,
            body,
            filling,
            status,
        } = fills;
        let response = match fill(body, filling, deadline(request).within(TAKE_WITHIN)) {
            Ok(Filled::Whole(whole)) => {
                let length = Some(whole.len() as u64);
                let reader = Box::new(whole);
                self.relay(answer, request, forwarded)
                    .with_other_body(Body::Reader { reader, length })
            }
            Ok(Filled::Part(begun, rest)) => {
                answer.body = AnswerBody::Part(begun, rest);
                self.relay(answer, request, forwarded)
            }
            Err(error) => {
                if let Some(pick) = &mut answer.pick {
                    log::debug!("{}: {error}", pick.name());
                    fail(pick, EndpointFault::Broken);
                }
                return self.fail(&Failure::Client(ClientError::Incomplete));
            }
        };
        with_status(response, status)
    }

    /// Asks for what was given stale, in the background.
    fn refresh(
        self: &Arc<Self>,
        caching: &Caching,
        request: &Request,
        forwarded: Forwarded,
        fetch: Fetch,
    ) {
        let mut again = Request::builder()
            .method(request.method())
            .url(request.url())
            .peer(request.peer())
            .remaining(request.remaining());
        // The same endpoint is asked.
        if let BalanceBy::HashHeader(name) = &self.config.balance
            && let Some(value) = request.header_bytes(name)
        {
            again = again.header(name, value);
        }
        let core = self.clone();
        let refresh = move || {
            let request = again.build();
            let forwarded = forwarded.with_fields(fetch.fields().as_bytes());
            // Nobody waits for this reply: what matters of it is kept.
            drop(core.fetch(&request, &forwarded, fetch));
        };
        caching.in_background(refresh);
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
        Some(status) => response.with_added_header("Cache-Status", status),
        None => response,
    }
}

/// Takes a body that is to be kept, at the pace of the service: a client that reads slowly keeps nobody waiting. One that
/// is too large or too slow to be kept goes on to the client as it comes.
///
/// # Errors
/// The body was cut, or malformed. Nothing of it is kept.
fn fill(mut body: ReplyBody, mut filling: Box<Filling>, by: Deadline) -> io::Result<Filled> {
    let mut piece = vec![0; PIECE];
    body.set_deadline(by);
    let untaken = loop {
        match body.read(&mut piece) {
            Ok(0) => return Ok(Filled::Whole(filling.finish(CacheTime::now()))),
            Ok(count) => {
                let taken = filling.write(&piece[..count]);
                if taken < count {
                    break piece[taken..count].to_vec();
                }
            }
            Err(_) if by.is_over() => break Vec::new(),
            Err(error) => return Err(error),
        }
    };
    let begun = filling.into_body().chain(io::Cursor::new(untaken));
    Ok(Filled::Part(Box::new(begun), body))
}

/// What came of a body that was to be kept.
enum Filled {
    Whole(CachedBody),
    Part(Box<dyn Read + Send>, ReplyBody),
}

/// What the client gets of a kept reply.
fn given(mut reply: CachedReply, request: &Request) -> Response {
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
    Response::with_head(status, fields.into_bytes(), body)
}
