use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn endpoint(address: &str) -> Discovered {
    let address: SocketAddr = address.parse().expect("an address");
    Discovered {
        address: address.into(),
        authority: address.to_string(),
        prefix: String::new(),
        weight: 1,
        max: None,
        priority: 0,
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "what a source tells, in the form it is told"
)]
fn told(addresses: &[&str], good_for: Duration) -> Option<Result<Told, String>> {
    let endpoints = addresses.iter().map(|address| endpoint(address)).collect();
    Some(Ok(Told::new(endpoints, good_for)))
}

fn told_one(address: &str) -> Option<Result<Told, String>> {
    told(&[address], INTERVAL)
}

fn addresses(discovery: &Discovery) -> Vec<String> {
    let endpoints = discovery.endpoints();
    endpoints
        .iter()
        .map(|one| one.address.to_string())
        .collect()
}

#[test]
fn a_source_that_fails_or_is_empty_keeps_its_last_good_set() {
    let discovery = Discovery::new(["http://api"]).expect("a good source");
    let mut now = Instant::now();
    let mut refresh = |answer: fn() -> Option<Result<Told, String>>| {
        let next = discovery.refresh_by(now, &|| {}, &|_| answer());
        assert_eq!(next, now + INTERVAL);
        now = next;
        (addresses(&discovery), discovery.sources()[0].error.clone())
    };
    let down = || Some(Err("no answer in time".to_owned()));
    let error = |text: &str| Some(text.to_owned());
    assert_eq!(refresh(down), (vec![], error("no answer in time")));
    let one = vec!["10.0.0.1:80".to_owned()];
    assert_eq!(
        refresh(|| told(&["10.0.0.1:80"], INTERVAL)),
        (one.clone(), None)
    );
    assert_eq!(refresh(down), (one.clone(), error("no answer in time")));
    let empty = refresh(|| told(&[], INTERVAL));
    assert_eq!(empty, (one, error("it has no endpoint")));
    let other = vec!["10.0.0.2:80".to_owned()];
    assert_eq!(refresh(|| told(&["10.0.0.2:80"], INTERVAL)), (other, None));
}

#[test]
fn only_what_is_due_is_asked_and_an_answer_is_believed_as_long_as_it_says() {
    let discovery = Discovery::new(["srv://a", "http://b"]).expect("good sources");
    let asked = AtomicUsize::new(0);
    let ask = |watched: &WatchedSource| {
        asked.fetch_add(1, Ordering::Relaxed);
        match watched.source {
            Source::Srv { .. } => told(&["10.0.0.1:80"], 2 * SECOND),
            _ => told(&["10.0.0.2:80"], INTERVAL),
        }
    };
    let start = Instant::now();
    for (at, total, next) in [(0, 2, 2), (1, 2, 2), (2, 3, 4), (4, 4, 5), (5, 5, 6)] {
        let found = discovery.refresh_by(start + at * SECOND, &|| {}, &ask);
        assert_eq!(asked.load(Ordering::Relaxed), total, "at {at} s");
        assert_eq!(found, start + next * SECOND, "at {at} s");
    }
}

#[test]
fn a_source_that_tells_others_each_time_is_asked_less_and_less_often_until_it_repeats_itself() {
    let discovery = Discovery::new(["srv://api?server=127.0.0.1:53"]).expect("a good source");
    let mut now = Instant::now();
    let mut held_for = |number: u32| {
        let one = format!("10.0.0.{number}:80");
        let answer = || told(&[&one], SECOND);
        let next = discovery.refresh_by(now, &|| {}, &|_| answer());
        let held = next - now;
        now = next;
        held.as_secs()
    };
    let held: Vec<_> = (1..=7).map(&mut held_for).collect();
    assert_eq!(held, [1, 2, 4, 8, 16, 16, 16]);
    assert_eq!((held_for(7), held_for(8), held_for(9)), (1, 1, 2));
}

#[test]
fn many_sources_are_asked_side_by_side_and_one_that_panics_fails() {
    let names: Vec<_> = (0..20).map(|number| format!("http://h{number}")).collect();
    let discovery = Discovery::new(&names).expect("good sources");
    discovery.refresh_by(Instant::now(), &|| {}, &|watched| {
        assert_ne!(watched.shown, "http://h7", "on purpose");
        let number = &watched.shown["http://h".len()..];
        told(&[&format!("10.0.0.{number}:80")], INTERVAL)
    });
    assert_eq!(discovery.endpoints().len(), 19);
    let failed: Vec<_> = discovery
        .sources()
        .into_iter()
        .filter(|one| one.error.is_some())
        .collect();
    assert_eq!((failed.len(), failed[0].source.as_str()), (1, "http://h7"));
}

#[test]
fn each_endpoint_is_taken_once_and_the_257th_is_refused_by_name() {
    let discovery = Discovery::new(["http://a", "http://b"]).expect("good sources");
    let ask = |watched: &WatchedSource| {
        let count = if watched.shown == "http://a" {
            200
        } else {
            257
        };
        let all: Vec<_> = (0..count)
            .map(|number| format!("10.0.0.1:{}", 1000 + number))
            .collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        told(&all, INTERVAL)
    };
    for _ in 0..2 {
        discovery.refresh_by(Instant::now(), &|| {}, &ask);
        assert_eq!(discovery.endpoints().len(), 256);
        let sources = discovery.sources();
        assert_eq!(
            (sources[0].endpoints, sources[0].error.as_deref()),
            (200, None)
        );
        let error = "expected at most 256 endpoints, found 10.0.0.1:1256 too";
        assert_eq!(
            (sources[1].endpoints, sources[1].error.as_deref()),
            (257, Some(error))
        );
    }
}

