//! What a source of endpoints is called, and what is wrong with its text.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::net::url::{Endpoint as Place, HTTP_PORT, Host, Scheme, Url};

/// The schemes, as an error lists them.
const SCHEMES: &str = "http://, unix:, srv:// and file:";

/// Longest path of a Unix socket, in bytes, without the NUL behind it: `sockaddr_un` of Linux.
const MOST_SOCKET_PATH: usize = 107;

/// The port that a name server listens on.
const DNS_PORT: u16 = 53;

/// Largest weight of an endpoint.
const MOST_WEIGHT: u32 = 65_535;

/// What is wrong with the text of a source. Prints as one line: `SOURCE: expected X, found Y`.
///
/// ```
/// use plimsoll::patterns::Discovery;
///
/// let error = Discovery::new(["https://api.example"]).unwrap_err();
/// assert_eq!(error.source, "https://api.example");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceError {
    /// The source; without what may be a password.
    pub source: String,
    /// What it should be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            expected,
            found,
        } = self;
        write!(f, "{source}: expected {expected}, found {found}")
    }
}

impl std::error::Error for SourceError {}

/// What is behind the `#` of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) weight: u32,
    pub(super) max: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            weight: 1,
            max: None,
        }
    }
}

/// A source of endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Every address of a name, or a single one.
    Http {
        place: Place,
        prefix: String,
        options: Options,
    },
    /// A Unix socket.
    Unix { path: PathBuf, options: Options },
    /// What a name server says.
    Srv {
        name: String,
        /// None: the system's.
        server: Option<SocketAddr>,
    },
    /// The sources in a file, one a line.
    File(PathBuf),
}

impl Source {
    /// Reads a source.
    pub(super) fn parse(text: &str) -> Result<Self, SourceError> {
        let refuse = |expected: String, found: String| SourceError {
            source: shown(text),
            expected,
            found,
        };
        let scheme = Scheme::split(text, SCHEMES)
            .map_err(|error| refuse(error.expected.clone(), error.found.clone()))?;
        let parsed = match scheme.name {
            "http" => parse_http(text),
            "unix" => parse_unix(scheme.rest),
            "srv" => parse_srv(text),
            "file" if scheme.rest.is_empty() => Err(wrong("a path after file:", "none")),
            "file" => Ok(Self::File(scheme.rest.into())),
            _ => {
                let error = scheme.refuse(SCHEMES);
                Err((error.expected, error.found))
            }
        };
        parsed.map_err(|(expected, found)| refuse(expected, found))
    }

    /// Whether nobody has to be asked for the endpoint.
    pub(super) fn is_at_hand(&self) -> bool {
        match self {
            Self::Http { place, .. } => matches!(place.host, Host::Address(_)),
            Self::Unix { .. } => true,
            Self::Srv { .. } | Self::File(_) => false,
        }
    }
}

/// What was expected and what was found.
type Wrong = (String, String);

fn wrong(expected: &str, found: &str) -> Wrong {
    (expected.to_owned(), found.to_owned())
}

/// The text without what may be a password.
fn shown(text: &str) -> String {
    const MOST: usize = 100;
    let end = text.rfind('@').map_or(0, |at| at + 1);
    let start = text.find("://").map_or(0, |colon| colon + 3);
    let text = if end > start {
        format!("{}***@{}", &text[..start], &text[end..])
    } else {
        text.to_owned()
    };
    text.chars()
        .take(MOST)
        .map(|character| {
            if character.is_control() {
                '?'
            } else {
                character
            }
        })
        .collect()
}

fn url(text: &str) -> Result<Url, Wrong> {
    Scheme::split(text, SCHEMES)
        .and_then(|scheme| Url::parse(&scheme))
        .and_then(|url| url.refuse_user().map(|()| url))
        .map_err(|error| (format!("{}: {}", error.part, error.expected), error.found))
}

fn parse_http(text: &str) -> Result<Source, Wrong> {
    let (text, options) = split_options(text)?;
    let url = url(text)?;
    if url.query.is_some() {
        return Err(wrong("no ? in it", "one"));
    }
    let prefix = url.path.trim_end_matches('/');
    // The dots may be percent-encoded: a server decodes them before it resolves the path.
    let is_dots = |segment: &str| {
        let decoded = segment.to_ascii_lowercase().replace("%2e", ".");
        matches!(decoded.as_str(), "." | "..")
    };
    if prefix.split('/').any(is_dots) {
        return Err(wrong("a prefix without the segments . and ..", "one"));
    }
    let place = url
        .endpoint(Some(HTTP_PORT))
        .map_err(|error| (error.expected, error.found))?;
    Ok(Source::Http {
        place,
        prefix: prefix.to_owned(),
        options,
    })
}

