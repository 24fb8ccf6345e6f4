//! The sidecar: a handler that forwards requests to a service, and gives it what the patterns have.
//!
//! ```no_run
//! use plimsoll::Server;
//! use plimsoll::proxy::{Proxy, ProxyConfig};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let proxy = Proxy::start(ProxyConfig::to(["http://127.0.0.1:9000"]))?;
//!     let server = Server::builder().listen("127.0.0.1:8080").workers(64).handler(proxy).start()?;
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
//! A worker waits for the response's head, so the number of workers is the number of requests that wait for the service at
//! once.

mod config;
mod failure;
mod headers;
mod relay;
mod tries;
mod upgrade;
mod upstreams;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;

pub use config::{BalanceBy, BreakerMode, ProxyConfig, table};
use failure::{Failure, Failures};
use headers::{Forwarded, Outcome, Received};
use tries::Tries;
use upstreams::Upstreams;

use crate::patterns::{Deadline, Retry, RetryBudget};
use crate::{Cidr, Config, ConfigError, Error, Handler, Request, Response};

/// The service's deadline is earlier than the client's by this part of what is left ...
const MARGIN_PART: u32 = 10;

/// ... and by no more than this, so that the client gets an answer that says what happened.
const MOST_MARGIN: Duration = Duration::from_millis(100);

/// Forwards every request to a service of one or more endpoints, see the [module](self).
pub struct Proxy {
    config: ProxyConfig,
    upstreams: Arc<Upstreams>,
    retry: Retry,
    failures: Failures,
    /// Proxies in front whose word on the client is passed on.
    trust: Vec<Cidr>,
    /// Longest that a request waits while every endpoint does as much as it can.
    patience: Duration,
    /// An X-Forwarded-Proto of a peer that is not trusted was replaced, and that was said.
    has_warned: AtomicBool,
    /// Its end ends the thread in the background.
    _stop: Sender<()>,
}

impl Proxy {
    /// Looks for the endpoints and begins to watch them, with a thread of its own.
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
        let stop = upstreams.watch().map_err(|source| Error::System {
            what: "the thread that looks for endpoints",
            source,
        })?;
        let budget = Arc::new(RetryBudget::default());
        Ok(Self {
            retry: Retry::new().retries(config.retries).budget(budget),
            config,
            upstreams,
            failures: Failures::default(),
            trust: Vec::new(),
            patience: Config::default().queue_budget,
            has_warned: AtomicBool::new(false),
            _stop: stop,
        })
    }

    /// Takes from the server's settings what concerns forwarding too: whom it [trusts](Config::trust), and [how
    /// long](Config::queue_budget) a request may wait for its turn.
    #[must_use]
    pub fn under(self, config: &Config) -> Self {
        Self {
            trust: config.trust.clone(),
            patience: config.queue_budget,
            ..self
        }
    }

    fn forward(&self, request: &Request, forwarded: &Forwarded) -> Response {
        if forwarded.replaced_proto && !self.has_warned.swap(true, Ordering::Relaxed) {
            log::warn!(
                "an X-Forwarded-Proto of {} was replaced: --trust names those who may set it",
                request.peer().ip()
            );
        }
        let left = request.remaining();
        let margin = (left / MARGIN_PART).min(MOST_MARGIN);
        let tries = Tries {
            config: &self.config,
            upstreams: &self.upstreams,
            request,
            forwarded,
            deadline: Deadline::after(left.saturating_sub(margin)),
            patience: self.patience,
        };
        let asked = relay::Asked {
            head: request.method() == "HEAD",
            trailers: forwarded.trailers,
        };
        let times = relay::Times {
            body_idle: self.config.body_idle,
            tunnel_idle: self.config.tunnel_idle,
        };
        match tries.run(&self.retry) {
            Ok(answer) => relay::respond(answer, asked, times),
            Err(Failure::Answer(answer)) => relay::respond(*answer, asked, times),
            Err(Failure::Client(error)) => failure::no_response(&error, &self.failures),
            Err(Failure::Unavailable(why)) => failure::unavailable(&why, &self.failures),
        }
    }
}

impl Handler for Proxy {
    fn handle(&self, request: &mut Request) -> Response {
        let peer = request.peer().ip();
        let outcome = headers::forward(&Received {
            method: request.method(),
            version: request.version(),
            fields: request.headers_bytes(),
            body_len: request.body_len(),
            peer,
            trusted: self.trust.iter().any(|proxies| proxies.contains(peer)),
            id: request.id(),
            host: self.config.upstream_host.as_deref(),
        });
        match outcome {
            Outcome::Forward(forwarded) => self.forward(request, &forwarded),
            Outcome::BadMaxForwards => {
                Response::text(400, "Send at most one Max-Forwards, as decimal digits.\n")
            }
            Outcome::Answer if request.method() == "TRACE" => {
                let text = headers::trace("TRACE", request.url(), request.headers_bytes());
                Response::new(200, text).with_header("Content-Type", "message/http")
            }
            Outcome::Answer => Response::new(204, Vec::new()),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("config", &self.config)
            .field("upstreams", &self.upstreams)
            .finish_non_exhaustive()
    }
}
