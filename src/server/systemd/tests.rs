use super::*;
use std::os::unix::net::UnixDatagram;

use crate::checks::{CheckReport, CheckState, PoolStatus};
use crate::health::GateState;

fn healthy() -> Snapshot {
    Health::of_a_new_server(Instant::now()).snapshot()
}

fn stuck() -> Snapshot {
    let snapshot = healthy();
    Snapshot {
        workers_stuck: snapshot.workers,
        ..snapshot
    }
}

type Change = Box<dyn Fn(&mut Snapshot)>;

#[test]
fn the_status_is_a_word_and_what_is_behind_it() {
    let open = GateState::Open {
        reopens_in: Duration::from_secs(1),
    };
    let exhausted = CheckReport {
        pool: Some(PoolStatus {
            used: 4,
            idle: 0,
            max: 4,
        }),
        ..CheckReport::sample("db", true, CheckState::Up)
    };
    let checks = |checks: Vec<CheckReport>| -> Change {
        Box::new(move |now| now.checks.clone_from(&checks))
    };
    let cases: [(&str, Change); 10] = [
        ("healthy", Box::new(|_| ())),
        ("unhealthy: resetting", Box::new(move |now| now.gate = open)),
        (
            "warning: recovering",
            Box::new(|now| now.gate = GateState::HalfOpen),
        ),
        (
            "unhealthy: every worker is stuck",
            Box::new(|now| now.workers_stuck = now.workers),
        ),
        ("draining", Box::new(|now| now.draining = true)),
        (
            "warning: cache is down",
            checks(vec![
                CheckReport::sample("cache", false, CheckState::Down),
                CheckReport::sample("queue", false, CheckState::NotYet),
                CheckReport::sample("db", true, CheckState::Up),
            ]),
        ),
        (
            "unhealthy: db is down, cache is down",
            checks(vec![
                CheckReport::sample("cache", false, CheckState::Down),
                CheckReport::sample("db", true, CheckState::Down),
            ]),
        ),
        (
            "unhealthy: db is not checked yet",
            checks(vec![CheckReport::sample("db", true, CheckState::NotYet)]),
        ),
        (
            "warning: the pool of db is exhausted",
            checks(vec![exhausted]),
        ),
        (
            "unhealthy: resetting, cache is down",
            Box::new(move |now| {
                now.gate = open;
                now.checks = vec![CheckReport::sample("cache", false, CheckState::Down)];
            }),
        ),
    ];
    for (expected, change) in cases {
        let mut now = healthy();
        change(&mut now);
        assert_eq!(status(&now), expected);
    }
}

#[test]
fn the_status_stays_one_short_line_whatever_the_stores_are_called() {
    let names = ["a\nREADY=1\n\u{7}", &"é".repeat(MAX_STATUS)];
    let mut now = healthy();
    now.checks = names
        .map(|name| CheckReport::sample(name, false, CheckState::Down))
        .into();
    let line = status(&now);
    assert!(
        line.starts_with("warning: aREADY=1 is down, éé"),
        "{line:?}"
    );
    assert!(line.len() <= MAX_STATUS && line.len() > MAX_STATUS - 2);
    assert!(!line.contains(char::is_control));
}

#[test]
fn it_is_ready_at_once_and_the_status_is_told_only_when_it_changes() {
    let start = Instant::now();
    let mut watch = Watchdog::new(None, start);
    let (mut now, at) = (healthy(), |seconds| start + Duration::from_secs(seconds));
    let message = watch.poll_message(&now, at(0));
    assert_eq!(message.as_deref(), Some("READY=1\nSTATUS=healthy\n"));
    watch.handle_told(true);
    assert_eq!(watch.next_timeout(), at(1));
    assert_eq!(watch.poll_message(&now, at(1)), None);

    now.draining = true;
    assert_eq!(watch.poll_message(&now, at(1)), None, "not before its time");
    let message = watch.poll_message(&now, at(2));
    assert_eq!(message.as_deref(), Some("STATUS=draining\n"));
    watch.handle_told(true);
    assert_eq!(watch.poll_message(&now, at(3)), None);
    assert!(!watch.poll_ping(at(3)), "there is no watchdog");
}

#[test]
fn what_the_manager_did_not_take_is_told_again_whatever_it_took_since() {
    let start = Instant::now();
    let mut watch = Watchdog::new(Some(Duration::from_millis(200)), start);
    let now = healthy();
    assert!(watch.poll_message(&now, start).is_some());
    watch.handle_told(false);
    watch.handle_answer();
    let message = watch.poll_message(&now, start);
    assert_eq!(message.as_deref(), Some("WATCHDOG=1\n"));
    watch.handle_told(true);
    let message = watch.poll_message(&now, start + LOOK_EVERY);
    assert_eq!(message.as_deref(), Some("READY=1\nSTATUS=healthy\n"));
}

