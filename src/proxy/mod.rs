//! The sidecar: a handler that forwards requests to a service, and gives it what the patterns have.
//!
//! ```no_run
//! use plimsoll::Server;
//! use plimsoll::proxy::{Proxy, ProxyConfig};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let proxy = Proxy::start(ProxyConfig::to(["http://127.0.0.1:9000"]))?;
//!     let builder = Server::builder().listen("127.0.0.1:8080").workers(64);
//!     let server = builder.upstreams(proxy.reporter()).handler(proxy).start()?;
//!     server.run_until_signal()?;
//!     Ok(())
//! }
//! ```
//!
//! # What happens to a request
//!
//! ```text
//! head and body are whole ─▶ headers: what goes on ─▶ tries: pick an endpoint, send, read the head
//!     failed, and worth another? elsewhere at once, else after a pause; within the budget and the deadline
//! ─▶ relay: the response's head, cleaned, and its body
//! ```
//!
//! A worker sends a request, and the server's event loop waits for the response's head. As many requests as there are
//! workers may wait for the service at once: the number of workers is what the service gets at most, and what comes beyond
//! it waits for its turn, or is refused.

mod answer;
#[cfg(feature = "cache")]
mod background;
#[cfg(feature = "cache")]
mod caching;
mod check;
mod config;
#[cfg(feature = "events")]
mod events;
mod failure;
mod headers;
mod relay;
mod slots;
#[cfg(feature = "cache")]
mod taking;
mod tries;
mod upgrade;
mod upstreams;
mod waiting;
mod way;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use answer::Answer;
pub use check::UpstreamCheck;
pub use config::{BalanceBy, BreakerMode, ProxyConfig, table};
#[cfg(feature = "events")]
use events::Events;
#[cfg(feature = "events")]
pub use events::{EventsAt, EventsConfig, EventsPlace, table as events_table};
use failure::{Failure, Failures};
use headers::{Decision, Forwarded, Received};
use tries::Tries;
use upstreams::Upstreams;
use way::{Outgoing, Way};

use crate::health::upstreams::UpstreamsReport;
use crate::http::trust::Trust;
#[cfg(feature = "cache")]
use crate::patterns::Fetch;
use crate::patterns::{Deadline, Retry, RetryBudget, less_margin};
use crate::settings::descriptors_beside;
use crate::threads::Threads;
use crate::{Builder, Config, ConfigError, Error, Handler, Request, Response};

/// Forwards every request to a service of one or more endpoints, see the [module](self).
pub struct Proxy {
    core: Arc<Core>,
    /// Discovery, checks and refreshes in the background, which end with this.
    _threads: Threads,
    /// Requests that are kept before they are forwarded.
    #[cfg(feature = "events")]
    events: Option<Arc<Events>>,
}

/// What a request needs, and what goes on in the background when a request has been answered.
struct Core {
    config: ProxyConfig,
    upstreams: Arc<Upstreams>,
    retry: Retry,
    budget: Arc<RetryBudget>,
    failures: Arc<Failures>,
    /// Proxies in front whose word on the client is passed on.
    trust: Trust,
    /// Longest that a request waits while every endpoint does as much as it can.
    patience: Duration,
    /// An X-Forwarded-Proto of a peer that is not trusted was replaced, and that was said.
    has_warned: AtomicBool,
    #[cfg(feature = "cache")]
    caching: Option<caching::Caching>,
}

/// Whom an answer is for.
enum For {
    /// The client that asks.
    Client,
    /// All who ask for the same: it may be kept.
    #[cfg(feature = "cache")]
    All(Box<Fetch>),
}

