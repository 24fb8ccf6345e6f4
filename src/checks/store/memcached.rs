//! Memcached: `version`, in the text protocol.

use std::time::Instant;

use super::clean::clean;
use super::wire::Wire;
use crate::checks::CheckError;
use crate::net::url::{Endpoint, StoreUrlError, Url};

/// Longest line that a server answers with; a version is shorter.
const MOST_LINE: usize = 512;

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Memcached(Endpoint);

impl Memcached {
    pub(super) fn new(url: &Url) -> Result<Self, StoreUrlError> {
        url.refuse_user()?;
        url.refuse_path()?;
        url.refuse_options()?;
        Ok(Self(url.endpoint(Some(11211))?))
    }

    pub(super) fn check(&self, deadline: Instant) -> Result<(), CheckError> {
        let mut wire = Wire::connect(&self.0, deadline)?;
        wire.send(b"version\r\n")?;
        let line = wire.line(MOST_LINE)?;
        if line.starts_with(b"VERSION ") {
            return Ok(());
        }
        let found = clean(&line, None);
        Err(CheckError::new(format!(
            "version: expected VERSION, found {found:?}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::super::{Store, UrlPart};

    #[test]
    fn parts_that_make_no_sense_are_refused() {
        for (url, part) in [
            ("memcached://u:p@h", UrlPart::User),
            ("memcached://h/1", UrlPart::Path),
            ("memcached://h?x", UrlPart::Option),
        ] {
            assert_eq!(url.parse::<Store>().unwrap_err().part, part, "{url}");
        }
    }

    #[test]
    fn a_version_is_an_answer_and_nothing_else_is() {
        assert_eq!(
            Fake::saying(b"VERSION 1.6.18\r\n").check("memcached://HOST"),
            Ok(())
        );
        for (answer, error) in [
            (
                &b"ERROR\r\n"[..],
                "version: expected VERSION, found \"ERROR\"",
            ),
            (
                b"SERVER_ERROR \x1b]out\r\n",
                "version: expected VERSION, found \"SERVER_ERROR ?]out\"",
            ),
        ] {
            assert_eq!(Fake::saying(answer).failure("memcached://HOST"), error);
        }
    }

    #[test]
    fn a_hostile_server_neither_stretches_the_deadline_nor_fills_memory() {
        Fake::silent().expect_timeout("memcached://HOST");
        Fake::dripping(b"VERSION ").expect_timeout("memcached://HOST");
        assert_eq!(
            Fake::flooding(b"VERSION ").failure("memcached://HOST"),
            "expected a line of at most 512 bytes, found more"
        );
        assert_eq!(
            Fake::closing().failure("memcached://HOST"),
            "the connection was closed before the answer"
        );
        assert_eq!(
            Fake::http().failure("memcached://HOST"),
            "version: expected VERSION, found \"HTTP/1.1 400 Bad Request\""
        );
    }
}
