//! The AWS SDK, configured: where S3 is, how to speak to it, and with whose name.
//!
//! - Nothing here asks for credentials. The SDK fetches them when the first request is signed, so that a daemon without any starts, accepts
//!   events, and shows the missing credentials as an error of delivery that is retried until they are there.
//! - The SDK's own retries are off: delivery has its own, which never give up, and two layers would multiply.
//! - The embedded store is spoken to as any S3 is, but past the proxies of the environment: it is on loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, RequestChecksumCalculation, ResponseChecksumValidation};

use crate::config::{Checksum, Config, StorageKind};

/// To a host that does not answer at all. How long an answer may take is for each call to say: a log file has up to 50 MB.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An upload that moves less than a byte a second for this long has failed.
const STALL_GRACE: Duration = Duration::from_secs(20);

/// With what traild signs its own requests to the embedded store; the access key is the home account.
pub const EMBEDDED_SECRET_KEY: &str = "traild";

/// What all AWS clients share: the SDK's own environment variables, profiles and roles, under the `[aws]` section.
///
/// The region is the environment's or the profile's, else the home region: a home region may be invented, and buckets may be elsewhere.
pub async fn sdk_config(config: &Config) -> SdkConfig {
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

/// The client that delivers log files: to AWS or a compatible store, or to the embedded one.
pub fn s3_client(sdk: &SdkConfig, config: &Config) -> aws_sdk_s3::Client {
    match config.storage.kind {
        StorageKind::S3 => {
            let options = aws_sdk_s3::config::Builder::from(sdk)
                .force_path_style(config.aws.force_path_style);
            aws_sdk_s3::Client::from_conf(options.build())
        }
        StorageKind::Embedded => embedded_client(config, config.storage.listen),
    }
}

/// A client of the embedded store at `address`, which differs from the configured one when that asks for port 0.
pub fn embedded_client(config: &Config, address: SocketAddr) -> aws_sdk_s3::Client {
    let account = config.account_id.as_str();
    let options = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(config.region.as_str().to_owned()))
        .endpoint_url(format!("http://{}", reachable(address)))
        .force_path_style(true)
        .credentials_provider(Credentials::new(
            account,
            EMBEDDED_SECRET_KEY,
            None,
            None,
            "traild",
        ))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts())
        .stalled_stream_protection(stall_protection())
        .request_checksum_calculation(request_checksums(config.aws.checksum))
        .response_checksum_validation(response_checksums(config.aws.checksum));
    aws_sdk_s3::Client::from_conf(options.build())
}

/// Where to connect to reach a listener: one that listens everywhere is reached over loopback.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
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
