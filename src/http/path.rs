//! Paths as their reader means them: decoded, without dot segments and empty ones.
//!
//! Many targets name one resource. What is decided by a path must not depend on which of them a client chose.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A path decoded, without empty and dot segments, and so without a slash at its end: `/a//b/%2E./c/` is `/a/c`, and
/// the root is empty. A slash that was percent-encoded is one, as most who read paths take it.
pub(crate) fn resolved(path: &str) -> Cow<'_, [u8]> {
    let path = path.strip_suffix('/').unwrap_or(path);
    if is_plain(path) {
        return Cow::Borrowed(path.as_bytes());
    }
    let decoded: Cow<[u8]> = percent_decode_str(path).into();
    let mut resolved = Vec::with_capacity(decoded.len());
    for segment in decoded.split(|&byte| byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                let parent = resolved.iter().rposition(|&byte| byte == b'/');
                resolved.truncate(parent.unwrap_or(0));
            }
            _ => {
                resolved.push(b'/');
                resolved.extend_from_slice(segment);
            }
        }
    }
    Cow::Owned(resolved)
}

/// Whether there is nothing to decode or to resolve in a path without a slash at its end.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    !bytes.contains(&b'%')
        && !bytes.ends_with(b"/")
        && !bytes.windows(2).any(|pair| matches!(pair, b"//" | b"/."))
}

/// Whether a resolved path is a resolved prefix, or below it: `/a/b` is below `/a`, and `/ab` is not.
pub(crate) fn is_under(path: &[u8], prefix: &[u8]) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_path_is_the_same_path() {
        for (path, expected) in [
            ("/", ""),
            ("//", ""),
            ("/.", ""),
            ("/..", ""),
            ("/a", "/a"),
            ("/a/", "/a"),
            ("/a//", "/a"),
            ("/a/b", "/a/b"),
            ("//a///b/", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../a", "/a"),
            ("/a/..", ""),
            ("/a/b/..", "/a"),
            ("/%61", "/a"),
            ("/x/%2e%2E/a", "/a"),
            ("/x%2f..%2Fa", "/a"),
            ("/a/.b", "/a/.b"),
            ("/a/..b", "/a/..b"),
            ("/a.b", "/a.b"),
            ("/%", "/%"),
            ("/%2", "/%2"),
            ("/%252e", "/%2e"),
            ("/a;b", "/a;b"),
        ] {
            let resolved = resolved(path);
            assert_eq!(str::from_utf8(&resolved), Ok(expected), "{path}");
        }
    }

    #[test]
    fn a_usual_path_is_not_copied() {
        for path in ["/", "/a", "/a/b.c/", "/a/b.c/..d"] {
            let is_copied = matches!(resolved(path), Cow::Owned(_));
            assert_eq!(is_copied, path.contains("/."), "{path}");
        }
    }

    #[test]
    fn a_prefix_ends_where_a_segment_does() {
        for (path, prefix, under) in [
            ("/a", "/a", true),
            ("/a/b", "/a", true),
            ("/ab", "/a", false),
            ("/", "/a", false),
            ("/b/a", "/a", false),
            ("/a", "/", true),
            ("/", "/", true),
            ("/A", "/a", false),
        ] {
            let found = is_under(&resolved(path), &resolved(prefix));
            assert_eq!(found, under, "{path} {prefix}");
        }
    }
}
