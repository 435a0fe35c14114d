//! The name by which a replica is known to the others, the same after each of its starts: what it has
//! used stands under it, and would be counted twice under another.

use std::fs;
use std::io::{ErrorKind, Write as _};

use super::super::Failure;
use crate::canon::CallId;
use crate::config::StoreUrl;

/// The name, which stands beside the ledger it belongs to; a new one where there is no ledger.
pub fn node(store: &StoreUrl) -> Result<String, Failure> {
    let new = CallId::new().simple();
    let StoreUrl::Sqlite(path) = store else { return Ok(new) };
    let path = path.with_added_extension("node");
    let failure = |error| Failure::new(format!("cannot keep {}: {error}", path.display()));
    match fs::OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(mut file) => file.write_all(new.as_bytes()).map(|()| new).map_err(failure),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let name = fs::read_to_string(&path).map_err(failure)?;
            if name.trim().is_empty() { Ok(new) } else { Ok(name.trim().to_owned()) }
        }
        Err(error) => Err(failure(error)),
    }
}
