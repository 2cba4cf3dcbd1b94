//! The channels on the disk, as [`super::kept`] has files. Their names are stable.
//!
//! ```text
//! {"version":1,"channels":[{"id":"6464f5be-…","account":"111122223333","region":"us-east-1","name":"wiki","source":"Custom",…}]}
//! ```

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::book::Tag;
use super::channels::{Channel, Channels, Destination};
use super::kept;
use crate::clock::WallMillis;
use crate::snapshot;

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    channels: Vec<KeptChannel>,
}

#[derive(Serialize, Deserialize)]
struct KeptChannel {
    id: String,
    account: String,
    region: String,
    name: String,
    source: String,
    destinations: Vec<Destination>,
    tags: Vec<Tag>,
    policy: Option<String>,
}

/// What is kept. Blocking. A file that cannot be understood is put aside.
pub fn read(path: &Path, now: WallMillis) -> io::Result<Vec<Channel>> {
    const LOSS: &str = "the channels that were made through the API cannot be read and are gone until they are made again, under other ARNs; \
                        the file is kept aside";
    kept::read(path, now, channels, LOSS)
}

/// Blocking, durable when it returns.
pub fn write(path: &Path, channels: &Channels) -> io::Result<()> {
    let kept = Kept {
        version: VERSION,
        channels: channels
            .iter()
            .map(|channel| KeptChannel::from(&**channel))
            .collect(),
    };
    let json = serde_json::to_vec(&kept)?;
    snapshot::replace(path, &snapshot::with_sum(&json))
}

/// Or what is wrong.
fn channels(json: &[u8]) -> Result<Vec<Channel>, String> {
    let kept: Kept = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    if kept.version != VERSION {
        return Err(format!("it is of version {}", kept.version));
    }
    kept.channels
        .into_iter()
        .map(KeptChannel::into_channel)
        .collect()
}

impl From<&Channel> for KeptChannel {
    fn from(channel: &Channel) -> Self {
        let Channel {
            id,
            account,
            region,
            name,
            source,
            destinations,
            tags,
            policy,
        } = channel.clone();
        Self {
            id,
            account: account.to_string(),
            region: region.to_string(),
            name,
            source,
            destinations,
            tags,
            policy,
        }
    }
}

impl KeptChannel {
    fn into_channel(self) -> Result<Channel, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("of channel {}: {error}", self.id);
        Ok(Channel {
            account: self.account.parse().map_err(|error| wrong(&error))?,
            region: self.region.parse().map_err(|error| wrong(&error))?,
            id: self.id,
            name: self.name,
            source: self.source,
            destinations: self.destinations,
            tags: self.tags,
            policy: self.policy,
        })
    }
}
