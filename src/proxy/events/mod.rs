//! Event processing: a POST below a path is kept, answered 202, and delivered when the service is there.
//!
//! ```text
//! POST ─▶ accept: on disk ─▶ 202 {"id":"..."}        queue ─▶ deliver: balancer, breaker, client ─▶ the service
//! ```

mod config;
mod delivery;
mod kept;

use std::sync::Arc;
use std::time::Duration;

pub use config::{EventsAt, EventsConfig, EventsPlace, table};
use delivery::Deliverer;
use kept::Kept;

use super::headers::{self, Decision, Received};
use super::{ProxyConfig, Upstreams};
use crate::http::trust::Trust;
use crate::patterns::{Event, EventError, EventId, EventSettings};
use crate::server::aside::Aside;
use crate::{Builder, Config, Error, Handler, Request, Response};

/// How long a producer is asked to wait until it tries again.
const LATER: Duration = Duration::from_secs(10);

/// Bytes of a segment, and of an event's record, that are not the producer's, rounded up.
const OVERHEAD: usize = 16 * 1024;

/// The queue, and what answers producers.
pub(super) struct Events {
    queue: Kept,
    prefix: String,
    trust: Trust,
}

impl Events {
    /// Opens the queue and begins to deliver.
    pub(super) fn start(
        config: &EventsConfig,
        at: &EventsAt,
        server: &Config,
        proxy: &ProxyConfig,
        upstreams: &Arc<Upstreams>,
    ) -> Result<Self, Error> {
        config.validate()?;
        let largest = server.max_body.saturating_add(server.max_head);
        let settings = EventSettings {
            max_bytes: config.events_max as u64,
            max_event: largest.min((config.events_max / 8).saturating_sub(OVERHEAD)),
            parallel: config.events_parallel,
            delays: config.events_retry.clone(),
            patience: server.request_timeout,
            // An attempt takes as long as a request at most.
            takeover: 2 * server.request_timeout,
        };
        let queue = Kept::open(&at.place, settings).map_err(|source| Error::Events {
            place: at.place.to_string(),
            source,
        })?;
        let deliverer = Deliverer::new(proxy.clone(), upstreams.clone(), server.request_timeout);
        queue
            .deliver(move |delivery| deliverer.deliver(delivery))
            .map_err(|source| Error::System {
                what: "the threads that deliver events",
                source,
            })?;
        Ok(Self {
            queue,
            prefix: at.prefix.clone(),
            trust: Trust::new(server.trust.clone()),
        })
    }

    fn accept(&self, request: &Request) -> Result<EventId, EventError> {
        let peer = request.peer().ip();
        let fields = request.headers_bytes();
        let outcome = headers::forward(&Received {
            method: request.method(),
            version: request.version(),
            // These are said anew with each attempt.
            fields: fields.filter(|(name, _)| !delivery::is_own(name)),
            body_len: request.body_len(),
            peer,
            trusted: self.trust.includes(peer),
            id: request.id(),
            host: None,
        });
        let Decision::Forward(forwarded) = outcome else {
            unreachable!("only TRACE and OPTIONS have a Max-Forwards that counts");
        };
        let text = |name| request.header(name).map(str::to_owned);
        let idempotency_key = request.header("idempotency-key").map(unquoted);
        self.queue.publish(&Event {
            topic: request.url().to_owned(),
            key: text("event-key"),
            idempotency_key: idempotency_key
                .filter(|key| !key.is_empty())
                .map(str::to_owned),
            attributes: forwarded.into_fields(),
            body: request.bytes().to_vec(),
        })
    }
}

/// Has a server hand events over, and tell of them in its reports.
pub(super) fn on(events: &Arc<Events>, builder: Builder) -> Builder {
    let aside = Aside {
        option: "events",
        method: "POST",
        prefix: events.prefix.clone(),
        handler: events.clone(),
    };
    // Who keeps the server's health must not keep the queue open.
    let told = Arc::downgrade(events);
    let stats = move || told.upgrade().map(|events| events.queue.stats());
    builder.events(aside, Arc::new(move || stats().unwrap_or_default()))
}

impl Handler for Events {
    fn handle(&self, request: &mut Request) -> Response {
        match self.accept(request) {
            Ok(id) => Response::text(202, format!("{{\"id\":\"{id}\"}}\n"))
                .with_header("Content-Type", "application/json"),
            Err(error) => refusal(&error),
        }
    }
}

/// What a producer is told whose event was not taken.
fn refusal(error: &EventError) -> Response {
    let status = match error {
        EventError::Full => 507,
        EventError::TooLarge { .. } => 413,
        EventError::KeyReused => 422,
        _ => 503,
    };
    if status == 503 {
        log::warn!("an event was not taken: {error}");
    }
    let text = match error {
        EventError::TooLarge { limit } => {
            format!("The event is larger than {limit} bytes (--max-body, --events-max).\n")
        }
        EventError::KeyReused => {
            "This Idempotency-Key was given to another body before.\n".to_owned()
        }
        EventError::Full => "There is no room for more events (--events-max).\n".to_owned(),
        // What the disk says is not for producers.
        _ => "The event could not be kept.\n".to_owned(),
    };
    let response = Response::text(status, text);
    if matches!(status, 503 | 507) {
        response.with_header("Retry-After", LATER.as_secs().to_string())
    } else {
        response
    }
}

/// A key without its quotes, which not every producer sends.
fn unquoted(key: &str) -> &str {
    let key = key.trim();
    let inner = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
    inner.unwrap_or(key)
}
