//! What a service manager hears: that the server is ready, how it is, that it lives, and that it stops.
//!
//! ```text
//!     READY=1, STATUS=healthy        once it listens
//!     STATUS=unhealthy: resetting    when that changes
//!     WATCHDOG=1                     at half the watchdog's time, while it lives
//!     STOPPING=1, STATUS=draining    when the drain begins
//! ```
//!
//! The protocol is systemd's, see `sd_notify(3)`: one datagram for what there is to tell. A manager that doesn't take
//! a datagram holds nothing up: what it must know is told again at the next turn.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::health::causes::{Cause, causes};
use crate::health::{Health, Snapshot};
use crate::server::event_loop::wake::{Message, Sender};
use crate::text;

/// How often the status is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a datagram may wait for room in the manager's queue.
const SEND_TIMEOUT: Duration = Duration::from_millis(100);

/// The shortest time between two signs of life: a watchdog of microseconds is not to keep a core busy.
const MIN_BEAT: Duration = Duration::from_millis(1);

/// The longest status, in bytes: enough for a line to be read.
const MAX_STATUS: usize = 200;

/// The service manager that started this process, if one did and wants to hear from it.
#[derive(Debug)]
pub(crate) struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// The time within which a sign of life must come, if there is a watchdog for this process.
    watchdog: Option<Duration>,
    /// A failure has been logged.
    complained: bool,
}

impl Manager {
    /// The manager that the environment names. A name that can't be used is logged.
    pub(crate) fn from_env() -> Option<Self> {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        match Self::at(&name, watchdog(|name| std::env::var_os(name))) {
            Ok(manager) => Some(manager),
            Err(error) => {
                log::warn!(
                    "cannot notify the service manager at {}: {error}",
                    name.display()
                );
                None
            }
        }
    }

    fn at(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = address(name.as_bytes())?;
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Self {
            socket,
            address,
            watchdog,
            complained: false,
        })
    }

    /// Sends a message; false when the manager did not take it.
    fn tell(&mut self, message: &str) -> bool {
        let sent = loop {
            // Unconnected, so that a manager which starts anew at the same place is found again.
            let sent = self.socket.send_to_addr(message.as_bytes(), &self.address);
            if !matches!(&sent, Err(error) if error.kind() == ErrorKind::Interrupted) {
                break sent;
            }
        };
        if let Err(error) = &sent
            && !std::mem::replace(&mut self.complained, true)
        {
            log::warn!("the service manager can't be notified: {error}");
        }
        sent.is_ok()
    }

    /// Tells what there is to tell until a drain begins, or the event loop has ended; returns how long the drain is.
    pub(crate) fn watch(
        &mut self,
        drained: &Receiver<Duration>,
        ended: &Receiver<()>,
        event_loop: &Sender,
        health: &Health,
    ) -> Option<Duration> {
        // One ping is under way at a time, and this end outlives it: the channel never fills, and never closes.
        let (answer, answers) = crossbeam_channel::bounded(1);
        let mut watch = Watchdog::new(self.watchdog, Instant::now());
        loop {
            if watch.poll_ping(Instant::now()) {
                event_loop.send(Message::Ping(answer.clone()));
            }
            let now = Instant::now();
            if let Some(message) = watch.poll_message(&health.snapshot(), now) {
                let delivered = self.tell(&message);
                watch.handle_told(delivered);
            }
            crossbeam_channel::select! {
                recv(drained) -> drain => return drain.ok(),
                recv(ended) -> _ => return None,
                recv(answers) -> _ => watch.handle_answer(),
                default(watch.next_timeout().saturating_duration_since(now)) => {}
            }
        }
    }

    /// Tells that the server stops, and may take that long.
    pub(crate) fn stopping(&mut self, within: Duration) {
        // The manager only ever extends its own time by it.
        let micros = within.as_micros();
        self.tell(&format!(
            "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC={micros}\n"
        ));
    }
}

/// Where a manager's socket is: a path, or a name without a file after an `@`.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name {
        [b'/', ..] => SocketAddr::from_pathname(OsStr::from_bytes(name)),
        [b'@', name @ ..] => abstract_address(name),
        _ => Err(ErrorKind::Unsupported.into()),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    #[cfg(target_os = "android")]
    use std::os::android::net::SocketAddrExt;
    #[cfg(target_os = "linux")]
    use std::os::linux::net::SocketAddrExt;

    SocketAddr::from_abstract_name(name)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(ErrorKind::Unsupported.into())
}

