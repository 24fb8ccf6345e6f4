//! The settings of the events.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::settings::{Complaint, ConfigError, Count, Kind, LONGEST, Maybe, Size, Span, Word};

use crate::patterns::EventSettings;
#[cfg(feature = "redis")]
use crate::patterns::EventStreamUrl;
use crate::patterns::events::is_url;
use crate::settings::define_settings;

define_settings! {
    /// Which requests are events, and how they are kept and delivered.
    ///
    /// ```
    /// use plimsoll::proxy::EventsConfig;
    ///
    /// let mut config = EventsConfig::default();
    /// config.events = Some("/events=/var/lib/plimsoll".parse()?);
    /// assert_eq!((config.events_max, config.events_parallel), (64 << 20, 8));
    /// # Ok::<(), plimsoll::ConfigError>(())
    /// ```
    EventsConfig;

    /// Which requests are events, and where they are kept. Default none.
    own events: Option<EventsAt> = None => {
        flag: "events", variable: "PLIMSOLL_EVENTS", kind: Maybe(Word::new("PREFIX=DIR", AT)),
        default: "none", help: "keep POSTs under PREFIX in DIR until the service has taken them",
    }
    /// Most bytes of all files in the directory. Default 64 MiB; 512 KiB to 4 GiB.
    own events_max: usize = 64 << 20 => {
        flag: "events-max", variable: "PLIMSOLL_EVENTS_MAX", kind: Size(512 << 10..=MOST),
        help: "all files of the events together",
    }
    /// Events that are delivered at once. Default 8; 1 to 1024.
    own events_parallel: usize = 8 => {
        flag: "events-parallel", variable: "PLIMSOLL_EVENTS_PARALLEL", kind: Count(1..=1024),
        help: "events that are delivered at once",
    }
    /// How long to wait after the first, the second, ... failed attempt to deliver. Default 1 s, 5 s, 30 s, 2 min, 10 min,
    /// 1 h, 3 h, 6 h, 12 h; 1 to 100 waits of at most 24 h.
    own events_retry: Vec<Duration> = EventSettings::default().delays => {
        flag: "events-retry", variable: "PLIMSOLL_EVENTS_RETRY", kind: DelayList,
        default: "1s,5s,30s,2m,10m,1h,3h,6h,12h",
        help: "waits after failed attempts; the event is given up after the last",
    }
}

/// Most bytes of a queue, or of what has an address where an address has 32 bits.
const MOST: usize = if usize::BITS > 32 { 4 << 30 } else { 1 << 30 };

const AT: &str = "PREFIX=DIR, a path and a directory, such as /events=/var/lib/plimsoll";

/// Which requests are events, and where they are kept: `PREFIX=DIR` or, with the feature `redis`,
/// `PREFIX=redis://HOST/STREAM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsAt {
    /// The path at and below which each POST is an event, without a slash at its end.
    pub prefix: String,
    /// Where they are kept.
    pub place: EventsPlace,
}

/// Where events are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventsPlace {
    /// A directory of this machine, for one process.
    Directory(PathBuf),
    /// A stream of redis, for several replicas, with a smaller promise.
    #[cfg(feature = "redis")]
    Stream(EventStreamUrl),
}

impl FromStr for EventsPlace {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_url(text) {
            #[cfg(feature = "redis")]
            if let Ok(url) = text.parse() {
                return Ok(Self::Stream(url));
            }
            let expected = if cfg!(feature = "redis") {
                "PREFIX=redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]/STREAM"
            } else {
                "a directory, as this program was built without the feature redis"
            };
            return Err(ConfigError {
                option: "events",
                expected: expected.to_owned(),
                // It may hold a password.
                found: "another URL".to_owned(),
            });
        }
        Ok(Self::Directory(text.into()))
    }
}

impl fmt::Display for EventsPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            #[cfg(feature = "redis")]
            Self::Stream(url) => url.fmt(f),
        }
    }
}

