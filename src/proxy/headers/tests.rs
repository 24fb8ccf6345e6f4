use super::*;

/// Fields as `Name: value` lines.
fn parse<'a>(lines: &'a [&'a str]) -> impl Iterator<Item = (&'a str, &'a [u8])> + Clone {
    lines.iter().map(|line| {
        let (name, value) = line.split_once(": ").expect("a name and a value");
        (name, value.as_bytes())
    })
}

/// A request from a peer that is not trusted, and what is made of it.
struct Given<'a> {
    method: &'a str,
    target: &'a str,
    version: &'a str,
    body_len: usize,
    trusted: bool,
    host: Option<&'a str>,
}

const GET: Given<'_> = Given {
    method: "GET",
    target: "/",
    version: "1.1",
    body_len: 0,
    trusted: false,
    host: None,
};

const TO: Destination<'_> = Destination {
    authority: "app:9000",
    prefix: "",
    timeout_ms: 1500,
    upgrade: None,
};

impl Given<'_> {
    fn outcome(&self, lines: &[&str]) -> Decision {
        forward(&Received {
            method: self.method,
            version: self.version,
            fields: parse(lines),
            body_len: self.body_len,
            peer: [192, 0, 2, 7].into(),
            trusted: self.trusted,
            id: "id-1",
            host: self.host,
        })
    }

    #[track_caller]
    fn forwarded(&self, lines: &[&str]) -> Forwarded {
        match self.outcome(lines) {
            Decision::Forward(forwarded) => forwarded,
            other => panic!("{other:?}"),
        }
    }

    /// The lines of the head that is sent.
    #[track_caller]
    fn lines(&self, lines: &[&str]) -> Vec<String> {
        let head = self.forwarded(lines).head(self.method, self.target, &TO);
        let head = String::from_utf8(head).expect("text");
        let head = head.strip_suffix("\r\n\r\n").expect("an end");
        head.split("\r\n").map(str::to_owned).collect()
    }

    /// Checks which lines of a head are sent on, but for those that the proxy adds to each.
    #[track_caller]
    fn check(&self, given: &[&str], expected: &[&str]) {
        let added = [
            "X-Forwarded-For: 192.0.2.7",
            "X-Forwarded-Proto: http",
            "X-Request-Id: id-1",
            "Via: 1.1 plimsoll",
            "X-Envoy-Expected-Rq-Timeout-Ms: 1500",
            "X-Forwarded-Host: app",
            "Host: app",
        ];
        let mut with_host = vec!["Host: app"];
        with_host.extend_from_slice(given);
        let lines = self.lines(&with_host);
        let sent: Vec<&str> = lines[1..].iter().map(String::as_str).collect();
        let own: Vec<&str> = sent
            .iter()
            .copied()
            .filter(|line| !added.contains(line))
            .collect();
        assert_eq!(own, expected, "of {given:?}");
    }
}

#[test]
fn a_request_goes_on_with_what_the_proxy_adds() {
    let lines = GET.lines(&["Host: example.com:81", "User-Agent: curl/8", "Accept: */*"]);
    assert_eq!(
        lines,
        [
            "GET / HTTP/1.1",
            "Host: example.com:81",
            "User-Agent: curl/8",
            "Accept: */*",
            "X-Forwarded-For: 192.0.2.7",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Host: example.com:81",
            "X-Request-Id: id-1",
            "Via: 1.1 plimsoll",
            "X-Envoy-Expected-Rq-Timeout-Ms: 1500",
        ]
    );
}

