use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use simple_dns::rdata::{A, RData, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, ResourceRecord, TYPE};

use super::*;
use crate::patterns::Discovery;

const PATIENCE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(200);
const NAME: &str = "_http._tcp.api.example";

/// A name server on loopback, over UDP and over TCP: its script gives the messages that answer a question.
struct NameServer(SocketAddr);

type Script = dyn Fn(&Packet<'_>, bool) -> Vec<Vec<u8>> + Send + Sync;

impl NameServer {
    /// The threads end with the test's process: they wait for questions.
    fn start(script: impl Fn(&Packet<'_>, bool) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let address = tcp.local_addr().expect("it is bound");
            // The same port may be taken for UDP.
            if let Ok(udp) = UdpSocket::bind(address) {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().expect("it is bound");
        let script: Arc<Script> = Arc::new(script);
        let over_tcp = script.clone();
        thread::spawn(move || {
            let mut message = [0; 512];
            while let Ok((count, peer)) = udp.recv_from(&mut message) {
                let question = Packet::parse(&message[..count]).expect("a question");
                for answer in script(&question, false) {
                    udp.send_to(&answer, peer).expect("it is sent");
                }
            }
        });
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.expect("a connection");
                let mut length = [0; 2];
                stream.read_exact(&mut length).expect("a length");
                let mut message = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut message).expect("a question");
                let question = Packet::parse(&message).expect("a question");
                for answer in over_tcp(&question, true) {
                    let length = u16::try_from(answer.len()).expect("a short answer");
                    let _ = stream.write_all(&[&length.to_be_bytes()[..], &answer].concat());
                }
            }
        });
        Self(address)
    }

    fn ask(&self, timeout: Duration) -> Result<(Vec<Srv>, Duration), String> {
        let found = services(NAME, Some(self.0), Deadline::after(timeout))?;
        Ok((found.list, found.ttl))
    }
}

fn record<'a>(owner: &'a str, rdata: RData<'a>) -> ResourceRecord<'a> {
    ResourceRecord::new(Name::new_unchecked(owner), CLASS::IN, 30, rdata)
}

fn srv(port: u16, target: &str) -> ResourceRecord<'_> {
    let target = Name::new_unchecked(target);
    record(
        NAME,
        RData::SRV(SRV {
            priority: 1,
            weight: 2,
            port,
            target,
        }),
    )
}

fn v4(owner: &str, last: u8) -> ResourceRecord<'_> {
    let address = Ipv4Addr::new(10, 0, 0, last).into();
    record(owner, RData::A(A { address }))
}

/// An answer to `question`.
fn reply<'a>(
    question: &Packet<'a>,
    answers: Vec<ResourceRecord<'a>>,
    additional: Vec<ResourceRecord<'a>>,
) -> Vec<u8> {
    let mut packet = Packet::new_reply(question.id());
    packet.questions.clone_from(&question.questions);
    packet.answers = answers;
    packet.additional_records = additional;
    packet.build_bytes_vec_compressed().expect("a message")
}

fn truncated(question: &Packet<'_>) -> Vec<u8> {
    let mut packet = Packet::new_reply(question.id());
    packet.questions.clone_from(&question.questions);
    packet.set_flags(PacketFlag::TRUNCATION);
    packet.build_bytes_vec().expect("a message")
}

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

#[test]
fn services_come_with_the_addresses_beside_them() {
    let server = NameServer::start(|question, _| {
        vec![reply(
            question,
            vec![srv(9000, "a.example")],
            vec![v4("a.example", 1)],
        )]
    });
    let (services, ttl) = server.ask(PATIENCE).expect("an answer");
    assert_eq!((services.len(), ttl), (1, Duration::from_secs(30)));
    assert_eq!(
        (services[0].port, &services[0].addresses),
        (9000, &vec![address(1)])
    );
}

