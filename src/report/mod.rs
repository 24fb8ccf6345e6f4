//! What monitors read: the health paths, each answered from one snapshot of the server's numbers.

mod json;
mod prometheus;
mod text;

use std::borrow::Cow;

use crate::frontend::head::{Head, Method};
use crate::health::{Health, Snapshot};

/// An answer that the frontend gives by itself.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Empty for none.
    pub(crate) content_type: &'static str,
    pub(crate) body: Cow<'static, [u8]>,
    /// Health answers are never cached: a stored 503 would outlive its cause.
    pub(crate) no_store: bool,
    pub(crate) allow: Option<&'static str>,
    /// Whole seconds.
    pub(crate) retry_after: Option<u64>,
    /// The connection closes, whatever its client would like.
    pub(crate) close: bool,
}

impl Answer {
    /// 200 and a line of text.
    pub(crate) fn text(body: &'static str) -> Self {
        Self {
            status: 200,
            content_type: "text/plain; charset=utf-8",
            body: Cow::Borrowed(body.as_bytes()),
            no_store: false,
            allow: None,
            retry_after: None,
            close: false,
        }
    }

    /// The answer to `OPTIONS *`: the server is there (RFC 9110 section 9.3.7).
    pub(crate) fn options() -> Self {
        Self {
            content_type: "",
            ..Self::text("")
        }
    }

    fn health(status: u16, content_type: &'static str, body: String) -> Self {
        Self {
            status,
            content_type,
            body: Cow::Owned(body.into_bytes()),
            no_store: true,
            ..Self::text("")
        }
    }
}

/// A health path's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    Health,
    Live,
    Ready,
    Metrics,
}

/// Where the health paths are; `None` switches one off, and leaves it to the handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paths {
    pub(crate) health: Option<String>,
    pub(crate) live: Option<String>,
    pub(crate) ready: Option<String>,
    pub(crate) metrics: Option<String>,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            health: Some("/health".into()),
            live: Some("/livez".into()),
            ready: Some("/readyz".into()),
            metrics: Some("/metrics".into()),
        }
    }
}

impl Paths {
    /// The page at that path.
    pub(crate) fn find(&self, path: &str) -> Option<Page> {
        let pages = [
            (&self.health, Page::Health),
            (&self.live, Page::Live),
            (&self.ready, Page::Ready),
            (&self.metrics, Page::Metrics),
        ];
        let found = pages
            .into_iter()
            .find(|(at, _)| at.as_deref() == Some(path));
        found.map(|(_, page)| page)
    }
}

impl Page {
    /// Answers a request for this page, to somebody who may see the `details` or not. Any method but GET, HEAD and
    /// OPTIONS is 405.
    pub(crate) fn answer(self, head: &Head, details: bool, health: &Health) -> Answer {
        const METHODS: &str = "GET, HEAD, OPTIONS";
        let _ = details;
        if !matches!(head.method, Method::Get | Method::Head | Method::Options) {
            return Answer {
                status: 405,
                allow: Some(METHODS),
                no_store: true,
                ..Answer::text("use GET, HEAD or OPTIONS here\n")
            };
        }
        let now = health.snapshot();
        let mut answer = match self {
            Self::Health if prefers_text(head.accept()) => {
                Answer::health(status(now.is_ready()), TEXT, text::health(&now))
            }
            Self::Health => Answer::health(
                status(now.is_ready()),
                "application/health+json",
                json::health(&now),
            ),
            Self::Live => {
                let line = if now.is_live() { "live\n" } else { "stuck\n" };
                Answer::health(status(now.is_live()), TEXT, line.into())
            }
            Self::Ready => {
                let body = if has_flag(head.query(), "verbose") {
                    text::ready_parts(&now)
                } else {
                    text::ready(&now)
                };
                Answer::health(status(now.is_ready()), TEXT, body)
            }
            Self::Metrics => Answer::health(
                200,
                "text/plain; version=0.0.4; charset=utf-8",
                prometheus::metrics(&now, health),
            ),
        };
        if head.method == Method::Options {
            answer.allow = Some(METHODS);
        }
        answer
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn status(good: bool) -> u16 {
    if good { 200 } else { 503 }
}

/// Whether a query has that word among its `&`-separated parts, with or without a value.
fn has_flag(query: Option<&str>, flag: &str) -> bool {
    let mut parts = query.unwrap_or_default().split('&');
    parts.any(|part| part.split('=').next() == Some(flag))
}

/// Whether text/plain stands before every JSON type in Accept (as it does in Consul's), so that the short line is
/// wanted. No Accept, or one that takes anything, gets JSON.
fn prefers_text(accept: Option<&str>) -> bool {
    for range in accept.unwrap_or_default().split(',') {
        let range = range.split(';').next().unwrap_or_default().trim();
        if range.eq_ignore_ascii_case("text/plain") {
            return true;
        }
        if range.to_ascii_lowercase().contains("json") {
            return false;
        }
    }
    false
}

/// The state in a word: the same as long as the status is, so that a monitor sees no change where there is none.
fn word(now: &Snapshot) -> &'static str {
    if now.draining {
        "draining"
    } else if now.is_healthy() {
        "healthy"
    } else {
        "unhealthy"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_served_when_it_comes_first() {
        for accept in [
            "text/plain",
            "text/plain, text/*, */*",
            "Text/Plain;q=0.9, application/json",
        ] {
            assert!(prefers_text(Some(accept)), "{accept}");
        }
        for accept in [
            "*/*",
            "",
            "application/json, text/plain",
            "application/health+json",
            "text/html",
        ] {
            assert!(!prefers_text(Some(accept)), "{accept}");
        }
        assert!(!prefers_text(None));
    }

    #[test]
    fn a_flag_is_found_with_and_without_a_value() {
        for query in ["verbose", "a=b&verbose", "verbose=1", "verbose&x"] {
            assert!(has_flag(Some(query), "verbose"), "{query}");
        }
        assert!(!has_flag(Some("verbosely&a=verbose"), "verbose"));
        assert!(!has_flag(None, "verbose"));
    }

    #[test]
    fn a_path_that_is_switched_off_is_the_handlers() {
        let paths = Paths {
            live: None,
            health: Some("/up".into()),
            ..Paths::default()
        };
        assert_eq!(paths.find("/up"), Some(Page::Health));
        assert_eq!(paths.find("/health"), None);
        assert_eq!(paths.find("/livez"), None);
        assert_eq!(paths.find("/readyz"), Some(Page::Ready));
    }
}
