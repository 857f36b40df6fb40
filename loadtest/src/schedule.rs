//! When each record is due: a list of offsets from one base instant that nothing slows down. Pure.
//!
//! Every schedule is a rate over time, Λ its integral: record *i* is due when Λ reaches *i* (even gaps), or the *i*-th sum of
//! exponential gaps of mean one (`poisson`), so that no error adds up from gap to gap.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const SECOND: f64 = 1e9;

/// A rate over time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Profile {
    /// The same all the time.
    Constant(f64),
    /// From one rate to another in that many seconds, which then stays.
    Ramp { from: f64, to: f64, over: f64 },
    /// Rates, each for so many seconds; the last one stays.
    Steps(Vec<(f64, f64)>),
    /// `base` all the time and `peak` on top for `on` seconds, then not for `off`, again and again.
    Burst { base: f64, peak: f64, on: f64, off: f64 },
    /// `base` with a wave of `amplitude` (at most `base`) that takes `period` seconds.
    Sine { base: f64, amplitude: f64, period: f64 },
}

/// A schedule as the user asked for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spec {
    pub(crate) profile: Profile,
    /// Exponential gaps instead of even ones.
    pub(crate) poisson: bool,
    name: String,
}

impl Spec {
    /// Reads `poisson`, `constant`, `ramp:FROM..TO`, `steps:R@D,…`, `burst:BASE+PEAK/ON/OFF` or `sine:BASE±AMP/PERIOD`; a leading
    /// `poisson-` takes exponential gaps for one of the last four. A ramp takes `duration`.
    pub(crate) fn parse(text: &str, rate: f64, duration: Duration) -> Result<Self, String> {
        let seconds = |text: &str| {
            let parsed = humantime::parse_duration(text.trim()).map_err(|error| format!("`{text}`: {error}"))?;
            if parsed.is_zero() {
                Err(format!("`{text}` must be longer than nothing"))
            } else {
                Ok(parsed.as_secs_f64())
            }
        };
        let (poisson, rest) = match text.strip_prefix("poisson-") {
            Some(rest) => (true, rest),
            None => (text == "poisson", text),
        };
        let (kind, rest) = rest.split_once(':').unwrap_or((rest, ""));
        let form = |form: &str| format!("the schedule `{text}` should read `{form}`");
        let profile = match kind {
            "poisson" | "constant" if rest.is_empty() => Profile::Constant(rate),
            "ramp" => {
                let (from, to) = rest.split_once("..").ok_or_else(|| form("ramp:FROM..TO"))?;
                Profile::Ramp { from: parse_rate(from)?, to: parse_rate(to)?, over: duration.as_secs_f64() }
            }
            "steps" => {
                let step = |step: &str| {
                    let (rate, time) = step.split_once('@').ok_or_else(|| form("steps:RATE@TIME,RATE@TIME"))?;
                    Ok::<_, String>((parse_rate(rate)?, seconds(time)?))
                };
                Profile::Steps(rest.split(',').map(step).collect::<Result<_, _>>()?)
            }
            "burst" => {
                let form = || form("burst:BASE+PEAK/ON/OFF");
                let (base, rest) = rest.split_once('+').ok_or_else(form)?;
                let (peak, rest) = rest.split_once('/').ok_or_else(form)?;
                // `100k/s/1s/4s`: the unit of a rate has the same sign as the separator.
                let (on, off) = rest.strip_prefix("s/").unwrap_or(rest).split_once('/').ok_or_else(form)?;
                Profile::Burst {
                    base: parse_rate(base)?,
                    peak: parse_rate(peak)?,
                    on: seconds(on)?,
                    off: seconds(off)?,
                }
            }
            "sine" => {
                let form = || form("sine:BASE±AMPLITUDE/PERIOD");
                let (base, rest) = rest.split_once('±').or_else(|| rest.split_once("+-")).ok_or_else(form)?;
                let (amplitude, period) = rest.rsplit_once('/').ok_or_else(form)?;
                let (base, amplitude) = (parse_rate(base)?, parse_rate(amplitude)?);
                if amplitude > base {
                    return Err(format!("the amplitude of `{text}` is larger than its base: rates would be negative"));
                }
                Profile::Sine { base, amplitude, period: seconds(period)? }
            }
            _ => {
                return Err(format!(
                    "there is no schedule `{text}`; there are poisson, constant, ramp:FROM..TO, steps:R@D,…, \
                     burst:BASE+PEAK/ON/OFF and sine:BASE±AMP/PERIOD"
                ));
            }
        };
        Ok(Self { profile, poisson, name: text.to_owned() })
    }

    /// The due times in nanoseconds from the base instant, rising, without an end.
    pub(crate) fn due_times(&self, seed: u64) -> DueTimes {
        DueTimes { spec: self.clone(), random: SplitMix(seed), reached: 0.0, at: 0.0 }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Reads `100k/s`, `2.5M`, `800`: records per second, above 0 and at most 1 G.
pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    let bare = text.trim().trim_end_matches("/s");
    let (number, factor) = match bare.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1e3),
        None => bare.strip_suffix('M').map_or((bare, 1.0), |number| (number, 1e6)),
    };
    let rate = f64::from_str(number).map_err(|_| format!("`{text}` is no rate; write 800, 100k/s or 2.5M/s"))? * factor;
    if rate > 0.0 && rate <= 1e9 {
        Ok(rate)
    } else {
        Err(format!("the rate `{text}` must be above 0 and at most 1000M/s"))
    }
}

