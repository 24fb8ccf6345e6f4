//! The fixed pool: each worker pulls a request from tiny_http, runs the handler, and writes the reply straight to the
//! client's socket. What the socket does not take at once goes back to the event loop, and so does a request that waits for
//! another server, or for another request: neither holds a worker.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

#[cfg(feature = "redis")]
use crate::health::ReplyOutcome;
use crate::health::{Permit, bump};
#[cfg(feature = "redis")]
use crate::http::head::Head;
#[cfg(feature = "redis")]
use crate::http::refusal::Refusal;
use crate::panics::catch;
use crate::server::access_log::End;
use crate::server::done::{Done, Ended};
use crate::server::event_loop::clients::upstream_token;
use crate::server::event_loop::connection::Incoming;
use crate::server::event_loop::intake::{Carrier, carried_number};
use crate::server::event_loop::wake::Message;
use crate::server::exchange::{Exchange, Stage};
use crate::server::handler::Handler;
use crate::server::jobs::Job;
use crate::server::replier::Replier;
use crate::server::request::Request;
use crate::server::response::{Continuation, Response, Signals, Waiting, Wake};
use crate::server::shared::Shared;
use crate::server::stream::Stream;
use crate::server::task::Task;
use crate::server::task::Waits;
use crate::threads::Threads;

/// Starts worker number `index`.
pub(crate) fn spawn(shared: Arc<Shared>, index: usize, threads: &mut Threads) -> io::Result<()> {
    threads.spawn(HANDLERS, format!("plimsoll-{index}"), move |_alive| {
        Worker::new(shared, index).run();
    })
}

/// What the log calls the threads that run handlers.
pub(crate) const HANDLERS: &str = "workers with their handlers";

pub(crate) struct Worker {
    shared: Arc<Shared>,
    index: usize,
    replier: Replier,
}

/// How long a worker stays with a reply whose client takes all that its reader gives. Then the event loop sees that the
/// reply makes progress, and other requests have their turn.
const STREAM_TURN: Duration = Duration::from_millis(20);

