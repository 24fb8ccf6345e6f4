//! HTTP: a GET whose status is 2xx or 3xx.

use std::ops::Range;
use std::time::Instant;

use super::get::{Get, WELL};
use super::wire;
use crate::checks::CheckError;
use crate::net::client::Reply;
use crate::net::url::{Endpoint, HTTP_PORT, StoreUrlError, Url};
use crate::patterns::Deadline;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Http {
    endpoint: Endpoint,
    get: Get,
}

impl Http {
    pub(super) fn new(url: &Url) -> Result<Self, StoreUrlError> {
        Self::accepting("*/*", url)
    }

    /// `accept` is the header's value.
    pub(super) fn accepting(accept: &str, url: &Url) -> Result<Self, StoreUrlError> {
        url.refuse_user()?;
        let endpoint = url.endpoint(Some(HTTP_PORT))?;
        let path = if url.path.is_empty() { "/" } else { &url.path };
        let query = url
            .query
            .as_ref()
            .map_or_else(String::new, |query| format!("?{query}"));
        // A URL is visible ASCII.
        let get = Get::new(&format!("{path}{query}"), &endpoint.authority(), accept);
        Ok(Self { endpoint, get })
    }

    pub(super) fn check(&self, deadline: Instant) -> Result<(), CheckError> {
        self.ask(deadline, &WELL).map(drop)
    }

    /// Asks, and waits for the reply's head, whose status is one of `statuses`.
    pub(super) fn ask(
        &self,
        deadline: Instant,
        statuses: &Range<u16>,
    ) -> Result<Reply, CheckError> {
        let socket = wire::connect(&self.endpoint, deadline)?;
        self.get.ask(socket, Deadline::at(deadline), statuses)
    }
}

#[cfg(all(test, feature = "checks"))]
mod tests {
    use std::io::Write;

    use super::super::fake::Fake;
    use super::super::{Store, UrlPart};
    use super::*;

    fn request(url: &str) -> String {
        let url =
            crate::net::url::Scheme::split(url, "http://").and_then(|scheme| Url::parse(&scheme));
        Http::new(&url.expect("a good URL"))
            .expect("a good URL")
            .get
            .0
    }

    #[test]
    fn the_request_is_whole_and_names_the_host() {
        let agent = concat!("plimsoll/", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            request("http://Host.example:8080/a%20b?c=d"),
            format!(
                "GET /a%20b?c=d HTTP/1.1\r\nHost: host.example:8080\r\nUser-Agent: {agent}\r\nAccept: */*\r\n\
                 Connection: close\r\n\r\n"
            )
        );
        for (url, start) in [
            ("http://h", "GET / HTTP/1.1\r\nHost: h\r\n"),
            ("http://h:80/", "GET / HTTP/1.1\r\nHost: h\r\n"),
            ("http://h?x", "GET /?x HTTP/1.1\r\nHost: h\r\n"),
            ("http://[::1]:81/x", "GET /x HTTP/1.1\r\nHost: [::1]:81\r\n"),
        ] {
            assert!(request(url).starts_with(start), "{url}: {:?}", request(url));
        }
    }

    #[test]
    fn a_query_is_not_shown_for_it_may_hold_a_token() {
        let store: Store = "http://h/x?token=hunter2".parse().unwrap();
        assert_eq!(store.to_string(), "http://h/x?***");
    }

    #[test]
    fn users_and_tls_are_refused() {
        for (url, part) in [
            ("http://u:hunter2@h/", UrlPart::User),
            ("https://h/", UrlPart::Scheme),
        ] {
            let error = url.parse::<Store>().unwrap_err();
            assert_eq!(error.part, part, "{url}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let error = "https://h/".parse::<Store>().unwrap_err().to_string();
        assert!(
            error.contains("TLS") && error.contains("found https://"),
            "{error}"
        );
    }

    #[test]
    fn good_statuses_pass_and_others_are_told() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"[..],
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.0 302\nLocation: /login\n\n",
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            Fake::saying(answer)
                .check("http://HOST/")
                .expect("it serves");
        }
        for (answer, found) in [
            (
                &b"HTTP/1.1 503 Service Unavailable\r\n\r\n"[..],
                "HTTP/1.1 503 Service Unavailable",
            ),
            (b"HTTP/1.1 404 \x1b[1mNo\r\n\r\n", "HTTP/1.1 404 ?[1mNo"),
            (b"HTTP/1.1 099 x\r\n\r\n", "HTTP/1.1 099 x"),
            (
                b"-ERR unknown command 'GET'\r\n",
                "-ERR unknown command 'GET'",
            ),
        ] {
            let error = Fake::saying(answer).failure("http://HOST/");
            assert!(error.ends_with(&format!("found {found:?}")), "{error}");
        }
    }

    #[test]
    fn the_body_is_not_waited_for() {
        let fake = Fake::saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbut");
        fake.check("http://HOST/").expect("its head came");
    }

    #[test]
    fn the_request_is_sent_once() {
        let (fake, hear) = Fake::hearing(b"HTTP/1.1 200 OK\r\n\r\n");
        fake.check("http://HOST/live").expect("it serves");
        drop(fake);
        let heard: String = hear.into_iter().collect();
        assert!(heard.starts_with("GET /live HTTP/1.1\r\n"), "{heard}");
        assert!(
            heard.ends_with("\r\n\r\n") && heard.matches("GET").count() == 1,
            "{heard}"
        );
    }

    #[test]
    fn a_hostile_server_neither_stretches_the_deadline_nor_fills_memory() {
        const URL: &str = "http://HOST/";
        Fake::silent().expect_timeout(URL);
        Fake::dripping(b"HTTP/1.1 200 OK\r\n").expect_timeout(URL);
        for start in [&b"HTTP/1.1 200 OK"[..], b"HTTP/1.1 200 OK\r\nx: "] {
            let error = Fake::flooding(start).failure(URL);
            assert_eq!(
                error,
                "GET: expected a head of at most 65536 bytes, found more"
            );
        }
        let headers = Fake::start(|stream| {
            let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            while sent.is_ok() {
                sent = stream.write_all("Set-Cookie: one-more\r\n".repeat(100).as_bytes());
            }
        });
        assert_eq!(
            headers.failure(URL),
            "GET: expected at most 100 fields, found more"
        );
        let interim = Fake::start(|stream| {
            let mut sent = Ok(());
            while sent.is_ok() {
                sent = stream.write_all("HTTP/1.1 100 Continue\r\n\r\n".repeat(100).as_bytes());
            }
        });
        assert_eq!(
            interim.failure(URL),
            "GET: expected at most 16 interim replies, found more"
        );
        assert_eq!(
            Fake::closing().failure(URL),
            "the connection was closed before the answer"
        );
    }
}
