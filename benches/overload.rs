//! What the server does under more load than it can carry, on real sockets.
//!
//! The capacity C is measured with a closed loop; then come Poisson arrivals at multiples of C, a stall in the middle
//! of an overload, and the literal gate's cycle. What must hold is judged in the same run. The Go program of the
//! pattern gets the same loads. `QUICK=1` shortens all of it.
#![allow(clippy::cast_precision_loss)] // Counts and microseconds are far below 2^53.

mod common;
#[path = "common/load.rs"]
mod load;

use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::{Child, Report, percentile};
use load::{Arrivals, Outcome, Random, Sample, generate};
use plimsoll::{GateMode, Request, Server};

const WORKERS: usize = 8;
const SERVICE: Duration = Duration::from_millis(20);
const BUDGET: Duration = Duration::from_millis(200);
/// Ten times the mean service time.
const THRESHOLD: Duration = Duration::from_millis(200);
const COOLDOWN: Duration = Duration::from_secs(1);
/// The server's default; an exchange's deadline less this is when it was admitted.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// What a job takes while the service is sick.
const SICK: Duration = Duration::from_secs(2);

/// Leeway of the figures for the sockets and the scheduler, in seconds.
const SLACK: f64 = 0.010;

/// Goodput is back when it is so for this long, in seconds.
const BACK_FOR: f64 = 0.5;

/// How long the parts of the bench are.
struct Lengths {
    capacity: Duration,
    /// A steady load, of which the first part is not counted.
    load: Duration,
    warm_up: Duration,
    /// Before the stall, the stall, and after it.
    stall: [Duration; 3],
    stalls: u32,
    /// The same for the literal gate.
    literal: [Duration; 3],
    multiples: &'static [f64],
    multiples_of_peer: &'static [f64],
}

fn lengths() -> Lengths {
    let seconds = Duration::from_secs_f64;
    if common::quick() {
        Lengths {
            capacity: seconds(1.3),
            load: seconds(1.4),
            warm_up: seconds(0.4),
            stall: [0.5, 2.5, 2.5].map(seconds),
            stalls: 1,
            literal: [0.5, 1.0, 2.5].map(seconds),
            multiples: &[2.0, 10.0],
            multiples_of_peer: &[10.0],
        }
    } else {
        Lengths {
            capacity: seconds(5.0),
            load: seconds(11.0),
            warm_up: seconds(1.0),
            stall: [2.0, 10.0, 5.0].map(seconds),
            stalls: 3,
            literal: [1.0, 3.0, 6.0].map(seconds),
            multiples: &[0.5, 1.0, 2.0, 10.0, 50.0],
            multiples_of_peer: &[0.5, 1.0, 2.0, 10.0, 50.0],
        }
    }
}

