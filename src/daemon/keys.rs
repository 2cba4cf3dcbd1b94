//! The keys of digests, as the configuration asks for them.

use super::DaemonError;
use super::clients::Clients;
use crate::aws;
use crate::config::Config;
use crate::digest::keys::{FileKeys, Keys, KmsKeys};

/// Opens them, and makes their directory when there is none. AWS KMS is asked nothing yet.
pub async fn open(config: &Config) -> Result<Keys, DaemonError> {
    let directory = config.key_dir();
    let files = crate::background::spawn_blocking(move || FileKeys::open(&directory)).await??;
    let Some(key_id) = config.digest.kms_key_id.clone() else {
        return Ok(Keys::Files(files));
    };
    let clients = Clients::new(config).await;
    let named = key_id.clone();
    let make = move |sdk| {
        let named = named.clone();
        async move { aws::kms_client(&sdk, &named) }
    };
    let client = clients.renewing(make).await;
    Ok(Keys::Kms(KmsKeys::open(client, key_id, files)))
}
