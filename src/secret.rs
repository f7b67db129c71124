//! The server's secret: 64 random bytes in a file. The keys that sign cookies and encrypt DKIM keys
//! are derived from it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};

const BYTES: usize = 64;
/// The secret in use and, during a rotation, another one.
const MOST: usize = 2;

/// Debug does not print it. It belongs to one database, and all nodes of that database share it.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerSecret([u8; BYTES]);

impl ServerSecret {
    fn make() -> std::io::Result<Self> {
        let mut bytes = [0; BYTES];
        SysRng
            .try_fill_bytes(&mut bytes)
            .map_err(std::io::Error::other)?;
        Ok(Self(bytes))
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

/// The secrets in the file: one, or two during a rotation, the newer one first. What was made with
/// either is accepted; the database says which one is in use. Clones share what they know.
#[derive(Debug, Clone)]
pub struct SecretRing {
    path: PathBuf,
    /// Never fewer than the file has had while this process runs.
    known: Arc<Mutex<Vec<ServerSecret>>>,
    /// With which this process signs cookies.
    current: ServerSecret,
}

impl SecretRing {
    /// Reads the file, or creates it, readable only by its owner.
    ///
    /// # Errors
    /// One sentence on the problem with the file.
    pub fn read_or_make(path: &Path) -> Result<Self, String> {
        if !path.exists() {
            match create(path) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                    return Err(format!(
                        "the secret {} cannot be created: {e}",
                        path.display()
                    ));
                }
                _ => {}
            }
        }
        Self::read(path)
    }

    /// `None` if the file does not exist.
    ///
    /// # Errors
    /// One sentence on the problem with the file.
    pub fn find(path: &Path) -> Result<Option<Self>, String> {
        path.exists().then(|| Self::read(path)).transpose()
    }

    fn read(path: &Path) -> Result<Self, String> {
        let known = read(path)?;
        let current = known[0].clone();
        Ok(Self {
            path: path.to_owned(),
            known: Arc::new(Mutex::new(known)),
            current,
        })
    }

    /// The same with the secret that has this hash in use; `None`: it is not in the file.
    pub fn using(&self, hash: &[u8]) -> Option<Self> {
        let current = self.find_by_hash(hash)?;
        Some(Self {
            current,
            ..self.clone()
        })
    }

    /// The secret with which this process signs cookies: the one in use when it started.
    pub fn current(&self) -> &ServerSecret {
        &self.current
    }

    /// The newest first.
    pub fn all(&self) -> Vec<ServerSecret> {
        self.lock().clone()
    }

    /// The first result with one of the secrets. If there is none, the file may have got another
    /// secret since, so it is read again.
    pub fn find_map<T>(&self, mut with: impl FnMut(&ServerSecret) -> Option<T>) -> Option<T> {
        let known = self.all();
        if let Some(found) = known.iter().find_map(&mut with) {
            return Some(found);
        }
        // A file that cannot be read now is no reason to forget what was in it.
        let mut others = read(&self.path).unwrap_or_default();
        others.retain(|secret| !known.contains(secret));
        let found = others.iter().find_map(with);
        self.learn(others);
        found
    }

    pub fn find_by_hash(&self, hash: &[u8]) -> Option<ServerSecret> {
        self.find_map(|secret| (secret.hash() == hash).then(|| secret.clone()))
    }

    /// Adds a new secret to the file, before the one that is there.
    ///
    /// # Errors
    /// One sentence on the problem with the file, which is left as it was.
    pub fn add_new(&self) -> Result<(), String> {
        let made = ServerSecret::make().map_err(|e| self.cannot_be_replaced(&e))?;
        let old = read(&self.path)?.swap_remove(0);
        self.replace(&[made, old])
    }

    /// Leaves only this secret in the file.
    ///
    /// # Errors
    /// As above.
    pub fn keep_only(&self, secret: &ServerSecret) -> Result<(), String> {
        self.replace(std::slice::from_ref(secret))
    }

    fn replace(&self, secrets: &[ServerSecret]) -> Result<(), String> {
        replace(&self.path, secrets).map_err(|e| self.cannot_be_replaced(&e))?;
        self.learn(secrets.to_vec());
        Ok(())
    }

