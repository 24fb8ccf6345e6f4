use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::http::refusal::Refusal;

const MAX_BODY: usize = 1024;
const MAX_TRAILERS: usize = 64;

/// Decodes `input` in pieces of `piece` bytes: the data, the bytes used, and whether the body is complete.
fn decode(
    framing: Framing,
    input: &[u8],
    piece: usize,
) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let mut body = BodyDecoder::new(framing, MAX_BODY, MAX_TRAILERS)?;
    let (mut out, mut total) = (Vec::new(), 0);
    let (_, mut complete) = body.decode(&[], &mut out)?;
    for piece in input.chunks(piece) {
        if complete {
            break;
        }
        let (used, done) = body.decode(piece, &mut out)?;
        total += used;
        complete = done;
    }
    Ok((out, total, complete))
}

#[test]
fn chunked_bodies_decode_to_their_data() {
    for (section, input, data) in [
        ("9112 7.1", "0\r\n\r\n", ""),
        ("9112 7.1", "5\r\nhello\r\n0\r\n\r\n", "hello"),
        (
            "9112 7.1",
            "5\r\nhello\r\n6\r\n world\r\n000\r\n\r\n",
            "hello world",
        ),
        (
            "9112 7.1",
            "0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n",
            "hello",
        ),
        (
            "9112 7.1",
            "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "01234567890123456789",
        ),
        ("9112 7.1", "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n"),
        ("9112 7.1.1", "1;a\r\nx\r\n0;a=b;c=\"d\"\r\n\r\n", "x"),
        ("9112 7.1.1", "1; a; b=c\r\nx\r\n0\r\n\r\n", "x"),
        ("9112 7.1.1", "1 ;\ta = b ; c\r\nx\r\n0\r\n\r\n", "x"),
        ("9112 7.1.1", "1;a=\"\\\"; \\\\é\";b\r\nx\r\n0\r\n\r\n", "x"),
        (
            "9112 7.1.2",
            "1\r\nx\r\n0\r\na: b\r\nc:\r\nd: \té\t\r\n\r\n",
            "x",
        ),
    ] {
        for piece in [1, 2, 3, usize::MAX] {
            let input = [input.as_bytes(), b"GET /"].concat();
            let expected = (data.as_bytes().to_vec(), input.len() - 5, true);
            assert_eq!(
                decode(Framing::Chunked, &input, piece),
                Ok(expected),
                "{section}"
            );
        }
    }
}

#[test]
fn chunked_bodies_that_break_the_syntax_are_refused() {
    for (section, input) in [
        ("9112 7.1", "\r\n"),
        ("9112 7.1", ";a\r\n"),
        ("9112 7.1", " 1\r\n"),
        ("9112 7.1", "+1\r\n"),
        ("9112 7.1", "-1\r\n"),
        ("9112 7.1", "0x1\r\n"),
        ("9112 7.1", "1_0\r\n"),
        ("9112 7.1", "g\r\n"),
        ("9112 7.1", "1\n"),
        ("9112 7.1", "1\rx"),
        ("9112 7.1", "1 \r\n"),
        ("9112 7.1", "1 x\r\n"),
        ("9112 7.1", "00000000000000001\r\n"),
        ("9112 7.1", "FFFFFFFFFFFFFFFF0\r\n"),
        ("9112 7.1", "1\r\nxy"),
        ("9112 7.1", "1\r\nx\n"),
        ("9112 7.1", "1\r\nx\r\r"),
        ("9112 7.1", "1\r\nx0\r\n"),
        ("9112 7.1", "1\r\nx\r\n\r\n"),
        ("9112 7.1.1", "1;\r\n"),
        ("9112 7.1.1", "1;;a\r\n"),
        ("9112 7.1.1", "1;=a\r\n"),
        ("9112 7.1.1", "1;a=\r\n"),
        ("9112 7.1.1", "1;a=b=c\r\n"),
        ("9112 7.1.1", "1;a b\r\n"),
        ("9112 7.1.1", "1;a \r\n"),
        ("9112 7.1.1", "1;a=b \r\n"),
        ("9112 7.1.1", "1;a[\r\n"),
        ("9112 7.1.1", "1;a\n"),
        ("9112 7.1.1", "1;a=b\rc\r\n"),
        ("9112 7.1.1", "1;a=\"b\r\n"),
        ("9112 7.1.1", "1;a=\"b\\\r\n"),
        ("9112 7.1.1", "1;a=\"b\"c\r\n"),
        ("9112 7.1.1", "1;a=\"\x7f\"\r\n"),
        ("9112 7.1.2", "0\r\na\r\n"),
        ("9112 7.1.2", "0\r\n: b\r\n"),
        ("9112 7.1.2", "0\r\na : b\r\n"),
        ("9112 7.1.2", "0\r\na: b\n"),
        ("9112 7.1.2", "0\r\na: b\rc"),
        ("9112 7.1.2", "0\r\na: \0"),
        ("9112 7.1.2", "0\r\na: b\r\n c\r\n"),
        ("9112 7.1.2", "0\r\n\n"),
        ("9112 7.1.2", "0\r\n\r\r"),
    ] {
        for piece in [1, usize::MAX] {
            let error = decode(Framing::Chunked, input.as_bytes(), piece)
                .expect_err(&format!("{section}: {input:?}"));
            let refusal = Refusal::from(error);
            assert_eq!(refusal.status(), 400, "{section}: {input:?}");
            let text = refusal.text();
            assert_eq!(text.find('\n'), Some(text.len() - 1), "{text:?}");
        }
    }
}

