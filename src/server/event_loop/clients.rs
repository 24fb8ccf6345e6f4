//! The clients by slot: which has been idle the longest, which is to be looked at when, and which has more to do.

use std::collections::VecDeque;
use std::iter;
use std::time::Instant;

use mio::Token;

use super::client::Client;
use super::deadlines::Deadlines;
use super::listeners::Listener;
use crate::server::exchange::ClientKey;

const NONE: u32 = u32::MAX;

/// Bits of a token that name the slot: enough for the most clients that a setting allows, and the reserves of the admin
/// and agent listeners.
const SLOT_BITS: u32 = 21;

/// The part of a generation that is in a token: together they leave a bit of 32 for the other tokens.
const GENERATION: usize = (1 << 10) - 1;

/// The bit of the other tokens. With a slot's token it is that of the other server that the slot's client is relayed to;
/// as no slot's number comes near the highest, those that count down from the top are told apart from these.
const OTHERS: usize = 1 << 31;

impl ClientKey {
    /// The client's readiness token. An event may come that was of the slot's last client, so a token tells them apart too.
    pub(crate) fn token(self) -> Token {
        let generation = self.generation as usize & GENERATION;
        Token(generation << SLOT_BITS | self.slot as usize)
    }
}

/// The token of the socket that is relayed to the client with this one, or that its request waits for.
pub(crate) fn upstream_token(client: Token) -> Token {
    Token(client.0 | OTHERS)
}

/// The token of the client that the socket with this one is relayed to, if it is one.
pub(super) fn client_of(upstream: Token) -> Option<Token> {
    (upstream.0 & OTHERS != 0).then_some(Token(upstream.0 & !OTHERS))
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// By itself, so that its memory is free again when it goes.
    client: Option<Box<Client>>,
    /// Neighbours in the list of idle clients; `previous == this slot` means not in the list.
    previous: u32,
    next: u32,
    /// It stands in the line of those that have more to do.
    unfinished: bool,
}

/// All clients. Slots are used again; a generation tells a slot's clients apart.
#[derive(Debug)]
pub(crate) struct Clients {
    slots: Vec<Slot>,
    free: Vec<u32>,
    listeners: [ByListener; Listener::ALL.len()],
    deadlines: Deadlines,
    /// The line of those that have more to do than one turn allowed.
    unfinished: VecDeque<u32>,
}

/// The clients that came through one listener.
#[derive(Debug, Clone, Copy)]
struct ByListener {
    count: usize,
    /// Both ends of the list of those that are idle.
    longest_idle: u32,
    latest_idle: u32,
}

impl Clients {
    /// With room for so many: it is resident only once it is used, and growth would leave the smaller lists behind.
    pub(crate) fn with_capacity(clients: usize) -> Self {
        Self {
            slots: Vec::with_capacity(clients),
            free: Vec::new(),
            listeners: [ByListener {
                count: 0,
                longest_idle: NONE,
                latest_idle: NONE,
            }; Listener::ALL.len()],
            deadlines: Deadlines::with_capacity(clients),
            unfinished: VecDeque::new(),
        }
    }

    /// How many came through that listener.
    pub(crate) fn count(&self, listener: Listener) -> usize {
        self.listeners[listener as usize].count
    }

    /// The slot that [`insert`](Self::insert) will use.
    pub(crate) fn vacant(&mut self) -> u32 {
        if let Some(&slot) = self.free.last() {
            return slot;
        }
        let slot = u32::try_from(self.slots.len()).expect("connections are bounded far below 2^32");
        self.slots.push(Slot {
            generation: 0,
            client: None,
            previous: slot,
            next: NONE,
            unfinished: false,
        });
        self.free.push(slot);
        slot
    }

