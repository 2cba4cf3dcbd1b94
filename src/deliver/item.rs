//! What the legs besides S3 deliver, and dead letters keep.

use bytes::Bytes;

use crate::clock::WallMillis;
use crate::wal::Position;

/// One thing to deliver: an event, or the news of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub id: ItemId,
    /// Events that it stands for.
    pub events: u64,
    /// When it was accepted, or came to be.
    pub since: WallMillis,
    /// What there is to say: an event, or the notification.
    pub json: Bytes,
}

/// Tells the items of one log apart, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId {
    /// Of the frame that holds it.
    pub position: Position,
    /// Within its frame.
    pub index: u32,
}
