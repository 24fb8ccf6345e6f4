//! A conversation with a data store: a blocking socket under one absolute deadline.
//!
//! Each system call gets only the time that is left, so a peer that drips bytes gains nothing by it. What is read is
//! bounded by whoever reads, and memory grows with what has come, not with what was announced.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::checks::CheckError;
use crate::net::resolve::resolve;
use crate::net::url::Endpoint;

/// How much is asked of the socket at a time; answers of health checks are smaller.
const PIECE: usize = 4096;

pub(super) struct Wire {
    stream: TcpStream,
    deadline: Instant,
    /// What has come and was not taken yet.
    ahead: Vec<u8>,
}

impl Wire {
    /// Connects to the first of the endpoint's addresses that accepts.
    pub(super) fn connect(endpoint: &Endpoint, deadline: Instant) -> Result<Self, CheckError> {
        Self::to_first_of(&resolve(endpoint, deadline)?, deadline)
    }

    fn to_first_of(addresses: &[SocketAddr], deadline: Instant) -> Result<Self, CheckError> {
        let mut failed = in_time();
        for (index, address) in addresses.iter().enumerate() {
            let left = left(deadline).ok_or(failed)?;
            // An address that swallows packets must not use up the time of those after it.
            let still = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            match open(
                address,
                (left / still).max(Duration::from_millis(1)).min(left),
            ) {
                Ok(stream) => {
                    let ahead = Vec::new();
                    return Ok(Self {
                        stream,
                        deadline,
                        ahead,
                    });
                }
                Err(error) => {
                    failed = CheckError::new(format!("cannot connect to {address}: {error}"));
                }
            }
        }
        Err(failed)
    }

    /// Sends all of `bytes`.
    pub(super) fn send(&mut self, mut bytes: &[u8]) -> Result<(), CheckError> {
        while !bytes.is_empty() {
            let left = left(self.deadline).ok_or_else(in_time)?;
            self.stream.set_write_timeout(Some(left))?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(closed()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) => stopped(&error)?,
            }
        }
        Ok(())
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

    /// Takes what comes, `most` bytes; fewer only when the other side closes.
    pub(super) fn up_to(&mut self, most: usize) -> Result<Vec<u8>, CheckError> {
        while self.ahead.len() < most && self.read()? {}
        let count = most.min(self.ahead.len());
        Ok(self.take(count))
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.ahead.split_off(count);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// Reads what has come, at least a byte.
    fn fill(&mut self) -> Result<(), CheckError> {
        if self.read()? { Ok(()) } else { Err(closed()) }
    }

    /// Reads what has come; false when the other side has closed.
    fn read(&mut self) -> Result<bool, CheckError> {
        let mut piece = [0; PIECE];
        loop {
            let left = left(self.deadline).ok_or_else(in_time)?;
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.ahead.extend_from_slice(&piece[..count]);
                    return Ok(true);
                }
                Err(error) => stopped(&error)?,
            }
        }
    }
}

fn open(address: &SocketAddr, most: Duration) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, most)?;
    // A connection to a port of this host that nobody listens on can, by chance, be given that very port as its own, and
    // then TCP connects it to itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The time until the deadline, if there is any.
fn left(deadline: Instant) -> Option<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero()).then_some(left)
}

/// Whether a failed read or write may be tried again; the deadline is looked at before that.
fn stopped(error: &std::io::Error) -> Result<(), CheckError> {
    match error.kind() {
        // The socket's own timeout is WouldBlock.
        ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(()),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            Err(closed())
        }
        _ => Err(CheckError::new(error.to_string())),
    }
}

fn in_time() -> CheckError {
    CheckError::new("no answer in time")
}

fn closed() -> CheckError {
    CheckError::new("the connection was closed before the answer")
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::super::fake::PATIENCE;
    use super::*;

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        (listener, address)
    }

    #[test]
    fn each_address_is_tried_till_one_accepts() {
        let closed = listener().1;
        let (open, address) = listener();
        let deadline = Instant::now() + PATIENCE;
        let wire = Wire::to_first_of(&[closed, address], deadline).expect("one accepts");
        assert_eq!(wire.stream.peer_addr().expect("it is connected"), address);
        drop(open);
        let failed = Wire::to_first_of(&[closed, address], deadline).map(drop);
        let error = failed.expect_err("none accepts").to_string();
        assert!(
            error.starts_with(&format!("cannot connect to {address}: ")),
            "{error}"
        );
    }

    #[test]
    fn what_comes_is_cut_into_lines_and_pieces_whatever_its_packets() {
        let (listener, address) = listener();
        let sender = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.set_nodelay(true).expect("no delay");
            for byte in b"one\r\n\ntwo\r\r\nthree-four-five" {
                stream.write_all(&[*byte]).expect("it is taken");
            }
        });
        let deadline = Instant::now() + PATIENCE;
        let mut wire = Wire::to_first_of(&[address], deadline).expect("it accepts");
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

    #[test]
    fn a_peer_that_does_not_read_does_not_stretch_the_deadline() {
        let (_listener, address) = listener();
        let began = Instant::now();
        let deadline = began + super::super::fake::SHORT;
        let Ok(mut wire) = Wire::to_first_of(&[address], deadline) else {
            // The machine is so busy that the deadline was over before.
            return;
        };
        let error = wire.send(&vec![0; 64 << 20]).expect_err("it is not read");
        assert_eq!(error.to_string(), "no answer in time");
        assert!(began.elapsed() < PATIENCE);
    }
}
