//! The server's own pages: which there are at each listener, and who sees more of them than the status word.

use std::net::IpAddr;

use super::listeners::Listener;
use crate::health::Health;
use crate::report::{Answer, Page, Paths};
use crate::server::request_head::RequestHead;
use crate::settings::{Config, Details};

/// The server's own pages, as it was set up.
pub(super) struct Reports {
    paths: Paths,
    details: Details,
    /// Names of this host that its own clients may ask for the details by.
    hosts: Vec<String>,
}

/// Who asks for a health report, and at which host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asks<'a> {
    pub(super) peer: IpAddr,
    /// For whom, if the peer is a trusted proxy; else the peer.
    pub(super) client: IpAddr,
    /// What the request's Host names; browsers always send one.
    pub(super) host: Option<&'a str>,
}

impl Reports {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            paths: Paths::from(config),
            details: config.details,
            hosts: config.details_hosts.clone(),
        }
    }

    /// Whether there is a page at that path, at whatever listener.
    pub(super) fn has_page(&self, path: &str) -> bool {
        self.paths.find(path).is_some()
    }

    /// The page at that path, for who came in by that listener.
    pub(super) fn page(&self, listener: Listener, path: &str) -> Option<Page> {
        match listener {
            Listener::Admin => self.paths.find(path),
            Listener::Public | Listener::Agent => self.paths.find_public(path),
        }
    }

    /// Whether somebody who came in by that listener sees more of the pages than the status word.
    pub(super) fn shows_details(&self, listener: Listener, asks: Asks<'_>) -> bool {
        match (listener, self.details) {
            (Listener::Admin, _) | (_, Details::Always) => true,
            (_, Details::Local) => asks.is_from_this_host() && asks.by_a_name_of_ours(&self.hosts),
            (_, Details::Never) => false,
        }
    }
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

/// What the admin listener has beside the pages: `PURGE` makes the cache forget what it keeps for this host and target.
pub(super) fn administer(head: &RequestHead, health: &Health) -> Answer {
    #[cfg(feature = "cache")]
    if head.method_text() == "PURGE"
        && let Some(cache) = &health.sources.cache
    {
        let host = str::from_utf8(head.field("host").unwrap_or_default()).unwrap_or_default();
        let purged = [false, true].map(|https| cache.purge(https, host, head.target()));
        return Answer::purged(purged.iter().sum());
    }
    #[cfg(not(feature = "cache"))]
    let _ = (head, health);
    Answer::not_found()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports(details: Details, hosts: &[String]) -> Reports {
        Reports::new(&Config {
            details,
            details_hosts: hosts.to_vec(),
            ..Config::default()
        })
    }

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
                let shown = reports(details, &hosts).shows_details(Listener::Public, asks);
                assert_eq!(shown, expected, "{details} {host:?}");
            }
        }
    }

    #[test]
    fn details_are_for_this_host_unless_told_otherwise_and_always_at_the_admin_listener() {
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
                let shown = reports(details, &[]).shows_details(Listener::Public, asks);
                assert_eq!(shown, public, "{details} {peer}");
                assert!(reports(details, &[]).shows_details(Listener::Admin, asks));
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
            let reports = reports(Details::Local, &[]);
            assert_eq!(reports.shows_details(Listener::Public, asks), shown);
        }
    }

    #[test]
    fn a_service_may_keep_its_pages_for_the_admin_listener_but_those_of_orchestrators() {
        let reports = Reports::new(&Config {
            own_paths: crate::settings::OwnPaths::Admin,
            ..Config::default()
        });
        for (path, public) in [("/health", false), ("/metrics", false), ("/livez", true)] {
            assert!(reports.has_page(path), "{path}");
            assert!(reports.page(Listener::Admin, path).is_some(), "{path}");
            assert_eq!(
                reports.page(Listener::Public, path).is_some(),
                public,
                "{path}"
            );
        }
        assert!(!reports.has_page("/") && reports.page(Listener::Public, "/").is_none());
    }
}
