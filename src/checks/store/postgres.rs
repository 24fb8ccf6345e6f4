//! PostgreSQL: start-up, a login, and `SELECT 1`, in version 3.0 of its protocol
//! (<https://www.postgresql.org/docs/current/protocol-flow.html>).
//!
//! The messages are the `postgres-protocol` crate's; what is read and in which order is here.

mod scram;

use std::io;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::message::backend::{self, ErrorResponseBody, Message};
use postgres_protocol::message::frontend;

use self::scram::SCRAM_SHA_256;
use super::allow_cleartext;
use super::clean::clean;
use super::wire::Wire;
use crate::checks::CheckError;
use crate::net::url::{Account, StoreUrlError, Url};

/// Longest message that is read, its tag and length left out; a server's greatest here are errors and notices.
const MOST_MESSAGE: usize = 64 * 1024;

/// Most messages that are read in a run; a server sends about twenty.
const MOST_MESSAGES: usize = 500;

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Postgres(Account);

impl Postgres {
    pub(super) fn new(url: &Url) -> Result<Self, StoreUrlError> {
        url.account(5432).map(Self)
    }

    pub(super) fn check(&self, deadline: Instant) -> Result<(), CheckError> {
        let mut session = Session {
            wire: Wire::connect(&self.0.endpoint, deadline)?,
            account: &self.0,
            deadline,
            messages: 0,
        };
        match session.start()? {
            Login::Done => session.select(),
            // It is up and takes start-ups; more can't be asked without a password. To leave now is usual, and the
            // server does not log it.
            Login::PasswordWanted => Ok(()),
        }
    }
}

enum Login {
    Done,
    PasswordWanted,
}

struct Session<'a> {
    wire: Wire,
    account: &'a Account,
    deadline: Instant,
    messages: usize,
}