impl Proxy {
    /// Looks for the endpoints and begins to watch them, with two threads of its own.
    ///
    /// # Errors
    /// A setting out of its bounds, or the text of a source that is wrong; the system gives no thread. A source that cannot
    /// be read yet is no error: requests are answered 503 until one has an endpoint.
    pub fn start(config: ProxyConfig) -> Result<Self, Error> {
        config.validate()?;
        let upstreams = Upstreams::new(&config).map_err(|error| ConfigError {
            option: "upstream",
            expected: error.expected,
            found: error.found,
        })?;
        let upstreams = Arc::new(upstreams);
        let mut threads = Threads::new();
        upstreams
            .watch(&mut threads)
            .map_err(|source| Error::System {
                what: "the threads that look after endpoints",
                source,
            })?;
        let budget = Arc::new(RetryBudget::default());
        #[cfg(feature = "cache")]
        let caching =
            caching::Caching::new(&config, &mut threads).map_err(|source| Error::System {
                what: "a thread that refreshes what is kept",
                source,
            })?;
        let core = Core {
            retry: Retry::new().retries(config.retries).budget(budget.clone()),
            budget,
            config,
            upstreams,
            failures: Arc::default(),
            trust: Trust::default(),
            patience: Config::default().queue_budget,
            has_warned: AtomicBool::new(false),
            #[cfg(feature = "cache")]
            caching,
        };
        Ok(Self {
            core: Arc::new(core),
            _threads: threads,
            #[cfg(feature = "events")]
            events: None,
        })
    }

    /// Takes from the server's settings what concerns forwarding too: whom it [trusts](Config::trust), [how
    /// long](Config::queue_budget) a request may wait for its turn, and how many descriptors
    /// [clients](Config::max_connections) leave for connections to the service.
    #[must_use]
    pub fn under(mut self, config: &Config) -> Self {
        // Nothing goes on in the background before the first request.
        if let Some(core) = Arc::get_mut(&mut self.core) {
            core.trust = Trust::new(config.trust.clone());
            core.patience = config.queue_budget;
            let beside = descriptors_beside(config.max_connections);
            core.upstreams.slots.set_most(beside.max(config.workers));
        }
        self
    }

    /// Opens the queue of events, if one is asked for, and begins to deliver what is in it. Of the server's settings it
    /// takes whom it trusts, the largest request, and how long a delivery may take.
    ///
    /// # Errors
    /// A setting out of its bounds, or the queue cannot be opened.
    #[cfg(feature = "events")]
    pub fn keeping(self, config: &EventsConfig, server: &Config) -> Result<Self, Error> {
        let start = |at| Events::start(config, at, server, &self.core.config, &self.core.upstreams);
        let events = config.events.as_ref().map(start).transpose()?;
        Ok(Self {
            events: events.map(Arc::new),
            ..self
        })
    }

    /// Has a server answer with this, and its reports tell of the endpoints and of the events. Events are taken beside the
    /// workers, which may all wait for the service.
    pub fn on(self, builder: Builder) -> Builder {
        #[cfg(feature = "events")]
        let builder = match &self.events {
            Some(events) => events::on(events, builder),
            None => builder,
        };
        #[cfg(feature = "cache")]
        let builder = match self.cache() {
            Some(cache) => builder.cache(cache),
            None => builder,
        };
        builder.upstreams(self.reporter()).handler(self)
    }

    /// What is kept of the service's replies, if anything is: for the reports and for `PURGE`.
    #[cfg(feature = "cache")]
    #[must_use]
    pub fn cache(&self) -> Option<crate::patterns::Cache> {
        let caching = self.core.caching.as_ref();
        caching.map(|caching| caching.cache.clone())
    }

    /// What tells a server's reports of the endpoints, see [`Builder::upstreams`](crate::Builder::upstreams).
    pub fn reporter(&self) -> impl Fn() -> UpstreamsReport + Send + Sync + use<> {
        let (upstreams, budget) = (self.core.upstreams.clone(), self.core.budget.clone());
        let failures = self.core.failures.clone();
        move || UpstreamsReport {
            retries: budget.retries(),
            retries_refused: budget.refused(),
            errors: failures.read(),
            ..upstreams.report()
        }
    }
}

