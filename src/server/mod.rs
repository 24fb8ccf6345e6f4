//! Starting and stopping: the order in which things come up, and go down.

pub(crate) mod access_log;
pub(crate) mod aside;
mod builder;
pub(crate) mod busy_poll;
pub(crate) mod client_socket;
mod descriptors;
pub(crate) mod done;
pub(crate) mod event_loop;
pub(crate) mod exchange;
pub(crate) mod handle;
pub(crate) mod handler;
pub(crate) mod idle_workers;
pub(crate) mod jobs;
pub(crate) mod relay;
pub(crate) mod replier;
pub(crate) mod request;
pub(crate) mod request_head;
pub(crate) mod response;
pub(crate) mod shared;
mod signals;
mod sockets;
pub(crate) mod stream;
pub(crate) mod systemd;
pub(crate) mod task;
pub(crate) mod throttling;
pub(crate) mod watched;
pub(crate) mod workers;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use mio::{Poll, Registry, Waker};

use crate::checks::Monitored;
use crate::checks::scheduler::{self, MonitoredCheck, STORES_SIDE_BY_SIDE};
use crate::error::Error;
use crate::health::{Health, reset};
use crate::panics;
use crate::random::{self, Random};
use crate::server::access_log::AccessLog;
use crate::server::aside::Lane;
pub use crate::server::builder::Builder;
use crate::server::builder::{Given, NamedCheck};
use crate::server::busy_poll::BusyPoll;
use crate::server::event_loop::drain::LAST_WORDS;
use crate::server::event_loop::intake::Carrier;
use crate::server::event_loop::wake;
use crate::server::event_loop::{EventLoop, Parts, WAKER};
use crate::server::handle::{Handle, end_of};
use crate::server::idle_workers::IdleWorkers;
use crate::server::jobs::Jobs;
use crate::server::shared::Shared;
use crate::server::systemd::Manager;
use crate::settings::Config;
use crate::threads::Threads;

/// How long a start may wait for the way to the workers.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a stop waits for handlers that run on beyond the drain, and for checks.
const JOIN_GRACE: Duration = Duration::from_millis(500);

/// How long a server that is dropped finishes what is in flight.
const DROP_DRAIN: Duration = Duration::from_secs(1);

/// A running server.
///
/// Dropping it stops it: nothing more is accepted, what is in flight is finished for up to a second, and cut then; every
/// thread is joined, but for those whose handler or check hangs for half a second more. [`shutdown`](Self::shutdown)
/// takes longer and says what became of it.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::TcpStream;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = plimsoll::Server::builder().listen("127.0.0.1:0").handler_fn(|_| "hello\n").start()?;
/// let mut client = TcpStream::connect(server.local_addr())?;
/// client.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
/// let mut reply = String::new();
/// client.read_to_string(&mut reply)?;
/// assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("\r\n\r\nhello\n"));
/// server.shutdown(Duration::from_secs(1))?;
/// # Ok(())
/// # }
/// ```
pub struct Server {
    handle: Handle,
    drain: Duration,
    /// How long a [`Handle`] wants it to drain.
    drained: Receiver<Duration>,
    /// `None` once stopped.
    running: Option<Box<Running>>,
}

/// What runs, in the order in which it has to end.
struct Running {
    shared: Arc<Shared>,
    event_loop: JoinHandle<io::Result<usize>>,
    /// Disconnected when the event loop has ended.
    event_loop_ended: Receiver<()>,
    /// With those beside them.
    workers: Threads,
    /// The reset thread, and that of the checks.
    background: Threads,
}

/// The numbers of a server that starts now.
fn health_of(config: &Config, checks: &[NamedCheck], trips: Sender<Duration>) -> Health {
    let now = Instant::now();
    let mut random = Random::new(random::seed());
    let monitored = checks
        .iter()
        .map(|check| Monitored::new(&check.name, check.settings.clone(), now, &mut random));
    Health::new(config, trips, now).watching(monitored)
}

/// Starts the reset thread, and that of the checks.
fn start_background(
    health: &Arc<Health>,
    tripped: Receiver<Duration>,
    checks: Vec<NamedCheck>,
) -> Result<Threads, Error> {
    let mut threads = Threads::new();
    reset::spawn(health.clone(), tripped, &mut threads).map_err(system("the reset thread"))?;
    let monitored = health.checks.iter().cloned();
    let checks = monitored
        .zip(checks)
        .map(|(monitored, named)| MonitoredCheck {
            monitored,
            check: named.check,
        });
    scheduler::spawn(checks.collect(), STORES_SIDE_BY_SIDE, &mut threads)
        .map_err(system("the thread of the checks"))?;
    Ok(threads)
}