fn main() -> io::Result<()> {
    if !common::wanted() {
        return Ok(());
    }
    // Both ends of every connection are in this process.
    common::descriptors::raise(10_000);
    let lengths = lengths();
    let mut report = Report::new("Overload");
    report.line(&common::machine());
    report.line(&format!(
        "{WORKERS} workers, handler {SERVICE:?}, queue budget {BUDGET:?}, threshold {THRESHOLD:?}, cooldown \
         {COOLDOWN:?}. Poisson arrivals; latency from when a request was due; clients give up after {:?}.",
        load::PATIENCE
    ));
    let mut figures = Figures::default();

    let subject = Subject::plimsoll(GateMode::Guarded)?;
    let capacity = capacity(&subject, &lengths)?;
    report.line(&format!("Capacity C = {capacity:.1} requests/s."));
    let mut phases = Vec::new();
    for &multiple in lengths.multiples {
        phases.push(steady(&subject, multiple, capacity, false, &lengths)?);
    }
    phases.push(steady(&subject, 0.5, capacity, true, &lengths)?);
    figures.judge_steady(&phases, subject.trips());
    drop(subject);
    let mut rows: Vec<_> = phases.iter().map(Phase::row).collect();

    let mut stalls = Vec::new();
    for run in 0..lengths.stalls {
        let subject = Subject::plimsoll(GateMode::Guarded)?;
        // Not in step with the cooldown, so that the end of the stall meets every state of the gate.
        let shift = Duration::from_millis(370) * run;
        stalls.push(stall(&subject, capacity, shift, &lengths)?);
    }
    figures.judge_stalls(&stalls);
    rows.extend(stalls.iter().map(|stall| stall.phase.row()));
    report.heading(2, "plimsoll");
    report.table(&Phase::HEADS, &rows);
    for stall in &stalls {
        report.line(&stall.describe());
    }
    let subject = Subject::plimsoll(GateMode::Literal)?;
    figures.judge_literal(&literal(&subject, capacity, &lengths)?);
    drop(subject);

    report.heading(2, "What it must show");
    report.table(&["figure", "verdict", "found"], &figures.rows);
    for phase in &phases {
        let found = format!(
            "goodput {:.2} C, p99 {}",
            phase.goodput / phase.capacity,
            milliseconds(phase.accepted_p99)
        );
        report.figure(&format!("overload: offered {}", phase.name), &found);
    }
    report.figure("overload: what it must show", &figures.tally());

    match common::build_go_peer() {
        Ok(program) => compare(&program, &phases, &stalls, &lengths, &mut report)?,
        Err(why) => report.line(&format!("No Go program beside it: {why}.")),
    }
    report.save("overload")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The handler's work, and what it saw.
struct Work {
    nanos: AtomicU64,
    /// Exponentially distributed about that, rather than constant.
    exponential: AtomicBool,
    random: Mutex<Random>,
    jobs: Mutex<Vec<Job>>,
}

struct Job {
    admitted: Instant,

    took: Duration,
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
enum Subject {
    Plimsoll { server: Server, work: Arc<Work> },
    Go(Child),
}

impl Subject {
    fn plimsoll(gate: GateMode) -> io::Result<Self> {
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

    fn go(program: &std::path::Path) -> io::Result<Self> {
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

    fn address(&self) -> SocketAddr {
        match self {
            Self::Plimsoll { server, .. } => server.local_addr(),
            Self::Go(child) => child.address,
        }
    }

    /// Sets how long a job takes that starts from now on.
    fn set_work(&self, takes: Duration) -> io::Result<()> {
        match self {
            Self::Plimsoll { work, .. } => work.set(takes),
            Self::Go(child) => drop(common::get(
                child.address,
                &format!("/work?takes={takes:?}"),
            )?),
        }
        Ok(())
    }

    fn set_exponential(&self, exponential: bool) {
        if let Self::Plimsoll { work, .. } = self {
            work.exponential.store(exponential, Relaxed);
        }
    }

    fn take_jobs(&self) -> Vec<Job> {
        match self {
            Self::Plimsoll { work, .. } => std::mem::take(&mut lock(&work.jobs)),
            Self::Go(_) => Vec::new(),
        }
    }

    fn trips(&self) -> u64 {
        match self {
            Self::Plimsoll { server, .. } => server.health().snapshot().trips,
            Self::Go(_) => 0,
        }
    }
}

/// The gate at one look; looks that saw the same as the one before only move `until`.
#[derive(Clone, Copy, Debug)]
struct Look {
    state: &'static str,
    trips: u64,
    /// The first look had ended here ...
    from: Instant,
    /// ... and the last began here.
    until: Instant,
}

/// Runs `load` with somebody asking for `/health` and somebody watching the gate beside it.
struct Watched<T> {
    result: T,
    /// Seconds that `/health` took.
    health: Vec<f64>,
    looks: Vec<Look>,
    /// The longest that the watcher, who sleeps a millisecond at a time, was away: how long the machine stood still.
    pause: Duration,
}

fn watched<T>(subject: &Subject, load: impl FnOnce() -> io::Result<T>) -> io::Result<Watched<T>> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let health = scope.spawn(|| {
            let mut times = Vec::new();
            while !over.load(Relaxed) {
                let asked = Instant::now();
                // One that fails took the longest there is.
                let answered = common::get(subject.address(), "/health");
                let took = answered.map_or(f64::INFINITY, |_| asked.elapsed().as_secs_f64());
                times.push(took);
                thread::sleep(Duration::from_millis(20));
            }
            times
        });
        let gate = scope.spawn(|| {
            let mut looks: Vec<Look> = Vec::new();
            let mut pause = Duration::ZERO;
            let Subject::Plimsoll { server, .. } = subject else {
                return (looks, pause);
            };
            let mut until = Instant::now();
            while !over.load(Relaxed) {
                pause = pause.max(until.elapsed());
                until = Instant::now();
                let snapshot = server.health().snapshot();
                let from = Instant::now();
                let (state, trips) = (snapshot.gate.as_str(), snapshot.trips);
                match looks.last_mut() {
                    Some(last) if (last.state, last.trips) == (state, trips) => last.until = until,
                    _ => looks.push(Look {
                        state,
                        trips,
                        from,
                        until,
                    }),
                }
                thread::sleep(Duration::from_millis(1));
            }
            (looks, pause)
        });
        let result = load();
        over.store(true, Relaxed);
        let health = health.join().map_err(|_| io::Error::other("a panic"))?;
        let (looks, pause) = gate.join().map_err(|_| io::Error::other("a panic"))?;
        Ok(Watched {
            result: result?,
            health,
            looks,
            pause,
        })
    })
}

fn capacity(subject: &Subject, lengths: &Lengths) -> io::Result<f64> {
    // Enough that no worker ever waits for a client, and few enough that none is refused.
    let arrivals = Arrivals::Closed(4 * WORKERS);
    let warm_up = lengths.warm_up.as_secs_f64();
    let length = lengths.capacity.as_secs_f64();
    let samples = generate(
        subject.address(),
        arrivals,
        lengths.capacity,
        0,
        Instant::now(),
    )?;
    let served = count(&samples, |sample| {
        sample.outcome == Outcome::Served && (warm_up..length).contains(&sample.done)
    });
    drop(subject.take_jobs());
    Ok(served / (length - warm_up))
}

fn count(samples: &[Sample], which: impl Fn(&Sample) -> bool) -> f64 {
    samples.iter().filter(|sample| which(sample)).count() as f64
}

/// A load and what became of it. Times in seconds, rates in requests per second.
struct Phase {
    name: String,
    multiple: f64,
    exponential: bool,
    capacity: f64,
    offered: f64,
    /// Served before the client left.
    goodput: f64,
    /// Part of what was offered.
    shed: f64,
    accepted_p99: f64,
    refused_p50: f64,
    refused_p99: f64,
    gave_up: f64,
    failed: f64,
    health_p99: f64,
    service_p99: f64,
    /// How late the generator was, or no connection was free.
    late_p99: f64,
}

impl Phase {
    const HEADS: [&'static str; 11] = [
        "load",
        "offered/s",
        "goodput/s",
        "of C",
        "shed",
        "accepted p99",
        "refused p50",
        "refused p99",
        "gave up",
        "/health p99",
        "sent late p99",
    ];

    /// Of the requests due in `window`, seconds since the start.
    fn new(
        name: String,
        multiple: f64,
        capacity: f64,
        window: (f64, f64),
        watched: &Watched<Vec<Sample>>,
        jobs: &[Job],
    ) -> Self {
        let length = window.1 - window.0;
        let within = |time: f64| (window.0..window.1).contains(&time);
        let samples = &watched.result;
        let due: Vec<Sample> = samples
            .iter()
            .copied()
            .filter(|sample| within(sample.due))
            .collect();
        let offered = due.len() as f64;
        let of = |outcome| count(&due, |sample| sample.outcome == outcome);
        let latencies = |outcome| -> Vec<f64> {
            let which = due.iter().filter(|sample| sample.outcome == outcome);
            which.map(|sample| sample.done - sample.due).collect()
        };
        let served = count(samples, |sample| {
            sample.outcome == Outcome::Served && within(sample.done)
        });
        let part = |number: f64| number / offered.max(1.0);
        Self {
            name,
            multiple,
            exponential: false,
            capacity,
            offered: offered / length,
            goodput: served / length,
            shed: part(of(Outcome::Refused)),
            accepted_p99: percentile(latencies(Outcome::Served), 0.99),
            refused_p50: percentile(latencies(Outcome::Refused), 0.5),
            refused_p99: percentile(latencies(Outcome::Refused), 0.99),
            gave_up: part(of(Outcome::GaveUp)),
            failed: of(Outcome::Failed),
            health_p99: percentile(watched.health.clone(), 0.99),
            service_p99: percentile(
                jobs.iter().map(|job| job.took.as_secs_f64()).collect(),
                0.99,
            ),
            late_p99: percentile(
                due.iter().map(|sample| sample.sent - sample.due).collect(),
                0.99,
            ),
        }
    }

    /// Says so when the machine kept the generator itself waiting: its latencies are not the server's alone then.
    fn disturbance(&self) -> String {
        if self.late_p99 > SLACK {
            format!(" (sent late p99 {})", milliseconds(self.late_p99))
        } else {
            String::new()
        }
    }

    fn row(&self) -> Vec<String> {
        let mut name = self.name.clone();
        if self.failed > 0.0 {
            name = format!("{name} ({} failed)", self.failed);
        }
        vec![
            name,
            format!("{:.0}", self.offered),
            format!("{:.1}", self.goodput),
            format!("{:.3}", self.goodput / self.capacity),
            percent(self.shed),
            milliseconds(self.accepted_p99),
            milliseconds(self.refused_p50),
            milliseconds(self.refused_p99),
            percent(self.gave_up),
            milliseconds(self.health_p99),
            milliseconds(self.late_p99),
        ]
    }
}

fn milliseconds(seconds: f64) -> String {
    if seconds.is_nan() {
        "-".to_owned()
    } else if seconds < 0.01 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{:.1} ms", seconds * 1e3)
    }
}

fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

fn steady(
    subject: &Subject,
    multiple: f64,
    capacity: f64,
    exponential: bool,
    lengths: &Lengths,
) -> io::Result<Phase> {
    subject.set_exponential(exponential);
    drop(subject.take_jobs());
    let rate = multiple * capacity;
    let watched = watched(subject, || {
        let now = Instant::now();
        generate(
            subject.address(),
            Arrivals::Open(rate),
            lengths.load,
            multiple.to_bits(),
            now,
        )
    })?;
    // What was admitted last runs out, so that the next load meets a server at rest.
    thread::sleep(BUDGET + 5 * SERVICE);
    let jobs = subject.take_jobs();
    let name = if exponential {
        format!("{multiple} C, exponential")
    } else {
        format!("{multiple} C")
    };
    let window = (lengths.warm_up.as_secs_f64(), lengths.load.as_secs_f64());
    let mut phase = Phase::new(name, multiple, capacity, window, &watched, &jobs);
    phase.exponential = exponential;
    Ok(phase)
}

/// An overload in which the service falls ill and gets well again.
struct Stall {
    phase: Phase,
    /// Seconds after the end of the stall; `None` when goodput did not come back.
    back_after: Option<f64>,
    /// Goodput from then on, as a part of the capacity.
    afterwards: f64,
    /// Times that the gate left the closed state, or came back to it.
    flips: usize,
    trips: u64,
    /// The longest that the machine stood still.
    pause: Duration,
    /// What the gate did around the end of the stall, in words.
    history: String,
}