    /// Puts a client into the slot that [`vacant`](Self::vacant) named.
    pub(crate) fn insert(&mut self, client: Client) {
        let slot = self.vacant();
        self.free.pop();
        self.listeners[client.listener as usize].count += 1;
        self.slots[slot as usize].client = Some(Box::new(client));
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Client> {
        self.slots.get_mut(slot as usize)?.client.as_deref_mut()
    }

    /// The client of that key, unless it has gone.
    pub(crate) fn by_key(&mut self, key: ClientKey) -> Option<&mut Client> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        slot.client
            .as_deref_mut()
            .filter(|_| slot.generation == key.generation)
    }

    pub(crate) fn key(&self, slot: u32) -> ClientKey {
        let generation = self.slots[slot as usize].generation;
        ClientKey { slot, generation }
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Client> {
        self.set_idle(slot, false);
        let place = self.slots.get_mut(slot as usize)?;
        let client = place.client.take()?;
        self.listeners[client.listener as usize].count -= 1;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot);
        Some(*client)
    }

    /// The readiness token of the slot's client, or of the next one there.
    pub(crate) fn token(&self, slot: u32) -> Token {
        let generation = self.slots.get(slot as usize).map_or(0, |it| it.generation);
        ClientKey { slot, generation }.token()
    }

    /// The slot of the client with that token, unless it has gone.
    pub(crate) fn slot_of(&self, token: Token) -> Option<u32> {
        let slot = u32::try_from(token.0 & ((1 << SLOT_BITS) - 1)).ok()?;
        (self.token(slot) == token).then_some(slot)
    }

    /// Slots that are in use, as of now.
    pub(crate) fn used(&self) -> Vec<u32> {
        let slots = self.slots.iter().zip(0..);
        slots
            .filter(|(slot, _)| slot.client.is_some())
            .map(|(_, number)| number)
            .collect()
    }

    /// Notes that a client has become idle (it is the last to make room), or is not idle any more.
    pub(crate) fn set_idle(&mut self, slot: u32, idle: bool) {
        let Some(place) = self.slots.get(slot as usize) else {
            return;
        };
        let Some(client) = &place.client else { return };
        let listed = place.previous != slot;
        if idle == listed {
            return;
        }
        let at = &mut self.listeners[client.listener as usize];
        let (previous, next) = (place.previous, place.next);
        if idle {
            let last = std::mem::replace(&mut at.latest_idle, slot);
            match last {
                NONE => at.longest_idle = slot,
                last => self.slots[last as usize].next = slot,
            }
            self.slots[slot as usize].previous = last;
            self.slots[slot as usize].next = NONE;
        } else {
            match previous {
                NONE => at.longest_idle = next,
                previous => self.slots[previous as usize].next = next,
            }
            match next {
                NONE => at.latest_idle = previous,
                next => self.slots[next as usize].previous = previous,
            }
            self.slots[slot as usize].previous = slot;
        }
    }

    /// The client of that listener that has been idle the longest.
    pub(crate) fn longest_idle(&self, listener: Listener) -> Option<u32> {
        let longest = self.listeners[listener as usize].longest_idle;
        (longest != NONE).then_some(longest)
    }

    /// Sees to it that a client is [due](Self::take_due) at that time, or before.
    pub(crate) fn arm(&mut self, slot: u32, at: Instant) {
        self.deadlines.arm(slot, at);
    }

