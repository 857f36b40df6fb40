//! Tells whether a value is nothing.

use std::fmt;

use serde::Serialize;
use serde::ser::{Impossible, Serializer};

/// Says whether a value is written as nothing, as `None` and `()` are: what other engines call null. Looks at the outermost layer only.
pub(super) fn is_null<T: Serialize>(value: &T) -> bool {
    value.serialize(OnlyNull).is_ok()
}

/// Serialises nothing but null.
struct OnlyNull;

type Refused<T> = Result<T, fmt::Error>;
type Never = Impossible<(), fmt::Error>;

macro_rules! refuse {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method(self, _: $type) -> Refused<()> { Err(fmt::Error) })*
    };
}

impl Serializer for OnlyNull {
    type Ok = ();
    type Error = fmt::Error;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    fn serialize_none(self) -> Refused<()> {
        Ok(())
    }

    fn serialize_unit(self) -> Refused<()> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Refused<()> {
        Err(fmt::Error)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Refused<()> {
        // Written as what it wraps.
        value.serialize(self)
    }

    refuse! {
        serialize_bool: bool, serialize_char: char, serialize_str: &str, serialize_bytes: &[u8],
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_f32: f32, serialize_f64: f64, serialize_unit_struct: &'static str,
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Refused<()> {
        Err(fmt::Error)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Refused<()> {
        Err(fmt::Error)
    }

    fn serialize_seq(self, _: Option<usize>) -> Refused<Never> {
        Err(fmt::Error)
    }

    fn serialize_tuple(self, _: usize) -> Refused<Never> {
        Err(fmt::Error)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Refused<Never> {
        Err(fmt::Error)
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Refused<Never> {
        Err(fmt::Error)
    }

    fn serialize_map(self, _: Option<usize>) -> Refused<Never> {
        Err(fmt::Error)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Refused<Never> {
        Err(fmt::Error)
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Refused<Never> {
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_as_nothing_is_null() {
        assert!(is_null(&()) && is_null(&None::<u8>) && is_null(&Box::new(None::<String>)));
        assert!(!is_null(&0) && !is_null(&false) && !is_null(&"") && !is_null(&Vec::<u8>::new()));
        assert!(!is_null(&Some(())) && !is_null(&(None::<u8>,)) && !is_null(&[None::<u8>; 2]));
    }
}