#[test]
fn what_is_for_one_connection_stays_there() {
    for (given, expected) in [
        // RFC 9110 7.6.1: Connection and what it names.
        (&["Connection: close"][..], &[][..]),
        (&["Connection: keep-alive", "Keep-Alive: timeout=5"], &[]),
        (&["Connection: a, B", "A: 1", "b: 2", "C: 3"], &["C: 3"]),
        (&["A: 1", "Connection: a"], &[]),
        (&["Connection: x", "Connection: a", "A: 1"], &[]),
        (&["Connection: ,, a ,", "A: 1"], &[]),
        (&["Connection: x-a", "X_A: 1"], &[]),
        (&["Connection: x_a", "X-A: 1"], &[]),
        (&["CONNECTION: a", "A: 1"], &[]),
        // Whether or not it names them.
        (&["Keep-Alive: timeout=5"], &[]),
        (&["Proxy-Connection: keep-alive"], &[]),
        (&["Proxy-Authorization: Basic eA=="], &[]),
        (&["Proxy-Authenticate: Basic"], &[]),
        (&["Proxy-Authentication-Info: x"], &[]),
        (&["Proxy_Authorization: Basic eA=="], &[]),
        (&["Upgrade: h2c", "Connection: Upgrade"], &[]),
        (
            &["Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: x"],
            &[],
        ),
        // https://httpoxy.org
        (&["Proxy: http://evil"], &[]),
        (&["proxy: http://evil"], &[]),
        // RFC 9110 10.1.1: the event loop answers it.
        (&["Expect: 100-continue"], &[]),
        // RFC 9110 6.6.2: trailers of requests are not kept.
        (&["Trailer: X"], &[]),
        // RFC 9110 10.1.4
        (&["TE: trailers"], &["TE: trailers", "Connection: TE"]),
        (
            &["TE: gzip;q=0.5, Trailers"],
            &["TE: trailers", "Connection: TE"],
        ),
        (&["TE: gzip"], &[]),
        (&["TE: trailers;q=0"], &[]),
        (
            &["TE: trailers", "Connection: TE, close"],
            &["TE: trailers", "Connection: TE"],
        ),
        // Never framing, Host or what says where a request comes from.
        (
            &["Connection: host, via, x-forwarded-for, x-request-id, content-length"],
            &[],
        ),
        (&["Connection: via", "Via: 1.0 old"], &["Via: 1.0 old"]),
        // The rest goes on as it is.
        (
            &["Cookie: a=1", "Cookie: b=2"],
            &["Cookie: a=1", "Cookie: b=2"],
        ),
        (&["accept: a", "ACCEPT: b"], &["accept: a", "ACCEPT: b"]),
        (
            &["X_Custom: 1", "X-Custom: 2"],
            &["X_Custom: 1", "X-Custom: 2"],
        ),
        (&["Empty: "], &["Empty: "]),
        (&["Authorization: Bearer x"], &["Authorization: Bearer x"]),
        (&["Max-Forwards: 3"], &["Max-Forwards: 3"]),
        (&["Connecting: a", "A: 1"], &["Connecting: a", "A: 1"]),
    ] {
        GET.check(given, expected);
    }
}

#[test]
fn there_is_one_framing_field_or_none() {
    let post = Given {
        method: "POST",
        body_len: 5,
        ..GET
    };
    for (given, expected) in [
        (&["Content-Length: 5"][..], &["Content-Length: 5"][..]),
        (&["Transfer-Encoding: chunked"], &["Content-Length: 5"]),
        (
            &["Content-Length: 5", "Content_Length: 7"],
            &["Content-Length: 5"],
        ),
        (
            &["Content-Length: 5", "Transfer_Encoding: chunked"],
            &["Content-Length: 5"],
        ),
        (
            &["Content-Length: 5", "Connection: content-length"],
            &["Content-Length: 5"],
        ),
        (
            &[
                "Transfer-Encoding: chunked",
                "Connection: transfer-encoding",
            ],
            &["Content-Length: 5"],
        ),
    ] {
        post.check(given, expected);
    }
    let empty = Given {
        body_len: 0,
        ..post
    };
    empty.check(&["Content-Length: 0"], &["Content-Length: 0"]);
    empty.check(&["Transfer-Encoding: chunked"], &["Content-Length: 0"]);
    empty.check(&[], &[]);
    empty.check(&["Content_Length: 9"], &[]);
}