    /// The clients that are to be looked at by now, maybe too early, or in vain. They have to be [armed](Self::arm) again;
    /// one that is due again at once has the next turn, so that it can't hold up the others.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<u32> {
        iter::from_fn(|| self.deadlines.pop(now)).collect()
    }

    /// Nobody is [due](Self::take_due) before this.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Puts a client that has more to do than its turn allowed at the end of the line, unless it stands there: it is busy,
    /// and does not make room for others.
    pub(crate) fn set_unfinished(&mut self, slot: u32) {
        self.set_idle(slot, false);
        if let Some(place) = self.slots.get_mut(slot as usize)
            && !place.unfinished
        {
            place.unfinished = true;
            self.unfinished.push_back(slot);
        }
    }

    /// Whether a client has more to do, and will have its turn.
    pub(crate) fn is_unfinished(&self, slot: u32) -> bool {
        let place = self.slots.get(slot as usize);
        place.is_some_and(|place| place.unfinished)
    }

    /// How many have more to do.
    pub(crate) fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    /// The first in the line of those that have more to do, who leaves it. It may have gone meanwhile, and another one
    /// may have its slot.
    pub(crate) fn next_unfinished(&mut self) -> Option<u32> {
        let slot = self.unfinished.pop_front()?;
        self.slots[slot as usize].unfinished = false;
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::event_loop::connection::Connection;
    use mio::net::TcpStream;
    use std::sync::Arc;
    use std::time::Duration;

    fn order(clients: &mut Clients) -> Vec<u32> {
        std::iter::from_fn(|| {
            let slot = clients.longest_idle(Listener::Public)?;
            clients.set_idle(slot, false);
            Some(slot)
        })
        .collect()
    }

    #[test]
    fn the_longest_idle_comes_first_and_leaving_the_list_keeps_the_order() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut clients = Clients::with_capacity(0);
        for _ in 0..5 {
            clients.insert(client(&socket, Listener::Public));
        }
        for slot in [3, 0, 4, 1] {
            clients.set_idle(slot, true);
            clients.set_idle(slot, true);
        }
        clients.set_idle(4, false);
        clients.set_idle(2, false);
        assert_eq!(order(&mut clients), [3, 0, 1]);
        clients.set_idle(4, true);
        assert_eq!(order(&mut clients), [4]);
        assert_eq!(clients.longest_idle(Listener::Public), None);
    }

    fn client(socket: &std::net::TcpListener, listener: Listener) -> Client {
        let peer = socket.local_addr().unwrap();
        let socket = TcpStream::connect(peer).unwrap();
        let limits = Arc::new(crate::internals::invariants::LIMITS);
        let connection = Connection::new(limits, std::time::Instant::now());
        Client::new(socket, peer, listener, connection)
    }

    /// An event that told nothing new made a monitor the latest to be idle, and another one went in its stead.
    #[test]
    fn a_monitor_keeps_its_place_while_it_stays_idle_and_is_the_last_after_a_request() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut clients = Clients::with_capacity(0);
        for slot in 0..3 {
            clients.insert(client(&socket, Listener::Admin));
            clients.set_idle(slot, true);
        }
        clients.set_idle(0, true);
        assert_eq!(clients.longest_idle(Listener::Admin), Some(0));
        clients.set_idle(0, false);
        clients.set_idle(0, true);
        assert_eq!(clients.longest_idle(Listener::Admin), Some(1));
        assert_eq!(clients.longest_idle(Listener::Public), None);
    }

    /// Each event once gave such a client one more turn, and one that never paused so kept the others waiting.
    #[test]
    fn who_has_more_to_do_stands_in_line_once_behind_the_others_and_is_not_idle() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut clients = Clients::with_capacity(0);
        for slot in 0..3 {
            clients.insert(client(&socket, Listener::Public));
            clients.set_idle(slot, true);
        }
        for slot in [2, 0, 2, 2, 1] {
            clients.set_unfinished(slot);
        }
        assert_eq!(clients.longest_idle(Listener::Public), None);
        for slot in [2, 0, 1, 2] {
            assert!(clients.is_unfinished(slot));
            assert_eq!(clients.unfinished(), 3);
            assert_eq!(clients.next_unfinished(), Some(slot));
            assert!(!clients.is_unfinished(slot));
            clients.set_unfinished(slot);
        }
    }

    #[test]
    fn a_client_is_due_once_when_it_was_armed() {
        let mut clients = Clients::with_capacity(0);
        let early = Instant::now();
        let at = early + Duration::from_secs(1);
        clients.arm(0, at);
        assert_eq!(clients.next_timeout(), Some(at));
        assert!(clients.take_due(early).is_empty());
        assert_eq!(clients.take_due(at), [0]);
        assert!(clients.take_due(at).is_empty());
    }
}
