//! A storm of retries: clients that try again by themselves, and a service that is ill for ten seconds. How much it is
//! asked meanwhile, and how soon it does its work again afterwards, with and without plimsoll between them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::joined;
use crate::common::peers::start_plimsoll;
use crate::common::plot::{Line, Panel, Picture};
use crate::common::service::{Condition, Service};
use crate::common::{self, Report};

const CLIENTS: u32 = 50;
/// How long a client waits for an answer, and how often it asks again at once.
const PATIENCE: Duration = Duration::from_millis(150);
const RETRIES: u32 = 3;
/// From an answer, or from giving up, to a client's next request.
const THINKS: Duration = Duration::from_millis(180);
/// The service's threads, and its time for a job: it can do 400 a second, and the clients want 250.
const WORKERS: usize = 8;
const WORK: Duration = Duration::from_millis(20);
/// What the sidecar is told: that clients wait no longer than this.
const REQUEST_TIMEOUT: &str = "--request-timeout=140ms";

/// The length of a point in the plots.
const BIN: f64 = 0.5;
/// The service does its work again when it does so for this long, in seconds.
const BACK_FOR: f64 = 1.0;

/// Before the illness, the illness, and after it.
struct Lengths([Duration; 3]);

impl Lengths {
    fn of_run() -> Self {
        let seconds = if common::quick() {
            [1.0, 1.5, 2.5]
        } else {
            [5.0, 10.0, 25.0]
        };
        Self(seconds.map(Duration::from_secs_f64))
    }

    fn whole(&self) -> Duration {
        self.0.iter().sum()
    }
}

/// Times in seconds since the start.
pub(super) struct Run {
    /// When clients had good answers.
    served: Vec<f64>,
    /// When the service was asked.
    asked: Vec<f64>,
    sick: [f64; 2],
    length: f64,
}

impl Run {
    /// How many a second there were of these between two times.
    fn rate(times: &[f64], from: f64, to: f64) -> f64 {
        let within = times.iter().filter(|time| (from..to).contains(*time));
        within.count() as f64 / (to - from)
    }

    /// Good answers a second before the illness; the first connections are made in the first half second.
    fn before(&self) -> f64 {
        Self::rate(&self.served, 0.5, self.sick[0])
    }

    /// How long after the illness 0.9 of the clients' work is done again, in words.
    fn back_after(&self) -> String {
        let wanted = f64::from(CLIENTS) / (THINKS + WORK).as_secs_f64();
        if self.before() < 0.8 * wanted {
            return "not known: the machine was too busy before".to_owned();
        }
        let end = self.sick[1];
        let back = (0..10_000)
            .map(|step| f64::from(step) * 0.05)
            .take_while(|after| end + after + BACK_FOR <= self.length)
            .find(|after| {
                let from = end + after;
                Self::rate(&self.served, from, from + BACK_FOR) >= 0.9 * self.before()
            });
        back.map_or("not in time".to_owned(), |after| format!("{after:.2} s"))
    }

    fn line(&self, name: &str, times: &[f64]) -> Line {
        let bins = (0..).map(|bin| f64::from(bin) * BIN);
        let bins = bins.take_while(|from| from + BIN <= self.length);
        Line {
            name: name.to_owned(),
            points: bins
                .map(|from| (from, Self::rate(times, from, from + BIN)))
                .collect(),
        }
    }
}

/// How the service is ill, what that is called, and the name of the picture.
const ILLNESSES: [(Condition, &str, &str); 2] = [
    (Condition::Stalls, "each job takes 2 s", "storm-stall"),
    (Condition::Refuses, "503 at once", "storm-503"),
];

/// Of each illness, the run of the service alone and that behind plimsoll.
pub(super) fn measure() -> io::Result<Vec<[Run; 2]>> {
    thread::scope(|scope| {
        let started = ILLNESSES.map(|(illness, ..)| {
            [false, true].map(|is_behind| scope.spawn(move || storm(is_behind, illness)))
        });
        let ended = started
            .into_iter()
            .map(|[alone, behind]| Ok([joined(alone.join())??, joined(behind.join())??]));
        ended.collect()
    })
}