#[test]
fn what_an_untrusted_peer_says_of_the_client_is_replaced() {
    for given in [
        "X-Forwarded-For: 10.0.0.1",
        "x-forwarded-for: 10.0.0.1",
        "X_Forwarded_For: 10.0.0.1",
        "X-Forwarded_For: 10.0.0.1",
        "X-Forwarded-Proto: https",
        "X_Forwarded_Proto: https",
        "X-Forwarded-Host: evil",
        "X-Forwarded-Port: 443",
        "X_Forwarded_Prefix: /admin",
        "X-Forwarded-A-Name-That-Is-Longer-Than-Those-That-Are-Known: x",
        "X-Real-IP: 10.0.0.1",
        "X_Real_IP: 10.0.0.1",
        "Forwarded: for=10.0.0.1",
        "X-Request-Id: theirs",
        "X_Request_Id: theirs",
        "X-Envoy-Expected-Rq-Timeout-Ms: 9999999",
        "X_Envoy_Expected_Rq_Timeout_Ms: 9999999",
    ] {
        GET.check(&[given], &[]);
        let proto = given.starts_with("X-Forwarded-Proto");
        assert_eq!(GET.forwarded(&[given]).replaced_proto, proto, "{given}");
    }
    GET.check(
        &["X-Forwarded: x", "X-Real-Name: y"],
        &["X-Forwarded: x", "X-Real-Name: y"],
    );
}

#[test]
fn what_a_trusted_peer_says_of_the_client_is_kept() {
    let trusted = Given {
        trusted: true,
        ..GET
    };
    let lines = trusted.lines(&[
        "Host: inner",
        "X-Forwarded-For: 10.0.0.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-For: 10.0.0.2, 10.0.0.3",
        "X-Forwarded-Host: outer",
        "X-Real-IP: 10.0.0.1",
        "Forwarded: for=10.0.0.1",
        "X_Forwarded_For: 6.6.6.6",
        "X_Real_IP: 6.6.6.6",
    ]);
    assert_eq!(
        lines[1..lines.len() - 1],
        [
            "Host: inner",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: outer",
            "X-Real-IP: 10.0.0.1",
            "Forwarded: for=10.0.0.1",
            "X-Forwarded-For: 10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.7",
            "X-Request-Id: id-1",
            "Via: 1.1 plimsoll",
        ]
    );
    assert!(
        !trusted
            .forwarded(&["X-Forwarded-Proto: https"])
            .replaced_proto
    );
}

#[test]
fn via_is_appended_with_the_version_received() {
    let old = Given {
        version: "1.0",
        ..GET
    };
    let lines = old.lines(&["Via: 1.1 first", "Host: h"]);
    let via: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("Via"))
        .collect();
    assert_eq!(via, ["Via: 1.1 first", "Via: 1.0 plimsoll"]);
    assert!(!old.forwarded(&["TE: trailers"]).trailers, "1.0 has none");
}

#[test]
fn the_host_is_the_clients_or_the_one_that_is_set_or_the_endpoints() {
    let host = |given: &Given<'_>, lines: &[&str]| -> Vec<String> {
        let lines = given.lines(lines).into_iter();
        lines.filter(|line| line.contains("Host")).collect()
    };
    assert_eq!(host(&GET, &["Host: a"]), ["Host: a", "X-Forwarded-Host: a"]);
    assert_eq!(host(&GET, &["Host: "]), ["Host: ", "X-Forwarded-Host: "]);
    let old = Given {
        version: "1.0",
        ..GET
    };
    assert_eq!(host(&old, &[]), ["Host: app:9000"]);
    let set = Given {
        host: Some("inner"),
        ..GET
    };
    assert_eq!(
        host(&set, &["Host: a"]),
        ["Host: inner", "X-Forwarded-Host: a"]
    );
}

#[test]
fn the_target_gets_the_endpoints_prefix() {
    let line = |method, target, prefix| {
        let given = Given {
            method,
            target,
            ..GET
        };
        let to = Destination { prefix, ..TO };
        let head = given.forwarded(&["Host: a"]).head(method, target, &to);
        let end = head.iter().position(|&byte| byte == b'\r');
        String::from_utf8(head[..end.expect("a line")].to_vec()).expect("text")
    };
    assert_eq!(
        line("GET", "/a%2Fb//../c?d=%zz", ""),
        "GET /a%2Fb//../c?d=%zz HTTP/1.1"
    );
    assert_eq!(line("PROPFIND", "/", "/v1"), "PROPFIND /v1/ HTTP/1.1");
    assert_eq!(line("OPTIONS", "*", "/v1"), "OPTIONS * HTTP/1.1");
}

