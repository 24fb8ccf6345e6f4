//! Where the server's own pages are.

use super::Page;
use crate::settings::{Config, OwnPaths};

/// Where the health paths are; `None` switches one off, and leaves it to the handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paths {
    health: Option<String>,
    live: Option<String>,
    ready: Option<String>,
    metrics: Option<String>,
    /// The page; its numbers are there too, with `.json` behind the path.
    #[cfg(feature = "status-page")]
    status: Option<String>,
    /// Which of them the public listener has.
    own: OwnPaths,
}

impl From<&Config> for Paths {
    fn from(config: &Config) -> Self {
        Self {
            health: config.health_path.clone(),
            live: config.livez_path.clone(),
            ready: config.readyz_path.clone(),
            metrics: config.metrics_path.clone(),
            #[cfg(feature = "status-page")]
            status: config.status_path.clone(),
            own: config.own_paths,
        }
    }
}

impl Paths {
    /// The page that the public listener has at that path.
    pub(crate) fn find_public(&self, path: &str) -> Option<Page> {
        let page = self.find(path)?;
        let stays = match self.own {
            OwnPaths::All => true,
            OwnPaths::Admin => matches!(
                page,
                Page::Live | Page::LivePart | Page::Ready | Page::ReadyPart
            ),
        };
        stays.then_some(page)
    }

    /// Where the public listener has a page.
    pub(crate) fn public(&self) -> impl Iterator<Item = &str> {
        let all = [
            &self.health,
            &self.live,
            &self.ready,
            &self.metrics,
            #[cfg(feature = "status-page")]
            &self.status,
        ];
        let all = all.into_iter().filter_map(|path| path.as_deref());
        all.filter(|path| self.find_public(path).is_some())
    }

    /// The page at that path.
    pub(crate) fn find(&self, path: &str) -> Option<Page> {
        let pages = [
            (&self.health, Page::Health),
            (&self.live, Page::Live),
            (&self.ready, Page::Ready),
            (&self.metrics, Page::Metrics),
            #[cfg(feature = "status-page")]
            (&self.status, Page::Status),
        ];
        let found = pages
            .into_iter()
            .find(|(at, _)| at.as_deref() == Some(path));
        let found = found
            .map(|(_, page)| page)
            .or_else(|| self.find_below(path));
        #[cfg(feature = "status-page")]
        let found = found.or_else(|| self.find_numbers(path));
        found
    }

    /// The page whose path is that one's directory: `/health/consul`, `/livez/NAME` and `/readyz/NAME`, wherever the
    /// pages above them are.
    fn find_below(&self, path: &str) -> Option<Page> {
        let below = |page: &Option<String>| {
            let page = page.as_deref()?;
            let page = page.strip_suffix('/').unwrap_or(page);
            // Every request comes by here: the slash is looked for first, since most have none there.
            let name = path.get(page.len()..)?.strip_prefix('/')?;
            (path.starts_with(page) && !name.contains('/')).then_some(name)
        };
        // A page at the root must not take every path from the handler.
        let part = |page: &Option<String>| page.as_deref() != Some("/") && below(page).is_some();
        if below(&self.health) == Some("consul") {
            Some(Page::Consul)
        } else if part(&self.live) {
            Some(Page::LivePart)
        } else if part(&self.ready) {
            Some(Page::ReadyPart)
        } else {
            None
        }
    }

    /// The numbers of the status page: its path, and `.json`.
    #[cfg(feature = "status-page")]
    fn find_numbers(&self, path: &str) -> Option<Page> {
        let page = path.strip_suffix(".json")?;
        (self.status.as_deref() == Some(page)).then_some(Page::StatusJson)
    }
}

#[cfg(all(test, feature = "status-page"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_page_moves_with_it() {
        let paths = Paths {
            health: Some("/up".into()),
            ready: Some("/internal/ready/".into()),
            live: None,
            ..Paths::from(&Config::default())
        };
        for (path, page) in [
            ("/up/consul", Some(Page::Consul)),
            ("/up/other", None),
            ("/health/consul", None),
            ("/internal/ready/", Some(Page::Ready)),
            ("/internal/ready/db", Some(Page::ReadyPart)),
            ("/internal/ready/db/x", None),
            ("/internal/db", None),
            ("/livez/workers", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(paths.find(path), page, "{path}");
            assert_eq!(paths.find_public(path), page, "{path}");
        }
    }

    #[test]
    fn a_page_at_the_root_leaves_the_other_paths_to_the_handler() {
        let root = || Some("/".to_owned());
        let paths = Paths {
            health: None,
            live: None,
            ready: root(),
            metrics: None,
            status: None,
            own: OwnPaths::All,
        };
        assert_eq!(paths.find("/"), Some(Page::Ready));
        assert_eq!(paths.find("/anything"), None);
        assert_eq!(paths.find("/consul"), None);
        let paths = Paths {
            health: root(),
            ..paths
        };
        assert_eq!(paths.find("/consul"), Some(Page::Consul));
    }

    #[test]
    fn only_readiness_and_liveness_stay_public_where_the_admin_listener_has_the_pages() {
        let paths = Paths {
            own: OwnPaths::Admin,
            ..Paths::from(&Config::default())
        };
        for path in ["/livez", "/livez/workers", "/readyz", "/readyz/db"] {
            assert!(paths.find_public(path).is_some(), "{path}");
        }
        for path in [
            "/health",
            "/health/consul",
            "/metrics",
            "/status",
            "/status.json",
        ] {
            assert_eq!(paths.find_public(path), None, "{path}");
            assert!(paths.find(path).is_some(), "{path}");
        }
    }

    #[test]
    fn a_path_that_is_switched_off_is_the_handlers() {
        let paths = Paths {
            live: None,
            health: Some("/up".into()),
            ..Paths::from(&Config::default())
        };
        assert_eq!(paths.find("/up"), Some(Page::Health));
        assert_eq!(paths.find("/health"), None);
        assert_eq!(paths.find("/livez"), None);
        assert_eq!(paths.find("/readyz"), Some(Page::Ready));
    }

    #[test]
    fn the_status_pages_numbers_move_with_it() {
        let mut paths = Paths::from(&Config::default());
        assert_eq!(paths.find("/status"), Some(Page::Status));
        assert_eq!(paths.find("/status.json"), Some(Page::StatusJson));
        assert_eq!(paths.find("/health.json"), None);
        paths.status = Some("/hull".into());
        assert_eq!(paths.find("/hull.json"), Some(Page::StatusJson));
        assert_eq!(paths.find("/status.json"), None);
        paths.status = None;
        assert_eq!(paths.find("/hull"), None);
        assert_eq!(paths.find("/.json"), None);
    }
}
