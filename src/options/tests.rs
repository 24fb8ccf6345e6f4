use super::*;
use plimsoll::{CheckSettings, Config};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// Parses a command line written with spaces, in an empty environment.
fn on_the_command_line(line: &str) -> Result<Command, OptionError> {
    parse(line.split_whitespace().map(OsString::from), |_| None)
}

/// Parses a command line written with spaces, with one variable set.
fn with_variable(line: &str, name: &str, value: &str) -> Result<Command, OptionError> {
    parse(line.split_whitespace().map(OsString::from), |asked| {
        (asked == name).then(|| value.into())
    })
}

fn served(command: Result<Command, OptionError>) -> Options {
    match command {
        Ok(Command::Serve(options)) => options,
        other => panic!("expected to serve, found {other:?}"),
    }
}

fn complaint(command: Result<Command, OptionError>) -> String {
    command.expect_err("expected an error").to_string()
}

/// A value that is not the default, and one that cannot be read.
fn samples(setting: &Setting) -> (&'static str, &'static str) {
    match (setting.flag, setting.field.placeholder()) {
        ("details", _) => ("never", "sometimes"),
        ("gate", _) => ("literal", "ajar"),
        ("own-paths", _) => ("admin", "public"),
        ("health-path", _) => ("/hull", "health"),
        ("livez-path", _) => ("/afloat", ""),
        ("readyz-path", _) => ("/laden", "a/b"),
        ("metrics-path", _) => ("/log", "/metrics?"),
        ("status-path", _) => ("off", "none"),
        ("config", _) => ("/dev/null", ""),
        ("access-log-format", _) => ("json", "apache"),
        ("log-level", _) => ("trace", "loud"),
        ("throttle-store", _) => ("redis://redis.example/1", "redis://:secret@host/one"),
        ("upstream", _) => ("http://app:9000/v1#weight=2", "https://app"),
        ("upstream-check", _) => ("/up,fall=1", "up"),
        ("upstream-host", _) => ("app.example:81", "app/"),
        ("breaker", _) => ("9,on=5xx", "many"),
        ("upgrade", _) => ("foo", "h2c"),
        ("cache" | "events-max", _) => ("1MiB", "16KB"),
        ("events", _) => ("/events=/var/events", "events=/var/events"),
        ("cache-target", _) => ("CDN-Cache-Control", "a:b"),
        ("balance", _) => ("hash=ip", "best"),
        (_, "ADDR") => ("[::1]:9", "nowhere"),
        (_, "NAME=URL") => ("a=tcp://b:1,critical,rise=1", "a"),
        (_, "RATE[,...]") => ("20/s,path=/a,name=a", "fast"),
        (_, "CIDR") => ("10.0.0.0/8", "10.0.0.1/8"),
        (_, "FILE") => ("/tmp/access.log", "/tmp/"),
        (_, "NAME") => ("status.example", "status.example:80"),
        (_, "N") => ("7", "many"),
        (_, "SIZE") => ("300", "16KB"),
        (_, "DUR") => ("70ms", "soon"),
        (_, "LIST") => ("70ms,2s", "70ms,"),
        (_, "BOOL") => ("on", "perhaps"),
        (flag, placeholder) => panic!("give --{flag} {placeholder} a good and a bad sample"),
    }
}

/// What has to be given beside an option.
fn beside(setting: &Setting) -> &'static str {
    match setting.flag {
        "events" => "--upstream http://app",
        _ => "",
    }
}

#[test]
fn nothing_given_is_the_default() {
    assert_eq!(served(on_the_command_line("")), Options::default());
}

#[test]
fn every_option_is_set_by_its_flag_and_by_its_variable_alike() {
    for setting in table() {
        let (good, _) = samples(&setting);
        let beside = beside(&setting);
        let apart = match setting.field.implied() {
            Some(_) => format!("{beside} --{}", setting.flag),
            None => format!("{beside} --{} {good}", setting.flag),
        };
        let options = served(on_the_command_line(&apart));
        assert_ne!(options, Options::default(), "{}", setting.flag);
        assert_eq!(setting.field.show(&options), good, "{}", setting.flag);

        let joined = format!("{beside} --{}={good}", setting.flag);
        assert_eq!(served(on_the_command_line(&joined)), options, "{joined}");
        assert_eq!(
            served(with_variable(beside, setting.variable, good)),
            options,
            "{}",
            setting.flag
        );
    }
}

