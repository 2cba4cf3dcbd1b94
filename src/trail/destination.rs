//! Where a trail's events go besides its bucket: names that AWS would take, checked once and carried as proof.

use std::fmt;
use std::str::FromStr;

use super::arn::{Arn, not_an_arn};
use crate::event::{AccountId, Region};

/// An SNS topic that is told of each log file. CloudTrail publishes to standard topics only (`InvalidSnsTopicNameException`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    arn: String,
    region: Region,
}

/// A CloudWatch Logs log group, and the role to write to it with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGroup {
    arn: String,
    name: String,
    region: Region,
    account: AccountId,
    role_arn: Option<String>,
}

/// An EventBridge event bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventBus {
    /// As given: a name or an ARN.
    given: String,
    name: String,
    /// Of an ARN.
    region: Option<Region>,
    /// Of an ARN.
    account: Option<AccountId>,
}

/// What is wrong with a name, in words that finish the sentence "this …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Topic {
    pub fn arn(&self) -> &str {
        &self.arn
    }

    pub fn region(&self) -> &Region {
        &self.region
    }
}

impl FromStr for Topic {
    type Err = Invalid;

    fn from_str(arn: &str) -> Result<Self, Invalid> {
        let example = "arn:aws:sns:us-east-1:111122223333:trail";
        let wrong = || not_an_arn("an SNS topic", example);
        let Arn {
            region, resource, ..
        } = Arn::regional(arn, "sns").ok_or_else(wrong)?;
        if resource.ends_with(".fifo") {
            return Err(Invalid(
                "is a FIFO topic, which CloudTrail does not publish to".into(),
            ));
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if resource.is_empty() || resource.len() > 256 || !resource.bytes().all(allowed) {
            return Err(Invalid(
                "names a topic by other than 1 to 256 letters, digits, '-' and '_'".into(),
            ));
        }
        Ok(Self {
            arn: arn.to_owned(),
            region,
        })
    }
}

impl LogGroup {
    /// As given: `arn:aws:logs:<region>:<account>:log-group:<name>:*`.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn region(&self) -> &Region {
        &self.region
    }

    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// The ARN of the role that is assumed through STS; without one, the daemon's own credentials write.
    pub fn role_arn(&self) -> Option<&str> {
        self.role_arn.as_deref()
    }

    pub fn with_role(self, role_arn: Option<String>) -> Self {
        Self { role_arn, ..self }
    }
}

impl FromStr for LogGroup {
    type Err = Invalid;

    fn from_str(arn: &str) -> Result<Self, Invalid> {
        let example = "arn:aws:logs:us-east-1:111122223333:log-group:trail:*";
        let wrong = || not_an_arn("a CloudWatch Logs log group", example);
        let Arn {
            region,
            account,
            resource,
        } = Arn::regional(arn, "logs").ok_or_else(wrong)?;
        let name = resource.strip_prefix("log-group:").ok_or_else(wrong)?;
        let name = name.strip_suffix(":*").unwrap_or(name);
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-/.#".contains(&b);
        if name.is_empty() || name.len() > 512 || !name.bytes().all(allowed) {
            return Err(Invalid(
                "names a log group by other than 1 to 512 letters, digits and '_-/.#'".into(),
            ));
        }
        Ok(Self {
            arn: arn.to_owned(),
            name: name.to_owned(),
            region,
            account,
            role_arn: None,
        })
    }
}

impl EventBus {
    /// A name or an ARN, as PutEvents takes either.
    pub fn as_str(&self) -> &str {
        &self.given
    }

    /// Where it is, when its ARN says so.
    pub fn region(&self) -> Option<&Region> {
        self.region.as_ref()
    }

    /// Whether both are one bus, `home` being the region and the account in which a bus is that was given by its name alone.
    pub fn is_same(&self, other: &Self, home: (&str, AccountId)) -> bool {
        self.identity(home) == other.identity(home)
    }

