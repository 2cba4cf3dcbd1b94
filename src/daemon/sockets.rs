//! The sockets of a daemon, claimed before the work of recovery, so that a taken port is told at once.

use super::Addresses;
use crate::config::{Config, StorageKind};
use crate::server::tls::Tls;
use crate::server::{BindError, Listener};

pub struct Sockets {
    /// Where the api is served: TCP, and a unix socket if one is configured.
    pub api: Vec<Listener>,
    pub ops: Listener,
    /// The embedded store's.
    pub store: Option<Listener>,
    pub addresses: Addresses,
}

impl Sockets {
    /// `tls` is the api's, but for its unix socket.
    pub async fn bind(config: &Config, tls: Option<Tls>) -> Result<Self, BindError> {
        let api = Listener::bind_tcp("listen.api", config.listen.api).await?;
        let ops = Listener::bind_tcp("listen.ops", config.listen.ops).await?;
        let store = match config.storage.kind {
            StorageKind::Embedded => {
                Some(Listener::bind_tcp("storage.listen", config.storage.listen).await?)
            }
            StorageKind::S3 => None,
        };
        let addresses = Addresses {
            api: api.local_addr().unwrap_or(config.listen.api),
            ops: ops.local_addr().unwrap_or(config.listen.ops),
            store: store.as_ref().and_then(Listener::local_addr),
        };
        let mut api = vec![match tls {
            Some(tls) => api.with_tls(tls),
            None => api,
        }];
        if let Some(path) = &config.listen.unix {
            api.push(Listener::bind_unix("listen.unix", path).await?);
        }
        Ok(Self {
            api,
            ops,
            store,
            addresses,
        })
    }
}
