//! A plain HTTP service that costs as little as it can: one thread, no parsing beyond the end of a head. `GET /N` is
//! answered with N bytes, and `GET /N?CONTROL` with that in Cache-Control too.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);

/// The largest reply.
const MOST: usize = 10 << 20;

struct Client {
    socket: TcpStream,
    /// What came of the next head.
    input: Vec<u8>,
    /// The head of the reply.
    head: Vec<u8>,
    /// How much of head and body has been sent, and how long they are.
    sent: usize,
    length: usize,
}

/// Serves until the process ends.
pub(crate) fn serve(address: SocketAddr) -> io::Result<()> {
    let body = vec![b'x'; MOST];
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut events = Events::with_capacity(256);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let Token(slot) = event.token();
            if event.token() == LISTENER {
                while let Ok((mut socket, _)) = listener.accept() {
                    let free = clients.iter().position(Option::is_none);
                    let slot = free.unwrap_or(clients.len());
                    if slot == clients.len() {
                        clients.push(None);
                    }
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut socket, Token(slot), both)?;
                    socket.set_nodelay(true)?;
                    clients[slot] = Some(Client {
                        socket,
                        input: Vec::new(),
                        head: Vec::new(),
                        sent: 0,
                        length: 0,
                    });
                }
            } else if let Some(client) = &mut clients[slot]
                && client.go_on(&body).is_err()
            {
                clients[slot] = None;
            }
        }
    }
}

impl Client {
    /// Serves until the socket has nothing more to say or to take.
    fn go_on(&mut self, body: &[u8]) -> io::Result<()> {
        loop {
            while self.sent < self.length {
                let rest = if self.sent < self.head.len() {
                    &self.head[self.sent..]
                } else {
                    &body[self.sent - self.head.len()..self.length - self.head.len()]
                };
                match self.socket.write(rest) {
                    Ok(count) => self.sent += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            let mut buffer = [0; 4096];
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.input.ends_with(b"\r\n\r\n") {
                let target = self.input.split(|&byte| byte == b' ').nth(1);
                let target = target.and_then(|target| str::from_utf8(target.get(1..)?).ok());
                let target = target.unwrap_or_default();
                let (size, control) = target.split_once('?').unwrap_or((target, ""));
                let size = usize::min(size.parse().unwrap_or(0), MOST);
                let control = match control {
                    "" => String::new(),
                    control => format!("Cache-Control: {control}\r\n"),
                };
                self.input.clear();
                self.head.clear();
                write!(
                    self.head,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{control}Content-Length: {size}\r\n\r\n"
                )?;
                if size <= 4096 {
                    // One write does.
                    self.head.extend_from_slice(&body[..size]);
                    self.length = self.head.len();
                } else {
                    self.length = self.head.len() + size;
                }
                self.sent = 0;
            }
        }
    }
}
