//! What is under load: the server in this process, or the Go program beside it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use plimsoll::{GateMode, Request, Server};

use super::{BUDGET, COOLDOWN, REQUEST_TIMEOUT, SERVICE, THRESHOLD, WORKERS};
use crate::common::load::Random;
use crate::common::{self, Child};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The handler's work, and what it saw.
pub(super) struct Work {
    nanos: AtomicU64,
    /// Exponentially distributed about that, rather than constant.
    exponential: AtomicBool,
    random: Mutex<Random>,
    jobs: Mutex<Vec<Job>>,
}

pub(super) struct Job {
    pub(super) admitted: Instant,
    pub(super) took: Duration,
}

impl Work {
    fn new() -> Self {
        Self {
            nanos: AtomicU64::new(0),
            exponential: AtomicBool::new(false),
            random: Mutex::new(Random(7)),
            jobs: Mutex::new(Vec::new()),
        }
    }

    fn set(&self, takes: Duration) {
        let nanos = u64::try_from(takes.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.store(nanos, Relaxed);
    }

    fn run(&self, request: &Request) {
        let began = Instant::now();
        let admitted = (began + request.remaining()).checked_sub(REQUEST_TIMEOUT);
        let mut takes = Duration::from_nanos(self.nanos.load(Relaxed));
        if self.exponential.load(Relaxed) {
            takes = takes.mul_f64(lock(&self.random).exponential());
        }
        thread::sleep(takes);
        lock(&self.jobs).push(Job {
            admitted: admitted.unwrap_or(began),
            took: began.elapsed(),
        });
    }
}

/// What is under load.
pub(super) enum Subject {
    Plimsoll { server: Server, work: Arc<Work> },
    Go(Child),
}

impl Subject {
    pub(super) fn plimsoll(gate: GateMode) -> io::Result<Self> {
        let work = Arc::new(Work::new());
        let handler = {
            let work = work.clone();
            move |request: &mut Request| {
                work.run(request);
                "done\n"
            }
        };
        let server = Server::builder()
            .listen("127.0.0.1:0")
            .workers(WORKERS)
            .queue_budget(BUDGET)
            .threshold(THRESHOLD)
            .cooldown(COOLDOWN)
            .request_timeout(REQUEST_TIMEOUT)
            .gate(gate)
            .handler(handler)
            .start()
            .map_err(io::Error::other)?;
        let subject = Self::Plimsoll { server, work };
        subject.set_work(SERVICE)?;
        Ok(subject)
    }

    pub(super) fn go(program: &Path) -> io::Result<Self> {
        let child = Child::start(|address| {
            let mut command = Command::new(program);
            command
                .args(["-addr", &address.to_string()])
                .args(["-work", &format!("{SERVICE:?}")])
                .args(["-slots", &WORKERS.to_string()])
                .args(["-threshold", &format!("{THRESHOLD:?}")])
                .args(["-cooldown", &format!("{COOLDOWN:?}")]);
            command
        })?;
        Ok(Self::Go(child))
    }

    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Plimsoll { server, .. } => server.local_addr(),
            Self::Go(child) => child.address,
        }
    }

    /// Sets how long a job takes that starts from now on.
    pub(super) fn set_work(&self, takes: Duration) -> io::Result<()> {
        match self {
            Self::Plimsoll { work, .. } => work.set(takes),
            Self::Go(child) => drop(common::get(
                child.address,
                &format!("/work?takes={takes:?}"),
            )?),
        }
        Ok(())
    }

    pub(super) fn set_exponential(&self, exponential: bool) {
        if let Self::Plimsoll { work, .. } = self {
            work.exponential.store(exponential, Relaxed);
        }
    }

    pub(super) fn take_jobs(&self) -> Vec<Job> {
        match self {
            Self::Plimsoll { work, .. } => std::mem::take(&mut lock(&work.jobs)),
            Self::Go(_) => Vec::new(),
        }
    }

    pub(super) fn trips(&self) -> u64 {
        match self {
            Self::Plimsoll { server, .. } => server.health().snapshot().trips,
            Self::Go(_) => 0,
        }
    }
}
