//! What the other side says, made fit for an error: the one place where a server's text is cleaned.

use crate::net::url::Secret;

/// Most characters of a server's text that an error holds.
const MOST: usize = 160;

/// The first line of a server's text: cut, and with a question mark for each character that is not plain text, so that
/// it cannot forge a line of a log or colour a terminal. Letters of any script are plain text.
///
/// `secret` is the password that the server was sent: a text that holds it is not shown at all.
pub(super) fn clean(text: &[u8], secret: Option<&Secret>) -> String {
    let secret = secret.map_or(&[][..], |secret| secret.reveal().as_bytes());
    let holds_it = |text: &[u8]| text.windows(secret.len()).any(|window| window == secret);
    if !secret.is_empty() && holds_it(text) {
        return "(not shown: it holds the password)".to_owned();
    }
    let text = String::from_utf8_lossy(text);
    let line = text.trim_start().lines().next().unwrap_or_default().trim();
    let mut characters = line.chars();
    let plain = |character: char| {
        let shown = character.is_alphanumeric() || character.is_ascii_graphic() || character == ' ';
        if shown { character } else { '?' }
    };
    let mut cleaned: String = characters.by_ref().take(MOST).map(plain).collect();
    if characters.next().is_some() {
        cleaned.push_str("...");
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_is_kept_and_it_is_plain_text() {
        assert_eq!(clean(b"-ERR no\r\n-ERR such\r\n", None), "-ERR no");
        assert_eq!(clean(b"\r\n  below\n", None), "below");
        assert_eq!(clean(b"a\x1b[31mred\x07\0b\tc", None), "a?[31mred??b?c");
        assert_eq!(
            clean("wei\u{202e}ß \u{200b}день".as_bytes(), None),
            "wei?ß ?день"
        );
        assert_eq!(clean(b"\xff\xfe", None), "??");
        assert_eq!(clean(b"", None), "");
    }

    #[test]
    fn a_long_text_is_cut() {
        let cut = clean("ж".repeat(100_000).as_bytes(), None);
        assert_eq!(cut.chars().count(), MOST + 3);
        assert!(cut.ends_with("ж..."));
        assert_eq!(clean(&[b'x'; MOST], None).len(), MOST);
    }
}
