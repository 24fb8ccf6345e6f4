//! Waiting for what comes next: for readiness of a socket, for a message of another thread, or for the time.

use std::io;
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use mio::{Events, Interest, Poll, Registry, Token};

use super::intake::Register;
use super::listeners::Listener;
use super::wake::{Inbox, Message};
use crate::server::busy_poll::BusyPoll;

/// Readiness tokens: clients have their slot's number, the others count down from the top.
pub(crate) const WAKER: Token = Token(usize::MAX);
pub(super) const STREAM: Token = Token(usize::MAX - 1);
const LISTENER: usize = usize::MAX - 2;

/// Events come often when a wait for the next was no longer than this.
const OFTEN: Duration = Duration::from_micros(100);

/// The token of a listener's sockets: one for them all, since each is asked when any is ready.
pub(super) fn listener_token(listener: Listener) -> Token {
    Token(LISTENER - listener as usize)
}

/// The listener whose sockets have that token.
pub(super) fn listener_of(token: Token) -> Option<Listener> {
    let place = LISTENER.checked_sub(token.0)?;
    Listener::ALL.get(place).copied()
}

/// The sources of events, and how often they have come.
pub(super) struct Poller {
    poll: Poll,
    inbox: Inbox,
    /// The last wait was short: the next event is expected in a moment.
    often: bool,
}

impl Poller {
    pub(super) fn new(poll: Poll, inbox: Inbox) -> Self {
        Self {
            poll,
            inbox,
            often: false,
        }
    }

    /// Where sockets are registered.
    pub(super) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Polls for some microseconds without blocking, while events come often; `None` when none has come, and no message.
    pub(super) fn busy_poll(
        &mut self,
        events: &mut Events,
        busy_poll: &BusyPoll,
    ) -> Option<io::Result<()>> {
        if !self.often {
            return None;
        }
        busy_poll.poll(|| match self.poll.poll(events, Some(Duration::ZERO)) {
            Ok(()) if events.is_empty() && self.inbox.is_empty() => None,
            polled => Some(polled),
        })
    }

    /// Announces that this thread will block until `due`, see [`Inbox::may_sleep`].
    pub(super) fn may_block(&self, backlog: bool, due: Option<Instant>) -> bool {
        self.inbox.may_sleep(backlog, due)
    }

    /// Blocks until something is ready, a message comes, or `due`; without it, until one of the others.
    pub(super) fn block(&mut self, events: &mut Events, due: Option<Instant>) -> io::Result<()> {
        let timeout = due.map(|due| {
            // The system counts whole milliseconds; less than one would be none, and a busy loop.
            match due.saturating_duration_since(Instant::now()) {
                Duration::ZERO => Duration::ZERO,
                wait => wait.max(Duration::from_millis(1)),
            }
        });
        self.poll.poll(events, timeout)
    }

    /// Takes what is ready without blocking.
    pub(super) fn poll_once(&mut self, events: &mut Events) -> io::Result<()> {
        self.poll.poll(events, Some(Duration::ZERO))
    }

    /// Notes that a wait is over that began then.
    pub(super) fn waited(&mut self, began: Instant, now: Instant) {
        self.often = now.saturating_duration_since(began) <= OFTEN;
    }

    /// Announces that this thread is awake, see [`Inbox::awake`].
    pub(super) fn awake(&self) {
        self.inbox.awake();
    }

    /// The next message of another thread, if any.
    pub(super) fn message(&self) -> Option<Message> {
        self.inbox.next()
    }

    /// Ends: gives what may still come from other threads.
    pub(super) fn into_inbox(self) -> Inbox {
        self.inbox
    }
}

/// Registers the intake's stream with the event loop.
pub(super) struct Registrar<'a>(pub(super) &'a Registry);

impl Register for Registrar<'_> {
    fn register(&mut self, socket: &mut UnixStream) -> io::Result<()> {
        self.0.register(socket, STREAM, Interest::READABLE)
    }

    fn watch_room(&mut self, socket: &mut UnixStream, on: bool) -> io::Result<()> {
        let room = on.then_some(Interest::WRITABLE);
        let interest = room.map_or(Interest::READABLE, |room| Interest::READABLE | room);
        self.0.reregister(socket, STREAM, interest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::event_loop::wake;
    use mio::Waker;

    fn poller() -> (Poller, wake::Sender) {
        let poll = Poll::new().expect("an event queue");
        let waker = Waker::new(poll.registry(), WAKER).expect("a waker");
        let (sender, inbox) = wake::channel(waker);
        (Poller::new(poll, inbox), sender)
    }

    #[test]
    fn each_listener_has_a_token_of_its_own() {
        for listener in Listener::ALL {
            assert_eq!(listener_of(listener_token(listener)), Some(listener));
        }
        for token in [
            Token(0),
            STREAM,
            WAKER,
            Token(LISTENER - Listener::ALL.len()),
        ] {
            assert_eq!(listener_of(token), None, "{token:?}");
        }
    }

    #[test]
    fn a_message_that_is_there_already_keeps_it_from_blocking() {
        let (poller, sender) = poller();
        assert!(poller.may_block(false, None));
        poller.awake();
        let (answer, _answered) = crossbeam_channel::bounded(1);
        sender.send(Message::Ping(answer));
        assert!(!poller.may_block(false, None));
        assert!(poller.message().is_some() && poller.message().is_none());
    }

    #[test]
    fn a_message_ends_a_wait_without_a_time() {
        let (mut poller, sender) = poller();
        let mut events = Events::with_capacity(4);
        assert!(poller.may_block(false, None));
        let (answer, _answered) = crossbeam_channel::bounded(1);
        sender.send(Message::Ping(answer));
        poller.block(&mut events, None).expect("it is woken");
        assert!(events.iter().any(|event| event.token() == WAKER));
    }

    #[test]
    fn it_polls_busily_only_after_a_short_wait() {
        let (mut poller, sender) = poller();
        let (mut events, busy_poll) = (Events::with_capacity(4), BusyPoll::new());
        let now = Instant::now();
        let (answer, _answered) = crossbeam_channel::bounded(1);
        sender.send(Message::Ping(answer));
        assert!(poller.busy_poll(&mut events, &busy_poll).is_none());
        poller.waited(now, now + OFTEN);
        assert!(poller.busy_poll(&mut events, &busy_poll).is_some());
        poller.waited(now, now + 2 * OFTEN);
        assert!(poller.busy_poll(&mut events, &busy_poll).is_none());
    }
}