impl FromStr for EventsAt {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = text.split_once('=').filter(|(prefix, place)| {
            let visible = prefix.bytes().all(|byte| byte.is_ascii_graphic());
            let plain = !prefix.contains(['?', '#']);
            prefix.starts_with('/') && visible && plain && !place.is_empty()
        });
        let (prefix, place) = at.ok_or_else(|| ConfigError {
            option: "events",
            expected: AT.to_owned(),
            found: format!("{text:?}"),
        })?;
        Ok(Self {
            prefix: prefix.trim_end_matches('/').to_owned(),
            place: place.parse()?,
        })
    }
}

impl fmt::Display for EventsAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.prefix.is_empty() {
            "/"
        } else {
            &self.prefix
        };
        write!(f, "{prefix}={}", self.place)
    }
}

/// Some waits, with commas between them.
struct DelayList;

impl Kind for DelayList {
    type Value = Vec<Duration>;

    fn placeholder(&self) -> &'static str {
        "LIST"
    }

    fn expected(&self) -> String {
        "1 to 100 durations above 0 and at most 24h, such as 1s,30s,10m".to_owned()
    }

    fn parse(&self, text: &str) -> Result<Vec<Duration>, Complaint> {
        let waits = text.split(',').map(|wait| Span::AboveZero.parse(wait));
        waits
            .collect::<Result<_, _>>()
            .map_err(|_| self.complaint())
    }

    fn show(&self, value: &Vec<Duration>) -> String {
        let waits = value.iter().map(|wait| Span::AboveZero.show(wait));
        waits.collect::<Vec<_>>().join(",")
    }

    fn check(&self, value: &Vec<Duration>) -> Result<(), Complaint> {
        let each = |wait: &Duration| !wait.is_zero() && *wait <= LONGEST;
        let fits = (1..=100).contains(&value.len()) && value.iter().all(each);
        fits.then_some(()).ok_or_else(|| self.complaint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_and_a_directory_are_read_and_shown() {
        for (text, prefix, directory) in [
            ("/events=/var/lib/e", "/events", "/var/lib/e"),
            ("/a/b=rel=x", "/a/b", "rel=x"),
            ("/=e", "", "e"),
        ] {
            let at: EventsAt = text.parse().expect(text);
            let place = EventsPlace::Directory(directory.into());
            assert_eq!((at.prefix.as_str(), &at.place), (prefix, &place));
            assert_eq!(at.to_string(), text);
        }
        for bad in [
            "",
            "/events",
            "/events=",
            "events=/x",
            "=/x",
            "/a b=/x",
            "/a?b=/x",
        ] {
            let error = bad.parse::<EventsAt>().expect_err(bad);
            assert_eq!((error.option, error.found), ("events", format!("{bad:?}")));
        }
    }

    #[test]
    fn a_url_of_redis_is_never_taken_for_a_directory() {
        let read = "/e=redis://:secret@127.0.0.1/orders".parse::<EventsAt>();
        if cfg!(feature = "redis") {
            let at = read.expect("a good URL");
            assert!(!format!("{at:?}").contains("secret"), "{at:?}");
            assert_eq!(at.to_string(), "/e=redis://:***@127.0.0.1/orders");
        } else {
            let error = read.expect_err("there is no redis").to_string();
            assert!(error.contains("without the feature redis"), "{error}");
        }
        for bad in ["/e=redis://:secret@host", "/e=rediss://:secret@host/s"] {
            let error = bad.parse::<EventsAt>().expect_err(bad).to_string();
            assert!(
                error.contains("redis") && !error.contains("secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn waits_are_read_and_shown() {
        let text = "1s,5s,30s,2m,10m,1h,3h,6h,12h";
        let default = EventsConfig::default().events_retry;
        assert_eq!(DelayList.parse(text), Ok(default.clone()));
        assert_eq!(DelayList.parse(&DelayList.show(&default)), Ok(default));
        for bad in ["", "1", "1s,", "1s 2s"] {
            assert!(DelayList.parse(bad).is_err(), "{bad}");
        }
        assert!(DelayList.check(&vec![Duration::ZERO]).is_err());
        assert!(DelayList.check(&vec![]).is_err());
    }
}
