//! Hands the arguments to `cli` and turns its answer into an exit code.

use std::process::ExitCode;

/// Keeps freed pages for ten seconds, so that large bodies do not fault their pages in anew.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    switchpoint::cli::main()
}
