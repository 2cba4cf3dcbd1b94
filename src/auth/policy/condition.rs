//! Conditions of a statement (IAM user guide, "IAM JSON policy elements: Condition operators").
//!
//! | operators | values | keys |
//! |---|---|---|
//! | `StringEquals`, `StringNotEquals`, `…IgnoreCase`, `StringLike`, `StringNotLike` | text; `Like`: with wildcards | every |
//! | `ArnEquals`, `ArnLike`, `ArnNotEquals`, `ArnNotLike`, which are two and not four | ARNs with wildcards, part by part | `aws:PrincipalArn` |
//! | `IpAddress`, `NotIpAddress` | `10.0.0.0/8`, `2001:db8::/32`, an address | `aws:SourceIp` |
//! | `Bool` | `true`, `false` | `aws:SecureTransport` |
//! | `DateEquals`, `DateNotEquals`, `DateLessThan`, `DateLessThanEquals`, `DateGreaterThan`, `DateGreaterThanEquals` | RFC 3339, or seconds since 1970 | `aws:CurrentTime`, `aws:EpochTime` |
//! | `Null` | `true`: the key is not there | every |
//!
//! Each but `Null` can end in `IfExists` and begin with `ForAllValues:` or `ForAnyValue:`; all keys here have one value at most.

use std::cmp::Ordering;
use std::net::IpAddr;

