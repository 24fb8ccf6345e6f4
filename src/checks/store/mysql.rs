//! MySQL and MariaDB: a login and COM_PING
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>).
//!
//! It logs in for real, since a server counts connections that end before that, and locks a host out that makes many of
//! them. Passwords go out hashed (`mysql_native_password`, `caching_sha2_password`) or encrypted (the latter, when the
//! server does not have the user's hash in its cache). Without TLS, who can pose as the server can have the password
//! encrypted for himself: that is done only where the URL has the option `cleartext`.

mod login;
mod packet;
mod rsa;

use std::time::Instant;

use self::login::{Greeting, NONCE, Plugin};
use self::packet::Fields;
use self::rsa::PublicKey;
use super::allow_cleartext;
use super::clean::clean;
use super::wire::Wire;
use crate::checks::CheckError;
use crate::net::url::{Account, Secret, StoreUrlError, Url};

/// Longest packet that is read; a server's greatest here are errors and its public key.
const MOST_PACKET: usize = 64 * 1024;

/// Most packets that are read during a login; six suffice.
const MOST_PACKETS: usize = 16;

/// The first byte of a packet that ends or continues a login.
const OK: u8 = 0x00;
const MORE: u8 = 0x01;
const SWITCH: u8 = 0xfe;
const ERROR: u8 = 0xff;

/// What a server of `caching_sha2_password` says after [`MORE`].
const CACHED: &[u8] = &[3];
const NOT_CACHED: &[u8] = &[4];
/// And what asks it for its public key.
const KEY_WANTED: &[u8] = &[2];

const COM_QUIT: &[u8] = &[0x01];
const COM_PING: &[u8] = &[0x0e];

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Mysql(Account);

impl Mysql {
    pub(super) fn new(url: &Url) -> Result<Self, StoreUrlError> {
        url.account(3306).map(Self)
    }

    pub(super) fn check(&self, deadline: Instant) -> Result<(), CheckError> {
        let mut session = Session {
            wire: Wire::connect(&self.0.endpoint, deadline)?,
            account: &self.0,
            sequence: 0,
        };
        session.login()?;
        session.ping()
    }
}

struct Session<'a> {
    wire: Wire,
    account: &'a Account,
    /// The number of the next packet, in either direction.
    sequence: u8,
}

impl Session<'_> {
    fn login(&mut self) -> Result<(), CheckError> {
        let greeting = self.receive()?;
        let Some(greeting) = Greeting::parse(&greeting) else {
            return Err(unexpected("a greeting of protocol 10 with protocol 4.1"));
        };
        let mut nonce = greeting.nonce;
        // The user's plugin may be another than the server's default one; then the server switches.
        let mut plugin = Plugin::named(&greeting.plugin).unwrap_or(Plugin::Native);
        let password = self.account.password.as_ref().map_or("", Secret::reveal);
        let account = self.account;
        let response = login::response(
            &account.user,
            plugin,
            &plugin.scramble(password, &nonce),
            account.database.as_deref(),
        );
        self.send(&response)?;
        for _ in 0..MOST_PACKETS {
            let packet = self.receive()?;
            match packet.split_first() {
                Some((&OK, _)) => return Ok(()),
                Some((&SWITCH, rest)) => {
                    let mut fields = Fields(rest);
                    let (name, data) = (fields.until_nul(), fields.rest());
                    plugin = name.and_then(Plugin::named).ok_or_else(|| {
                        let name = self.clean(name.unwrap_or(b"of before version 4.1"));
                        CheckError::new(format!("login: the plugin {name} is not supported"))
                    })?;
                    nonce =
                        login::nonce(data).ok_or_else(|| unexpected("a switch with a nonce"))?;
                    self.send(&plugin.scramble(password, &nonce))?;
                }
                Some((&MORE, CACHED)) if plugin == Plugin::CachingSha2 => {}
                Some((&MORE, NOT_CACHED)) if plugin == Plugin::CachingSha2 => {
                    self.send_encrypted(password, &nonce)?;
                }
                _ => return Err(unexpected("a step of the login")),
            }
        }
        Err(unexpected("an end of the login"))
    }

    /// Sends the password encrypted with a key that comes from the server, and so may be that of anybody.
    fn send_encrypted(&mut self, password: &str, nonce: &[u8; NONCE]) -> Result<(), CheckError> {
        allow_cleartext(self.account)?;
        self.send(KEY_WANTED)?;
        let answer = self.receive()?;
        let key = answer.strip_prefix(&[MORE]).and_then(PublicKey::from_pem);
        let key = key.ok_or_else(|| unexpected("a public key of RSA"))?;
        let mut seed = [0; rsa::HASH];
        getrandom::fill(&mut seed)
            .map_err(|error| CheckError::new(format!("login: no random numbers: {error}")))?;
        let sealed = key.encrypt(&login::hide(password, nonce), seed);
        let expected = "login: expected a password that fits the server's key, found a longer one";
        self.send(&sealed.ok_or_else(|| CheckError::new(expected))?)
    }

    fn ping(&mut self) -> Result<(), CheckError> {
        self.sequence = 0;
        self.send(COM_PING)?;
        if self.receive()?.first() != Some(&OK) {
            return Err(unexpected("an answer to COM_PING"));
        }
        self.sequence = 0;
        self.send(COM_QUIT)
    }

    fn send(&mut self, payload: &[u8]) -> Result<(), CheckError> {
        let packet = packet::packet(self.sequence, payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.wire.send(&packet)
    }

    /// The next packet. An error is one here too.
    fn receive(&mut self) -> Result<Vec<u8>, CheckError> {
        let header = self.wire.exactly(4)?;
        let length = packet::length(&header).filter(|&length| length <= MOST_PACKET);
        let (Some(length), Some(&sequence)) = (length, header.last()) else {
            return Err(self.not_a_packet(&header));
        };
        if sequence != self.sequence {
            return Err(self.not_a_packet(&header));
        }
        self.sequence = sequence.wrapping_add(1);
        let packet = self.wire.exactly(length)?;
        match packet.split_first() {
            Some((&ERROR, rest)) => Err(self.error(rest)),
            _ => Ok(packet),
        }
    }

    /// What servers of other protocols say is text.
    fn not_a_packet(&mut self, header: &[u8]) -> CheckError {
        let text = [header, &self.wire.come()].concat();
        let found = self.clean(&text);
        CheckError::new(format!("expected a packet of MySQL, found {found:?}"))
    }

    /// `1045 28000: Access denied`; errors before the login have no state in the middle.
    fn error(&self, rest: &[u8]) -> CheckError {
        let mut fields = Fields(rest);
        let Some(code) = fields.u16() else {
            return unexpected("an error with a number");
        };
        let rest = fields.rest();
        let error = match rest
            .strip_prefix(b"#")
            .and_then(|rest| rest.split_at_checked(5))
        {
            Some((state, message)) => {
                format!("{code} {}: {}", self.clean(state), self.clean(message))
            }
            None => format!("{code}: {}", self.clean(rest)),
        };
        CheckError::new(error)
    }

    fn clean(&self, text: &[u8]) -> String {
        clean(text, self.account.password.as_ref())
    }
}

fn unexpected(expected: &str) -> CheckError {
    CheckError::new(format!("expected {expected}, found another packet"))
}

#[cfg(test)]
mod tests;
