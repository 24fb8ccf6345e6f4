//! The room for request bodies: how much of them is held at once, in total and by one peer, and who waits for room.
//!
//! A body has room for its whole length before its first byte is read, so that bodies which came in part never wait for
//! each other. A chunked one, whose length is not known, has room for the longest that is allowed, and gives back what it
//! did not need once it is whole.
//!
//! - All bodies together have at most the bound.
//! - One peer has at most half of it; but one body that fits into the bound it may always have.
//! - The others wait in the order in which they came. Those of a peer that has its share are passed over until it gives
//!   some of it back; a body for which there is not enough room yet keeps its place at the head.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use crate::http::body::{BodyBuffer, Spare};
use crate::net::peer::Peer;
use crate::panics::lock;
use crate::server::exchange::ClientKey;

/// All room for bodies, shared by those who hold some.
#[derive(Debug)]
pub(crate) struct Bodies {
    bound: usize,
    spare: Arc<Spare>,
    state: Mutex<Accounts>,
}

#[derive(Debug, Default)]
struct Accounts {
    /// Bytes that all hold together.
    held: usize,
    /// Those that hold room or wait for it.
    peers: HashMap<Peer, Share>,
    /// The first who waits of each peer that may have more, in the order in which they came.
    next: BTreeMap<u64, Peer>,
    waiting: usize,
    /// The last number that was given to one who waits. None is used again.
    last: u64,
}

/// What one peer has of the room.
#[derive(Debug, Default)]
struct Share {
    held: usize,
    waiting: BTreeMap<u64, WaitingBody>,
    /// The number under which it stands in [`Accounts::next`].
    next: Option<u64>,
}

#[derive(Debug)]
struct WaitingBody {
    client: ClientKey,
    size: usize,
}

/// The room of one body. It is given back when this is dropped, by whatever thread.
#[derive(Debug)]
pub(crate) struct Room {
    bodies: Arc<Bodies>,
    peer: Peer,
    size: usize,
}

/// A place among those that wait. It is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    bodies: Arc<Bodies>,
    peer: Peer,
    number: u64,
}

/// How much is held, and how many wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// In bytes.
    pub(crate) held: usize,
    pub(crate) waiting: usize,
}

impl Bodies {
    /// Room for so many bytes.
    pub(crate) fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self {
            bound,
            spare: Arc::default(),
            state: Mutex::default(),
        })
    }

    /// Room for a body of a client, or a place among those that wait for it. One larger than the bound waits for ever.
    ///
    /// # Errors
    ///
    /// The place, if there is no room now.
    pub(crate) fn take(
        self: &Arc<Self>,
        peer: Peer,
        size: usize,
        client: ClientKey,
    ) -> Result<Room, Place> {
        let mut state = lock(&self.state);
        let fits = state.held.saturating_add(size) <= self.bound;
        let share = state.peers.get(&peer);
        let may_have = share
            .is_none_or(|share| share.waiting.is_empty() && may_have(share.held, size, self.bound));
        if fits && may_have && state.next.is_empty() {
            state.give(peer, size);
            return Ok(self.room(peer, size));
        }
        let number = state.wait(peer, WaitingBody { client, size });
        state.nominate(peer, self.bound);
        Err(Place {
            bodies: self.clone(),
            peer,
            number,
        })
    }

    /// The next who has waited and can have room now, with that room.
    pub(crate) fn next(self: &Arc<Self>) -> Option<(ClientKey, Room)> {
        let mut state = lock(&self.state);
        let (peer, number) = state.first_that_fits(self.bound)?;
        let WaitingBody { client, size } = state.leave(peer, number)?;
        state.give(peer, size);
        state.nominate(peer, self.bound);
        Some((client, self.room(peer, size)))
    }

    /// Whether there is a [`next`](Self::next).
    pub(crate) fn is_ready(&self) -> bool {
        lock(&self.state).first_that_fits(self.bound).is_some()
    }

    /// How much is held, and how many wait.
    pub(crate) fn usage(&self) -> Usage {
        let state = lock(&self.state);
        Usage {
            held: state.held,
            waiting: state.waiting,
        }
    }

    /// Gives the system back what bodies have left and none has needed since the last call.
    pub(crate) fn trim(&self) {
        self.spare.trim();
    }

    fn room(self: &Arc<Self>, peer: Peer, size: usize) -> Room {
        Room {
            bodies: self.clone(),
            peer,
            size,
        }
    }
}