#[test]
fn every_option_sets_a_field_of_its_own() {
    let all: Vec<String> = table()
        .iter()
        .map(|setting| format!("--{}={}", setting.flag, samples(setting).0))
        .collect();
    let options = served(on_the_command_line(&all.join(" ")));
    let mut alone = Options::default();
    for setting in table() {
        let (good, _) = samples(&setting);
        assert_eq!(setting.field.show(&options), good, "{}", setting.flag);
        let before = setting.field.show(&alone);
        assert_ne!(before, good, "--{} was set by another", setting.flag);
        setting.field.clear(&mut alone);
        assert_eq!(setting.field.set(&mut alone, good), Ok(()));
    }
    assert_eq!(alone, options);
}

#[test]
fn every_bad_value_names_its_flag_or_its_variable() {
    // Of a bad URL less is shown.
    let is_shown =
        |setting: &&Setting| !matches!(setting.flag, "check" | "upstream" | "throttle-store");
    for setting in table().iter().filter(is_shown) {
        let (_, bad) = samples(setting);
        let rest = format!(": expected {}, found {bad:?}", setting.field.expected());
        assert_eq!(
            complaint(on_the_command_line(&format!("--{}={bad}", setting.flag))),
            format!("--{}{rest}", setting.flag),
        );
        assert_eq!(
            complaint(with_variable("", setting.variable, bad)),
            format!("{}{rest}", setting.variable),
        );
    }
}

#[cfg(feature = "redis")]
#[test]
fn a_bad_url_of_a_store_is_told_without_its_password() {
    let line = complaint(on_the_command_line(
        "--throttle-store redis://:secret@host/one",
    ));
    assert_eq!(
        line,
        "--throttle-store path: expected the number of a database, or none, found something else"
    );
    let line = complaint(on_the_command_line(
        "--throttle-store rediss://:secret@host",
    ));
    assert_eq!(
        line,
        "--throttle-store scheme: expected one of redis://, found rediss://"
    );
}

#[test]
fn with_an_upstream_there_are_many_workers_and_a_threshold_by_the_timeout() {
    let options = served(on_the_command_line(
        "--upstream http://a --request-timeout 4s",
    ));
    assert_eq!(options.config.workers, 64);
    assert_eq!(options.config.threshold, Duration::from_secs(2));
    let most = Config::default().max_connections;
    assert_eq!(options.config.max_connections, most / 8 * 5);
    let given = "--upstream http://a --workers 3 --threshold 1s";
    let options = served(on_the_command_line(given));
    assert_eq!(options.config.workers, 3);
    assert_eq!(options.config.threshold, Duration::from_secs(1));
    let options = served(with_variable("--upstream unix:/a", "PLIMSOLL_WORKERS", "5"));
    assert_eq!(options.config.workers, 5);
}

#[test]
fn a_wrong_source_is_named_without_its_password() {
    assert_eq!(
        complaint(on_the_command_line("--upstream http://me:s3cret@app")),
        "--upstream http://***@app: expected user: none in a URL of http://, found one",
    );
    let empty = complaint(with_variable("", "PLIMSOLL_UPSTREAM", ""));
    assert!(
        empty.starts_with("PLIMSOLL_UPSTREAM: expected one of http://"),
        "{empty}"
    );
    let complaint = complaint(with_variable("", "PLIMSOLL_UPSTREAM", "http://a, app:9000"));
    assert!(
        complaint.starts_with("PLIMSOLL_UPSTREAM app:9000: expected one of http://"),
        "{complaint}"
    );
}

#[test]
fn a_value_out_of_bounds_names_the_source_and_the_bounds() {
    assert_eq!(
        complaint(on_the_command_line("--workers 0")),
        "--workers: expected a whole number from 1 to 1024, found \"0\"",
    );
    assert_eq!(
        complaint(with_variable(
            "",
            "PLIMSOLL_WORKERS",
            "99999999999999999999999"
        )),
        "PLIMSOLL_WORKERS: expected a whole number from 1 to 1024, found \"99999999999999999999999\"",
    );
    assert_eq!(
        complaint(on_the_command_line("--ewma-age 4294967296")),
        "--ewma-age: expected a whole number from 1 to 1000000, found \"4294967296\"",
    );
    assert_eq!(
        complaint(on_the_command_line("--max-head=2MiB")),
        "--max-head: expected a size from 256 to 1MiB, such as 4096, 16KiB or 1MiB, found \"2MiB\"",
    );
    assert_eq!(
        complaint(on_the_command_line("--threshold 0")),
        "--threshold: expected a duration above 0 and at most 24h, such as 250ms, 1.5s or 2m, found \"0\"",
    );
    assert_eq!(
        complaint(on_the_command_line("--drain 25h")),
        "--drain: expected a duration of at most 24h, such as 250ms, 1.5s or 2m, found \"25h\"",
    );
    assert_eq!(
        served(on_the_command_line("--drain 0")).config.drain,
        Duration::ZERO
    );
}

