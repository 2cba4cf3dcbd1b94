//! The sns destination.