/// The event queue, where sockets are watched for it, and what wakes it.
fn event_queue() -> io::Result<(Poll, Registry, Waker)> {
    let poll = Poll::new()?;
    let registry = poll.registry().try_clone()?;
    let waker = Waker::new(poll.registry(), WAKER)?;
    Ok((poll, registry, waker))
}

/// Starts the event loop's thread; the channel is disconnected when it has ended.
fn spawn_event_loop(
    event_loop: EventLoop,
) -> Result<(JoinHandle<io::Result<usize>>, Receiver<()>), Error> {
    let (alive, ended) = crossbeam_channel::bounded(0);
    let thread = std::thread::Builder::new()
        .name("plimsoll-front".into())
        .spawn(move || {
            let _alive: Sender<()> = alive;
            event_loop.run()
        })
        .map_err(system("the event loop's thread"))?;
    Ok((thread, ended))
}

fn system(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::System { what, source }
}

impl Server {
    /// Sets a server up.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Starts what a [`Builder`] has put together. Where it fails, nothing is left running.
    fn start(config: &Config, given: Given) -> Result<Self, Error> {
        let addresses = sockets::addresses_of(&given.listeners).map_err(system("the listeners"))?;
        let access_log = AccessLog::open(config)?;
        let (trips, tripped) = crossbeam_channel::unbounded();
        let lines = access_log.as_ref().map(|log| log.lines());
        let health = health_of(config, &given.checks, trips);
        let health = Arc::new(health.logging(lines).with_sources(given.sources));
        let (carrier, stream) = Carrier::open()?;
        let (poll, registry, waker) = event_queue().map_err(system("the event queue"))?;
        let (sender, inbox) = wake::channel(waker);
        let shared = Arc::new(Shared {
            carrier: Mutex::new(carrier),
            handler: given.handler,
            access_log,
            health: health.clone(),
            jobs: Arc::new(Jobs::default()),
            idle_workers: IdleWorkers::new(config.workers),
            busy_poll: BusyPoll::new(),
            throttling: Arc::new(given.throttling),
            event_loop: sender,
            registry,
            closing: AtomicBool::new(false),
        });
        let background = start_background(&health, tripped, given.checks)?;
        let mut workers = Threads::new();
        let start = |aside| Lane::start(aside, &shared, &mut workers);
        let lane = given.aside.map(start).transpose();
        let lane = lane.map_err(system("the threads beside the workers"))?;
        let (proof, proven) = crossbeam_channel::bounded(0);
        let parts = Parts {
            poll,
            inbox,
            shared: shared.clone(),
            listeners: given.listeners,
            stream,
            lane,
            proof,
        };
        let event_loop = EventLoop::new(parts, config).map_err(system("the event queue"))?;
        let (event_loop, event_loop_ended) = spawn_event_loop(event_loop)?;
        let (handle, drained) = Handle::new(addresses, &shared);
        let mut server = Self {
            handle,
            drain: config.drain,
            drained,
            running: Some(Box::new(Running {
                shared,
                event_loop,
                event_loop_ended,
                workers,
                background,
            })),
        };
        // From here on an error drops the server, which ends what has been started.
        server.start_workers(config.workers, &proven)?;
        server.log_addresses();
        Ok(server)
    }

