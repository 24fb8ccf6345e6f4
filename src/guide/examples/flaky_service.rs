//! A handler that calls a flaky service, with a deadline, retries and a circuit breaker.
//!
//! ```sh
//! cargo run --example flaky_service
//! ```
//!
//! It starts the service and the handler's server, asks it some times, shows what comes of it, and ends.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use plimsoll::patterns::{BreakerError, CircuitBreaker, Deadline, DeadlineStream, Failed, Retry};
use plimsoll::{Handler, IntoResponse, Request, Response, Server};

/// The handler: its answer is the service's.
struct Shop {
    service: SocketAddr,
    retry: Retry,
    breaker: CircuitBreaker,
}

impl Shop {
    /// Asks the service for the price. All tries and pauses fit into the deadline.
    fn price(&self, deadline: Deadline) -> Result<String, BreakerError<io::Error>> {
        self.retry.call(deadline, |_attempt| {
            // One try may take a second, but never more than what is left for the whole.
            let one_try = deadline.within(Duration::from_secs(1));
            let result = self.breaker.call(|| match get(self.service, one_try)? {
                (200, body) => Ok(body),
                (status, _) => Err(io::Error::other(format!("the service answers {status}"))),
            });
            // An open breaker will refuse the next try too.
            result.map_err(|error| Failed::again_if(!error.is_open(), error))
        })
    }
}

impl Handler for Shop {
    fn handle(&self, request: &mut Request) -> Response {
        match self.price(Deadline::after(request.remaining())) {
            Ok(price) => price.into_response(),
            Err(BreakerError::Open(open)) => (503, format!("{open}\n")).into_response(),
            Err(BreakerError::Failed(error)) => (502, format!("{error}\n")).into_response(),
        }
    }
}

/// The service: of each two calls so many fail.
struct Service {
    calls: AtomicU32,
    failing: AtomicU32,
}

impl Handler for Service {
    fn handle(&self, _request: &mut Request) -> Response {
        let call = self.calls.fetch_add(1, SeqCst);
        if call % 2 < self.failing.load(SeqCst) {
            return (503, "sorry\n").into_response();
        }
        "17.20\n".into_response()
    }
}

/// A small blocking client: any that has timeouts will do in its place.
fn get(address: SocketAddr, deadline: Deadline) -> io::Result<(u16, String)> {
    let mut stream = DeadlineStream::connect(address, deadline)?;
    stream.write_all(b"GET /price HTTP/1.0\r\n\r\n")?;
    let mut reply = String::new();
    stream.take(64 * 1024).read_to_string(&mut reply)?;
    let status = reply.get(9..12).and_then(|status| status.parse().ok());
    let body = reply
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned());
    status
        .zip(body)
        .ok_or_else(|| io::Error::other("the reply can't be read"))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let service = Arc::new(Service {
        calls: AtomicU32::new(0),
        failing: AtomicU32::new(1),
    });
    let service_server = Server::builder()
        .listen("127.0.0.1:0")
        .handler(service.clone())
        .start()?;
    // The service is the only one of its kind. It is back soon here, so that this ends soon.
    let breaker = CircuitBreaker::builder("prices").only();
    let breaker = breaker
        .open_for(Duration::from_millis(300), Duration::from_secs(1))
        .build();
    let shop = Arc::new(Shop {
        service: service_server.local_addr(),
        retry: Retry::new(),
        breaker: breaker.clone(),
    });
    let shop_server = Server::builder()
        .listen("127.0.0.1:0")
        .handler(shop)
        .start()?;
    let ask = |times: u32| -> io::Result<()> {
        for _ in 0..times {
            let before = service.calls.load(SeqCst);
            let (status, body) = get(
                shop_server.local_addr(),
                Deadline::after(Duration::from_secs(10)),
            )?;
            let calls = service.calls.load(SeqCst) - before;
            println!(
                "    {status} after {calls} calls of the service: {}",
                body.trim_end()
            );
        }
        Ok(())
    };

    println!("The service fails each second time. Retries hide that:");
    ask(3)?;
    println!(
        "The service is down. After five failures in a row the circuit breaker opens, and nobody calls:"
    );
    service.failing.store(2, SeqCst);
    ask(4)?;
    println!(
        "The service is well. When the breaker's delay is over, two trials that succeed close it:"
    );
    service.failing.store(0, SeqCst);
    thread::sleep(breaker.status().remaining);
    ask(3)?;
    println!("The breaker is {:?}.", breaker.status().state);
    Ok(())
}
