//! Names to addresses, by a deadline.
//!
//! The system's resolver takes no deadline and may take half a minute. So it runs in a thread of its own, and who asked
//! stops waiting in time; the thread ends when the resolver does. How many such threads there can be is bounded.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crossbeam_channel::RecvTimeoutError;

use super::url::{Endpoint, Host};

/// Most names that are being resolved at the same time, in the whole process.
const MOST_LOOKUPS: usize = 16;

/// Lookups that have not ended.
static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

/// Why a name has no address. It names the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolveError(String);

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ResolveError {}

/// A lookup's place among the few; given back when the lookup ends.
struct Place(&'static AtomicUsize);

impl Place {
    fn take(count: &'static AtomicUsize) -> Option<Self> {
        let taken = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lookups| {
            (lookups < MOST_LOOKUPS).then_some(lookups + 1)
        });
        taken.ok().map(|_| Self(count))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The addresses of a host; at least one, at most `most`.
pub(crate) fn resolve(
    endpoint: &Endpoint,
    most: usize,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, ResolveError> {
    match &endpoint.host {
        Host::Address(address) => Ok(vec![SocketAddr::new(*address, endpoint.port)]),
        Host::Name(name) => {
            let (lookup, port) = (name.clone(), endpoint.port);
            by_deadline(name, deadline, &LOOKUPS, move || {
                let addresses = (lookup.as_str(), port).to_socket_addrs()?;
                Ok(addresses.take(most).collect())
            })
        }
    }
}

fn by_deadline(
    name: &str,
    deadline: Instant,
    count: &'static AtomicUsize,
    lookup: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> Result<Vec<SocketAddr>, ResolveError> {
    let place = Place::take(count)
        .ok_or_else(|| failed(name, &"too many other names are being resolved"))?;
    // The thread's end is awaited, and not a message of addresses: a channel of those would be 10 KB more of code.
    let (running, ended) = crossbeam_channel::bounded::<()>(0);
    let thread = thread::Builder::new()
        .name("plimsoll-resolve".to_owned())
        .spawn(move || {
            // Dropped last, and by a panic too.
            let _running = running;
            let _place = place;
            lookup()
        })
        .map_err(|error| failed(name, &error))?;
    if ended.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
        return Err(failed(name, &"no answer in time"));
    }
    match thread.join() {
        Ok(Ok(addresses)) if addresses.is_empty() => Err(failed(name, &"it has no address")),
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(failed(name, &error)),
        Err(_) => Err(failed(name, &"the resolver panicked")),
    }
}

fn failed(name: &str, why: &dyn fmt::Display) -> ResolveError {
    ResolveError(format!("cannot resolve {name}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_resolver_that_hangs_is_not_waited_for_and_takes_a_place_until_it_ends() {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let (release, held) = crossbeam_channel::bounded::<()>(0);
        for _ in 0..MOST_LOOKUPS {
            let held = held.clone();
            let hanging = move || {
                // Ends when the sender is dropped.
                let _ = held.recv();
                Ok(Vec::new())
            };
            let error = by_deadline("db", Instant::now(), &COUNT, hanging).unwrap_err();
            assert_eq!(error.to_string(), "cannot resolve db: no answer in time");
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let quick = move || Ok(vec![address]);
        let deadline = Instant::now() + PATIENCE;
        let error = by_deadline("db", deadline, &COUNT, quick).unwrap_err();
        assert!(error.to_string().contains("too many"), "{error}");

        drop(release);
        while COUNT.load(Ordering::Relaxed) > 0 {
            assert!(Instant::now() < deadline, "places are given back");
            thread::yield_now();
        }
        assert_eq!(
            by_deadline("db", deadline, &COUNT, quick),
            Ok(vec![address])
        );
    }

    #[test]
    fn a_resolver_that_panics_is_an_error_and_gives_its_place_back() {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let deadline = Instant::now() + PATIENCE;
        let error = by_deadline("db", deadline, &COUNT, || panic!("on purpose")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot resolve db: the resolver panicked"
        );
        assert_eq!(COUNT.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_name_without_an_address_is_an_error() {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let deadline = Instant::now() + PATIENCE;
        let error = by_deadline("db", deadline, &COUNT, || Ok(Vec::new())).unwrap_err();
        assert_eq!(error.to_string(), "cannot resolve db: it has no address");
    }

    #[test]
    fn loopback_has_an_address() {
        let endpoint = Endpoint {
            host: Host::Name("localhost".to_owned()),
            port: 80,
        };
        let addresses = resolve(&endpoint, 16, Instant::now() + PATIENCE).unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
    }
}
