//! The doors that connections come through: to the service, to the health paths alone, and for HAProxy's agent-check.

use std::net::IpAddr;
use std::time::Instant;

use mio::net::TcpListener;

use super::listeners::Listeners;
use crate::settings::Details;

/// Connections that the admin listener and the agent listener hold each, beyond those of the service: so that they can
/// be reached when the service is full. They come out of the descriptors that are kept from its clients.
pub(crate) const RESERVE: usize = 16;

/// What a listener is for, and so what its connections may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The service, and the health paths in it.
    Public,
    /// The health paths only, with all details.
    Admin,
    /// HAProxy's agent-check.
    Agent,
}

impl Door {
    pub(crate) const ALL: [Self; 3] = [Self::Public, Self::Admin, Self::Agent];

    /// Whether somebody who came in here sees more of the health reports than the status word; `hosts` are names of this
    /// host.
    pub(crate) fn shows_details(self, details: Details, hosts: &[String], asks: Asks<'_>) -> bool {
        match (self, details) {
            (Self::Admin, _) | (_, Details::Always) => true,
            (_, Details::Local) => asks.is_from_this_host() && asks.by_a_name_of_ours(hosts),
            (_, Details::Never) => false,
        }
    }
}

/// Who asks for a health report, and at which host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asks<'a> {
    pub(crate) peer: IpAddr,
    /// For whom, if the peer is a trusted proxy; else the peer.
    pub(crate) client: IpAddr,
    /// What the request's Host names; browsers always send one.
    pub(crate) host: Option<&'a str>,
}

impl Asks<'_> {
    /// A trusted proxy elsewhere that passes on what its clients claim must not make them local.
    fn is_from_this_host(self) -> bool {
        let is_here = |address: IpAddr| address.to_canonical().is_loopback();
        is_here(self.peer) && is_here(self.client)
    }

    /// A web page can have its own name resolved to this host, and so read from a browser here what this host's clients
    /// may see (DNS rebinding). An address or `localhost` resolves to nothing else.
    fn by_a_name_of_ours(self, hosts: &[String]) -> bool {
        self.host.is_none_or(|host| {
            let is_ours = |name: &str| host.eq_ignore_ascii_case(name);
            host.parse::<IpAddr>().is_ok()
                || is_ours("localhost")
                || hosts.iter().any(|name| is_ours(name))
        })
    }
}

/// The listeners of each door.
#[derive(Debug)]
pub(crate) struct Doors([Listeners; Door::ALL.len()]);

impl Doors {
    pub(crate) fn new(sockets: Vec<(Door, TcpListener)>) -> Self {
        let mut by_door = Door::ALL.map(|_| Vec::new());
        for (door, socket) in sockets {
            by_door[door as usize].push(socket);
        }
        Self(by_door.map(Listeners::new))
    }

    /// The listeners of one door.
    pub(crate) fn of(&mut self, door: Door) -> &mut Listeners {
        &mut self.0[door as usize]
    }

    /// Whether an accept is worth trying at any door.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        self.0.iter().any(|listeners| listeners.is_ready(now))
    }

    /// Whether the service waits for a connection to be given back before it accepts another.
    pub(crate) fn is_full(&self) -> bool {
        self.0[Door::Public as usize].is_full()
    }

    /// When accepting goes on by itself.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.0.iter().filter_map(Listeners::next_timeout).min()
    }

    /// Closes every socket: from now on the system refuses new connections.
    pub(crate) fn close(&mut self) {
        self.0.iter_mut().for_each(Listeners::close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_of_this_host_are_not_for_names_that_anybody_can_point_at_it() {
        let hosts = ["status.example".to_owned()];
        for (host, shown) in [
            (None, true),
            (Some("127.0.0.1"), true),
            (Some("192.0.2.7"), true),
            (Some("::1"), true),
            (Some("LocalHost"), true),
            (Some("Status.Example"), true),
            (Some("attacker.example"), false),
            (Some("127.0.0.1.attacker.example"), false),
            (Some("localhost.attacker.example"), false),
            (Some("status.example.attacker.example"), false),
            (Some("2130706433"), false),
        ] {
            let asks = Asks {
                peer: IpAddr::from([127, 0, 0, 1]),
                client: IpAddr::from([127, 0, 0, 1]),
                host,
            };
            for (details, expected) in [
                (Details::Local, shown),
                (Details::Always, true),
                (Details::Never, false),
            ] {
                let shown = Door::Public.shows_details(details, &hosts, asks);
                assert_eq!(shown, expected, "{details} {host:?}");
            }
        }
    }

    #[test]
    fn details_are_for_this_host_unless_told_otherwise_and_always_behind_the_admin_door() {
        let near = ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"];
        let far = [
            "192.0.2.7",
            "10.0.0.1",
            "2001:db8::1",
            "::ffff:192.0.2.7",
            "0.0.0.0",
        ];
        let peers = near.map(|peer| (peer, true)).into_iter();
        for (peer, local) in peers.chain(far.map(|peer| (peer, false))) {
            let address: IpAddr = peer.parse().unwrap();
            for (details, public) in [
                (Details::Local, local),
                (Details::Always, true),
                (Details::Never, false),
            ] {
                let asks = Asks {
                    peer: address,
                    client: address,
                    host: None,
                };
                let shown = Door::Public.shows_details(details, &[], asks);
                assert_eq!(shown, public, "{details} {peer}");
                assert!(Door::Admin.shows_details(details, &[], asks));
            }
        }
    }

    #[test]
    fn clients_of_a_trusted_proxy_are_local_only_if_both_are_on_this_host() {
        let [here, there] = ["127.0.0.1", "192.0.2.7"].map(|text| text.parse().unwrap());
        for (peer, client, shown) in [
            (here, here, true),
            (here, there, false),
            (there, here, false),
        ] {
            let asks = Asks {
                peer,
                client,
                host: None,
            };
            assert_eq!(Door::Public.shows_details(Details::Local, &[], asks), shown);
        }
    }
}