#[test]
fn a_flag_beats_the_environment_even_a_bad_one() {
    let options = served(with_variable("--workers 3", "PLIMSOLL_WORKERS", "5"));
    assert_eq!(options.config.workers, 3);
    let options = served(with_variable("--workers 3", "PLIMSOLL_WORKERS", "many"));
    assert_eq!(options.config.workers, 3);
    let options = served(with_variable("--fair=false", "PLIMSOLL_FAIR", "1"));
    assert!(!options.config.fair);
    let options = served(with_variable("--listen a:1", "PLIMSOLL_LISTEN", "b:2,c:3"));
    assert_eq!(options.config.listen, ["a:1"]);
}

#[test]
fn the_last_of_a_repeated_option_counts_but_all_are_checked() {
    assert_eq!(
        served(on_the_command_line("--workers 3 --workers 5"))
            .config
            .workers,
        5
    );
    assert!(complaint(on_the_command_line("--workers x --workers 5")).starts_with("--workers:"));
}

#[test]
fn listen_is_repeatable_and_its_variable_is_a_list() {
    let options = served(on_the_command_line("--listen a:1 --workers 4 --listen=b:2"));
    assert_eq!(options.config.listen, ["a:1", "b:2"]);
    let options = served(with_variable("", "PLIMSOLL_LISTEN", "a:1, b:2"));
    assert_eq!(options.config.listen, ["a:1", "b:2"]);
    assert_eq!(
        complaint(with_variable("", "PLIMSOLL_LISTEN", "a:1,,b:2")),
        "PLIMSOLL_LISTEN: expected HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080, found \"\"",
    );
}

#[test]
fn an_empty_value_is_refused() {
    assert!(complaint(on_the_command_line("--workers=")).ends_with("found \"\""));
    assert!(complaint(with_variable("", "PLIMSOLL_WORKERS", "")).ends_with("found \"\""));
    assert!(complaint(with_variable("", "PLIMSOLL_LISTEN", "")).ends_with("found \"\""));
}

#[test]
fn a_check_is_a_name_a_url_and_settings() {
    let config = served(on_the_command_line(
        "--check db=tcp://db:5432 --check cache-1=tcp://[::1]:6379,critical,interval=1s,timeout=70ms,fall=1,rise=4",
    ))
    .config;
    let names: Vec<_> = config.checks.iter().map(|check| &*check.name).collect();
    assert_eq!(names, ["db", "cache-1"]);
    assert_eq!(config.checks[0].store, "tcp://db:5432".parse().unwrap());
    assert_eq!(config.checks[0].settings, CheckSettings::default());
    assert_eq!(
        config.checks[1].settings,
        CheckSettings {
            critical: true,
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(70),
            fall: 1,
            rise: 4,
        }
    );
}

#[test]
fn the_variable_of_checks_is_a_list_whose_items_have_commas() {
    let list = "db=tcp://db:1,critical,fall=1, cache=tcp://c:2,x_1=tcp://x:3,interval=1s";
    let flags = list
        .replace(", ", ",")
        .replace(",cache", " --check cache")
        .replace(",x_1", " --check=x_1");
    let expected = served(on_the_command_line(&format!("--check {flags}")));
    assert_eq!(expected.config.checks.len(), 3);
    assert_eq!(served(with_variable("", "PLIMSOLL_CHECKS", list)), expected);
}