#[test]
fn a_sign_of_life_comes_at_half_the_watchdogs_time() {
    let start = Instant::now();
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    let mut watch = Watchdog::new(Some(Duration::from_millis(200)), start);
    let now = healthy();
    assert!(watch.poll_message(&now, at(0)).is_some());
    watch.handle_told(true);
    for beat in [0, 100, 200] {
        assert!(watch.poll_ping(at(beat)));
        assert_eq!(watch.poll_message(&now, at(beat)), None, "no answer yet");
        watch.handle_answer();
        let message = watch.poll_message(&now, at(beat));
        assert_eq!(message.as_deref(), Some("WATCHDOG=1\n"));
        watch.handle_told(true);
        assert_eq!(watch.next_timeout(), at(beat + 100));
        assert!(!watch.poll_ping(at(beat + 99)));
    }
}

#[test]
fn a_frontend_that_does_not_answer_is_asked_once_and_gives_no_sign_of_life() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut watch = Watchdog::new(Some(Duration::from_secs(1)), start);
    let now = healthy();
    assert!(watch.poll_ping(start));
    for second in 0..10 {
        assert!(!watch.poll_ping(at(second)));
        let message = watch.poll_message(&now, at(second)).unwrap_or_default();
        assert!(!message.contains("WATCHDOG"), "{message}");
        watch.handle_told(true);
        assert_eq!(
            watch.next_timeout(),
            at(second + 1),
            "it must not busy_poll"
        );
    }
    watch.handle_answer();
    let message = watch.poll_message(&now, at(9));
    assert_eq!(message.as_deref(), Some("WATCHDOG=1\n"));
}

#[test]
fn stuck_workers_end_the_signs_of_life_and_data_stores_do_not() {
    let start = Instant::now();
    let mut watch = Watchdog::new(Some(Duration::from_millis(2)), start);
    let mut now = healthy();
    now.checks = vec![CheckReport::sample("db", true, CheckState::Down)];
    watch.poll_message(&now, start);
    watch.handle_told(true);
    watch.handle_answer();
    let message = watch.poll_message(&now, start);
    assert_eq!(message.as_deref(), Some("WATCHDOG=1\n"));
    watch.handle_answer();
    assert_eq!(watch.poll_message(&stuck(), start), None);
    // What it answered then does not count later.
    assert_eq!(watch.poll_message(&now, start), None);
}

#[test]
fn the_shortest_watchdog_does_not_make_it_spin() {
    let start = Instant::now();
    let mut watch = Watchdog::new(Some(Duration::from_micros(1)), start);
    assert!(watch.poll_ping(start));
    watch.handle_answer();
    watch.poll_message(&healthy(), start);
    assert_eq!(watch.next_timeout(), start + MIN_BEAT);
}

#[test]
fn the_watchdog_is_of_this_process_or_of_none() {
    let own = std::process::id().to_string();
    let read = |time: &str, process: Option<&str>| {
        watchdog(|name| match name {
            "WATCHDOG_USEC" => Some(time.into()),
            "WATCHDOG_PID" => process.map(OsString::from),
            _ => None,
        })
    };
    let second = Some(Duration::from_secs(1));
    assert_eq!(read("1000000", None), second);
    assert_eq!(read("1000000", Some(&own)), second);
    for process in ["1", "", "x"] {
        assert_eq!(read("1000000", Some(process)), None, "{process:?}");
    }
    for time in ["", "0", "-1", "soon", "99999999999999999999"] {
        assert_eq!(read(time, None), None, "{time:?}");
    }
    assert_eq!(watchdog(|_| None), None);
}

#[test]
fn only_paths_and_abstract_names_are_addresses() {
    let path = address(b"/run/notify").unwrap();
    assert_eq!(path.as_pathname(), Some("/run/notify".as_ref()));
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        let hidden = address(b"@name").unwrap();
        assert_eq!(hidden.as_abstract_name(), Some(&b"name"[..]));
    }
    let long = [b"/".to_vec(), vec![b'a'; 200]].concat();
    for bad in [&b"vsock:2:1"[..], b"relative", b"", b"/a\0b", &long] {
        assert!(address(bad).is_err(), "{bad:?}");
    }
}

/// A manager whose queue is full would hold the server up for ever.
#[test]
fn a_manager_that_reads_nothing_holds_nothing_up() {
    let name = format!("@plimsoll-full-{}", std::process::id());
    let heard = UnixDatagram::bind_addr(&address(name.as_bytes()).unwrap()).unwrap();
    let mut manager = Manager::at(name.as_ref(), None).unwrap();
    let mut taken = 0;
    while manager.tell("STATUS=healthy\n") {
        taken += 1;
        assert!(taken < 100_000, "the queue has no end");
    }
    assert!(manager.complained);
    let mut buffer = [0; 64];
    for _ in 0..taken {
        let length = heard.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"STATUS=healthy\n");
    }
    assert!(manager.tell("READY=1\n"), "it is heard again");
}
