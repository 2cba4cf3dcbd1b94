//! RFC 3339 timestamps to seconds since 1970.
//!
//! CloudTrail writes `2026-05-01T00:19:01Z`. Fractions, offsets, lower-case letters and a leap second at the end of a UTC month are
//! understood too, as RFC 3339 has them; fractions are cut off, a leap second counts as the second after it.

const DAY: i64 = 86_400;

/// Seconds since 1970, or nothing when `text` is not RFC 3339. Years 0000–9999.
pub fn parse_rfc3339(text: &[u8]) -> Option<i64> {
    let (date_time, rest) = text.split_first_chunk::<19>()?;
    let [
        y0,
        y1,
        y2,
        y3,
        b'-',
        m0,
        m1,
        b'-',
        d0,
        d1,
        b'T' | b't',
        h0,
        h1,
        b':',
        n0,
        n1,
        b':',
        s0,
        s1,
    ] = *date_time
    else {
        return None;
    };
    let year = pair(y0, y1)? * 100 + pair(y2, y3)?;
    let (month, day) = (pair(m0, m1)?, pair(d0, d1)?);
    let (hour, minute, second) = (pair(h0, h1)?, pair(n0, n1)?, pair(s0, s1)?);
    let in_range = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour <= 23
        && minute <= 59
        && second <= 60;
    if !in_range {
        return None;
    }
    let offset = parse_offset(skip_fraction(rest)?)?;
    let time =
        days_since_1970(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    if second == 60 && !begins_a_month(time) {
        return None;
    }
    Some(time)
}

fn pair(tens: u8, ones: u8) -> Option<i64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit())
        .then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

/// What follows `.` and its digits, if there are any.
fn skip_fraction(text: &[u8]) -> Option<&[u8]> {
    let Some(fraction) = text.strip_prefix(b".") else {
        return Some(text);
    };
    let digits = fraction
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    (digits > 0).then(|| &fraction[digits..])
}

/// Seconds to take off for UTC.
fn parse_offset(text: &[u8]) -> Option<i64> {
    match *text {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (pair(h0, h1)?, pair(m0, m1)?);
            let seconds = hours * 3600 + minutes * 60;
            let in_range = hours <= 23 && minutes <= 59;
            in_range.then_some(if sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Whether `time` is midnight UTC of a first of month, where a leap second of the month before would end up.
fn begins_a_month(time: i64) -> bool {
    let days = time.div_euclid(DAY);
    time.rem_euclid(DAY) == 0
        && ::time::OffsetDateTime::from_unix_timestamp(days * DAY)
            .is_ok_and(|midnight| midnight.day() == 1)
}

#[cfg(test)]
mod tests {
    use ::time::OffsetDateTime;
    use ::time::format_description::well_known::Rfc3339;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamps_of_rfc_3339_are_understood() {
        let cases: &[(&str, i64)] = &[
            ("1970-01-01T00:00:00Z", 0),
            ("2026-05-01T00:19:01Z", 1_777_594_741),
            ("2026-05-01t00:19:01z", 1_777_594_741),
            ("2026-05-01T00:19:01.999999999999Z", 1_777_594_741),
            ("2026-05-01T02:19:01+02:00", 1_777_594_741),
            ("2026-04-30T18:49:01-05:30", 1_777_594_741),
            ("2026-05-01T00:19:01-00:00", 1_777_594_741),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2016-12-31T23:59:60Z", 1_483_228_800),
            ("2017-01-01T01:59:60.5+02:00", 1_483_228_800),
            ("1969-12-31T23:59:59Z", -1),
            ("0000-01-01T00:00:00Z", -62_167_219_200),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ];
        for (text, seconds) in cases {
            assert_eq!(parse_rfc3339(text.as_bytes()), Some(*seconds), "{text}");
        }
    }

    #[test]
    fn anything_else_is_not() {
        let cases = [
            "",
            "now",
            "2026-05-01",
            "2026-05-01T00:19:01",
            "2026-05-01 00:19:01Z",
            "2026-05-01T00:19Z",
            "2026-05-01T00:19:01.Z",
            "2026-05-01T00:19:01,5Z",
            "2026-05-01T00:19:01+0200",
            "2026-05-01T00:19:01+24:00",
            "2026-05-01T00:19:01+02:60",
            "2026-05-01T00:19:01ZZ",
            "2026-05-01T24:00:00Z",
            "2026-05-01T00:60:00Z",
            "2026-05-01T00:19:61Z",
            "2026-05-01T00:19:60Z",
            "2016-12-30T23:59:60Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "-001-01-01T00:00:00Z",
            "12026-05-01T00:19:01Z",
            "+2026-05-01T00:19:01Z",
            "２026-05-01T00:19:01Z",
            "1777594741",
        ];
        for text in cases {
            assert_eq!(parse_rfc3339(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_time_crate(seconds in -62_167_219_200i64..253_402_300_800, offset in -86_340i32..86_340) {
            let offset = ::time::UtcOffset::from_whole_seconds(offset / 60 * 60).unwrap();
            let Some(moment) = OffsetDateTime::from_unix_timestamp(seconds).unwrap().checked_to_offset(offset) else { return Ok(()) };
            if !(0..=9999).contains(&moment.year()) { return Ok(()) }
            let text = moment.format(&Rfc3339).unwrap();
            prop_assert_eq!(parse_rfc3339(text.as_bytes()), Some(seconds), "{}", text);
        }
    }
}