#[test]
fn the_variable_of_throttles_is_a_list_in_which_a_rate_begins_a_rule() {
    let list = "20/s,by=header:X-Key,path=/api, 5/m,path=/login,name=login";
    let flags = list.replace(", ", " --throttle=");
    let expected = served(on_the_command_line(&format!("--throttle {flags}")));
    assert_eq!(expected.config.throttle.len(), 2);
    let options = served(with_variable("", "PLIMSOLL_THROTTLE", list));
    assert_eq!(options, expected);
    for (bad, said) in [
        (
            "5/s,by=me",
            "expected by=ip, by=header:NAME or by=all, found \"by=me\"",
        ),
        ("5/s,burst=0", "expected a burst from 1 to 1000000, found 0"),
        (
            "5/s,name=a,6/s,name=a",
            "expected a name of its own for each rule, found \"a\" twice",
        ),
    ] {
        let said = format!("PLIMSOLL_THROTTLE: {said}");
        assert_eq!(complaint(with_variable("", "PLIMSOLL_THROTTLE", bad)), said);
    }
}

#[test]
fn a_bad_check_names_the_part_that_is_wrong() {
    let words =
        " \"a\": expected critical, interval=DUR, timeout=DUR, fall=N or rise=N after the URL";
    let name = ": expected a name of its own, up to 64 letters, digits, - and _";
    let long = format!("{}=tcp://b:1", "a".repeat(65));
    let cases = [
        (
            "a",
            ": expected NAME=URL, such as cache=redis://127.0.0.1:6379,critical, found no =",
        ),
        (
            "a=tcp://b:1,weighty",
            &format!("{words}, found \"weighty\""),
        ),
        ("a=tcp://b:1,", &format!("{words}, found \"\"")),
        (
            "a=tcp://b:1,critical=1",
            &format!("{words}, found \"critical=1\""),
        ),
        (
            "a=tcp://b:1,fall=x",
            " \"a\": expected a fall of \"a\" from 1 to 100, found \"fall=x\"",
        ),
        (
            "a=tcp://b:1,interval=soon",
            " \"a\": expected an interval of \"a\" above 0 and at most 24h, such as 500ms or 10s, found \"interval=soon\"",
        ),
        (
            "a=tcp://b:1,fall=0",
            ": expected a fall of \"a\" from 1 to 100, found 0",
        ),
        (
            "a=tcp://b:1,rise=99999999999",
            " \"a\": expected a rise of \"a\" from 1 to 100, found \"rise=99999999999\"",
        ),
        (
            "a=tcp://b:1,interval=0",
            ": expected an interval of \"a\" above 0 and at most 24h, such as 500ms or 10s, found 0",
        ),
        (
            "a=tcp://b:1,timeout=25h",
            ": expected a timeout of \"a\" above 0 and at most 24h, such as 500ms or 10s, found 90000s",
        ),
        ("=tcp://b:1", &format!("{name}, found none")),
        (
            "a:b=tcp://b:1",
            &format!("{name}, found other characters in it"),
        ),
        (&long, &format!("{name}, found one of 65 bytes")),
        (
            "gate=tcp://b:1",
            &format!("{name}, found \"gate\", which reports have already"),
        ),
    ];
    for (check, complaint_of_it) in cases {
        assert_eq!(
            complaint(on_the_command_line(&format!("--check={check}"))),
            format!("--check{complaint_of_it}"),
        );
    }
    assert_eq!(
        complaint(on_the_command_line(
            "--check a=tcp://b:1 --check a=tcp://c:1"
        )),
        format!("--check{name}, found \"a\" twice"),
    );
    let line = complaint(on_the_command_line("--check a=tcp://b"));
    assert!(line.starts_with("--check \"a\": port: expected "), "{line}");
    let line = complaint(with_variable("", "PLIMSOLL_CHECKS", "a=gopher://b"));
    assert!(
        line.starts_with("PLIMSOLL_CHECKS \"a\": scheme: expected "),
        "{line}"
    );
}

#[test]
fn two_pages_with_one_path_are_refused() {
    let expected = "expected a path of its own, found";
    for (line, complaint_of_it) in [
        (
            "--readyz-path /health",
            format!("--readyz-path: {expected} \"/health\", which health-path has"),
        ),
        (
            "--livez-path /health/consul",
            format!("--livez-path: {expected} \"/health/consul\", which health-path has"),
        ),
        (
            "--metrics-path /m.json --status-path /m",
            format!("--status-path: {expected} \"/m.json\", which metrics-path has"),
        ),
    ] {
        assert_eq!(complaint(on_the_command_line(line)), complaint_of_it);
    }
    // After the first of the two options they are alike.
    let swapped = served(on_the_command_line(
        "--livez-path /readyz --readyz-path /livez",
    ));
    assert_eq!(swapped.config.livez_path.as_deref(), Some("/readyz"));
    let off = served(on_the_command_line(
        "--health-path off --readyz-path /health",
    ));
    assert_eq!(off.config.health_path, None);
}

