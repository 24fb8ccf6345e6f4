//! What the tests of hostile and unlucky clients share: a running binary, what the system says of it, and a client
//! that reads replies to the letter.
#![allow(
    dead_code,
    reason = "each test file is a crate of its own and uses a part"
)]

#[path = "../common/mod.rs"]
mod common;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use common::{PATIENCE, wait_until};

/// A running binary, killed when dropped.
pub(crate) struct Plimsoll {
    child: Child,
    pub(crate) address: SocketAddr,
    /// What it has logged since.
    log: Arc<Mutex<Vec<String>>>,
}

impl Plimsoll {
    /// Starts the binary on a port of its own.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        // The hard limit, since half of these tests open thousands of connections.
        Self::start_under("ulimit -n \"$(ulimit -H -n)\"", arguments)
    }

    /// Starts the binary after a shell has run `preparation`.
    pub(crate) fn start_under(preparation: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new("sh");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PLIMSOLL_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .arg("-c")
            .arg(format!("{preparation}; exec \"$0\" \"$@\""))
            .arg(env!("CARGO_BIN_EXE_plimsoll"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (sender, address) = mpsc::channel();
        let kept = log.clone();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("listening on http://") {
                    // Only the first is awaited.
                    let _ = sender.send(address.parse().expect("an address"));
                }
                kept.lock().expect("no reader panics").push(line);
            }
        });
        let address = first(&address);
        let server = Self {
            child,
            address,
            log,
        };
        // It listens before its last thread, which waits for signals, has started.
        let tasks = format!("/proc/{}/task", server.pid());
        wait_until("it awaits signals", || {
            let tasks = fs::read_dir(&tasks).into_iter().flatten().flatten();
            let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
            names.into_iter().any(|name| name.trim() == "ctrl-c")
        });
        server
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many log lines hold `text`.
    pub(crate) fn logged(&self, text: &str) -> usize {
        let log = self.log.lock().expect("no reader panics");
        log.iter().filter(|line| line.contains(text)).count()
    }

    /// The sum of a metric's values over its labels, of which one contains `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> u64 {
        let reply = get(self.address, "/metrics");
        metric_in(&reply.text(), name, label)
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let kill = Command::new("kill")
            .args(["-TERM", &self.pid().to_string()])
            .status();
        assert!(kill.expect("kill runs").success());
    }

    /// Waits for the end of the process.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What the system says of it.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&self.pid().to_string())
    }

    /// Waits until it uses no more than `before`, give or take `memory` KiB that the allocator keeps.
    pub(crate) fn await_usage(&mut self, before: Usage, memory: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(self.is_running(), "the server has ended");
            let now = self.usage();
            let back = now.threads <= before.threads
                && now.descriptors <= before.descriptors
                && now.memory <= before.memory + memory;
            if back {
                return;
            }
            assert!(Instant::now() < deadline, "{before:?} became {now:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// CPU time that the event loop's thread has used.
    pub(crate) fn loop_time(&self) -> Duration {
        loop_time(&self.pid().to_string())
    }

    /// CPU time that it has used since `before`.
    pub(crate) fn loop_time_since(&self, before: Duration) -> Duration {
        self.loop_time().saturating_sub(before)
    }
}

impl Drop for Plimsoll {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn first(address: &Receiver<SocketAddr>) -> SocketAddr {
    address
        .recv_timeout(PATIENCE)
        .expect("a `listening on` line")
}

/// The same as [`Plimsoll::metric`], for a page that has been read already.
pub(crate) fn metric_in(page: &str, name: &str, label: &str) -> u64 {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let of_this = rest.starts_with(['{', ' ']) && rest.contains(label);
        rest.rsplit_once(' ').filter(|_| of_this)?.1.parse().ok()
    });
    let values: Vec<u64> = values.collect();
    assert!(!values.is_empty(), "no {name} with {label:?} in {page}");
    values.iter().sum()
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
    /// Resident, in KiB.
    pub(crate) memory: usize,
}

impl Usage {
    /// Of a process, or of `self`.
    pub(crate) fn of(process: &str) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count);
        Self {
            threads: number("Threads:"),
            descriptors,
            memory: number("VmRSS:"),
        }
    }
}

