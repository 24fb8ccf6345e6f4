//! An event, its id, and how the two stand in a record.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::record::{sequence_at, u32_at, u64_at};
use crate::panics::catch;
use crate::text::beginning;

/// What is to be delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Where it goes, or what it is about: the sidecar has the path here.
    pub topic: String,
    /// Events with the same key are delivered one at a time, in the order in which they were published.
    pub key: Option<String>,
    /// What the producer calls this event when it publishes it again. The same topic, key and body are then the same
    /// event, and the same topic and key with another body are refused.
    pub idempotency_key: Option<String>,
    /// What else the consumer is to know, in a format of the caller's.
    pub attributes: Vec<u8>,
    /// The event itself.
    pub body: Vec<u8>,
}

/// What an event is called: random, so that nobody can guess another's. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub(crate) [u8; 16]);

impl EventId {
    pub(crate) fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no id: expected 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventIdError;

impl fmt::Display for EventIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected 32 hexadecimal digits")
    }
}

impl std::error::Error for EventIdError {}

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A sign would be taken for a digit otherwise.
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(EventIdError);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| EventIdError)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// An event on its way to the consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What it is called: the same at every attempt, so that the consumer can tell what it has seen.
    pub id: EventId,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// When it was accepted.
    pub accepted: SystemTime,
    /// What is to be delivered. The idempotency key is not kept.
    pub event: Event,
}

/// What came of an attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The consumer has it.
    Delivered,
    /// It may work later: the next attempt is due by the schedule, and not before `retry_after`. After the last attempt
    /// the event is a dead letter.
    Failed {
        /// What went wrong, for people: kept with a dead letter.
        reason: String,
        /// How long the consumer asks to wait.
        retry_after: Option<Duration>,
    },
    /// It will never work: the event is a dead letter at once.
    Rejected {
        /// What went wrong, for people: kept with the dead letter.
        reason: String,
    },
    /// The consumer could not be reached. That is not an attempt. One event is tried after a second, then after two,
    /// and so on up to 15 seconds, until the consumer is there again; then all that are due.
    Unreachable,
}

impl Outcome {
    /// That of one attempt. A panic is a failure.
    pub(crate) fn of(deliver: &dyn Fn(&Delivery) -> Self, delivery: &Delivery) -> Self {
        catch(|| deliver(delivery)).unwrap_or_else(|_| Self::Failed {
            reason: "the delivery panicked".to_owned(),
            retry_after: None,
        })
    }
}

/// An event that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// What it is called.
    pub id: EventId,
    /// When it was accepted.
    pub accepted: SystemTime,
    /// When it was given up.
    pub died: SystemTime,
    /// How often its delivery was tried.
    pub attempts: u32,
    /// What went wrong at the last attempt.
    pub reason: String,
    /// What was to be delivered.
    pub event: Event,
}

/// What the same event from the same producer has in common, in 128 bits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// Of topic and idempotency key.
    pub(crate) scope: [u8; 16],
    /// Of the body.
    pub(crate) body: [u8; 16],
}

impl Fingerprint {
    /// That of an event with an idempotency key.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        let key = event.idempotency_key.as_ref()?;
        let mut scope = Sha256::new();
        scope.update((event.topic.len() as u64).to_le_bytes());
        scope.update(&event.topic);
        scope.update(key);
        Some(Self {
            scope: half(&scope.finalize()),
            body: half(&Sha256::digest(&event.body)),
        })
    }
}

fn half(hash: &[u8]) -> [u8; 16] {
    hash[..16].try_into().expect("SHA-256 has 32 bytes")
}

/// Why and when a letter died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    /// Milliseconds since 1970.
    pub(crate) at: u64,
    /// The number that the event had in the log of live events.
    pub(crate) sequence: u64,
    pub(crate) attempts: u32,
    pub(crate) reason: String,
}

/// An event as it stands in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) id: EventId,
    /// When it was accepted, in milliseconds since 1970.
    pub(crate) accepted: u64,
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) death: Option<Death>,
    /// Without the idempotency key.
    pub(crate) event: Event,
}

