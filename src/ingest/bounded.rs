//! Lists of JSON that take no more memory than their reader means to give them, however long they are.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

/// A list of which no more than `MOST` values are kept, the first; the others are only counted, and need be none.
#[derive(Debug)]
pub struct Bounded<T, const MOST: usize> {
    pub kept: Vec<T>,
    /// Of all, kept or not.
    pub count: usize,
}

impl<T, const MOST: usize> Default for Bounded<T, MOST> {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            count: 0,
        }
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Bounded<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_seq(List(PhantomData))
    }
}

struct List<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
    type Value = Bounded<T, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        let mut list = Bounded::default();
        while list.kept.len() < MOST {
            match values.next_element()? {
                Some(value) => list.kept.push(value),
                None => break,
            }
        }
        list.count = list.kept.len();
        while let Some(IgnoredAny) = values.next_element()? {
            list.count += 1;
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_kept_and_all_are_counted() {
        for (json, kept, count) in [
            ("[]", vec![], 0),
            ("[1]", vec![1], 1),
            ("[1,2,3]", vec![1, 2, 3], 3),
            ("[1,2,3,4,\"x\",[{}]]", vec![1, 2, 3], 6),
        ] {
            let list: Bounded<u8, 3> = serde_json::from_str(json).unwrap();
            assert_eq!((list.kept, list.count), (kept, count), "{json}");
        }
        for bad in ["", "{}", "null", "[1,\"x\"]", "[1,2,3,4", "[1,2,3,4,]"] {
            assert!(
                serde_json::from_str::<Bounded<u8, 3>>(bad).is_err(),
                "{bad}"
            );
        }
    }
}
