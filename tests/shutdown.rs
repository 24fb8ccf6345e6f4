//! Draining, stopping, and what is left then: nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::kit::{
    Client, Latch, PATIENCE, Reserved, alone, get, quiet, quiet_at, usage, wait_until,
};
use plimsoll::{Error, Handle, Request, Response, Server};

/// Whether anybody listens there.
fn is_listening(server: std::net::SocketAddr) -> bool {
    TcpStream::connect(server).is_ok()
}

/// A server of two workers whose `/held` waits for the latch; nobody else ever listens at its address.
fn holding() -> (Server, Arc<Latch>) {
    let latch = Arc::new(Latch::default());
    let held = latch.clone();
    let server = quiet_at(Reserved::new().for_good(), 2)
        .handler(move |request: &mut Request| match request.path() {
            "/held" => {
                held.pass();
                "held\n"
            }
            _ => "served\n",
        })
        .start()
        .expect("a server");
    (server, latch)
}

/// Such a server that runs in a thread, and a client whose request is held.
fn running() -> (JoinHandle<Result<(), Error>>, Handle, Client, Arc<Latch>) {
    let (server, latch) = holding();
    let handle = server.handle();
    let serving = thread::spawn(move || server.run());
    let mut client = Client::connect(handle.local_addr());
    client.get("/held");
    latch.wait_for(1);
    (serving, handle, client, latch)
}

#[test]
fn a_drain_says_not_ready_at_once_and_serves_until_all_is_answered() {
    let (server, latch) = holding();
    let address = server.local_addr();
    let mut kept_alive = Client::connect(address);
    assert_eq!(kept_alive.get("/").reply().text(), "served\n");
    assert_eq!(get(address, "/readyz").status, 200);
    let mut in_flight = Client::connect(address);
    in_flight.get("/held");
    latch.wait_for(1);

    let stopping = thread::spawn(move || server.shutdown(PATIENCE / 4));
    wait_until("not ready", || {
        let reply = get(address, "/readyz");
        assert!(reply.status == 200 || reply.text() == "draining\n");
        reply.status == 503
    });
    let reply = get(address, "/health");
    assert_eq!(reply.status, 503, "a balancer must see it there too");
    assert_eq!(get(address, "/livez").status, 200, "yet it is alive");
    assert!(
        get(address, "/metrics")
            .text()
            .contains("plimsoll_draining 1\n")
    );

    let reply = kept_alive.get("/").reply();
    assert_eq!((reply.status, reply.text()), (200, "served\n"));
    assert!(
        reply.closes(),
        "so that its client goes elsewhere: {reply:?}"
    );
    kept_alive.expect_close();
    let reply = get(address, "/");
    assert_eq!((reply.status, reply.text()), (200, "served\n"));
    assert!(reply.closes(), "{reply:?}");

    assert!(!stopping.is_finished(), "a request is in flight");
    latch.open();
    let reply = in_flight.reply();
    assert_eq!((reply.status, reply.text()), (200, "held\n"));
    assert!(reply.closes(), "{reply:?}");
    in_flight.expect_close();
    stopping
        .join()
        .expect("no panic")
        .expect("every request was answered");
    assert!(!is_listening(address));
}

#[test]
fn a_drain_with_nothing_in_flight_ends_early_and_closes_idle_connections() {
    let (server, _latch) = holding();
    let address = server.local_addr();
    let mut idle = Client::connect(address);
    assert_eq!(idle.get("/").reply().text(), "served\n");
    let began = Instant::now();
    // A fifth of it is waited for quiet; all of it would be seen.
    server
        .shutdown(PATIENCE / 6)
        .expect("nothing was in flight");
    assert!(began.elapsed() >= PATIENCE / 30);
    idle.expect_close();
    assert!(!is_listening(address));
}

#[test]
fn a_drain_that_runs_out_of_time_cuts_what_is_left_and_says_so() {
    let (server, latch) = holding();
    let mut in_flight = Client::connect(server.local_addr());
    in_flight.get("/held");
    latch.wait_for(1);
    match server.shutdown(Duration::from_millis(100)) {
        Err(Error::Cut(1)) => {}
        other => panic!("{other:?}"),
    }
    in_flight.expect_close();
    latch.open();
}

