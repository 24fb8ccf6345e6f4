//! The plimsoll binary: reads its options, serves until a signal or asks a health endpoint, and says why when it cannot.

#[cfg(feature = "events")]
mod events;
mod options;

use std::error::Error;
use std::io::{self, Write};
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::Instant;
use std::{env, thread};

use listenfd::ListenFd;
#[cfg(feature = "redis")]
use plimsoll::patterns::ThrottleStore;
#[cfg(feature = "proxy")]
use plimsoll::proxy::Proxy;
#[cfg(feature = "proxy")]
use plimsoll::settings::own_public_paths;
use plimsoll::{Builder, Request, Server, Status, StderrLog};

use crate::options::{Command, Options, ProbeOptions};

/// The exit code for a bad option; one for a failure to serve is [`ExitCode::FAILURE`].
const BAD_OPTION: u8 = 2;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match options::parse(env::args_os().skip(1), |name| env::var_os(name)) {
        Ok(Command::Serve(options)) => serve(options),
        Ok(Command::Probe(options)) => probe(&options),
        #[cfg(feature = "events")]
        Ok(Command::Events(options)) if events::run(&options) => ExitCode::SUCCESS,
        #[cfg(feature = "events")]
        Ok(Command::Events(_)) => ExitCode::FAILURE,
        Ok(Command::Help(text) | Command::Version(text) | Command::Checked(text)) => {
            match io::stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complain(&error, ExitCode::FAILURE),
            }
        }
        Err(error) => complain(&error, ExitCode::from(BAD_OPTION)),
    }
}

/// Prints one line to standard error, whatever the log level.
fn complain(error: &dyn Error, code: ExitCode) -> ExitCode {
    // Nothing is left to tell when standard error is gone; the exit code still says it.
    let _ = writeln!(io::stderr(), "plimsoll: {error}");
    code
}

fn serve(options: Options) -> ExitCode {
    // It has to come before the log's thread.
    let listeners = passed_listeners();
    let log = match StderrLog::install(options.log_level) {
        Ok(log) => log,
        Err(error) => return complain(&error, ExitCode::FAILURE),
    };
    match listeners.and_then(|listeners| run(options, listeners)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever reads standard error may have stopped.
            log.print(&format!("plimsoll: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options, listeners: Vec<TcpListener>) -> Result<(), Box<dyn Error>> {
    #[cfg(feature = "proxy")]
    if !options.proxy.upstream.is_empty() {
        let own = own_public_paths(&options.config);
        if !own.is_empty() {
            log::info!("answered here and not forwarded: {}", own.join(", "));
        }
        let builder = builder(&options, listeners)?;
        let proxy = Proxy::start(options.proxy)?.under(&options.config);
        #[cfg(feature = "events")]
        let proxy = proxy.keeping(&options.events, &options.config)?;
        return Ok(proxy.on(builder).start()?.run_until_signal()?);
    }
    let work = options.work;
    let server = builder(&options, listeners)?
        .handler(move |request: &mut Request| {
            if request.path() != "/" {
                return (404_u16, "not found\n".to_owned());
            }
            thread::sleep(work);
            let average = request.health().service_time().unwrap_or_default();
            let millis = average.as_secs_f64() * 1e3;
            let text = format!("Average request time: {millis:.6} (ms)\n");
            (200, text)
        })
        .start()?;
    server.run_until_signal()?;
    Ok(())
}

#[cfg_attr(
    not(feature = "redis"),
    expect(clippy::unnecessary_wraps, reason = "as with the feature")
)]
fn builder(options: &Options, listeners: Vec<TcpListener>) -> Result<Builder, Box<dyn Error>> {
    let builder = Server::builder().config(options.config.clone());
    #[cfg(feature = "redis")]
    let builder = match &options.throttle_store {
        Some(url) => builder.throttle_store(ThrottleStore::start(url)?),
        None => builder,
    };
    Ok(listeners.into_iter().fold(builder, Builder::listener))
}

/// Asks a health endpoint, and tells the answer in a line and by the exit code.
fn probe(options: &ProbeOptions) -> ExitCode {
    let answer = options.probe.ask(Instant::now() + options.timeout);
    let (status, line) = match answer {
        Ok(answer) => (answer.status, answer.to_string()),
        Err(error) => (Status::Fail, error.to_string()),
    };
    // Whoever reads only the exit code may have closed it.
    let _ = writeln!(io::stdout(), "{line}");
    ExitCode::from(options.exit_code(status))
}

/// The sockets that a service manager has passed, see `sd_listen_fds(3)`. It takes them out of the environment, so it
/// has to be called before there is a second thread.
fn passed_listeners() -> Result<Vec<TcpListener>, Box<dyn Error>> {
    let mut passed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for number in 0..passed.len() {
        let listener = passed.take_tcp_listener(number);
        let listener = listener.map_err(|error| {
            format!("cannot serve a socket that was passed in LISTEN_FDS: {error}")
        })?;
        listeners.extend(listener);
    }
    Ok(listeners)
}
