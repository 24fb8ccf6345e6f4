//! The status page, for whoever opens a browser when something is wrong, and the report that it reads each second.
//!
//! The page is constant: what it shows it fetches from its own path with `.json` behind it.

mod json;

use std::borrow::Cow;

use super::Answer;
use crate::health::{Health, Snapshot};

/// Sent as it is. Compressed it would be 10 KiB instead of 28, but a client that takes no gzip would still have to be
/// served, by a decoder or a second copy; and it is fetched once a visit, by operators alone.
const PAGE: &str = include_str!("page.html");

/// The page may run its own script and style, known by their hashes, ask its own server, and nothing else. A test
/// computes the hashes, and prints them when the page has changed.
const POLICY: &str = concat!(
    "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; ",
    "frame-ancestors 'none'; ",
    "style-src 'sha256-3dbuy3VRryaWDNF7lu6DjUmBLBtvAIsa10uXdnwdem8='; ",
    "script-src 'sha256-nBbuz/aQ1BqPU1QDbo9kxCMcEFIbpq+mjI1P9wLYxMI='"
);

const HEADERS: &[(&str, &str)] = &[
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
];

/// The page.
pub(super) fn page() -> Answer {
    Answer {
        content_type: "text/html; charset=utf-8",
        body: Cow::Borrowed(PAGE.as_bytes()),
        no_store: true,
        headers: HEADERS,
        ..Answer::text("")
    }
}

/// What the page shows, with the samples after the number in `since=NUMBER` of the query, or all of them.
pub(super) fn json(now: &Snapshot, health: &Health, query: Option<&str>) -> Answer {
    let mut parts = query.unwrap_or_default().split('&');
    let after = parts.find_map(|part| part.strip_prefix("since=")?.parse().ok());
    Answer {
        headers: &HEADERS[1..],
        ..Answer::health(200, "application/json", json::status(now, health, after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    /// RFC 4648 section 4.
    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let bits = chunk
                .iter()
                .fold(0, |bits, &byte| bits << 8 | u32::from(byte));
            let bits = bits << (8 * (3 - chunk.len()));
            for digit in 0..4 {
                text.push(if digit <= chunk.len() {
                    DIGITS[(bits >> (18 - 6 * digit)) as usize & 63].into()
                } else {
                    '='
                });
            }
        }
        text
    }

    /// What is between the only tags of that name, which have no attributes.
    fn inside(tag: &str) -> &'static str {
        let open = format!("<{tag}");
        assert_eq!(PAGE.matches(&open).count(), 1);
        let (_, inside) = PAGE.split_once(&format!("{open}>")).unwrap();
        inside.split_once(&format!("</{tag}>")).unwrap().0
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn the_policy_names_the_pages_own_style_and_script_and_no_others() {
        for tag in ["style", "script"] {
            let hash = base64(&Sha256::digest(inside(tag)));
            let directive = format!("{tag}-src 'sha256-{hash}'");
            let mut directives = POLICY.split(';').map(str::trim);
            assert!(
                directives.any(|found| found == directive),
                "the {tag} has changed: write {directive} into the policy"
            );
        }
        assert_eq!(POLICY.matches("sha256-").count(), 2);
        assert!(!POLICY.contains("unsafe"));
    }

    #[test]
    fn the_page_is_small_and_asks_nobody_else_for_anything() {
        assert!(PAGE.len() < 32 * 1024, "{} bytes", PAGE.len());
        for part in [
            "src=",
            "@import",
            "url(http",
            "innerHTML",
            " style=",
            " onclick",
        ] {
            assert!(!PAGE.contains(part), "{part}");
        }
        // The names of the kinds of XML are no addresses.
        let namespace = "http://www.w3.org/2000/svg";
        assert_eq!(PAGE.matches("://").count(), PAGE.matches(namespace).count());
    }
}
