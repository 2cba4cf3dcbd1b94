//! The clients of what events are sent on to, SNS, EventBridge and CloudWatch Logs, and of KMS, which signs digests.

use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{Region as SdkRegion, SdkConfig};
use aws_sdk_s3::config::SharedCredentialsProvider;

use super::timeouts;
use crate::event::Region;
use crate::trail::arn::Arn;

/// An attempt as a whole, with the role that is assumed for it. The requests have a megabyte at most.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);

/// How a role's sessions are called, in the ARN of who wrote (AssumeRole, parameter `RoleSessionName`).
const SESSION_NAME: &str = "traild";

/// SNS in this region.
pub fn sns_client(sdk: &SdkConfig, region: &Region) -> aws_sdk_sns::Client {
    aws_sdk_sns::Client::new(&for_small_requests(sdk, Some(region)))
}

/// EventBridge in this region, or in the one that the SDK is configured for.
pub fn events_client(sdk: &SdkConfig, region: Option<&Region>) -> aws_sdk_eventbridge::Client {
    aws_sdk_eventbridge::Client::new(&for_small_requests(sdk, region))
}

/// CloudWatch Logs in this region, with the role of this ARN or with the daemon's own credentials.
pub async fn logs_client(
    sdk: &SdkConfig,
    region: &Region,
    role_arn: Option<&str>,
) -> aws_sdk_cloudwatchlogs::Client {
    let sdk = for_small_requests(sdk, Some(region));
    let sdk = match role_arn {
        Some(role_arn) => in_role(sdk, role_arn).await,
        None => sdk,
    };
    aws_sdk_cloudwatchlogs::Client::new(&sdk)
}

/// KMS in the region of this key's ARN; for a key's id or an alias in the one that the SDK is configured for.
pub fn kms_client(sdk: &SdkConfig, key_id: &str) -> aws_sdk_kms::Client {
    let region = Arn::regional(key_id, "kms").map(|arn| arn.region);
    aws_sdk_kms::Client::new(&for_small_requests(sdk, region.as_ref()))
}

fn for_small_requests(sdk: &SdkConfig, region: Option<&Region>) -> SdkConfig {
    let timeouts = timeouts()
        .to_builder()
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .build();
    let mut options = sdk.to_builder().timeout_config(timeouts);
    if let Some(region) = region {
        options.set_region(SdkRegion::new(region.as_str().to_owned()));
    }
    options.build()
}

/// The same, with the credentials of a role. The SDK fetches them through STS, in the same region, when it needs them, and keeps them for as long as they last.
async fn in_role(sdk: SdkConfig, role_arn: &str) -> SdkConfig {
    let role = AssumeRoleProvider::builder(role_arn)
        .configure(&sdk)
        .session_name(SESSION_NAME)
        .build()
        .await;
    sdk.into_builder()
        .credentials_provider(SharedCredentialsProvider::new(role))
        // A cache has room for the credentials of 64 roles, and forgets one at random for the next.
        .identity_cache(IdentityCache::lazy().build())
        .build()
}

#[cfg(test)]
mod tests;
