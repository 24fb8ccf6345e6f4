use super::*;
use plimsoll::CheckSettings;

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
fn samples(field: &Field) -> (&'static str, &'static str) {
    match field {
        Field::Addresses(_) | Field::Address(_) => ("[::1]:9", "nowhere"),
        Field::Checks(_) => ("a=tcp://b:1,critical,rise=1", "a"),
        Field::Details(_) => ("never", "sometimes"),
        Field::Names(_) => ("status.example", "status.example:80"),
        Field::Count(_) | Field::Age(_) => ("7", "many"),
        Field::Size(_) => ("300", "16KB"),
        Field::Duration(_) => ("70ms", "soon"),
        Field::Gate(_) => ("literal", "ajar"),
        Field::Level(_) => ("trace", "loud"),
        Field::Switch(_) => ("true", "perhaps"),
    }
}

#[test]
fn nothing_given_is_the_default() {
    assert_eq!(served(on_the_command_line("")), Options::default());
}

#[test]
fn every_option_is_set_by_its_flag_and_by_its_variable_alike() {
    for knob in KNOBS {
        let (good, _) = samples(&knob.field);
        let apart = match knob.field {
            Field::Switch(_) => format!("--{}", knob.flag),
            _ => format!("--{} {good}", knob.flag),
        };
        let mut options = served(on_the_command_line(&apart));
        assert_ne!(options, Options::default(), "{}", knob.flag);
        assert_eq!(knob.field.show(&mut options), good, "{}", knob.flag);

        let joined = format!("--{}={good}", knob.flag);
        assert_eq!(served(on_the_command_line(&joined)), options, "{joined}");
        assert_eq!(
            served(with_variable("", knob.environment, good)),
            options,
            "{}",
            knob.flag
        );
    }
}

#[test]
fn every_option_sets_a_field_of_its_own() {
    let all: Vec<String> = KNOBS
        .iter()
        .map(|knob| format!("--{}={}", knob.flag, samples(&knob.field).0))
        .collect();
    let mut options = served(on_the_command_line(&all.join(" ")));
    for knob in KNOBS {
        assert_eq!(
            knob.field.show(&mut options),
            samples(&knob.field).0,
            "{}",
            knob.flag
        );
    }
    let mut alone = Options::default();
    for knob in KNOBS {
        let before = knob.field.show(&mut alone);
        assert_ne!(
            before,
            samples(&knob.field).0,
            "--{} was set by another",
            knob.flag
        );
        knob.field.clear(&mut alone);
        assert_eq!(knob.field.set(&mut alone, samples(&knob.field).0), Some(()));
    }
    assert_eq!(alone, options);
}

#[test]
fn every_bad_value_names_its_flag_or_its_variable() {
    // Of a bad check less is shown.
    let shown = |knob: &&Knob| !matches!(knob.field, Field::Checks(_));
    for knob in KNOBS.iter().filter(shown) {
        let (_, bad) = samples(&knob.field);
        let rest = format!(": expected {}, found {bad:?}", knob.field.expected());
        assert_eq!(
            complaint(on_the_command_line(&format!("--{}={bad}", knob.flag))),
            format!("--{}{rest}", knob.flag),
        );
        assert_eq!(
            complaint(with_variable("", knob.environment, bad)),
            format!("{}{rest}", knob.environment),
        );
    }
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
        "--max-head: expected a number of bytes from 256 to 1048576, found \"2MiB\"",
    );
    assert_eq!(
        complaint(on_the_command_line("--threshold 0")),
        "--threshold: expected a duration above 0 and at most 24h, found \"0\"",
    );
    assert_eq!(
        complaint(on_the_command_line("--drain 25h")),
        "--drain: expected a duration of at most 24h, found \"25h\"",
    );
    assert_eq!(
        served(on_the_command_line("--drain 0")).config.drain,
        Duration::ZERO
    );
}

