//! Settings that are one of a few words.

use std::fmt;
use std::str::FromStr;

use super::ConfigError;

/// Gives an enum the words by which the command line and the reports know its values.
macro_rules! words {
    ($name:ident, $option:literal, $expected:literal, $($value:ident => $word:literal),+) => {
        impl $name {
            /// The words as an error lists them.
            pub(crate) const WORDS: &str = $expected;

            /// The word by which the command line and the reports know it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = ConfigError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$value),)+
                    _ => Err(ConfigError {
                        option: $option,
                        expected: Self::WORDS.to_owned(),
                        found: format!("{text:?}"),
                    }),
                }
            }
        }
    };
}

/// What a line of the access log has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AccessLogFormat {
    /// Apache's common format: client, time, request line, status, bytes.
    Common,
    /// Apache's combined format, which adds Referer and User-Agent; and behind it the duration, the wait for a worker, the
    /// request's id and the reason of a refusal.
    #[default]
    Combined,
    /// A JSON object with all that and more.
    Json,
}

words!(AccessLogFormat, "access-log-format", "common, combined or json", Common => "common", Combined => "combined", Json => "json");

/// When the gate trips and how it reopens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GateMode {
    /// Trips on a run of readings or on stuck workers, and reopens one probe at a time.
    #[default]
    Guarded,
    /// The health-check pattern word for word: one reading trips, and all traffic returns at once.
    Literal,
    /// Never trips.
    Off,
}

words!(GateMode, "gate", "guarded, literal or off", Guarded => "guarded", Literal => "literal", Off => "off");

/// Who sees more of the health reports than the status word: numbers, data stores, metrics, the status page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Details {
    /// Clients on this host that ask for an address, `localhost` or one of
    /// [`Config::details_hosts`](super::Config::details_hosts), and those of the admin listener. A proxy on this host
    /// makes all of its clients look local.
    #[default]
    Local,
    /// Everybody.
    Always,
    /// Only clients of the admin listener.
    Never,
}

words!(Details, "details", "local, always or never", Local => "local", Always => "always", Never => "never");

/// Which listeners have the server's own pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OwnPaths {
    /// Every listener has them all.
    #[default]
    All,
    /// The admin listener has them all, the others just `/livez` and `/readyz`.
    Admin,
}

words!(OwnPaths, "own-paths", "all or admin", All => "all", Admin => "admin");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_reads_back_as_it_prints() {
        for mode in [GateMode::Guarded, GateMode::Literal, GateMode::Off] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for details in [Details::Local, Details::Always, Details::Never] {
            assert_eq!(details.to_string().parse(), Ok(details));
        }
        assert_eq!(
            "Guarded".parse::<GateMode>().unwrap_err().to_string(),
            "gate: expected guarded, literal or off, found \"Guarded\"",
        );
    }
}
