//! A service in this process that can fall ill. It works on what it was asked whether or not somebody still waits, as
//! services with a pool of threads do, and keeps when each request came.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

/// Longest that a connection may say nothing.
const IDLE: Duration = Duration::from_secs(60);

/// There is a thread for each connection, which does little.
const STACK: usize = 64 * 1024;

/// How a service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Well,
    /// Each job takes 2 s.
    Stalls,
    /// Every request is answered with 503 at once.
    Refuses,
    /// Every connection is closed in place of an answer.
    Closes,
}

impl Condition {
    const ALL: [Self; 4] = [Self::Well, Self::Stalls, Self::Refuses, Self::Closes];
}

/// What a job takes while the service stalls.
const STALL: Duration = Duration::from_secs(2);

struct Shared {
    /// What a job takes while it is well.
    work: Duration,
    condition: AtomicU8,
    arrivals: Mutex<Vec<Instant>>,
    stopped: AtomicBool,
}

impl Shared {
    fn condition(&self) -> Condition {
        let number = usize::from(self.condition.load(Ordering::SeqCst));
        Condition::ALL[number]
    }
}

/// It listens on loopback until it is dropped.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Service {
    /// One with so many threads, whose jobs take this long.
    pub(crate) fn start(workers: usize, work: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            work,
            condition: AtomicU8::new(0),
            arrivals: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let (jobs, todo) = crossbeam_channel::unbounded();
        for _ in 0..workers {
            let (shared, todo) = (shared.clone(), todo.clone());
            thread::spawn(move || do_jobs(&shared, &todo));
        }
        let kept = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if kept.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (shared, jobs) = (kept.clone(), jobs.clone());
                let serve = move || stream.and_then(|stream| serve(stream, &shared, &jobs));
                // A client that is gone, or a thread that cannot be had, costs that client its answer.
                let _ = thread::Builder::new().stack_size(STACK).spawn(serve);
            }
        });
        Ok(Self { address, shared })
    }

    pub(crate) fn set(&self, condition: Condition) {
        let number = Condition::ALL.iter().position(|one| *one == condition);
        let number = number.and_then(|number| u8::try_from(number).ok());
        self.shared
            .condition
            .store(number.unwrap_or_default(), Ordering::SeqCst);
    }

    /// When each request came since the last call.
    pub(crate) fn take_arrivals(&self) -> Vec<Instant> {
        let arrivals = self.shared.arrivals.lock();
        std::mem::take(&mut *arrivals.unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // It wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn do_jobs(shared: &Shared, todo: &Receiver<Sender<()>>) {
    while let Ok(done) = todo.recv() {
        thread::sleep(match shared.condition() {
            Condition::Stalls => STALL,
            _ => shared.work,
        });
        // Nobody may wait for it any more.
        let _ = done.send(());
    }
}

fn serve(mut stream: TcpStream, shared: &Shared, jobs: &Sender<Sender<()>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE))?;
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut bytes = [0; 1024];
            match stream.read(&mut bytes)? {
                0 => return Ok(()),
                count => head.extend_from_slice(&bytes[..count]),
            }
        }
        let arrivals = shared.arrivals.lock();
        arrivals
            .unwrap_or_else(PoisonError::into_inner)
            .push(Instant::now());
        match shared.condition() {
            Condition::Closes => return Ok(()),
            Condition::Refuses => {
                stream.write_all(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n")?;
            }
            Condition::Well | Condition::Stalls => {
                let (done, ended) = crossbeam_channel::bounded(1);
                let gone = || io::Error::from(ErrorKind::BrokenPipe);
                jobs.send(done).map_err(|_| gone())?;
                ended.recv().map_err(|_| gone())?;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ndone\n")?;
            }
        }
    }
}