#[test]
fn a_service_is_called_as_a_host_field_has_it_without_the_default_port() {
    let server = NameServer::start(|question, _| {
        let target = "a.example";
        let services = vec![srv(80, target), srv(9000, target)];
        vec![reply(question, services, vec![v4(target, 1)])]
    });
    let source = format!("srv://{NAME}?server={}", server.0);
    let discovery = Discovery::new([source]).expect("a good source");
    discovery.refresh(Instant::now());
    let endpoints = discovery.endpoints();
    let found: Vec<_> = endpoints
        .iter()
        .map(|it| (it.name(), it.authority.as_str()))
        .collect();
    let expected = [
        ("10.0.0.1:80".to_owned(), "a.example"),
        ("10.0.0.1:9000".to_owned(), "a.example:9000"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_target_without_an_address_beside_it_is_asked_for() {
    let server = NameServer::start(|question, _| {
        let asked = &question.questions[0];
        let answers = match asked.qtype {
            QTYPE::TYPE(TYPE::SRV) => vec![srv(9000, "a.example"), srv(9001, "gone.example")],
            QTYPE::TYPE(TYPE::A) if asked.qname.to_string() == "a.example" => {
                vec![v4("a.example", 4)]
            }
            _ => vec![],
        };
        vec![reply(question, answers, vec![])]
    });
    let (services, _) = server.ask(PATIENCE).expect("an answer");
    assert_eq!(
        (services.len(), &services[0].addresses),
        (1, &vec![address(4)])
    );
}

#[test]
fn a_forged_answer_does_not_keep_the_right_one_out() {
    let server = NameServer::start(|question, _| {
        let mut forged = reply(
            question,
            vec![srv(1, "evil.example")],
            vec![v4("evil.example", 66)],
        );
        forged[0] ^= 1;
        let good = reply(
            question,
            vec![srv(9000, "a.example")],
            vec![v4("a.example", 1)],
        );
        vec![b"garbage".to_vec(), forged, good]
    });
    let (services, _) = server.ask(PATIENCE).expect("an answer");
    assert_eq!(services[0].addresses, [address(1)]);
}

#[test]
fn what_does_not_fit_a_datagram_is_asked_for_over_tcp() {
    let server = NameServer::start(|question, is_tcp| {
        if !is_tcp {
            return vec![truncated(question)];
        }
        let answers = (0..256)
            .map(|number| srv(9000 + number, "a.example"))
            .collect();
        vec![reply(question, answers, vec![v4("a.example", 1)])]
    });
    let (services, _) = server.ask(PATIENCE).expect("an answer");
    assert_eq!(services.len(), 256);
    // Cut there too.
    let server = NameServer::start(|question, _| vec![truncated(question)]);
    let error = server.ask(PATIENCE).expect_err("never whole");
    assert!(
        error.ends_with("the name server's answer is cut"),
        "{error}"
    );
}

#[test]
fn a_silent_server_does_not_stretch_the_deadline() {
    let server = NameServer::start(|_, _| vec![]);
    let began = Instant::now();
    let error = server.ask(SHORT).expect_err("no answer");
    assert!(error.ends_with("no answer in time"), "{error}");
    assert!(began.elapsed() >= SHORT && began.elapsed() < PATIENCE);
}

#[test]
fn why_there_is_no_service_is_told() {
    let none = NameServer::start(|question, _| vec![reply(question, vec![], vec![])]);
    assert_eq!(
        none.ask(PATIENCE),
        Err("the name has no SRV records".to_owned())
    );
    // RFC 2782: the service is decidedly not there.
    let root = NameServer::start(|question, _| vec![reply(question, vec![srv(0, "")], vec![])]);
    assert_eq!(
        root.ask(PATIENCE),
        Err("the name has no SRV records".to_owned())
    );
    let garbage = NameServer::start(|_, _| vec![vec![0xff; 300]]);
    let error = garbage.ask(SHORT).expect_err("no answer");
    let expected = format!("{}: the name server answers another question", garbage.0);
    assert_eq!(error, expected);
    let huge = NameServer::start(|_, _| vec![vec![0; 9000]]);
    let error = huge.ask(SHORT).expect_err("no answer");
    assert!(error.starts_with(&huge.0.to_string()), "{error}");
}

#[test]
fn the_systems_name_servers_are_read() {
    let read = |text: &str| -> Vec<String> {
        name_servers(text).iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        read("# x\nsearch a\nnameserver 10.0.0.1\nnameserver\t::1\nnameserver fe80::1%eth0\n"),
        ["10.0.0.1:53", "[::1]:53"]
    );
    let many = "nameserver 10.0.0.1\n".repeat(9);
    assert_eq!(read(&many).len(), 3);
    assert_eq!(read(""), ["127.0.0.1:53"]);
}
