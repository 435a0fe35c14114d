//! Converse held against what Bedrock sends and takes.