#[test]
fn checks_are_at_most_sixty_four() {
    let checks = |count: usize| {
        let checks: Vec<_> = (0..count)
            .map(|n| format!("--check c{n}=tcp://b:1"))
            .collect();
        on_the_command_line(&checks.join(" "))
    };
    assert_eq!(served(checks(64)).config.checks.len(), 64);
    assert_eq!(
        complaint(checks(65)),
        "--check: expected a number of checks from 0 to 64, found 65",
    );
}

#[test]
fn no_error_and_no_debug_output_holds_a_password() {
    let bad = [
        "a=redis://u:s3cret@h:port",
        "a=redis://u:s3cret@h,bogus",
        "a=redis://u:s3cret@h,fall=x",
        "a=redis://u:s3cret@h,fall=0",
        "a=redis://u:s3cret@",
        "a=redis://u:x,s3cret@h",
        "a=redis://u:x,fall=s3cret@h",
        "a=redis://u:x,s3cret,y@h",
        "a=redis//u:s3cret@h",
        "a=s3cret://h",
        "redis://u:s3cret@h",
        "redis://u:s3cret=@h",
        "redis://u:s3cret=x@h?y=tcp://z:1",
        "a b=redis://u:s3cret@h",
        "=redis://u:s3cret@h",
    ];
    for check in bad {
        let environment = |name: &str| (name == "PLIMSOLL_CHECKS").then(|| check.into());
        let lines = [
            complaint(parse(
                [format!("--check={check}").into()].into_iter(),
                |_| None,
            )),
            complaint(parse(std::iter::empty(), environment)),
        ];
        for line in lines {
            assert!(!line.contains("s3cret"), "{check}: {line}");
            assert!(line.len() < 250 && !line.contains('\n'), "{line}");
        }
    }
    let line = complaint(on_the_command_line("redis://u:s3cret@h"));
    assert!(!line.contains("s3cret"), "{line}");

    let options = served(on_the_command_line("--check a=redis://u:s3cret@h,critical"));
    let table = table();
    let setting = table.iter().find(|setting| setting.flag == "check");
    let setting = setting.expect("the option");
    assert_eq!(setting.field.show(&options), "a=redis://u:***@h,critical");
    let debug = format!("{options:?}");
    assert!(
        debug.contains("u:***@h") && !debug.contains("s3cret"),
        "{debug}"
    );
}

#[test]
fn a_missing_value_is_refused() {
    assert_eq!(
        complaint(on_the_command_line("--threshold")),
        "--threshold: expected a duration above 0 and at most 24h, such as 250ms, 1.5s or 2m, found nothing",
    );
}

#[test]
fn a_switch_does_not_take_the_next_argument() {
    assert_eq!(
        complaint(on_the_command_line("--fair false")),
        "expected an option that --help lists, found \"false\"",
    );
}

#[test]
fn an_unknown_option_is_named_with_the_closest_known_one() {
    let cases = [
        (
            "--wrokers 4",
            "expected an option that --help lists (perhaps --workers), found \"--wrokers\"",
        ),
        (
            "--queue_max=4",
            "expected an option that --help lists (perhaps --queue-max), found \"--queue_max\"",
        ),
        (
            "--frobnicate",
            "expected an option that --help lists, found \"--frobnicate\"",
        ),
        ("-x", "expected an option that --help lists, found \"-x\""),
    ];
    for (line, expected) in cases {
        assert_eq!(complaint(on_the_command_line(line)), expected);
    }
}

#[test]
fn words_are_refused() {
    for line in ["serve", "-", "-- serve"] {
        let line = complaint(on_the_command_line(line));
        assert!(
            line.starts_with("expected an option that --help lists, found"),
            "{line}"
        );
    }
}