impl Session<'_> {
    fn start(&mut self) -> Result<Login, CheckError> {
        let account = self.account;
        let mut parameters = vec![
            ("user", account.user.as_str()),
            ("application_name", "plimsoll"),
            ("client_encoding", "UTF8"),
        ];
        if let Some(database) = &account.database {
            parameters.push(("database", database));
        }
        self.send(|buffer| frontend::startup_message(parameters, buffer))?;
        loop {
            let message = self.receive()?;
            let Some(password) = &account.password else {
                return match message {
                    Message::AuthenticationOk => Ok(Login::Done),
                    other if wants_login(&other) => Ok(Login::PasswordWanted),
                    _ => Err(unexpected("a demand for authentication")),
                };
            };
            let password = password.reveal().as_bytes();
            match message {
                Message::AuthenticationOk => return Ok(Login::Done),
                Message::AuthenticationCleartextPassword => {
                    allow_cleartext(account)?;
                    self.send(|buffer| frontend::password_message(password, buffer))?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(account.user.as_bytes(), password, body.salt());
                    self.send(|buffer| frontend::password_message(hash.as_bytes(), buffer))?;
                }
                Message::AuthenticationSasl(body) => {
                    let mut mechanisms = body.mechanisms();
                    let known = |name: &str| Ok(name == SCRAM_SHA_256);
                    if !mechanisms
                        .any(known)
                        .map_err(|error| self.failure(&error))?
                    {
                        return Err(CheckError::new("login: SCRAM-SHA-256 is not offered"));
                    }
                    self.scram(password)?;
                }
                other if wants_login(&other) => {
                    let known = "a password, MD5 or SCRAM-SHA-256";
                    return Err(CheckError::new(format!(
                        "login: expected a demand for {known}, found another"
                    )));
                }
                _ => return Err(unexpected("a demand for authentication")),
            }
        }
    }

    /// The exchange of SCRAM (RFC 5802), at whose end each side has shown the other that it knows the password.
    fn scram(&mut self, password: &[u8]) -> Result<(), CheckError> {
        let mut nonce = [0; scram::NONCE];
        getrandom::fill(&mut nonce)
            .map_err(|error| CheckError::new(format!("login: no random numbers: {error}")))?;
        let begun = scram::Begun::new("", STANDARD.encode(nonce));
        self.send(|buffer| {
            frontend::sasl_initial_response(SCRAM_SHA_256, begun.message().as_bytes(), buffer)
        })?;
        let Message::AuthenticationSaslContinue(body) = self.receive()? else {
            return Err(unexpected("the continuation of SCRAM"));
        };
        let in_time = || Instant::now() < self.deadline;
        let proved = begun
            .prove(password, body.data(), in_time)
            .map_err(|error| self.scram_failure(&error))?;
        self.send(|buffer| frontend::sasl_response(proved.message(), buffer))?;
        let Message::AuthenticationSaslFinal(body) = self.receive()? else {
            return Err(unexpected("the end of SCRAM"));
        };
        proved
            .verify(body.data())
            .map_err(|error| self.scram_failure(&error))
    }

    /// Waits till the server is ready, has it answer a query, and says goodbye.
    fn select(&mut self) -> Result<(), CheckError> {
        self.until_ready()?;
        self.send(|buffer| frontend::query("SELECT 1", buffer))?;
        if !self.until_ready()? {
            return Err(CheckError::new("SELECT 1: expected a row, found none"));
        }
        self.send(|buffer| {
            frontend::terminate(buffer);
            Ok(())
        })
    }

    /// Reads on till the server is ready for a query; whether a row was among what came.
    fn until_ready(&mut self) -> Result<bool, CheckError> {
        let mut row = false;
        loop {
            match self.receive()? {
                Message::ReadyForQuery(_) => return Ok(row),
                Message::DataRow(_) => row = true,
                Message::ParameterStatus(_)
                | Message::BackendKeyData(_)
                | Message::RowDescription(_)
                | Message::CommandComplete(_) => {}
                _ => return Err(unexpected("readiness for a query")),
            }
        }
    }

    fn send(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), CheckError> {
        let mut buffer = BytesMut::new();
        write(&mut buffer)?;
        self.wire.send(&buffer)
    }

    /// The next message that is no notice. An error is one here too.
    fn receive(&mut self) -> Result<Message, CheckError> {
        loop {
            self.messages += 1;
            if self.messages > MOST_MESSAGES {
                return Err(CheckError::new(format!(
                    "expected at most {MOST_MESSAGES} messages, found more"
                )));
            }
            let header = self.wire.exactly(5)?;
            let length = match backend::Header::parse(&header) {
                Ok(Some(header)) => usize::try_from(header.len()).unwrap_or(usize::MAX),
                // Shorter than its own length field.
                Ok(None) | Err(_) => 0,
            };
            let Some(length) = length
                .checked_sub(4)
                .filter(|&length| length <= MOST_MESSAGE)
            else {
                return Err(self.not_a_message(&header));
            };
            let mut buffer = BytesMut::from(&header[..]);
            buffer.extend_from_slice(&self.wire.exactly(length)?);
            match Message::parse(&mut buffer) {
                Ok(Some(Message::ErrorResponse(body))) => return Err(self.error(&body)),
                Ok(Some(Message::NoticeResponse(_) | Message::NotificationResponse(_))) => {}
                Ok(Some(message)) => return Ok(message),
                Ok(None) => return Err(self.not_a_message(&header)),
                Err(error) => return Err(self.failure(&error)),
            }
        }
    }

    /// A server that cannot even start a process for the connection says why in plain text, and so do servers of other
    /// protocols.
    fn not_a_message(&mut self, header: &[u8]) -> CheckError {
        let text = [header, &self.wire.come()].concat();
        let found = self.clean(&text);
        CheckError::new(format!("expected a message of PostgreSQL, found {found:?}"))
    }

    /// `FATAL 57P03: the database system is starting up`.
    fn error(&self, body: &ErrorResponseBody) -> CheckError {
        let (mut severity, mut code, mut message) = (String::new(), String::new(), String::new());
        let mut fields = body.fields();
        while let Ok(Some(field)) = fields.next() {
            let place = match field.type_() {
                b'S' => &mut severity,
                b'C' => &mut code,
                b'M' => &mut message,
                _ => continue,
            };
            *place = self.clean(field.value_bytes());
        }
        CheckError::new(format!("{severity} {code}: {message}"))
    }

    fn failure(&self, error: &io::Error) -> CheckError {
        CheckError::new(format!(
            "login: {}",
            self.clean(error.to_string().as_bytes())
        ))
    }

    fn scram_failure(&self, error: &str) -> CheckError {
        let error = self.clean(error.as_bytes());
        CheckError::new(format!("login: {SCRAM_SHA_256}: {error}"))
    }

    fn clean(&self, text: &[u8]) -> String {
        clean(text, self.account.password.as_ref())
    }
}

/// Whether a message demands that the client say who it is, in whatever way.
fn wants_login(message: &Message) -> bool {
    matches!(
        message,
        Message::AuthenticationCleartextPassword
            | Message::AuthenticationMd5Password(_)
            | Message::AuthenticationSasl(_)
            | Message::AuthenticationGss
            | Message::AuthenticationSspi
            | Message::AuthenticationKerberosV5
            | Message::AuthenticationScmCredential
    )
}

fn unexpected(expected: &str) -> CheckError {
    CheckError::new(format!("expected {expected}, found another message"))
}

#[cfg(test)]
mod tests;
