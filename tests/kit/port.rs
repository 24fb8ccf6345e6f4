//! A port that is kept from others.

use std::mem;
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

/// An address at which nobody listens until the test has somebody listen there. The system gives out no port that a
/// socket is bound to. This one does not listen, and lets its address be used again: so another one that does the latter,
/// as servers do, can listen there, and when that has ended the next one.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub(crate) address: SocketAddr,
    _bound: Socket,
}

impl Reserved {
    /// A free port of loopback.
    pub(crate) fn new() -> Self {
        Self::at(([127, 0, 0, 1], 0).into())
    }

    /// An address at which nobody listens; one of port 0 gets a port that nobody has.
    #[track_caller]
    pub(crate) fn at(address: SocketAddr) -> Self {
        let bound =
            Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        bound.set_reuse_address(true).expect("an option");
        bound.bind(&address.into()).expect("the address is free");
        let address = bound.local_addr().expect("it is bound");
        Self {
            address: address.as_socket().expect("an address of IP"),
            _bound: bound,
        }
    }

    /// Has nobody else come to the address for as long as this process runs.
    pub(crate) fn for_good(self) -> SocketAddr {
        let address = self.address;
        mem::forget(self);
        address
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}