#[test]
fn an_error_is_one_line_whatever_was_found() {
    use std::os::unix::ffi::OsStringExt;

    let hostile: [&[u8]; 4] = [
        b"--a\nb",
        b"--workers=1\n2",
        b"\x1b[31m\n",
        b"--listen=\xff:80\r\n",
    ];
    for bytes in hostile {
        let argument = OsString::from_vec(bytes.to_vec());
        let line = complaint(parse([argument].into_iter(), |_| None));
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

#[test]
fn help_and_version_win_over_what_follows_and_over_the_environment() {
    for line in ["--help", "-h", "--workers 3 --help --bogus"] {
        let command = with_variable(line, "PLIMSOLL_WORKERS", "many");
        assert_eq!(command, Ok(Command::Help(help::text())));
    }
    for line in ["--version", "-V"] {
        assert_eq!(on_the_command_line(line), Ok(Command::Version(version())));
    }
}

#[test]
fn help_shows_every_option_with_its_variable_and_default() {
    let text = help::text();
    for setting in table() {
        assert!(
            text.contains(&format!("  --{}", setting.flag)),
            "{}",
            setting.flag
        );
        assert!(
            text.contains(&format!("[{}, ", setting.variable)),
            "{}",
            setting.flag
        );
        // However long it is, its value and its meaning do not touch.
        let usage = help::usage(&setting);
        assert!(
            text.contains(&format!("{usage} ")) || text.contains(&format!("{usage}\n")),
            "{usage}"
        );
    }
    for line in [
        "[PLIMSOLL_LISTEN, comma-separated, default 127.0.0.1:8080]",
        "[PLIMSOLL_WORKERS, default twice the cores, at least 4]",
        "[PLIMSOLL_THRESHOLD, default 1s]",
        "[PLIMSOLL_QUEUE_BUDGET, default 50ms]",
        "[PLIMSOLL_FAIR, default off]",
        "[PLIMSOLL_MAX_HEAD, default 16KiB]",
        "[PLIMSOLL_IDLE_TIMEOUT, default 60s]",
        "[PLIMSOLL_WORK, default 0]",
        "[PLIMSOLL_LOG, default info]",
    ] {
        assert!(text.contains(line), "{line}");
    }
    assert!(text.lines().all(|line| line.len() <= 100));
}

#[test]
fn a_shown_default_reads_back_as_the_default() {
    for setting in table() {
        let mut options = Options::default();
        let shown = setting.field.show(&options);
        // What is not given shows as nothing, which is none.
        if shown.is_empty() {
            continue;
        }
        setting.field.clear(&mut options);
        assert_eq!(
            setting.field.set(&mut options, &shown),
            Ok(()),
            "{}",
            setting.flag
        );
        assert_eq!(options, Options::default(), "{}", setting.flag);
    }
}

#[test]
fn flags_and_variables_are_distinct_and_follow_one_pattern() {
    let table = table();
    for (index, setting) in table.iter().enumerate() {
        for other in table.iter().skip(index + 1) {
            assert_ne!(setting.flag, other.flag);
            assert_ne!(setting.variable, other.variable);
        }
        let regular = format!("PLIMSOLL_{}", setting.flag.to_uppercase().replace('-', "_"));
        let expected = match setting.flag {
            "log-level" => "PLIMSOLL_LOG",
            "check" => "PLIMSOLL_CHECKS",
            _ => &regular,
        };
        assert_eq!(setting.variable, expected);
    }
}

// With all that there is.
#[cfg(feature = "redis")]
#[test]
fn the_readme_has_the_table_of_options() {
    use std::fmt::Write as _;

    let defaults = Options::default();
    let mut expected =
        String::from("| option | environment | default | meaning |\n|---|---|---|---|\n");
    for setting in table() {
        // Writing to a string cannot fail.
        let _ = writeln!(
            expected,
            "| `{}` | `{}`{} | {} | {} |",
            help::usage(&setting),
            setting.variable,
            help::manner(&setting),
            help::default(&setting, &defaults),
            setting.help,
        );
    }
    let readme = include_str!("../../README.md");
    let (_, options) = readme.split_once("\n## Options\n").expect("its chapter");
    let rows = options.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|'));
    let found: String = rows.flat_map(|row| [row, "\n"]).collect();
    assert!(found == expected, "write into the README:\n{expected}");
}

#[test]
fn a_switch_takes_every_word_for_yes_and_no() {
    for (on, off) in [("on", "off"), ("true", "false"), ("yes", "no"), ("1", "0")] {
        for (text, expected) in [(on, true), (off, false)] {
            let by_variable = served(with_variable("", "PLIMSOLL_FAIR", text));
            assert_eq!(by_variable.config.fair, expected, "{text}");
            let by_flag = served(on_the_command_line(&format!("--fair={text}")));
            assert_eq!(by_flag, by_variable, "{text}");
        }
    }
    assert_eq!(
        complaint(with_variable("", "PLIMSOLL_FAIR", "")),
        "PLIMSOLL_FAIR: expected on or off, found \"\"",
    );
}

#[test]
fn the_edit_distance_counts_insertions_deletions_and_replacements() {
    let cases = [
        ("", "", 0),
        ("drain", "drain", 0),
        ("", "drain", 5),
        ("drain", "", 5),
        ("drain", "train", 1),
        ("drain", "rain", 1),
        ("rain", "drains", 2),
        ("kitten", "sitting", 3),
    ];
    for (from, to, distance) in cases {
        assert_eq!(
            edits(from.as_bytes(), to.as_bytes()),
            distance,
            "{from} {to}"
        );
    }
}

/// A file that is removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn with(text: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("plimsoll-options-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).expect("a temporary file can be written");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path of text")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.0);
    }
}