impl Profile {
    /// Records that are due in the first `t` seconds.
    fn integral(&self, t: f64) -> f64 {
        match self {
            Self::Constant(rate) => rate * t,
            Self::Ramp { from, to, over } => {
                let within = t.min(*over);
                from * within + (to - from) * within * within / (2.0 * over) + to * (t - within)
            }
            Self::Steps(steps) => {
                let (mut left, mut sum, mut last) = (t, 0.0, 0.0);
                for (rate, time) in steps {
                    let within = left.min(*time);
                    sum += rate * within;
                    left -= within;
                    last = *rate;
                }
                sum + last * left
            }
            Self::Burst { base, peak, on, off } => {
                let period = on + off;
                base * t + peak * ((t / period).floor() * on + (t % period).min(*on))
            }
            Self::Sine { base, amplitude, period } => {
                let turn = std::f64::consts::TAU / period;
                base * t + amplitude / turn * (1.0 - (turn * t).cos())
            }
        }
    }

    /// When that many records are due, in seconds; not before `after`.
    fn inverse(&self, records: f64, after: f64) -> f64 {
        if let Self::Constant(rate) = self {
            return records / rate;
        }
        let (mut low, mut width) = (after, 1e-6);
        while self.integral(low + width) < records {
            low += width;
            width *= 2.0;
        }
        let mut high = low + width;
        // To a tenth of a nanosecond.
        while high - low > 1e-10 {
            let middle = f64::midpoint(low, high);
            if middle <= low || middle >= high {
                break;
            }
            if self.integral(middle) < records { low = middle } else { high = middle }
        }
        high
    }
}

/// See [`Spec::due_times`].
#[derive(Clone, Debug)]
pub(crate) struct DueTimes {
    spec: Spec,
    random: SplitMix,
    reached: f64,
    at: f64,
}

impl Iterator for DueTimes {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let target = if self.spec.poisson { self.reached - (1.0 - self.random.unit()).ln() } else { self.reached };
        self.at = self.spec.profile.inverse(target, self.at);
        // Even gaps begin at 0; exponential ones with a gap.
        self.reached = if self.spec.poisson { target } else { target + 1.0 };
        Some((self.at * SECOND) as u64)
    }
}

/// A seeded stream of random numbers (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). A schedule
/// stays the same over versions of any crate, so results of different builds can be compared.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Spec {
        Spec::parse(text, 10_000.0, Duration::from_secs(10)).unwrap()
    }

    fn due_before(text: &str, seconds: u64) -> usize {
        spec(text).due_times(1).take_while(|due| *due < seconds * 1_000_000_000).count()
    }

    #[test]
    fn every_schedule_sends_what_its_rate_says() {
        for (text, seconds, expected) in [
            ("constant", 10, 100_000),
            ("ramp:1k..3k", 10, 20_000),
            ("ramp:1k..3k", 12, 26_000),
            ("steps:1k@2s,5k/s@3s", 6, 22_000),
            ("burst:1k+9k/1s/4s", 10, 28_000),
            ("burst:1k/s+9k/s/1s/4s", 10, 28_000),
            ("sine:2k±1k/2s", 10, 20_000),
            ("sine:2k+-2k/s/4s", 2, 4_000 + 2_546),
        ] {
            let found = due_before(text, seconds);
            assert!(found.abs_diff(expected) <= 2, "{text}: {found} instead of {expected}");
        }
    }

    #[test]
    fn even_gaps_are_even_and_exponential_ones_have_mean_and_variance() {
        let gaps = |text: &str| {
            let due: Vec<u64> = spec(text).due_times(7).take(400_001).collect();
            due.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect::<Vec<_>>()
        };
        assert!(gaps("constant").iter().all(|gap| (gap - 1e5).abs() <= 1.0));
        let gaps = gaps("poisson");
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 1e5 - 1.0).abs() < 0.01, "{mean}");
        // The deviation of an exponential gap is its mean.
        assert!((variance.sqrt() / 1e5 - 1.0).abs() < 0.01, "{variance}");
    }

    #[test]
    fn due_times_never_go_back_and_depend_on_the_seed_only() {
        for text in ["poisson", "poisson-burst:1k+9k/1s/4s", "sine:2k±2k/4s", "steps:1k@1s,5k@1s", "ramp:1..100k"] {
            let due: Vec<u64> = spec(text).due_times(3).take(20_000).collect();
            assert!(due.is_sorted(), "{text}");
            assert_eq!(due, spec(text).due_times(3).take(20_000).collect::<Vec<_>>());
        }
        assert_ne!(spec("poisson").due_times(3).next(), spec("poisson").due_times(4).next());
    }

    #[test]
    fn refuses_what_is_no_schedule_or_rate() {
        for text in ["", "poisson:1", "ramp:1k", "steps:1k", "burst:1k/1s", "sine:1k±2k/1s", "burst:1k+2k/0s/1s"] {
            assert!(Spec::parse(text, 1.0, Duration::from_secs(1)).is_err(), "{text}");
        }
        for text in ["", "k", "-1", "0", "nan", "inf", "2G/s"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        assert_eq!(parse_rate("2.5M/s"), Ok(2_500_000.0));
    }
}
