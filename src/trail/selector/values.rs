//! Values that a field may have: whole ones, beginnings and ends. Looking one up takes as many steps as halving the set does.

/// Several values, each compared in its own way; a text is among them when any of them fits it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Values {
    /// In order.
    equals: Vec<Box<str>>,
    /// In order, none the beginning of another.
    starts: Vec<Box<str>>,
    /// In the order of their letters from the last to the first, none the end of another.
    ends: Vec<Box<str>>,
}

impl Values {
    pub fn new<'a>(
        equals: impl IntoIterator<Item = &'a str>,
        starts: impl IntoIterator<Item = &'a str>,
        ends: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut equals: Vec<Box<str>> = equals.into_iter().map(Box::from).collect();
        let mut starts: Vec<Box<str>> = starts.into_iter().map(Box::from).collect();
        let mut ends: Vec<Box<str>> = ends.into_iter().map(Box::from).collect();
        equals.sort_unstable();
        // What begins with a kept beginning comes right after it, and says nothing more.
        starts.sort_unstable();
        starts.dedup_by(|later, kept| later.starts_with(&**kept));
        ends.sort_unstable_by(|a, b| reversed(a).cmp(reversed(b)));
        ends.dedup_by(|later, kept| later.ends_with(&**kept));
        Self {
            equals,
            starts,
            ends,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.equals.is_empty() && self.starts.is_empty() && self.ends.is_empty()
    }

    pub fn fit(&self, text: &str) -> bool {
        self.equals
            .binary_search_by(|value| (**value).cmp(text))
            .is_ok()
            || last_up_to(&self.starts, |value| **value <= *text)
                .is_some_and(|value| text.starts_with(value))
            || last_up_to(&self.ends, |value| reversed(value).le(reversed(text)))
                .is_some_and(|value| text.ends_with(value))
    }
}

/// The last of the ordered `values` that does not come after what is sought. No kept value is the beginning of another, so only this one
/// can be the beginning of what is sought: whatever stood between the two would begin with it.
fn last_up_to(values: &[Box<str>], not_after: impl Fn(&Box<str>) -> bool) -> Option<&str> {
    let after = values.partition_point(not_after);
    values[..after].last().map(|value| &**value)
}

fn reversed(text: &str) -> impl Iterator<Item = u8> {
    text.bytes().rev()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_fits_what_one_of_its_values_fits(
            equals in prop::collection::vec("[ab]{1,4}", 0..4),
            starts in prop::collection::vec("[abé]{1,4}", 0..6),
            ends in prop::collection::vec("[abé]{1,4}", 0..6),
            text in "[abé]{0,6}",
        ) {
            let expected = equals.contains(&text)
                || starts.iter().any(|value| text.starts_with(value))
                || ends.iter().any(|value| text.ends_with(value));
            let strs = |values: &[String]| values.to_vec();
            let values = Values::new(
                strs(&equals).iter().map(String::as_str),
                strs(&starts).iter().map(String::as_str),
                strs(&ends).iter().map(String::as_str),
            );
            prop_assert_eq!(values.fit(&text), expected);
        }
    }
}
