//! A sealed batch as CloudTrail writes it: its S3 key and its bytes. Pure: values in, bytes out.

pub mod encode;
pub mod key;

pub use encode::{Builder, Compressors, LogFile};