/// One source that did not answer kept the endpoints of all others from being used for 5 s.
#[test]
fn what_a_source_tells_does_not_wait_for_another_that_does_not_answer() {
    let names: Vec<_> = (0..20).map(|number| format!("http://h{number}")).collect();
    let discovery = Discovery::new(&names).expect("good sources");
    let (tell, told) = crossbeam_channel::unbounded();
    let changed = || tell.send(discovery.endpoints().len()).expect("it listens");
    let all_others = || told.iter().find(|count| *count == 19);
    discovery.refresh_by(Instant::now(), &changed, &|watched| {
        if watched.shown == "http://h3" {
            assert_eq!(all_others(), Some(19));
            return Some(Err("no answer in time".to_owned()));
        }
        let number = &watched.shown["http://h".len()..];
        told_one(&format!("10.0.0.{number}:80"))
    });
    assert_eq!(discovery.endpoints().len(), 19);
}

#[test]
fn at_most_256_sources_are_taken() {
    let sources: Vec<_> = (0..257)
        .map(|number| format!("unix:/run/{number}"))
        .collect();
    assert!(Discovery::new(&sources[..256]).is_ok());
    let error = Discovery::new(&sources).expect_err("one too many");
    assert_eq!(error.source, "unix:/run/256");
}

/// A file of its own in the system's temporary directory.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("plimsoll-discovery-{name}-{}", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).expect("it can be written");
    }

    fn discovery(&self) -> Discovery {
        let source = format!("file:{}", self.0.display());
        Discovery::new([source]).expect("a good source")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // What is left over is in the system's temporary directory.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_file_is_read_again_when_it_changes() {
    let file = File::new("changes", "http://10.0.0.1:9000\n");
    let discovery = file.discovery();
    let start = Instant::now();
    let mut next = discovery.refresh(start);
    assert_eq!(addresses(&discovery), ["10.0.0.1:9000"]);
    assert_eq!(next, start + FILE_INTERVAL);

    // Half-written: what it would say is never taken.
    for half in [
        "",
        "http://10.0.0.1:9",
        "http://10.0.0.1:9000\nhttp://10.0.0.2:90",
    ] {
        file.write(half);
        let found = discovery.refresh(next);
        assert_eq!(addresses(&discovery), ["10.0.0.1:9000"], "{half:?}");
        assert_eq!(found, next + SETTLING);
        next = found;
    }
    file.write("http://10.0.0.1:9000\nhttp://10.0.0.2:9000\n");
    next = discovery.refresh(next);
    next = discovery.refresh(next);
    assert_eq!(addresses(&discovery), ["10.0.0.1:9000", "10.0.0.2:9000"]);

    std::fs::remove_file(&file.0).expect("it is there");
    discovery.refresh(next);
    assert_eq!(addresses(&discovery).len(), 2, "the last good set is kept");
    assert!(discovery.sources()[0].error.is_some());
}

#[test]
fn a_file_with_a_bad_line_keeps_the_last_good_set_and_names_the_line() {
    let file = File::new("bad", "http://10.0.0.1:9000\n");
    let discovery = file.discovery();
    let mut next = discovery.refresh(Instant::now());
    file.write("http://10.0.0.2:9000\nhttp://10.0.0.3:none\n");
    for _ in 0..3 {
        next = discovery.refresh(next);
    }
    assert_eq!(addresses(&discovery), ["10.0.0.1:9000"]);
    let error = discovery.sources()[0].error.clone().expect("an error");
    assert!(
        error.starts_with("line 2: http://10.0.0.3:none: "),
        "{error}"
    );
    file.write("http://10.0.0.2:9000\n");
    for _ in 0..3 {
        next = discovery.refresh(next);
    }
    assert_eq!(addresses(&discovery), ["10.0.0.2:9000"]);
    assert_eq!(discovery.sources()[0].error, None);
}

/// What came behind 257 lines was never read, though they named one endpoint.
#[test]
fn lines_that_name_the_same_endpoint_leave_room_for_others() {
    let text = "http://10.0.0.1\n".repeat(300) + "http://10.0.0.1:80#weight=2\nhttp://10.0.0.2\n";
    let file = File::new("same", &text);
    let discovery = file.discovery();
    discovery.refresh(Instant::now());
    assert_eq!(addresses(&discovery), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(discovery.sources()[0].error, None);
}

#[test]
fn a_name_is_every_address_that_it_has() {
    let discovery = Discovery::new(["http://localhost:9000/v1#weight=3"]).expect("a good source");
    discovery.refresh(Instant::now());
    let endpoints = discovery.endpoints();
    assert!(!endpoints.is_empty());
    for endpoint in endpoints.iter() {
        let Address::Tcp(address) = &endpoint.address else {
            panic!("{endpoint:?}");
        };
        assert!(address.ip().is_loopback() && address.port() == 9000);
        assert_eq!(endpoint.authority, "localhost:9000");
        assert_eq!((endpoint.prefix.as_str(), endpoint.weight), ("/v1", 3));
    }
}
