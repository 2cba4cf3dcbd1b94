//! Clients of AWS that outlive the credentials they began with.

use std::sync::Arc;

use aws_config::SdkConfig;

use crate::aws;
use crate::config::Config;
use crate::deliver::renewing::Renewing;

/// What clients are made from.
pub struct Clients {
    config: Arc<Config>,
    sdk: SdkConfig,
}

impl Clients {
    pub async fn new(config: &Config) -> Self {
        Self {
            config: Arc::new(config.clone()),
            sdk: aws::sdk_config(config).await,
        }
    }

    /// Where a client works that is told no region.
    pub fn region(&self) -> &str {
        let region = self.sdk.region().map(|region| region.as_ref());
        region.unwrap_or(self.config.region.as_str())
    }

    /// A client that is made anew, from the environment on, when its credentials are no good.
    pub async fn renewing<C, F>(
        &self,
        make: impl Fn(SdkConfig) -> F + Clone + Send + Sync + 'static,
    ) -> Renewing<C>
    where
        C: Clone,
        F: Future<Output = C> + Send + 'static,
    {
        let first = make(self.sdk.clone()).await;
        let config = self.config.clone();
        Renewing::new(first, move || {
            let (config, make) = (config.clone(), make.clone());
            async move { make(aws::sdk_config(&config).await).await }
        })
    }
}
