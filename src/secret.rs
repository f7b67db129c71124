//! The server's secret: 64 random bytes in a file. The keys that sign cookies and encrypt DKIM keys
//! are derived from it.
//! derived.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};

const BYTES: usize = 64;

/// Debug does not print it. It belongs to one database, and all nodes of that database share it.
#[derive(Clone)]
pub struct ServerSecret([u8; BYTES]);

impl ServerSecret {
    /// Reads the file, or creates it, readable only by its owner.
    ///
    /// # Errors
    /// One sentence on the problem with the file.
    pub fn read_or_make(path: &Path) -> Result<Self, String> {
        match Self::make(path) {
            Ok(secret) => Ok(secret),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Self::read(path),
            Err(e) => Err(format!(
                "the secret {} cannot be created: {e}",
                path.display()
            )),
        }
    }

    fn make(path: &Path) -> std::io::Result<Self> {
        if path.exists() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let mut bytes = [0; BYTES];
        SysRng
            .try_fill_bytes(&mut bytes)
            .map_err(std::io::Error::other)?;
        // Written completely or not at all: another node may start at the same time, and this one
        // may crash.
        let draft = path.with_extension(format!("{}.draft", crate::token::random()));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        let linked = std::fs::hard_link(&draft, path);
        std::fs::remove_file(&draft)?;
        linked.map(|()| Self(bytes))
    }

    /// Shows whether two secrets are equal, and reveals nothing else about them.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix("ToSend: the nodes' secret");
        hash.update(self.0);
        hash.finalize().into()
    }

    /// A key for one purpose. It reveals neither the secret nor the key for another purpose.
    pub fn key_for(&self, purpose: &'static str) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix("ToSend: a key for ");
        hash.update(purpose);
        hash.update([0]);
        hash.update(self.0);
        hash.finalize().into()
    }

    /// `None` if the file does not exist.
    ///
    /// # Errors
    /// One sentence on the problem with the file.
    pub fn find(path: &Path) -> Result<Option<Self>, String> {
        path.exists().then(|| Self::read(path)).transpose()
    }

    fn read(path: &Path) -> Result<Self, String> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(BYTES as u64 + 1).read_to_end(&mut bytes))
            .map_err(|e| format!("the secret {} cannot be read: {e}", path.display()))?;
        bytes.try_into().map(Self).map_err(|_| {
            format!(
                "the secret {} does not hold {BYTES} bytes: restore it, or, if that is lost, delete it and run “adopt-secret”, which makes a new one and signs everyone out",
                path.display()
            )
        })
    }
}

impl AsRef<[u8]> for ServerSecret {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ServerSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerSecret")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let made = ServerSecret::read_or_make(&path).unwrap();
        let read = ServerSecret::read_or_make(&path).unwrap();
        assert_eq!(made.as_ref(), read.as_ref());
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn nodes_that_start_together_have_one_secret() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("secret");
            let start = || ServerSecret::read_or_make(&path).unwrap();
            std::thread::scope(|scope| {
                let nodes: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
                for node in nodes {
                    let secret = node.join().unwrap();
                    assert_eq!(secret.as_ref(), std::fs::read(&path).unwrap());
                }
            });
        }
    }

    #[test]
    fn a_damaged_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "short").unwrap();
        assert!(
            ServerSecret::read_or_make(&path)
                .unwrap_err()
                .contains("64 bytes")
        );
        assert!(ServerSecret::read_or_make(folder.path()).is_err());
    }
}
