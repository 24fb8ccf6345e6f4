//! Endpoints that are found while the server runs: by a real name server, by one that lies, by names, and by a file.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use plimsoll::Server;
use plimsoll::proxy::{BalanceBy, Proxy, ProxyConfig};
use serde_json::Value;
use simple_dns::rdata::{A, CNAME, RData, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

use crate::kit::binary::{Plimsoll, Serving};
use crate::kit::process::{Process, TempDir, find};
use crate::kit::stores::as_root;
use crate::kit::{Client, Latch, PATIENCE, Reserved, Upstream, get, quiet, wait_until};

/// What the sources name.
const NAME: &str = "_http._tcp.api.test";

/// Answers with a name; requests for `/slow` wait at the latch.
fn named(name: &'static str, latch: &Arc<Latch>) -> Upstream {
    let latch = latch.clone();
    Upstream::start(move |asked, stream| {
        if asked.line().starts_with("GET /slow ") {
            latch.pass();
        }
        let length = name.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}"
        )
    })
}

fn serve(source: String) -> Server {
    serve_all([source])
}

fn serve_all(sources: impl IntoIterator<Item = String>) -> Server {
    let config = ProxyConfig {
        balance: BalanceBy::RoundRobin,
        ..ProxyConfig::to(sources)
    };
    let proxy = Proxy::start(config).expect("it starts");
    let server = quiet(8).upstreams(proxy.reporter()).handler(proxy);
    server.start().expect("the server starts")
}

fn upstreams(address: SocketAddr) -> Value {
    let reply = get(address, "/status.json");
    let report: Value = serde_json::from_slice(&reply.body).expect("JSON");
    report["upstreams"].clone()
}

/// The addresses of the endpoints in use, sorted.
fn endpoints(server: &Server) -> Vec<String> {
    let report = upstreams(server.local_addr());
    let endpoints = report["endpoints"].as_array().expect("a list");
    let name = |endpoint: &Value| endpoint["name"].as_str().expect("a name").to_owned();
    let mut names: Vec<_> = endpoints.iter().map(name).collect();
    names.sort();
    names
}

fn addresses(upstreams: &[&Upstream]) -> Vec<String> {
    let addresses = upstreams.iter().map(|one| one.address.to_string());
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort();
    addresses
}

/// What is said of a source that cannot be read.
fn fault(server: &Server) -> Option<String> {
    let report = upstreams(server.local_addr());
    Some(report["faults"][0]["error"].as_str()?.to_owned())
}

/// A real name server on loopback.
struct Dnsmasq {
    program: PathBuf,
    directory: TempDir,
    /// For TCP; another may have it for UDP for a moment.
    port: Reserved,
    process: Option<Process>,
}

impl Dnsmasq {
    /// One that does not run yet; `None` where there is none on this machine.
    fn new() -> Option<Self> {
        Some(Self {
            program: find("dnsmasq", "dnsmasq-base")?,
            directory: TempDir::new("dnsmasq"),
            port: Reserved::new(),
            process: None,
        })
    }

    fn source(&self) -> String {
        format!("srv://{NAME}?server={}", self.port.address)
    }

    /// Starts it, or starts it again, with these records: port, priority and weight.
    fn serve(&mut self, records: &[(u16, u16, u16)]) {
        self.stop();
        let mut lines = format!(
            "port={}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nkeep-in-foreground\n\
             pid-file=\nlocal-ttl=1\nhost-record=one.test,127.0.0.1\n",
            self.port.port()
        );
        if as_root() {
            lines.push_str("user=root\n");
        }
        for (port, priority, weight) in records {
            writeln!(lines, "srv-host={NAME},one.test,{port},{priority},{weight}").expect("memory");
        }
        let file = self.directory.path().join("dnsmasq.conf");
        fs::write(&file, lines).expect("the directory can be written");
        let mut command = Command::new(&self.program);
        command.arg(format!("--conf-file={}", file.display()));
        let mut start = || Process::start(&mut command, self.directory.path());
        let mut process = start();
        wait_until("dnsmasq listens", || {
            if process.has_ended() {
                let output = fs::read_to_string(self.directory.path().join("output"));
                let output = output.expect("what it said");
                assert!(output.contains("Address already in use"), "{output}");
                process = start();
            }
            TcpStream::connect(self.port.address).is_ok()
        });
        self.process = Some(process);
    }

    fn stop(&mut self) {
        self.process = None;
    }
}

