//! Counts, sizes and durations as people write them: read here, and shown here, once for the whole crate.

use std::time::Duration;

/// The units of sizes and their bytes, the largest first.
const SIZE_UNITS: [(&str, usize); 4] = [
    ("GiB", 1024 * 1024 * 1024),
    ("MiB", 1024 * 1024),
    ("KiB", 1024),
    ("B", 1),
];

/// The units of durations and their nanoseconds. A unit comes before those that end like it.
const DURATION_UNITS: [(&str, u128); 5] = [
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
];

/// Digits only. A number too large for the type becomes its maximum, for the bounds to refuse.
#[must_use]
pub fn parse_count(text: &str) -> Option<usize> {
    let all_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| text.parse().unwrap_or(usize::MAX))
}

/// A whole number of bytes, or of the unit that follows it.
#[must_use]
pub fn parse_size(text: &str) -> Option<usize> {
    let (number, bytes) = SIZE_UNITS
        .iter()
        .find_map(|&(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)))
        .unwrap_or((text, 1));
    Some(parse_count(number)?.saturating_mul(bytes))
}

/// A number of bytes, in the largest unit in which it is whole.
#[must_use]
pub fn show_size(size: usize) -> String {
    SIZE_UNITS
        .iter()
        .find(|(_, bytes)| *bytes > 1 && size >= *bytes && size.is_multiple_of(*bytes))
        .map_or_else(
            || size.to_string(),
            |(unit, bytes)| format!("{}{unit}", size / bytes),
        )
}

/// A number and its unit, with decimals if need be, or a bare 0. What is finer than a nanosecond
/// is cut off; what is too long for the type becomes its maximum.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (number, unit) = DURATION_UNITS
        .iter()
        .find_map(|&(unit, nanoseconds)| Some((text.strip_suffix(unit)?, nanoseconds)))?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    parse_count(decimals)?;

    let mut nanoseconds = unit.saturating_mul(parse_count(whole)? as u128);
    let mut place = unit;
    for digit in decimals.bytes() {
        place /= 10;
        nanoseconds = nanoseconds.saturating_add(place * u128::from(digit - b'0'));
    }
    let seconds = u64::try_from(nanoseconds / 1_000_000_000);
    let below_second = u32::try_from(nanoseconds % 1_000_000_000).unwrap_or(0);
    Some(seconds.map_or(Duration::MAX, |seconds| {
        Duration::new(seconds, below_second)
    }))
}

/// A duration as [`parse_duration`] reads it.
#[must_use]
pub fn show_duration(time: Duration) -> String {
    if time.is_zero() {
        "0".to_owned()
    } else {
        format!("{time:?}").replace('µ', "u")
    }
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
        assert_eq!(
            parse_duration("99999999999999999999999h"),
            Some(Duration::MAX)
        );
        for text in [
            "", "1", "s", "ms", ".", ".s", ".5s", "1.s", "1..5s", "1.5.5s", "-1s", "+1s", "1 s",
            " 1s", "1s ", "1S", "1d", "1sec", "1s500ms", "1e3s", "1,5s", "0.0", "1_000ms", "1ns",
            "٣s", "1.٣s", "1\u{b5}s",
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
            ("99999999999999999999999", usize::MAX),
            ("99999999999999999GiB", usize::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in [
            "", "B", "KiB", "1KB", "1kB", "1K", "1M", "1MB", "1kib", "1.5MiB", "-1", "+1", "1 KiB",
            "1BB", "1TiB",
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
}
