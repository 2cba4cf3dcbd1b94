//! The credentials that the SDK finds, for signing requests to a traild.

use aws_config::BehaviorVersion;
use aws_sdk_s3::config::ProvideCredentials;

use crate::auth::SecretKey;
use crate::auth::sigv4::Signer;
use crate::event::Region;

/// The region of requests when the SDK knows none.
const REGION: &str = "us-east-1";

/// A signer with the credentials and the region of the SDK's own environment variables, profiles and roles. Nothing when there are none.
pub async fn signer(service: &'static str) -> Option<Signer> {
    let sdk = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let credentials = sdk.credentials_provider()?.provide_credentials().await;
    let credentials = credentials
        .inspect_err(|error| tracing::debug!(%error, "there are no credentials"))
        .ok()?;
    let region = sdk.region().map(|region| region.as_ref().to_owned());
    let region: Region = region.as_deref().unwrap_or(REGION).parse().ok()?;
    Some(Signer {
        access_key_id: credentials.access_key_id().to_owned(),
        secret: SecretKey::new(credentials.secret_access_key().to_owned()),
        session_token: credentials.session_token().map(str::to_owned),
        region,
        service,
    })
}
