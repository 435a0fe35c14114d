//! Promises of the Responses codec.
