//! Redis and its kin: AUTH when there is a password, SELECT when there is a database, PING.
//!
//! The commands go out in one write, and the answers are read in their order. There is no QUIT: Redis asks its clients
//! to just close the connection (<https://redis.io/docs/latest/commands/quit/>).

use std::time::Instant;

use super::clean::clean;
use super::wire::Wire;
use crate::checks::CheckError;
use crate::net::redis::RedisUrl;
use crate::net::url::{StoreUrlError, Url};

/// Longest line that a server answers with; its errors are shorter.
const MOST_LINE: usize = 1024;

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Redis(RedisUrl);

impl Redis {
    pub(super) fn new(url: &Url) -> Result<Self, StoreUrlError> {
        RedisUrl::of(url).map(Self)
    }

    pub(super) fn check(&self, deadline: Instant) -> Result<(), CheckError> {
        let mut wire = Wire::connect(&self.0.endpoint, deadline)?;
        let mut commands = Vec::new();
        if let Some(password) = &self.0.password {
            match &self.0.user {
                Some(user) => push(&mut commands, &["AUTH", user, password.reveal()]),
                None => push(&mut commands, &["AUTH", password.reveal()]),
            }
        }
        if let Some(database) = self.0.database {
            push(&mut commands, &["SELECT", &database.to_string()]);
        }
        push(&mut commands, &["PING"]);
        wire.send(&commands)?;
        if self.0.password.is_some() {
            self.expect(&mut wire, "AUTH", "+OK")?;
        }
        if self.0.database.is_some() {
            self.expect(&mut wire, "SELECT", "+OK")?;
        }
        self.expect(&mut wire, "PING", "+PONG")
    }

    fn expect(&self, wire: &mut Wire, command: &str, good: &str) -> Result<(), CheckError> {
        let line = wire.line(MOST_LINE)?;
        if line == good.as_bytes() {
            return Ok(());
        }
        let error = line.strip_prefix(b"-");
        let found = match error {
            Some(error) if command == "AUTH" => without_arguments(error),
            Some(error) => error,
            None => &line,
        };
        let found = clean(found, self.0.password.as_ref());
        Err(CheckError::new(match error {
            Some(_) => format!("{command}: {found}"),
            None => format!("{command}: expected {good}, found {found:?}"),
        }))
    }
}

