//! Starting and stopping: the order in which things come up, and go down.

pub(crate) mod access_log;
pub(crate) mod aside;
pub(crate) mod client_socket;
mod descriptors;
pub(crate) mod event_loop;
pub(crate) mod exchange;
pub(crate) mod handle;
pub(crate) mod handler;
pub(crate) mod jobs;
pub(crate) mod relay;
pub(crate) mod request;
pub(crate) mod request_head;
pub(crate) mod response;
pub(crate) mod roster;
mod signals;
pub(crate) mod spin;
pub(crate) mod stream;
pub(crate) mod systemd;
pub(crate) mod throttling;
pub(crate) mod workers;

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use mio::net::TcpListener;
use mio::{Poll, Waker};

use crate::checks::{Check, CheckSettings, Watched, runner};
use crate::error::Error;
#[cfg(feature = "events")]
use crate::health::EventSource;
use crate::health::upstreams::{Reporter, UpstreamsReport};
use crate::health::{Health, reset};
use crate::http::trust::Cidr;
use crate::panics;
#[cfg(feature = "cache")]
use crate::patterns::Cache;
#[cfg(feature = "redis")]
use crate::patterns::ThrottleStore;
use crate::random::{self, Random};
use crate::report::Paths;
use crate::server::access_log::AccessLog;
use crate::server::aside::{Aside, Lane};
use crate::server::event_loop::doors::Door;
use crate::server::event_loop::drain::LAST_WORDS;
use crate::server::event_loop::intake::Carrier;
use crate::server::event_loop::wake;
use crate::server::event_loop::{Frontend, Parts, WAKER};
use crate::server::handle::{Addresses, Handle, end_of};
use crate::server::handler::Handler;
use crate::server::jobs::Jobs;
use crate::server::request::Request;
use crate::server::response::IntoResponse;
use crate::server::roster::Roster;
use crate::server::spin::Spin;
use crate::server::systemd::Manager;
use crate::server::throttling::Throttling;
use crate::server::workers::Shared;
use crate::settings::{
    self, AccessLogFormat, Config, ConfigError, Details, GateMode, OwnPaths, ThrottleRule,
};

/// How long a start may wait for the way to the workers.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Sets a server up. One method for each option of the binary, under its name; see [`Config`] for units, defaults and
/// bounds.
///
/// ```
/// use std::time::Duration;
///
/// use plimsoll::{GateMode, Server};
///
/// # fn main() -> Result<(), plimsoll::Error> {
/// let server = Server::builder()
///     .listen("127.0.0.1:0")
///     .workers(8)
///     .threshold(Duration::from_millis(250))
///     .gate(GateMode::Guarded)
///     .check("spool", |_: std::time::Instant| Ok(std::fs::metadata("/tmp").map(drop)?))
///     .handler_fn(|request| format!("{} of {}\n", request.method(), request.path()))
///     .start()?;
/// # drop(server);
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Builder {
    config: Config,
    listen_given: bool,
    /// Settings that were given one by one have been replaced by [`Builder::config`].
    settings_lost: bool,
    listeners: Vec<std::net::TcpListener>,
    checks: Vec<NamedCheck>,
    upstreams: Option<Reporter>,
    handler: Option<Box<dyn Handler>>,
    #[cfg(feature = "redis")]
    throttle_store: Option<ThrottleStore>,
    #[cfg(feature = "cache")]
    cache: Option<Cache>,
    aside: Option<Aside>,
    #[cfg(feature = "events")]
    events: Option<EventSource>,
}

/// A data store to watch.
struct NamedCheck {
    name: String,
    settings: CheckSettings,
    check: Arc<dyn Check>,
}

