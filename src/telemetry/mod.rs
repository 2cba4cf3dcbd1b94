//! How the daemon tells what it does: metrics, logs.
