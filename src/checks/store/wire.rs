//! A conversation with a data store, in lines and pieces: a blocking stream under one absolute deadline.
//!
//! What is read is bounded by whoever reads, and memory grows with what has come, not with what was announced.

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use crate::checks::CheckError;
use crate::net::resolve::resolve;
use crate::net::stream::Socket;
use crate::net::url::Endpoint;
use crate::patterns::{Deadline, DeadlineStream};

/// How much is asked of the socket at a time; answers of health checks are smaller.
const PIECE: usize = 4096;

/// Most addresses of a name that are tried.
const MOST_ADDRESSES: usize = 16;

/// Connects to the first of the endpoint's addresses that accepts.
pub(super) fn connect(endpoint: &Endpoint, deadline: Instant) -> Result<Socket, CheckError> {
    let addresses = resolve(endpoint, MOST_ADDRESSES, deadline)
        .map_err(|error| CheckError::new(error.to_string()))?;
    let connected = Socket::connect_to_first(&addresses, Deadline::at(deadline));
    connected.map_err(|(address, error)| match address {
        Some(address) => CheckError::new(format!("cannot connect to {address}: {error}")),
        None => failed(&error),
    })
}

pub(super) struct Wire {
    stream: DeadlineStream,
    /// What has come and was not taken yet.
    ahead: Vec<u8>,
}

impl Wire {
    /// Connects to the first of the endpoint's addresses that accepts.
    pub(super) fn connect(endpoint: &Endpoint, deadline: Instant) -> Result<Self, CheckError> {
        let socket = connect(endpoint, deadline)?;
        Ok(Self {
            stream: DeadlineStream::new(socket, Deadline::at(deadline)),
            ahead: Vec::new(),
        })
    }

    /// Sends all of `bytes`.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), CheckError> {
        self.stream.write_all(bytes).map_err(|error| failed(&error))
    }

    /// Takes what comes up to a line feed, at most `most` bytes; without the line's end.
    pub(super) fn line(&mut self, most: usize) -> Result<Vec<u8>, CheckError> {
        let mut searched = 0;
        loop {
            let place = self.ahead[searched..]
                .iter()
                .position(|&byte| byte == b'\n');
            if let Some(place) = place
                .map(|place| searched + place)
                .filter(|&place| place <= most)
            {
                let mut line = self.take(place + 1);
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            searched = self.ahead.len();
            if searched > most {
                return Err(CheckError::new(format!(
                    "expected a line of at most {most} bytes, found more"
                )));
            }
            self.fill()?;
        }
    }

    /// Takes `count` bytes: a number that the caller has bounded.
    pub(super) fn exactly(&mut self, count: usize) -> Result<Vec<u8>, CheckError> {
        while self.ahead.len() < count {
            self.fill()?;
        }
        Ok(self.take(count))
    }

    /// Takes what has come so far, without waiting for more.
    pub(super) fn come(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ahead)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.ahead.split_off(count);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// Reads what has come, at least a byte.
    fn fill(&mut self) -> Result<(), CheckError> {
        let mut piece = [0; PIECE];
        match self.stream.read(&mut piece) {
            Ok(0) => Err(closed()),
            Ok(count) => {
                self.ahead.extend_from_slice(&piece[..count]);
                Ok(())
            }
            Err(error) => Err(failed(&error)),
        }
    }
}

/// Why a read or a write failed.
fn failed(error: &std::io::Error) -> CheckError {
    match error.kind() {
        ErrorKind::TimedOut => CheckError::new("no answer in time"),
        ErrorKind::ConnectionReset
        | ErrorKind::BrokenPipe
        | ErrorKind::ConnectionAborted
        | ErrorKind::WriteZero => closed(),
        _ => CheckError::new(error.to_string()),
    }
}

fn closed() -> CheckError {
    CheckError::new("the connection was closed before the answer")
}

#[cfg(all(test, feature = "checks"))]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::super::fake::PATIENCE;
    use super::*;
    use crate::net::url::Host;

    #[test]
    fn what_comes_is_cut_into_lines_and_pieces_whatever_its_packets() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let sender = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.set_nodelay(true).expect("no delay");
            for byte in b"one\r\n\ntwo\r\r\nthree-four-five" {
                stream.write_all(&[*byte]).expect("it is taken");
            }
        });
        let deadline = Instant::now() + PATIENCE;
        let endpoint = Endpoint {
            host: Host::Address(address.ip()),
            port: address.port(),
        };
        let mut wire = Wire::connect(&endpoint, deadline).expect("it accepts");
        assert_eq!(wire.line(3 + 1).as_deref(), Ok(&b"one"[..]));
        assert_eq!(wire.line(0).as_deref(), Ok(&b""[..]));
        assert_eq!(wire.line(10).as_deref(), Ok(&b"two\r"[..]));
        assert_eq!(wire.exactly(0).as_deref(), Ok(&b""[..]));
        assert_eq!(wire.exactly(5).as_deref(), Ok(&b"three"[..]));
        assert_eq!(wire.exactly(9).as_deref(), Ok(&b"-four-fiv"[..]));
        let error = wire.exactly(2).expect_err("there is but one");
        assert_eq!(
            error.to_string(),
            "the connection was closed before the answer"
        );
        assert_eq!(wire.come(), b"e");
        sender.join().expect("all was sent");
    }
}
