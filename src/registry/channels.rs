//! The channels as values: the ways in for events of sources outside of AWS (CloudTrail user guide, "Create an integration with an event
//! source outside of AWS"). Pure.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::book::Tag;
use crate::event::{AccountId, Region};

/// Channels of one account in one region (AWS General Reference, "CloudTrail endpoints and quotas").
pub const MAX_CHANNELS_A_REGION: usize = 25;

/// Channels of all accounts and regions together: whoever may sign for many accounts could make 25 in each region of each.
pub const MAX_CHANNELS: usize = 1000;

/// The channels, as they were made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Channels(Vec<Arc<Channel>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// What follows `channel/` in its ARN.
    pub id: String,
    pub account: AccountId,
    pub region: Region,
    pub name: String,
    /// `Custom`, or what an integration is called.
    pub source: String,
    pub destinations: Vec<Destination>,
    pub tags: Vec<Tag>,
    /// Its resource policy, a document as it was given.
    pub policy: Option<String>,
}

/// Where a channel's events go (API reference, `Destination`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Destination {
    #[serde(rename = "Type", default)]
    pub kind: String,
    #[serde(default)]
    pub location: String,
}

/// Why there cannot be one more channel, or not one of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    #[error("account {account} has already a channel named {name} in {region}")]
    Name {
        account: AccountId,
        region: Region,
        name: String,
    },
    #[error(
        "account {account} has already a channel for the source {source_name} in {region}: a source has one channel"
    )]
    Source {
        account: AccountId,
        region: Region,
        source_name: String,
    },
    #[error("account {account} has already {MAX_CHANNELS_A_REGION} channels in {region}")]
    InRegion { account: AccountId, region: Region },
    #[error("traild has already {MAX_CHANNELS} channels of all accounts together")]
    InAll,
}

impl Channel {
    pub fn arn(&self) -> String {
        arn(self.account, self.region, &self.id)
    }

    fn is_beside(&self, other: &Self) -> bool {
        (self.account, self.region) == (other.account, other.region) && self.id != other.id
    }
}

/// Of a channel that need not exist.
pub fn arn(account: AccountId, region: Region, id: &str) -> String {
    format!("arn:aws:cloudtrail:{region}:{account}:channel/{id}")
}

impl Channels {
    pub fn new(kept: Vec<Channel>) -> Self {
        Self(kept.into_iter().map(Arc::new).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Channel>> {
        self.0.iter()
    }

    /// The channel of this ARN.
    pub fn get(&self, arn: &str) -> Option<&Arc<Channel>> {
        self.0.iter().find(|channel| channel.arn() == arn)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, arn: &str) -> Option<&mut Channel> {
        let found = self.0.iter_mut().find(|channel| channel.arn() == arn);
        found.map(Arc::make_mut)
    }

    /// Whether its name is its own among those of its account and region.
    pub fn has_name(&self, new: &Channel) -> Result<(), NoRoom> {
        let (account, region) = (new.account, new.region);
        let mut others = self.0.iter().filter(|other| other.is_beside(new));
        match others.any(|other| other.name == new.name) {
            true => Err(NoRoom::Name {
                account,
                region,
                name: new.name.clone(),
            }),
            false => Ok(()),
        }
    }

    pub fn create(&mut self, new: Channel) -> Result<(), NoRoom> {
        let (account, region) = (new.account, new.region);
        self.has_name(&new)?;
        let others = || self.0.iter().filter(|other| other.is_beside(&new));
        if others().any(|other| other.source == new.source) {
            return Err(NoRoom::Source {
                account,
                region,
                source_name: new.source,
            });
        }
        if others().count() >= MAX_CHANNELS_A_REGION {
            return Err(NoRoom::InRegion { account, region });
        }
        if self.0.len() >= MAX_CHANNELS {
            return Err(NoRoom::InAll);
        }
        self.0.push(Arc::new(new));
        Ok(())
    }

    /// Whether there was one of this ARN.
    pub fn delete(&mut self, arn: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|channel| channel.arn() != arn);
        self.0.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(id: usize, account: &str, region: &str) -> Channel {
        Channel {
            id: id.to_string(),
            account: account.parse().unwrap(),
            region: region.parse().unwrap(),
            name: format!("channel-{id}"),
            source: format!("source-{id}"),
            destinations: Vec::new(),
            tags: Vec::new(),
            policy: None,
        }
    }

    const HOME: &str = "111122223333";

    #[test]
    fn a_name_and_a_source_are_taken_once_in_an_account_and_region() {
        let mut channels = Channels::default();
        let first = channel(1, HOME, "us-east-1");
        channels.create(first.clone()).unwrap();
        let named = Channel {
            name: first.name.clone(),
            ..channel(2, HOME, "us-east-1")
        };
        assert!(matches!(channels.create(named), Err(NoRoom::Name { .. })));
        let sourced = Channel {
            source: first.source.clone(),
            ..channel(2, HOME, "us-east-1")
        };
        assert!(matches!(
            channels.create(sourced),
            Err(NoRoom::Source { .. })
        ));
        channels.has_name(&first).unwrap();
        for (account, region) in [(HOME, "eu-west-1"), ("444455556666", "us-east-1")] {
            let elsewhere = Channel {
                id: "1".to_owned(),
                ..channel(1, account, region)
            };
            channels.create(elsewhere).unwrap();
        }
        assert!(channels.delete(&first.arn()) && !channels.delete(&first.arn()));
        assert_eq!(channels.iter().count(), 2);
    }

    #[test]
    fn there_is_room_for_so_many_channels_in_a_region_and_in_all() {
        let mut channels = Channels::default();
        for id in 0..MAX_CHANNELS_A_REGION {
            channels.create(channel(id, HOME, "us-east-1")).unwrap();
        }
        let more = channel(999, HOME, "us-east-1");
        assert!(matches!(
            channels.create(more),
            Err(NoRoom::InRegion { .. })
        ));
        for id in MAX_CHANNELS_A_REGION..MAX_CHANNELS {
            let account = format!("{id:012}");
            channels.create(channel(id, &account, "us-east-1")).unwrap();
        }
        let more = channel(9999, "444455556666", "us-east-1");
        assert_eq!(channels.create(more), Err(NoRoom::InAll));
    }
}
