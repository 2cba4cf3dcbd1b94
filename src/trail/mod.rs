//! Trails: which events each one selects, and where its log files belong. Pure.
//!
//! A trail belongs to a home account and a home region. It takes the events of its own account, or of the accounts of its
//! organization; of its home region, or of all regions. Events of global services (IAM, STS, CloudFront) are recorded in
//! us-east-1 and follow that region; a trail that does not include global service events leaves them out (CloudTrail user
//! guide, "about global service events"; `IncludeGlobalServiceEvents` of CreateTrail).

pub mod arn;
pub mod destination;
pub mod logging;
pub mod names;
pub mod selector;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::event::{AccountId, Folder, Meta, Record, Region};
use crate::wal::Position;

pub use destination::{EventBus, LogGroup, Topic};
pub use logging::Logging;
pub use selector::Selectors;

/// A trail's name: 3 to 128 of `[A-Za-z0-9._-]`, first and last alphanumeric, no two of `._-` side by side, not an IPv4 address
/// (CreateTrail, parameter `Name`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrailName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTrailName {
    #[error("a trail name has 3 to 128 characters, this one has {0}")]
    Length(usize),
    #[error("a trail name has only letters, digits, '.', '_' and '-'")]
    Character,
    #[error("a trail name begins and ends with a letter or a digit")]
    Edge,
    #[error("a trail name has no two of '.', '_' and '-' side by side")]
    Adjacent,
    #[error("a trail name is not an IPv4 address")]
    Ipv4,
}

impl TrailName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrailName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrailName {
    type Err = InvalidTrailName;

    fn from_str(text: &str) -> Result<Self, InvalidTrailName> {
        let bytes = text.as_bytes();
        if !(3..=128).contains(&bytes.len()) {
            return Err(InvalidTrailName::Length(text.chars().count()));
        }
        let joint = |b: &u8| matches!(b, b'.' | b'_' | b'-');
        if !bytes.iter().all(|b| b.is_ascii_alphanumeric() || joint(b)) {
            return Err(InvalidTrailName::Character);
        }
        if joint(&bytes[0]) || joint(&bytes[bytes.len() - 1]) {
            return Err(InvalidTrailName::Edge);
        }
        if bytes
            .windows(2)
            .any(|pair| joint(&pair[0]) && joint(&pair[1]))
        {
            return Err(InvalidTrailName::Adjacent);
        }
        if text.parse::<std::net::Ipv4Addr>().is_ok() {
            return Err(InvalidTrailName::Ipv4);
        }
        Ok(Self(text.to_owned()))
    }
}

/// Whose events a trail takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accounts {
    /// The trail's own account.
    Own,
    /// An organization trail: every account, and the `o-…` level in its keys.
    Organization { id: String, members: Members },
}

/// The accounts of an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Members {
    Every,
    /// These, and the trail's own account.
    Listed(BTreeSet<AccountId>),
}

/// A trail and the place of its log files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trail {
    pub name: TrailName,
    pub home_account: AccountId,
    pub home_region: Region,
    pub accounts: Accounts,
    pub is_multi_region: bool,
    pub include_global_service_events: bool,
    pub bucket: String,
    /// Without slashes at either end; empty for none.
    pub prefix: String,
    /// The KMS key that encrypts the log files, when one is asked for.
    pub kms_key_id: Option<String>,
    /// Is told of each log file, by one notification (CreateTrail, `SnsTopicName`).
    pub topic: Option<Topic>,
    /// Gets each event that the trail selects, as one log event (CreateTrail, `CloudWatchLogsLogGroupArn` and `CloudWatchLogsRoleArn`).
    pub log_group: Option<LogGroup>,
    /// Gets each event that the trail selects, as one event of the bus (EventBridge user guide, "AWS service events delivered via AWS
    /// CloudTrail", where it is the account's default bus; here any may be named).
    pub event_bus: Option<EventBus>,
    /// Its log files are named by signed digests (CreateTrail, `EnableLogFileValidation`).
    pub log_file_validation: bool,
    pub logging: Logging,
    pub selectors: Selectors,
}

impl Trail {
    /// `arn:aws:cloudtrail:<home region>:<account>:trail/<name>`.
    pub fn arn(&self) -> String {
        format!(
            "arn:aws:cloudtrail:{}:{}:trail/{}",
            self.home_region, self.home_account, self.name
        )
    }

    /// Whether this trail takes the event, which is at `position` of the journal.
    pub fn selects(&self, position: Position, event: &Record<'_>) -> bool {
        self.covers(&event.meta) && self.logging.covers(position) && self.selectors.select(event)
    }

