//! Promises of the roster.
