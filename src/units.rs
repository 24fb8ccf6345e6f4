//! Counts, sizes and durations as people write them: read here, and shown here, once for the whole crate.

use std::str::FromStr;
use std::time::Duration;

/// The units of sizes and their bytes, the largest first.
const SIZE_UNITS: [(&str, u64); 5] = [
    ("TiB", 1024 * 1024 * 1024 * 1024),
    ("GiB", 1024 * 1024 * 1024),
    ("MiB", 1024 * 1024),
    ("KiB", 1024),
    ("B", 1),
];

/// The units of durations and their nanoseconds. A unit comes before those that end like it.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
];

/// A whole number: digits only.
pub(crate) fn parse_count<N: FromStr>(text: &str) -> Option<N> {
    // The standard library takes a sign too.
    let all_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| text.parse().ok())?
}

/// A whole number of bytes, or of the unit that follows it.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (number, bytes) = SIZE_UNITS
        .iter()
        .find_map(|&(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)))
        .unwrap_or((text, 1));
    parse_count::<u64>(number)?.checked_mul(bytes)
}

/// A number of bytes, in the largest unit in which it is whole.
pub(crate) fn show_size(size: u64) -> String {
    SIZE_UNITS
        .iter()
        .find(|(_, bytes)| *bytes > 1 && size >= *bytes && size.is_multiple_of(*bytes))
        .map_or_else(
            || size.to_string(),
            |(unit, bytes)| format!("{}{unit}", size / bytes),
        )
}

/// A number and its unit, with decimals if need be, or a bare 0. What is finer than a nanosecond is cut off.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (number, unit) = DURATION_UNITS
        .iter()
        .find_map(|&(unit, nanoseconds)| Some((text.strip_suffix(unit)?, nanoseconds)))?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if decimals.is_empty() || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut place = unit;
    let fraction: u64 = decimals
        .bytes()
        .map(|digit| {
            place /= 10;
            place * u64::from(digit - b'0')
        })
        .sum();
    let nanoseconds = unit
        .checked_mul(parse_count(whole)?)?
        .checked_add(fraction)?;
    Some(Duration::from_nanos(nanoseconds))
}

/// A duration as [`parse_duration`] reads it.
pub(crate) fn show_duration(time: Duration) -> String {
    if time.is_zero() {
        "0".to_owned()
    } else {
        format!("{time:?}").replace('µ', "u")
    }
}

/// A time in the unit that suits it, to three digits: `1.24 s`, `850 µs`.
pub(crate) fn show_rounded(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = if seconds >= 1.0 {
        (seconds, "s")
    } else if seconds >= 1e-3 {
        (seconds * 1e3, "ms")
    } else {
        (seconds * 1e6, "µs")
    };
    let decimals = match value {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let digits = format!("{value:.decimals$}");
    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        &digits
    };
    format!("{digits} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        let cases = [
            ("0", 0),
            ("0s", 0),
            ("1us", 1_000),
            ("250ms", 250_000_000),
            ("1s", 1_000_000_000),
            ("1.5s", 1_500_000_000),
            ("0.000000001s", 1),
            ("0.0000000019s", 1),
            ("1.25ms", 1_250_000),
            ("2m", 120_000_000_000),
            ("1.5m", 90_000_000_000),
            ("0.5h", 1_800_000_000_000),
            ("007s", 7_000_000_000),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_nanos(nanoseconds)),
                "{text}"
            );
        }
        for text in [
            "99999999999999999999999h",
            "999999999h",
            "",
            "1",
            "s",
            "ms",
            ".",
            ".s",
            ".5s",
            "1.s",
            "1..5s",
            "1.5.5s",
            "-1s",
            "+1s",
            "1 s",
            " 1s",
            "1s ",
            "1S",
            "1d",
            "1sec",
            "1s500ms",
            "1e3s",
            "1,5s",
            "0.0",
            "1_000ms",
            "1ns",
            "٣s",
            "1.٣s",
            "1\u{b5}s",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_shown_as_they_are_read() {
        assert_eq!(show_duration(Duration::from_millis(1500)), "1.5s");
        assert_eq!(show_duration(Duration::from_micros(250)), "250us");
        assert_eq!(show_duration(Duration::ZERO), "0");
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        let cases = [
            ("0", 0),
            ("4096", 4096),
            ("512B", 512),
            ("16KiB", 16 * 1024),
            ("1MiB", 1024 * 1024),
            ("2GiB", 2 * 1024 * 1024 * 1024),
            ("2TiB", 2 << 40),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in [
            "18446744073709551616",
            "99999999999999999GiB",
            "",
            "B",
            "KiB",
            "1KB",
            "1kB",
            "1K",
            "1M",
            "1MB",
            "1kib",
            "1.5MiB",
            "-1",
            "+1",
            "1 KiB",
            "1BB",
            "1PiB",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_is_exact() {
        let cases = [
            (0, "0"),
            (1023, "1023"),
            (1024, "1KiB"),
            (1025, "1025"),
            (1536 * 1024, "1536KiB"),
            (3 * 1024 * 1024 * 1024, "3GiB"),
        ];
        for (size, text) in cases {
            assert_eq!(show_size(size), text);
        }
    }

    #[test]
    fn durations_are_told_to_three_digits() {
        for (seconds, text) in [
            (0.0, "0 µs"),
            (0.000_85, "850 µs"),
            (0.012_34, "12.3 ms"),
            (0.02, "20 ms"),
            (1.0, "1 s"),
            (1.236, "1.24 s"),
            (120.0, "120 s"),
        ] {
            assert_eq!(show_rounded(Duration::from_secs_f64(seconds)), text);
        }
    }
}