    /// Whether the event is of this trail's accounts and regions.
    fn covers(&self, event: &Meta) -> bool {
        self.takes_account(&event.account)
            && (self.is_multi_region || event.region == self.home_region)
            && (self.include_global_service_events || !event.global_service)
    }

    /// Whether events of this account are among those it may take.
    pub fn takes_account(&self, account: &AccountId) -> bool {
        match &self.accounts {
            Accounts::Own => *account == self.home_account,
            Accounts::Organization {
                members: Members::Every,
                ..
            } => true,
            Accounts::Organization {
                members: Members::Listed(listed),
                ..
            } => *account == self.home_account || listed.contains(account),
        }
    }

    /// The `o-…` level of the keys.
    pub fn organization_id(&self) -> Option<&str> {
        match &self.accounts {
            Accounts::Own => None,
            Accounts::Organization { id, .. } => Some(id),
        }
    }
}

/// What shares one log file: an account, a region and a folder of one trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream {
    pub account: AccountId,
    pub region: Region,
    pub folder: Folder,
}

impl From<&Meta> for Stream {
    fn from(event: &Meta) -> Self {
        Self {
            account: event.account,
            region: event.region,
            folder: event.category.folder(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clock::WallMillis;
    use crate::event::Category;

    pub(crate) fn event(account: &str, region: &str) -> Meta {
        Meta {
            account: account.parse().unwrap(),
            region: region.parse().unwrap(),
            category: Category::Management,
            global_service: false,
            read_only: false,
            event_time: 1_700_000_000,
            accepted_at: WallMillis(1_700_000_001_000),
            fingerprint: [0; 16],
        }
    }

    pub(crate) fn trail() -> Trail {
        Trail {
            name: "main".parse().unwrap(),
            home_account: "111122223333".parse().unwrap(),
            home_region: "us-east-1".parse().unwrap(),
            accounts: Accounts::Own,
            is_multi_region: true,
            include_global_service_events: true,
            bucket: "audit-logs".to_owned(),
            prefix: String::new(),
            kms_key_id: None,
            topic: None,
            log_group: None,
            event_bus: None,
            log_file_validation: true,
            logging: Logging::Always,
            selectors: Selectors::default(),
        }
    }

    #[test]
    fn a_trail_takes_its_own_account_in_all_regions_or_only_at_home() {
        let everywhere = trail();
        let home = Trail {
            is_multi_region: false,
            ..trail()
        };
        for (account, region, in_all, at_home) in [
            ("111122223333", "us-east-1", true, true),
            ("111122223333", "eu-west-1", true, false),
            ("999988887777", "us-east-1", false, false),
        ] {
            assert_eq!(
                everywhere.covers(&event(account, region)),
                in_all,
                "{account} {region}"
            );
            assert_eq!(
                home.covers(&event(account, region)),
                at_home,
                "{account} {region}"
            );
        }
    }

    #[test]
    fn a_global_service_follows_us_east_1_and_can_be_left_out() {
        let global = Meta {
            global_service: true,
            ..event("111122223333", "us-east-1")
        };
        assert!(trail().covers(&global));
        assert!(
            !Trail {
                include_global_service_events: false,
                ..trail()
            }
            .covers(&global)
        );
        let elsewhere = Trail {
            is_multi_region: false,
            home_region: "eu-west-1".parse().unwrap(),
            ..trail()
        };
        assert!(
            !elsewhere.covers(&global),
            "a trail of one other region does not get them"
        );
    }

    #[test]
    fn an_organization_trail_takes_its_members() {
        let listed = Members::Listed(["222233334444".parse().unwrap()].into());
        let of = |members| Trail {
            accounts: Accounts::Organization {
                id: "o-exampleorgid".into(),
                members,
            },
            ..trail()
        };
        for (account, every, some) in [
            ("111122223333", true, true),
            ("222233334444", true, true),
            ("333344445555", true, false),
        ] {
            assert_eq!(
                of(Members::Every).covers(&event(account, "us-east-1")),
                every
            );
            assert_eq!(
                of(listed.clone()).covers(&event(account, "us-east-1")),
                some
            );
        }
    }

    #[test]
    fn names_follow_the_rules_of_create_trail() {
        for good in ["abc", "My.Trail_1-x", "a1b", &"a".repeat(128)] {
            assert!(good.parse::<TrailName>().is_ok(), "{good}");
        }
        use InvalidTrailName::*;
        for (bad, why) in [
            ("ab", Length(2)),
            (&*"a".repeat(129), Length(129)),
            ("a b", Character),
            ("-ab", Edge),
            ("ab.", Edge),
            ("a.-b", Adjacent),
            ("10.0.0.1", Ipv4),
        ] {
            assert_eq!(bad.parse::<TrailName>(), Err(why), "{bad}");
        }
    }
}