fn parse_unix(rest: &str) -> Result<Source, Wrong> {
    let (path, options) = split_options(rest)?;
    if !(1..=MOST_SOCKET_PATH).contains(&path.len()) {
        let found = format!("{} bytes", path.len());
        return Err((format!("a path of 1 to {MOST_SOCKET_PATH} bytes"), found));
    }
    Ok(Source::Unix {
        path: path.into(),
        options,
    })
}

fn parse_srv(text: &str) -> Result<Source, Wrong> {
    const EXPECTED: &str = "srv://NAME or srv://NAME?server=IP:PORT";
    let url = url(text)?;
    if !matches!(url.path.as_str(), "" | "/") {
        return Err(wrong(EXPECTED, "a path"));
    }
    let server = match &url.query {
        None => None,
        Some(query) => match query.strip_prefix("server=").and_then(parse_server) {
            Some(server) => Some(server),
            None => return Err((EXPECTED.to_owned(), format!("?{query}"))),
        },
    };
    // A port means that there is a host, and no service.
    if url.endpoint(None).is_ok() {
        return Err(wrong(EXPECTED, "a port"));
    }
    let place = url
        .endpoint(Some(DNS_PORT))
        .map_err(|error| (error.expected, error.found))?;
    match place.host {
        Host::Name(name) => Ok(Source::Srv { name, server }),
        Host::Address(_) => Err(wrong(EXPECTED, "an address")),
    }
}

fn parse_server(text: &str) -> Option<SocketAddr> {
    let with_port = text.parse().ok();
    with_port.or_else(|| {
        let address: IpAddr = text.parse().ok()?;
        Some(SocketAddr::new(address, DNS_PORT))
    })
}

/// What is before the `#`, and the options behind it.
fn split_options(text: &str) -> Result<(&str, Options), Wrong> {
    let Some((text, list)) = text.split_once('#') else {
        return Ok((text, Options::default()));
    };
    let mut options = Options::default();
    let mut seen = (false, false);
    for option in list.split('&') {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let number = value.parse().ok().filter(|_| is_number);
        let number = number.filter(|number| (1..=MOST_WEIGHT).contains(number));
        match (name, number) {
            ("weight", Some(weight)) if !seen.0 => (options.weight, seen.0) = (weight, true),
            ("max", Some(max)) if !seen.1 => (options.max, seen.1) = (Some(max), true),
            _ => {
                let expected = format!(
                    "#weight=N or #max=N, or both joined by &, each once, N from 1 to {MOST_WEIGHT}"
                );
                return Err((expected, format!("#{list}")));
            }
        }
    }
    Ok((text, options))
}

/// Most bytes of a file of sources.
pub(super) const MOST_FILE: u64 = 256 * 1024;

