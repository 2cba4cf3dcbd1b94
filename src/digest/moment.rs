//! Moments as digests write them: whole seconds, UTC, in exactly one spelling each.

use crate::clock::WallMillis;
use crate::event::time;

/// `0000-01-01T00:00:00Z` and `9999-12-31T23:59:59Z`, the first and the last that can be written.
const WRITABLE: (i64, i64) = (-62_167_219_200, 253_402_300_799);

/// `2026-05-01T00:12:34Z`. A moment outside the years 0000 to 9999 is taken as the nearer end of them.
pub fn text(seconds: i64) -> String {
    let (first, last) = WRITABLE;
    WallMillis(seconds.clamp(first, last) * 1000).rfc3339()
}

/// The moment that [`text`] writes so; nothing for any other spelling.
pub fn read(given: &str) -> Option<i64> {
    let seconds = time::parse_rfc3339(given.as_bytes())?;
    (text(seconds) == given).then_some(seconds)
}

/// `20260501T001234Z`, as in the name of a digest.
pub fn stamp(seconds: i64) -> String {
    text(seconds).replace(['-', ':'], "")
}

/// The moment that [`stamp`] writes so.
pub fn read_stamp(given: &str) -> Option<i64> {
    if given.len() != 16 || !given.is_ascii() {
        return None;
    }
    let part = |from: usize, to: usize| &given[from..to];
    read(&format!(
        "{}-{}-{}:{}:{}",
        part(0, 4),
        part(4, 6),
        part(6, 11),
        part(11, 13),
        part(13, 16)
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_one_spelling_of_digests_is_read() {
        assert_eq!(read("2026-05-01T00:12:34Z"), Some(1_777_594_354));
        assert_eq!(read_stamp("20260501T001234Z"), Some(1_777_594_354));
        for other in [
            "2026-05-01T00:12:34z",
            "2026-05-01T00:12:34+00:00",
            "2026-05-01T00:12:34.0Z",
            "2026-05-01t00:12:34Z",
            "2016-12-31T23:59:60Z",
            "2026-02-30T00:00:00Z",
            "",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
        for other in [
            "20260501T001234z",
            "20260501T0012:4Z",
            "20260501T001234",
            "20260501T001234ZZ",
            "2026050éT01234Z",
        ] {
            assert_eq!(read_stamp(other), None, "{other}");
        }
        assert_eq!(text(i64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(text(i64::MIN), "0000-01-01T00:00:00Z");
    }

    proptest! {
        #[test]
        fn every_moment_reads_back_as_written(seconds in WRITABLE.0..=WRITABLE.1) {
            prop_assert_eq!(read(&text(seconds)), Some(seconds));
            prop_assert_eq!(read_stamp(&stamp(seconds)), Some(seconds));
        }
    }
}