/// How long a worker waits for a request at a time, so that a wake-up which another one took away is missed for no
/// longer.
const LISTEN: Duration = Duration::from_secs(1);

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> Self {
        let replier = Replier::new(shared.clone(), STREAM_TURN);
        Self {
            shared,
            index,
            replier,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn run(&mut self) {
        while !self.is_closing() {
            if let Some(job) = self.next() {
                self.take(job);
            }
            self.replier.trim();
        }
        // What the event loop has left for the workers to drop.
        while let Some(job) = self.shared.jobs.next() {
            self.replier.discard(job);
        }
    }

    fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire)
    }

    /// The next job: at once if there is one, else when a request comes. `None` when it is worth looking anew.
    fn next(&self) -> Option<Job> {
        let carrier = self.shared.carrier();
        if let Some(job) = self.at_hand(&carrier) {
            return Some(job);
        }
        let receiver = self.shared.idle_workers.receive(self.index);
        let ask = || {
            // First, since to ask takes away what tells a worker that blocks of the end.
            if self.is_closing() {
                return Some(None);
            }
            self.at_hand(&carrier).map(Some)
        };
        let found = if receiver.may_poll() {
            self.shared.busy_poll.poll(ask)
        } else {
            ask()
        };
        if let Some(found) = found {
            return found;
        }
        match carrier.server.recv_timeout(LISTEN) {
            Ok(Some(request)) => self.open(request),
            Ok(None) => {}
            Err(error) => self.carrier_failed(&carrier, error),
        }
        self.shared.jobs.next()
    }

    /// The next job that is here already.
    fn at_hand(&self, carrier: &Arc<Carrier>) -> Option<Job> {
        if let Some(job) = self.shared.jobs.next() {
            return Some(job);
        }
        match carrier.server.try_recv() {
            Ok(Some(request)) => self.open(request),
            Ok(None) => {}
            Err(error) => self.carrier_failed(carrier, error),
        }
        self.shared.jobs.next()
    }

    /// Takes what a request that came through announces.
    fn open(&self, request: tiny_http::Request) {
        if let Some(number) = carried_number(request.url()) {
            self.shared.jobs.release(number);
        }
        // A request dropped with its writer answers 500 up the stream; without, it is silent.
        drop(request.into_writer());
    }

    /// Notes that tiny_http accepts no more, which it says once.
    fn carrier_failed(&self, carrier: &Arc<Carrier>, error: io::Error) {
        let carrier = carrier.clone();
        let message = Message::CarrierFailed { carrier, error };
        self.shared.event_loop.send(message);
    }

    fn take(&mut self, job: Job) {
        let (exchange, result) = match job {
            Job::Handle {
                exchange,
                request,
                permit,
            } => (
                Some(exchange.clone()),
                self.handle(exchange, request, permit),
            ),
            Job::Continue { task, then } => {
                let exchange = task.exchange.clone();
                (Some(exchange), self.go_on(*task, then))
            }
            Job::Resume { exchange, stream } => {
                let result = self.resume(stream, &exchange);
                (Some(exchange), result)
            }
            Job::Drop(left) => {
                self.replier.discard(left);
                (None, Ended::Dropped)
            }
        };
        let in_flight = &self.shared.health.gauges.in_flight;
        in_flight.fetch_sub(1, Ordering::Relaxed);
        self.tell(exchange, result, false);
    }

    /// Tells the event loop what became of a job.
    pub(crate) fn tell(&self, exchange: Option<Arc<Exchange>>, result: Ended, aside: bool) {
        if let (Some(exchange), true) = (&exchange, result.is_sent()) {
            exchange.origin.socket.end_record(End::Whole);
        }
        self.shared.event_loop.send_done(Done {
            at: Instant::now(),
            exchange,
            result,
            aside,
        });
    }

    fn handle(&mut self, exchange: Arc<Exchange>, request: Incoming, permit: Permit) -> Ended {
        let shared = self.shared.clone();
        let health = &shared.health;
        if !exchange.advance(Stage::Waiting, Stage::Running) {
            bump(&health.counts.skipped);
            return Ended::Dropped;
        }
        // It is no part of the service time, and the gate learns nothing by it.
        #[cfg(feature = "redis")]
        if let Some(ended) = self.throttle(&exchange, &request.head) {
            return ended;
        }
        let began = Instant::now();
        health.job_begins(self.index, began);
        let waited = began.saturating_duration_since(exchange.admitted);
        health.queue_waits.add(waited);
        if shared.access_log.is_some() {
            exchange.set_began(began);
        }
        let task = Task {
            request: Request::new(request, exchange.clone(), health.clone()),
            exchange,
            permit,
            began,
        };
        let handle = |request: &mut Request| shared.handler.handle(request);
        self.run_handler(task, began, handle)
    }

    /// Goes on with a request that has waited for something else.
    fn go_on(&mut self, task: Task, then: Continuation) -> Ended {
        let health = &self.shared.health;
        if !task.exchange.advance(Stage::Waiting, Stage::Running) {
            bump(&health.counts.late);
            return Ended::Dropped;
        }
        let now = Instant::now();
        health.job_begins(self.index, now);
        self.run_handler(task, now, then)
    }

    /// Runs the handler, or the rest of it, and sends its reply.
    fn run_handler(
        &mut self,
        mut task: Task,
        began: Instant,
        handle: impl FnOnce(&mut Request) -> Response,
    ) -> Ended {
        let response = self.call(handle, &mut task.request);
        let ended = match response.into_later() {
            Ok(waiting) => self.put_off(task, waiting),
            Err(response) => self.replier.finish(task, response),
        };
        self.shared
            .health
            .job_ends(self.index, began, Instant::now());
        ended
    }

    /// Lets a request wait for something else, with no worker. Its deadline and its client's end hold meanwhile.
    fn put_off(&mut self, task: Task, mut waiting: Box<dyn Waiting>) -> Ended {
        let client = task.exchange.origin.client;
        let wake = || -> Wake {
            let event_loop = self.shared.event_loop.clone();
            Box::new(move || event_loop.send(Message::Wake(client)))
        };
        let signals = Signals {
            registry: &self.shared.registry,
            token: upstream_token(client.token()),
            wake: &wake,
        };
        if let Err(error) = waiting.watch(&signals) {
            log::error!("what a request waits for cannot be watched: {error}");
            let response = Response::text(500, "no reply can be waited for\n");
            return self.replier.finish(task, response);
        }
        if !task.exchange.advance(Stage::Running, Stage::Waiting) {
            bump(&self.shared.health.counts.late);
            return Ended::Dropped;
        }
        Ended::Waits(Box::new(Waits { task, waiting }))
    }

    /// What a handler answers; 500 if it panics.
    pub(crate) fn call(
        &self,
        handle: impl FnOnce(&mut Request) -> Response,
        request: &mut Request,
    ) -> Response {
        catch(|| handle(request)).unwrap_or_else(|what| {
            bump(&self.shared.health.counts.panics);
            log::error!(
                "the handler panicked: {} {}: {what}",
                request.method(),
                request.url()
            );
            Response::text(500, "the handler failed\n")
        })
    }

    /// Refuses a request that replicas have let through too often together.
    #[cfg(feature = "redis")]
    pub(crate) fn throttle(&mut self, exchange: &Exchange, head: &Head) -> Option<Ended> {
        let throttling = self.shared.throttling.clone();
        let checked = throttling.check_shared(head, exchange.origin.client_ip);
        let throttled = checked.err()?;
        let reason = Refusal::Throttled.name();
        exchange.origin.socket.note(|record| record.refused(reason));
        let outcome = ReplyOutcome::Throttled(throttled.place);
        let reply = throttled.response();
        Some(self.replier.reply_as(reply, exchange, outcome))
    }

    /// Goes on with a reply whose client has read what came before.
    fn resume(&mut self, stream: Stream, exchange: &Exchange) -> Ended {
        let now = Instant::now();
        self.shared.health.job_begins(self.index, now);
        let ended = self.replier.go_on(stream, exchange);
        self.shared.health.worker_rests(self.index);
        ended
    }

    /// Sends a reply as far as the socket takes it.
    pub(crate) fn reply(&mut self, response: Response, exchange: &Exchange) -> Ended {
        self.replier.reply(response, exchange)
    }
}
