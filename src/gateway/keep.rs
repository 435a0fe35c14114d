//! Writes the config file: whole or not at all, wherever something can take its place, and only
//! where somebody may.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use crate::error::{Error, Kind};

/// Puts `text` in the place of the file at `path`. Links are followed, and rights stay as they are.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    may_write(path)?;
    replace(path, text).map_err(|error| refused(path, &error))
}

/// Whether the file may be written. One without a right to write is meant to stay as it is, whoever
/// asks.
pub(super) fn may_write(path: &Path) -> Result<(), Error> {
    let open = || {
        if std::fs::metadata(path)?.permissions().readonly() {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        OpenOptions::new().write(true).open(path)
    };
    open().map(drop).map_err(|error| refused(path, &error))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let real = path.canonicalize()?;
    let name = real.file_name().unwrap_or_default().to_string_lossy();
    let draft = real.with_file_name(format!(".{name}.new"));
    // Where nothing may be made beside the file, there is only the file.
    let mut file = match File::create(&draft) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return overwrite(&real, text),
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
            return overwrite(&real, text);
        }
        created => created?,
    };
    let written = (|| {
        // Before it holds anything that others may not read.
        file.set_permissions(std::fs::metadata(&real)?.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })();
    let renamed = written.and_then(|()| std::fs::rename(&draft, &real));
    if renamed.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    match renamed {
        // A file that is mounted alone can be written, but nothing can take its place. There is
        // room for it: the draft was as long.
        Err(error) if is_mounted(error.kind()) => overwrite(&real, text),
        renamed => renamed,
    }
}

fn is_mounted(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ResourceBusy | ErrorKind::CrossesDevices)
}

fn overwrite(real: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(real)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn refused(path: &Path, error: &io::Error) -> Error {
    let shown = path.display();
    let message = format!(
        "{shown} cannot be written ({error}), and a restart would serve what it says. Change it \
         where it comes from, or apply with `ephemeral` to serve the config until then."
    );
    Error::new(Kind::OwnedByFile, message)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_behind_its_links_and_keeps_its_rights() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (link, real) = (folder.path().join("a.toml"), elsewhere.path().join("real.toml"));
        std::fs::write(&real, "one").unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&real, &link).unwrap();
        write(&link, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&real).unwrap(), "two");
        assert!(link.is_symlink());
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_nobody_may_write_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, "one").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
        let error = write(&path, "two").unwrap_err();
        assert_eq!(error.kind, Kind::OwnedByFile);
        assert!(error.message.contains("`ephemeral`"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        assert!(write(&folder.path().join("none"), "two").is_err());
    }
}