#[test]
fn bounds_are_reported_for_the_option_that_broke_them() {
    for knob in KNOBS {
        let mut options = Options::default();
        knob.field.clear(&mut options);
        let beyond = match knob.field {
            Field::Addresses(_) => "nowhere",
            Field::Count(_) | Field::Age(_) | Field::Size(_) => "99999999999999999999999",
            Field::Duration(_) if knob.flag != "work" => "25h",
            _ => continue,
        };
        assert_eq!(knob.field.set(&mut options, beyond), Some(()));
        assert_eq!(options.config.validate().unwrap_err().option, knob.flag);
    }
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
fn a_bad_check_names_the_part_that_is_wrong() {
    let words = "expected critical, interval=DUR, timeout=DUR, fall=N or rise=N after the URL";
    let name = "expected a name of its own, up to 64 letters, digits, - and _";
    let long = format!("{}=tcp://b:1", "a".repeat(65));
    let cases = [
        (
            "a",
            "expected NAME=URL, such as cache=redis://127.0.0.1:6379,critical, found no =",
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
        ("a=tcp://b:1,fall=x", &format!("{words}, found \"fall=x\"")),
        (
            "a=tcp://b:1,interval=soon",
            &format!("{words}, found \"interval=soon\""),
        ),
        (
            "a=tcp://b:1,fall=0",
            "expected a fall of a from 1 to 100, found 0",
        ),
        (
            "a=tcp://b:1,rise=99999999999",
            "expected a rise of a from 1 to 100, found 4294967295",
        ),
        (
            "a=tcp://b:1,interval=0",
            "expected an interval of a above 0 and at most 24h, found 0",
        ),
        (
            "a=tcp://b:1,timeout=25h",
            "expected a timeout of a above 0 and at most 24h, found 90000s",
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
            format!("--check: {complaint_of_it}"),
        );
    }
    assert_eq!(
        complaint(on_the_command_line(
            "--check a=tcp://b:1 --check a=tcp://c:1"
        )),
        format!("--check: {name}, found \"a\" twice"),
    );
    let line = complaint(on_the_command_line("--check a=tcp://b"));
    assert!(line.starts_with("--check: port: expected "), "{line}");
    let line = complaint(with_variable("", "PLIMSOLL_CHECKS", "a=gopher://b"));
    assert!(
        line.starts_with("PLIMSOLL_CHECKS: scheme: expected "),
        "{line}"
    );
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

    let mut options = served(on_the_command_line("--check a=redis://u:s3cret@h,critical"));
    let knob = find("check").expect("the option");
    assert_eq!(knob.field.show(&mut options), "a=redis://u:***@h,critical");
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
        "--threshold: expected a duration, such as 250ms, 1.5s or 2m, found nothing",
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
        assert_eq!(command, Ok(Command::Help(help())));
    }
    for line in ["--version", "-V"] {
        assert_eq!(on_the_command_line(line), Ok(Command::Version(version())));
    }
}

#[test]
fn help_shows_every_option_with_its_variable_and_default() {
    let text = help();
    for knob in KNOBS {
        assert!(
            text.contains(&format!("  --{}", knob.flag)),
            "{}",
            knob.flag
        );
        assert!(
            text.contains(&format!("[{}, default ", knob.environment)),
            "{}",
            knob.flag
        );
    }
    for line in [
        "[PLIMSOLL_LISTEN, default 127.0.0.1:8080]",
        "[PLIMSOLL_WORKERS, default twice the cores, at least 4]",
        "[PLIMSOLL_THRESHOLD, default 1s]",
        "[PLIMSOLL_QUEUE_BUDGET, default 50ms]",
        "[PLIMSOLL_FAIR, default false]",
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
    // An address, a name or a check that is not given shows as nothing, which is none.
    let unset = |knob: &&Knob| {
        matches!(
            knob.field,
            Field::Address(_) | Field::Names(_) | Field::Checks(_)
        )
    };
    for knob in KNOBS.iter().filter(|knob| !unset(knob)) {
        let mut options = Options::default();
        let shown = knob.field.show(&mut options);
        knob.field.clear(&mut options);
        assert_eq!(
            knob.field.set(&mut options, &shown),
            Some(()),
            "{}",
            knob.flag
        );
        assert_eq!(options, Options::default(), "{}", knob.flag);
    }
}

#[test]
fn flags_and_variables_are_distinct_and_follow_one_pattern() {
    for (index, knob) in KNOBS.iter().enumerate() {
        for other in KNOBS.iter().skip(index + 1) {
            assert_ne!(knob.flag, other.flag);
            assert_ne!(knob.environment, other.environment);
        }
        let regular = format!("PLIMSOLL_{}", knob.flag.to_uppercase().replace('-', "_"));
        let expected = match knob.flag {
            "log-level" => "PLIMSOLL_LOG",
            "check" => "PLIMSOLL_CHECKS",
            _ => &regular,
        };
        assert_eq!(knob.environment, expected);
    }
}

#[test]
fn durations_are_read_with_their_units() {
    let cases = [
        ("0", 0),
        ("0s", 0),
        ("1us", 1_000),
        ("250ms", 250_000_000),
        ("1s", 1_000_000_000),
        ("1.5s", 1_500_000_000),
        ("0.000000001s", 1),
        ("0.0000000019s", 1),
        ("1.25ms", 1_250_000),
        ("2m", 120_000_000_000),
        ("1.5m", 90_000_000_000),
        ("0.5h", 1_800_000_000_000),
        ("007s", 7_000_000_000),
    ];
    for (text, nanoseconds) in cases {
        assert_eq!(
            parse_duration(text),
            Some(Duration::from_nanos(nanoseconds)),
            "{text}"
        );
    }
    assert_eq!(
        parse_duration("99999999999999999999999h"),
        Some(Duration::MAX)
    );
    for text in [
        "", "1", "s", "ms", ".", ".s", ".5s", "1.s", "1..5s", "1.5.5s", "-1s", "+1s", "1 s", " 1s",
        "1s ", "1S", "1d", "1sec", "1s500ms", "1e3s", "1,5s", "0.0", "1_000ms", "1ns", "٣s",
        "1.٣s", "1\u{b5}s",
    ] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}

#[test]
fn sizes_are_read_with_their_units() {
    let cases = [
        ("0", 0),
        ("4096", 4096),
        ("512B", 512),
        ("16KiB", 16 * 1024),
        ("1MiB", 1024 * 1024),
        ("2GiB", 2 * 1024 * 1024 * 1024),
        ("99999999999999999999999", usize::MAX),
        ("99999999999999999GiB", usize::MAX),
    ];
    for (text, bytes) in cases {
        assert_eq!(parse_size(text), Some(bytes), "{text}");
    }
    for text in [
        "", "B", "KiB", "1KB", "1kB", "1K", "1M", "1MB", "1kib", "1.5MiB", "-1", "+1", "1 KiB",
        "1BB", "1TiB",
    ] {
        assert_eq!(parse_size(text), None, "{text}");
    }
}

#[test]
fn sizes_are_shown_in_the_largest_unit_that_is_exact() {
    let cases = [
        (0, "0"),
        (1023, "1023"),
        (1024, "1KiB"),
        (1025, "1025"),
        (1536 * 1024, "1536KiB"),
        (3 * 1024 * 1024 * 1024, "3GiB"),
    ];
    for (size, text) in cases {
        assert_eq!(show_size(size), text);
    }
}

#[test]
fn switches_are_true_or_false() {
    assert_eq!(parse_switch("true"), Some(true));
    assert_eq!(parse_switch("1"), Some(true));
    assert_eq!(parse_switch("false"), Some(false));
    assert_eq!(parse_switch("0"), Some(false));
    assert_eq!(parse_switch("yes"), None);
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