#[test]
fn unfinished_bodies_are_not_complete() {
    for input in [
        "",
        "0",
        "5\r\nhel",
        "5\r\nhello\r\n",
        "0\r\n",
        "0\r\na: b\r\n",
        "0\r\n\r",
        "0;a=\"b",
    ] {
        let result = decode(Framing::Chunked, input.as_bytes(), usize::MAX);
        assert!(
            matches!(result, Ok((_, used, false)) if used == input.len()),
            "{input:?}: {result:?}"
        );
    }
}

#[test]
fn a_body_with_a_length_ends_where_it_says() {
    for (section, framing, input, data, complete) in [
        ("9112 6.3", Framing::None, "GET", "", true),
        ("9112 6.3", Framing::Length(0), "GET", "", true),
        ("9112 6.2", Framing::Length(5), "helloGET", "hello", true),
        ("9112 6.2", Framing::Length(5), "hell", "hell", false),
    ] {
        for piece in [1, 3, usize::MAX] {
            let expected = (data.as_bytes().to_vec(), data.len(), complete);
            assert_eq!(
                decode(framing, input.as_bytes(), piece),
                Ok(expected),
                "{section}"
            );
        }
    }
}

#[test]
fn a_body_over_the_limit_is_refused_before_its_data() {
    let refused = |framing, input: &str| decode(framing, input.as_bytes(), usize::MAX).err();
    for (section, framing, input) in [
        ("9110 15.5.14", Framing::Length(1025), ""),
        ("9110 15.5.14", Framing::Length(u64::MAX), ""),
        ("9110 15.5.14", Framing::Chunked, "401\r"),
        ("9110 15.5.14", Framing::Chunked, "401;"),
        ("9110 15.5.14", Framing::Chunked, "FFFFFFFFFFFFFFFF\r"),
        ("9110 15.5.14", Framing::Chunked, "1\r\nx\r\n400\r"),
        (
            "9110 15.5.14",
            Framing::Chunked,
            "1\r\nx\r\nFFFFFFFFFFFFFFFF\r",
        ),
    ] {
        assert_eq!(
            refused(framing, input),
            Some(BodyError::TooLarge),
            "{section}: {input:?}"
        );
    }
    assert_eq!(refused(Framing::Length(1024), ""), None);
    assert_eq!(
        refused(
            Framing::Chunked,
            &format!("3ff\r\n{}\r\n1\r\nx\r\n0\r\n\r\n", "x".repeat(1023))
        ),
        None
    );
}

