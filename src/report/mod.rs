//! What monitors read: the health paths, each answered from one snapshot of the server's numbers.

mod agent;
mod json;
mod parts;
mod paths;
mod prometheus;
#[cfg(feature = "status-page")]
mod status;
mod text;

use std::borrow::Cow;
use std::time::SystemTime;

use crate::health::{Health, Snapshot, Status};
use crate::http::head::{Head, Method};
pub(crate) use agent::line as agent_line;
pub(crate) use paths::Paths;

/// An answer that the event loop gives by itself.
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
    /// More headers.
    pub(crate) headers: &'static [(&'static str, &'static str)],
    /// More headers, with values made for this answer.
    pub(crate) made_headers: Vec<(&'static str, String)>,
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
            headers: &[],
            made_headers: Vec::new(),
        }
    }

    /// The answer to `OPTIONS *`: the server is there (RFC 9110 section 9.3.7).
    pub(crate) fn options() -> Self {
        Self {
            content_type: "",
            ..Self::text("")
        }
    }

    /// The answer to `PURGE`: so many kept replies were forgotten.
    #[cfg(feature = "cache")]
    pub(crate) fn purged(count: usize) -> Self {
        let replies = if count == 1 { "reply" } else { "replies" };
        Self {
            body: Cow::Owned(format!("{count} {replies} purged\n").into_bytes()),
            ..Self::text("")
        }
    }

    /// The answer where there is nothing, or nothing for this client.
    pub(crate) fn not_found() -> Self {
        Self {
            status: 404,
            no_store: true,
            ..Self::text("not found\n")
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
    /// The health of an agent that tells a warning by its status.
    Consul,
    Live,
    /// One part of liveness: its name follows the path.
    LivePart,
    Ready,
    /// One part of readiness.
    ReadyPart,
    Metrics,
    #[cfg(feature = "status-page")]
    Status,
    /// What the status page shows.
    #[cfg(feature = "status-page")]
    StatusJson,
}

impl Page {
    /// Whether there is something in it for those who may not see the details.
    fn has_a_word(self) -> bool {
        matches!(self, Self::Health | Self::Consul | Self::Live | Self::Ready)
    }

    /// Answers a request for this page. Who may not see the `details` gets the status word, and 404 where there is
    /// nothing but details. Any method but GET, HEAD and OPTIONS is 405.
    pub(crate) fn answer(self, head: &Head, details: bool, health: &Health) -> Answer {
        const METHODS: &str = "GET, HEAD, OPTIONS";
        if !details && !self.has_a_word() {
            return Answer::not_found();
        }
        if !matches!(head.method, Method::Get | Method::Head | Method::Options) {
            return Answer {
                status: 405,
                allow: Some(METHODS),
                no_store: true,
                ..Answer::text("use GET, HEAD or OPTIONS here\n")
            };
        }
        let now = health.snapshot();
        let query = head.query().filter(|_| details);
        let verbose = parts::has_flag(query, "verbose");
        let mut answer = match self {
            Self::Health if prefers_text(head.accept()) => {
                Answer::health(status(now.is_ready()), TEXT, text::health(&now))
            }
            Self::Health => {
                let body = if details {
                    json::health(&now, SystemTime::now())
                } else {
                    json::status(&now)
                };
                Answer::health(status(now.is_ready()), "application/health+json", body)
            }
            Self::Consul => Answer::health(consul_status(&now), TEXT, text::health(&now)),
            Self::Live => {
                let verdict = parts::judge("livez", &parts::live(&now), query);
                let line = text::live(verdict.good);
                let body = if verbose { verdict.text } else { line };
                Answer::health(status(verdict.good), TEXT, body)
            }
            Self::Ready => {
                let verdict = parts::judge("readyz", &parts::ready(&now), query);
                let line = text::ready(&now, verdict.good);
                let body = if verbose { verdict.text } else { line };
                Answer::health(status(verdict.good), TEXT, body)
            }
            Self::LivePart => part_answer(&parts::live(&now), head.path()),
            Self::ReadyPart => part_answer(&parts::ready(&now), head.path()),
            Self::Metrics => Answer::health(
                200,
                "text/plain; version=0.0.4; charset=utf-8",
                prometheus::metrics(&now, health),
            ),
            #[cfg(feature = "status-page")]
            Self::Status => status::page(),
            #[cfg(feature = "status-page")]
            Self::StatusJson => status::json(&now, health, head.query()),
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

/// Consul takes 2xx for passing, 429 for a warning, and anything else for critical.
fn consul_status(now: &Snapshot) -> u16 {
    match now.status() {
        Status::Pass => 200,
        Status::Warn => 429,
        Status::Fail => 503,
    }
}

/// The answer about the part that the path's last segment names: how it is by itself, whatever hangs on it.
fn part_answer(parts: &[parts::Part<'_>], path: &str) -> Answer {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    parts::find(parts, name).map_or_else(Answer::not_found, |part| {
        Answer::health(status(part.is_good()), TEXT, format!("{}\n", part.line()))
    })
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
    match now.status() {
        _ if now.draining => "draining",
        Status::Pass => "healthy",
        Status::Warn => "warning",
        Status::Fail => "unhealthy",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::checks::{CheckReport, CheckState};
    use std::time::{Duration, Instant};

    /// What a server that has just started knows of itself.
    pub(in crate::report) fn snapshot() -> Snapshot {
        Health::of_a_new_server(Instant::now()).snapshot()
    }

    #[test]
    fn consul_is_told_a_warning_by_the_status() {
        let mut now = snapshot();
        assert_eq!((consul_status(&now), word(&now)), (200, "healthy"));
        now.checks = vec![CheckReport::sample("cache", false, CheckState::Down)];
        assert_eq!((consul_status(&now), word(&now)), (429, "warning"));
        assert!(now.is_ready(), "a warning takes no traffic away");
        now.checks[0].critical = true;
        assert_eq!((consul_status(&now), word(&now)), (503, "unhealthy"));
        now.draining = true;
        assert_eq!((consul_status(&now), word(&now)), (503, "draining"));
    }

    #[test]
    fn the_line_is_the_same_while_the_status_is() {
        let mut now = snapshot();
        now.checks = vec![CheckReport::sample("cache", false, CheckState::Down)];
        let line = text::health(&now);
        now.service_time = Some(Duration::from_millis(400));
        now.connections = 12;
        now.uptime = Duration::from_secs(99);
        now.checks[0].error = Some("refused".into());
        now.checks
            .push(CheckReport::sample("search", false, CheckState::Down));
        assert_eq!(text::health(&now), line);
        assert_eq!(line, "warning\n");
    }

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
}
