//! The logs destination.