impl Core {
    fn forward(self: &Arc<Self>, request: &Request, forwarded: Forwarded) -> Response {
        if forwarded.replaced_proto && !self.has_warned.swap(true, Ordering::Relaxed) {
            log::warn!(
                "an X-Forwarded-Proto of {} was replaced: --trust names those who may set it",
                request.peer().ip()
            );
        }
        #[cfg(feature = "cache")]
        if let Some(caching) = &self.caching
            && upgrade::wanted(request, &forwarded, &self.config.upgrade).is_none()
        {
            return self.look_up(caching, request, forwarded);
        }
        if request.is_served() {
            return waiting::forward(self, request, forwarded, For::Client);
        }
        let result = self.ask(request, &forwarded);
        self.reply(result, request, &forwarded)
    }

    /// What a client gets of the service's answer, or in place of one.
    fn reply(
        &self,
        result: Result<Answer, Failure>,
        request: &Request,
        forwarded: &Forwarded,
    ) -> Response {
        match result {
            Ok(answer) => self.relay(answer, request, forwarded),
            Err(failure) => self.fail(&failure),
        }
    }

    fn tries(&self, request: &Request) -> Tries {
        Tries::new(
            &self.retry,
            &self.upstreams,
            deadline(request),
            self.patience,
        )
    }

    /// Asks the service, and waits for its answer. A client that has left ends it.
    fn ask(&self, request: &Request, forwarded: &Forwarded) -> Result<Answer, Failure> {
        let cancelled = || request.abandoned() || request.is_given_up();
        let way = self.way(request, forwarded);
        self.tries(request).run(&way, &cancelled)
    }

    fn way<'a>(&'a self, request: &'a Request, forwarded: &'a Forwarded) -> Way<'a> {
        Way {
            config: &self.config,
            upstreams: &self.upstreams,
            retry: &self.retry,
            outgoing: Outgoing::by(request, forwarded, &self.config),
        }
    }

    fn relay(&self, answer: Answer, request: &Request, forwarded: &Forwarded) -> Response {
        let asked = relay::Asked {
            head: request.method() == "HEAD",
            trailers: forwarded.trailers,
        };
        let times = relay::Times {
            body_idle: self.config.body_idle,
            tunnel_idle: self.config.tunnel_idle,
        };
        relay::respond(answer, asked, times)
    }

    /// What a client gets in place of an answer.
    fn fail(&self, failure: &Failure) -> Response {
        match failure {
            Failure::Client(error) => failure::no_response(error, &self.failures),
            Failure::Unavailable(why) => failure::unavailable(why, &self.failures),
        }
    }
}

/// By when the service has to have answered: so that the client gets an answer that says what happened.
fn deadline(request: &Request) -> Deadline {
    Deadline::after(less_margin(request.remaining()))
}

impl Handler for Proxy {
    fn handle(&self, request: &mut Request) -> Response {
        let core = &self.core;
        #[cfg(feature = "cache")]
        if let Some(response) = core.hit(request) {
            return response;
        }
        let peer = request.peer().ip();
        let outcome = headers::forward(&Received {
            method: request.method(),
            version: request.version(),
            fields: request.headers_bytes(),
            body_len: request.body_len(),
            peer,
            trusted: core.trust.includes(peer),
            id: request.id(),
            host: core.config.upstream_host.as_deref(),
        });
        match outcome {
            Decision::Forward(forwarded) => core.forward(request, forwarded),
            Decision::BadMaxForwards => {
                Response::text(400, "Send at most one Max-Forwards, as decimal digits.\n")
            }
            Decision::Answer if request.method() == "TRACE" => {
                let text = headers::trace("TRACE", request.url(), request.headers_bytes());
                Response::new(200, text).with_header("Content-Type", "message/http")
            }
            Decision::Answer => Response::new(204, Vec::new()),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("config", &self.core.config)
            .field("upstreams", &self.core.upstreams)
            .finish_non_exhaustive()
    }
}
