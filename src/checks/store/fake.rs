//! Servers that a script plays, for what no real one does.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Store;
use crate::checks::{Check, CheckError};

/// Longest that anything here waits; reached only when something is wrong.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A deadline of a check that is to end by its timeout.
pub(super) const SHORT: Duration = Duration::from_millis(150);

/// A server on loopback that plays its script for each connection, one after the other.
pub(super) struct Fake {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub(super) fn start(script: impl Fn(&mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let mut stream = stream.expect("a connection");
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
                script(&mut stream);
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }

    /// Speaks with each connection as `until` says, and hands all that comes then to the receiver.
    pub(super) fn hearing_after(
        until: impl Fn(&mut TcpStream) + Send + 'static,
    ) -> (Self, Receiver<Vec<u8>>) {
        let (heard, hear) = mpsc::channel();
        let fake = Self::start(move |stream| {
            until(stream);
            let mut rest = Vec::new();
            // It may be cut as well as ended.
            let _ = stream.read_to_end(&mut rest);
            heard.send(rest).expect("the test waits");
        });
        (fake, hear)
    }

    /// Answers the first words of each connection with these, and hands what it heard to the receiver.
    pub(super) fn hearing(answer: &'static [u8]) -> (Self, Receiver<String>) {
        let (heard, hear) = mpsc::channel();
        let fake = Self::start(move |stream| {
            let mut question = [0; 1024];
            let count = stream.read(&mut question).expect("a question");
            let question = String::from_utf8_lossy(&question[..count]).into_owned();
            // The test may want to know of the first alone.
            let _ = heard.send(question);
            stream.write_all(answer).expect("an answer");
            wait_for_the_end(stream);
        });
        (fake, hear)
    }

    /// Accepts, and says nothing till the other side has gone.
    pub(super) fn silent() -> Self {
        Self::start(wait_for_the_end)
    }

    /// Sends `start`, and then a byte at a time till the other side has gone.
    pub(super) fn dripping(start: &'static [u8]) -> Self {
        Self::start(move |stream| {
            let mut sent = stream.write_all(start);
            while sent.is_ok() {
                thread::sleep(Duration::from_millis(2));
                sent = stream.write_all(b"x");
            }
        })
    }

    /// Sends `start`, and then megabytes without a line's end till the other side has gone.
    pub(super) fn flooding(start: &'static [u8]) -> Self {
        Self::start(move |stream| {
            let mut sent = stream.write_all(start);
            while sent.is_ok() {
                sent = stream.write_all(&[b'x'; 8 * 1024]);
            }
        })
    }

    /// Closes each connection at once.
    pub(super) fn closing() -> Self {
        Self::start(|_| ())
    }

    /// Sends `text`, and then nothing till the other side has gone.
    pub(super) fn saying(text: &'static [u8]) -> Self {
        Self::start(move |stream| {
            // The other side may have gone already.
            let _ = stream.write_all(text);
            wait_for_the_end(stream);
        })
    }

    /// An HTTP server: on whatever it is asked, a refusal.
    pub(super) fn http() -> Self {
        Self::start(|stream| {
            let mut question = [0; 1024];
            let _ = stream.read(&mut question);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            wait_for_the_end(stream);
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The store that `url` names, with `HOST` for this server's host and port.
    #[track_caller]
    pub(super) fn store(&self, url: &str) -> Store {
        let url = url.replace("HOST", &self.address.to_string());
        url.parse().expect("a good URL")
    }

    /// Runs the check of that store with much time.
    #[track_caller]
    pub(super) fn check(&self, url: &str) -> Result<(), CheckError> {
        self.store(url).check(Instant::now() + PATIENCE)
    }

    /// Why the check of that store fails, with much time.
    #[track_caller]
    pub(super) fn failure(&self, url: &str) -> String {
        self.check(url).expect_err("a failure").to_string()
    }

    /// Wants the check of that store to end by its deadline, and for that reason.
    #[track_caller]
    pub(super) fn expect_timeout(&self, url: &str) {
        let began = Instant::now();
        let failed = self.store(url).check(began + SHORT);
        let error = failed.expect_err("a failure").to_string();
        assert!(is_timeout(&error), "{url}: {error}");
        assert!(began.elapsed() >= SHORT, "{url}: given up early");
        assert!(
            began.elapsed() < PATIENCE,
            "{url}: the deadline was stretched"
        );
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread if it waits for a connection; if it has failed, nobody listens.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let played = thread.join();
            assert!(played.is_ok() || thread::panicking(), "the script failed");
        }
    }
}

/// Whether an error tells of a deadline; on a busy machine, it may be over while the connection is made.
fn is_timeout(error: &str) -> bool {
    error == "no answer in time" || error.ends_with(": connection timed out")
}

/// Reads till the other side has gone.
pub(super) fn wait_for_the_end(stream: &mut TcpStream) {
    let mut piece = [0; 1024];
    while matches!(stream.read(&mut piece), Ok(count) if count > 0) {}
}