/// The flags of a stored event.
const KEY: u8 = 1;
const FINGERPRINT: u8 = 2;
const DEATH: u8 = 4;

/// Bytes of the longest reason that is kept.
const LONGEST_REASON: usize = 1024;

/// Bytes of a record's body that are not the caller's.
pub(crate) const OVERHEAD: usize = 16 + 8 + 1 + 3 * 4 + 32 + (8 + 8 + 4 + 4 + LONGEST_REASON);

impl Stored {
    /// The body of a record.
    pub(crate) fn encode(
        id: EventId,
        accepted: u64,
        fingerprint: Option<&Fingerprint>,
        death: Option<&Death>,
        event: &Event,
    ) -> Vec<u8> {
        let key = event.key.as_deref().unwrap_or_default();
        let payload = event.topic.len() + key.len() + event.attributes.len() + event.body.len();
        let extra = death.map_or(0, |death| 24 + death.reason.len());
        let mut out = Vec::with_capacity(payload + extra + 72);
        out.extend_from_slice(&id.0);
        out.extend_from_slice(&accepted.to_le_bytes());
        let mut flags = 0;
        for (flag, present) in [
            (KEY, event.key.is_some()),
            (FINGERPRINT, fingerprint.is_some()),
            (DEATH, death.is_some()),
        ] {
            flags |= if present { flag } else { 0 };
        }
        out.push(flags);
        if let Some(fingerprint) = fingerprint {
            out.extend_from_slice(&fingerprint.scope);
            out.extend_from_slice(&fingerprint.body);
        }
        if let Some(death) = death {
            out.extend_from_slice(&death.at.to_le_bytes());
            out.extend_from_slice(&death.sequence.to_le_bytes());
            out.extend_from_slice(&death.attempts.to_le_bytes());
            let reason = beginning(&death.reason, LONGEST_REASON);
            put(&mut out, reason.as_bytes());
        }
        put(&mut out, event.topic.as_bytes());
        put(&mut out, key.as_bytes());
        put(&mut out, &event.attributes);
        out.extend_from_slice(&event.body);
        out
    }

    /// Reads the body of a record. `None` if it is not one of these.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (stored, body) = Self::decode_without_body(bytes)?;
        let event = Event {
            body: body.to_vec(),
            ..stored.event
        };
        Some(Self { event, ..stored })
    }

    /// Reads all but the event's body, which is given as it stands.
    pub(crate) fn decode_without_body(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut rest = bytes;
        let id = EventId(take(&mut rest, 16)?.try_into().ok()?);
        let accepted = u64_at(take(&mut rest, 8)?, 0);
        let flags = take(&mut rest, 1)?[0];
        let mut fingerprint = None;
        if flags & FINGERPRINT != 0 {
            fingerprint = Some(Fingerprint {
                scope: take(&mut rest, 16)?.try_into().ok()?,
                body: take(&mut rest, 16)?.try_into().ok()?,
            });
        }
        let mut death = None;
        if flags & DEATH != 0 {
            death = Some(Death {
                at: u64_at(take(&mut rest, 8)?, 0),
                sequence: sequence_at(take(&mut rest, 8)?, 0)?,
                attempts: u32_at(take(&mut rest, 4)?, 0),
                reason: text(&mut rest)?,
            });
        }
        let topic = text(&mut rest)?;
        let key = text(&mut rest)?;
        let event = Event {
            topic,
            key: (flags & KEY != 0).then_some(key),
            idempotency_key: None,
            attributes: field(&mut rest)?.to_vec(),
            body: Vec::new(),
        };
        let stored = Self {
            id,
            accepted,
            fingerprint,
            death,
            event,
        };
        Some((stored, rest))
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("an event fits in a segment");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32_at(take(rest, 4)?, 0);
    take(rest, length as usize)
}

fn text(rest: &mut &[u8]) -> Option<String> {
    String::from_utf8(field(rest)?.to_vec()).ok()
}

/// Milliseconds since 1970; 0 for a clock that is before it.
pub(crate) fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The time that is this many milliseconds after 1970; 1970 if the system has no such time.
pub(crate) fn time(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_millis(milliseconds))
        .unwrap_or(UNIX_EPOCH)
}