    fn identity<'a>(
        &'a self,
        (region, account): (&'a str, AccountId),
    ) -> (&'a str, AccountId, &'a str) {
        (
            self.region.as_ref().map_or(region, Region::as_str),
            self.account.unwrap_or(account),
            &self.name,
        )
    }
}

impl FromStr for EventBus {
    type Err = Invalid;

    fn from_str(given: &str) -> Result<Self, Invalid> {
        let (region, account, name) = if given.starts_with("arn:") {
            let example = "arn:aws:events:us-east-1:111122223333:event-bus/default";
            let wrong = || not_an_arn("an event bus", example);
            let Arn {
                region,
                account,
                resource,
            } = Arn::regional(given, "events").ok_or_else(wrong)?;
            let name = resource.strip_prefix("event-bus/").ok_or_else(wrong)?;
            (Some(region), Some(account), name)
        } else {
            (None, None, given)
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
        if name.is_empty() || name.len() > 256 || !name.bytes().all(allowed) {
            return Err(Invalid(
                "is not an event bus: 1 to 256 letters, digits and '._-/', or an ARN".into(),
            ));
        }
        Ok(Self {
            given: given.to_owned(),
            name: name.to_owned(),
            region,
            account,
        })
    }
}

impl fmt::Display for EventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr<Err = Invalid>>(good: &[&str], bad: &[&str]) {
        for name in good {
            assert!(name.parse::<T>().is_ok(), "{name}");
        }
        for name in bad {
            assert!(name.parse::<T>().is_err(), "{name} passed");
        }
    }

    #[test]
    fn destinations_are_checked_part_by_part() {
        check::<Topic>(
            &[
                "arn:aws:sns:us-east-1:111122223333:trail",
                "arn:aws-cn:sns:cn-north-1:111122223333:t_1",
            ],
            &[
                "trail",
                "arn:aws:sqs:us-east-1:111122223333:trail",
                "arn:aws:sns::111122223333:trail",
                "arn:aws:sns:us-east-1:1234:trail",
                "arn:aws:sns:us-east-1:111122223333:",
                "arn:aws:sns:us-east-1:111122223333:trail.fifo",
            ],
        );
        check::<LogGroup>(
            &[
                "arn:aws:logs:us-east-1:111122223333:log-group:trail:*",
                "arn:aws:logs:us-east-1:111122223333:log-group:/a/b",
            ],
            &[
                "arn:aws:logs:us-east-1:111122223333:group:trail",
                "arn:aws:logs:us-east-1:111122223333:log-group::*",
                "trail",
            ],
        );
        check::<EventBus>(
            &[
                "default",
                "arn:aws:events:us-east-1:111122223333:event-bus/default",
            ],
            &["a b", "arn:aws:events:us-east-1:111122223333:bus/x", ""],
        );
    }

    #[test]
    fn a_bus_is_the_same_by_its_name_and_by_its_arn() {
        let home = ("us-east-1", "111122223333".parse().unwrap());
        let is_same = |one: &str, other: &str| {
            let (one, other) = (one.parse().unwrap(), other.parse::<EventBus>().unwrap());
            other.is_same(&one, home) && one.is_same(&other, home)
        };
        let arn = "arn:aws:events:us-east-1:111122223333:event-bus/default";
        assert!(is_same("default", "default") && is_same(arn, arn) && is_same("default", arn));
        for other in [
            "audit",
            "arn:aws:events:eu-west-1:111122223333:event-bus/default",
            "arn:aws:events:us-east-1:444455556666:event-bus/default",
            "arn:aws:events:us-east-1:111122223333:event-bus/audit",
        ] {
            assert!(
                !is_same("default", other) && !is_same(arn, other),
                "{other}"
            );
        }
    }

    #[test]
    fn an_arn_says_where_its_resource_is() {
        let group: LogGroup = "arn:aws:logs:eu-west-1:111122223333:log-group:/a/b:*"
            .parse()
            .unwrap();
        assert_eq!(
            (group.name(), group.region().as_str()),
            ("/a/b", "eu-west-1")
        );
    }
}
