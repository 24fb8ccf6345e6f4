//! The sockets that a server listens on: bound by name, or passed by whoever starts it.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;

use mio::net::TcpListener;
use socket2::SockRef;

use super::event_loop::listeners::Listener;
use super::handle::Addresses;
use crate::error::Error;
use crate::settings::Config;

/// Most connections that wait to be accepted, if the system's own bound (net.core.somaxconn) is not lower. One for which there
/// is no room tries again after a second. So there is room for all clients of a server that has just been started anew.
const BACKLOG: i32 = 4096;

/// Takes over those that were `passed`, or binds the public addresses, and binds the others.
///
/// # Errors
/// [`Error::Listen`] with the address that can't be bound, or one that was passed is no listener.
pub(super) fn open(
    config: &Config,
    passed: Vec<std::net::TcpListener>,
) -> Result<Vec<(Listener, TcpListener)>, Error> {
    let mut listeners = Vec::new();
    for listener in passed {
        let listener = adopt(listener).map_err(|source| Error::System {
            what: "a socket that was passed",
            source,
        })?;
        listeners.push((Listener::Public, listener));
    }
    let none_passed = listeners.is_empty();
    let public = config.listen.iter().filter(|_| none_passed);
    let public = public.map(|text| (Listener::Public, text));
    let admin = config.admin.iter().map(|text| (Listener::Admin, text));
    let agent = config.agent.iter().map(|text| (Listener::Agent, text));
    for (kind, address) in public.chain(admin).chain(agent) {
        let listener = bind(address).map_err(|source| Error::Listen {
            address: address.clone(),
            source,
        })?;
        listeners.push((kind, listener));
    }
    Ok(listeners)
}

/// Binds the first of a name's addresses that can be bound.
fn bind(address: &str) -> io::Result<TcpListener> {
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in address.to_socket_addrs()? {
        match listen(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // Where a socket listens already, this changes the length of its queue.
    SockRef::from(&listener).listen(BACKLOG)?;
    Ok(listener)
}

/// Takes over a socket that listens already.
fn adopt(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    let listener = refuse_connection(listener)?;
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener))
}

/// A connection in a listener's place would look like a listener that nobody ever reaches.
fn refuse_connection(listener: std::net::TcpListener) -> io::Result<std::net::TcpListener> {
    let stream = std::net::TcpStream::from(OwnedFd::from(listener));
    match stream.peer_addr() {
        Ok(peer) => Err(io::Error::other(format!(
            "it is a connection from {peer}, not a socket that listens"
        ))),
        Err(_) => Ok(OwnedFd::from(stream).into()),
    }
}

/// Where they listen.
pub(super) fn addresses_of(listeners: &[(Listener, TcpListener)]) -> io::Result<Addresses> {
    let addresses = listeners
        .iter()
        .map(|(kind, listener)| Ok((*kind, listener.local_addr()?)));
    let kinds = addresses.collect::<io::Result<Vec<_>>>()?;
    let at = |wanted: Listener| {
        let found = kinds.iter().filter(move |(kind, _)| *kind == wanted);
        found.map(|(_, address)| *address)
    };
    Ok(Addresses {
        public: at(Listener::Public).collect(),
        admin: at(Listener::Admin).next(),
        agent: at(Listener::Agent).next(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::PATIENCE;
    use std::fs;
    use std::net::TcpStream;

    /// With room for 128, clients that all came back at once waited for a second.
    #[test]
    fn a_burst_of_connections_waits_to_be_accepted_and_none_is_turned_away() {
        let bound = fs::read_to_string("/proc/sys/net/core/somaxconn");
        let bound = bound.ok().and_then(|text| text.trim().parse().ok());
        let listener = bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let waiting: Vec<_> = (0..bound.unwrap_or(0).min(300))
            .map(|_| TcpStream::connect_timeout(&address, PATIENCE).unwrap())
            .collect();
        assert!(waiting.len() >= 128);
    }
}