    /// Starts the workers, and waits until the first job is known to have reached one.
    fn start_workers(&mut self, count: usize, proven: &Receiver<()>) -> Result<(), Error> {
        if let Some(running) = &mut self.running {
            let (shared, threads) = (&running.shared, &mut running.workers);
            (0..count)
                .try_for_each(|index| workers::spawn(shared.clone(), index, threads))
                .map_err(system("a worker thread"))?;
        }
        match proven.recv_timeout(START_TIMEOUT) {
            Err(RecvTimeoutError::Disconnected) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Timeout) => {
                let timeout = io::Error::from(io::ErrorKind::TimedOut);
                Err(system("the way to the workers")(timeout))
            }
        }
    }

    fn log_addresses(&self) {
        for address in self.local_addrs() {
            log::info!("listening on http://{address}");
        }
        if let Some(address) = self.admin_addr() {
            log::info!("admin listening on http://{address}");
        }
        if let Some(address) = self.agent_addr() {
            log::info!("agent listening on {address}");
        }
    }

    /// What the rest of the program needs while this server is [run](Self::run).
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The first address that it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    /// Every address that it listens on, in the order given.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        self.handle.local_addrs()
    }

    /// The address of the listener for the health paths only, if there is one.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.handle.admin_addr()
    }

    /// The address of the listener for HAProxy's agent-check, if there is one.
    #[must_use]
    pub fn agent_addr(&self) -> Option<SocketAddr> {
        self.handle.agent_addr()
    }

    /// What the server knows about itself.
    #[must_use]
    pub fn health(&self) -> &Health {
        self.handle.health()
    }

    /// Stops: not ready at once, keeps serving, answers what is in flight, and joins every thread; at most that long, and
    /// earlier when nothing is in flight, no request has come for a fifth of it, and nobody has asked a health path or the
    /// agent within the last minute. Then up to half a second more for what is being answered, and as long for threads that
    /// do not end. (`tiny_http`'s own few threads, which hold nothing, end by themselves some seconds later.)
    ///
    /// # Errors
    /// [`Error::Cut`] when the time was over before every request was answered.
    pub fn shutdown(mut self, drain: Duration) -> Result<(), Error> {
        self.handle.drain(drain, true);
        self.end(drain)
    }

    /// Serves until a [`Handle`] shuts it down.
    ///
    /// A service manager that is named by `NOTIFY_SOCKET`, as systemd is, hears of it all in the protocol of
    /// `sd_notify(3)`: READY=1 at once, STATUS= when the status changes, WATCHDOG=1 at half of `WATCHDOG_USEC` while
    /// the event loop answers and not every worker is stuck, STOPPING=1 when the drain begins. The environment is read
    /// and left as it is.
    ///
    /// # Errors
    /// As [`shutdown`](Self::shutdown), and [`Error::EventLoop`] as soon as the event loop has failed.
    pub fn run(self) -> Result<(), Error> {
        self.serve("")
    }

    /// Serves until told to drain; what is logged then ends with `hint`.
    fn serve(mut self, hint: &str) -> Result<(), Error> {
        let Some(running) = &self.running else {
            return Ok(());
        };
        let ended = &running.event_loop_ended;
        let drain = if let Some(mut manager) = Manager::from_env() {
            let event_loop = &running.shared.event_loop;
            let drain = manager.watch(&self.drained, ended, event_loop, self.health());
            let drained = drain.unwrap_or_default();
            manager.stopping(drained.saturating_add(LAST_WORDS + JOIN_GRACE));
            drain
        } else {
            crossbeam_channel::select! {
                recv(self.drained) -> drain => drain.ok(),
                // A drain without time may be over before it is heard of.
                recv(ended) -> _ => self.drained.try_recv().ok(),
            }
        };
        if let Some(drain) = drain {
            log::info!("draining for up to {drain:?}{hint}");
        }
        self.end(drain.unwrap_or_default())
    }

    /// Serves as [`run`](Self::run) does until SIGINT, SIGTERM or SIGHUP, then drains as the `drain` setting says. Every
    /// server that was started so drains on the same signal, and a second one ends the process at once, with status 1.
    /// SIGHUP stays ignored if it is, as under nohup. SIGUSR1 has the access log [opened anew](Handle::reopen_access_log),
    /// if there is one.
    ///
    /// Nothing else touches signals: [`run`](Self::run) and [`shutdown`](Self::shutdown) leave them alone. A program's own
    /// handlers are called too, if they were there before; of one that comes later, that is up to it. The handlers stay
    /// for the life of the process.
    ///
    /// # Errors
    /// As [`run`](Self::run); and [`Error::Signals`] when the handlers can't be installed: the server stops then.
    pub fn run_until_signal(self) -> Result<(), Error> {
        let _registration = signals::register(self.handle(), self.drain)?;
        self.serve("; a second signal stops at once")
    }

    /// Joins what has been told to end within that time.
    fn end(&mut self, drain: Duration) -> Result<(), Error> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        let running = *running;
        let until = end_of(drain);
        let ended = match running.event_loop.join() {
            Ok(ended) => ended.map_err(|error| error.to_string()),
            Err(panic) => Err(format!("it panicked: {}", panics::said(panic))),
        };
        running.shared.close(running.workers.len());
        // A handler or a check that hangs can't be ended; its thread is left to it.
        let grace = Instant::now() + JOIN_GRACE;
        let background = running.background.stop();
        running.workers.stop().join(until.max(grace));
        background.join(grace);
        if let Some(log) = &running.shared.access_log {
            log.close();
        }
        match ended {
            Ok(0) => Ok(()),
            Ok(cut) => Err(Error::Cut(cut)),
            Err(why) => Err(Error::EventLoop(why)),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.running.is_none() {
            return;
        }
        self.handle.drain(DROP_DRAIN, false);
        if let Err(error) = self.end(DROP_DRAIN) {
            log::warn!("stopped: {error}");
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("handle", &self.handle)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