#[test]
fn extensions_are_bounded_per_chunk_and_in_total() {
    let chunk = |extension: usize| format!("1;{}\r\nx\r\n", "a".repeat(extension - 1));
    let refused = |input: String| decode(Framing::Chunked, input.as_bytes(), usize::MAX).err();
    assert_eq!(refused(chunk(MAX_EXTENSIONS_PER_CHUNK)), None);
    assert_eq!(
        refused(chunk(MAX_EXTENSIONS_PER_CHUNK + 1)),
        Some(BodyError::LongExtension),
        "9112 7.1.1"
    );
    let most = chunk(MAX_EXTENSIONS_PER_CHUNK).repeat(MAX_EXTENSIONS / MAX_EXTENSIONS_PER_CHUNK);
    assert_eq!(refused(most.clone() + "1\r\nx\r\n"), None);
    assert_eq!(
        refused(most + "1;a"),
        Some(BodyError::LongExtension),
        "9112 7.1.1"
    );
}

#[test]
fn trailers_are_bounded_in_total() {
    let refused = |input: String| decode(Framing::Chunked, input.as_bytes(), usize::MAX).err();
    // Two fields of 32 bytes each, line ends included.
    let field = format!("a:{}\r\n", "b".repeat(28));
    assert_eq!(refused(format!("0\r\n{field}{field}\r\n")), None);
    assert_eq!(
        refused(format!("0\r\n{field}{field}a")),
        Some(BodyError::LongTrailers),
        "9112 7.1.2"
    );
}

#[test]
fn a_body_of_one_byte_chunks_keeps_nothing_but_its_data() {
    let input = "1\r\nx\r\n".repeat(MAX_BODY) + "0\r\n\r\n";
    let (data, used, complete) = decode(Framing::Chunked, input.as_bytes(), 7).unwrap();
    assert_eq!(
        (data, used, complete),
        (vec![b'x'; MAX_BODY], input.len(), true)
    );
}

#[test]
fn a_promised_length_allocates_nothing() {
    let mut body = BodyDecoder::new(Framing::Length(u64::MAX / 2), usize::MAX, 0).unwrap();
    let mut out = Vec::new();
    assert_eq!(body.decode(b"", &mut out), Ok((0, false)));
    assert_eq!(out.capacity(), 0);
    assert_eq!(body.decode(b"x", &mut out), Ok((1, false)));
    assert!(out.capacity() <= 8);
}

/// Bytes that are nearly a chunked body.
fn nearly_chunked() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[a-z]{1,9}".prop_map(|data| format!("{:x}\r\n{data}\r\n", data.len())),
        1 => "[a-z]{1,9}".prop_map(|data| format!("{:x};a=\"b\"; c\r\n{data}\r\n", data.len())),
        1 => Just("0\r\n".to_owned()),
        1 => Just("\r\n".to_owned()),
        1 => "[a-z]{1,3}: [a-z]{0,3}\r\n",
        1 => "[ -~\r\n]{0,3}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn any_bytes_keep_the_invariants(data in prop::collection::vec(any::<u8>(), 0..200)) {
        crate::internals::invariants::body(&data);
    }

    #[test]
    fn nearly_valid_bodies_keep_the_invariants(framing in 0_u8..200, data in nearly_chunked()) {
        crate::internals::invariants::body(&[&[framing, 30], data.as_slice()].concat());
    }

    #[test]
    fn any_split_gives_the_same_result(data in nearly_chunked(), cut in any::<prop::sample::Index>()) {
        let whole = decode(Framing::Chunked, &data, usize::MAX);
        let (first, second) = data.split_at(cut.index(data.len() + 1));
        let mut body = BodyDecoder::new(Framing::Chunked, MAX_BODY, MAX_TRAILERS).unwrap();
        let mut out = Vec::new();
        let split = body.decode(first, &mut out).and_then(|(used, complete)| {
            if complete {
                return Ok((used, complete));
            }
            body.decode(second, &mut out).map(|(more, complete)| (used + more, complete))
        });
        prop_assert_eq!(whole, split.map(|(used, complete)| (out, used, complete)));
    }

    #[test]
    fn what_is_encoded_is_decoded(chunks in prop::collection::vec("[a-z]{1,20}", 0..20), piece in 1_usize..9) {
        let mut input = String::new();
        for data in &chunks {
            write!(input, "{:X}\r\n{data}\r\n", data.len()).unwrap();
        }
        input += "0\r\n\r\n";
        let expected = (chunks.concat().into_bytes(), input.len(), true);
        prop_assert_eq!(decode(Framing::Chunked, input.as_bytes(), piece), Ok(expected));
    }
}
