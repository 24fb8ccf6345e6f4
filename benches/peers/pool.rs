//! A plain worker pool on `tiny_http`, which owns the sockets: for comparison.
//!
//! `pool ADDRESS WORKERS`

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use plimsoll::Ewma;
use tiny_http::{Response, Server};

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:8080".to_owned());
    let workers: usize = arguments.next().map_or(Ok(4), |number| number.parse())?;
    let server = Arc::new(Server::http(&address)?);
    let times = Arc::new(Ewma::new(30));
    let threads: Vec<_> = (0..workers)
        .map(|_| {
            let (server, times) = (server.clone(), times.clone());
            thread::spawn(move || {
                while let Ok(request) = server.recv() {
                    let start = Instant::now();
                    let average = times.value().unwrap_or(0.0) * 1e3;
                    let text = format!("Average request time: {average:.6} (ms)\n");
                    // A client that has gone needs no reply.
                    drop(request.respond(Response::from_string(text)));
                    times.add(start.elapsed().as_secs_f64());
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a worker panicked")?;
    }
    Ok(())
}
