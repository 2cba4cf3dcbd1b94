//! The trails as values, with what the API knows of each besides. Pure.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::channels::{Channel, Channels};
use crate::clock::WallMillis;
use crate::event::{AccountId, Region};
use crate::trail::{Accounts, Logging, Trail};
use crate::wal::Position;

/// Trails of one account that a region sees: its own, and those of all regions (CloudTrail user guide, "quotas"). Those of the
/// configuration do not count.
pub const MAX_TRAILS_A_REGION: usize = 5;

/// Trails of the API of all accounts and regions together, the deleted ones with them. Each has legs of its own to run, and whoever may sign
/// for many accounts could make five in each.
pub const MAX_TRAILS: usize = 200;

/// Times that a trail was started, of which the journal still holds something.
pub const MAX_SPANS: usize = 1000;

/// The trails, those of the configuration first, the others as they were made; and the channels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Book {
    entries: Vec<Arc<Entry>>,
    /// Trails of the API whose ARN one of the configuration has now. They are back when that is taken out.
    covered: Vec<Arc<Entry>>,
    pub channels: Channels,
}

/// A trail, and what is kept with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub trail: Arc<Trail>,
    pub kept_by: KeptBy,
    /// The topic as it was given, by its name or its ARN.
    pub topic_name: Option<String>,
    pub tags: Vec<Tag>,
    pub insight_selectors: Vec<InsightSelector>,
    /// When logging was last started, and last stopped.
    pub started_at: Option<WallMillis>,
    pub stopped_at: Option<WallMillis>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptBy {
    /// The configuration file, so that the API changes nothing of it.
    Configuration,
    Api,
    /// It is deleted, and something of it may be left to deliver.
    Nobody,
}

/// A tag of a trail or a channel (API reference, `Tag`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Tag {
    #[serde(default)]
    pub key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// An insight selector as given; its words are checked where it comes in (API reference, `InsightSelector`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InsightSelector {
    #[serde(default)]
    pub insight_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_categories: Option<Vec<String>>,
}

/// Why there cannot be one more trail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    #[error("account {account} has already a trail {arn}")]
    Exists { account: AccountId, arn: String },
    #[error("account {account} has already {MAX_TRAILS_A_REGION} trails in {region}")]
    InRegion { account: AccountId, region: Region },
    #[error("traild has already {MAX_TRAILS} trails of all accounts together")]
    InAll,
}

/// Logging was started and stopped so often that the journal has to move on first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "logging was started {MAX_SPANS} times within what the journal still holds: try again when more of it is delivered"
)]
pub struct StartedTooOften;

impl Entry {
    /// A new trail.
    pub fn new(trail: Trail, kept_by: KeptBy) -> Self {
        Self {
            trail: Arc::new(trail),
            kept_by,
            topic_name: None,
            tags: Vec::new(),
            insight_selectors: Vec::new(),
            started_at: None,
            stopped_at: None,
        }
    }

    /// Changes its trail.
    pub fn trail_mut(&mut self) -> &mut Trail {
        Arc::make_mut(&mut self.trail)
    }

    /// StartLogging, with what the journal holds. Nothing when it is on.
    pub fn start(
        &mut self,
        journal: &Range<Position>,
        now: WallMillis,
    ) -> Result<(), StartedTooOften> {
        if self.trail.logging.is_on() {
            return Ok(());
        }
        let logging = &mut self.trail_mut().logging;
        logging.forget(journal.start);
        if matches!(logging, Logging::Spans(spans) if spans.len() >= MAX_SPANS) {
            return Err(StartedTooOften);
        }
        logging.start(journal.end);
        self.started_at = Some(now);
        Ok(())
    }

    /// StopLogging, with what the journal holds. Nothing when it is off.
    pub fn stop(&mut self, journal: &Range<Position>, now: WallMillis) {
        if self.trail.logging.is_on() {
            self.trail_mut().logging.stop(journal.end);
            self.stopped_at = Some(now);
        }
    }

    /// Whether a caller of this account sees it from this region.
    fn is_seen(&self, account: AccountId, region: Region) -> bool {
        let Trail {
            home_account,
            home_region,
            is_multi_region,
            ..
        } = &*self.trail;
        *home_account == account && (*is_multi_region || *home_region == region)
    }

    fn is_same(&self, other: &Self) -> bool {
        let identity = |entry: &Self| {
            let trail = &entry.trail;
            (trail.home_account, trail.home_region, trail.name.clone())
        };
        identity(self) == identity(other)
    }
}

