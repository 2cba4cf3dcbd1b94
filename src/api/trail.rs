//! A trail in the API's words: how requests name one, who may change it, and how answers describe it (API reference, `Trail`).

use std::sync::Arc;

use serde::Serialize;

use super::{Call, Error};
use crate::event::refusal::shown;
use crate::event::{AccountId, Region};
use crate::registry::{Entry, KeptBy};
use crate::trail::arn::Arn;
use crate::trail::selector::spec::EventSelector;
use crate::trail::{Selectors, Topic, Trail, TrailName};

/// What a request names a trail by. It need not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// Only in the account and the region of the request.
    Name(TrailName),
    /// From everywhere.
    Arn(String),
}

impl Named {
    /// A name or an ARN, as the member `Name` of most requests takes either.
    pub fn parse(given: &str) -> Result<Self, Error> {
        if given.starts_with("arn:") {
            let arn = Arn::regional(given, "cloudtrail");
            let name = arn.and_then(|arn| arn.resource.strip_prefix("trail/"));
            return match name.map(str::parse::<TrailName>) {
                Some(Ok(_)) => Ok(Self::Arn(given.to_owned())),
                _ => Err(Error::CloudTrailArnInvalid(shown(given.as_bytes(), 256))),
            };
        }
        given
            .parse()
            .map(Self::Name)
            .map_err(|reason| Error::InvalidTrailName {
                given: shown(given.as_bytes(), 128),
                reason,
            })
    }

    /// Whether a request of `account` in `region` names this trail. An account sees its own trails only.
    pub fn is(&self, trail: &Trail, account: AccountId, region: Region) -> bool {
        let is_named = match self {
            Self::Name(name) => trail.home_region == region && trail.name == *name,
            Self::Arn(arn) => trail.arn() == *arn,
        };
        is_named && trail.home_account == account
    }
}

/// The trail that is given by its name or ARN, to be read.
pub fn found(call: &Call<'_>, given: &str) -> Result<Arc<Entry>, Error> {
    let named = Named::parse(given)?;
    let book = call.home.registry.book();
    let found = book
        .trails()
        .find(|entry| named.is(&entry.trail, call.caller.account, call.region))
        .cloned();
    found.ok_or_else(|| not_found(call.caller.account, given))
}

/// The trail that is given by its name or ARN, to be changed: one of the API, asked for where it is at home.
pub fn changeable(call: &Call<'_>, given: &str) -> Result<Arc<Entry>, Error> {
    let entry = found(call, given)?;
    let home = entry.trail.home_region;
    if home != call.region {
        return Err(Error::InvalidHomeRegion {
            arn: entry.trail.arn(),
            home,
            asked: call.region,
        });
    }
    of_api(&entry)?;
    Ok(entry)
}

/// That the API may change it.
pub fn of_api(entry: &Entry) -> Result<(), Error> {
    match entry.kept_by {
        KeptBy::Configuration => Err(Error::ReadOnly(entry.trail.arn())),
        KeptBy::Api | KeptBy::Nobody => Ok(()),
    }
}

/// Changes the trail that is given by its name or ARN.
pub async fn change<T: Send + 'static>(
    call: &Call<'_>,
    given: &str,
    change: impl FnOnce(&mut Entry) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let entry = changeable(call, given)?;
    change_entry(call, &entry, change).await
}

/// Changes this trail, if it is still there.
pub async fn change_entry<T: Send + 'static>(
    call: &Call<'_>,
    entry: &Entry,
    change: impl FnOnce(&mut Entry) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (account, arn) = (call.caller.account, entry.trail.arn());
    let changed = call.home.registry.change(move |book| {
        let entry = book
            .trail_mut(&arn)
            .ok_or_else(|| not_found(account, &arn))?;
        change(entry)
    });
    changed.await
}

pub fn not_found(account: AccountId, given: &str) -> Error {
    Error::TrailNotFound {
        given: shown(given.as_bytes(), 256),
        account,
    }
}

/// What a trail is set to, as CreateTrail and UpdateTrail answer. What is not configured is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Settings {
    pub name: String,
    pub s3_bucket_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3_key_prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sns_topic_name: Option<String>,
    #[serde(rename = "SnsTopicARN", skip_serializing_if = "Option::is_none")]
    pub sns_topic_arn: Option<String>,
    pub include_global_service_events: bool,
    pub is_multi_region_trail: bool,
    #[serde(rename = "TrailARN")]
    pub trail_arn: String,
    pub log_file_validation_enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_watch_logs_log_group_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_watch_logs_role_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    pub is_organization_trail: bool,
}

