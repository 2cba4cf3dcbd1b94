//! traild: an open, self-hosted AWS CloudTrail.
//!
//! The modules follow the data: in → journal → route → batch → file → S3 → ledger.

pub mod clock;
pub mod snapshot;
pub mod telemetry;

pub mod event;
pub mod wal;

pub mod ingest;
pub mod trail;

pub mod batch;
pub mod ledger;
pub mod logfile;
pub mod pump;
pub mod retry;

pub mod aws;
pub mod deliver;
pub mod store;

pub mod server;

pub mod config;

pub mod cli;
pub mod daemon;
