//! Setting a server up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpListener;

use super::aside::Aside;
use super::event_loop::listeners::Listener;
use super::handler::Handler;
use super::request::Request;
use super::response::IntoResponse;
use super::throttling::Throttling;
use super::{Server, descriptors, sockets};
use crate::checks::{Check, CheckSettings};
use crate::error::Error;
#[cfg(feature = "events")]
use crate::health::EventSource;
use crate::health::Sources;
use crate::health::upstreams::{Reporter, UpstreamsReport};
use crate::http::trust::Cidr;
#[cfg(feature = "cache")]
use crate::patterns::Cache;
#[cfg(feature = "redis")]
use crate::patterns::ThrottleStore;
use crate::report::Paths;
use crate::settings::{
    self, AccessLogFormat, Config, ConfigError, Details, GateMode, OwnPaths, ThrottleRule,
};

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

/// A data store to monitor.
pub(super) struct NamedCheck {
    pub(super) name: String,
    pub(super) settings: CheckSettings,
    pub(super) check: Arc<dyn Check>,
}

/// What a server is made of, beside its settings.
pub(super) struct Given {
    pub(super) checks: Vec<NamedCheck>,
    pub(super) handler: Box<dyn Handler>,
    pub(super) listeners: Vec<(Listener, TcpListener)>,
    pub(super) throttling: Throttling,
    pub(super) aside: Option<Aside>,
    pub(super) sources: Sources,
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
    pub(super) fn new() -> Self {
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

    /// Adds an address to serve on, a [`SocketAddr`](std::net::SocketAddr) or `host:port`; port 0 picks one. The first call replaces the
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
    /// called `access_log_...`, and [`Handle::reopen_access_log`](crate::Handle::reopen_access_log).
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
    /// A setting out of bounds or lost to [`config`](Self::config), an address that can't be bound, no place for the
    /// private socket, or a refusal of the system; nothing is left running then.
    pub fn start(mut self) -> Result<Server, Error> {
        self.validate()?;
        let listeners = sockets::open(&self.config, std::mem::take(&mut self.listeners))?;
        if let Some((_, listener)) = listeners.first() {
            descriptors::check(&self.config, listener)?;
        }
        let not_found = || Box::new(|_: &mut Request| (404_u16, "not found\n")) as Box<dyn Handler>;
        let Self {
            config,
            checks,
            upstreams,
            handler,
            aside,
            #[cfg(feature = "redis")]
            throttle_store,
            #[cfg(feature = "cache")]
            cache,
            #[cfg(feature = "events")]
            events,
            ..
        } = self;
        let throttling = Throttling::new(&config.throttle);
        #[cfg(feature = "redis")]
        let throttling = throttling.shared_in(throttle_store.clone());
        Server::start(
            &config,
            Given {
                checks,
                handler: handler.unwrap_or_else(not_found),
                listeners,
                throttling,
                aside,
                sources: Sources {
                    upstreams,
                    #[cfg(feature = "events")]
                    events,
                    #[cfg(feature = "cache")]
                    cache,
                    #[cfg(feature = "redis")]
                    throttle_store,
                },
            },
        )
    }

    /// Checks all settings, and takes the stores that they name to the checks.
    fn validate(&mut self) -> Result<(), ConfigError> {
        if self.settings_lost {
            return Err(ConfigError {
                option: "config",
                expected: "all settings before single ones".to_owned(),
                found: "some that were given before".to_owned(),
            });
        }
        self.config.validate()?;
        settings::listeners(self.listeners.len().max(1))?;
        let stores = self.config.checks.iter().map(|store| NamedCheck {
            name: store.name.clone(),
            settings: store.settings.clone(),
            check: Arc::new(store.store.clone()),
        });
        self.checks.splice(..0, stores);
        let checks = self.checks.iter();
        settings::validate_checks(checks.map(|check| (check.name.as_str(), &check.settings)))?;
        let paths = Paths::from(&self.config);
        self.aside
            .as_ref()
            .map_or(Ok(()), |aside| aside.leaves(&paths))
    }
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
