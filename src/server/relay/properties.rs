//! Replies and tunnels that come and go in pieces of any size.

use proptest::prelude::*;

use crate::internals::invariants;

/// Bytes that are nearly a reply whose body is still to come.
fn nearly_a_reply() -> impl Strategy<Value = Vec<u8>> {
    let head = prop_oneof![
        4 => Just("Transfer-Encoding: chunked"),
        2 => Just("Content-Length: 9"),
        1 => Just("Content-Length: 300"),
        1 => Just("Transfer-Encoding: chunked\r\nConnection: close"),
        1 => Just("Content-Length: 9\r\nKeep-Alive: timeout=1"),
        1 => Just("X: y"),
    ];
    let piece = prop_oneof![
        4 => Just("3\r\nabc\r\n".to_owned()),
        2 => "12;a=b\r\n[ -~]{18}\r\n",
        2 => Just("0\r\n\r\n".to_owned()),
        1 => Just("0\r\nX: y\r\nDigest: 1\r\n\r\n".to_owned()),
        2 => "[ -~]{0,300}",
        1 => "[0-9a-f]{1,3}\r\n",
    ];
    (head, prop::collection::vec(piece, 0..6)).prop_map(|(head, pieces)| {
        let body = pieces.concat();
        format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").into_bytes()
    })
}

/// What is sent, and in which steps.
fn script(options: u8, steps: &[u8], input: &[u8]) -> Vec<u8> {
    let count = u8::try_from(steps.len()).expect("few steps");
    [&[options, count], steps, input].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes_are_relayed_as_they_come_or_visibly_cut(data in prop::collection::vec(any::<u8>(), 0..300)) {
        invariants::relay(&data);
    }

    #[test]
    fn nearly_a_reply_is_relayed_whole_or_visibly_cut(
        options in 0_u8..128,
        steps in prop::collection::vec(any::<u8>(), 0..60),
        input in nearly_a_reply(),
    ) {
        invariants::relay(&script(options, &steps, &input));
    }

    #[test]
    fn a_tunnel_carries_both_sides_in_any_steps(
        steps in prop::collection::vec(any::<u8>(), 0..60),
        input in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        invariants::relay(&script(128, &steps, &input));
    }
}
