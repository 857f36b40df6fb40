//! The least and the greatest value.

use std::cmp::Ordering;
use std::fmt;

use millstream_runtime::error::BoxError;
use millstream_runtime::state::StateValue;

use crate::aggregate::Aggregate;

/// Keeps the value that is further in a direction; of equal ones the first. What cannot be compared with itself, NaN, is left out.
fn keep<V: PartialOrd>(best: &mut Option<V>, value: V, better: Ordering) {
    let is_better = match best {
        Some(best) => value.partial_cmp(best) == Some(better),
        None => value.partial_cmp(&value).is_some(),
    };
    if is_better {
        *best = Some(value);
    }
}

macro_rules! extremum {
    ($(#[$docs:meta])* $name:ident, $better:expr) => {
        $(#[$docs])*
        #[derive(Clone)]
        pub struct $name<F>(F);

        impl<F> $name<F> {
            /// Makes that of what `value` says of each record.
            pub const fn of(value: F) -> Self {
                Self(value)
            }
        }

        impl<F> fmt::Debug for $name<F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }

        impl<In, V, F> Aggregate<In> for $name<F>
        where
            V: StateValue + PartialOrd + Clone,
            F: Fn(&In) -> V + Clone + Send + Sync + 'static,
        {
            type Acc = Option<V>;
            type Out = Option<V>;

            fn start(&self) -> Option<V> {
                None
            }

            fn add(&self, best: &mut Option<V>, record: &In) -> Result<(), BoxError> {
                keep(best, self.0(record), $better);
                Ok(())
            }

            fn merge(&self, best: &mut Option<V>, other: Option<V>) -> Result<(), BoxError> {
                if let Some(other) = other {
                    keep(best, other, $better);
                }
                Ok(())
            }

            fn finish(&self, best: &Option<V>) -> Option<V> {
                best.clone()
            }
        }
    };
}

extremum! {
    /// The least value; `None` where there is none. NaN is left out. Of a tuple the first field counts first.
    Min, Ordering::Less
}

extremum! {
    /// The greatest value; `None` where there is none. NaN is left out. Of a tuple the first field counts first.
    Max, Ordering::Greater
}