impl Book {
    /// The configuration's trails, and those that were kept for the API.
    pub fn new(configured: Vec<Trail>, kept: Vec<Entry>) -> Self {
        let mut book = Self::default();
        for trail in configured {
            let entry = Entry::new(trail, KeptBy::Configuration);
            book.entries.push(Arc::new(entry));
        }
        for entry in kept.into_iter().map(Arc::new) {
            let is_covered = book.entries.iter().any(|other| other.is_same(&entry));
            match is_covered {
                true => {
                    let arn = entry.trail.arn();
                    tracing::warn!(
                        arn,
                        "the configuration has a trail that was made through the API: the configuration's is the one that counts"
                    );
                    book.covered.push(entry);
                }
                false => book.entries.push(entry),
            }
        }
        book
    }

    pub fn with_channels(self, kept: Vec<Channel>) -> Self {
        Self {
            channels: Channels::new(kept),
            ..self
        }
    }

    /// The trails that there are.
    pub fn trails(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let entries = self.entries.iter();
        entries.filter(|entry| entry.kept_by != KeptBy::Nobody)
    }

    /// Those, and the deleted ones of which something may be left.
    pub fn running(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter()
    }

    pub fn deleted(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let entries = self.entries.iter();
        entries.filter(|entry| entry.kept_by == KeptBy::Nobody)
    }

    /// Those of the API, as they are kept.
    pub fn kept(&self) -> impl Iterator<Item = &Entry> {
        let entries = self.entries.iter().chain(&self.covered);
        let entries = entries.map(|entry| &**entry);
        entries.filter(|entry| entry.kept_by != KeptBy::Configuration)
    }

    /// The trail of this ARN, to be changed.
    pub fn trail_mut(&mut self, arn: &str) -> Option<&mut Entry> {
        let is_meant =
            |entry: &&mut Arc<Entry>| entry.kept_by != KeptBy::Nobody && entry.trail.arn() == arn;
        self.entries.iter_mut().find(is_meant).map(Arc::make_mut)
    }

    /// What the organization trails are of: the organization of the first of the configuration.
    pub fn organization(&self) -> Option<&Accounts> {
        let configured = self
            .entries
            .iter()
            .filter(|entry| entry.kept_by == KeptBy::Configuration);
        let mut accounts = configured.map(|entry| &entry.trail.accounts);
        accounts.find(|accounts| matches!(accounts, Accounts::Organization { .. }))
    }

    /// Whether there may be this one, too.
    pub fn has_room(&self, new: &Entry) -> Result<(), NoRoom> {
        let (account, region) = (new.trail.home_account, new.trail.home_region);
        if self.trails().any(|entry| entry.is_same(new)) {
            let arn = new.trail.arn();
            return Err(NoRoom::Exists { account, arn });
        }
        let of_api = |entry: &&Arc<Entry>| entry.kept_by == KeptBy::Api;
        let seen = self.trails().filter(of_api);
        let seen = seen.filter(|entry| entry.is_seen(account, region));
        if seen.count() >= MAX_TRAILS_A_REGION {
            return Err(NoRoom::InRegion { account, region });
        }
        if self.kept().count() >= MAX_TRAILS {
            return Err(NoRoom::InAll);
        }
        Ok(())
    }

    /// One more trail. If one of its ARN is deleted and has something left to deliver, that is the new one's to deliver.
    pub fn create(&mut self, mut new: Entry) -> Result<(), NoRoom> {
        self.has_room(&new)?;
        if let Some(left) = self.entries.iter().position(|entry| entry.is_same(&new)) {
            let left = self.entries.remove(left);
            new.trail_mut().logging = left.trail.logging.clone();
        }
        self.entries.push(Arc::new(new));
        Ok(())
    }

    /// Deletes the trail of this ARN, with what the journal holds.
    pub fn delete(&mut self, arn: &str, journal: &Range<Position>, now: WallMillis) {
        if let Some(entry) = self.trail_mut(arn) {
            entry.stop(journal, now);
            entry.kept_by = KeptBy::Nobody;
        }
    }

    /// The newest start or stop of these trails, deleted or not, is no earlier than `at`.
    pub fn settle(&mut self, arns: &BTreeSet<String>, at: Position) {
        let meant = |entry: &&mut Arc<Entry>| arns.contains(&entry.trail.arn());
        for entry in self.entries.iter_mut().filter(meant) {
            Arc::make_mut(entry).trail_mut().logging.settle(at);
        }
    }

    /// Forgets a deleted trail; one that is there stays.
    pub fn forget(&mut self, arn: &str) {
        let is_meant = |entry: &Entry| entry.kept_by == KeptBy::Nobody && entry.trail.arn() == arn;
        self.entries.retain(|entry| !is_meant(entry));
    }
}

/// What a new trail of the API records: nothing before StartLogging.
pub const NOT_STARTED: Logging = Logging::Spans(Vec::new());
