//! The public keys: asked of CloudTrail (ListPublicKeys), or read from what `aws cloudtrail list-public-keys` printed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use aws_config::{Region as SdkRegion, SdkConfig};
use aws_smithy_types::DateTime;
use serde::Deserialize;

use crate::digest::keys::PublicKey;
use crate::digest::verify::Keyring;
use crate::event::Region;

const HOUR: i64 = 3600;

/// No region has this many pages. `NextToken` is reserved for future use (CloudTrail API reference, ListPublicKeys).
const MAX_PAGES: usize = 1000;

#[derive(Clone)]
pub enum Keys {
    Given(Arc<Keyring>),
    CloudTrail(Arc<Asked>),
}

/// Each region has keys of its own.
pub struct Asked {
    sdk: SdkConfig,
    /// By region and hours since 1970: most backfill digests are made in one go.
    backfill: tokio::sync::Mutex<HashMap<(Region, i64), Arc<Keyring>>>,
}

impl Keys {
    pub fn of_cloudtrail(sdk: SdkConfig) -> Self {
        Self::CloudTrail(Arc::new(Asked {
            sdk,
            backfill: tokio::sync::Mutex::default(),
        }))
    }

    pub fn of_files(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut keys = Vec::new();
        for path in paths {
            let found = read(path)
                .with_context(|| format!("cannot read the public keys in {}", path.display()))?;
            keys.extend(found);
        }
        Ok(Self::Given(Arc::new(keys.into_iter().collect())))
    }

    /// The keys for digests that end from `start` to `end`, seconds since 1970.
    pub async fn between(
        &self,
        region: Region,
        start: i64,
        end: i64,
    ) -> anyhow::Result<Arc<Keyring>> {
        match self {
            Self::Given(keys) => Ok(keys.clone()),
            // As far beyond the end as the AWS CLI looks.
            Self::CloudTrail(asked) => {
                asked
                    .list(region, start, end.saturating_add(2 * HOUR))
                    .await
            }
        }
    }

    /// The keys for a backfill digest made at `when`, seconds since 1970: of an hour before to an hour after, as the AWS CLI asks, or a little more.
    pub async fn about(&self, region: Region, when: i64) -> anyhow::Result<Arc<Keyring>> {
        let asked = match self {
            Self::Given(keys) => return Ok(keys.clone()),
            Self::CloudTrail(asked) => asked,
        };
        let hour = when.div_euclid(HOUR);
        let mut backfill = asked.backfill.lock().await;
        if let Some(keys) = backfill.get(&(region, hour)) {
            return Ok(keys.clone());
        }
        let keys = asked
            .list(region, (hour - 1) * HOUR, (hour + 2) * HOUR)
            .await?;
        backfill.insert((region, hour), keys.clone());
        Ok(keys)
    }
}

impl Asked {
    async fn list(&self, region: Region, start: i64, end: i64) -> anyhow::Result<Arc<Keyring>> {
        let sdk = self.sdk.to_builder();
        let sdk = sdk
            .region(SdkRegion::new(region.as_str().to_owned()))
            .build();
        let client = aws_sdk_cloudtrail::Client::new(&sdk);
        let mut keys = Vec::new();
        let mut next = None;
        for _ in 0..MAX_PAGES {
            let request = client
                .list_public_keys()
                .start_time(DateTime::from_secs(start))
                .end_time(DateTime::from_secs(end))
                .set_next_token(next.take());
            let answer = request
                .send()
                .await
                .map_err(|error| anyhow!(error.into_service_error()));
            let answer = answer.with_context(|| {
                format!("cannot ask CloudTrail in {region} for its public keys")
            })?;
            keys.extend(answer.public_key_list().iter().filter_map(of_answer));
            match answer.next_token {
                Some(token) if !token.is_empty() => next = Some(token),
                _ => return Ok(Arc::new(keys.into_iter().collect())),
            }
        }
        bail!("CloudTrail in {region} goes on listing public keys without end")
    }
}

/// A key that lacks something is none. Its fingerprint is taken anew, not believed.
fn of_answer(key: &aws_sdk_cloudtrail::types::PublicKey) -> Option<PublicKey> {
    let der = key.value()?.as_ref().to_vec();
    let start = key.validity_start_time()?.secs();
    Some(PublicKey::new(der, start, key.validity_end_time()?.secs()))
}

/// `{"PublicKeyList": […]}` or the list alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Printed {
    Answer {
        #[serde(rename = "PublicKeyList")]
        keys: Vec<PublicKey>,
    },
    List(Vec<PublicKey>),
}

fn read(path: &Path) -> anyhow::Result<Vec<PublicKey>> {
    let printed = serde_json::from_slice(&std::fs::read(path)?);
    let printed = printed.context("not what `aws cloudtrail list-public-keys` prints")?;
    Ok(match printed {
        Printed::Answer { keys } | Printed::List(keys) => keys,
    })
}