/// CPU time that the event loop's thread of a process has used, in the system's ticks of 10 ms.
pub(crate) fn loop_time(process: &str) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let mut ticks = stats.filter_map(|stat| {
        let rest = stat.split_once("(plimsoll-front) ")?.1;
        let field = |index| rest.split(' ').nth(index)?.parse::<u64>().ok();
        // utime and stime, fields 14 and 15 of proc_pid_stat(5); the rest starts at field 3.
        Some(field(11)? + field(12)?)
    });
    Duration::from_millis(10 * ticks.next().expect("a thread of that name"))
}

/// How many connections this process may open, up to `wanted`: the soft limit on descriptors may be low.
pub(crate) fn affordable(wanted: usize) -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    wanted.min(soft.unwrap_or(usize::MAX).saturating_sub(300))
}

/// A reply as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The status line and the header, without the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether it is as long as it says.
    pub(crate) whole: bool,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn closes(&self) -> bool {
        self.header("Connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// A client's end of a connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("a connection")
    }

    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Asks for a path and keeps the connection.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<Reply> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))?;
        self.reply()
    }

    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        self.reply_to("GET")
    }

    /// Reads the next reply; one that ends before its head does is an error.
    pub(crate) fn reply_to(&mut self, method: &str) -> io::Result<Reply> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(if head.is_empty() {
                    io::ErrorKind::UnexpectedEof.into()
                } else {
                    io::Error::other(format!("cut in its head: {head:?}"))
                });
            }
        }
        head.truncate(head.len() - 4);
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| {
            let (digits, _) = rest.split_at_checked(3)?;
            digits.parse().ok()
        });
        let status = status.ok_or_else(|| io::Error::other(format!("no reply: {head:?}")))?;
        let mut reply = Reply {
            status,
            head,
            body: Vec::new(),
            whole: true,
        };
        if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) {
            return Ok(reply);
        }
        if reply
            .header("Transfer-Encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
        {
            reply.whole = self.read_chunks(&mut reply.body)?;
        } else if let Some(length) = reply.header("Content-Length") {
            let length: u64 = length.parse().map_err(io::Error::other)?;
            let mut part = self.stream.by_ref().take(length);
            // A reset is one of the ways in which a reply is cut.
            reply.whole =
                part.read_to_end(&mut reply.body).is_ok() && reply.body.len() as u64 == length;
        } else {
            reply.whole = self.stream.read_to_end(&mut reply.body).is_ok();
        }
        Ok(reply)
    }

    /// Whether the last chunk came.
    fn read_chunks(&mut self, body: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).unwrap_or(0) == 0 || !line.ends_with("\r\n") {
                return Ok(false);
            }
            let size = u64::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
            let before = body.len() as u64;
            let got = self.stream.by_ref().take(size).read_to_end(body);
            if got.is_err() || body.len() as u64 != before + size {
                return Ok(false);
            }
            let mut end = [0; 2];
            if self.stream.read_exact(&mut end).is_err() {
                return Ok(false);
            }
            if end != *b"\r\n" {
                return Err(io::Error::other("a chunk longer than it said"));
            }
            if size == 0 {
                return Ok(true);
            }
        }
    }

    /// Whether the server ends the connection, orderly or not, without another byte.
    pub(crate) fn ends(&mut self) -> bool {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

/// Asks for a path on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str) -> Reply {
    let mut client = Client::connect(address);
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client.send(request).expect("a request goes out");
    client.reply().expect("a reply")
}

/// How long `path` takes on a fresh connection: the shortest of a few tries, since the machine may be busy.
pub(crate) fn time_to_get(address: SocketAddr, path: &str) -> Duration {
    let tries = (0..5).map(|_| {
        let began = Instant::now();
        let reply = get(address, path);
        assert_eq!(reply.status, 200, "{}", reply.head);
        began.elapsed()
    });
    tries.min().unwrap_or_default()
}

/// Numbers that look random and are the same in every run: xorshift64*.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % bound
    }
}
