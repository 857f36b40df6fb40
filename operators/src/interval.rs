//! Lengths of time as users write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// A length of time that may be negative, in microseconds: made of a [`Duration`], or read from a text such as `"5 seconds"`,
/// `"1 hour 30 minutes"` or `"-5 s"`.
///
/// Units are microseconds, milliseconds, seconds, minutes, hours, days, weeks and months of 31 days, written out or as `us`, `ms`, `s`,
/// `min`, `h`, `d`. One beyond the range of 64 bits stays at the limit.
///
/// ```
/// use std::time::Duration;
/// use millstream_operators::Interval;
///
/// assert_eq!("1 minute 30 s".parse(), Ok(Interval::from(Duration::from_secs(90))));
/// assert_eq!("-5 ms".parse::<Interval>().unwrap().as_micros(), -5_000);
/// assert!("soon".parse::<Interval>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(i64);

impl Interval {
    /// Makes it of microseconds.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Makes it of milliseconds.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// Returns it in microseconds.
    pub const fn as_micros(self) -> i64 {
        self.0
    }
}

impl From<Duration> for Interval {
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            micros if micros % SECOND == 0 => write!(f, "{} s", micros / SECOND),
            micros if micros % 1_000 == 0 => write!(f, "{} ms", micros / 1_000),
            micros => write!(f, "{micros} us"),
        }
    }
}

/// A text that is no length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no length of time; write numbers with units, as in \"5 seconds\" or \"1 hour 30 minutes\"")]
pub struct BadInterval(String);

impl FromStr for Interval {
    type Err = BadInterval;

    fn from_str(text: &str) -> Result<Self, BadInterval> {
        let bad = || BadInterval(text.to_owned());
        let mut words = text.split_whitespace().peekable();
        words.next_if(|word| word.eq_ignore_ascii_case("interval"));
        let mut sum: Option<i64> = None;
        while let Some(word) = words.next() {
            // The unit may stand right behind its number.
            let digits = word.find(|c: char| !c.is_ascii_digit() && c != '-' && c != '+').unwrap_or(word.len());
            let (number, unit) = word.split_at(digits);
            let number: i64 = number.parse().map_err(|_| bad())?;
            let unit = if unit.is_empty() { words.next().ok_or_else(bad)? } else { unit };
            let part = number.saturating_mul(micros_of(unit).ok_or_else(bad)?);
            sum = Some(sum.unwrap_or(0).saturating_add(part));
        }
        sum.map(Self).ok_or_else(bad)
    }
}

impl TryFrom<&str> for Interval {
    type Error = BadInterval;

    fn try_from(text: &str) -> Result<Self, BadInterval> {
        text.parse()
    }
}

fn micros_of(unit: &str) -> Option<i64> {
    let unit = unit.to_ascii_lowercase();
    let singular = if unit.len() > 2 { unit.strip_suffix('s').unwrap_or(&unit) } else { &unit };
    Some(match singular {
        "us" | "microsecond" => 1,
        "ms" | "millisecond" => 1_000,
        "s" | "sec" | "second" => SECOND,
        "min" | "minute" => 60 * SECOND,
        "h" | "hour" => 3_600 * SECOND,
        "d" | "day" => DAY,
        "week" => 7 * DAY,
        "month" => 31 * DAY,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_people_write_them() {
        let table = [
            ("5 seconds", 5 * SECOND),
            ("1 second", SECOND),
            ("interval 10 minutes", 600 * SECOND),
            ("1 hour 30 minutes", 5_400 * SECOND),
            ("-5 s", -5 * SECOND),
            ("100ms", 100_000),
            ("1 day -1 hour", 23 * 3_600 * SECOND),
            ("2 weeks", 14 * DAY),
            ("1 Month", 31 * DAY),
            ("7 us", 7),
            ("0 hours", 0),
            ("9223372036854775807 days", i64::MAX),
        ];
        for (text, micros) in table {
            assert_eq!(text.parse::<Interval>().map(Interval::as_micros), Ok(micros), "{text}");
        }
        for text in ["", "5", "five seconds", "5 parsecs", "seconds", "5 s 3", "interval", "1.5 s", "- s"] {
            let error = text.parse::<Interval>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn it_is_shown_in_the_largest_unit_that_fits() {
        let shown = [(5 * SECOND, "5 s"), (-1_500_000, "-1500 ms"), (7, "7 us"), (0, "0 s")];
        for (micros, text) in shown {
            assert_eq!(Interval::from_micros(micros).to_string(), text);
        }
        assert_eq!(Interval::from(Duration::MAX).as_micros(), i64::MAX);
    }
}