#[test]
fn what_a_real_name_server_says_is_followed() {
    let Some(mut dns) = Dnsmasq::new() else {
        return;
    };
    let latch = Arc::new(Latch::default());
    let [first, second, spare, new] =
        ["first", "second", "spare", "new"].map(|it| named(it, &latch));
    let port = |upstream: &Upstream| upstream.address.port();

    // It is down at the start: the server runs, and says what it lacks.
    let server = serve(dns.source());
    let address = server.local_addr();
    let ready = || get(address, "/readyz").status;
    assert_eq!(ready(), 503);
    assert_eq!(get(address, "/").status, 503);
    wait_until("the source is told", || fault(&server).is_some());
    let health = get(address, "/health");
    assert!(health.text().contains(&dns.source()), "{}", health.text());

    // Ports and weights are those of the records; one with a higher priority number is spared.
    dns.serve(&[
        (port(&first), 1, 3),
        (port(&second), 1, 1),
        (port(&spare), 2, 1),
    ]);
    wait_until("all are known", || {
        endpoints(&server) == addresses(&[&first, &second, &spare])
    });
    assert_eq!((ready(), fault(&server)), (200, None));
    for _ in 0..40 {
        assert_eq!(get(address, "/").status, 200);
    }
    let count = first.asked().len();
    assert!((28..=32).contains(&count), "3 of 4, not {count} of 40");
    assert_eq!(spare.asked().len(), 0);

    // An endpoint that leaves ends what it has, and gets nothing new.
    thread::scope(|scope| {
        let slow: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| get(address, "/slow")))
            .collect();
        latch.wait_for(4);
        dns.serve(&[(port(&second), 1, 1), (port(&new), 1, 1)]);
        wait_until("the new set is known", || {
            endpoints(&server) == addresses(&[&second, &new])
        });
        let before = first.asked().len();
        for _ in 0..20 {
            assert_eq!(get(address, "/").status, 200);
        }
        assert_eq!(first.asked().len(), before);
        latch.open();
        for slow in slow {
            let reply = slow.join().expect("a reply");
            assert_eq!(reply.status, 200, "{reply:?}");
        }
    });
    assert!(!new.asked().is_empty());

    // While it is down the last good set is kept.
    dns.stop();
    wait_until("that is told", || fault(&server).is_some());
    assert_eq!(endpoints(&server), addresses(&[&second, &new]));
    assert_eq!((ready(), get(address, "/").status), (200, 200));
    dns.serve(&[(port(&first), 1, 1)]);
    wait_until("it is followed again", || {
        endpoints(&server) == addresses(&[&first])
    });
    assert_eq!((fault(&server), get(address, "/").text()), (None, "first"));
}

/// What a name server of the test's own answers.
type Script = Arc<dyn Fn(&Packet<'_>, bool) -> Vec<Vec<u8>> + Send + Sync>;

/// A name server on loopback, over UDP and over TCP, whose script can be changed.
struct NameServer {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl NameServer {
    /// The threads end with the test's process: they wait for questions.
    fn start(script: Script) -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            // The same port may be taken for UDP.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("it is bound")) {
                break (udp, tcp);
            }
        };
        let address = tcp.local_addr().expect("it is bound");
        let script = Arc::new(Mutex::new(script));
        let answers = |script: &Mutex<Script>, message: &[u8], is_tcp| {
            let script = script.lock().expect("nobody panicked").clone();
            script(&Packet::parse(message).expect("a question"), is_tcp)
        };
        let over_udp = script.clone();
        thread::spawn(move || {
            let mut message = [0; 512];
            while let Ok((count, peer)) = udp.recv_from(&mut message) {
                for answer in answers(&over_udp, &message[..count], false) {
                    // Whoever asked may have left.
                    let _ = udp.send_to(&answer, peer);
                }
            }
        });
        let over_tcp = script.clone();
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.expect("a connection");
                let mut head = [0; 2];
                std::io::Read::read_exact(&mut stream, &mut head).expect("a length");
                let mut message = vec![0; u16::from_be_bytes(head).into()];
                std::io::Read::read_exact(&mut stream, &mut message).expect("a question");
                for answer in answers(&over_tcp, &message, true) {
                    let length = u16::try_from(answer.len()).unwrap_or(u16::MAX);
                    let _ = stream.write_all(&[&length.to_be_bytes()[..], &answer].concat());
                }
            }
        });
        Self { address, script }
    }

    fn set(&self, script: Script) {
        *self.script.lock().expect("nobody panicked") = script;
    }
}

fn record<'a>(owner: &'a str, rdata: RData<'a>) -> ResourceRecord<'a> {
    ResourceRecord::new(Name::new_unchecked(owner), CLASS::IN, 0, rdata)
}

fn srv(port: u16) -> ResourceRecord<'static> {
    srv_to("one.test", port)
}

