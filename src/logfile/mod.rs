//! logfile