#[test]
fn max_forwards_is_counted_down_where_it_means_something() {
    let options = Given {
        method: "OPTIONS",
        ..GET
    };
    let trace = Given {
        method: "TRACE",
        ..GET
    };
    for given in [options, trace] {
        given.check(&["Max-Forwards: 3"], &["Max-Forwards: 2"]);
        given.check(&["Max-Forwards: 1"], &["Max-Forwards: 0"]);
        given.check(
            &["Connection: max-forwards", "Max-Forwards: 1"],
            &["Max-Forwards: 0"],
        );
        assert_eq!(given.outcome(&["Max-Forwards: 0"]), Decision::Answer);
        for bad in ["-1", "", "1, 2", "a", "99999999999999999999"] {
            let line = format!("Max-Forwards: {bad}");
            assert_eq!(given.outcome(&[&line]), Decision::BadMaxForwards, "{bad}");
        }
        let twice = ["Max-Forwards: 1", "Max-Forwards: 1"];
        assert_eq!(given.outcome(&twice), Decision::BadMaxForwards);
    }
}

#[test]
fn the_protocols_that_a_client_asks_for_are_told() {
    let upgrade = |lines: &[&str]| GET.forwarded(lines).upgrade;
    assert_eq!(upgrade(&["Host: a"]), None);
    let websocket = ["Upgrade: websocket", "Connection: Upgrade"];
    assert_eq!(upgrade(&websocket).as_deref(), Some(&b"websocket"[..]));
    let two = [
        "Connection: close, upgrade",
        "Upgrade: h2c",
        "Upgrade: websocket",
    ];
    assert_eq!(upgrade(&two).as_deref(), Some(&b"h2c, websocket"[..]));
    // RFC 9110 7.8: it is for this connection only where Connection says so.
    assert_eq!(upgrade(&["Upgrade: websocket"]), None);
    assert_eq!(
        upgrade(&["Connection: keep-alive", "Upgrade: websocket"]),
        None
    );
}

#[test]
fn bytes_outside_ascii_go_on() {
    let received = Received {
        method: "GET",
        version: "1.1",
        fields: [("X", &b"\xe9\xff"[..])].into_iter(),
        body_len: 0,
        peer: "::ffff:192.0.2.7".parse().expect("an address"),
        trusted: false,
        id: "id-1",
        host: None,
    };
    let Decision::Forward(forwarded) = forward(&received) else {
        panic!("it goes on");
    };
    let head = forwarded.head("GET", "/", &TO);
    assert!(head.windows(9).any(|bytes| bytes == b"X: \xe9\xff\r\nX-"));
    assert!(head.windows(11).any(|bytes| bytes == b" 192.0.2.7\r"));
}

#[test]
fn a_response_is_cleaned_the_same_way() {
    for (given, expected) in [
        (
            &["Content-Type: a/b", "Set-Cookie: a=1", "Set-Cookie: b=2"][..],
            &["Content-Type: a/b", "Set-Cookie: a=1", "Set-Cookie: b=2"][..],
        ),
        (&["Connection: close, X-A", "X-A: 1", "X-B: 2"], &["X-B: 2"]),
        (&["Connection: set-cookie", "Set-Cookie: a"], &[]),
        (&["Keep-Alive: timeout=5"], &[]),
        (&["Content-Length: 5", "Transfer-Encoding: chunked"], &[]),
        (&["Proxy-Authenticate: Basic", "Proxy-Connection: x"], &[]),
        (&["Upgrade: h2c", "Trailer: X"], &["Trailer: X"]),
        (
            &["Proxy-Status: other; error=dns_error"],
            &["Proxy-Status: other; error=dns_error"],
        ),
        (
            &["Date: now", "Via: 1.1 other"],
            &["Date: now", "Via: 1.1 other"],
        ),
        (
            &["X-Forwarded-For: kept", "X_Under: 1"],
            &["X-Forwarded-For: kept", "X_Under: 1"],
        ),
    ] {
        let sent: Vec<_> = back(parse(given)).collect();
        let wanted: Vec<_> = parse(expected).collect();
        assert_eq!(sent, wanted, "of {given:?}");
    }
}

#[test]
fn a_trace_tells_no_secrets() {
    let lines = ["Host: a", "Cookie: s3cret", "authorization: s3cret", "X: y"];
    let text = trace("TRACE", "/x", parse(&lines));
    assert_eq!(text, b"TRACE /x HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n");
}
