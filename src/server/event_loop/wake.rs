//! How other threads reach the event loop: a channel, and a wake-up that is skipped when it is awake anyway.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use crossbeam_channel::Receiver;
use mio::Waker;

use super::intake::Carrier;
use crate::server::done::Done;
use crate::server::exchange::ClientKey;

/// What other threads tell the event loop.
pub(crate) enum Message {
    /// A worker is done with an exchange.
    Done(Done),
    /// What a client's request waits for may have happened.
    Wake(ClientKey),
    /// tiny_http's server takes up nothing more.
    CarrierFailed {
        carrier: Arc<Carrier>,
        error: io::Error,
    },
    /// Answer, to show that the event loop turns.
    Ping(crossbeam_channel::Sender<()>),
    /// Drain, and end at `until`, or soon after; serve what comes, or only finish what is in flight.
    Drain { until: Instant, serves: bool },
    /// Break the stream as a fault would.
    #[cfg(test)]
    BreakStream,
    /// End the event loop as a fault would.
    #[cfg(test)]
    Panic,
}

/// The other threads' end. The channel needs no bound of its own: a worker has one exchange at a time, each client one
/// request that may wait and be woken, and the watch of a service manager one ping.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    channel: crossbeam_channel::Sender<Message>,
    shared: Arc<WakeState>,
}

#[derive(Debug)]
struct WakeState {
    waker: Waker,
    /// Whether the event loop waits, or is about to, without having seen the channel empty since.
    sleeping: AtomicBool,
    /// Whether requests wait for a worker, or anything else does that the end of any exchange sets going.
    backlog: AtomicBool,
    started: Instant,
    /// When the event loop wakes at the latest: nanoseconds since the start.
    until: AtomicU64,
}

impl WakeState {
    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.started).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

impl Sender {
    /// Tells the event loop, at once.
    pub(crate) fn send(&self, message: Message) {
        self.push(message);
        self.wake();
    }

    /// Tells the event loop that an exchange is done; at once only if something hangs on that.
    ///
    /// When the reply is out and the connection is kept, what comes next is the client's next request. That wakes the
    /// event loop by itself, and messages are read first then: so most exchanges cost it one wake-up, not two.
    pub(crate) fn send_done(&self, done: Done) {
        let awaits_next = done.awaits_next_request();
        let due = done.due().map(|due| self.shared.nanos(due));
        let exchange = done.exchange.clone();
        let awaited = || exchange.is_none_or(|exchange| exchange.wakes_at_end());
        self.push(Message::Done(done));
        // Sequentially consistent with the event loop, which marks what it waits for before it looks at the channel for
        // the last time: either that look sees the message, or the mark is seen here.
        let hangs_on_it = match due {
            // What a request waits for wakes the event loop. Nothing is set going before, but its time may come sooner.
            Some(due) => due < self.shared.until.load(SeqCst),
            None => !awaits_next || self.shared.backlog.load(SeqCst),
        };
        if hangs_on_it || awaited() {
            self.wake();
        }
    }

    fn push(&self, message: Message) {
        // Once the event loop has ended there is nobody to tell, and nothing left to do.
        drop(self.channel.send(message));
    }

    fn wake(&self) {
        if self.shared.sleeping.swap(false, SeqCst)
            && let Err(error) = self.shared.waker.wake()
        {
            log::error!("cannot wake the event loop: {error}");
        }
    }
}

/// The event loop's end.
#[derive(Debug)]
pub(crate) struct Inbox {
    channel: Receiver<Message>,
    shared: Arc<WakeState>,
}

/// Makes both ends.
pub(crate) fn channel(waker: Waker) -> (Sender, Inbox) {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let shared = Arc::new(WakeState {
        waker,
        sleeping: AtomicBool::new(false),
        backlog: AtomicBool::new(false),
        started: Instant::now(),
        until: AtomicU64::new(0),
    });
    let sender = Sender {
        channel: sender,
        shared: shared.clone(),
    };
    let inbox = Inbox {
        channel: receiver,
        shared,
    };
    (sender, inbox)
}

impl Inbox {
    /// Announces that the event loop will wait until then, and whether the end of any exchange is worth a wake-up. False
    /// when a message is there already: then it must not wait.
    pub(crate) fn may_sleep(&self, backlog: bool, until: Option<Instant>) -> bool {
        self.shared.backlog.store(backlog, SeqCst);
        let until = until.map_or(u64::MAX, |until| self.shared.nanos(until));
        self.shared.until.store(until, SeqCst);
        self.shared.sleeping.store(true, SeqCst);
        // A sender that came before the store is seen here; one that comes after it sees the store.
        let empty = self.channel.is_empty();
        if !empty {
            self.awake();
        }
        empty
    }

    /// Announces that the event loop is awake: no wake-up is needed.
    pub(crate) fn awake(&self) {
        self.shared.sleeping.store(false, SeqCst);
    }

    /// Whether there is no message.
    pub(crate) fn is_empty(&self) -> bool {
        self.channel.is_empty()
    }

    /// The next message, if any.
    pub(crate) fn next(&self) -> Option<Message> {
        self.channel.try_recv().ok()
    }
}
