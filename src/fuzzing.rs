//! What must hold for every input, for the fuzz targets and the property tests.

use crate::frontend::body::Body;
use crate::frontend::head::{self, Framing, Head, Progress, RAW_PREFIX};
use crate::frontend::refusal::Refusal;

const MAX_HEAD: usize = 2048;
const MAX_TRAILERS: usize = 256;

/// Any bytes as a head.
///
/// # Panics
///
/// When an invariant of the head parser doesn't hold.
pub fn head(data: &[u8]) {
    let whole = head::parse(data, MAX_HEAD, &mut Progress::default());
    if let Ok(Some((used, head))) = &whole {
        assert!(*used <= data.len() && *used <= MAX_HEAD + 4);
        check_canonical(head);
        assert!(head.canonical().len() <= 3 * used + 100 * RAW_PREFIX.len() + 32);
    }

    let mut progress = Progress::default();
    let dripped = (0..=data.len())
        .map(|end| head::parse(&data[..end], MAX_HEAD, &mut progress))
        .find(|result| !matches!(result, Ok(None)))
        .unwrap_or(Ok(None));
    match (whole, dripped) {
        // An error in an unfinished head may be found later when it drips in.
        (Err(_), Err(_) | Ok(None)) => {}
        (whole, dripped) => assert_eq!(whole, dripped),
    }
}

/// Any bytes as a body: two bytes choose framing and limit, the rest is the input.
///
/// # Panics
///
/// When an invariant of the body decoder doesn't hold.
pub fn body(data: &[u8]) {
    let &[framing, max_body, ref input @ ..] = data else {
        return;
    };
    let max_body = usize::from(max_body);
    let framing = if framing < 192 {
        Framing::Chunked
    } else {
        Framing::Length(u64::from(framing - 192) * 5)
    };

    let (whole, whole_out) = decode(framing, max_body, input.chunks(usize::MAX));
    let (dripped, dripped_out) = decode(framing, max_body, input.chunks(1));
    assert_eq!(whole, dripped);
    assert_eq!(whole_out, dripped_out);
    assert!(whole_out.len() <= max_body);
    assert!(
        dripped_out.capacity() <= (2 * input.len()).max(8),
        "{}",
        dripped_out.capacity()
    );
}

fn decode<'a>(
    framing: Framing,
    max_body: usize,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Result<(usize, bool), Refusal>, Vec<u8>) {
    let mut out = Vec::new();
    let mut body = match Body::new(framing, max_body, MAX_TRAILERS) {
        Ok(body) => body,
        Err(refusal) => return (Err(refusal), out),
    };
    let mut total = 0;
    let mut complete = matches!(body.decode(&[], &mut out), Ok((0, true)));
    for piece in pieces {
        if complete {
            break;
        }
        match body.decode(piece, &mut out) {
            Ok((used, done)) => {
                assert!(used == piece.len() || done);
                total += used;
                complete = done;
            }
            Err(refusal) => return (Err(refusal), out),
        }
    }
    (Ok((total, complete)), out)
}

/// Reads a canonical head as `tiny_http` does.
fn check_canonical(head: &Head) {
    let text = str::from_utf8(head.canonical()).expect("a canonical head is ASCII");
    let mut lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(lines.pop(), Some(""), "the last line is ended");
    assert!(
        text.bytes()
            .all(|byte| byte.is_ascii_graphic() || b" \t\r\n".contains(&byte))
    );
    assert!(
        lines
            .iter()
            .all(|line| !line.is_empty() && !line.contains(['\r', '\n']))
    );

    let words: Vec<&str> = lines.remove(0).split(' ').collect();
    assert!(words.len() == 3 && words[2] == "HTTP/1.1", "{words:?}");
    assert!(!words[0].is_empty() && words[0].bytes().all(head::is_token_byte));
    assert_eq!(words[1], head.target());
    assert!(words[1].starts_with('/') || words[1] == "*");
    assert!(!words[1].contains('#'));

    for line in lines {
        let field: tiny_http::Header = line.parse().expect("tiny_http accepts each line");
        for acted_on in [
            "connection",
            "content-length",
            "transfer-encoding",
            "expect",
            "upgrade",
        ] {
            assert!(!field.field.equiv(acted_on), "{line}");
        }
        let name = field.field.as_str().as_str();
        let is_reserved = name
            .get(..9)
            .is_some_and(|prefix| prefix.eq_ignore_ascii_case("plimsoll-"));
        assert!(!is_reserved || name.starts_with(RAW_PREFIX), "{line}");
        assert_eq!(
            format!("{name}: {}", field.value),
            line,
            "nothing is trimmed"
        );
    }
}