/// Reads the text of a file of sources: one a line; empty lines and those that begin with `#` are skipped.
///
/// # Errors
/// The first bad line, by its number.
pub(super) fn parse_file(text: &[u8]) -> Result<Vec<Source>, String> {
    if text.len() as u64 > MOST_FILE {
        return Err(format!("expected at most {MOST_FILE} bytes, found more"));
    }
    let text = str::from_utf8(text).map_err(|error| {
        let before = &text[..error.valid_up_to()];
        let line = before.split(|&byte| byte == b'\n').count();
        format!("line {line}: expected UTF-8, found other bytes")
    })?;
    let mut sources = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = index + 1;
        match Source::parse(line) {
            Ok(source @ (Source::Http { .. } | Source::Unix { .. })) => sources.push(source),
            Ok(_) => {
                let source = shown(line);
                return Err(format!(
                    "line {number}: {source}: expected http:// or unix: in a file, found another"
                ));
            }
            Err(error) => return Err(format!("line {number}: {error}")),
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn http(text: &str) -> (Place, String, Options) {
        match Source::parse(text) {
            Ok(Source::Http {
                place,
                prefix,
                options,
            }) => (place, prefix, options),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn sources_are_read() {
        let (place, prefix, options) = http("http://Api.example:9000/v1/#weight=3&max=4");
        assert_eq!(
            (place.host, place.port),
            (Host::Name("api.example".into()), 9000)
        );
        assert_eq!(
            (prefix.as_str(), options.weight, options.max),
            ("/v1", 3, Some(4))
        );
        let (place, prefix, options) = http("http://[::1]#max=1");
        assert_eq!((place.port, prefix.as_str(), options.weight), (80, "", 1));
        assert_eq!(options.max, Some(1));
        assert_eq!(http("http://h/...").1, "/...");
        assert_eq!(
            Source::parse("unix:/run/a.sock#weight=2"),
            Ok(Source::Unix {
                path: "/run/a.sock".into(),
                options: Options {
                    weight: 2,
                    max: None
                },
            })
        );
        let srv = |name: &str, server: Option<&str>| {
            Ok(Source::Srv {
                name: name.to_owned(),
                server: server.map(|server| server.parse().expect("an address")),
            })
        };
        assert_eq!(
            Source::parse("srv://_http._tcp.api"),
            srv("_http._tcp.api", None)
        );
        for (given, server) in [
            ("127.0.0.1:8600", "127.0.0.1:8600"),
            ("127.0.0.1", "127.0.0.1:53"),
            ("[::1]:8600", "[::1]:8600"),
            ("::1", "[::1]:53"),
        ] {
            let text = format!("srv://api.service.consul?server={given}");
            assert_eq!(
                Source::parse(&text),
                srv("api.service.consul", Some(server))
            );
        }
        assert_eq!(
            Source::parse("file:hosts"),
            Ok(Source::File("hosts".into()))
        );
    }

    #[test]
    fn what_is_wrong_with_a_source_is_told() {
        for (text, expected, found) in [
            ("", SCHEMES, "none of them"),
            ("api:9000", "http://", "none of them"),
            ("https://api", "TLS", "https://"),
            ("ftp://api", SCHEMES, "ftp://"),
            ("http:/api", "http://", "no //"),
            ("http://", "host", "none"),
            ("http://api:0", "1 to 65535", "another number"),
            ("http://api:http", "1 to 65535", "something else"),
            ("http://user:s3cret@api", "none in a URL", "one"),
            ("http://api/?x", "no ?", "one"),
            ("http://api/../x", "segments", "one"),
            ("http://api/a/./b", "segments", "one"),
            ("http://api/%2E%2e", "segments", "one"),
            ("http://api/.%2e/x", "segments", "one"),
            ("http://a b", "visible ASCII", "others"),
            ("http://api#weight=0", "from 1 to 65535", "#weight=0"),
            (
                "http://api#weight=65536",
                "from 1 to 65535",
                "#weight=65536",
            ),
            ("http://api#weight=+1", "from 1 to 65535", "#weight=+1"),
            (
                "http://api#weight=1&weight=2",
                "each once",
                "#weight=1&weight=2",
            ),
            ("http://api#max=", "from 1 to 65535", "#max="),
            ("http://api#slow=1", "#weight=N", "#slow=1"),
            ("http://api#", "#weight=N", "#"),
            ("unix:", "1 to 107 bytes", "0 bytes"),
            ("srv://127.0.0.1", "srv://NAME", "an address"),
            ("srv://api:80", "srv://NAME", "a port"),
            ("srv://api/x", "srv://NAME", "a path"),
            (
                "srv://api?server=dns.example",
                "srv://NAME",
                "?server=dns.example",
            ),
            ("srv://api?x=1", "srv://NAME", "?x=1"),
            ("file:", "a path", "none"),
        ] {
            let error = Source::parse(text).expect_err(text);
            assert!(error.expected.contains(expected), "{text}: {error}");
            assert!(error.found.contains(found), "{text}: {error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        assert_eq!(Source::parse(&long).unwrap_err().found, "108 bytes");
        let error = Source::parse("http://user:s3cret@api").unwrap_err();
        assert_eq!(error.source, "http://***@api");
    }

    #[test]
    fn a_file_has_a_source_on_each_line() {
        let text = b"# production\n\nhttp://10.0.0.1:9000\r\n  unix:/run/a.sock  \nhttp://h#max=2";
        assert_eq!(parse_file(text).map(|sources| sources.len()), Ok(3));
        assert_eq!(parse_file(b""), Ok(Vec::new()));
        for (text, error) in [
            (&b"http://a\nhttp//b\n"[..], "line 2: http//b: expected"),
            (b"\n\nfile:more\n", "line 3: file:more: expected http://"),
            (b"srv://x", "line 1: srv://x: expected http://"),
            (b"http://a\nhttp://\xff\n", "line 2: expected UTF-8"),
        ] {
            let told = parse_file(text).expect_err("a bad line");
            assert!(told.starts_with(error), "{told}");
        }
        assert!(parse_file(&vec![b'\n'; 1 << 20]).is_err());
    }
}