pub(super) fn tell(storms: &[[Run; 2]], report: &mut Report) -> io::Result<()> {
    report.heading(2, "A storm of retries");
    report.line(&format!(
        "{CLIENTS} clients that wait {PATIENCE:?} for an answer, ask again at once up to {RETRIES} times, and think for \
         {THINKS:?} then. The service has {WORKERS} threads, a job takes {WORK:?}; it works on what it was asked though \
         its client has left. It is ill for {:?}. The sidecar runs with {REQUEST_TIMEOUT} and defaults.",
        Lengths::of_run().0[1]
    ));
    let mut rows = Vec::new();
    for ((_, what, name), [alone, behind]) in ILLNESSES.iter().zip(storms) {
        for (who, run) in [("alone", alone), ("behind plimsoll", behind)] {
            let back = run.back_after();
            let [begun, ended] = run.sick;
            let load = Run::rate(&run.asked, begun, ended);
            let found = format!("back after {back}, {load:.0} requests/s while it is ill");
            report.figure(&format!("storm, {what}, {who}"), &found);
            rows.push(vec![
                (*what).to_owned(),
                who.to_owned(),
                format!("{:.0}", run.before()),
                format!("{load:.0}"),
                format!("{:.2}", load / Run::rate(&run.asked, 0.5, begun)),
                back,
            ]);
        }
        let panel = |title: &str, times: fn(&Run) -> &[f64]| Panel {
            title: title.to_owned(),
            log_y: false,
            lines: vec![
                alone.line("alone", times(alone)),
                behind.line("behind plimsoll", times(behind)),
            ],
        };
        let [from, to] = alone.sick;
        let picture = Picture {
            title: format!("Clients that retry; {what} from {from} s to {to} s"),
            x_label: "seconds",
            log_x: false,
            show_x: |x| format!("{x}"),
            panels: vec![
                panel("Good answers a second", |run| &run.served),
                panel("Requests a second to the service", |run| &run.asked),
            ],
        };
        report.picture(name, &picture)?;
    }
    report.table(
        &[
            "illness",
            "service",
            "good answers/s before",
            "asked/s while ill",
            "of before",
            "back at 0.9 after",
        ],
        &rows,
    );
    Ok(())
}

fn storm(is_behind: bool, illness: Condition) -> io::Result<Run> {
    let lengths = Lengths::of_run();
    let service = Service::start(WORKERS, WORK)?;
    let child = if is_behind {
        let upstream = format!("--upstream=http://{}", service.address);
        Some(start_plimsoll(&[&upstream, REQUEST_TIMEOUT])?)
    } else {
        None
    };
    let address = child
        .as_ref()
        .map_or(service.address, |child| child.address);
    drop(service.take_arrivals());
    let begun = Instant::now();
    let [before, ill, _] = lengths.0;
    let end = begun + lengths.whole();
    let since = |time: Instant| time.saturating_duration_since(begun).as_secs_f64();
    let mut served = Vec::new();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                // Not in step.
                let first = begun + THINKS * number / CLIENTS;
                scope.spawn(move || ask_until(address, first, end))
            })
            .collect();
        sleep_until(begun + before);
        service.set(illness);
        sleep_until(begun + before + ill);
        service.set(Condition::Well);
        for client in clients {
            served.extend(joined(client.join())?.into_iter().map(since));
        }
        Ok::<_, io::Error>(())
    })?;
    Ok(Run {
        served,
        asked: service.take_arrivals().into_iter().map(since).collect(),
        sick: [before, before + ill].map(|time| time.as_secs_f64()),
        length: lengths.whole().as_secs_f64(),
    })
}

fn sleep_until(time: Instant) {
    thread::sleep(time.saturating_duration_since(Instant::now()));
}

/// Asks again and again; returns when good answers came.
fn ask_until(address: SocketAddr, first: Instant, end: Instant) -> Vec<Instant> {
    let (mut connection, mut served) = (None, Vec::new());
    sleep_until(first);
    while Instant::now() < end {
        for _ in 0..=RETRIES {
            match ask(&mut connection, address) {
                Ok(200) => {
                    served.push(Instant::now());
                    break;
                }
                Ok(_) => {}
                // The next try has a connection of its own.
                Err(_) => connection = None,
            }
        }
        thread::sleep(THINKS);
    }
    served
}

/// One request; the status of its answer.
fn ask(connection: &mut Option<TcpStream>, address: SocketAddr) -> io::Result<u16> {
    let until = Instant::now() + PATIENCE;
    let stream = if let Some(stream) = connection {
        stream
    } else {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        connection.insert(stream)
    };
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let (mut reply, mut bytes) = (Vec::new(), [0; 1024]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => reply.extend_from_slice(&bytes[..count]),
        }
        if let Some(whole) = common::load::parse(&reply) {
            if whole.close {
                *connection = None;
            }
            return Ok(whole.status);
        }
    }
}
