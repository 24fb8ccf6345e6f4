//! The benches, as one program that links once.
//!
//! Each runs in a process of its own, so that none inherits the memory, the threads or the limits of another:
//! all of them with `make bench`, some with `cargo bench --features internals -- NAME ...`. `QUICK=1` shortens them.

mod caching;
mod common;
mod events;
mod footprint;
mod instructions;
mod overload;
mod parts;
mod patterns;
mod proxy;
mod retries;
mod scaling;
mod sockets;
mod summary;
mod throttling;

use std::process::Command;
use std::time::Instant;
use std::{env, io};

struct Bench {
    name: &'static str,
    run: fn() -> io::Result<()>,
    /// Seconds that it takes when all programs are there that it compares with: in full, and with `QUICK=1`.
    planned: [u32; 2],
}

const fn bench(name: &'static str, run: fn() -> io::Result<()>, planned: [u32; 2]) -> Bench {
    Bench { name, run, planned }
}

/// The last reads what the others have left.
const BENCHES: &[Bench] = &[
    bench("caching", caching::run, [90, 1]),
    bench("events", events::run, [55, 5]),
    bench("footprint", footprint::run, [25, 7]),
    bench("instructions", instructions::run, [60, 7]),
    bench("overload", overload::run, [160, 17]),
    bench(
        "parts",
        || {
            parts::run();
            Ok(())
        },
        [40, 4],
    ),
    bench("patterns", patterns::run, [45, 5]),
    bench("proxy", proxy::run, [115, 7]),
    bench("retries", retries::run, [42, 6]),
    bench("scaling", scaling::run, [80, 5]),
    bench("sockets", sockets::run, [90, 6]),
    bench("throttling", throttling::run, [50, 4]),
    bench("summary", summary::run, [1, 1]),
];

/// What all of them take together.
const fn planned(length: usize) -> u32 {
    let (mut sum, mut next) = (0, 0);
    while next < BENCHES.len() {
        sum += BENCHES[next].planned[length];
        next += 1;
    }
    sum
}

/// A quarter of an hour and a minute and a half, less a part for what starts and stops slowly. Whoever adds a bench makes
/// others shorter.
const _: () = assert!(planned(0) <= 860 && planned(1) <= 75);

/// Tells this program that it is the process of the bench named.
const ALONE: &str = "alone";

fn named(name: &str) -> io::Result<&'static Bench> {
    let found = BENCHES.iter().find(|bench| bench.name == name);
    found.ok_or_else(|| {
        let names: Vec<_> = BENCHES.iter().map(|bench| bench.name).collect();
        io::Error::other(format!("expected one of {names:?}, found {name}"))
    })
}

/// Runs it in a process of its own.
fn alone(bench: &Bench) -> io::Result<()> {
    let begun = Instant::now();
    let program = env::current_exe()?;
    let status = Command::new(program).args([ALONE, bench.name]).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("{}: {status}", bench.name)));
    }
    let planned = bench.planned[usize::from(common::quick())];
    let took = begun.elapsed().as_secs_f64();
    println!("{}: {took:.0} s, planned {planned} s", bench.name);
    Ok(())
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [ALONE, name] => (named(name)?.run)(),
        [instructions::REPEAT, part, times] => {
            instructions::repeat(part, times.parse().map_err(io::Error::other)?)
        }
        [events::OPEN, path] => events::open(path),
        [proxy::RESPOND, address] => {
            common::responder::serve(address.parse().map_err(io::Error::other)?)
        }
        [scaling::SERVE, address] => scaling::serve(address),
        // So that `cargo test --benches`, which runs it too, does not make minutes of load.
        _ if !words.contains(&"--bench") => {
            println!("a bench: run it with cargo bench");
            Ok(())
        }
        _ => {
            let names = words.iter().filter(|word| !word.starts_with('-'));
            let mut benches = names
                .map(|name| named(name))
                .collect::<io::Result<Vec<_>>>()?;
            if benches.is_empty() {
                benches.extend(BENCHES);
                common::peers::build_all();
            }
            let begun = Instant::now();
            // One that fails does not cost the others.
            let failed = benches.into_iter().filter_map(|bench| alone(bench).err());
            let failed: Vec<_> = failed.map(|error| error.to_string()).collect();
            println!("all: {:.0} s", begun.elapsed().as_secs_f64());
            if failed.is_empty() {
                Ok(())
            } else {
                Err(io::Error::other(failed.join("; ")))
            }
        }
    }
}
