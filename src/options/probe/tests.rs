use super::*;

/// Parses what is written with spaces behind `plimsoll probe`, with `PLIMSOLL_LISTEN` set or not.
fn parsed(line: &str, listen: Option<&str>) -> Result<Command, OptionError> {
    let arguments = ["probe"].into_iter().chain(line.split_whitespace());
    super::super::parse(arguments.map(OsString::from), |name| {
        listen
            .filter(|_| name == "PLIMSOLL_LISTEN")
            .map(OsString::from)
    })
}

fn probed(line: &str, listen: Option<&str>) -> ProbeOptions {
    match parsed(line, listen) {
        Ok(Command::Probe(options)) => options,
        other => panic!("expected to probe, found {other:?}"),
    }
}

fn complaint(line: &str, listen: Option<&str>) -> String {
    let error = parsed(line, listen).expect_err("an error");
    error.to_string()
}

fn url(text: &str) -> Probe {
    text.parse().expect("a good URL")
}

#[test]
fn nothing_given_asks_the_default_server() {
    let options = probed("", None);
    assert_eq!(options.probe, url("http://127.0.0.1:8080/readyz"));
    assert_eq!(options.timeout, Duration::from_secs(2));
    assert!(!options.consul_exit);
    let options = probed("--consul-exit", None);
    assert_eq!(options.probe, url("http://127.0.0.1:8080/health"));
}

#[test]
fn the_default_follows_where_the_server_listens() {
    for (listen, expected) in [
        ("0.0.0.0:80", "http://127.0.0.1:80/readyz"),
        ("[::]:8080", "http://[::1]:8080/readyz"),
        ("10.0.0.1:81", "http://10.0.0.1:81/readyz"),
        ("inside:81, 0.0.0.0:80", "http://inside:81/readyz"),
    ] {
        assert_eq!(probed("", Some(listen)).probe, url(expected), "{listen}");
    }
    let given = probed("http://other/x", Some("0.0.0.0:80"));
    assert_eq!(given.probe, url("http://other/x"));
    for listen in ["", "nowhere:port", "a:1/x:2", "a b:1", "a"] {
        let line = complaint("", Some(listen));
        assert!(
            line.starts_with("PLIMSOLL_LISTEN: expected HOST:PORT, such as"),
            "{line}"
        );
    }
    assert_eq!(
        complaint("", Some("0.0.0.0:0")),
        "--listen: expected HOST:PORT with a port above 0, or a URL as an argument, found \"0.0.0.0:0\"",
    );
}

#[test]
fn it_asks_where_the_environment_has_the_pages() {
    let asks = |line: &str, variable: &str, path: &str| {
        let arguments = ["probe"].into_iter().chain(line.split_whitespace());
        super::super::parse(arguments.map(OsString::from), |name| {
            (name == variable).then(|| path.into())
        })
    };
    for (line, variable) in [
        ("", "PLIMSOLL_READYZ_PATH"),
        ("--consul-exit", "PLIMSOLL_HEALTH_PATH"),
    ] {
        let Ok(Command::Probe(options)) = asks(line, variable, "/hull") else {
            panic!("{variable} is not taken");
        };
        assert_eq!(options.probe, url("http://127.0.0.1:8080/hull"));
        let error = asks(line, variable, "off").expect_err("no page");
        assert!(
            error
                .to_string()
                .ends_with("or a URL as an argument, found off")
        );
    }
}

#[test]
fn options_are_read_in_any_order() {
    for line in [
        "--timeout 500ms --consul-exit http://a:1/x",
        "http://a:1/x --consul-exit --timeout=500ms",
        "--timeout 1s --consul-exit http://a:1/x --timeout 500ms",
    ] {
        let options = probed(line, None);
        assert_eq!(options.probe, url("http://a:1/x"));
        assert_eq!(options.timeout, Duration::from_millis(500));
        assert!(options.consul_exit);
    }
}

#[test]
fn bad_arguments_are_named() {
    const URL: &str = "expected a URL and options that plimsoll probe --help lists, found";
    const TIMEOUT: &str =
        "--timeout: expected a duration above 0 and at most 24h, such as 250ms, 1.5s or 2m, found";
    for (line, expected) in [
        ("--workers 3", format!("{URL} \"--workers\"")),
        ("-x", format!("{URL} \"-x\"")),
        ("http://a http://b", format!("{URL} \"http://b\"")),
        ("--timeout", format!("{TIMEOUT} nothing")),
        ("--timeout 0", format!("{TIMEOUT} \"0\"")),
        ("--timeout 25h", format!("{TIMEOUT} \"25h\"")),
        ("--timeout soon", format!("{TIMEOUT} \"soon\"")),
        (
            "localhost:8080",
            "probe: expected http://HOST[:PORT][/PATH], found \"localhost:8080\"".to_owned(),
        ),
        (
            "user:hush@localhost",
            "probe: expected http://HOST[:PORT][/PATH], found \"...\"".to_owned(),
        ),
        (
            "https://a",
            "probe: scheme: expected http://: TLS is not spoken here, found https://".to_owned(),
        ),
        (
            "http://a:99999/",
            "probe: port: expected a number from 1 to 65535 after the host and a colon, \
             found another number"
                .to_owned(),
        ),
    ] {
        assert_eq!(complaint(line, None), expected, "{line}");
    }
    let line = complaint("http://user:hush@a/", None);
    assert!(
        line.starts_with("probe: user:") && !line.contains("hush"),
        "{line}"
    );
}

#[test]
fn the_help_is_its_own_and_no_line_is_long() {
    for line in ["--help", "-h", "http://a --consul-exit --help --bogus"] {
        assert_eq!(parsed(line, None), Ok(Command::Help(HELP.to_owned())));
    }
    assert!(HELP.lines().all(|line| line.len() <= 100));
    assert!(super::super::help::text().contains("plimsoll probe --help"));
}

#[test]
fn probe_is_a_command_only_where_it_comes_first() {
    let arguments = ["--workers", "3", "probe"].map(OsString::from);
    let error = super::super::parse(arguments.into_iter(), |_| None).expect_err("an error");
    assert!(error.to_string().ends_with("found \"probe\""), "{error}");
}

#[test]
fn exit_codes_are_docker_s_or_consul_s() {
    let mut options = probed("", None);
    let codes = |options: &ProbeOptions| {
        [Status::Pass, Status::Warn, Status::Fail].map(|status| options.exit_code(status))
    };
    assert_eq!(codes(&options), [0, 0, 1]);
    options.consul_exit = true;
    assert_eq!(codes(&options), [0, 1, 2]);
}