/// The body "held\n"; to drop it waits for the latch.
struct SlowToDrop(&'static [u8], Arc<Latch>);

impl Read for SlowToDrop {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Drop for SlowToDrop {
    fn drop(&mut self) {
        self.1.pass();
    }
}

/// A client had its reply, and its request was counted as cut all the same when the worker was slow to say so.
#[test]
fn a_reply_that_is_out_is_not_cut_however_late_its_worker_says_so() {
    let latch = Arc::new(Latch::default());
    let held = latch.clone();
    let server = quiet_at(Reserved::new().for_good(), 1)
        .handler(move |_: &mut Request| {
            Response::reader(200, SlowToDrop(b"held\n", held.clone()), Some(5))
        })
        .start()
        .expect("a server");
    let address = server.local_addr();
    let mut client = Client::connect(address);
    assert_eq!(client.get("/").reply().text(), "held\n");
    latch.wait_for(1);
    let stopping = thread::spawn(move || server.shutdown(Duration::ZERO));
    wait_until("the time is over", || !is_listening(address));
    latch.open();
    let stopped = stopping.join().expect("no panic");
    stopped.expect("nothing was cut");
    client.expect_close();
}

#[test]
fn what_still_waits_when_the_drain_is_over_is_told_to_go_elsewhere() {
    let latch = Arc::new(Latch::default());
    let server = quiet(1)
        .handler(latch.handler("held\n"))
        .start()
        .expect("a server");
    let mut running = Client::connect(server.local_addr());
    running.get("/");
    latch.wait_for(1);
    let mut waiting = Client::connect(server.local_addr());
    waiting.get("/");
    wait_until("one waits", || server.health().snapshot().queue == 1);
    let stopped = server.shutdown(Duration::from_millis(100));
    assert!(matches!(stopped, Err(Error::Cut(_))), "{stopped:?}");
    let reply = waiting.reply();
    assert_eq!(reply.status, 503);
    assert!(reply.closes(), "{reply:?}");
    running.expect_close();
    latch.open();
}

#[test]
fn dropping_a_server_stops_it() {
    let (server, _latch) = holding();
    let address = server.local_addr();
    assert_eq!(get(address, "/").text(), "served\n");
    drop(server);
    assert!(!is_listening(address));
}

#[test]
fn dropping_a_server_whose_handler_hangs_does_not_hang() {
    let (server, latch) = holding();
    let address = server.local_addr();
    let mut client = Client::connect(address);
    client.get("/held");
    latch.wait_for(1);
    drop(server);
    assert!(!is_listening(address));
    client.expect_close();
    latch.open();
}

/// A request that only needed a moment more was cut.
#[test]
fn dropping_a_server_finishes_what_is_in_flight_and_waits_for_nothing_else() {
    let (server, latch) = holding();
    let address = server.local_addr();
    let mut idle = Client::connect(address);
    assert_eq!(idle.get("/").reply().text(), "served\n");
    let mut unfinished = Client::connect(address);
    unfinished.send("GET / HTTP/1.1\r\n");
    let mut client = Client::connect(address);
    client.get("/held");
    latch.wait_for(1);
    let handle = server.handle();
    let dropping = thread::spawn(move || drop(server));
    wait_until("it drains", || handle.health().snapshot().draining);
    latch.open();
    let reply = client.reply();
    assert_eq!((reply.text(), reply.closes()), ("held\n", true));
    idle.expect_close();
    unfinished.expect_close();
    dropping.join().expect("no panic");
    assert!(!is_listening(address));
}

#[test]
fn the_rest_of_the_program_reaches_a_server_that_runs() {
    let (serving, handle, mut client, latch) = running();
    assert_eq!(handle.local_addrs(), [handle.local_addr()]);
    assert_eq!((handle.admin_addr(), handle.agent_addr()), (None, None));
    assert_eq!(handle.health().snapshot().in_flight, 1);
    handle.clone().shutdown(PATIENCE);
    wait_until("it drains", || handle.health().snapshot().draining);
    assert!(!serving.is_finished());
    latch.open();
    assert_eq!(client.reply().text(), "held\n");
    // The longer drain has been begun already.
    handle.shutdown(Duration::ZERO);
    serving.join().expect("no panic").expect("a clean end");
    assert!(!is_listening(handle.local_addr()));
    handle.shutdown(PATIENCE);
    assert!(handle.health().snapshot().draining);
}

#[test]
fn a_handle_that_leaves_no_time_cuts_and_says_so() {
    let (serving, handle, mut client, latch) = running();
    handle.shutdown(Duration::ZERO);
    match serving.join().expect("no panic") {
        Err(Error::Cut(1)) => {}
        other => panic!("{other:?}"),
    }
    client.expect_close();
    latch.open();
}

#[test]
fn several_servers_live_in_one_process_each_with_its_own_numbers() {
    let start = |name: &'static str| {
        quiet(1)
            .handler(move |_: &mut Request| name)
            .start()
            .expect("a server")
    };
    let (one, two) = (start("one\n"), start("two\n"));
    assert_ne!(one.local_addr(), two.local_addr());
    for _ in 0..3 {
        assert_eq!(get(one.local_addr(), "/").text(), "one\n");
    }
    assert_eq!(get(two.local_addr(), "/").text(), "two\n");
    let served = |server: &Server| server.health().snapshot().totals.served;
    wait_until("both have counted", || {
        served(&one) == 3 && served(&two) == 1
    });
    drop(one);
    assert_eq!(get(two.local_addr(), "/").text(), "two\n");
}

#[test]
fn a_server_listens_on_every_address_given() {
    let server = quiet_at(Reserved::new().for_good(), 1)
        .listen(Reserved::new().for_good())
        .handler(|_: &mut Request| "served\n")
        .start()
        .expect("a server");
    let addresses = server.local_addrs().to_vec();
    assert_eq!(addresses.len(), 2);
    for &address in &addresses {
        assert_eq!(get(address, "/").text(), "served\n");
    }
    drop(server);
    for address in addresses {
        assert!(!is_listening(address));
    }
}

#[test]
fn an_address_that_is_taken_is_an_error_that_names_it() {
    let (server, _latch) = holding();
    let address = server.local_addr().to_string();
    let error = Server::builder()
        .listen(address.as_str())
        .start()
        .expect_err("it is taken");
    assert!(matches!(error, Error::Listen { .. }), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
}

#[test]
fn a_setting_out_of_bounds_is_an_error_that_names_it() {
    let error = quiet(0).start().expect_err("no workers");
    assert!(matches!(error, Error::Config(_)), "{error:?}");
    assert!(error.to_string().contains("workers"), "{error}");
}

#[test]
fn a_panic_in_the_handler_is_500_and_the_worker_lives() {
    let server = quiet(1)
        .handler(|request: &mut Request| {
            assert_ne!(request.path(), "/panic", "a panic of the test");
            Response::text(200, "served\n")
        })
        .start()
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    for _ in 0..3 {
        let reply = client.get("/panic").reply();
        assert_eq!(reply.status, 500);
        assert!(!reply.closes(), "{reply:?}");
        assert!(!reply.text().contains("test"), "what it said stays inside");
        assert_eq!(client.get("/").reply().text(), "served\n");
    }
    wait_until("they are counted", || {
        let totals = server.health().snapshot().totals;
        totals.panics == 3 && totals.failed == 3 && totals.served == 3
    });
    server.shutdown(Duration::ZERO).expect("nothing in flight");
}

/// The private directories of this process's servers.
fn directories() -> BTreeSet<PathBuf> {
    let set = ["XDG_RUNTIME_DIR", "TMPDIR"];
    let set = set.into_iter().filter_map(std::env::var_os);
    let fixed = ["/tmp", "/run", "/dev/shm"].into_iter().map(Into::into);
    let prefix = format!("plimsoll-{}-", std::process::id());
    set.chain(fixed)
        .filter_map(|place| fs::read_dir(place).ok())
        .flatten()
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with(&prefix)
        })
        .collect()
}

