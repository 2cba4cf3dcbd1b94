//! What callers set a trail to: the members that CreateTrail and UpdateTrail share (API reference).
//!
//! What is left out is unchanged. An empty text removes what can be removed: the prefix, the topic, the KMS key, the log group with its role.
//!
//! A log group may stand without a role, which CloudTrail does not allow: traild's own credentials write to it then.

use serde::Deserialize;

use super::preflight::Anew;
use super::{Call, Error};
use crate::event::refusal::shown;
use crate::registry::Entry;
use crate::trail::{Accounts, LogGroup, Topic, Trail, names};

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Given {
    s3_bucket_name: Option<String>,
    s3_key_prefix: Option<String>,
    sns_topic_name: Option<String>,
    include_global_service_events: Option<bool>,
    is_multi_region_trail: Option<bool>,
    enable_log_file_validation: Option<bool>,
    cloud_watch_logs_log_group_arn: Option<String>,
    cloud_watch_logs_role_arn: Option<String>,
    kms_key_id: Option<String>,
    is_organization_trail: Option<bool>,
}

impl Given {
    /// The same for a new trail, which has no bucket yet.
    pub fn with_bucket(self) -> Self {
        Self {
            s3_bucket_name: Some(self.s3_bucket_name.unwrap_or_default()),
            ..self
        }
    }

    /// Sets the trail to it; what of that is to be asked for before.
    pub fn apply(self, entry: &mut Entry, call: &Call<'_>) -> Result<Anew, Error> {
        let Self {
            s3_bucket_name,
            s3_key_prefix,
            sns_topic_name,
            include_global_service_events,
            is_multi_region_trail,
            enable_log_file_validation,
            cloud_watch_logs_log_group_arn,
            cloud_watch_logs_role_arn,
            kms_key_id,
            is_organization_trail,
        } = self;
        let mut anew = Anew::default();
        if let Some(bucket) = s3_bucket_name {
            names::bucket(&bucket).map_err(|problem| Error::InvalidS3BucketName {
                given: shown(bucket.as_bytes(), 64),
                problem,
            })?;
            entry.trail_mut().bucket = bucket;
        }
        if let Some(prefix) = s3_key_prefix {
            names::key_prefix(&prefix).map_err(|problem| Error::InvalidS3Prefix {
                given: shown(prefix.as_bytes(), 64),
                problem,
            })?;
            entry.trail_mut().prefix = prefix;
        }
        if let Some(name) = sns_topic_name {
            let topic = topic(&name, &entry.trail)?;
            anew.topic = topic.is_some();
            entry.topic_name = topic.is_some().then_some(name);
            entry.trail_mut().topic = topic;
        }
        if cloud_watch_logs_log_group_arn.is_some() || cloud_watch_logs_role_arn.is_some() {
            let group = log_group(
                entry.trail.log_group.as_ref(),
                cloud_watch_logs_log_group_arn,
                cloud_watch_logs_role_arn,
            )?;
            anew.log_group = group.is_some();
            entry.trail_mut().log_group = group;
        }
        if let Some(key) = kms_key_id {
            let key = (!key.is_empty()).then_some(key);
            if let Some(key) = &key {
                names::kms_key(key).map_err(|problem| Error::InvalidKmsKeyId {
                    given: shown(key.as_bytes(), 128),
                    problem,
                })?;
            }
            entry.trail_mut().kms_key_id = key;
        }
        if let Some(is_organization) = is_organization_trail {
            let accounts = accounts(is_organization, &entry.trail, call)?;
            entry.trail_mut().accounts = accounts;
        }
        let trail = entry.trail_mut();
        set(&mut trail.is_multi_region, is_multi_region_trail);
        set(
            &mut trail.include_global_service_events,
            include_global_service_events,
        );
        set(&mut trail.log_file_validation, enable_log_file_validation);
        if trail.is_multi_region && !trail.include_global_service_events {
            return Err(Error::InvalidParameterCombination(
                "a trail of all regions includes global service events: IncludeGlobalServiceEvents cannot be false with IsMultiRegionTrail true",
            ));
        }
        Ok(anew)
    }
}

fn set(member: &mut bool, given: Option<bool>) {
    *member = given.unwrap_or(*member);
}

/// A topic by its ARN, or by its name in the trail's account and home region.
fn topic(given: &str, trail: &Trail) -> Result<Option<Topic>, Error> {
    let wrong = |problem: String| Error::InvalidSnsTopicName {
        given: shown(given.as_bytes(), 128),
        problem,
    };
    if given.is_empty() {
        return Ok(None);
    }
    if given.chars().count() > 256 {
        return Err(wrong("has more than 256 characters".to_owned()));
    }
    let arn = match given.starts_with("arn:") {
        true => given.to_owned(),
        false => format!(
            "arn:aws:sns:{}:{}:{given}",
            trail.home_region, trail.home_account
        ),
    };
    let topic = arn.parse::<Topic>().map_err(|error| wrong(error.0))?;
    Ok(Some(topic))
}

/// The log group and its role, which a request may name one by one.
fn log_group(
    before: Option<&LogGroup>,
    group: Option<String>,
    role: Option<String>,
) -> Result<Option<LogGroup>, Error> {
    let role = role.or_else(|| {
        // A group that is removed takes its role with it.
        let goes_with_it = group.as_deref() == Some("");
        before
            .filter(|_| !goes_with_it)
            .and_then(|before| before.role_arn().map(str::to_owned))
    });
    let group = group.or_else(|| before.map(|before| before.arn().to_owned()));
    let group = group.filter(|group| !group.is_empty());
    let role = role.filter(|role| !role.is_empty());
    if let Some(role) = &role {
        names::role_arn(role).map_err(|problem| Error::InvalidLogRoleArn {
            given: shown(role.as_bytes(), 128),
            problem,
        })?;
    }
    let Some(arn) = group else {
        return match role {
            None => Ok(None),
            Some(_) => Err(Error::InvalidParameterCombination(
                "CloudWatchLogsRoleArn needs a CloudWatchLogsLogGroupArn",
            )),
        };
    };
    let group = arn.parse::<LogGroup>();
    let group = group.map_err(|error| Error::InvalidLogGroupArn {
        given: shown(arn.as_bytes(), 128),
        problem: error.0,
    })?;
    Ok(Some(group.with_role(role)))
}

/// Whose events an organization trail takes: those of the organization that the configuration knows. Its management account is the home account.
fn accounts(is_organization: bool, trail: &Trail, call: &Call<'_>) -> Result<Accounts, Error> {
    match (is_organization, &trail.accounts) {
        (false, _) => return Ok(Accounts::Own),
        (true, Accounts::Organization { .. }) => return Ok(trail.accounts.clone()),
        (true, Accounts::Own) => {}
    }
    if call.caller.account != call.home.account {
        return Err(Error::NotOrganizationMasterAccount(call.caller.account));
    }
    let book = call.home.registry.book();
    book.organization().cloned().ok_or(Error::NoOrganization)
}