/// Parses a command line with a file of options that holds this text; the file's path in an error becomes FILE.
fn with_file(line: &str, text: &str) -> Result<Command, OptionError> {
    let file = Temporary::with(text);
    let parsed = on_the_command_line(&format!("{line} --config {}", file.path()));
    parsed.map_err(|error| OptionError(error.to_string().replace(file.path(), "FILE")))
}

#[test]
fn a_file_of_options_sets_what_the_command_line_does_not() {
    let text =
        "# two of them\nlisten a:1\nlisten b:2 # the second\n\nworkers 3\nfair\nthreshold 70ms\n";
    let options = served(with_file("--workers 5", text));
    assert_eq!(options.config.listen, ["a:1", "b:2"]);
    assert_eq!(options.config.workers, 5);
    assert!(options.config.fair);
    assert_eq!(options.config.threshold, Duration::from_millis(70));
    let options = served(with_file("--listen c:3", text));
    assert_eq!(options.config.listen, ["c:3"]);
}

#[test]
fn a_file_of_options_is_named_and_beaten_by_the_environment() {
    let file = Temporary::with("workers 3\nqueue-max 7\n");
    let variables = [("PLIMSOLL_CONFIG", file.path()), ("PLIMSOLL_WORKERS", "5")];
    let environment = |asked: &str| {
        let found = variables.iter().find(|(name, _)| *name == asked);
        found.map(|(_, value)| value.into())
    };
    let config = served(parse(std::iter::empty(), environment)).config;
    assert_eq!((config.workers, config.queue_max), (5, 7));
}

#[test]
fn every_option_can_stand_in_a_file_but_the_file_itself() {
    for setting in table().iter().filter(|setting| setting.flag != CONFIG) {
        let (good, bad) = samples(setting);
        let beside = beside(setting);
        let by_flag = format!("{beside} --{}={good}", setting.flag);
        let by_flag = served(on_the_command_line(&by_flag));
        let mut by_file = served(with_file(beside, &format!("{} {good}\n", setting.flag)));
        by_file.config_file = None;
        assert_eq!(by_file, by_flag, "{}", setting.flag);
        let line = complaint(with_file("", &format!("\n{} {bad}\n", setting.flag)));
        assert!(
            line.starts_with(&format!("FILE:2: {}", setting.flag)),
            "{line}"
        );
    }
}

#[test]
fn a_bad_line_names_the_file_and_itself() {
    const UNKNOWN: &str = "expected an option that --help lists";
    for (line, text, expected) in [
        (
            "",
            "\nworkers many\n",
            "FILE:2: workers: expected a whole number from 1 to 1024, found \"many\"".to_owned(),
        ),
        (
            "",
            "workers",
            "FILE:1: workers: expected a whole number from 1 to 1024, found nothing".to_owned(),
        ),
        // What a flag beats is checked all the same.
        (
            "--workers 3",
            "workers 0",
            "FILE:1: workers: expected a whole number from 1 to 1024, found \"0\"".to_owned(),
        ),
        (
            "",
            "wrokers 3",
            format!("FILE:1: {UNKNOWN} (perhaps workers), found \"wrokers\""),
        ),
        (
            "",
            "--workers 3",
            format!("FILE:1: {UNKNOWN} (perhaps workers), found \"--workers\""),
        ),
        ("", "config f", format!("FILE:1: {UNKNOWN}, found \"config\"")),
        (
            "",
            "redis://u:s3cret@h",
            format!("FILE:1: {UNKNOWN}, found \"...\""),
        ),
        (
            "",
            "check a=redis://u:s3cret@h,bogus",
            "FILE:1: check \"a\": expected critical, interval=DUR, timeout=DUR, fall=N or rise=N after the URL, found \"bogus\""
                .to_owned(),
        ),
    ] {
        assert_eq!(complaint(with_file(line, text)), expected);
    }
    let line = complaint(on_the_command_line("--config /nowhere/f"));
    assert!(
        line.starts_with("cannot read the options in \"/nowhere/f\": No such file"),
        "{line}"
    );
}

