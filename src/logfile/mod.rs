//! A sealed batch as CloudTrail writes it: its S3 key and its bytes, and what is in such bytes. Pure: values in, bytes out.

mod buffer;
pub mod encode;
pub mod key;
pub mod times;

pub use encode::{Builder, Compressors, LogFile};
pub use times::EventTimes;
