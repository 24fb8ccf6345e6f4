//! Where a stream is.

use std::fmt;
use std::str::FromStr;

use super::super::error::EventOpenError;

/// Which stream of which redis: `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]/STREAM`.
///
/// ```
/// use plimsoll::patterns::EventStreamUrl;
///
/// let url: EventStreamUrl = "redis://:secret@10.0.0.1/orders".parse()?;
/// assert_eq!(url.to_string(), "redis://10.0.0.1/orders"); // for people, so without the password
/// # Ok::<(), plimsoll::patterns::EventOpenError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventStreamUrl {
    /// The same without the stream.
    pub(super) server: String,
    pub(super) stream: String,
}

/// How such a URL begins.
const SCHEME: &str = "redis://";

impl FromStr for EventStreamUrl {
    type Err = EventOpenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text
            .strip_prefix(SCHEME)
            .and_then(|rest| rest.rsplit_once('/'));
        let good = parts.filter(|(server, stream)| {
            let visible = stream.bytes().all(|byte| byte.is_ascii_graphic());
            let plain = !stream.contains(['?', '#', '%']);
            !server.is_empty() && !stream.is_empty() && visible && plain
        });
        let url = good.map(|(server, stream)| Self {
            server: format!("{SCHEME}{server}"),
            stream: stream.to_owned(),
        });
        let url = url.filter(|url| redis::Client::open(url.server.as_str()).is_ok());
        url.ok_or_else(|| {
            // What was found may hold a password.
            let expected = "expected redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]/STREAM";
            EventOpenError::Setting(expected.to_owned())
        })
    }
}

/// Without user and password.
impl fmt::Display for EventStreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = &self.server[SCHEME.len()..];
        let host = server.rsplit_once('@').map_or(server, |(_, host)| host);
        write!(f, "{SCHEME}{host}/{}", self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_server_and_a_stream_and_is_shown_without_its_password() {
        for (text, server, stream, shown) in [
            ("redis://a/s", "redis://a", "s", "redis://a/s"),
            (
                "redis://a:7/2/s:x",
                "redis://a:7/2",
                "s:x",
                "redis://a:7/2/s:x",
            ),
            ("redis://u:p@a/s", "redis://u:p@a", "s", "redis://a/s"),
        ] {
            let url: EventStreamUrl = text.parse().expect(text);
            assert_eq!((url.server.as_str(), url.stream.as_str()), (server, stream));
            assert_eq!(url.to_string(), shown);
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
}
