//! Where a stream is.

use std::fmt;
use std::str::FromStr;

use super::super::error::EventOpenError;
use crate::net::redis::RedisUrl;

/// Which stream of which redis: `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]/STREAM`. See
/// [`RedisUrl`] for all but the stream.
///
/// ```
/// use plimsoll::patterns::EventStreamUrl;
///
/// let url: EventStreamUrl = "redis://:secret@10.0.0.1/orders".parse()?;
/// assert_eq!(url.to_string(), "redis://:***@10.0.0.1/orders");
/// # Ok::<(), plimsoll::patterns::EventOpenError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventStreamUrl {
    pub(super) server: RedisUrl,
    pub(super) stream: String,
}

impl FromStr for EventStreamUrl {
    type Err = EventOpenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.rsplit_once('/').filter(|(_, stream)| {
            let visible = stream.bytes().all(|byte| byte.is_ascii_graphic());
            // Behind a slash in a password that is not percent-encoded, there is an @.
            let plain = !stream.contains(['?', '#', '%', '@']);
            !stream.is_empty() && visible && plain
        });
        let url = parts.and_then(|(server, stream)| {
            let server = server.parse().ok()?;
            let stream = stream.to_owned();
            Some(Self { server, stream })
        });
        url.ok_or_else(|| {
            // What was found may hold a password.
            let expected = "expected redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]/STREAM";
            EventOpenError::Setting(expected.to_owned())
        })
    }
}

/// Without the password.
impl fmt::Display for EventStreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.server, self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_server_and_a_stream() {
        for (text, server, stream) in [
            ("redis://a/s", "redis://a", "s"),
            ("redis://a:7/2/s:x", "redis://a:7/2", "s:x"),
            ("redis://u:p@[::1]/s", "redis://u:***@[::1]", "s"),
        ] {
            let url: EventStreamUrl = text.parse().expect(text);
            let found = (url.server.to_string(), url.stream.as_str());
            assert_eq!(found, (server.to_owned(), stream));
            assert_eq!(url.to_string(), format!("{server}/{stream}"));
        }
        for bad in [
            "",
            "redis://",
            "redis://a",
            "redis://a/",
            "redis:///s",
            "rediss://a/s",
            "redis://a/b/s",
            "redis://a/s?x",
            "redis://a:x/s",
            "/dir",
        ] {
            let error = bad.parse::<EventStreamUrl>().expect_err(bad);
            assert!(matches!(error, EventOpenError::Setting(_)), "{bad}");
        }
    }

    #[test]
    fn neither_a_url_nor_the_error_of_one_shows_a_password() {
        for text in [
            "redis://:hunter2@a/s",
            "redis://user:hunter2@a:1/2/s",
            "redis://hunter2@a/s",
            "redis://:hun/ter2hunter2@a/s",
            "redis://a:1/hunter2@b",
            "redis://:hunter2@a/s?x",
        ] {
            let url = text.parse::<EventStreamUrl>();
            let shown = match url {
                Ok(url) => format!("{url} {url:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
