//! The queue, wherever it is.

use std::io;

use super::config::EventsPlace;
#[cfg(feature = "redis")]
use crate::patterns::EventStream;
use crate::patterns::{
    Delivery, Event, EventError, EventId, EventOpenError, EventQueue, EventSettings, EventStats,
    Outcome,
};

/// A queue in a directory, or in a stream of redis.
pub(super) enum Kept {
    Directory(EventQueue),
    #[cfg(feature = "redis")]
    Stream(EventStream),
}

impl Kept {
    pub(super) fn open(
        place: &EventsPlace,
        settings: EventSettings,
    ) -> Result<Self, EventOpenError> {
        match place {
            EventsPlace::Directory(path) => EventQueue::open(path, settings).map(Self::Directory),
            #[cfg(feature = "redis")]
            EventsPlace::Stream(url) => EventStream::open(url, settings).map(Self::Stream),
        }
    }

    pub(super) fn publish(&self, event: &Event) -> Result<EventId, EventError> {
        match self {
            Self::Directory(queue) => queue.publish(event),
            #[cfg(feature = "redis")]
            Self::Stream(stream) => stream.publish(event),
        }
    }

    pub(super) fn deliver(
        &self,
        deliver: impl Fn(&Delivery) -> Outcome + Send + Sync + 'static,
    ) -> io::Result<()> {
        match self {
            Self::Directory(queue) => queue.deliver(deliver),
            #[cfg(feature = "redis")]
            Self::Stream(stream) => stream.deliver(deliver),
        }
    }

    pub(super) fn stats(&self) -> EventStats {
        match self {
            Self::Directory(queue) => queue.stats(),
            #[cfg(feature = "redis")]
            Self::Stream(stream) => stream.stats(),
        }
    }
}