    fn cannot_be_replaced(&self, error: &std::io::Error) -> String {
        format!(
            "the secret {} cannot be replaced: {error}",
            self.path.display()
        )
    }

    fn learn(&self, secrets: Vec<ServerSecret>) {
        let mut known = self.lock();
        for secret in secrets.into_iter().rev() {
            if !known.contains(&secret) {
                known.insert(0, secret);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ServerSecret>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> Result<Vec<ServerSecret>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| {
            let most = MOST * BYTES + 1;
            file.take(most as u64).read_to_end(&mut bytes)
        })
        .map_err(|e| format!("the secret {} cannot be read: {e}", path.display()))?;
    let (secrets, rest) = bytes.as_chunks::<BYTES>();
    match (secrets.len(), rest) {
        (1..=MOST, []) => Ok(secrets.iter().copied().map(ServerSecret).collect()),
        _ => Err(format!(
            "the secret {} does not hold {BYTES} bytes, or twice as many during a rotation: restore it, or, if that is lost, delete it and run “adopt-secret”, which makes a new one and signs everyone out",
            path.display()
        )),
    }
}

fn create(path: &Path) -> std::io::Result<()> {
    let (draft, mut file) = draft(path)?;
    // Written completely or not at all: another node may start at the same time, and this one may
    // crash.
    file.write_all(ServerSecret::make()?.as_ref())?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft)?;
    linked
}

/// After a crash, the file is either the old one or the new one.
fn replace(path: &Path, secrets: &[ServerSecret]) -> std::io::Result<()> {
    // A link stays one.
    let path = path.canonicalize()?;
    let old = path.metadata()?;
    let (draft, mut file) = draft(&path)?;
    let written = secrets
        .iter()
        .try_for_each(|secret| file.write_all(secret.as_ref()))
        // Whoever could read it still can, also if root replaces it.
        .and_then(|()| fchown(&file, Some(old.uid()), Some(old.gid())))
        .and_then(|()| file.set_permissions(old.permissions()))
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&draft, &path));
    if written.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    written?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder)?.sync_all()
}

/// A new file beside this one, readable only by its owner.
fn draft(path: &Path) -> std::io::Result<(PathBuf, File)> {
    let draft = path.with_extension(format!("{}.draft", crate::token::random()));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    Ok((draft, file))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let made = SecretRing::read_or_make(&path).unwrap();
        let read = SecretRing::read_or_make(&path).unwrap();
        assert_eq!(made.current(), read.current());
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn nodes_that_start_together_have_one_secret() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("secret");
            let start = || SecretRing::read_or_make(&path).unwrap();
            std::thread::scope(|scope| {
                let nodes: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
                for node in nodes {
                    let secret = node.join().unwrap();
                    assert_eq!(secret.current().as_ref(), std::fs::read(&path).unwrap());
                }
            });
        }
    }

    #[test]
    fn a_damaged_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for length in [0, 5, 63, 65, 127, 129, 192] {
            std::fs::write(&path, vec![7; length]).unwrap();
            let refused = SecretRing::read_or_make(&path).unwrap_err();
            assert!(refused.contains("64 bytes"), "{length}: {refused}");
        }
        assert!(SecretRing::read_or_make(folder.path()).is_err());
    }

    #[test]
    fn a_secret_that_another_process_adds_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let server = SecretRing::read_or_make(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let command = SecretRing::read_or_make(&path).unwrap();
        command.add_new().unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let [new, old] = <[_; 2]>::try_from(command.all()).unwrap();
        assert_eq!((&old, server.all().len()), (server.current(), 1));
        assert_eq!(server.find_by_hash(&new.hash()), Some(new.clone()));
        assert_eq!(server.find_by_hash(&[0; 32]), None);

        // Neither a server that runs nor one that cannot read the file forgets one.
        command.keep_only(&new).unwrap();
        let left = SecretRing::read_or_make(&path).unwrap().all();
        assert_eq!(left, std::slice::from_ref(&new));
        assert_eq!(server.find_by_hash(&old.hash()), Some(old));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(server.find_by_hash(&[0; 32]), None);
        assert_eq!(server.find_by_hash(&new.hash()), Some(new));
    }
}
