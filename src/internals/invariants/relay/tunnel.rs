//! A tunnel whose sides send, take and end in any order.

use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use socket2::SockRef;

use super::{Ends, IDLE, pair, send};
use crate::http::body::{BodyDecoder, Framing};
use crate::net::client::Parts;
use crate::server::relay::{Fault, Step, Tunnel};

/// How much is moved at a time: so little that most of what is sent is split.
const STEP: usize = 48;

/// Lets both sides do what the steps say: what each sends comes to the other, and so does its end.
pub(super) fn run(steps: &[u8], input: &[u8]) {
    let (of_client, of_server) = input.split_at(input.len() / 2);
    let at_first = usize::from(steps.first().copied().unwrap_or(0) % 16);
    let (ahead, to_come) = of_server.split_at(at_first.min(of_server.len()));
    let (early, to_send) = of_client.split_at(at_first.min(of_client.len()));
    let (near, far) = pair();
    // As small as the system has it: a few steps fill it.
    let small = SockRef::from(&near).set_send_buffer_size(1);
    small.expect("a socket has a buffer");
    let parts = Parts {
        socket: near,
        ahead: ahead.to_vec(),
        decoder: BodyDecoder::new(Framing::UntilClose, usize::MAX, 0).expect("no limit"),
        lease: None,
        unsent: None,
    };
    let mut tunnel = Tunnel::new(parts, IDLE, Box::new(Ends::default()));
    let mut client = Client {
        to_send,
        ..Client::default()
    };
    let mut server = Server {
        far,
        to_send: to_come,
        got: Vec::new(),
        end: End::Open,
    };
    tunnel.read_ahead(&mut client.got);
    if !early.is_empty() {
        tunnel.push(early.to_vec());
    }
    for step in steps {
        let count = usize::from(step / 8);
        let moved = match step % 8 {
            0 => server.sends(&mut tunnel, count),
            1 => server.takes(&mut tunnel, count),
            2 | 3 => client.forward(&mut tunnel, count).map(drop),
            4 | 5 => client.back(&mut tunnel, count).map(drop),
            6 => {
                client.ends = true;
                Ok(())
            }
            7 if count == 31 => Err(ErrorKind::ConnectionReset),
            _ => {
                client.got.append(&mut client.output);
                Ok(())
            }
        };
        if moved.is_err() {
            // Nobody can tell the rest any more.
            assert!(of_client.starts_with(&server.got));
            assert!(of_server.starts_with(&client.got));
            return;
        }
    }
    finish(&mut tunnel, &mut client, &mut server);
    assert_eq!(server.got, of_client);
    assert_eq!(client.got, of_server);
}

/// Lets both sides send and take all that there is, and end.
fn finish(tunnel: &mut Tunnel, client: &mut Client, server: &mut Server) {
    client.ends = true;
    let most = 8 * (client.to_send.len() + server.to_send.len()) + 4096;
    for _ in 0..most {
        server.sends(tunnel, STEP).expect("the tunnel is open");
        server.takes(tunnel, STEP).expect("the tunnel is open");
        client.got.append(&mut client.output);
        let forward = client.forward(tunnel, STEP).expect("both are there");
        let back = client.back(tunnel, STEP).expect("both are there");
        if (forward, back) == (Step::Over, Step::Over) && server.end == End::Told {
            assert!(client.is_told && client.output.is_empty());
            return;
        }
    }
    panic!("the tunnel does not end");
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Open,
    /// It has sent all, and its end.
    Sent,
    /// It has heard of the client's end too.
    Told,
}

fn kind(fault: Fault) -> ErrorKind {
    match fault {
        Fault::Client(error) | Fault::Server(error) => error.kind(),
    }
}

/// The other server, behind a socket.
struct Server<'a> {
    far: UnixStream,
    to_send: &'a [u8],
    got: Vec<u8>,
    end: End,
}

impl Server<'_> {
    /// Sends some; its end behind the last.
    fn sends(&mut self, tunnel: &mut Tunnel, count: usize) -> Result<(), ErrorKind> {
        let count = count.min(self.to_send.len());
        if count > 0 {
            send(&mut self.far, &mut self.to_send, count);
            tunnel.set_ready(true, false);
        } else if self.to_send.is_empty() && self.end == End::Open {
            let ended = self.far.shutdown(Shutdown::Write);
            ended.map_err(|error| error.kind())?;
            self.end = End::Sent;
            tunnel.set_ready(true, false);
        }
        Ok(())
    }

    fn takes(&mut self, tunnel: &mut Tunnel, count: usize) -> Result<(), ErrorKind> {
        let mut buffer = [0; STEP];
        let room = count.clamp(1, buffer.len());
        match self.far.read(&mut buffer[..room]) {
            Ok(0) if self.end == End::Sent => self.end = End::Told,
            Ok(0) => {}
            Ok(came) => {
                self.got.extend_from_slice(&buffer[..came]);
                tunnel.set_ready(false, true);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.kind()),
        }
        Ok(())
    }
}

/// The client, whom the event loop reads from and writes to.
#[derive(Default)]
struct Client<'a> {
    to_send: &'a [u8],
    /// It ends when it has sent all.
    ends: bool,
    got: Vec<u8>,
    /// What its socket did not take.
    output: Vec<u8>,
    /// It has heard of the server's end.
    is_told: bool,
}

impl Client<'_> {
    fn forward(&mut self, tunnel: &mut Tunnel, count: usize) -> Result<Step, ErrorKind> {
        let waits = tunnel.has_pending();
        let (to_send, ends) = (&mut self.to_send, self.ends);
        let read = |buffer: &mut [u8]| {
            assert!(!waits, "more is read while something waits");
            let all: &[u8] = to_send;
            let count = count.clamp(1, buffer.len()).min(all.len());
            if count == 0 && !ends {
                return Ok(None);
            }
            buffer[..count].copy_from_slice(&all[..count]);
            *to_send = &all[count..];
            Ok(Some(count))
        };
        let step = tunnel.forward(read, &mut [0; STEP]);
        step.map_err(kind)
    }

    fn back(&mut self, tunnel: &mut Tunnel, count: usize) -> Result<Step, ErrorKind> {
        if !self.output.is_empty() {
            return Ok(Step::Waits);
        }
        let (got, is_told) = (&mut self.got, &mut self.is_told);
        let write = |bytes: &[u8]| {
            let count = count.min(bytes.len());
            got.extend_from_slice(&bytes[..count]);
            Ok(count)
        };
        let end = || {
            assert!(!*is_told, "the end is told once");
            *is_told = true;
            Ok(())
        };
        let mut buffer = [0; STEP];
        let moved = tunnel.back(write, end, &mut buffer);
        let (step, rest) = moved.map_err(kind)?;
        self.output.extend_from_slice(rest);
        Ok(step)
    }
}
