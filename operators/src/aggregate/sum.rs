//! Sums of a number of each record.

use std::fmt;

use millstream_runtime::error::BoxError;
use millstream_runtime::state::StateValue;

use crate::aggregate::Aggregate;

/// A number that [`Sum`] adds up.
pub trait Summand {
    /// What the sum is kept in: `u64` of unsigned integers, `i64` of signed ones, `f64` of floats.
    type Sum: StateValue + Copy + Default + fmt::Display;

    /// The number as a sum of one.
    fn widen(self) -> Self::Sum;

    /// Adds two sums; nothing where the result is out of range.
    fn add(left: Self::Sum, right: Self::Sum) -> Option<Self::Sum>;
}

macro_rules! summands {
    ($($sum:ty: $($number:ty),+ => $add:expr;)+) => {$($(
        impl Summand for $number {
            type Sum = $sum;

            fn widen(self) -> $sum {
                <$sum>::from(self)
            }

            fn add(left: $sum, right: $sum) -> Option<$sum> {
                $add(left, right)
            }
        }
    )+)+};
}

summands! {
    u64: u8, u16, u32, u64 => u64::checked_add;
    i64: i8, i16, i32, i64 => i64::checked_add;
    f64: f32, f64 => |left, right| Some(left + right);
}

/// Adds up a number of each record: integers in 64 bits, and a record that would leave them is an error; floats in `f64`, in the
/// order of the records.
#[derive(Clone)]
pub struct Sum<F>(F);

impl<F> Sum<F> {
    /// Makes the sum of what `number` says of each record. Name the record's type: `Sum::of(|order: &Order| order.cents)`.
    pub const fn of(number: F) -> Self {
        Self(number)
    }
}

impl<F> fmt::Debug for Sum<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sum")
    }
}

fn add<N: Summand>(sum: &mut N::Sum, other: N::Sum) -> Result<(), BoxError> {
    *sum = N::add(*sum, other).ok_or_else(|| {
        let type_name = std::any::type_name::<N::Sum>();
        format!("the sum of {sum} and {other} is out of the range of {type_name}; add up a float, or skip such records")
    })?;
    Ok(())
}

impl<In, N: Summand, F> Aggregate<In> for Sum<F>
where
    F: Fn(&In) -> N + Clone + Send + Sync + 'static,
{
    type Acc = N::Sum;
    type Out = N::Sum;

    fn start(&self) -> N::Sum {
        N::Sum::default()
    }

    fn add(&self, sum: &mut N::Sum, record: &In) -> Result<(), BoxError> {
        add::<N>(sum, self.0(record).widen())
    }

    fn merge(&self, sum: &mut N::Sum, other: N::Sum) -> Result<(), BoxError> {
        add::<N>(sum, other)
    }

    fn finish(&self, sum: &N::Sum) -> N::Sum {
        *sum
    }
}
