//! Keys that may be absent.

use super::{StreamKey, StreamKeyRef};

/// An absent key is no bytes, one that is there its bytes behind a 1.
impl<K: StreamKey> StreamKey for Option<K> {
    type Borrowed = Self;

    fn read_key(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first() {
            None => Some(None),
            Some((1, key)) => K::read_key(key).map(Some),
            Some(_) => None,
        }
    }
}

impl<K: StreamKey> StreamKeyRef for Option<K> {
    type Owned = Self;

    fn write_key(&self, out: &mut Vec<u8>) {
        if let Some(key) = self {
            out.push(1);
            key.borrow().write_key(out);
        }
    }

    fn to_key(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_key_is_not_an_empty_one() {
        for (key, bytes) in [(None, vec![]), (Some(String::new()), vec![1]), (Some("a".to_owned()), vec![1, b'a'])] {
            let mut written = Vec::new();
            key.write_key(&mut written);
            assert_eq!((&written, Option::<String>::read_key(&written)), (&bytes, Some(key)));
        }
        assert_eq!(Option::<String>::read_key(&[2]), None);
        assert_eq!(Option::<u16>::read_key(&[1, 0]), None, "a key of half its width");
    }
}
