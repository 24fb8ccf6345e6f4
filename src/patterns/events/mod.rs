//! Event processing: what is accepted is kept, and delivered when the consumer is there. See [`EventQueue`] and, with
//! the feature `redis`, `EventStream`.

mod commit;
mod compact;
mod control;
mod copying;
mod dead;
mod deliver;
mod error;
mod event;
mod files;
#[cfg(any(test, feature = "internals"))]
pub(crate) mod invariants;
mod keys;
mod letters;
mod live;
mod log;
mod metrics;
mod queue;
mod reader;
mod record;
mod recover;
mod schedule;
mod segment;
mod settings;
mod shared;
mod space;
#[cfg(feature = "redis")]
mod stream;
mod supply;
mod writer;

pub use error::{EventDamage, EventDamageKind, EventError, EventOpenError};
pub use event::{DeadLetter, Delivery, Event, EventId, EventIdError, Outcome};
pub use letters::DeadLetters;
#[cfg(feature = "proxy")]
pub(crate) use letters::is_url;
pub use queue::{EventQueue, EventStats};
pub use settings::EventSettings;
#[cfg(feature = "redis")]
pub use stream::{EventStream, EventStreamUrl};

#[cfg(test)]
mod tests;
