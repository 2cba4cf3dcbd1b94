//! A trail in the API's words: how requests name one, and how answers describe it (API reference, `Trail`).

use serde::Serialize;

use super::Error;
use crate::event::Region;
use crate::event::refusal::shown;
use crate::trail::arn::Arn;
use crate::trail::{Selectors, Topic, Trail, TrailName};

/// What a request names a trail by. It need not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// Only in the region of the request.
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

    /// Whether a request in `region` names this trail.
    pub fn is(&self, trail: &Trail, region: Region) -> bool {
        match self {
            Self::Name(name) => trail.home_region == region && trail.name == *name,
            Self::Arn(arn) => trail.arn() == *arn,
        }
    }
}

/// `Trail` of GetTrail and DescribeTrails. What is not configured is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Described {
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
    pub home_region: String,
    #[serde(rename = "TrailARN")]
    pub trail_arn: String,
    pub log_file_validation_enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_watch_logs_log_group_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_watch_logs_role_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    pub has_custom_event_selectors: bool,
    pub has_insight_selectors: bool,
    pub is_organization_trail: bool,
}

impl Described {
    pub fn new(trail: &Trail) -> Self {
        let Trail {
            name,
            home_account: _,
            home_region,
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
            selectors,
        } = trail;
        let role = log_group.as_ref().and_then(|group| group.role_arn());
        Self {
            name: name.to_string(),
            s3_bucket_name: bucket.clone(),
            s3_key_prefix: (!prefix.is_empty()).then(|| prefix.clone()),
            sns_topic_name: topic.as_ref().map(topic_name),
            sns_topic_arn: topic.as_ref().map(|topic| topic.arn().to_owned()),
            include_global_service_events: *include_global_service_events,
            is_multi_region_trail: *is_multi_region,
            home_region: home_region.to_string(),
            trail_arn: trail.arn(),
            log_file_validation_enabled: *log_file_validation,
            cloud_watch_logs_log_group_arn: log_group
                .as_ref()
                .map(|group| with_streams(group.arn())),
            cloud_watch_logs_role_arn: role.map(str::to_owned),
            kms_key_id: kms_key_id.clone(),
            has_custom_event_selectors: *selectors != Selectors::Everything,
            has_insight_selectors: false,
            is_organization_trail: trail.organization_id().is_some(),
        }
    }
}

/// What follows the last colon of its ARN.
fn topic_name(topic: &Topic) -> String {
    let arn = topic.arn();
    arn.rsplit(':').next().unwrap_or(arn).to_owned()
}

/// A log group's ARN as CloudTrail writes it: with `:*` for its streams.
fn with_streams(arn: &str) -> String {
    format!("{}:*", arn.strip_suffix(":*").unwrap_or(arn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trail::tests::trail;
    use crate::trail::{Accounts, Members};

    #[test]
    fn a_plain_trail_is_described_without_what_it_has_not() {
        assert_eq!(
            serde_json::to_string(&Described::new(&trail())).unwrap(),
            concat!(
                r#"{"Name":"main","S3BucketName":"audit-logs","IncludeGlobalServiceEvents":true,"IsMultiRegionTrail":true,"#,
                r#""HomeRegion":"us-east-1","TrailARN":"arn:aws:cloudtrail:us-east-1:111122223333:trail/main","#,
                r#""LogFileValidationEnabled":true,"HasCustomEventSelectors":false,"HasInsightSelectors":false,"IsOrganizationTrail":false}"#
            )
        );
    }

    #[test]
    fn a_trail_with_everything_is_described_with_every_member_of_the_shape() {
        let role = "arn:aws:iam::111122223333:role/r".to_owned();
        let group = "arn:aws:logs:us-east-1:111122223333:log-group:trail";
        let everything = Trail {
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
            selectors: Selectors::basic(vec![serde_json::from_str("{}").unwrap()]).unwrap(),
            ..trail()
        };
        assert_eq!(
            serde_json::to_value(Described::new(&everything)).unwrap(),
            serde_json::json!({
                "Name": "main", "S3BucketName": "audit-logs", "S3KeyPrefix": "a/b",
                "SnsTopicName": "told", "SnsTopicARN": "arn:aws:sns:us-east-1:111122223333:told",
                "IncludeGlobalServiceEvents": false, "IsMultiRegionTrail": false, "HomeRegion": "us-east-1",
                "TrailARN": "arn:aws:cloudtrail:us-east-1:111122223333:trail/main", "LogFileValidationEnabled": false,
                "CloudWatchLogsLogGroupArn": format!("{group}:*"), "CloudWatchLogsRoleArn": role,
                "KmsKeyId": "alias/k", "HasCustomEventSelectors": true, "HasInsightSelectors": false,
                "IsOrganizationTrail": true,
            })
        );
        assert_eq!(with_streams(&format!("{group}:*")), format!("{group}:*"));
    }

    #[test]
    fn a_trail_is_named_by_its_name_at_home_and_by_its_arn_from_everywhere() {
        let (trail, home, away) = (
            trail(),
            "us-east-1".parse().unwrap(),
            "eu-west-1".parse().unwrap(),
        );
        let arn = Named::parse(&trail.arn()).unwrap();
        assert!(arn.is(&trail, home) && arn.is(&trail, away));
        let name = Named::parse("main").unwrap();
        assert!(name.is(&trail, home) && !name.is(&trail, away));
        for other in [
            "Main",
            "arn:aws:cloudtrail:eu-west-1:111122223333:trail/main",
            "arn:aws-cn:cloudtrail:us-east-1:111122223333:trail/main",
        ] {
            assert!(!Named::parse(other).unwrap().is(&trail, home), "{other}");
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
