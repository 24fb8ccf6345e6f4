//! An event queue that survives its own `kill -9`.
//!
//! ```sh
//! cargo run --example event_queue
//! ```
//!
//! It starts itself as a second process, which publishes events without end and says each one's id once it is taken. After
//! some hundred it kills that process, opens the queue, and has every event delivered that was taken.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fs};

use plimsoll::patterns::{Event, EventId, EventQueue, EventSettings, Outcome};

/// Events that are taken before the kill.
const EVENTS: usize = 300;

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(directory) = env::args().nth(1) {
        return publish(Path::new(&directory));
    }
    let directory = env::temp_dir().join(format!("plimsoll-events-{}", std::process::id()));
    let survived = survive(&directory);
    fs::remove_dir_all(&directory)?;
    survived
}

/// Publishes until it is killed.
fn publish(directory: &Path) -> Result<(), Box<dyn Error>> {
    let queue = EventQueue::open(directory, EventSettings::default())?;
    for number in 1.. {
        let event = Event {
            topic: "/orders".to_owned(),
            body: format!("order {number}").into_bytes(),
            ..Event::default()
        };
        let id = queue.publish(&event)?;
        // The event is on disk, so it may be said.
        writeln!(io::stdout(), "{id}")?;
    }
    Ok(())
}

fn survive(directory: &Path) -> Result<(), Box<dyn Error>> {
    let mut publisher = Command::new(env::current_exe()?)
        .arg(directory)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = publisher.stdout.take().ok_or("it has an output")?;
    let mut lines = BufReader::new(output).lines();
    let first: Vec<String> = lines.by_ref().take(EVENTS).collect::<io::Result<_>>()?;
    publisher.kill()?; // that is SIGKILL
    publisher.wait()?;
    // What it had said before it died counts too.
    let rest: Vec<String> = lines.collect::<io::Result<_>>()?;
    let taken = first.iter().chain(&rest).map(|id| id.parse());
    let taken: BTreeSet<EventId> = taken.collect::<Result<_, _>>()?;
    println!(
        "{} events were taken, then the process was killed.",
        taken.len()
    );

    let queue = EventQueue::open(directory, EventSettings::default())?;
    println!(
        "The queue is open again: {} events wait.",
        queue.stats().backlog
    );
    let (sender, delivered) = mpsc::channel();
    queue.deliver(move |delivery| match sender.send(delivery.id) {
        Ok(()) => Outcome::Delivered,
        Err(_) => Outcome::Unreachable,
    })?;
    let mut missing = taken;
    while !missing.is_empty() {
        missing.remove(&delivered.recv_timeout(Duration::from_secs(60))?);
    }
    println!("Every event that was taken has been delivered.");
    Ok(())
}
