//! The stages of a daemon: tasks that start and stop together.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::DaemonError;
use crate::telemetry::chain;

pub type Part = Pin<Box<dyn Future<Output = Result<(), DaemonError>> + Send>>;

/// Tasks that stop together.
pub struct Stage {
    stop: CancellationToken,
    tasks: JoinSet<Result<(), DaemonError>>,
}

impl Stage {
    pub fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        }
    }

    pub fn spawn(&mut self, part: impl FnOnce(CancellationToken) -> Part) {
        self.tasks.spawn(part(self.stop.clone()));
    }

    /// The first task that ends, which before `stop` is called is one that failed.
    pub async fn ended(&mut self) -> DaemonError {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return error,
                Some(Err(error)) => return error.into(),
                None => std::future::pending().await,
            }
        }
    }

    /// Stops the tasks and waits for them, for as long as `patience`; then drops them.
    pub async fn stop(&mut self, patience: Duration) {
        self.stop.cancel();
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(error = %chain(&error), "a part ended badly while stopping")
                    }
                    Err(error) => tracing::warn!(%error, "a part ended badly while stopping"),
                }
            }
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!(
                tasks = self.tasks.len(),
                "not everything stopped in time, dropping the rest"
            );
            self.tasks.shutdown().await;
        }
    }
}