impl Stall {
    fn describe(&self) -> String {
        let back = self
            .back_after
            .map_or("did not come back".to_owned(), |after| {
                format!("back at 0.9 C after {after:.2} s")
            });
        format!(
            "{}: {back}, {:.3} C from then on; {} flips, {} trips; the machine stood still for up to {:.1?}. The gate, from \
             the end of the stall: {}.",
            self.phase.name, self.afterwards, self.flips, self.trips, self.pause, self.history
        )
    }
}

fn stall(
    subject: &Subject,
    capacity: f64,
    shift: Duration,
    lengths: &Lengths,
) -> io::Result<Stall> {
    let [before, during, after] = lengths.stall;
    let sick = (before, before + during + shift);
    let length = sick.1 + after;
    let start = Instant::now();
    let watched = watched(subject, || ill(subject, 2.0 * capacity, sick, length))?;
    let history: Vec<String> = watched
        .looks
        .iter()
        .filter(|look| look.until >= start + sick.1)
        .map(|look| {
            let since = look.from.saturating_duration_since(start + sick.1);
            format!("{} from {:.2} s", look.state, since.as_secs_f64())
        })
        .collect();
    let window = (sick.0.as_secs_f64(), sick.1.as_secs_f64());
    let end = window.1;
    let goodput = |from: f64, to: f64| {
        let served = count(&watched.result, |sample| {
            sample.outcome == Outcome::Served && (from..to).contains(&sample.done)
        });
        served / (to - from) / capacity
    };
    let last = length.as_secs_f64();
    let back_after = (0..1_000)
        .map(|step| f64::from(step) * 0.01)
        .take_while(|after| end + after + BACK_FOR <= last)
        .find(|after| goodput(end + after, end + after + BACK_FOR) >= 0.9);
    let flips = watched
        .looks
        .windows(2)
        .filter(|pair| (pair[0].state == CLOSED) != (pair[1].state == CLOSED))
        .count();
    let name = format!("2 C, stall of {:.1} s", (during + shift).as_secs_f64());
    Ok(Stall {
        phase: Phase::new(name, 2.0, capacity, window, &watched, &subject.take_jobs()),
        back_after,
        afterwards: goodput(end + back_after.unwrap_or(0.0), last),
        flips,
        trips: subject.trips(),
        pause: watched.pause,
        history: history.join(", "),
    })
}

