//! A request whose answer the server's event loop waits for.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use mio::{Registry, Token};

use super::Core;
use super::headers::Forwarded;
use super::tries::{self, Step, Tries};
use crate::server::response::{Continuation, Later, Resumed, Trigger, Waiting};
use crate::server::watched::watch;
use crate::{Request, Response};

/// Forwards a request, on a worker.
pub(super) fn forward(core: &Arc<Core>, request: &Request, forwarded: Forwarded) -> Response {
    let asking = Asking {
        core: core.clone(),
        tries: core.tries(request),
        forwarded,
    };
    Box::new(asking).begin(request)
}

/// A request on its way to the service.
struct Asking {
    core: Arc<Core>,
    forwarded: Forwarded,
    tries: Tries,
}

impl Asking {
    /// Begins a try, on a worker: this may block.
    fn begin(mut self: Box<Self>, request: &Request) -> Response {
        loop {
            let step = self.tries.begin(&self.core.way(request, &self.forwarded));
            return match step {
                Step::Again(at) if at <= Instant::now() => continue,
                Step::Waits | Step::Again(_) => Response::later(Later::Waiting(self)),
                Step::Done(result) => self.core.reply(result, request, &self.forwarded),
            };
        }
    }
}

impl Waiting for Asking {
    fn watch(&self, registry: &Registry, token: Token) -> io::Result<()> {
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
            Step::Done(result) => {
                Resumed::Replies(self.core.reply(result, request, &self.forwarded))
            }
        }
    }
}
