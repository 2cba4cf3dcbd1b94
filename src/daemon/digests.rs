//! The writers of digests: one for each trail that asks for validation, and for each that did before.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::legs::{self, Ground};
use super::logs::DIGESTS;
use super::stage::Stage;
use super::{DaemonError, trails};
use crate::clock::WallMillis;
use crate::config::StorageKind;
use crate::daemon::clients::Clients;
use crate::deliver::s3::Bucket;
use crate::digest::keys::Keys;
use crate::digest::writer::view::View;
use crate::digest::writer::{self, Parts, Place, State, Writer};
use crate::telemetry::chain;
use crate::trail::Trail;
use crate::wal::Position;

/// How often private keys are looked for that nobody needs any more.
const RETIRE_EVERY: Duration = Duration::from_secs(3600);

/// The writers, as they are started.
pub struct Digests<'a> {
    ground: &'a Ground,
    clients: &'a Clients,
    root: PathBuf,
    remembered: Vec<State>,
    /// ARNs of the trails that have a writer.
    started: BTreeSet<String>,
    wanted: Vec<watch::Receiver<Position>>,
    sealed_until: Vec<watch::Receiver<i64>>,
}

impl<'a> Digests<'a> {
    pub async fn new(ground: &'a Ground, clients: &'a Clients) -> Result<Self, DaemonError> {
        let root = ground.config.data_dir.join(DIGESTS);
        let states = {
            let root = root.clone();
            crate::background::spawn_blocking(move || writer::states(&root)).await?
        };
        Ok(Self {
            ground,
            clients,
            remembered: states.map_err(|source| DaemonError::DataDir {
                path: root.clone(),
                source,
            })?,
            root,
            started: BTreeSet::new(),
            wanted: Vec::new(),
            sealed_until: Vec::new(),
        })
    }

    /// Starts the writer of a trail that has validation, or had it. To be called before the trail's leg to S3 runs.
    /// Its chains end when `end` is cancelled, before or after.
    pub async fn start(
        &mut self,
        trail: &Trail,
        end: CancellationToken,
        stage: &mut Stage,
    ) -> Result<Option<View>, DaemonError> {
        let begins = trail.log_file_validation && trail.logging.is_on();
        let place = Place::from(trail);
        let label = trails::label(trail, &self.ground.config);
        self.start_writer(place, label, end, begins, stage).await
    }

    /// Ends the chains of trails that are not configured any more. To be called when all others are started.
    pub async fn start_absent(&mut self, stage: &mut Stage) -> Result<(), DaemonError> {
        for state in std::mem::take(&mut self.remembered) {
            if !self.started.contains(&state.place.trail) {
                let end = CancellationToken::new();
                end.cancel();
                let label = state.place.name.to_string();
                self.start_writer(state.place, label, end, false, stage)
                    .await?;
            }
        }
        Ok(())
    }

    async fn start_writer(
        &mut self,
        place: Place,
        label: String,
        end: CancellationToken,
        begins: bool,
        stage: &mut Stage,
    ) -> Result<Option<View>, DaemonError> {
        let ground = self.ground;
        let (config, trail) = (&*ground.config, place.trail.clone());
        let client = legs::s3_client(config, ground.addresses, self.clients).await;
        let view = View::new(&label, ground.digest_metrics.clone());
        let parts = Parts {
            place,
            interval: config.digest.interval,
            end,
            begins,
            ledger: ground.ledger.clone(),
            keys: ground.keys.clone(),
            bucket: Bucket::new(client, config.storage.kind == StorageKind::Embedded),
            view: view.clone(),
        };
        let root = self.root.clone();
        let opened = crate::background::spawn_blocking(move || Writer::open(&root, parts)).await?;
        self.started.insert(trail.clone());
        let failed = move |source| DaemonError::Digests {
            trail: trail.clone(),
            source,
        };
        let Some(writer) = opened.map_err(&failed)? else {
            return Ok(None);
        };
        self.wanted.push(writer.watch_wanted());
        self.sealed_until.push(writer.watch_sealed_until());
        stage.spawn(|stop| Box::pin(async move { writer.run(stop).await.map_err(failed) }));
        Ok(Some(view))
    }

    /// The lowest positions of the ledger that the writers still want. Private keys of times that all of them have sealed are
    /// removed from now on.
    pub fn into_wanted(self, stage: &mut Stage) -> Vec<watch::Receiver<Position>> {
        let (keys, sealed_until) = (self.ground.keys.clone(), self.sealed_until);
        stage.spawn(|stop| {
            Box::pin(async move {
                retire(keys, sealed_until, stop).await;
                Ok(())
            })
        });
        self.wanted
    }
}

async fn retire(keys: Keys, sealed_until: Vec<watch::Receiver<i64>>, stop: CancellationToken) {
    loop {
        let pause = tokio::time::sleep(RETIRE_EVERY);
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
        let now = WallMillis::now().unix_seconds();
        let sealed = sealed_until.iter().map(|sealed| *sealed.borrow());
        let before = WallMillis(sealed.fold(now, i64::min).saturating_mul(1000));
        if let Err(error) = keys.retire(before).await {
            tracing::warn!(error = %chain(&error), "cannot remove private keys of old digests, will try again");
        }
    }
}
