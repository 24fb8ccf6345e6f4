//! Patterns for programs that call other services: blocking types, each usable by itself.
//!
//! There is no HTTP in them, but for the cache: they work with any blocking client and any error type. Their decisions
//! take the time as an argument, so they can be tested without a sleep; the convenience methods read the clock once.
//!
//! | pattern | type | it is for | it is not for |
//! |---|---|---|---|
//! | timeout | [`Deadline`] | everything that waits: one point in time for all steps of a request | work that cannot be stopped: it only bounds waits |
//! | back off | [`Retry`] | short faults of what may be done twice | what may not be done twice; overload, which more tries make worse (hence the budget) |
//! | circuit breaking | [`CircuitBreaker`] | a service that is down or hangs: its callers answer at once instead of waiting | one bad request among good ones; calls within the process |
//! | load balancing | [`Balancer`] | several endpoints that do the same | state that only one of them has, unless a [key](Ask::key) leads to it |
//! | service discovery | [`Discovery`] | endpoints that change while the program runs: names, SRV records, a file | a list that never changes |
//! | throttling | [`Throttle`] | a limit for each client, so that one does not take all | overload by many: that is what admission is for |
//! | caching | `Cache` (feature `cache`) | replies that many ask for and that may be a little old | replies that differ for each client without saying so in `Vary` |
//! | event processing | `EventQueue` (feature `events`) | what must arrive although its consumer is down: it is kept on disk, and delivered at least once | questions that wait for an answer; more hosts than one, for which there is `EventStream` (feature `redis`) |
//!
//! Each has a page in [the guide](crate::guide): the question that it answers, a picture, what goes wrong without it, and what
//! it costs.
//!
//! # Which setting
//!
//! - **Deadline**: what the client still waits for; in a handler that is [`Request::remaining`](crate::Request::remaining).
//!   A timeout for a single step only where a quick failure is worth more than a late success, as for connecting:
//!   [`within`](Deadline::within).
//! - **Retry**: 2 retries are enough, since what fails three times in a row mostly fails a fourth time. One `Retry` for
//!   calls of one kind, because it learns how long they usually take; one [`RetryBudget`] for all that call one
//!   service. Retry at one level only: two levels with 2 retries each make 9 tries out of one.
//! - **CircuitBreaker**: one for each endpoint. [`only`](BreakerBuilder::only) where there is nothing else to call. Fewer
//!   [failures](BreakerBuilder::failures) than 5 open it on an accident, many more let a hanging service hold that many
//!   threads for the length of a deadline.
//! - **Balancer**: [`Latency`](Balance::Latency), unless requests for one thing should meet at one endpoint
//!   ([`Hash`](Balance::Hash)) or endpoints are known to be equal and cheap to count ([`RoundRobin`](Balance::RoundRobin)).
//!   [`max`](Endpoint::max) where an endpoint can do just so many at once.
//! - **EventQueue**: `max_bytes` for the longest outage: about half of it may be events that wait. `delays` as long as
//!   somebody needs to repair the consumer: by default an event is a dead letter after a day.
//!
//! # How they compose
//!
//! From the outside to the inside: one deadline, the retry, the balancer, the endpoint's breaker, the call. Each try
//! asks the balancer anew and leaves out what it tried before, so it goes elsewhere, without a pause. The balancer asks
//! the breakers. That a breaker is open is an error that is not worth another try: nothing would have changed.
//!
//! A handler that calls a payment service:
//!
//! ```
//! use plimsoll::patterns::{BreakerError, CircuitBreaker, Deadline, Failed, Retry};
//! use plimsoll::{Handler, IntoResponse, Request, Response};
//! # use std::io;
//! # /// Stands for any blocking client.
//! # fn pay(_key: Option<&str>, _deadline: Deadline) -> io::Result<String> {
//! #     Ok("paid\n".into())
//! # }
//!
//! struct Checkout {
//!     retry: Retry,
//!     payments: CircuitBreaker,
//! }
//!
//! impl Handler for Checkout {
//!     fn handle(&self, request: &mut Request) -> Response {
//!         let deadline = Deadline::after(request.remaining());
//!         let key = request.header("Idempotency-Key"); // without it nobody may pay twice
//!         let paid = self.retry.call(deadline, |_attempt| {
//!             let result = self.payments.call(|| pay(key, deadline));
//!             result.map_err(|error| Failed::again_if(key.is_some() && !error.is_open(), error))
//!         });
//!         match paid {
//!             Ok(receipt) => receipt.into_response(),
//!             Err(BreakerError::Open(_)) => (503, "payments are down\n").into_response(),
//!             Err(BreakerError::Failed(error)) => (502, error.to_string()).into_response(),
//!         }
//!     }
//! }
//! # let _ = Checkout { retry: Retry::new(), payments: CircuitBreaker::builder("payments").only().build() };
//! ```
//!
//! The same with several endpoints:
//!
//! ```
//! use plimsoll::patterns::{Ask, Balancer, Deadline, Failed, Retry};
//! use std::io::{self, ErrorKind};
//! # fn quote(_address: &str, _deadline: Deadline) -> io::Result<String> {
//! #     Ok("17.20\n".into())
//! # }
//!
//! /// Asks for a price, of endpoints whose data is their address.
//! fn price(retry: &Retry, balancer: &Balancer<String>, deadline: Deadline) -> io::Result<String> {
//!     let mut tried = Vec::new();
//!     retry.call(deadline, |_attempt| {
//!         let ask = Ask::by(deadline).avoid(&tried);
//!         let unavailable = |error| Failed::for_good(io::Error::new(ErrorKind::NotConnected, error));
//!         let mut pick = balancer.pick(ask).map_err(unavailable)?;
//!         tried.push(pick.name().clone());
//!         match quote(pick.data(), deadline) {
//!             Ok(price) => {
//!                 pick.success();
//!                 Ok(price)
//!             }
//!             Err(error) => {
//!                 pick.failure();
//!                 let another = balancer.has_another(&tried);
//!                 Err(if another { Failed::again_at_once(error) } else { Failed::again(error) })
//!             }
//!         }
//!     })
//! }
//! # use plimsoll::patterns::{Balance, Endpoint};
//! # let balancer = Balancer::new(Balance::Latency);
//! # balancer.replace([Endpoint::new("a", "10.0.0.1:80".to_owned())]).unwrap();
//! # let deadline = Deadline::after(std::time::Duration::from_secs(1));
//! # assert_eq!(price(&Retry::new(), &balancer, deadline).unwrap(), "17.20\n");
//! ```

