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

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::background::Background;
use super::config::{BalanceBy, ProxyConfig};
use super::failure::Failure;
use super::headers::{self, Forwarded};
use super::taking::given;
use super::{Core, For, deadline, waiting};
use crate::net::client::ClientError;
use crate::patterns::{
    Cache, CacheRequest, CacheTime, Fetch, Fields, Lookup, Notice, PlainGet, Wait,
};
use crate::server::response::{Resumed, Signals, Trigger, Waiting};
use crate::threads::Threads;
use crate::{Request, Response};

/// What is kept, and what is fetched for it in the background.
pub(super) struct Caching {
    pub(super) cache: Cache,
    pub(super) background: Background,
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
        let background = Background::start(threads)?;
        Ok(Some(Self { cache, background }))
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
            Lookup::Wait(wait) if request.is_served() => Response::later(Box::new(Follower {
                core: self.clone(),
                forwarded,
                wait,
                due: deadline(request).instant(),
                notice: None,
            })),
            Lookup::Wait(wait) => match wait.wait(deadline(request).instant()) {
                Some(lookup) => self.act(caching, lookup, request, forwarded),
                None => self.not_in_time(),
            },
        }
    }

    /// The answer to a request whose time is over while another asks for the same.
    fn not_in_time(&self) -> Response {
        self.fail(&Failure::Client(ClientError::ResponseTimeout))
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
        caching.background.run(refresh);
    }
}

/// A request that waits for another's fetch.
struct Follower {
    core: Arc<Core>,
    forwarded: Forwarded,
    wait: Wait,
    /// By when it gets an answer.
    due: Instant,
    /// Has it woken.
    notice: Option<Notice>,
}

impl Follower {
    /// Looks up again. May block.
    fn follow(self, request: &Request) -> Response {
        let Self {
            core,
            forwarded,
            wait,
            ..
        } = self;
        match &core.caching {
            Some(caching) => {
                let lookup = wait.resume(CacheTime::now());
                core.act(caching, lookup, request, forwarded)
            }
            None => core.forward(request, forwarded),
        }
    }
}

impl Waiting for Follower {
    fn watch(&mut self, signals: &Signals<'_>) -> io::Result<()> {
        self.notice = Some(self.wait.when_ended((signals.wake)()));
        Ok(())
    }

    fn due(&self) -> Instant {
        self.due
    }

    fn resume(self: Box<Self>, request: &Request, _: Trigger, now: Instant) -> Resumed {
        if self.wait.has_ended() {
            return Resumed::Works(Box::new(move |request| self.follow(request)));
        }
        if now < self.due {
            return Resumed::Waits(self);
        }
        Resumed::Replies(match self.wait.give_up(CacheTime::now()) {
            Some(reply) => given(reply, request),
            None => self.core.not_in_time(),
        })
    }

    fn asks_a_server(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
