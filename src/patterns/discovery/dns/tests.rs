//! What this crate reads, another library has written, and the other way round.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use simple_dns::rdata::{A, AAAA, CNAME, RData, SRV};
use simple_dns::{
    CLASS, Label, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

use super::message::{HEADER, MOST_RECORDS};
use super::*;

const NAME: &str = "_http._tcp.api.example";

fn name(text: &str) -> Name<'_> {
    Name::new_unchecked(text)
}

fn qtype(kind: Kind) -> QTYPE {
    QTYPE::TYPE(kind.number().into())
}

fn record<'a>(owner: &'a str, ttl: u32, rdata: RData<'a>) -> ResourceRecord<'a> {
    ResourceRecord::new(name(owner), CLASS::IN, ttl, rdata)
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> RData<'_> {
    RData::SRV(SRV {
        priority,
        weight,
        port,
        target: name(target),
    })
}

fn v4(last: u8) -> RData<'static> {
    let address = Ipv4Addr::new(10, 0, 0, last).into();
    RData::A(A { address })
}

/// An answer to a question for services.
fn reply<'a>(owner: &'a str, answers: Vec<ResourceRecord<'a>>) -> Packet<'a> {
    let mut packet = Packet::new_reply(7);
    packet.questions.push(Question::new(
        name(owner),
        qtype(Kind::Srv),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    packet.answers = answers;
    packet
}

fn bytes(packet: &Packet<'_>) -> Vec<u8> {
    packet.build_bytes_vec_compressed().expect("a message")
}

fn read(packet: &Packet<'_>) -> Result<Answer, DnsError> {
    answer(&bytes(packet), 7, NAME, Kind::Srv)
}

#[test]
fn a_question_asks_for_one_name_and_for_small_datagrams() {
    let message = question(513, NAME, Kind::Srv).expect("a good name");
    let packet = Packet::parse(&message).expect("a message");
    assert_eq!(packet.id(), 513);
    assert!(packet.has_flags(PacketFlag::RECURSION_DESIRED));
    assert!(!packet.has_flags(PacketFlag::RESPONSE));
    assert_eq!(packet.questions.len(), 1);
    assert_eq!(packet.questions[0].qname.to_string(), NAME);
    assert_eq!(packet.questions[0].qtype, QTYPE::TYPE(TYPE::SRV));
    assert_eq!(packet.opt().map(|opt| opt.udp_packet_size), Some(UDP_SIZE));
    let long = format!("{}.example", "x".repeat(64));
    assert_eq!(question(1, &long, Kind::V4), Err(DnsError::BadName));
}

#[test]
fn services_come_with_their_addresses() {
    let mut packet = reply(
        NAME,
        vec![
            record("_HTTP._tcp.API.example", 30, srv(1, 5, 9000, "One.example")),
            record(NAME, 20, srv(2, 0, 9001, "two.example")),
            record("other.example", 1, srv(0, 0, 1, "three.example")),
        ],
    );
    let address = Ipv6Addr::LOCALHOST.into();
    packet.additional_records = vec![
        record("one.example", 5, v4(1)),
        record("ONE.example", 5, RData::AAAA(AAAA { address })),
        record("three.example", 5, v4(3)),
    ];
    let answer = read(&packet).expect("a good answer");
    let service = |priority, weight, port, target: &str, addresses| Srv {
        priority,
        weight,
        port,
        target: target.to_owned(),
        addresses,
    };
    let one = vec![
        Ipv4Addr::new(10, 0, 0, 1).into(),
        Ipv6Addr::LOCALHOST.into(),
    ];
    assert_eq!(
        answer.services,
        [
            service(1, 5, 9000, "one.example", one),
            service(2, 0, 9001, "two.example", vec![])
        ]
    );
    assert_eq!(answer.ttl, Duration::from_secs(20));
}

#[test]
fn a_ttl_is_held_between_a_second_and_a_minute() {
    for (ttl, held) in [(0, 1), (1, 1), (42, 42), (60, 60), (u32::MAX, 60)] {
        let packet = reply(NAME, vec![record(NAME, ttl, srv(0, 0, 1, "a"))]);
        assert_eq!(
            read(&packet).map(|answer| answer.ttl),
            Ok(Duration::from_secs(held))
        );
    }
    let empty = read(&reply(NAME, vec![])).expect("a good answer");
    assert!(empty.services.is_empty());
}

#[test]
fn addresses_are_read() {
    let mut packet = reply("one.example", vec![record("one.example", 9, v4(1))]);
    packet.questions[0].qtype = qtype(Kind::V4);
    let found = answer(&bytes(&packet), 7, "one.example", Kind::V4).expect("a good answer");
    assert_eq!(found.addresses, [IpAddr::from(Ipv4Addr::new(10, 0, 0, 1))]);
    let other = answer(&bytes(&packet), 7, "one.example", Kind::V6);
    assert_eq!(other, Err(DnsError::OtherQuestion));
}

fn alias<'a>(from: &'a str, to: &'a str) -> ResourceRecord<'a> {
    record(from, 9, RData::CNAME(CNAME(name(to))))
}

#[test]
fn aliases_are_followed_to_their_end_unless_they_have_none() {
    let found = read(&reply(
        NAME,
        vec![
            record("c.example", 9, srv(0, 0, 80, "target.example")),
            alias("b.example", "c.example"),
            alias(NAME, "b.example"),
        ],
    ));
    assert_eq!(
        found.map(|answer| answer.services.len()),
        Ok(1),
        "1034 3.6.2"
    );
    for aliases in [
        vec![alias(NAME, NAME)],
        vec![alias(NAME, "b.example"), alias("b.example", NAME)],
    ] {
        assert_eq!(read(&reply(NAME, aliases)), Err(DnsError::EndlessAlias));
    }
    let names: Vec<_> = (0..=MOST_ALIASES + 1)
        .map(|number| format!("n{number}.example"))
        .collect();
    let mut chain = vec![alias(NAME, &names[0])];
    chain.extend(names.windows(2).map(|pair| alias(&pair[0], &pair[1])));
    assert_eq!(read(&reply(NAME, chain)), Err(DnsError::EndlessAlias));
}

#[test]
fn an_answer_to_another_question_is_refused() {
    let good = || reply(NAME, vec![record(NAME, 9, srv(0, 0, 80, "a.example"))]);
    assert!(read(&good()).is_ok());
    let mut other_id = good();
    other_id.set_id(8);
    let mut a_question = good();
    a_question.remove_flags(PacketFlag::RESPONSE);
    let mut other_type = good();
    other_type.questions[0].qtype = qtype(Kind::V4);
    let mut none = good();
    none.questions.clear();
    let mut two = good();
    two.questions.push(two.questions[0].clone());
    let other_name = reply(
        "evil.example",
        vec![record(NAME, 9, srv(0, 0, 80, "a.example"))],
    );
    for packet in [other_id, a_question, other_type, none, two, other_name] {
        assert_eq!(read(&packet), Err(DnsError::OtherQuestion), "{packet:?}");
    }
}

#[test]
fn a_server_that_does_not_answer_says_why() {
    for (code, error) in [
        (RCODE::NameError, DnsError::NoSuchName),
        (RCODE::ServerFailure, DnsError::Refused(2)),
        (RCODE::Refused, DnsError::Refused(5)),
    ] {
        let mut packet = reply(NAME, vec![]);
        *packet.rcode_mut() = code;
        assert_eq!(read(&packet), Err(error));
        packet.questions.clear();
        assert_eq!(read(&packet), Err(error), "without the question");
    }
    let mut cut = reply(NAME, vec![]);
    cut.set_flags(PacketFlag::TRUNCATION);
    assert_eq!(read(&cut), Err(DnsError::Truncated));
}

#[test]
fn a_malformed_answer_is_refused_and_a_promise_of_records_allocates_nothing() {
    let good = bytes(&reply(
        NAME,
        vec![record(NAME, 9, srv(0, 0, 80, "a.example"))],
    ));
    for end in 0..good.len() {
        let cut = answer(&good[..end], 7, NAME, Kind::Srv);
        assert_eq!(cut, Err(DnsError::Malformed), "{end}");
    }
    for (at, error) in [
        (4, DnsError::OtherQuestion),
        (6, DnsError::Malformed),
        (8, DnsError::Malformed),
        (10, DnsError::Malformed),
    ] {
        let mut promise = good.clone();
        promise[at] = 0xff;
        assert_eq!(
            answer(&promise, 7, NAME, Kind::Srv),
            Err(error),
            "count at {at}"
        );
    }
    let many = (0..=MOST_RECORDS).map(|_| record(NAME, 9, v4(1))).collect();
    assert_eq!(read(&reply(NAME, many)), Err(DnsError::TooManyRecords));
}

#[test]
fn a_target_that_cannot_stand_in_a_host_field_is_refused() {
    for label in ["a b", "a\r\nX: y", "a/b", "\u{e9}", "a:b"] {
        let target = Name::new_with_labels(&[Label::new_unchecked(label.as_bytes())]);
        let rdata = RData::SRV(SRV {
            priority: 0,
            weight: 0,
            port: 80,
            target,
        });
        let packet = reply(NAME, vec![record(NAME, 9, rdata)]);
        assert_eq!(read(&packet), Err(DnsError::Malformed), "{label:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        mut message in prop::collection::vec(any::<u8>(), 0..300),
        is_like_a_reply in any::<bool>(),
    ) {
        if is_like_a_reply && message.len() >= HEADER {
            message[..HEADER].copy_from_slice(&[0, 7, 0x80, 0, 0, 1, 0, 3, 0, 0, 0, 1]);
        }
        let _ = answer(&message, 7, NAME, Kind::Srv);
    }

    #[test]
    fn no_flipped_byte_makes_it_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut packet = reply(NAME, vec![
            alias(NAME, "b.example"),
            record("b.example", 9, srv(0, 0, 80, "a.example")),
        ]);
        packet.additional_records.push(record("a.example", 9, v4(1)));
        let mut message = bytes(&packet);
        let at = at.index(message.len());
        message[at] = byte;
        let _ = answer(&message, 7, NAME, Kind::Srv);
    }
}

/// An answer to [`NAME`], made of bytes: its question, and one record with this owner.
fn raw(owner: &[u8]) -> Vec<u8> {
    let mut message = question(7, NAME, Kind::Srv).expect("a good name");
    // Without the record about the message, which is its last 11 bytes.
    message.truncate(message.len() - 11);
    message[2..HEADER].copy_from_slice(&[0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
    message.extend_from_slice(owner);
    message.extend_from_slice(&[0, 33, 0, 1, 0, 0, 0, 9, 0, 9, 0, 0, 0, 0, 0, 80, 1, b'a', 0]);
    message
}

#[test]
fn a_name_goes_on_at_an_earlier_place_only() {
    let found = |owner: &[u8]| answer(&raw(owner), 7, NAME, Kind::Srv);
    // The question's name stands behind the header.
    let services = |owner: &[u8]| found(owner).map(|answer| answer.services.len());
    assert_eq!(services(&[0xc0, 12]), Ok(1));
    assert_eq!(
        services(b"\x05_http\xc0\x12"),
        Ok(1),
        "from its second label on"
    );
    assert_eq!(services(b"\x01x\xc0\x0c"), Ok(0), "another name");
    let here = u8::try_from(raw(&[]).len() - 19).expect("it is short");
    for at in [here, here + 1, 0xff] {
        assert_eq!(services(&[0xc0, at]), Err(DnsError::Malformed), "{at}");
    }
    assert_eq!(
        services(&[0x80, 12]),
        Err(DnsError::Malformed),
        "no such label"
    );
    assert_eq!(
        services(&[0x40, 12]),
        Err(DnsError::Malformed),
        "no such label"
    );
}

#[test]
fn a_name_of_pointers_without_end_is_refused() {
    let mut message = raw(&[0xc0, 12]);
    // A record of no known type, whose bytes are pointers, each to the one before.
    let first = message.len() + 11;
    message.extend_from_slice(&[0, 0xff, 0, 0, 1, 0, 0, 0, 9, 4, 0]);
    for number in 0..512 {
        let to = if number == 0 {
            12
        } else {
            first + 2 * (number - 1)
        };
        let [high, low] = u16::try_from(to).expect("it is short").to_be_bytes();
        message.extend_from_slice(&[high | 0xc0, low]);
    }
    message[7] = 3;
    for (pointer, is_read) in [(first + 100, true), (first + 1000, false)] {
        let [high, low] = u16::try_from(pointer).expect("it is short").to_be_bytes();
        let record = [high | 0xc0, low, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 1];
        let message = [&message[..], &record].concat();
        let found = answer(&message, 7, NAME, Kind::Srv);
        assert_eq!(found.is_ok(), is_read, "{found:?}");
    }
}

#[test]
fn a_dot_within_a_label_is_no_end_of_it() {
    let owner = b"\x0a_http._tcp\x03api\x07example\x00";
    let found = answer(&raw(owner), 7, NAME, Kind::Srv).expect("a good answer");
    assert_eq!(found.services, []);
}

#[test]
fn a_record_that_is_longer_or_shorter_than_what_it_holds_is_refused() {
    let good = raw(&[0xc0, 12]);
    let length = good.len() - 10;
    for said in [0, 8, 10] {
        let mut message = good.clone();
        message[length] = said;
        message.push(0);
        let found = answer(&message, 7, NAME, Kind::Srv);
        assert_eq!(found, Err(DnsError::Malformed), "{said}");
    }
}

#[test]
fn a_code_may_go_on_in_the_record_about_the_message() {
    let mut message = question(7, NAME, Kind::Srv).expect("a good name");
    message[2] |= 0x80;
    // Its TTL begins with the upper bits: 16, a version that the server does not have (RFC 6891 section 9).
    let at = message.len() - 6;
    message[at] = 1;
    let found = answer(&message, 7, NAME, Kind::Srv);
    assert_eq!(found, Err(DnsError::Refused(16)));
}