mod balance;
mod breaker;
#[cfg(feature = "cache")]
mod cache;
mod chance;
mod deadline;
mod discovery;
#[cfg(feature = "events")]
pub(crate) mod events;
mod retry;
mod throttle;
mod window;

/// Most endpoints that are found and chosen from.
const MOST_ENDPOINTS: usize = 256;

#[cfg(feature = "redis")]
pub use crate::net::redis::RedisUrl;
pub use crate::net::stream::{Address, DeadlineStream};
pub use balance::{
    Ask, Balance, Balancer, Endpoint, EndpointStatus, Pick, TooManyEndpoints, Unavailable,
};
pub use breaker::{
    BreakerBuilder, BreakerError, BreakerOpen, BreakerState, BreakerStatus, CircuitBreaker, Permit,
};
#[cfg(feature = "cache")]
pub use cache::{
    Cache, CacheRequest, CacheResult, CacheStats, CacheTime, CachedBody, CachedReply, Fetch,
    Fetched, Fields, Filling, Lookup, Notice, PlainGet, Wait,
};
pub(crate) use deadline::less_margin;
pub use deadline::{Deadline, DeadlineExceeded};
pub use discovery::{Discovered, Discovery, SourceError, SourceStatus};
#[cfg(feature = "events")]
pub use events::{
    DeadLetter, DeadLetters, Delivery, Event, EventDamage, EventDamageKind, EventError, EventId,
    EventIdError, EventOpenError, EventQueue, EventSettings, EventStats, Outcome,
};
#[cfg(all(feature = "events", feature = "redis"))]
pub use events::{EventStream, EventStreamUrl};
pub use retry::{Attempts, Backoff, Clock, Failed, Retry, RetryBudget};
pub use throttle::{Quota, Rate, RateError, Throttle, ThrottleKey, Throttled};
#[cfg(feature = "redis")]
pub use throttle::{SharedCheck, SharedLimit, ThrottleStore, ThrottleStoreStatus};