/// `Trail` of GetTrail and DescribeTrails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Described {
    #[serde(flatten)]
    settings: Settings,
    home_region: String,
    has_custom_event_selectors: bool,
    has_insight_selectors: bool,
}

impl Settings {
    pub fn new(entry: &Entry) -> Self {
        let Trail {
            name,
            home_account: _,
            home_region: _,
            accounts: _,
            is_multi_region,
            include_global_service_events,
            bucket,
            prefix,
            kms_key_id,
            topic,
            log_group,
            // Traild's own, which the shape has no member for.
            event_bus: _,
            log_file_validation,
            logging: _,
            selectors: _,
        } = &*entry.trail;
        let role = log_group.as_ref().and_then(|group| group.role_arn());
        // As it was given, where it was: Terraform compares the two.
        let topic_name = entry.topic_name.clone();
        Self {
            name: name.to_string(),
            s3_bucket_name: bucket.clone(),
            s3_key_prefix: (!prefix.is_empty()).then(|| prefix.clone()),
            sns_topic_name: topic_name.or_else(|| topic.as_ref().map(topic_name_of)),
            sns_topic_arn: topic.as_ref().map(|topic| topic.arn().to_owned()),
            include_global_service_events: *include_global_service_events,
            is_multi_region_trail: *is_multi_region,
            trail_arn: entry.trail.arn(),
            log_file_validation_enabled: *log_file_validation,
            cloud_watch_logs_log_group_arn: log_group
                .as_ref()
                .map(|group| with_streams(group.arn())),
            cloud_watch_logs_role_arn: role.map(str::to_owned),
            kms_key_id: kms_key_id.clone(),
            is_organization_trail: entry.trail.organization_id().is_some(),
        }
    }
}

impl Described {
    pub fn new(entry: &Entry) -> Self {
        Self {
            settings: Settings::new(entry),
            home_region: entry.trail.home_region.to_string(),
            has_custom_event_selectors: has_custom_selectors(&entry.trail.selectors),
            has_insight_selectors: !entry.insight_selectors.is_empty(),
        }
    }
}

/// Whether it chooses something else than what CloudTrail gives a new trail.
fn has_custom_selectors(selectors: &Selectors) -> bool {
    match selectors {
        Selectors::Everything => false,
        Selectors::Basic(_) => selectors.event_selectors() != [EventSelector::default()],
        Selectors::Advanced(_) => true,
    }
}

/// What follows the last colon of its ARN.
fn topic_name_of(topic: &Topic) -> String {
    let arn = topic.arn();
    arn.rsplit(':').next().unwrap_or(arn).to_owned()
}

/// A log group's ARN as CloudTrail writes it: with `:*` for its streams.
fn with_streams(arn: &str) -> String {
    format!("{}:*", arn.strip_suffix(":*").unwrap_or(arn))
}

