//! The benches, as one program that links once.
//!
//! Each runs in a process of its own, so that none inherits the memory, the threads or the limits of another:
//! all of them with `make bench`, some with `cargo bench --features internals -- NAME ...`. `QUICK=1` shortens them.

mod common;
mod events;
mod footprint;
mod instructions;
mod overload;
mod parts;
mod patterns;
mod proxy;
mod scaling;
mod sockets;
mod summary;
mod throttling;

use std::process::Command;
use std::{env, io};

/// The last reads what the others have left.
const BENCHES: [&str; 11] = [
    "events",
    "footprint",
    "instructions",
    "overload",
    "parts",
    "patterns",
    "proxy",
    "scaling",
    "sockets",
    "throttling",
    "summary",
];

fn run(bench: &str) -> io::Result<()> {
    match bench {
        "events" => events::run(),
        "footprint" => footprint::run(),
        "instructions" => instructions::run(),
        "overload" => overload::run(),
        "parts" => {
            parts::run();
            Ok(())
        }
        "patterns" => {
            patterns::run();
            Ok(())
        }
        "proxy" => proxy::run(),
        "scaling" => scaling::run(),
        "sockets" => sockets::run(),
        "throttling" => throttling::run(),
        "summary" => summary::run(),
        _ => Err(io::Error::other(format!(
            "expected one of {BENCHES:?}, found {bench}"
        ))),
    }
}

/// Tells this program that it is the process of the bench named.
const ALONE: &str = "alone";

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [ALONE, bench] => run(bench),
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
            let mut benches = words;
            benches.retain(|word| !word.starts_with('-'));
            if benches.is_empty() {
                benches.extend(BENCHES);
            }
            for bench in benches {
                let program = env::current_exe()?;
                let status = Command::new(program).args([ALONE, bench]).status()?;
                if !status.success() {
                    return Err(io::Error::other(format!("{bench}: {status}")));
                }
            }
            Ok(())
        }
    }
}
