//! A request whose answer the server's event loop waits for.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::answer::Answer;
use super::failure::Failure;
use super::headers::Forwarded;
#[cfg(feature = "cache")]
use super::taking::Taken;
use super::tries::{self, Step, Tries};
use super::{Core, For};
use crate::server::response::{Continuation, Resumed, Signals, Trigger, Waiting};
use crate::server::watched::watch;
use crate::{Request, Response};

/// Forwards a request, on a worker.
pub(super) fn forward(
    core: &Arc<Core>,
    request: &Request,
    forwarded: Forwarded,
    whom: For,
) -> Response {
    let asking = Asking {
        core: core.clone(),
        tries: core.tries(request),
        forwarded,
        whom,
    };
    Box::new(asking).begin(request)
}

/// A request on its way to the service.
struct Asking {
    core: Arc<Core>,
    forwarded: Forwarded,
    tries: Tries,
    whom: For,
}

impl Asking {
    /// Begins a try, on a worker: this may block.
    fn begin(mut self: Box<Self>, request: &Request) -> Response {
        loop {
            let step = self.tries.begin(&self.core.way(request, &self.forwarded));
            return match step {
                Step::Again(at) if at <= Instant::now() => continue,
                Step::Waits | Step::Again(_) => Response::later(self),
                Step::Done(result) => {
                    (self.end(result, request)).unwrap_or_else(|rest| rest(request))
                }
            };
        }
    }

    /// What comes of the answer, or of there being none. Does not block; what may do so is returned.
    fn end(self, result: Result<Answer, Failure>, request: &Request) -> Result<Response, Rest> {
        let Self {
            core,
            forwarded,
            whom,
            ..
        } = self;
        match whom {
            For::Client => Ok(core.reply(result, request, &forwarded)),
            #[cfg(feature = "cache")]
            For::All(fetch) => match core.take(result, request, &forwarded, *fetch) {
                Taken::Reply(response) => Ok(response),
                Taken::Fills(fills) => Err(Box::new(move |request| {
                    core.fill(*fills, request, &forwarded)
                })),
            },
        }
    }
}

/// What is left to do for a reply, which may block.
type Rest = Box<dyn FnOnce(&Request) -> Response + Send>;

impl Waiting for Asking {
    fn watch(&mut self, signals: &Signals<'_>) -> io::Result<()> {
        let Signals {
            registry, token, ..
        } = *signals;
        match self.tries.awaited() {
            Some((socket, interest)) => watch(socket, registry, token, interest),
            None => Ok(()),
        }
    }

    fn due(&self) -> Instant {
        self.tries.due()
    }

    fn resume(mut self: Box<Self>, request: &Request, event: Trigger, now: Instant) -> Resumed {
        let event = match event {
            Trigger::Ready { readable } => tries::Heard::Ready { readable },
            Trigger::Due => tries::Heard::Over,
        };
        let way = self.core.way(request, &self.forwarded);
        match self.tries.resume(&way, event, now) {
            Step::Again(at) if at <= now => {
                let begin: Continuation = Box::new(move |request| self.begin(request));
                Resumed::Works(begin)
            }
            Step::Waits | Step::Again(_) => Resumed::Waits(self),
            Step::Done(result) => match self.end(result, request) {
                Ok(response) => Resumed::Replies(response),
                Err(rest) => Resumed::Works(Box::new(move |request| rest(request))),
            },
        }
    }

    #[cfg(feature = "cache")]
    fn is_shared(&self) -> bool {
        matches!(&self.whom, For::All(fetch) if fetch.is_awaited())
    }
}
