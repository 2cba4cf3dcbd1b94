//! The trails of the API on the disk: a line with a sum ([`snapshot::with_sum`]), then JSON. Its names are stable.
//!
//! ```text
//! {"version":1,"trails":[{"name":"main","account":"111122223333","region":"us-east-1","bucket":"audit-logs",…}]}
//! ```

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::book::{Book, Entry, InsightSelector, KeptBy, Tag};
use super::kept;
use crate::clock::WallMillis;
use crate::snapshot;
use crate::trail::selector::spec::{AdvancedEventSelector, EventSelector};
use crate::trail::{Accounts, LogGroup, Logging, Members, Selectors, Topic, Trail};

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    trails: Vec<KeptTrail>,
}

#[derive(Serialize, Deserialize)]
struct KeptTrail {
    name: String,
    account: String,
    region: String,
    bucket: String,
    prefix: String,
    kms_key_id: Option<String>,
    topic: Option<String>,
    topic_name: Option<String>,
    log_group: Option<String>,
    log_role: Option<String>,
    is_multi_region: bool,
    include_global_service_events: bool,
    log_file_validation: bool,
    organization: Option<KeptOrganization>,
    event_selectors: Vec<EventSelector>,
    advanced_event_selectors: Vec<AdvancedEventSelector>,
    insight_selectors: Vec<InsightSelector>,
    tags: Vec<Tag>,
    logging: Logging,
    /// Milliseconds since 1970.
    started_at: Option<i64>,
    stopped_at: Option<i64>,
    is_deleted: bool,
}

#[derive(Serialize, Deserialize)]
struct KeptOrganization {
    id: String,
    /// Nothing for every account.
    accounts: Option<Vec<String>>,
}

/// What is kept. Blocking. A file that cannot be understood is put aside.
pub fn read(path: &Path, now: WallMillis) -> io::Result<Vec<Entry>> {
    const LOSS: &str = "the trails that were made through the API cannot be read and are gone until they are made again; what they had \
                        sealed is delivered once they are; the file is kept aside";
    kept::read(path, now, entries, LOSS)
}

/// Blocking, durable when it returns.
pub fn write(path: &Path, book: &Book) -> io::Result<()> {
    let kept = Kept {
        version: VERSION,
        trails: book.kept().map(KeptTrail::from).collect(),
    };
    let json = serde_json::to_vec(&kept)?;
    snapshot::replace(path, &snapshot::with_sum(&json))
}

/// Or what is wrong.
fn entries(json: &[u8]) -> Result<Vec<Entry>, String> {
    let kept: Kept = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    if kept.version != VERSION {
        return Err(format!("it is of version {}", kept.version));
    }
    kept.trails.into_iter().map(KeptTrail::into_entry).collect()
}

impl From<&Entry> for KeptTrail {
    fn from(entry: &Entry) -> Self {
        let Entry {
            trail,
            kept_by,
            topic_name,
            tags,
            insight_selectors,
            started_at,
            stopped_at,
        } = entry;
        let Trail {
            name,
            home_account,
            home_region,
            accounts,
            is_multi_region,
            include_global_service_events,
            bucket,
            prefix,
            kms_key_id,
            topic,
            log_group,
            // The API has no word for it.
            event_bus: _,
            log_file_validation,
            logging,
            selectors,
        } = &**trail;
        let organization = match accounts {
            Accounts::Own => None,
            Accounts::Organization { id, members } => Some(KeptOrganization {
                id: id.clone(),
                accounts: match members {
                    Members::Every => None,
                    Members::Listed(listed) => {
                        Some(listed.iter().map(ToString::to_string).collect())
                    }
                },
            }),
        };
        let role = log_group.as_ref().and_then(LogGroup::role_arn);
        Self {
            name: name.to_string(),
            account: home_account.to_string(),
            region: home_region.to_string(),
            bucket: bucket.clone(),
            prefix: prefix.clone(),
            kms_key_id: kms_key_id.clone(),
            topic: topic.as_ref().map(|topic| topic.arn().to_owned()),
            topic_name: topic_name.clone(),
            log_group: log_group.as_ref().map(|group| group.arn().to_owned()),
            log_role: role.map(str::to_owned),
            is_multi_region: *is_multi_region,
            include_global_service_events: *include_global_service_events,
            log_file_validation: *log_file_validation,
            organization,
            event_selectors: selectors.event_selectors().to_vec(),
            advanced_event_selectors: selectors.advanced_event_selectors().to_vec(),
            insight_selectors: insight_selectors.clone(),
            tags: tags.clone(),
            logging: logging.clone(),
            started_at: started_at.map(|at| at.0),
            stopped_at: stopped_at.map(|at| at.0),
            is_deleted: *kept_by == KeptBy::Nobody,
        }
    }
}

impl KeptTrail {
    fn into_entry(self) -> Result<Entry, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("of trail {}: {error}", self.name);
        let accounts = match &self.organization {
            None => Accounts::Own,
            Some(KeptOrganization { id, accounts }) => Accounts::Organization {
                id: id.clone(),
                members: match accounts {
                    None => Members::Every,
                    Some(listed) => {
                        let listed = listed.iter().map(|account| account.parse());
                        let listed: Result<BTreeSet<_>, _> = listed.collect();
                        Members::Listed(listed.map_err(|error| wrong(&error))?)
                    }
                },
            },
        };
        let selectors = match (&*self.event_selectors, &*self.advanced_event_selectors) {
            ([], []) => Ok(Selectors::Everything),
            (basic, []) => Selectors::basic(basic.to_vec()),
            (_, advanced) => Selectors::advanced(advanced.to_vec()),
        };
        let topic = self.topic.as_deref().map(str::parse::<Topic>).transpose();
        let log_group = self.log_group.as_deref().map(str::parse::<LogGroup>);
        let log_group = log_group.transpose().map_err(|error| wrong(&error))?;
        let trail = Trail {
            name: self.name.parse().map_err(|error| wrong(&error))?,
            home_account: self.account.parse().map_err(|error| wrong(&error))?,
            home_region: self.region.parse().map_err(|error| wrong(&error))?,
            accounts,
            is_multi_region: self.is_multi_region,
            include_global_service_events: self.include_global_service_events,
            topic: topic.map_err(|error| wrong(&error))?,
            log_group: log_group.map(|group| group.with_role(self.log_role.clone())),
            event_bus: None,
            log_file_validation: self.log_file_validation,
            selectors: selectors.map_err(|error| wrong(&error))?,
            logging: self.logging,
            bucket: self.bucket,
            prefix: self.prefix,
            kms_key_id: self.kms_key_id,
        };
        Ok(Entry {
            topic_name: self.topic_name,
            tags: self.tags,
            insight_selectors: self.insight_selectors,
            started_at: self.started_at.map(WallMillis),
            stopped_at: self.stopped_at.map(WallMillis),
            ..Entry::new(
                trail,
                match self.is_deleted {
                    true => KeptBy::Nobody,
                    false => KeptBy::Api,
                },
            )
        })
    }
}
