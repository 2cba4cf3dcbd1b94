//! The clients that deliver log files.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::Credentials;

use super::{request_checksums, response_checksums, stall_protection, timeouts};
use crate::config::{Config, StorageKind};

/// With what traild signs its own requests to the embedded store; the access key is the home account.
pub const EMBEDDED_SECRET_KEY: &str = "traild";

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

#[cfg(test)]
mod tests;
