//! Cohere held against what it sends and takes.
