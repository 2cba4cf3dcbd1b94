//! Moments on the wire: a JSON number, the seconds since 1970, whole or with milliseconds (Smithy, `timestampFormat` `epoch-seconds`).

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::WallMillis;

/// `1777594354` or `1441139757.497`, in the years 0000 to 9999; to the nearest millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub WallMillis);

/// 0000-01-01T00:00:00Z and 9999-12-31T23:59:59Z, the years that RFC 3339 can write.
const WRITABLE: (i64, i64) = (-62_167_219_200, 253_402_300_799);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(WallMillis(millis)) = *self;
        if millis % 1000 == 0 {
            return serializer.serialize_i64(millis / 1000);
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds of the years that can be written are exact"
        )]
        serializer.serialize_f64(millis as f64 / 1000.0)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seconds;

        impl Visitor<'_> for Seconds {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds since 1970, in the years 0000 to 9999")
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Timestamp, E> {
                let (first, last) = WRITABLE;
                if (first..=last).contains(&seconds) {
                    Ok(Timestamp(WallMillis(seconds * 1000)))
                } else {
                    Err(E::invalid_value(de::Unexpected::Signed(seconds), &self))
                }
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Timestamp, E> {
                match i64::try_from(seconds) {
                    Ok(seconds) => self.visit_i64(seconds),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Unsigned(seconds), &self)),
                }
            }

            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                reason = "within the years that can be written"
            )]
            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Timestamp, E> {
                let (first, last) = WRITABLE;
                if (first as f64..=last as f64).contains(&seconds) {
                    // Not cut off: 1441139757.497 is a little less than that as a binary number.
                    Ok(Timestamp(WallMillis((seconds * 1000.0).round() as i64)))
                } else {
                    Err(E::invalid_value(de::Unexpected::Float(seconds), &self))
                }
            }
        }

        deserializer.deserialize_any(Seconds)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_moment_is_a_number_of_seconds() {
        for (wire, millis) in [
            ("0", 0),
            ("-1", -1000),
            ("1777594354", 1_777_594_354_000),
            ("1777594354.0", 1_777_594_354_000),
            ("1.777594354E9", 1_777_594_354_000),
            ("1441139757.497", 1_441_139_757_497),
            ("1441139757.4979", 1_441_139_757_498),
            ("-0.5", -500),
            ("253402300799", 253_402_300_799_000),
        ] {
            let read: Timestamp = serde_json::from_str(wire).unwrap();
            assert_eq!(read, Timestamp(WallMillis(millis)), "{wire}");
        }
        for bad in [
            r#""2026-05-01T00:12:34Z""#,
            r#""1777594354""#,
            "true",
            "[1]",
            "{}",
            "253402300800",
            "18446744073709551615",
            "-9223372036854775808",
            "1e300",
            "-1e18",
        ] {
            assert!(serde_json::from_str::<Timestamp>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_reads_back_as_written(millis in WRITABLE.0 * 1000..=WRITABLE.1 * 1000) {
            let moment = Timestamp(WallMillis(millis));
            let wire = serde_json::to_string(&moment).unwrap();
            prop_assert_eq!(serde_json::from_str::<Timestamp>(&wire).unwrap(), moment, "{}", wire);
        }
    }
}
