//! A lane beside the workers: requests of one kind that a few threads of their own answer.
//!
//! The handler may wait for a service that hangs. What does not need the service must not wait behind it: these
//! requests go past the gate and the admission. Every other limit holds for them too, and so does a bound on how many
//! wait.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::done::Ended;
use super::event_loop::connection::Incoming;
use super::exchange::{Exchange, Stage};
use super::handler::Handler;
use super::request::Request;
use super::shared::Shared;
use super::workers::{HANDLERS, Worker};
use crate::health::bump;
use crate::http::head::Head;
use crate::report::Paths;
use crate::settings::ConfigError;
use crate::threads::Threads;

/// Threads. Each mostly waits for the disk, and what they wait for is done for all of them at once.
const THREADS: usize = 16;

/// Most requests that wait for one of them.
const MOST: usize = 1024;

/// Requests with one method, to one path and to all below it, and what answers them.
pub(crate) struct Aside {
    /// The setting that asks for it.
    pub(crate) option: &'static str,
    pub(crate) method: &'static str,
    /// Without a slash at its end.
    pub(crate) prefix: String,
    pub(crate) handler: Arc<dyn Handler>,
}

impl Aside {
    /// Checks that it takes none of the server's own paths.
    ///
    /// # Errors
    /// It is on or above one of them.
    pub(crate) fn leaves(&self, paths: &Paths) -> Result<(), ConfigError> {
        let taken = paths.public().find(|path| is_below(&self.prefix, path));
        taken.map_or(Ok(()), |path| {
            Err(ConfigError {
                option: self.option,
                expected: "a path that is not on or above one of the server's own".to_owned(),
                found: format!("{:?} (on or above {path})", self.prefix),
            })
        })
    }

    fn takes(&self, head: &Head) -> bool {
        head.method_text() == self.method && is_below(&self.prefix, head.path())
    }
}

/// Whether a path is `prefix`, or is below it.
pub(crate) fn is_below(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

type Job = (Arc<Exchange>, Incoming);

/// The event loop's end of the lane. The threads end once it is dropped.
pub(crate) struct Lane {
    aside: Arc<Aside>,
    jobs: Sender<Job>,
}

impl Lane {
    /// Starts the threads.
    pub(crate) fn start(
        aside: Aside,
        shared: &Arc<Shared>,
        threads: &mut Threads,
    ) -> io::Result<Self> {
        let aside = Arc::new(aside);
        let (sender, jobs) = crossbeam_channel::bounded(MOST);
        for index in 0..THREADS {
            let (aside, jobs) = (aside.clone(), jobs.clone());
            let mut worker = Worker::new(shared.clone(), index);
            let name = format!("plimsoll-aside-{index}");
            threads.spawn(HANDLERS, name, move |_alive| {
                run(&mut worker, &aside, &jobs);
            })?;
        }
        Ok(Self {
            aside,
            jobs: sender,
        })
    }

    pub(crate) fn takes(&self, head: &Head) -> bool {
        self.aside.takes(head)
    }

    /// Hands a request over; false if too many wait.
    pub(crate) fn hand_over(&self, exchange: Arc<Exchange>, request: Incoming) -> bool {
        self.jobs.try_send((exchange, request)).is_ok()
    }
}

fn run(worker: &mut Worker, aside: &Aside, jobs: &Receiver<Job>) {
    while let Ok((exchange, request)) = jobs.recv() {
        let shared = worker.shared().clone();
        let result = if exchange.advance(Stage::Waiting, Stage::Running) {
            if shared.access_log.is_some() {
                exchange.set_began(Instant::now());
            }
            answer(worker, aside, &exchange, request)
        } else {
            bump(&shared.health.counts.skipped);
            Ended::Dropped
        };
        worker.tell(Some(exchange), result, true);
    }
}

fn answer(
    worker: &mut Worker,
    aside: &Aside,
    exchange: &Arc<Exchange>,
    request: Incoming,
) -> Ended {
    #[cfg(feature = "redis")]
    if let Some(ended) = worker.throttle(exchange, &request.head) {
        return ended;
    }
    let health = worker.shared().health.clone();
    let mut request = Request::new(request, exchange.clone(), health);
    let response = worker.call(|request| aside.handler.handle(request), &mut request);
    worker.reply(response, exchange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_a_segment_does() {
        for path in ["/events", "/events/", "/events/a/b"] {
            assert!(is_below("/events", path), "{path}");
        }
        for path in ["/", "/event", "/events2", "/a/events", "/Events"] {
            assert!(!is_below("/events", path), "{path}");
        }
    }
}
