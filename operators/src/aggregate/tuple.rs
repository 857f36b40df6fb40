//! Several aggregates at once.

use millstream_runtime::error::BoxError;

use crate::aggregate::Aggregate;

macro_rules! tuples {
    ($(($($part:ident $index:tt),+))+) => {$(
        impl<In, $($part: Aggregate<In>),+> Aggregate<In> for ($($part,)+) {
            type Acc = ($($part::Acc,)+);
            type Out = ($($part::Out,)+);

            fn start(&self) -> Self::Acc {
                ($(self.$index.start(),)+)
            }

            fn add(&self, acc: &mut Self::Acc, record: &In) -> Result<(), BoxError> {
                $(self.$index.add(&mut acc.$index, record)?;)+
                Ok(())
            }

            fn merge(&self, acc: &mut Self::Acc, other: Self::Acc) -> Result<(), BoxError> {
                $(self.$index.merge(&mut acc.$index, other.$index)?;)+
                Ok(())
            }

            fn finish(&self, acc: &Self::Acc) -> Self::Out {
                ($(self.$index.finish(&acc.$index),)+)
            }
        }
    )+};
}

tuples! {
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
}
