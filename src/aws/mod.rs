//! The AWS SDK, configured: where the services are, how to speak to them, and with whose name.
//!
//! - Nothing here asks for credentials. The SDK fetches them when the first request is signed, so that a daemon without any starts, accepts
//!   events, and shows the missing credentials as an error of delivery that is retried until they are there. A role, too, is
//!   assumed when the first request is signed.
//! - The SDK's own retries are off: delivery has its own, which never give up, and two layers would multiply.
//! - The embedded store ([`s3`]) is spoken to as any S3 is, but past the proxies of the environment: it is on loopback.
//! - The other services ([`services`]) are where the name of the destination says, whatever the region of the environment.

mod identity;
mod s3;
mod services;

use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};

use crate::config::{Checksum, Config};

pub use identity::signer;
pub use s3::{EMBEDDED_SECRET_KEY, embedded_client, reachable, s3_client};
pub use services::{events_client, kms_client, logs_client, sns_client};

/// To a host that does not answer at all. How long an answer may take is for each client to say: a log file has up to 50 MB.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An upload that moves less than a byte a second for this long has failed.
const STALL_GRACE: Duration = Duration::from_secs(20);

/// What all AWS clients share: the SDK's own environment variables, profiles and roles, under the `[aws]` section.
///
/// The region is the environment's or the profile's, else the home region: a home region may be invented, and buckets may be elsewhere.
pub async fn sdk_config(config: &Config) -> SdkConfig {
    #[cfg(test)]
    if let Some(sdk) = crate::simulation::with(|machine| machine.sdk.clone()) {
        return sdk;
    }
    let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new())
        .or_else(Region::new(config.region.as_str().to_owned()));
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .region(region)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts())
        .stalled_stream_protection(stall_protection())
        .request_checksum_calculation(request_checksums(config.aws.checksum))
        .response_checksum_validation(response_checksums(config.aws.checksum));
    let loader = match &config.aws.endpoint_url {
        Some(url) => loader.endpoint_url(url),
        None => loader,
    };
    loader.load().await
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
}

fn stall_protection() -> StalledStreamProtectionConfig {
    StalledStreamProtectionConfig::enabled()
        .grace_period(STALL_GRACE)
        .build()
}

fn request_checksums(when: Checksum) -> RequestChecksumCalculation {
    match when {
        Checksum::WhenRequired => RequestChecksumCalculation::WhenRequired,
        Checksum::WhenSupported => RequestChecksumCalculation::WhenSupported,
    }
}

fn response_checksums(when: Checksum) -> ResponseChecksumValidation {
    match when {
        Checksum::WhenRequired => ResponseChecksumValidation::WhenRequired,
        Checksum::WhenSupported => ResponseChecksumValidation::WhenSupported,
    }
}
