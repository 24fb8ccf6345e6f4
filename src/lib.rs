//! A small synchronous HTTP server that knows its own load line.
//!
//! It measures how long it takes to serve a request with a lock-free moving average, reports its health, refuses with
//! 503 what it cannot carry, and recovers by itself: it sleeps, starts the average afresh, and tries again. A fixed
//! pool of threads runs the handler; there is no async runtime and there are no futures.
//!
//! # Start
//!
//! ```no_run
//! use plimsoll::Server;
//!
//! fn main() -> Result<(), plimsoll::Error> {
//!     let server = Server::builder()
//!         .listen("127.0.0.1:8080")
//!         .handler_fn(|_| "hello\n")
//!         .start()?;
//!     server.run_until_signal()
//! }
//! ```
//!
//! A handler is blocking, straight-line code. What it returns is [a reply](IntoResponse): text, bytes, a status with
//! either, an `Option`, a `Result`, a [`Response`] with headers and a body behind a [`Read`](std::io::Read), or a
//! `tiny_http::Response`. It is tested without a socket: see [`Request`].
//!
//! # What happens to a request
//!
//! ```text
//!     clients ══ TCP ══▶ event loop ── numbers of requests ─▶ tiny_http ── recv() ──▶ workers ─┐
//!        ▲               (1 thread,    over a private         (queues)      (fixed pool,       │ handler
//!        │               holds every   Unix stream                          N threads)         │
//!        │               socket)                                                               │
//!        └───────────── the reply, written by the worker straight to the client ◀──────────────┘
//! ```
//!
//! The event loop is one thread. It enforces every limit and deadline, and reads requests until they
//! are whole, so idle and slow clients cost it a few hundred bytes, and never a thread. Admission lets a request wait
//! only if it should reach a worker within the queue budget. What was admitted is announced by its number through
//! `tiny_http`'s queue; the worker that pulls it runs the handler and writes the reply straight to the client's socket.
//! What the socket does not take at once is the event loop's to finish, so a slow reader never holds a worker. No byte that
//! a client chose reaches `tiny_http`.
//!
//! The health paths (`/health`, `/livez`, `/readyz`, `/metrics`, `/status`) and every refusal are answered by the
//! event loop itself, from memory: they work when all workers are stuck. `/status` is a page for people, with the last ten
//! minutes; `/status.json` has its numbers, see [`guide::monitors`].
//!
//! # The gate
//!
//! When the average *service time* (handler start to reply handed over) has reached the threshold, the gate opens like
//! a fuse: every request but those for health gets 503 with `Retry-After`. One thread sleeps the cooldown, then starts
//! the averages afresh; single requests then show whether the service is well again. [`GateMode`] chooses between this,
//! the plainer pattern it descends from, and none.
//!
//! # The nine patterns
//!
//! [`patterns`] are blocking types, each usable by itself; [`guide`] has a page for each, and for all else.
//!
//! # In the code
//!
//! `http` (heads, bodies, fields: no input or output) and `net` (names, sockets, the client) are used by all others; `server`
//! is the way of a request, `health` what it measures, `report` how that is told, `proxy` the sidecar made of `patterns`.
//! Each rule stands in one file:
//!
//! | rule | file |
//! |---|---|
//! | how a new reading moves the average | `src/health/ewma.rs` |
//! | when the gate opens, and when it closes | `src/health/gate.rs` |
//! | who starts the averages afresh | `src/health/reset.rs` |
//! | why the server is not healthy | `src/health/causes.rs` |
//! | who waits for a worker, who is refused, and when to come again | `src/server/event_loop/admission.rs` |
//! | how much of request bodies is held | `src/server/event_loop/bodies.rs` |
//! | who sees details | `src/server/event_loop/reports.rs` |
//! | how a server ends | `src/server/event_loop/drain.rs` |
//! | that a request is answered once | `src/server/exchange.rs` |
//! | what an option means, its default and its bounds | `src/settings/mod.rs` |
//! | what a request's head may hold | `src/http/head.rs` |
//! | which try is worth another | `src/proxy/tries.rs` |
//!
//! # Features
//!
//! All are on by default but `r2d2`, `redis` and `mimalloc`. A server alone, with its gate, its health and the patterns that need
//! nothing, takes `default-features = false` and at most 30 crates.
//!
//! | feature | what |
//! |---|---|
//! | `binary` | the program `plimsoll`, its options and its log |
//! | `cache` | [`patterns::Cache`] |
//! | `checks`, `mysql`, `postgres` | data stores that a URL names, see [`Store`]; any [`Check`] of your own needs none |
//! | `events` | [`patterns::EventQueue`] |
//! | `proxy` | [`proxy`], the handler that forwards |
//! | `status-page` | the page at `/status` and its history |
//! | `r2d2` | [`PoolCheck`], the check of an r2d2 pool |
//! | `redis` | what replicas share by a redis: `patterns::EventStream`, and `patterns::ThrottleStore`, a count of requests |
//! | `mimalloc` | an allocator for the static binary; needs a C compiler |
//!
//! What there is to say is said through the facade of the crate [`log`]: a program that installs no logger hears nothing.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "default"),
    allow(
        dead_code,
        reason = "a part that several features share is used in part by each"
    )
)]

mod calendar;
mod checks;
mod error;
pub mod guide;
mod health;
mod http;
#[cfg(any(test, feature = "internals"))]
#[doc(hidden)]
pub mod internals;
mod json;
mod lines;
mod metrics;
mod net;
mod panics;
pub mod patterns;
#[cfg(feature = "proxy")]
pub mod proxy;
mod random;
mod report;
mod server;
#[doc(hidden)]
pub mod settings;
mod text;
mod threads;
mod units;

#[cfg(feature = "r2d2")]
pub use checks::pool::PoolCheck;
#[cfg(any(feature = "checks", feature = "binary"))]
pub use checks::store::{Probe, Probed};
pub use checks::store::{Store, StoreUrlError, UrlPart};
pub use checks::{Check, CheckError, CheckReport, CheckSettings, CheckState, PoolStatus};
pub use error::Error;
pub use health::upstreams::{
    EndpointFault, EndpointReport, EndpointState, OtherEndpoints, UpstreamsReport,
};
pub use health::{Ewma, GateState, Health, Snapshot, Status, ThrottleReport, Totals};
pub use http::trust::Cidr;
#[cfg(feature = "binary")]
pub use lines::stderr::StderrLog;
pub use server::handle::Handle;
pub use server::handler::Handler;
pub use server::request::{Request, RequestBuilder};
pub use server::response::{IntoResponse, Response};
pub use server::{Builder, Server};
pub use settings::{
    AccessLogFormat, Config, ConfigError, Details, GateMode, OwnPaths, ThrottleBy, ThrottleRule,
    WatchedStore,
};
/// Its `Response` is one of those that a handler may return.
pub use tiny_http;
