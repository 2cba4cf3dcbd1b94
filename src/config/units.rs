//! Amounts as people write them: `"16MiB"`, `"50MB"`, `"60s"`, `"1m30s"`.

use std::time::Duration;

const SIZE_UNITS: [(&str, u64); 9] = [
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// Bytes: a whole number and one of B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024), in either case.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let amount = parse_amount(&text[..digits])?;
    let unit = text[digits..].trim_start();
    if unit.is_empty() {
        return Some(amount);
    }
    let (_, factor) = SIZE_UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    amount.checked_mul(*factor)
}

/// A size in the largest unit that shows it exactly.
pub fn show_size(bytes: u64) -> String {
    let units = [
        ("TiB", 1_u64 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    match units
        .iter()
        .find(|(_, size)| bytes >= *size && bytes % size == 0)
    {
        Some((name, size)) => format!("{}{name}", bytes / size),
        None => format!("{bytes}"),
    }
}

/// A time: whole numbers each followed by ms, s, m, h or d, as in `500ms` or `1m30s`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '_')?;
        let amount = parse_amount(&rest[..digits])?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        let part = match &rest[..letters] {
            "ms" => Duration::from_millis(amount),
            "s" => Duration::from_secs(amount),
            "m" => Duration::from_secs(amount.checked_mul(60)?),
            "h" => Duration::from_secs(amount.checked_mul(3_600)?),
            "d" => Duration::from_secs(amount.checked_mul(86_400)?),
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = rest[letters..].trim_start();
    }
    Some(total)
}

/// A time in the largest unit that shows it exactly.
pub fn show_duration(time: Duration) -> String {
    let millis = time.as_millis();
    let units = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ];
    match units
        .iter()
        .find(|(_, size)| millis >= *size && millis % size == 0)
    {
        Some((name, size)) => format!("{}{name}", millis / size),
        None => format!("{millis}ms"),
    }
}

fn parse_amount(digits: &str) -> Option<u64> {
    if digits.starts_with('_') || digits.ends_with('_') {
        return None;
    }
    digits.replace('_', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        let table = [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("1_000_000", Some(1_000_000)),
            ("16MiB", Some(16 << 20)),
            ("16 MiB", Some(16 << 20)),
            ("50MB", Some(50_000_000)),
            ("256kib", Some(256 << 10)),
            ("10GiB", Some(10 << 30)),
            ("1TB", Some(1_000_000_000_000)),
            ("7B", Some(7)),
            ("", None),
            ("MiB", None),
            ("1.5GiB", None),
            ("-1", None),
            ("16Mib2", None),
            ("16M", None),
            ("99999999999TiB", None),
            ("99999999999999999999", None),
            ("_1", None),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
        assert_eq!(show_size(16 << 20), "16MiB");
        assert_eq!(show_size(50_000_000), "50000000");
        assert_eq!(show_size(0), "0");
    }

    #[test]
    fn times_read_as_people_write_them() {
        let ms = Duration::from_millis;
        let table = [
            ("60s", Some(ms(60_000))),
            ("1m", Some(ms(60_000))),
            ("500ms", Some(ms(500))),
            ("1h", Some(ms(3_600_000))),
            ("1m30s", Some(ms(90_000))),
            ("1m 30s", Some(ms(90_000))),
            ("2d", Some(ms(172_800_000))),
            ("0s", Some(ms(0))),
            ("", None),
            ("60", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("1min", None),
            ("18446744073709551615d", None),
        ];
        for (text, time) in table {
            assert_eq!(parse_duration(text), time, "{text}");
        }
        assert_eq!(show_duration(ms(90_000)), "90s");
        assert_eq!(show_duration(ms(3_600_000)), "1h");
        assert_eq!(show_duration(ms(1)), "1ms");
    }
}
