//! The SQLite file: created before the first connection and never opened again.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Result};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{Access, access};
use rustix::io::Errno;

/// Where SQLite keeps the data. Only `db` can see the path, because of how POSIX locks work: when a
/// process closes *any* descriptor of a file, it loses *all* its locks on that file. SQLite's own
/// locks would be lost too, without SQLite noticing: another program could then take itself for the
/// only user, and remove the WAL with everything written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteFile(PathBuf);

/// Tells a file from another one that takes its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqliteIdentity {
    device: u64,
    inode: u64,
}

impl SqliteFile {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder that must exist. Empty: the current folder.
    pub fn folder(&self) -> &Path {
        self.0.parent().unwrap_or(Path::new(""))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The path of another file, whose name is this one's and `suffix`.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.0.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    pub fn is(&self, path: &Path) -> bool {
        self.0 == path
    }

    /// Which file has the name now. Does not open it.
    pub(super) fn identity(&self) -> Result<SqliteIdentity> {
        let found = std::fs::metadata(&self.0)?;
        Ok(SqliteIdentity {
            device: found.dev(),
            inode: found.ino(),
        })
    }

    /// Whether this user may write the file, what SQLite keeps beside it, and the folder. Opens nothing.
    ///
    /// # Errors
    /// One sentence that names what may not be written.
    pub(super) fn check_access(&self) -> std::result::Result<(), String> {
        let folder = match self.folder() {
            none if none.as_os_str().is_empty() => Path::new("."),
            folder => folder,
        };
        let files = ["", "-wal", "-shm"].map(|end| self.beside(end));
        for path in files.iter().map(PathBuf::as_path).chain([folder]) {
            match access(path, Access::READ_OK | Access::WRITE_OK) {
                // It is made.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => {
                    let (path, error) = (path.display(), std::io::Error::from(error));
                    return Err(format!(
                        "{path} may not be written: {error}; run this as the user of the server, or give it the file and its folder with chown"
                    ));
                }
            }
        }
        Ok(())
    }

    pub(super) fn exists(&self) -> Result<bool> {
        self.0.try_exists()
    }

    /// Creates the file if it is missing, readable only by its owner; SQLite would make it readable
    /// by everyone. Its WAL gets the same mode. An existing file is not opened.
    pub(super) fn make_if_missing(&self) -> Result<()> {
        // No thread of this process may connect between the creation of the file and the close
        // below.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _alone = ONE_AT_A_TIME
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        make_if_missing(&self.0)
    }

    /// The path as SQLite takes it. The prefix keeps SQLite from reading the path as ":memory:";
    /// the mode keeps it from recreating a file that has gone, which would be empty and readable by
    /// everyone.
    pub(super) fn uri(&self) -> String {
        // Characters that have a meaning in a SQLite URI (https://www.sqlite.org/uri.html).
        let path = self.0.to_string_lossy();
        let path = path
            .replace('%', "%25")
            .replace('?', "%3f")
            .replace('#', "%23");
        format!("file:{path}?mode=rw")
    }
}

impl fmt::Display for SqliteFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

fn make_if_missing(path: &Path) -> Result<()> {
    // `create_new` never opens an existing file.
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(_) => Ok(()),
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
        Err(_) if path.try_exists()? => Ok(()),
        // A symbolic link to a file that does not exist yet.
        Err(_) => {
            let target = path.read_link()?;
            make_if_missing(&path.parent().unwrap_or(Path::new("")).join(target))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_missing_file_is_made_for_its_owner_alone_and_another_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let file = SqliteFile::new(&path);
        file.make_if_missing().unwrap();
        assert_eq!(mode(&path), 0o600);

        std::fs::write(&path, "kept").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        file.make_if_missing().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"kept");
        assert_eq!(mode(&path), 0o640);
    }

    #[test]
    fn a_link_leads_to_the_file_that_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("disk")).unwrap();
        symlink("disk/b.db", at("link")).unwrap();
        symlink(at("link"), at("link to the link")).unwrap();
        for _ in 0..2 {
            let file = SqliteFile::new(at("link to the link"));
            file.make_if_missing().unwrap();
            assert_eq!(mode(&at("disk/b.db")), 0o600);
        }
        symlink("round", at("round")).unwrap();
        symlink("nowhere/c.db", at("astray")).unwrap();
        for wrong in ["round", "astray", "no folder/d.db"] {
            assert!(
                SqliteFile::new(at(wrong)).make_if_missing().is_err(),
                "{wrong}"
            );
        }
    }
}
