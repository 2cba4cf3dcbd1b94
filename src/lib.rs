//! traild: an open, self-hosted AWS CloudTrail, as one daemon.
//!
//! Promises, in this order: nothing accepted is lost or doubled; anyone can check it; it is fast; it is a pleasure to run.
//!
//! # One log, used twice
//!
//! [`wal`] is an ordered, checksummed, segmented log of bytes with positions. Two of them are open: the **journal** (what was
//! accepted) and the **ledger** (what was sealed and what became of it). What comes after acceptance is a consumer with its
//! own place in one of them; no consumer knows another, so that a slow or dead destination delays nobody else, and a crash
//! anywhere is a replay.
//!
//! ```text
//!            ┌────────┐ append, fsync, 200  ┌──────────────┐          ┌───────────────────────────────────────┐
//!  clients ─►│ ingest │────────────────────►│ wal: journal │─► pump ─►│ deliver::s3, one leg a trail          │
//!  files  ──►│        │                     └──────┬───────┘          │ trail → batch → logfile → PUT         │──► S3
//!            └────────┘                            │                  └────────┬──────────────────────────────┘
//!                                                  │                Sealed, Settled ▼
//!                                                  │                       wal: ledger ─► pump ─► deliver::sns, a leg each ──► SNS
//!                                                  ├───────────────► pump ─► deliver::logs, a leg each ──► CloudWatch Logs
//!                                                  ├───────────────► pump ─► deliver::bus, a leg each ───► EventBridge
//!                                                  └───────────────► pump ─► history ──► files of a day each ◄── LookupEvents
//! ```
//!
//! # Exactly one object for a batch
//!
//! Intent, effect, outcome. A batch is written to the ledger with its key and the exact positions of its events before the PUT, and
//! again after it. The key follows from the sealed batch, never from a clock or a random number at upload time; the bytes are
//! reproducible. A restart finds every upload either not begun, in doubt or done, and repeats the one in doubt to the same key.
//!
//! A trail's cursor is not a number on disk: it is what the ledger says. Within a stream (account, region, folder) batches take events in
//! journal order, so "sealed through position P" tells of each event whether a batch has it. See [`ledger`] and [`deliver::s3`].
//!
//! # At least once for the others
//!
//! Besides S3 a trail may send to SNS, CloudWatch Logs and EventBridge. Each has a leg of its own ([`deliver::fanout`]), the same but for what a
//! `Destination` knows: its requests, its limits, its answers. The leg's cursor is a small file, saved every second and moved only when all before it
//! was taken, or refused for what is in it and kept as a dead letter ([`deliver::dead_letter`]); anything else is tried again for ever. A crash sends the last second again.
//!
//! A leg to S3 may hold the journal for as long as it takes. The others may hold it until it is nearly full; then they are cut off: what they leave
//! behind is counted and becomes a dead letter, and events are accepted as before ([`config::JournalOnFull`]).
//!
//! # Anyone can check it
//!
//! Every log file of a trail that asks for validation is named, with its hash, in one digest; each digest is signed, and names the one before it. What
//! that chain proves, how it is signed and with which keys, and all that can be wrong with it, is [`digest`]; its writers follow the ledger, which they hold
//! for as long as it takes ([`digest::writer`]).
//!
//! # Trails that come and go
//!
//! When a trail is made, changed, started or stopped by the API, all legs stop as they would with the daemon, and new ones begin from what the ledger and the
//! cursors remember, some milliseconds later; events are accepted meanwhile. Started and stopped are places in the journal ([`trail::logging`]), so that a trail
//! records to the event what lies between.
//!
//! # CloudTrail's own words
//!
//! What traild has can be asked for by any AWS client: [`api`] speaks CloudTrail's protocol beside the events that come in, on the same listener.
//! It reads and changes what others own, and owns nothing. What it is asked becomes an event itself, of the caller's account ([`api::records`]): a change
//! is made only when there is room for its record, and answered only when that is durable.
//!
//! Channels are kept beside the trails in [`registry`]; what applications send by them ([`api::audit_events`]), as what API servers of Kubernetes send
//! ([`ingest::kubernetes`]), becomes CloudTrail records on the way in and goes the way of all events.
//!
//! ```text
//!  AWS CLI, SDKs ─► api ─┬─► registry      which trails and channels there are ─► daemon: the legs that run
//!                        ├─► history       which events there were
//!                        ├─► digest::keys  which keys have signed
//!                        └─► ingest        what comes by channels
//! ```
//!
//! # Ninety days to look up
//!
//! The event history is kept of what was accepted, not of what trails take. It is the one consumer that may fall far behind: its thread has the lowest priority,
//! and when the journal is nearly full, or the disk, it is history that leaves something out ([`history`]). Nothing else asks it for anything.
//!
//! # Who is let in
//!
//! Every request of the api listener has a caller, an account and a region before anything is done for it ([`auth`]): with SigV4, whoever signed it, held to
//! an IAM policy; with mTLS, whoever shows a certificate that is known. Nothing below knows of signatures; it is handed what it has to ask, as [`ingest::Accounts`] for events.
//!
//! # Bytes, not copies
//!
//! An event is parsed once, where it comes in; what routing and batching ask is put in front of its bytes in the journal
//! ([`event::record`]). Open batches hold positions, a few bytes an event ([`batch`]); the bytes are read back when the file is
//! made. Memory is bounded in bytes at every queue, and the journal is the buffer.
//!
//! # The modules, in the order of the data's way
//!
//! Decisions are plain functions of values; disks, clocks and networks are at the rim. Arrows point down this list, never up.

// The ground: time, small files, threads that give way, what operators see.
pub mod background;
#[cfg(test)]
mod campaign;
pub mod clock;
#[cfg(test)]
mod fuzz;
mod random;
#[cfg(test)]
mod simulation;
pub mod snapshot;
pub mod telemetry;

// An event, and the log of bytes that keeps it.
pub mod event;
pub mod wal;

// In, and who wants it.
pub mod ingest;
pub mod trail;

// Which trails and channels there are.
pub mod registry;

// From events to a file.
pub mod batch;
pub mod ledger;
pub mod logfile;
pub mod pump;
pub mod retry;

// Out.
pub mod deliver;

// What can be looked up.
pub mod history;

// What proves the files, and is delivered beside them.
pub mod digest;

// The embedded S3, and the listeners' accept loop.
pub mod server;
pub mod store;

// Who asks, and what they may.
pub mod auth;

// What AWS clients ask.
pub mod api;

// What people tell it, and what knows everyone.
pub mod config;

pub mod aws;
pub mod daemon;

pub mod cli;