fn srv_to(target: &'static str, port: u16) -> ResourceRecord<'static> {
    let target = Name::new_unchecked(target);
    let (priority, weight) = (0, 1);
    record(
        NAME,
        RData::SRV(SRV {
            priority,
            weight,
            port,
            target,
        }),
    )
}

/// An answer with these records, and the address of their target.
fn answer(question: &Packet<'_>, answers: Vec<ResourceRecord<'_>>) -> Vec<u8> {
    let mut packet = Packet::new_reply(question.id());
    for question in &question.questions {
        packet.questions.push(question.clone().into_owned());
    }
    packet.answers = answers
        .into_iter()
        .map(ResourceRecord::into_owned)
        .collect();
    let address = Ipv4Addr::LOCALHOST.into();
    packet.additional_records = vec![record("one.test", RData::A(A { address }))];
    packet.build_bytes_vec_compressed().expect("a message")
}

fn leading_to(address: SocketAddr) -> Script {
    Arc::new(move |question, _| vec![answer(question, vec![srv(address.port())])])
}

/// An answer of one byte more than is read of a datagram, of which all is believed elsewhere.
fn huge(question: &Packet<'_>, is_tcp: bool) -> Vec<Vec<u8>> {
    if !is_tcp {
        let mut packet = Packet::new_reply(question.id());
        packet
            .questions
            .push(question.questions[0].clone().into_owned());
        packet.set_flags(PacketFlag::TRUNCATION);
        return vec![packet.build_bytes_vec().expect("a message")];
    }
    let address = Ipv4Addr::LOCALHOST.into();
    let filler = (0..3000).map(|_| record("one.test", RData::A(A { address })));
    vec![answer(question, filler.collect())]
}

fn endless_alias(question: &Packet<'_>) -> Vec<u8> {
    let alias = |from, to| record(from, RData::CNAME(CNAME(Name::new_unchecked(to))));
    answer(
        question,
        vec![alias(NAME, "b.test"), alias("b.test", NAME), srv(1)],
    )
}

fn of_another_question(question: &Packet<'_>) -> Vec<u8> {
    let mut other = Packet::new_reply(question.id());
    other
        .questions
        .push(question.questions[0].clone().into_owned());
    other.questions[0].qname = Name::new_unchecked("evil.test");
    other.answers = vec![srv(1)];
    other.build_bytes_vec().expect("a message")
}

/// How a name server can be wrong, and what is said of it.
fn lies() -> Vec<(&'static str, Script)> {
    vec![
        ("malformed", Arc::new(|_, _| vec![b"\0\0garbage".to_vec()])),
        (
            "malformed",
            Arc::new(|question, _| {
                let mut cut = answer(question, vec![srv(1)]);
                cut.truncate(cut.len() - 9);
                vec![cut]
            }),
        ),
        ("too many records", Arc::new(huge)),
        (
            "aliases do not end",
            Arc::new(|question, _| vec![endless_alias(question)]),
        ),
        (
            "answers another question",
            Arc::new(|question, _| vec![of_another_question(question)]),
        ),
        (
            "no SRV records",
            Arc::new(|question, _| vec![answer(question, vec![])]),
        ),
        ("no answer in time", Arc::new(|_, _| vec![])),
    ]
}

#[test]
fn a_name_server_that_lies_is_not_believed_and_the_last_good_set_is_kept() {
    let latch = Arc::new(Latch::default());
    thread::scope(|scope| {
        for (what, lie) in lies() {
            let latch = &latch;
            scope.spawn(move || {
                let (first, second) = (named("first", latch), named("second", latch));
                let dns = NameServer::start(leading_to(first.address));
                let server = serve(format!("srv://{NAME}?server={}", dns.address));
                let address = server.local_addr();
                wait_until("the first is used", || get(address, "/").body == b"first");
                dns.set(lie);
                wait_until(what, || {
                    assert_eq!(get(address, "/").text(), "first");
                    fault(&server).is_some_and(|fault| fault.contains(what))
                });
                assert_eq!(get(address, "/readyz").status, 200);
                dns.set(leading_to(second.address));
                wait_until("the second is used", || get(address, "/").body == b"second");
                assert_eq!(fault(&server), None);
            });
        }
    });
}

#[test]
fn a_name_server_that_does_not_answer_keeps_nobody_from_what_other_sources_tell() {
    let upstream = named("first", &Arc::default());
    let dns = NameServer::start(Arc::new(|_, _| vec![]));
    let server = serve_all([
        format!("srv://{NAME}?server={}", dns.address),
        upstream.url(),
    ]);
    assert_eq!(get(server.local_addr(), "/").text(), "first");
    assert_eq!(get(server.local_addr(), "/readyz").status, 200);
}

/// A service whose address could not be asked for was taken for gone.
#[test]
fn a_target_whose_address_nobody_tells_now_keeps_the_one_it_had_and_one_that_is_gone_does_not() {
    let latch = Arc::default();
    let (first, second) = (named("first", &latch), named("second", &latch));
    let ports = [first.address.port(), second.address.port()];
    let targets = ["one.test", "two.test"];
    let script = move |lame: Option<RCODE>| -> Script {
        Arc::new(move |question, _| {
            let asked = question.questions[0].qname.to_string();
            if asked == NAME {
                let records = targets.iter().zip(ports);
                let records = records.map(|(target, port)| srv_to(target, port));
                return vec![answer(question, records.collect())];
            }
            let address = Ipv4Addr::LOCALHOST.into();
            let is_v4 = question.questions[0].qtype == QTYPE::TYPE(TYPE::A);
            let records = is_v4.then(|| record("two.test", RData::A(A { address })));
            let mut packet = Packet::new_reply(question.id());
            packet
                .questions
                .push(question.questions[0].clone().into_owned());
            match lame {
                Some(code) => *packet.rcode_mut() = code,
                None => packet.answers.extend(records),
            }
            vec![packet.build_bytes_vec().expect("a message")]
        })
    };
    let dns = NameServer::start(script(None));
    let server = serve(format!("srv://{NAME}?server={}", dns.address));
    let both = addresses(&[&first, &second]);
    wait_until("both are known", || endpoints(&server) == both);
    dns.set(script(Some(RCODE::ServerFailure)));
    wait_until("that is told", || {
        fault(&server).is_some_and(|fault| fault.contains("two.test: "))
    });
    assert_eq!(endpoints(&server), both);
    dns.set(script(Some(RCODE::NameError)));
    wait_until("the second is gone", || {
        endpoints(&server) == addresses(&[&first])
    });
    assert_eq!(fault(&server), None);
}

/// Whether this process may give a program a file of its own in place of `/etc/hosts`; if not, that is said.
fn can_replace_hosts(hosts: &str) -> bool {
    let tried = Command::new("unshare")
        .args(["-rm", "mount", "--bind", hosts, "/etc/hosts"])
        .output();
    let can = tried.is_ok_and(|tried| tried.status.success());
    if !can {
        let told = writeln!(std::io::stderr(), "SKIPPED: unshare may not mount here");
        told.expect("standard error can be written");
    }
    can
}

/// The binary in a mount namespace, so that the names are the test's.
#[test]
fn a_name_is_asked_for_anew_and_each_of_its_addresses_is_used() {
    let directory = TempDir::new("hosts");
    let file = directory.path().join("hosts");
    let hosts = file.to_str().expect("a path of text");
    let write = |addresses: &[IpAddr]| {
        let lines = addresses
            .iter()
            .map(|address| format!("{address} api.test\n"));
        fs::write(hosts, lines.collect::<String>()).expect("a file");
    };
    let latch = Arc::new(Latch::default());
    let first = named("first", &latch);
    let port = first.address.port();
    let others = [2, 3].map(|last| {
        let address = SocketAddr::from(([127, 0, 0, last], port));
        let name = ["second", "third"][usize::from(last) - 2];
        Upstream::start_at(address, move |_, stream| {
            let length = name.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}"
            )
        })
    });
    write(&[first.address.ip()]);
    if !can_replace_hosts(hosts) {
        return;
    }
    let mut command = Command::new("unshare");
    command
        .args(["-rm", "sh", "-c"])
        .arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"")
        .args([hosts, env!("CARGO_BIN_EXE_plimsoll")])
        .args(["--listen", "127.0.0.1:0", "--balance", "round-robin"])
        .args(["--upstream", &format!("http://api.test:{port}")]);
    let plimsoll = Plimsoll::spawn(command, &[]);
    let address = plimsoll.address();
    wait_until("the first is used", || get(address, "/").body == b"first");
    // The service has moved, and there are two of it now.
    let both = others.each_ref().map(|other| other.address.ip());
    write(&both);
    wait_until("all requests go there", || {
        let replies = (0..4).map(|_| get(address, "/").text().to_owned());
        let replies: Vec<_> = replies.collect();
        ["second", "third"]
            .iter()
            .all(|name| replies.iter().filter(|reply| reply == name).count() == 2)
    });
    // A name that is gone leaves those that it last had.
    write(&[]);
    wait_until("that is told", || {
        upstreams(address)["faults"][0]["error"].is_string()
    });
    assert_eq!(get(address, "/").status, 200);
}

