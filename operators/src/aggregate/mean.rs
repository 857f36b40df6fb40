//! Mean and variance of a number of each record.

use std::fmt;

use millstream_runtime::error::BoxError;
use serde::{Deserialize, Serialize};

use crate::aggregate::Aggregate;

/// A number that [`Avg`] and [`Variance`] work on, as a float: integers above 2⁵³ lose their last bits.
pub trait Number {
    /// The number as a float.
    fn into_float(self) -> f64;
}

macro_rules! numbers {
    ($($number:ty),+) => {$(
        impl Number for $number {
            fn into_float(self) -> f64 {
                self as f64
            }
        }
    )+};
}

numbers!(u8, u16, u32, u64, i8, i16, i32, i64, f32, f64);

/// Count, mean, and sum of squared distances from the mean (Welford 1962; merged as in Chan, Golub, LeVeque 1979). A mean is
/// never the quotient of a large sum, so its error does not grow with the number of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, number: f64) {
        self.count += 1;
        let before = number - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (number - self.mean);
    }

    fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        let count = self.count + other.count;
        let apart = other.mean - self.mean;
        let share = other.count as f64 / count as f64;
        self.mean += apart * share;
        self.squares += other.squares + apart * apart * self.count as f64 * share;
        self.count = count;
    }
}

/// The arithmetic mean of a number of each record, in `f64`; `None` where there is no record.
#[derive(Clone)]
pub struct Avg<F>(F);

impl<F> Avg<F> {
    /// Makes the mean of what `number` says of each record.
    pub const fn of(number: F) -> Self {
        Self(number)
    }
}

impl<F> fmt::Debug for Avg<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Avg")
    }
}

impl<In, N: Number, F> Aggregate<In> for Avg<F>
where
    F: Fn(&In) -> N + Clone + Send + Sync + 'static,
{
    type Acc = Moments;
    type Out = Option<f64>;

    fn start(&self) -> Moments {
        Moments::default()
    }

    fn add(&self, moments: &mut Moments, record: &In) -> Result<(), BoxError> {
        moments.add(self.0(record).into_float());
        Ok(())
    }

    fn merge(&self, moments: &mut Moments, other: Moments) -> Result<(), BoxError> {
        moments.merge(&other);
        Ok(())
    }

    fn finish(&self, moments: &Moments) -> Option<f64> {
        (moments.count > 0).then_some(moments.mean)
    }
}

/// The variance of a number of each record, in `f64`. That of a **sample** divides by *n* - 1 and is `None` below two records; that
/// of the whole **population** divides by *n* and is `None` below one. Its square root is the standard deviation.
#[derive(Clone)]
pub struct Variance<F> {
    number: F,
    is_sample: bool,
}

impl<F> Variance<F> {
    /// Makes the variance of a sample.
    pub const fn sample(number: F) -> Self {
        Self { number, is_sample: true }
    }

    /// Makes the variance of the whole population.
    pub const fn population(number: F) -> Self {
        Self { number, is_sample: false }
    }
}

impl<F> fmt::Debug for Variance<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Variance").field("is_sample", &self.is_sample).finish_non_exhaustive()
    }
}

impl<In, N: Number, F> Aggregate<In> for Variance<F>
where
    F: Fn(&In) -> N + Clone + Send + Sync + 'static,
{
    type Acc = Moments;
    type Out = Option<f64>;

    fn start(&self) -> Moments {
        Moments::default()
    }

    fn add(&self, moments: &mut Moments, record: &In) -> Result<(), BoxError> {
        moments.add((self.number)(record).into_float());
        Ok(())
    }

    fn merge(&self, moments: &mut Moments, other: Moments) -> Result<(), BoxError> {
        moments.merge(&other);
        Ok(())
    }

    fn finish(&self, moments: &Moments) -> Option<f64> {
        let degrees = moments.count.checked_sub(u64::from(self.is_sample)).filter(|degrees| *degrees > 0)?;
        Some(moments.squares / degrees as f64)
    }
}