const CLOSED: &str = "closed";
const OPEN: &str = "open";

/// A load at `rate`, with jobs that take long between the times of `sick`.
fn ill(
    subject: &Subject,
    rate: f64,
    sick: (Duration, Duration),
    length: Duration,
) -> io::Result<Vec<Sample>> {
    let start = Instant::now();
    thread::scope(|scope| {
        let director = scope.spawn(move || {
            let sleep_until = |time: Duration| {
                thread::sleep((start + time).saturating_duration_since(Instant::now()));
            };
            sleep_until(sick.0);
            subject.set_work(SICK)?;
            sleep_until(sick.1);
            subject.set_work(SERVICE)
        });
        let samples = generate(
            subject.address(),
            Arrivals::Open(rate),
            length,
            length.as_secs(),
            start,
        );
        let directed = director.join().map_err(|_| io::Error::other("a panic"))?;
        directed.and(samples)
    })
}

/// What the literal gate did.
struct Literal {
    trips: u64,
    resets: u64,
    epoch: u64,
    /// Seconds for which it was seen open, the shortest and the longest time.
    open: (f64, f64),
    windows: usize,
    /// Jobs that were admitted in these times.
    admitted: usize,
}

fn literal(subject: &Subject, capacity: f64, lengths: &Lengths) -> io::Result<Literal> {
    /// The frontend takes the time once a turn, so a request that was admitted just after the reset may bear the
    /// time of just before it.
    const TURN: Duration = Duration::from_millis(20);
    let [before, during, after] = lengths.literal;
    let sick = (before, before + during);
    let watched = watched(subject, || ill(subject, capacity, sick, sick.1 + after))?;
    let open: Vec<&Look> = watched
        .looks
        .iter()
        .filter(|look| look.state == OPEN)
        .collect();
    let lasted = open
        .iter()
        .map(|look| (look.until - look.from).as_secs_f64());
    let jobs = subject.take_jobs();
    let admitted = jobs.iter().filter(|job| {
        open.iter()
            .any(|look| look.from <= job.admitted && job.admitted + TURN < look.until)
    });
    let admitted = admitted.count();
    let Subject::Plimsoll { server, .. } = subject else {
        return Err(io::Error::other("only the server has this mode"));
    };
    let snapshot = server.health().snapshot();
    Ok(Literal {
        trips: snapshot.trips,
        resets: snapshot.resets,
        epoch: snapshot.epoch,
        open: (
            lasted.clone().fold(f64::INFINITY, f64::min),
            lasted.fold(0.0, f64::max),
        ),
        windows: open.len(),
        admitted,
    })
}

const PASS: &str = "PASS";

/// The verdicts.
#[derive(Default)]
struct Figures {
    rows: Vec<Vec<String>>,
}

impl Figures {
    fn tally(&self) -> String {
        let passed = self.rows.iter().filter(|row| row[1] == PASS).count();
        format!("{passed} of {} pass", self.rows.len())
    }

    fn judge(&mut self, figure: &str, passes: bool, found: String) {
        let verdict = if passes { PASS } else { "FALLS SHORT" };
        self.rows
            .push(vec![figure.to_owned(), verdict.to_owned(), found]);
    }

    fn judge_steady(&mut self, phases: &[Phase], trips: u64) {
        for phase in phases.iter().filter(|phase| phase.multiple < 1.0) {
            let what = format!("1. at {}: sheds at most 0.1 %", phase.name);
            self.judge(&what, phase.shed <= 0.001, percent(phase.shed));
        }
        for phase in phases.iter().filter(|phase| phase.multiple > 1.0) {
            let least = if phase.multiple > 10.0 { 0.93 } else { 0.97 };
            let part = phase.goodput / phase.capacity;
            let reached = phase.offered / phase.capacity;
            self.judge(
                &format!("2. goodput at {}: at least {least} C", phase.name),
                part >= least,
                format!("{part:.3} C at {reached:.1} C offered"),
            );
        }
        for phase in phases {
            let most = BUDGET.as_secs_f64() + phase.service_p99 + SLACK;
            self.judge(
                &format!(
                    "3. accepted p99 at {}: budget + service p99 + 10 ms",
                    phase.name
                ),
                phase.accepted_p99 <= most,
                format!(
                    "{} of at most {}{}",
                    milliseconds(phase.accepted_p99),
                    milliseconds(most),
                    phase.disturbance()
                ),
            );
        }
        for phase in phases.iter().filter(|phase| phase.multiple > 1.0) {
            self.judge_refusals(phase);
        }
        self.judge(
            "6. no trips in all of these",
            trips == 0,
            format!("{trips} trips"),
        );
    }

