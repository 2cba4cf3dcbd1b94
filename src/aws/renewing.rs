//! Clients that are made anew, from an environment that is read anew, when their credentials are no good.

use std::future::{Future, ready};

use aws_config::SdkConfig;

use super::{events_client, logs_client, sdk_config};
use crate::config::Config;
use crate::deliver::renewing::Renewing;
use crate::event::Region;
use crate::trail::LogGroup;

/// As [`events_client`] makes them: of `sdk` first.
pub async fn events(
    config: &Config,
    sdk: &SdkConfig,
    region: Option<&Region>,
) -> Renewing<aws_sdk_eventbridge::Client> {
    let region = region.copied();
    let make = move |sdk| ready(events_client(&sdk, region.as_ref()));
    renewing(config, sdk, make).await
}

/// As [`logs_client`] makes them for this group and its role: of `sdk` first.
pub async fn logs(
    config: &Config,
    sdk: &SdkConfig,
    group: &LogGroup,
) -> Renewing<aws_sdk_cloudwatchlogs::Client> {
    let group = group.clone();
    let make = move |sdk| {
        let group = group.clone();
        async move { logs_client(&sdk, group.region(), group.role_arn()).await }
    };
    renewing(config, sdk, make).await
}

async fn renewing<C, F>(
    config: &Config,
    sdk: &SdkConfig,
    make: impl Fn(SdkConfig) -> F + Clone + Send + Sync + 'static,
) -> Renewing<C>
where
    C: Clone,
    F: Future<Output = C> + Send + 'static,
{
    let client = make(sdk.clone()).await;
    let config = config.clone();
    Renewing::new(client, move || {
        let (config, make) = (config.clone(), make.clone());
        async move { make(sdk_config(&config).await).await }
    })
}
