//! Event processing: what is accepted is kept, and delivered when the consumer is there.
//!
//! For a small host whose service is down, restarted or slow while events come. Not for many hosts: a queue is one
//! directory, and one process has it open.
//!
//! ```text
//!     publish ─▶ batch ─▶ writer: one write, one sync ─▶ accepted ─▶ schedule ─▶ deliver ─▶ delivered
//!                                                                      ▲            │
//!                                                 1 s, 5 s, ... 12 h   └─ failed ───┤
//!                                                                                   └─▶ dead letter ─▶ replay, purge
//! ```
//!
//! - An event is durable when [`publish`](EventQueue::publish) returns, and is delivered at least once. The consumer can
//!   tell by its id what it has seen.
//! - Events with the same key are delivered one at a time and in order, others side by side.
//! - A failed attempt is repeated by a schedule. After the last one, or at once where it will never work, the event is a
//!   dead letter: kept until somebody replays or purges it. The next event of its key then goes.
//! - All files together stay below a limit. Beyond it events are refused, and none that was accepted is lost.
//! - After a crash at any moment, or damage anywhere, every event that the damage did not hit is delivered.
//!
//! Bodies are on disk only; the memory for an event that waits is about 100 bytes.
//!
//! # Example
//!
//! ```
//! use std::sync::mpsc;
//! use plimsoll::patterns::{Event, EventQueue, EventSettings, Outcome};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = std::env::temp_dir().join(format!("plimsoll-doc-events-{}", std::process::id()));
//! let queue = EventQueue::open(&directory, EventSettings::default())?;
//! let event = Event {
//!     topic: "/orders".to_owned(),
//!     key: Some("customer 7".to_owned()),
//!     body: b"two of them".to_vec(),
//!     ..Event::default()
//! };
//! let id = queue.publish(&event)?; // it is on disk now
//!
//! let (sender, receiver) = mpsc::channel();
//! queue.deliver(move |delivery| match sender.send(delivery.clone()) {
//!     Ok(()) => Outcome::Delivered,
//!     Err(_) => Outcome::Unreachable,
//! })?;
//! let delivery = receiver.recv()?;
//! assert_eq!((delivery.id, delivery.attempt), (id, 1));
//! assert_eq!(delivery.event, event);
//! # drop(queue);
//! # std::fs::remove_dir_all(directory)?;
//! # Ok(())
//! # }
//! ```

mod compact;
mod control;
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
mod queue;
mod reader;
mod record;
mod recover;
mod schedule;
mod segment;
mod settings;
mod space;
mod writer;

pub use error::{EventDamage, EventDamageKind, EventError, EventOpenError};
pub use event::{DeadLetter, Delivery, Event, EventId, EventIdError, Outcome};
pub use letters::DeadLetters;
pub use queue::{EventQueue, EventStats};
pub use settings::EventSettings;

#[cfg(test)]
mod tests;