/// Adds a command: an array of strings, each with its length (RESP2).
fn push(commands: &mut Vec<u8>, words: &[&str]) {
    commands.extend(format!("*{}\r\n", words.len()).bytes());
    for word in words {
        commands.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
}

/// An error that answers AUTH, without what may be a piece of the password: a server that does not know the command
/// repeats the start of its arguments.
fn without_arguments(error: &[u8]) -> &[u8] {
    const KNOWN: [&[u8]; 4] = [
        b"WRONGPASS ",
        b"ERR invalid password",
        b"ERR AUTH <password> called without any password",
        b"ERR Client sent AUTH, but no password is set",
    ];
    if KNOWN.iter().any(|known| error.starts_with(known)) {
        return error;
    }
    let end = error.iter().position(|byte| !byte.is_ascii_alphanumeric());
    &error[..end.unwrap_or(error.len())]
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::super::{Store, UrlPart};

    #[test]
    fn parts_that_make_no_sense_are_refused() {
        for (url, part) in [
            ("redis://user@h", UrlPart::Password),
            ("redis://h/first", UrlPart::Path),
            ("redis://h/-1", UrlPart::Path),
            ("redis://h/99999999999", UrlPart::Path),
            ("redis://h/1/2", UrlPart::Path),
            ("redis://h?db=1", UrlPart::Option),
        ] {
            assert_eq!(url.parse::<Store>().unwrap_err().part, part, "{url}");
        }
        let store: Store = "redis://:hunter2@h/0".parse().unwrap();
        assert_eq!(
            format!("{store} {store:?}"),
            "redis://:***@h/0 Store(\"redis://:***@h/0\")"
        );
    }

    /// What a server is asked that answers `answers`.
    #[track_caller]
    fn asked(url: &str, answers: &'static str) -> String {
        let (fake, hear) = Fake::hearing(answers.as_bytes());
        fake.check(url).expect("it serves");
        hear.recv().expect("a question")
    }

    #[test]
    fn commands_carry_their_words_with_lengths() {
        assert_eq!(asked("redis://HOST", "+PONG\r\n"), "*1\r\n$4\r\nPING\r\n");
        assert_eq!(
            asked("redis://:p%0d%0a@HOST/3", "+OK\r\n+OK\r\n+PONG\r\n"),
            "*2\r\n$4\r\nAUTH\r\n$3\r\np\r\n\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*1\r\n$4\r\nPING\r\n"
        );
        assert_eq!(
            asked("redis://us:pw@HOST/", "+OK\r\n+PONG\r\n"),
            "*3\r\n$4\r\nAUTH\r\n$2\r\nus\r\n$2\r\npw\r\n*1\r\n$4\r\nPING\r\n"
        );
    }

    #[test]
    fn a_servers_error_is_told_in_its_words_and_cleaned() {
        for (answer, error) in [
            (
                &b"-LOADING Redis is loading the dataset in memory\r\n"[..],
                "PING: LOADING Redis is loading the dataset in memory",
            ),
            (
                b"-NOAUTH Authentication required.\r\n",
                "PING: NOAUTH Authentication required.",
            ),
            (
                b"-MASTERDOWN Link with MASTER is down\r\n",
                "PING: MASTERDOWN Link with MASTER is down",
            ),
            (b"-ERR \x1b[31mred\x07\r\n", "PING: ERR ?[31mred?"),
            (b"+OK\r\n", "PING: expected +PONG, found \"+OK\""),
            (b":1\n", "PING: expected +PONG, found \":1\""),
            (b"\r\n", "PING: expected +PONG, found \"\""),
        ] {
            assert_eq!(Fake::saying(answer).failure("redis://HOST"), error);
        }
    }

    #[test]
    fn a_refused_login_never_tells_the_password() {
        const URL: &str = "redis://user:hunter2secret@HOST";
        for (answer, error) in [
            (
                &b"-WRONGPASS invalid username-password pair\r\n"[..],
                "AUTH: WRONGPASS invalid username-password pair",
            ),
            (b"-ERR invalid password\r\n", "AUTH: ERR invalid password"),
            (
                b"-ERR unknown command 'AUTH', with args beginning with: 'user' 'hunter2sec\r\n",
                "AUTH: ERR",
            ),
            (
                b"-WRONGPASS hunter2secret\r\n",
                "AUTH: (not shown: it holds the password)",
            ),
            (
                b"+OK\r\n-ERR hunter2secret\r\n",
                "PING: (not shown: it holds the password)",
            ),
            (
                b"hunter2secret\r\n",
                "AUTH: expected +OK, found \"(not shown: it holds the password)\"",
            ),
        ] {
            assert_eq!(Fake::saying(answer).failure(URL), error);
        }
    }

    #[test]
    fn a_hostile_server_neither_stretches_the_deadline_nor_fills_memory() {
        Fake::silent().expect_timeout("redis://:pw@HOST");
        Fake::dripping(b"+").expect_timeout("redis://:pw@HOST");
        assert_eq!(
            Fake::flooding(b"+").failure("redis://:pw@HOST"),
            "expected a line of at most 1024 bytes, found more"
        );
        assert_eq!(
            Fake::closing().failure("redis://:pw@HOST"),
            "the connection was closed before the answer"
        );
        assert_eq!(
            Fake::http().failure("redis://:pw@HOST"),
            "AUTH: expected +OK, found \"HTTP/1.1 400 Bad Request\""
        );
    }
}