/// Makes the methods of [`Builder`] that take the value of a setting, of the rows in `settings/mod.rs`.
macro_rules! setters {
    ($($(#[$doc:meta])* $how:ident $field:ident: $type:ty = $default:expr => $row:tt)*) => {
        $(setters! { $how $(#[$doc])* $field: $type })*
    };
    (own $($row:tt)*) => {};
    (path $(#[$doc:meta])* $field:ident: $type:ty) => {
        $(#[$doc])*
        pub fn $field<'a>(mut self, path: impl Into<Option<&'a str>>) -> Self {
            self.config.$field = path.into().map(str::to_owned);
            self
        }
    };
    (set $(#[$doc:meta])* $field:ident: $type:ty) => {
        $(#[$doc])*
        pub fn $field(mut self, $field: $type) -> Self {
            self.config.$field = $field;
            self
        }
    };
}

impl Builder {
    fn new() -> Self {
        Self {
            config: Config::default(),
            listen_given: false,
            settings_lost: false,
            listeners: Vec::new(),
            checks: Vec::new(),
            upstreams: None,
            handler: None,
            #[cfg(feature = "redis")]
            throttle_store: None,
            #[cfg(feature = "cache")]
            cache: None,
            aside: None,
            #[cfg(feature = "events")]
            events: None,
        }
    }

    /// Has requests of one kind answered beside the workers, and the reports tell of the queue that they go to.
    #[cfg(all(feature = "events", feature = "proxy"))]
    pub(crate) fn events(self, aside: Aside, source: EventSource) -> Self {
        Self {
            aside: Some(aside),
            events: Some(source),
            ..self
        }
    }

    /// Takes all settings at once. It comes before the methods of single settings: after one of them, whose value it would
    /// drop, [`start`](Self::start) is an error.
    pub fn config(mut self, config: Config) -> Self {
        self.settings_lost |= self.listen_given || self.config != Config::default();
        self.config = config;
        self
    }

    /// Adds an address to serve on, a [`SocketAddr`] or `host:port`; port 0 picks one. The first call replaces the
    /// default, and adds to what [`config`](Self::config) has brought.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a call reads better without &"
    )]
    pub fn listen(mut self, address: impl ToString) -> Self {
        let is_first = !std::mem::replace(&mut self.listen_given, true);
        if is_first && self.config.listen == [settings::DEFAULT_LISTEN] {
            self.config.listen.clear();
        }
        self.config.listen.push(address.to_string());
        self
    }

    /// Adds a socket to serve on that listens already, such as one passed by a service manager; 64 at most. What
    /// [`listen`](Self::listen) names, and its default, is not served then.
    pub fn listener(mut self, listener: std::net::TcpListener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Adds a second listener, for the health paths only and with all details.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a call reads better without &"
    )]
    pub fn admin(mut self, address: impl ToString) -> Self {
        self.config.admin = Some(address.to_string());
        self
    }

    /// Adds a listener that speaks HAProxy's agent-check protocol.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a call reads better without &"
    )]
    pub fn agent(mut self, address: impl ToString) -> Self {
        self.config.agent = Some(address.to_string());
        self
    }

    /// Adds a name by which clients on this host may ask for the details, beside `localhost` and addresses.
    pub fn details_host(mut self, name: impl Into<String>) -> Self {
        self.config.details_hosts.push(name.into());
        self
    }

    /// Adds proxies whose `X-Forwarded-For` is believed, see [`Request::client`](crate::Request::client).
    ///
    /// ```
    /// let builder = plimsoll::Server::builder().trust("10.0.0.0/8".parse()?);
    /// # Ok::<(), plimsoll::Error>(())
    /// ```
    pub fn trust(mut self, proxies: Cidr) -> Self {
        self.config.trust.push(proxies);
        self
    }

    /// Adds a limit on how often clients may ask: see [`ThrottleRule`].
    ///
    /// ```
    /// let builder = plimsoll::Server::builder().throttle("20/s,path=/api".parse()?);
    /// # Ok::<(), plimsoll::Error>(())
    /// ```
    pub fn throttle(mut self, rule: ThrottleRule) -> Self {
        self.config.throttle.push(rule);
        self
    }

    /// Appends an access log to that file, a line for each request; `-` is standard output. See the other settings
    /// called `access_log_...`, and [`Handle::reopen_access_log`].
    pub fn access_log(mut self, path: impl Into<String>) -> Self {
        self.config.access_log = Some(path.into());
        self
    }

    settings::config_rows!(setters);

    /// Watches a data store with the default [settings](CheckSettings): every 10 s, and its failure is a warning. The
    /// name is what reports call it: up to 64 letters, digits, `-` and `_`, no two alike; up to 64 stores.
    pub fn check(self, name: impl Into<String>, check: impl Check) -> Self {
        self.check_with(name, CheckSettings::default(), check)
    }

    /// Watches a data store with settings of its own.
    pub fn check_with(
        mut self,
        name: impl Into<String>,
        settings: CheckSettings,
        check: impl Check,
    ) -> Self {
        self.checks.push(NamedCheck {
            name: name.into(),
            settings,
            check: Arc::new(check),
        });
        self
    }

    /// What tells reports of the endpoints that the handler forwards to: the server is ready only while one can be tried.
    /// It is called for each report, and must not block.
    pub fn upstreams(
        mut self,
        report: impl Fn() -> UpstreamsReport + Send + Sync + 'static,
    ) -> Self {
        self.upstreams = Some(Arc::new(report));
        self
    }

    /// Has all limits count together with those of other servers, which use the same store and name their rules alike.
    /// A request that this server lets through by itself is asked about there, by a worker; while the store does not
    /// answer, this server counts alone, which its reports say.
    #[cfg(feature = "redis")]
    pub fn throttle_store(mut self, store: ThrottleStore) -> Self {
        self.throttle_store = Some(store);
        self
    }

    /// A cache that the handler uses: its numbers are in the reports, and `PURGE` on the [admin](Self::admin) listener
    /// has it forget what it keeps for the request's Host and target.
    #[cfg(feature = "cache")]
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// What answers requests. Without one every path is 404.
    pub fn handler(mut self, handler: impl Handler) -> Self {
        self.handler = Some(Box::new(handler));
        self
    }

    /// The same for a closure, whose argument's type need not be written then.
    ///
    /// ```
    /// let builder = plimsoll::Server::builder().handler_fn(|request| format!("this is {}\n", request.path()));
    /// # let _ = builder;
    /// ```
    pub fn handler_fn<F, R>(self, handler: F) -> Self
    where
        F: Fn(&mut Request) -> R + Send + Sync + 'static,
        R: IntoResponse,
    {
        self.handler(handler)
    }

    /// Starts the server: it listens when this returns.
    ///
    /// # Errors
    /// A setting out of bounds or lost to [`config`](Self::config), an address that can't be bound, no place for the private socket, or a refusal of the
    /// system; nothing is left running then.
    pub fn start(self) -> Result<Server, Error> {
        if self.settings_lost {
            return Err(ConfigError {
                option: "config",
                expected: "all settings before single ones".to_owned(),
                found: "some that were given before".to_owned(),
            }
            .into());
        }
        self.config.validate()?;
        settings::listeners(self.listeners.len().max(1))?;
        let stores = self.config.checks.iter().map(|store| NamedCheck {
            name: store.name.clone(),
            settings: store.settings.clone(),
            check: Arc::new(store.store.clone()),
        });
        let checks: Vec<_> = stores.chain(self.checks).collect();
        let checked = checks
            .iter()
            .map(|check| (check.name.as_str(), &check.settings));
        settings::validate_checks(checked)?;
        if let Some(aside) = &self.aside {
            aside.leaves(&Paths::from(&self.config))?;
        }
        let mut listeners = Vec::new();
        for listener in self.listeners {
            let listener = adopt(listener).map_err(system("a socket that was passed"))?;
            listeners.push((Door::Public, listener));
        }
        let none_passed = listeners.is_empty();
        let public = self.config.listen.iter().filter(|_| none_passed);
        let public = public.map(|text| (Door::Public, text));
        let admin = self.config.admin.iter().map(|text| (Door::Admin, text));
        let agent = self.config.agent.iter().map(|text| (Door::Agent, text));
        for (door, address) in public.chain(admin).chain(agent) {
            let error = |source| Error::Listen {
                address: address.clone(),
                source,
            };
            listeners.push((door, bind(address).map_err(error)?));
        }
        if let Some((_, listener)) = listeners.first() {
            descriptors::check(&self.config, listener)?;
        }
        let handler = self
            .handler
            .unwrap_or_else(|| Box::new(|_: &mut Request| (404, "not found\n")));
        let completed = |health: Health| {
            let health = health.with_upstreams(self.upstreams);
            #[cfg(feature = "redis")]
            let health = health.sharing(self.throttle_store.clone());
            #[cfg(feature = "cache")]
            let health = health.caching(self.cache);
            #[cfg(feature = "events")]
            let health = health.with_events(self.events);
            health
        };
        let throttling = Throttling::new(&self.config.throttle);
        #[cfg(feature = "redis")]
        let throttling = throttling.shared_in(self.throttle_store.clone());
        let given = Given {
            checks,
            handler,
            listeners,
            throttling,
            aside: self.aside,
        };
        Server::start(&self.config, given, completed)
    }
}

/// What a server is made of, beside its settings.
struct Given {
    checks: Vec<NamedCheck>,
    handler: Box<dyn Handler>,
    listeners: Vec<(Door, TcpListener)>,
    throttling: Throttling,
    aside: Option<Aside>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .field("checks", &self.checks)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for NamedCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedCheck")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

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

/// The threads, in the order in which they have to end.
struct Running {
    shared: Arc<Shared>,
    event_loop: JoinHandle<io::Result<usize>>,
    /// Disconnected when the event loop has ended.
    event_loop_ended: Receiver<()>,
    workers: Vec<JoinHandle<()>>,
    /// Disconnected when every worker has ended.
    workers_ended: Receiver<()>,
    reset: JoinHandle<()>,
    /// `None` when there is nothing to check.
    checks: Option<JoinHandle<()>>,
    /// Disconnected when the checks' thread and every run have ended.
    checks_ended: Receiver<()>,
    /// Dropping it ends the reset thread and that of the checks.
    stop_background: Sender<()>,
}

/// The numbers of a server that starts now.
fn health_of(config: &Config, checks: &[NamedCheck], trips: Sender<Duration>) -> Health {
    let now = Instant::now();
    let mut random = Random::new(random::seed());
    let watched = checks
        .iter()
        .map(|check| Watched::new(&check.name, check.settings.clone(), now, &mut random));
    Health::new(config, trips, now).watching(watched)
}

/// Binds the first of a name's addresses that can be bound.
fn bind(address: &str) -> io::Result<TcpListener> {
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in address.to_socket_addrs()? {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Takes over a socket that listens already.
fn adopt(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    let listener = refuse_connection(listener)?;
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener))
}

/// A connection in a listener's place would look like a listener that nobody ever reaches.
fn refuse_connection(listener: std::net::TcpListener) -> io::Result<std::net::TcpListener> {
    let stream = std::net::TcpStream::from(OwnedFd::from(listener));
    match stream.peer_addr() {
        Ok(peer) => Err(io::Error::other(format!(
            "it is a connection from {peer}, not a socket that listens"
        ))),
        Err(_) => Ok(OwnedFd::from(stream).into()),
    }
}

fn addresses_of(listeners: &[(Door, TcpListener)]) -> io::Result<Addresses> {
    let addresses = listeners
        .iter()
        .map(|(door, listener)| Ok((*door, listener.local_addr()?)));
    let doors = addresses.collect::<io::Result<Vec<_>>>()?;
    let at = |wanted: Door| {
        let found = doors.iter().filter(move |(door, _)| *door == wanted);
        found.map(|(_, address)| *address)
    };
    Ok(Addresses {
        public: at(Door::Public).collect(),
        admin: at(Door::Admin).next(),
        agent: at(Door::Agent).next(),
    })
}

fn system(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::System { what, source }
}

impl Server {
    /// Sets a server up.
    pub fn builder() -> Builder {
        Builder::new()
    }

    fn start(
        config: &Config,
        given: Given,
        completed: impl FnOnce(Health) -> Health,
    ) -> Result<Self, Error> {
        let Given {
            checks,
            handler,
            listeners,
            throttling,
            aside,
        } = given;
        let addresses = addresses_of(&listeners).map_err(system("the listeners"))?;
        let (trips, tripped) = crossbeam_channel::unbounded();
        let access_log = AccessLog::open(config)?;
        let lines = access_log.as_ref().map(|log| log.lines());
        let health = health_of(config, &checks, trips).logging(lines);
        let health = Arc::new(completed(health));
        let (carrier, stream) = Carrier::open()?;
        let poll = Poll::new().map_err(system("the event queue"))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(system("the event queue"))?;
        let (sender, inbox) = wake::channel(waker);
        let shared = Arc::new(Shared {
            carrier: Mutex::new(carrier),
            handler,
            access_log,
            health: health.clone(),
            jobs: Arc::new(Jobs::default()),
            roster: Roster::new(config.workers),
            spin: Spin::new(),
            throttling: Arc::new(throttling),
            event_loop: sender,
            closing: AtomicBool::new(false),
        });
        let (worker_alive, workers_ended) = crossbeam_channel::bounded(0);
        let (lane, beside) = aside
            .map(|aside| Lane::start(aside, &shared, &worker_alive))
            .transpose()
            .map_err(system("the threads beside the workers"))?
            .unzip();
        let (proof, proven) = crossbeam_channel::bounded(0);
        let parts = Parts {
            poll,
            inbox,
            shared: shared.clone(),
            listeners,
            stream,
            lane,
            proof,
        };
        let frontend = Frontend::new(parts, config).map_err(system("the event queue"))?;

        let (stop_background, background_stopped) = crossbeam_channel::bounded(0);
        let (check_alive, checks_ended) = crossbeam_channel::bounded(0);
        let reset = reset::spawn(health.clone(), tripped, background_stopped.clone())
            .map_err(system("the reset thread"))?;
        let checks: Vec<Arc<dyn Check>> = checks.into_iter().map(|check| check.check).collect();
        let checks = (!checks.is_empty())
            .then(|| {
                let (watched, most) = (health.checks.clone(), runner::STORES_SIDE_BY_SIDE);
                runner::spawn(watched, checks, most, background_stopped, check_alive)
            })
            .transpose()
            .map_err(system("the thread of the checks"))?;
        let (event_loop_alive, event_loop_ended) = crossbeam_channel::bounded(0);
        let event_loop = std::thread::Builder::new()
            .name("plimsoll-front".into())
            .spawn(move || {
                let _alive = event_loop_alive;
                frontend.run()
            })
            .map_err(system("the event loop's thread"))?;
        let (handle, drained) = Handle::new(addresses, &shared);
        let mut server = Self {
            handle,
            drain: config.drain,
            drained,
            running: Some(Box::new(Running {
                shared: shared.clone(),
                event_loop,
                event_loop_ended,
                workers: beside.unwrap_or_default(),
                workers_ended,
                reset,
                checks,
                checks_ended,
                stop_background,
            })),
        };
        // From here on an error drops the server, which ends what has been started.
        let spawned = (0..config.workers).try_for_each(|index| {
            let worker = workers::spawn(shared.clone(), index, worker_alive.clone())?;
            if let Some(running) = &mut server.running {
                running.workers.push(worker);
            }
            Ok(())
        });
        // Before the error is returned: the server's end waits until only workers that run hold these.
        drop((worker_alive, shared));
        spawned.map_err(system("a worker thread"))?;
        if proven.recv_timeout(START_TIMEOUT) != Err(RecvTimeoutError::Disconnected) {
            let timeout = io::Error::from(io::ErrorKind::TimedOut);
            return Err(system("the way to the workers")(timeout));
        }
        server.log_addresses();
        Ok(server)
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
        drop(running.stop_background);
        running.shared.close(running.workers.len());
        // A handler or a check that hangs can't be ended; its thread is left to it.
        let checks_grace = Instant::now() + JOIN_GRACE;
        let grace = until.max(checks_grace);
        match running.workers_ended.recv_deadline(grace) {
            Err(RecvTimeoutError::Disconnected) | Ok(()) => {
                for worker in running.workers {
                    if worker.join().is_err() {
                        log::error!("a worker's thread panicked");
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => log::warn!("left behind workers whose handlers hang"),
        }
        match running.checks_ended.recv_deadline(checks_grace) {
            Err(RecvTimeoutError::Disconnected) | Ok(()) => {
                if running.checks.is_some_and(|checks| checks.join().is_err()) {
                    log::error!("the thread of the checks panicked");
                }
            }
            Err(RecvTimeoutError::Timeout) => log::warn!("left behind checks that hang"),
        }
        if running.reset.join().is_err() {
            log::error!("the reset thread panicked");
        }
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

/// How long a stop waits for handlers that run on beyond the drain, and for checks.
const JOIN_GRACE: Duration = Duration::from_millis(500);

/// How long a server that is dropped finishes what is in flight.
const DROP_DRAIN: Duration = Duration::from_secs(1);

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