use super::Asked;
use super::key::{Key, Kind};
use super::pattern::Pattern;
use crate::event::time;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    key: Key,
    test: Test,
    /// Whether it holds when the request does not have the key.
    when_absent: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    /// One of the values matches, or `negated`, none.
    OneOf { values: Values, negated: bool },
    /// Whether the key is absent is one of these.
    Null(Vec<bool>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Values {
    Text(Vec<Pattern>),
    /// Both sides in lower case.
    AnyCase(Vec<Pattern>),
    /// Six parts each.
    Arns(Vec<Vec<Pattern>>),
    Networks(Vec<Network>),
    Truths(Vec<bool>),
    /// Seconds since 1970; the request's time compares to the value as one of these.
    Times(Vec<i64>, &'static [Ordering]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// How an operator's values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Text { wildcards: bool, any_case: bool },
    Arn,
    Ip,
    Truth,
    Time(&'static [Ordering]),
}

const OPERATORS: [(&str, Reading, bool); 20] = {
    use Ordering::{Equal, Greater, Less};
    const EXACT: Reading = Reading::Text {
        wildcards: false,
        any_case: false,
    };
    const ANY_CASE: Reading = Reading::Text {
        wildcards: false,
        any_case: true,
    };
    const LIKE: Reading = Reading::Text {
        wildcards: true,
        any_case: false,
    };
    [
        ("StringEquals", EXACT, false),
        ("StringNotEquals", EXACT, true),
        ("StringEqualsIgnoreCase", ANY_CASE, false),
        ("StringNotEqualsIgnoreCase", ANY_CASE, true),
        ("StringLike", LIKE, false),
        ("StringNotLike", LIKE, true),
        ("ArnEquals", Reading::Arn, false),
        ("ArnLike", Reading::Arn, false),
        ("ArnNotEquals", Reading::Arn, true),
        ("ArnNotLike", Reading::Arn, true),
        ("IpAddress", Reading::Ip, false),
        ("NotIpAddress", Reading::Ip, true),
        ("Bool", Reading::Truth, false),
        ("DateEquals", Reading::Time(&[Equal]), false),
        ("DateNotEquals", Reading::Time(&[Equal]), true),
        ("DateLessThan", Reading::Time(&[Less]), false),
        ("DateLessThanEquals", Reading::Time(&[Less, Equal]), false),
        ("DateGreaterThan", Reading::Time(&[Greater]), false),
        (
            "DateGreaterThanEquals",
            Reading::Time(&[Greater, Equal]),
            false,
        ),
        // For the list of names; it is read apart.
        ("Null", Reading::Truth, false),
    ]
};

impl Condition {
    /// Of an operator and a key as written. `variables`: the document knows them. The error finishes "the operator …" or "the value …".
    pub fn new(
        operator: &str,
        key: &str,
        values: &[String],
        variables: bool,
    ) -> Result<Self, String> {
        let key = Key::named(key)
            .ok_or_else(|| format!("is about a key that traild does not have; {}", Key::list()))?;
        if operator == "Null" {
            let truths = values
                .iter()
                .map(|value| truth(value))
                .collect::<Result<_, _>>()?;
            return Ok(Self {
                key,
                test: Test::Null(truths),
                when_absent: false,
            });
        }
        let (set, rest) = match operator.split_once(':') {
            Some((set, rest)) => (Some(set), rest),
            None => (None, operator),
        };
        let (name, if_exists) = match rest.strip_suffix("IfExists") {
            Some(name) => (name, true),
            None => (rest, false),
        };
        let known = OPERATORS
            .iter()
            .find(|(known, ..)| *known == name && name != "Null");
        let set_holds_when_absent = match set {
            None => Some(None),
            Some("ForAllValues") => Some(Some(true)),
            Some("ForAnyValue") => Some(Some(false)),
            Some(_) => None,
        };
        let (Some((_, reading, negated)), Some(set_holds_when_absent)) =
            (known, set_holds_when_absent)
        else {
            let names: Vec<&str> = OPERATORS.iter().map(|(name, ..)| *name).collect();
            return Err(format!(
                "is an operator that traild does not have; it has {}, each but Null also with IfExists behind it, and ForAllValues: or ForAnyValue: \
                 in front",
                names.join(", ")
            ));
        };
        let fits = match reading {
            Reading::Text { .. } => true,
            Reading::Arn => key.kind() == Kind::Arn,
            Reading::Ip => key.kind() == Kind::Ip,
            Reading::Truth => key.kind() == Kind::Truth,
            Reading::Time(_) => key.kind() == Kind::Time,
        };
        if !fits {
            return Err("is an operator that does not go with this key".to_owned());
        }
        Ok(Self {
            key,
            test: Test::OneOf {
                values: read(values, *reading, variables)?,
                negated: *negated,
            },
            when_absent: if_exists || set_holds_when_absent.unwrap_or(*negated),
        })
    }

    pub fn holds(&self, asked: &Asked<'_>) -> bool {
        let text = self.key.text(asked);
        let (values, negated) = match &self.test {
            Test::Null(wanted) => return wanted.contains(&text.is_none()),
            Test::OneOf { values, negated } => (values, *negated),
        };
        let Some(text) = text else {
            return self.when_absent;
        };
        let matches = match values {
            Values::Text(values) => values.iter().any(|value| value.matches(&text, asked)),
            Values::AnyCase(values) => {
                let text = text.to_lowercase();
                values.iter().any(|value| value.matches_plainly(&text))
            }
            Values::Arns(values) => values.iter().any(|parts| {
                let given: Vec<&str> = text.splitn(6, ':').collect();
                given.len() == parts.len()
                    && parts
                        .iter()
                        .zip(given)
                        .all(|(part, given)| part.matches(given, asked))
            }),
            Values::Networks(networks) => {
                let address = self.key.ip(asked);
                address.is_some_and(|address| networks.iter().any(|one| one.has(address)))
            }
            Values::Truths(values) => values.iter().any(|value| value.to_string() == *text),
            Values::Times(values, orderings) => {
                let now = asked.now.unix_seconds();
                values
                    .iter()
                    .any(|value| orderings.contains(&now.cmp(value)))
            }
        };
        matches != negated
    }
}

fn read(values: &[String], reading: Reading, variables: bool) -> Result<Values, String> {
    let pattern = |value: &str, wildcards| {
        if value.contains("${") && !variables {
            return Err(
                "has a variable, which only documents of Version \"2012-10-17\" have".to_owned(),
            );
        }
        Pattern::with_variables(value, wildcards)
    };
    let values = values.iter().map(String::as_str);
    Ok(match reading {
        Reading::Text { any_case: true, .. } => Values::AnyCase(
            values
                .map(|value| {
                    if value.contains("${") {
                        return Err(
                            "has a variable, which operators that ignore the case do not take here"
                                .to_owned(),
                        );
                    }
                    Pattern::with_variables(&value.to_lowercase(), false)
                })
                .collect::<Result<_, _>>()?,
        ),
        Reading::Text { wildcards, .. } => Values::Text(
            values
                .map(|value| pattern(value, wildcards))
                .collect::<Result<_, _>>()?,
        ),
        Reading::Arn => Values::Arns(
            values
                .map(|value| {
                    let parts: Vec<&str> = value.splitn(6, ':').collect();
                    // A variable may hold a colon in its name.
                    if parts.len() != 6 || parts[0] != "arn" || value.contains("${") {
                        return Err(format!(
                            "has \"{value}\", which is not an ARN of six parts without variables"
                        ));
                    }
                    parts.into_iter().map(|part| pattern(part, true)).collect()
                })
                .collect::<Result<_, _>>()?,
        ),
        Reading::Ip => Values::Networks(values.map(Network::parse).collect::<Result<_, _>>()?),
        Reading::Truth => Values::Truths(values.map(truth).collect::<Result<_, _>>()?),
        Reading::Time(orderings) => {
            let times = values.map(|value| {
                let seconds = value.parse().ok();
                let seconds = seconds.or_else(|| time::parse_rfc3339(value.as_bytes()));
                seconds.ok_or_else(|| {
                    format!("has \"{value}\", which is no time; write it as 2026-05-01T00:00:00Z")
                })
            });
            Values::Times(times.collect::<Result<_, _>>()?, orderings)
        }
    })
}

fn truth(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("has \"{value}\", which is neither true nor false")),
    }
}

impl Network {
    fn parse(given: &str) -> Result<Self, String> {
        let wrong = || format!("has \"{given}\", which is no network; write it as 10.0.0.0/8");
        let (address, bits) = match given.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (given, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= most)
                .ok_or_else(wrong)?,
        };
        Ok(Self { address, bits })
    }

    fn has(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                (u32::from(ours) ^ u32::from(theirs)).leading_zeros()
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                (u128::from(ours) ^ u128::from(theirs)).leading_zeros()
            }
            _ => return false,
        };
        differ >= u32::from(self.bits)
    }
}