/// The names of this process's threads that are a server's.
fn threads() -> Vec<String> {
    let threads = usage::threads("self").into_iter();
    threads
        .filter(|name| name.starts_with("plimsoll-"))
        .collect()
}

#[test]
fn a_server_that_has_stopped_leaves_no_directory_and_no_thread() {
    alone(|| {
        assert_eq!(directories(), BTreeSet::new());
        for stop in [(|server| drop(server)) as fn(Server), |server| {
            server.shutdown(Duration::from_millis(100)).expect("idle");
        }] {
            let (server, _latch) = holding();
            assert_eq!(get(server.local_addr(), "/").text(), "served\n");
            let private = directories();
            let directory = private.first().expect("a private directory");
            let metadata = fs::metadata(directory).expect("a directory");
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o700);
            assert_eq!(private.len(), 1);
            // A thread has its name once it runs: two workers, the event loop, the reset thread.
            wait_until("four threads", || threads().len() == 4);
            stop(server);
            assert_eq!(directories(), BTreeSet::new());
            // A thread that has been joined may be listed for a moment more.
            wait_until("no thread is left", || threads().is_empty());
        }
    });
}

/// It was gone before a balancer could see that it was not ready.
#[test]
fn a_drain_that_is_watched_accepts_and_serves_for_its_whole_time() {
    let (server, _latch) = holding();
    let address = server.local_addr();
    assert_eq!(get(address, "/readyz").status, 200);
    let drain = PATIENCE / 10;
    let began = Instant::now();
    let stopping = thread::spawn(move || server.shutdown(drain));
    // The end of the time may come between the look at the clock and the answer.
    while began.elapsed() < drain * 9 / 10 {
        assert!(is_listening(address), "gone after {:?}", began.elapsed());
        thread::sleep(Duration::from_millis(50));
    }
    let stopped = stopping.join().expect("no panic");
    stopped.expect("nothing was in flight");
    assert!(began.elapsed() >= drain);
    assert!(!is_listening(address));
}
