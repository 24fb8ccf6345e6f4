//! What `str` does not do in every version of Rust that this crate takes.

/// The longest beginning of a text that has at most `most` bytes and does not end within a character.
pub(crate) fn beginning(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_ends_between_two_characters() {
        for (most, expected) in [
            (0, ""),
            (1, "a"),
            (2, "a"),
            (3, "aü"),
            (6, "aü"),
            (7, "aü\u{1f6a2}"),
        ] {
            assert_eq!(beginning("aü\u{1f6a2}", most), expected, "{most}");
        }
        assert_eq!(beginning("", 5), "");
    }
}
