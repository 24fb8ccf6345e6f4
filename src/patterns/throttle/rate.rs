//! A rate: its text and its numbers.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Most requests in a period. Above it a whole number of nanoseconds between two requests would round too coarsely.
const MAX_COUNT: u32 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// So many requests in a second, a minute or an hour, written `100/s`, `10/m` or `5/h`.
///
/// ```
/// use plimsoll::patterns::Rate;
///
/// let rate: Rate = "10/m".parse()?;
/// assert_eq!(rate.count(), 10);
/// assert_eq!(rate.period().as_secs(), 60);
/// assert_eq!(rate.to_string(), "10/m");
/// # Ok::<_, plimsoll::patterns::RateError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    period: Period,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Period {
    Second,
    Minute,
    Hour,
}

impl Period {
    fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }
}

impl Rate {
    /// How many requests in a period: `q` of a `RateLimit-Policy` field.
    #[must_use]
    pub fn count(self) -> u32 {
        self.count
    }

    /// A second, a minute or an hour: `w` of a `RateLimit-Policy` field, whose unit is seconds.
    #[must_use]
    pub fn period(self) -> Duration {
        Duration::from_secs(self.period.seconds().into())
    }

    /// Nanoseconds between two requests at this rate, rounded up so that no more than the rate comes through.
    pub(super) fn interval_nanos(self) -> u64 {
        (u64::from(self.period.seconds()) * NANOS_PER_SECOND).div_ceil(self.count.into())
    }

    /// What it gives in one second, and at least 1.
    pub(super) fn in_one_second(self) -> u32 {
        self.count.div_ceil(self.period.seconds())
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let error = || RateError(text.to_owned());
        let (count, period) = text.split_once('/').ok_or_else(error)?;
        let period = match period {
            "s" => Period::Second,
            "m" => Period::Minute,
            "h" => Period::Hour,
            _ => return Err(error()),
        };
        // A sign is not a digit, though the standard library takes one.
        if !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(error());
        }
        let count = count.parse().map_err(|_| error())?;
        if !(1..=MAX_COUNT).contains(&count) {
            return Err(error());
        }
        Ok(Self { count, period })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = match self.period {
            Period::Second => 's',
            Period::Minute => 'm',
            Period::Hour => 'h',
        };
        write!(f, "{}/{period}", self.count)
    }
}

/// A text that is no rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateError(String);

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected a rate such as 100/s, 10/m or 5/h with 1 to {MAX_COUNT} requests, found {:?}",
            self.0
        )
    }
}

impl Error for RateError {}