#[test]
fn a_file_that_is_rewritten_all_the_time_never_takes_an_endpoint_away() {
    let directory = TempDir::new("endpoints");
    let path = directory.path().join("endpoints");
    let latch = Arc::new(Latch::default());
    let (first, second) = (named("first", &latch), named("second", &latch));
    let good = format!("# both\n{}\n{}\n", first.url(), second.url());
    fs::write(&path, &good).expect("a file");
    let server = serve(format!("file:{}", path.display()));
    let address = server.local_addr();
    let bad = format!("{}\nhttp//broken\n{}\n", first.url(), second.url());
    let half = good.rfind("://").expect("it has endpoints");
    let texts = ["", &good[..half], &bad, "\u{0}", &good];
    let rewritten = AtomicUsize::new(0);
    let asked = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            // In place, as an editor that is not careful does; the text is looked at every 250 ms while it changes.
            while asked.load(Ordering::SeqCst) < 1500 {
                let count = rewritten.fetch_add(1, Ordering::SeqCst);
                fs::write(&path, texts[count % texts.len()]).expect("a file");
                thread::sleep(PATIENCE / 3000);
            }
        });
        let mut client = Client::connect(address);
        while asked.load(Ordering::SeqCst) < 1500 {
            let reply = client.get("/").reply();
            assert_eq!(reply.status, 200, "{reply:?}");
            asked.fetch_add(1, Ordering::SeqCst);
            thread::sleep(PATIENCE / 15_000);
        }
    });
    assert!(rewritten.load(Ordering::SeqCst) > 20);
    // A bad line that stays is named, by its number.
    fs::write(&path, &bad).expect("a file");
    wait_until("the line is named", || {
        fault(&server).is_some_and(|fault| fault.starts_with("line 2: http//broken: "))
    });
    assert_eq!(endpoints(&server), addresses(&[&first, &second]));
    fs::write(&path, &good).expect("a file");
    wait_until("it is well again", || fault(&server).is_none());
}

