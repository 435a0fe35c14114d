//! A copy of what was made at run time, beside the journal: what a process serves by that starts
//! while the database is away. It holds digests and settings, and no secret.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::Kind;
use super::change::{row_of_key, row_of_member};
use crate::access::roster::Roster;
use crate::config::{Store as Settings, StoreUrl};
use crate::store::EntryRow;

#[derive(Debug)]
pub(super) struct Copy {
    /// None where the database is a file of this machine itself.
    path: Option<PathBuf>,
    version: AtomicI64,
    /// While a thread writes.
    is_busy: AtomicBool,
}

impl Copy {
    pub(super) fn new(settings: &Settings) -> Self {
        let is_remote = matches!(settings.url, StoreUrl::Postgres(_));
        let journal = settings.journal().filter(|_| is_remote);
        let path = journal.map(|journal| journal.with_added_extension("keys"));
        Self { path, version: AtomicI64::new(0), is_busy: AtomicBool::new(false) }
    }

    /// Writes it anew if it is older, on a thread of its own.
    pub(super) fn renew(self: &Arc<Self>, version: i64, roster: &Arc<Roster>) {
        let Some(path) = self.path.clone() else { return };
        if self.version.load(Ordering::Relaxed) >= version
            || self.is_busy.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let (copy, roster) = (Arc::clone(self), Arc::clone(roster));
        let write = move || {
            match save(&path, &roster) {
                Ok(()) => copy.version.store(version, Ordering::Relaxed),
                Err(error) => tracing::error!(%error, "the copy of the keys cannot be written"),
            }
            copy.is_busy.store(false, Ordering::Release);
        };
        if std::thread::Builder::new().name("keys-copy".to_owned()).spawn(write).is_err() {
            self.is_busy.store(false, Ordering::Release);
        }
    }

    /// What was saved; nothing, if there is no file.
    pub(super) fn load(&self) -> Vec<EntryRow> {
        let Some(path) = &self.path else { return Vec::new() };
        read(path).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::error!(%error, "the copy of the keys cannot be read");
            }
            Vec::new()
        })
    }
}

/// Readable for the owner only, and never half written.
fn save(path: &Path, roster: &Roster) -> io::Result<()> {
    let draft = path.with_added_extension("new");
    let file =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
    let mut out = BufWriter::new(file);
    let mut rows = Vec::new();
    roster.keys_after("", |key| {
        rows.push(row_of_key(key));
        true
    });
    for kind in Kind::ALL {
        roster.members_after(kind, "", |id, member| {
            rows.push(row_of_member(id, member));
            true
        });
    }
    for row in &rows {
        serde_json::to_writer(&mut out, row)?;
        out.write_all(b"\n")?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(&draft, path)
}

fn read(path: &Path) -> io::Result<Vec<EntryRow>> {
    let lines = BufReader::new(File::open(path)?).lines();
    lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::access::roster::{Mark, Record};
    use crate::config::entry;

    #[test]
    fn what_is_saved_is_read_again_and_by_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.keys");
        let roster = Roster::default();
        let now = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(5);
        let record = |kind, id: &str, settings| Record {
            kind,
            id: id.into(),
            terms: Some(entry::read(kind, &settings).unwrap()),
            created_at: now,
            changed_at: now,
            ended_at: None,
            secrets: vec![Mark { digest: [7; 32], valid_until: None }],
            has_past: false,
            version: 3,
        };
        roster.take(vec![
            record(Kind::Team, "made", serde_json::json!({})),
            record(Kind::Key, "key_1", serde_json::json!({"team": "made"})),
        ]);
        save(&path, &roster).unwrap();
        let rows = read(&path).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].id.as_str(), rows[0].secrets[0].digest.len()), ("key_1", 64));
        assert_eq!((rows[1].kind.as_str(), rows[0].version), ("team", 3));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