/// The ARN of the trail that a request names, in the words of policies: a name is one of the caller's own.
pub fn resource(given: &str, call: &Call<'_>) -> String {
    if given.starts_with("arn:") {
        return given.to_owned();
    }
    let account = call.caller.account;
    format!("arn:aws:cloudtrail:{}:{account}:trail/{given}", call.region)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trail::tests::trail;
    use crate::trail::{Accounts, Members};

    fn of(trail: Trail) -> Entry {
        Entry::new(trail, KeptBy::Configuration)
    }

    #[test]
    fn a_plain_trail_is_described_without_what_it_has_not() {
        assert_eq!(
            serde_json::to_string(&Described::new(&of(trail()))).unwrap(),
            concat!(
                r#"{"Name":"main","S3BucketName":"audit-logs","IncludeGlobalServiceEvents":true,"IsMultiRegionTrail":true,"#,
                r#""TrailARN":"arn:aws:cloudtrail:us-east-1:111122223333:trail/main","LogFileValidationEnabled":true,"#,
                r#""IsOrganizationTrail":false,"HomeRegion":"us-east-1","HasCustomEventSelectors":false,"HasInsightSelectors":false}"#
            )
        );
    }

    #[test]
    fn a_trail_with_everything_is_described_with_every_member_of_the_shape() {
        let role = "arn:aws:iam::111122223333:role/r".to_owned();
        let group = "arn:aws:logs:us-east-1:111122223333:log-group:trail";
        let mut everything = of(Trail {
            accounts: Accounts::Organization {
                id: "o-exampleorgid".to_owned(),
                members: Members::Every,
            },
            is_multi_region: false,
            include_global_service_events: false,
            prefix: "a/b".to_owned(),
            kms_key_id: Some("alias/k".to_owned()),
            topic: Some("arn:aws:sns:us-east-1:111122223333:told".parse().unwrap()),
            log_group: Some(
                group
                    .parse::<crate::trail::LogGroup>()
                    .unwrap()
                    .with_role(Some(role.clone())),
            ),
            log_file_validation: false,
            selectors: Selectors::basic(vec![
                serde_json::from_str(r#"{"ReadWriteType":"ReadOnly"}"#).unwrap(),
            ])
            .unwrap(),
            ..trail()
        });
        everything.insight_selectors = vec![crate::registry::InsightSelector {
            insight_type: "ApiCallRateInsight".to_owned(),
            event_categories: None,
        }];
        let described = |topic_name: &str| {
            serde_json::json!({
                "Name": "main", "S3BucketName": "audit-logs", "S3KeyPrefix": "a/b",
                "SnsTopicName": topic_name, "SnsTopicARN": "arn:aws:sns:us-east-1:111122223333:told",
                "IncludeGlobalServiceEvents": false, "IsMultiRegionTrail": false, "HomeRegion": "us-east-1",
                "TrailARN": "arn:aws:cloudtrail:us-east-1:111122223333:trail/main", "LogFileValidationEnabled": false,
                "CloudWatchLogsLogGroupArn": format!("{group}:*"), "CloudWatchLogsRoleArn": role,
                "KmsKeyId": "alias/k", "HasCustomEventSelectors": true, "HasInsightSelectors": true,
                "IsOrganizationTrail": true,
            })
        };
        let shown = |entry: &Entry| serde_json::to_value(Described::new(entry)).unwrap();
        assert_eq!(shown(&everything), described("told"));
        let arn = "arn:aws:sns:us-east-1:111122223333:told";
        everything.topic_name = Some(arn.to_owned());
        assert_eq!(shown(&everything), described(arn), "as it was given");
        assert_eq!(with_streams(&format!("{group}:*")), format!("{group}:*"));
    }

    #[test]
    fn the_selectors_of_a_new_trail_are_not_custom() {
        let default = Selectors::basic(vec![EventSelector::default()]).unwrap();
        assert!(!has_custom_selectors(&default));
        assert!(!has_custom_selectors(&Selectors::Everything));
    }

    #[test]
    fn a_trail_is_named_by_its_name_at_home_and_by_its_arn_from_everywhere() {
        let (trail, home, away) = (
            trail(),
            "us-east-1".parse().unwrap(),
            "eu-west-1".parse().unwrap(),
        );
        let own = trail.home_account;
        let foreign = "999988887777".parse().unwrap();
        let arn = Named::parse(&trail.arn()).unwrap();
        assert!(arn.is(&trail, own, home) && arn.is(&trail, own, away));
        assert!(!arn.is(&trail, foreign, home));
        let name = Named::parse("main").unwrap();
        assert!(name.is(&trail, own, home) && !name.is(&trail, own, away));
        assert!(!name.is(&trail, foreign, home));
        for other in [
            "Main",
            "arn:aws:cloudtrail:eu-west-1:111122223333:trail/main",
            "arn:aws-cn:cloudtrail:us-east-1:111122223333:trail/main",
        ] {
            let other_trail = Named::parse(other).unwrap();
            assert!(!other_trail.is(&trail, own, home), "{other}");
        }
    }

    #[test]
    fn what_can_name_no_trail_is_refused_as_a_name_or_as_an_arn() {
        for (given, code) in [
            ("", "InvalidTrailNameException"),
            ("ab", "InvalidTrailNameException"),
            ("-ab", "InvalidTrailNameException"),
            ("a/b", "InvalidTrailNameException"),
            ("10.0.0.1", "InvalidTrailNameException"),
            ("main\u{0}\u{202e}", "InvalidTrailNameException"),
            ("arn:", "CloudTrailARNInvalidException"),
            (
                "arn:aws:cloudtrail:us-east-1:111122223333:main",
                "CloudTrailARNInvalidException",
            ),
            (
                "arn:aws:cloudtrail:us-east-1:111122223333:trail/ab",
                "CloudTrailARNInvalidException",
            ),
            (
                "arn:aws:cloudtrail:us-east-1:1234:trail/main",
                "CloudTrailARNInvalidException",
            ),
            (
                "arn:aws:s3:us-east-1:111122223333:trail/main",
                "CloudTrailARNInvalidException",
            ),
        ] {
            let error = Named::parse(given).unwrap_err();
            assert_eq!(error.code(), code, "{given}");
            assert!(!error.to_string().contains(['\u{0}', '\u{202e}']));
        }
    }
}