    fn judge_refusals(&mut self, phase: &Phase) {
        let most = BUDGET.as_secs_f64() + SLACK;
        self.judge(
            &format!(
                "4. refusals at {}: p99 budget + 10 ms, p50 1 ms",
                phase.name
            ),
            phase.refused_p99 <= most && phase.refused_p50 <= 0.001,
            format!(
                "p99 {}, p50 {}{}",
                milliseconds(phase.refused_p99),
                milliseconds(phase.refused_p50),
                phase.disturbance()
            ),
        );
    }

    fn judge_stalls(&mut self, stalls: &[Stall]) {
        for stall in stalls {
            self.judge_refusals(&stall.phase);
        }
        for stall in stalls {
            let back = stall.back_after;
            self.judge(
                &format!(
                    "5. {}: back at 0.9 C within 1.5 s, two flips",
                    stall.phase.name
                ),
                back.is_some_and(|after| after <= 1.5) && stall.flips == 2,
                format!(
                    "{}, {} flips",
                    back.map_or("never".to_owned(), |after| format!("{after:.2} s")),
                    stall.flips
                ),
            );
        }
    }

    fn judge_literal(&mut self, literal: &Literal) {
        let Literal {
            trips,
            resets,
            epoch,
            open,
            windows,
            admitted,
        } = *literal;
        self.judge(
            "7. literal: nothing admitted while it is open",
            admitted == 0 && trips > 0 && windows > 0,
            format!("{admitted} in {windows} cooldowns"),
        );
        // The watcher looks each millisecond, when the machine lets it.
        let shortest = COOLDOWN.as_secs_f64() - 2.0 * SLACK;
        self.judge(
            "7. literal: resets equal trips, each after the cooldown",
            resets == trips && epoch == resets && open.0 >= shortest,
            format!(
                "{trips} trips, {resets} resets, open for {:.3} to {:.3} s",
                open.0, open.1
            ),
        );
    }
}

/// The same loads on the Go program, side by side.
fn compare(
    program: &std::path::Path,
    phases: &[Phase],
    stalls: &[Stall],
    lengths: &Lengths,
    report: &mut Report,
) -> io::Result<()> {
    report.heading(2, "Beside the Go program");
    let own = {
        let subject = Subject::go(program)?;
        capacity(&subject, lengths)?
    };
    report.line(&format!("Its capacity is {own:.1} requests/s."));
    let mut pairs = Vec::new();
    for phase in phases.iter().filter(|phase| !phase.exponential) {
        if lengths.multiples_of_peer.contains(&phase.multiple) {
            let subject = Subject::go(program)?;
            let peer = steady(&subject, phase.multiple, phase.capacity, false, lengths)?;
            pairs.push((phase, peer));
        }
    }
    let mut notes = Vec::new();
    if !common::quick()
        && let Some(ours) = stalls.first()
    {
        let subject = Subject::go(program)?;
        let peer = stall(&subject, ours.phase.capacity, Duration::ZERO, lengths)?;
        let back = peer
            .back_after
            .map_or("did not come back".to_owned(), |after| {
                format!("was back at 0.9 C after {after:.2} s")
            });
        notes.push(format!(
            "After the stall it {back}, with {:.3} C from then on.",
            peer.afterwards
        ));
        pairs.push((&ours.phase, peer.phase));
    }
    let rows: Vec<Vec<String>> = pairs
        .iter()
        .map(|(ours, peer)| {
            vec![
                ours.name.clone(),
                format!("{:.1}", ours.goodput),
                format!("{:.1}", peer.goodput),
                format!("{:.2}", ours.goodput / peer.goodput.max(0.1)),
                milliseconds(ours.accepted_p99),
                milliseconds(peer.accepted_p99),
                percent(ours.gave_up),
                percent(peer.gave_up),
                milliseconds(ours.health_p99),
                milliseconds(peer.health_p99),
            ]
        })
        .collect();
    report.table(
        &[
            "load",
            "goodput/s",
            "Go",
            "ratio",
            "accepted p99",
            "Go",
            "gave up",
            "Go",
            "/health p99",
            "Go",
        ],
        &rows,
    );
    for note in notes {
        report.line(&note);
    }
    Ok(())
}