#[test]
fn the_257th_endpoint_is_refused_by_name_and_the_others_are_used() {
    let latch = Arc::new(Latch::default());
    let upstream = named("first", &latch);
    let directory = TempDir::new("many");
    let path = directory.path().join("endpoints");
    let mut text = format!("{}\n", upstream.url());
    for number in 1..=256 {
        // None of them is asked: they count for nothing beside the first.
        writeln!(
            text,
            "http://127.0.0.1:{}/p{number}",
            upstream.address.port()
        )
        .expect("memory");
    }
    fs::write(&path, text).expect("a file");
    let server = serve(format!("file:{}", path.display()));
    let address = server.local_addr();
    let name = format!("{}/p256", upstream.address);
    wait_until("it is told", || fault(&server).is_some());
    let told = fault(&server).expect("it was just there");
    let expected = format!("expected at most 256 endpoints, found {name} too");
    assert_eq!(told, expected);
    for _ in 0..512 {
        assert_eq!(get(address, "/").text(), "first");
    }
    let report = upstreams(address);
    let shown = report["endpoints"].as_array().expect("a list");
    assert_eq!((shown.len(), &report["others"]), (32, &224.into()));
    assert_eq!(get(address, "/readyz").status, 200);
    let metrics = get(address, "/metrics");
    let line = "plimsoll_upstream_requests_total{endpoint=\"others\",outcome=\"success\"} 448";
    assert!(metrics.text().contains(line), "{}", metrics.text());
    let line = "plimsoll_upstream_endpoints{state=\"usable\"} 256";
    assert!(metrics.text().contains(line), "{}", metrics.text());
}

#[test]
fn endpoints_that_are_all_down_when_they_are_found_do_not_fill_the_log() {
    let directory = TempDir::new("endpoints");
    let path = directory.path().join("endpoints");
    let port = Reserved::new();
    let lines = (0..32).map(|number| format!("http://{}/{number}\n", port.address));
    fs::write(&path, lines.collect::<String>()).expect("a file");
    let source = format!("file:{}", path.display());
    let check = "/up,interval=100ms";
    let server = Serving::start(&["--upstream", &source, "--upstream-check", check]);
    wait_until("all are down", || {
        let report = upstreams(server.address);
        let all = report["endpoints"].as_array().expect("a list");
        all.len() == 32 && all.iter().all(|one| one["state"] == "down")
    });
    // What comes after all of that is told of them all.
    let _up = Upstream::start_at(port.address, |_, stream| {
        stream.write_all(b"HTTP/1.1 204 Up\r\n\r\n")
    });
    wait_until("all are up", || server.process.logged(" is up") == 32);
    assert_eq!(server.process.logged(" is down: "), 16);
}