/// Whether a peer that holds so much may have that much more: up to half of the bound, or one body.
fn may_have(held: usize, size: usize, bound: usize) -> bool {
    held == 0 || held.saturating_add(size) <= bound / 2
}

impl Accounts {
    fn give(&mut self, peer: Peer, size: usize) {
        self.held += size;
        self.peers.entry(peer).or_default().held += size;
    }

    fn take_back(&mut self, peer: Peer, size: usize, bound: usize) {
        self.held -= size;
        if let Some(share) = self.peers.get_mut(&peer) {
            share.held -= size;
        }
        self.nominate(peer, bound);
    }

    fn wait(&mut self, peer: Peer, waiting: WaitingBody) -> u64 {
        self.last += 1;
        self.waiting += 1;
        let share = self.peers.entry(peer).or_default();
        share.waiting.insert(self.last, waiting);
        self.last
    }

    fn leave(&mut self, peer: Peer, number: u64) -> Option<WaitingBody> {
        let share = self.peers.get_mut(&peer)?;
        let waiting = share.waiting.remove(&number)?;
        self.waiting -= 1;
        Some(waiting)
    }

    /// Notes that what a peer has, or who of it waits, has changed.
    fn nominate(&mut self, peer: Peer, bound: usize) {
        let Some(share) = self.peers.get_mut(&peer) else {
            return;
        };
        let first = share.waiting.first_key_value();
        let next = first
            .filter(|(_, waiting)| may_have(share.held, waiting.size, bound))
            .map(|(&number, _)| number);
        if share.next != next {
            if let Some(before) = std::mem::replace(&mut share.next, next) {
                self.next.remove(&before);
            }
            self.next.extend(next.map(|number| (number, peer)));
        }
        if share.held == 0 && share.waiting.is_empty() {
            self.peers.remove(&peer);
        }
    }

    fn first_that_fits(&self, bound: usize) -> Option<(Peer, u64)> {
        let (&number, &peer) = self.next.first_key_value()?;
        let waiting = self.peers.get(&peer)?.waiting.get(&number)?;
        let fits = self.held.saturating_add(waiting.size) <= bound;
        fits.then_some((peer, number))
    }
}

impl Room {
    /// Room that is taken from nobody.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn of_its_own(size: usize) -> Self {
        let bodies = Bodies::new(size);
        let client = ClientKey {
            slot: 0,
            generation: 0,
        };
        let room = bodies.take(Peer::V4(0), size, client);
        room.expect("nobody else is there")
    }

    /// Of which this is a part.
    #[cfg(test)]
    pub(crate) fn bodies(&self) -> Arc<Bodies> {
        self.bodies.clone()
    }

    /// Where the body is to be put.
    pub(crate) fn buffer(&self) -> BodyBuffer {
        BodyBuffer::new(self.bodies.spare.clone())
    }

    /// Gives back all but so many bytes.
    pub(crate) fn shrink(&mut self, size: usize) {
        if let Some(surplus) = self.size.checked_sub(size).filter(|&surplus| surplus > 0) {
            self.size = size;
            self.give_back(surplus);
        }
    }

    fn give_back(&self, size: usize) {
        lock(&self.bodies.state).take_back(self.peer, size, self.bodies.bound);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.give_back(self.size);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = lock(&self.bodies.state);
        // Unless it has been given room.
        if state.leave(self.peer, self.number).is_some() {
            state.nominate(self.peer, self.bodies.bound);
        }
    }
}

#[cfg(test)]
mod tests;