#[test]
fn a_file_that_is_too_long_or_no_text_is_refused() {
    let file = Temporary::with(&"#".repeat(1024 * 1024 + 1));
    let line = complaint(on_the_command_line(&format!("--config {}", file.path())));
    assert!(line.ends_with("it has more than 1 MiB"), "{line}");
    fs::write(&file.0, b"workers \xff\n").expect("it can be written");
    let line = complaint(on_the_command_line(&format!("--config {}", file.path())));
    assert!(line.contains("UTF-8"), "{line}");
}

#[test]
fn check_config_checks_everything_and_serves_nothing() {
    let good = Ok(Command::Checked("all options are good\n".to_owned()));
    assert_eq!(on_the_command_line("--check-config --workers 3"), good);
    assert_eq!(with_file("--check-config", "workers 3"), good);
    assert!(complaint(with_file("--check-config", "workers 0")).starts_with("FILE:1: workers:"));
    let line = complaint(with_variable("--check-config", "PLIMSOLL_WORKERS", "0"));
    assert!(line.starts_with("PLIMSOLL_WORKERS:"), "{line}");
}

#[test]
fn the_guides_file_of_options_is_good() {
    let guide = include_str!("../guide/running.md");
    let (_, file) = guide
        .split_once("```text\n# /etc/plimsoll.conf\n")
        .expect("the example");
    let (file, _) = file.split_once("```").expect("its end");
    let config = served(with_file("", file)).config;
    assert_eq!(config.admin.as_deref(), Some("127.0.0.1:9090"));
    assert_eq!(config.checks.len(), 1);
}

/// The arguments of a command as a shell has it, or as a list.
fn arguments(command: &str, between: &[char]) -> Vec<OsString> {
    let mut arguments = Vec::new();
    for (part, text) in command.split('\'').enumerate() {
        // What is between quotes is one argument.
        if part % 2 == 1 {
            arguments.push(text.into());
        } else {
            let words = text.split(between).filter(|word| !word.is_empty());
            arguments.extend(words.map(OsString::from));
        }
    }
    arguments
}

#[test]
fn the_guides_commands_are_good() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = fs::read_dir(root.join("src/guide")).expect("the guide is there");
    let mut files: Vec<_> = pages.map(|file| file.expect("a file").path()).collect();
    files.retain(|path| path.extension().is_some_and(|it| it == "md"));
    files.push(root.join("README.md"));
    let mut count = 0;
    for file in files {
        let text = fs::read_to_string(&file).expect("a page");
        for line in text.lines() {
            let shell = line.strip_prefix("$ ").unwrap_or(line);
            let shell = shell
                .strip_prefix("ExecStart=/usr/local/bin/")
                .unwrap_or(shell);
            let listed = ["args: [", "command: ["].map(|key| line.trim().strip_prefix(key));
            let arguments = match (shell.strip_prefix("plimsoll "), listed) {
                // It shows what may be given.
                (Some(command), _) if command.contains('[') => continue,
                (Some(command), _) => arguments(command.trim_end_matches(" &"), &[' ']),
                (None, [Some(list), _] | [_, Some(list)]) => {
                    arguments(list.trim_end_matches(']'), &[' ', ','])
                }
                _ => continue,
            };
            // What a feature brings is not there without it.
            if cfg!(feature = "redis") || !line.contains("--throttle-store") {
                let command = parse(arguments.into_iter(), |_| None);
                assert!(command.is_ok(), "{}: {line}: {command:?}", file.display());
                count += 1;
            }
        }
    }
    assert!(count > 15, "{count}");
}