/// The time within which the manager wants a sign of life, see `sd_watchdog_enabled(3)`.
fn watchdog(environment: impl Fn(&str) -> Option<OsString>) -> Option<Duration> {
    let number = |name| environment(name)?.to_str()?.parse::<u64>().ok();
    // The watchdog of a parent is not for its children to feed.
    if environment("WATCHDOG_PID").is_some()
        && number("WATCHDOG_PID") != Some(u64::from(std::process::id()))
    {
        return None;
    }
    let micros = number("WATCHDOG_USEC").filter(|&micros| micros > 0)?;
    Some(Duration::from_micros(micros))
}

/// What to tell and when: no I/O, and no clock of its own.
#[derive(Debug)]
struct Watchdog {
    /// From one sign of life to the next: half the watchdog's time.
    beat: Option<Duration>,
    /// When the event loop is to be asked next.
    next_ping: Instant,
    /// The event loop has been asked, and has not answered yet.
    asked: bool,
    /// The event loop has answered, and the manager has not been told.
    answered: bool,
    next_look: Instant,
    /// What the manager knows.
    told: Told,
    /// What it knows once it has taken the message that is being sent.
    telling: Told,
}

#[derive(Debug, Clone, Default)]
struct Told {
    ready: bool,
    status: String,
}

impl Watchdog {
    fn new(watchdog: Option<Duration>, now: Instant) -> Self {
        Self {
            beat: watchdog.map(|time| (time / 2).max(MIN_BEAT)),
            next_ping: now,
            asked: false,
            answered: false,
            next_look: now,
            told: Told::default(),
            telling: Told::default(),
        }
    }

    /// Whether to ask the event loop now if it answers. Never while a question is open, so that an event loop which is stuck
    /// finds one when it goes on, not hundreds.
    fn poll_ping(&mut self, now: Instant) -> bool {
        let Some(beat) = self.beat else { return false };
        if self.asked || now < self.next_ping {
            return false;
        }
        self.asked = true;
        self.next_ping = now + beat;
        true
    }

    /// Notes that the event loop has answered.
    fn handle_answer(&mut self) {
        self.asked = false;
        self.answered = true;
    }

    /// What to tell the manager now, if anything. [`handle_told`](Self::handle_told) is due then.
    fn poll_message(&mut self, snapshot: &Snapshot, now: Instant) -> Option<String> {
        let mut message = String::new();
        if now >= self.next_look {
            self.next_look = now + LOOK_EVERY;
            self.telling = Told {
                ready: true,
                status: status(snapshot),
            };
            if !self.told.ready {
                message.push_str("READY=1\n");
            }
            if self.told.status != self.telling.status {
                // Writing to a String does not fail.
                let _ = writeln!(message, "STATUS={}", self.telling.status);
            }
        }
        // Whether it lives, and nothing else: a restart brings no data store back.
        if std::mem::take(&mut self.answered) && snapshot.is_live() {
            message.push_str("WATCHDOG=1\n");
        }
        (!message.is_empty()).then_some(message)
    }

    /// Takes whether the manager has taken the last message; if not, its readiness and status are told again.
    fn handle_told(&mut self, delivered: bool) {
        if delivered {
            self.told = self.telling.clone();
        } else {
            self.telling = self.told.clone();
        }
    }

    /// When to poll again.
    fn next_timeout(&self) -> Instant {
        match self.beat {
            Some(_) if !self.asked => self.next_look.min(self.next_ping),
            _ => self.next_look,
        }
    }
}

/// The state of the server in a line: a word, and what is behind it.
fn status(now: &Snapshot) -> String {
    let causes = causes(now);
    let word = if now.draining {
        "draining"
    } else if !now.is_ready() {
        "unhealthy"
    } else if causes.is_empty() {
        "healthy"
    } else {
        "warning"
    };
    // Stopping is in the word.
    let behind = causes.into_iter();
    let behind = behind.filter(|cause| !matches!(cause, Cause::Stopping));
    let mut line = word.to_owned();
    for (number, cause) in behind.enumerate() {
        line.push_str(if number == 0 { ": " } else { ", " });
        line.push_str(&cause.words(now));
    }
    // A line break would end the status, and the rest be taken for something else.
    line.retain(|letter| !letter.is_control());
    line.truncate(text::beginning(&line, MAX_STATUS).len());
    line
}

#[cfg(test)]
mod tests;
