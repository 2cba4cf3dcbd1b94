//! Where in a bucket digests should be: its accounts and regions, found by listing when nobody names them.
//!
//! The folders of log files tell as well as those of digests: of a chain that is gone, they are what is left.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::Asked;
use super::source::Source;
use crate::digest::key::{DigestKey, FOLDER};
use crate::digest::{Chain, Location, moment};
use crate::event::{AccountId, Folder, Region};
use crate::logfile::key::above_account;

/// No window is longer, and the last digest of a range may end this much after it (as for the AWS CLI).
pub const LONGEST_WINDOW: i64 = 3600;

const DAY: i64 = 86_400;

const LOG_FOLDERS: [Folder; 3] = [Folder::CloudTrail, Folder::Insight, Folder::NetworkActivity];

/// The digests and log files of an account in a region, those of all trails with the same prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub bucket: String,
    pub prefix: String,
    pub organization_id: Option<String>,
    pub account: AccountId,
    pub region: Region,
}

/// The places that are asked for.
pub async fn places(source: &Source, asked: &Asked) -> anyhow::Result<Vec<Place>> {
    let Asked { bucket, prefix, .. } = asked;
    let top = above_account(prefix, None);
    let mut organizations = Vec::new();
    match &asked.organization {
        Some(id) => organizations.push(Some(id.clone())),
        None => {
            organizations.push(None);
            let folders = source.folders(bucket, &top).await?;
            let ids = folders.into_iter().filter(|name| name.starts_with("o-"));
            organizations.extend(ids.map(Some));
        }
    }
    let mut places = Vec::new();
    for organization_id in organizations {
        let above = above_account(prefix, organization_id.as_deref());
        let accounts: Vec<AccountId> = match asked.account {
            Some(account) => vec![account],
            None => parsed(source.folders(bucket, &above).await?),
        };
        for account in accounts {
            let regions: Vec<Region> = match asked.region {
                Some(region) => vec![region],
                None => {
                    let mut names = BTreeSet::new();
                    for folder in LOG_FOLDERS
                        .map(|it| it.as_str())
                        .into_iter()
                        .chain([FOLDER])
                    {
                        let folder = format!("{above}{account}/{folder}/");
                        names.extend(source.folders(bucket, &folder).await?);
                    }
                    parsed(names)
                }
            };
            places.extend(regions.into_iter().map(|region| Place {
                bucket: bucket.clone(),
                prefix: prefix.clone(),
                organization_id: organization_id.clone(),
                account,
                region,
            }));
        }
    }
    Ok(places)
}

fn parsed<T: std::str::FromStr>(names: impl IntoIterator<Item = String>) -> Vec<T> {
    let names = names.into_iter();
    names.filter_map(|name| name.parse().ok()).collect()
}

impl Place {
    /// That of a digest in `bucket`.
    pub fn of(bucket: &str, chain: &Chain) -> Self {
        Self {
            bucket: bucket.to_owned(),
            prefix: chain.prefix.clone(),
            organization_id: chain.organization_id.clone(),
            account: chain.account,
            region: chain.source_region,
        }
    }

    pub fn folder(&self, name: &str) -> String {
        let above = above_account(&self.prefix, self.organization_id.as_deref());
        format!("{above}{}/{name}/{}/", self.account, self.region)
    }

    pub fn log_folders(&self) -> [String; 3] {
        LOG_FOLDERS.map(|it| self.folder(it.as_str()))
    }

    /// The digests of all trails here whose windows end within the time asked for, or up to an hour after it. Of a chain that
    /// ends before, the last one: it shows since when others are missing.
    pub async fn digests(&self, source: &Source, asked: &Asked) -> anyhow::Result<Vec<Entry>> {
        let from = asked.start.unwrap_or(i64::MIN);
        let until = asked
            .end
            .map_or(i64::MAX, |end| end.saturating_add(LONGEST_WINDOW));
        let mut within: Vec<Entry> = Vec::new();
        let mut before: Vec<Entry> = Vec::new();
        let folder = self.folder(FOLDER);
        let take = |page: Vec<super::source::Listed>| {
            for listed in page {
                let Some(key) = DigestKey::parse(&listed.key) else {
                    continue;
                };
                if key.end.saturating_sub(DAY) > until {
                    return ControlFlow::Break(());
                }
                let location = Location {
                    bucket: self.bucket.clone(),
                    key: listed.key,
                };
                let is_before = key.end < from;
                let entry = Entry { location, key };
                if is_before {
                    let same = before.iter_mut().find(|it| it.key.chain == entry.key.chain);
                    match same {
                        Some(earlier) if earlier.key.end <= entry.key.end => *earlier = entry,
                        Some(_) => {}
                        None => before.push(entry),
                    }
                } else if entry.key.end <= until {
                    within.push(entry);
                }
            }
            ControlFlow::Continue(())
        };
        source.list(&self.bucket, &folder, "", take).await?;
        before.retain(|it| within.iter().all(|other| other.key.chain != it.key.chain));
        within.extend(before);
        Ok(within)
    }

    /// From where to where in a folder of log files those are that were delivered from `start` to `end`, seconds since 1970. Names have
    /// days; an upload may have taken until the next.
    pub fn log_range(folder: &str, start: i64, end: i64) -> (String, String) {
        let day = |seconds: i64| {
            let text = moment::text(seconds);
            format!("{folder}{}/{}/{}/", &text[..4], &text[5..7], &text[8..10])
        };
        (
            day(start.saturating_sub(DAY)),
            day(end.saturating_add(2 * DAY)),
        )
    }
}

/// A digest that is in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub location: Location,
    pub key: DigestKey,
}
