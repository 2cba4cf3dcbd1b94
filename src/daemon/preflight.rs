//! Asks what a trail is to deliver to whether it will take it, by the same requests, and the same clients, as deliveries use.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::FutureExt;
use tokio::sync::OnceCell;

use super::Addresses;
use super::clients::Clients;
use super::legs::s3_client;
use crate::api::preflight::{Asked, Preflight};
use crate::aws;
use crate::config::Config;
use crate::deliver::failure::Failure;
use crate::deliver::fanout::Destination;
use crate::deliver::logs::LogStreams;
use crate::deliver::s3::{Bucket, Encryption, NewObject};
use crate::deliver::sns::Notifications;
use crate::logfile::key;
use crate::trail::Trail;

/// Asks as the daemon of this configuration would deliver.
pub struct Asking {
    config: Config,
    addresses: Addresses,
    clients: OnceCell<Clients>,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").finish_non_exhaustive()
    }
}

impl Asking {
    pub fn new(config: &Config, addresses: Addresses) -> Self {
        Self {
            config: config.clone(),
            addresses,
            clients: OnceCell::new(),
        }
    }

    /// Made when they are first needed: most daemons are never asked.
    async fn clients(&self) -> &Clients {
        self.clients
            .get_or_init(|| Clients::new(&self.config))
            .await
    }

    async fn put_marker(&self, trail: &Trail) -> Result<(), Failure> {
        let clients = self.clients().await;
        let client = s3_client(&self.config, self.addresses, clients).await;
        // Also of the embedded store it must be there: whoever makes a trail has made its bucket.
        let bucket = Bucket::new(client, false);
        let trail_arn = trail.arn();
        let marker = NewObject {
            bucket: &trail.bucket,
            key: &key::marker(trail),
            gzip: &Bytes::new(),
            metadata: &[],
            encryption: trail.kms_key_id.as_deref().map(|kms_key_id| Encryption {
                kms_key_id,
                trail_arn: &trail_arn,
            }),
        };
        // One that is there already has been allowed as well.
        bucket.put(marker).await.map(drop)
    }

    async fn publish(&self, trail: &Trail) -> Result<(), Failure> {
        let Some(topic) = trail.topic.clone() else {
            return Ok(());
        };
        let region = *topic.region();
        let clients = self.clients().await;
        let client = clients.renewing(move |sdk| async move { aws::sns_client(&sdk, &region) });
        let notifications = Notifications::new(trail, topic, client.await);
        notifications.introduce().await
    }

    async fn make_stream(&self, trail: Arc<Trail>) -> Result<(), Failure> {
        let Some(group) = trail.log_group.clone() else {
            return Ok(());
        };
        let clients = self.clients().await;
        let of = group.clone();
        let client = clients.renewing(move |sdk| {
            let of = of.clone();
            async move { aws::logs_client(&sdk, of.region(), of.role_arn()).await }
        });
        let max_bytes = self.config.sinks.cloudwatch_max_event_bytes;
        let streams = LogStreams::new(trail, group, client.await, max_bytes);
        streams.prepare().await
    }
}

impl Preflight for Asking {
    fn bucket(&self, trail: Arc<Trail>) -> Asked<'_> {
        async move { self.put_marker(&trail).await }.boxed()
    }

    fn topic(&self, trail: Arc<Trail>) -> Asked<'_> {
        async move { self.publish(&trail).await }.boxed()
    }

    fn log_group(&self, trail: Arc<Trail>) -> Asked<'_> {
        self.make_stream(trail).boxed()
    }
}
