//! A small disk of its own for a test's database, which the test fills.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tmpfs that stands where the data of a database belongs; unmounted when dropped.
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// # Panics
    /// If this user may not mount: the tests run as root.
    pub fn mount(folder: &Path, mebibytes: u32) -> Self {
        fs::create_dir(folder).unwrap();
        let size = format!("size={mebibytes}m,mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tosend-test"])
            .arg(folder)
            .output()
            .unwrap();
        assert!(
            mounted.status.success(),
            "a tmpfs cannot be mounted, which needs root: {mounted:?}"
        );
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Lets PostgreSQL use a folder on it, and returns its path.
    pub fn give_to_postgres(&self) -> String {
        let space = self.folder.join("tables");
        fs::create_dir(&space).unwrap();
        let folder = self.folder.parent().unwrap();
        fs::set_permissions(folder, PermissionsExt::from_mode(0o711)).unwrap();
        let given = Command::new("chown")
            .args(["-R", "postgres"])
            .arg(&self.folder)
            .status();
        assert!(given.unwrap().success());
        space.display().to_string()
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.filling())
            .unwrap();
        for size in [64 * 1024, 512, 1] {
            loop {
                match file.write_all(&vec![b'x'; size]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// Removes what filled it.
    pub fn make_room(&self) {
        fs::remove_file(self.filling()).unwrap();
    }

    /// From now on, it can only be read.
    pub fn forbid_writing(&self) {
        let remounted = Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(&self.folder)
            .output()
            .unwrap();
        assert!(remounted.status.success(), "{remounted:?}");
    }

    fn filling(&self) -> PathBuf {
        self.folder.join("filling")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that a failing test left behind may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}
