//! The files into which new keys are written.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::keys::secret::PlainKey;

/// Files that were created; they are removed again unless `keep` is called.
#[derive(Default)]
pub struct SecretFiles(Vec<PathBuf>);

impl SecretFiles {
    /// Writes a key to a new file, readable only by its owner, durably, and without a newline.
    pub fn write(&mut self, path: &Path, key: &PlainKey) -> Result<(), String> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| refusal(path, &e))?;
        self.0.push(path.to_owned());
        file.write_all(key.expose().as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(folder_of(path))?.sync_all())
            .map_err(|e| refusal(path, &e))
    }

    pub fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for SecretFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(file = %path.display(), %error, "the file of a key that was not created cannot be removed");
            }
        }
    }
}

/// Whether a file could be created, as far as can be checked without creating it.
pub fn check(path: &Path) -> Result<(), String> {
    if path.symlink_metadata().is_ok() {
        return Err(refusal(path, &ErrorKind::AlreadyExists.into()));
    }
    match folder_of(path).is_dir() {
        true => Ok(()),
        false => Err(refusal(path, &ErrorKind::NotFound.into())),
    }
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

fn refusal(path: &Path, error: &std::io::Error) -> String {
    let path = path.display();
    match error.kind() {
        ErrorKind::AlreadyExists => {
            format!("the secret_file {path} exists already, and is not overwritten")
        }
        _ => format!("the secret_file {path} cannot be written: {error}"),
    }
}
