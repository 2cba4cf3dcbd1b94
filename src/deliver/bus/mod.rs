//! The bus destination.
