//! The trails of a configuration, as the legs want them.

use crate::config::{Config, StorageKind, TrailConfig};
use crate::trail::{Accounts, Logging, Selectors, Trail};

/// The trail, and its bucket, of a daemon that was told of none and stores in its own buckets.
pub const DEFAULT_TRAIL: (&str, &str) = ("MyTrail", "my-trail-logs");

/// The configured trails; with the embedded store and none configured, [`DEFAULT_TRAIL`], which takes every region of the home account.
pub fn of(config: &Config) -> Vec<Trail> {
    if config.trails.is_empty() && config.storage.kind == StorageKind::Embedded {
        return vec![default(config)];
    }
    config
        .trails
        .iter()
        .map(|trail| configured(config, trail))
        .collect()
}

/// What a trail is called in metrics and in names of files: its name, with its home when that is not the daemon's own, since there the same
/// name may be another trail.
pub fn label(trail: &Trail, config: &Config) -> String {
    let Trail {
        name,
        home_account,
        home_region,
        ..
    } = trail;
    if (*home_account, *home_region) == (config.account_id, config.region) {
        return name.to_string();
    }
    // No name has an @ in it.
    format!("{name}@{home_account}.{home_region}")
}

fn default(config: &Config) -> Trail {
    let (name, bucket) = DEFAULT_TRAIL;
    Trail {
        name: name
            .parse()
            .expect("default trail: its name is well-formed"),
        home_account: config.account_id,
        home_region: config.region,
        accounts: Accounts::Own,
        is_multi_region: true,
        include_global_service_events: true,
        bucket: bucket.to_owned(),
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

fn configured(config: &Config, trail: &TrailConfig) -> Trail {
    let accounts = match (&trail.organization_id, trail.is_organization_trail) {
        (Some(id), true) => Accounts::Organization {
            id: id.clone(),
            members: trail.organization_accounts.clone(),
        },
        _ => Accounts::Own,
    };
    Trail {
        name: trail
            .name
            .parse()
            .expect("trail name: checked with the configuration"),
        home_account: config.account_id,
        home_region: config.region,
        accounts,
        is_multi_region: trail.is_multi_region_trail,
        include_global_service_events: trail.include_global_service_events,
        bucket: trail.s3_bucket_name.clone(),
        prefix: trail.s3_key_prefix.clone(),
        kms_key_id: trail.kms_key_id.clone(),
        topic: trail.sns_topic.clone(),
        log_group: trail.cloud_watch_logs.clone(),
        event_bus: trail.event_bus.clone(),
        log_file_validation: trail.enable_log_file_validation,
        logging: Logging::Always,
        selectors: trail.selectors.clone(),
    }
}
