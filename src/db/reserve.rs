//! Space that is kept back for SQLite: a file beside the database, which is cut piece by piece when an
//! urgent write finds the disk full, and made whole again when there is room.

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind, Result, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

use rand::Rng;
use rustix::fs::{FallocateFlags, OFlags, fallocate, statvfs};

use super::sqlite_file::SqliteFile;

const SUFFIX: &str = ".reserve";
/// Room for the WAL up to its checkpoint (4 MiB), as much for the checkpoint, and the events of
/// thousands of revocations.
const SIZE: u64 = 16 * 1024 * 1024;
/// What an urgent write frees at a time: whatever fills the disk may take it at once.
const PIECE: u64 = 1024 * 1024;
/// What must be free besides, before the file is made whole.
const MARGIN: u64 = SIZE;
/// The unit of `st_blocks`.
const BLOCK: u64 = 512;

/// How much of the reserve a write may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// While the reserve is not whole, the write is refused.
    Nothing,
    /// For what is needed to sign in, and for results that would otherwise be lost: the rest is left
    /// to revocations.
    Half,
    /// For revocations.
    All,
}

#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    alone: Mutex<()>,
    warned: Once,
}

impl Reserve {
    pub fn beside(file: &SqliteFile) -> Self {
        Self {
            path: file.beside(SUFFIX),
            alone: Mutex::new(()),
            warned: Once::new(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is not whole for want of room. Makes it whole if there is room.
    pub fn lacks_room(&self) -> bool {
        let _alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        let length = self.length();
        if length >= SIZE {
            return false;
        }
        match self.make_whole(length) {
            Ok(()) => false,
            Err(error) => {
                let lacks_room = is_for_want_of_room(&error);
                if !lacks_room {
                    self.warned.call_once(|| {
                        tracing::warn!(%error, "{} cannot be made: when the disk is full, keys cannot be deleted", self.path.display());
                    });
                }
                lacks_room
            }
        }
    }

    /// Frees a piece for a write of this kind. Returns whether there was one.
    pub fn cut(&self, share: Share) -> bool {
        let least = match share {
            Share::Nothing => return false,
            Share::Half => SIZE / 2,
            Share::All => 0,
        };
        let _alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        let length = self.length();
        if length <= least {
            return false;
        }
        let shorter = length.saturating_sub(PIECE).max(least);
        let cut = self.open(false).and_then(|file| file.set_len(shorter));
        // A file that another user made, such as root, can only be removed.
        cut.or_else(|_| std::fs::remove_file(&self.path)).is_ok()
    }

    /// Whether so little is free that a failure may come from it.
    pub fn is_needed(&self) -> bool {
        self.free_bytes().is_some_and(|free| free < PIECE)
    }

    /// How much anybody may still write on the disk.
    pub fn free_bytes(&self) -> Option<u64> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let folder = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        let disk = statvfs(folder).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Whether this file is on the same disk.
    pub fn is_on_the_disk_of(&self, path: &Path) -> bool {
        let disk = |path: &Path| std::fs::symlink_metadata(path).ok().map(|file| file.dev());
        disk(&self.path).is_some_and(|ours| disk(path) == Some(ours))
    }

    /// Bytes; 0 if there is no such file.
    fn length(&self) -> u64 {
        std::fs::symlink_metadata(&self.path).map_or(0, |file| file.len())
    }

    fn make_whole(&self, length: u64) -> Result<()> {
        let needed = SIZE - length + MARGIN;
        if self.free_bytes().is_some_and(|free| free < needed) {
            return Err(ErrorKind::StorageFull.into());
        }
        let file = self.open(true)?;
        let filled = fill(&file);
        if filled.is_err() {
            file.set_len(length)?;
        }
        filled
    }

    fn open(&self, makes: bool) -> Result<std::fs::File> {
        OpenOptions::new()
            .write(true)
            .create(makes)
            .mode(0o600)
            // A link could lead to the database, which only SQLite may open.
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&self.path)
    }
}

/// Makes the file occupy its whole size on the disk.
fn fill(mut file: &std::fs::File) -> Result<()> {
    let allocated = fallocate(file, FallocateFlags::empty(), 0, SIZE).map_err(Error::from);
    match allocated {
        // Some file systems only pretend.
        Ok(()) if file.metadata()?.blocks() * BLOCK >= SIZE => return Ok(()),
        Err(error) if is_for_want_of_room(&error) => return Err(error),
        _ => {}
    }
    // Random, because zeros would be compressed away.
    let mut piece = vec![0; PIECE as usize];
    for _ in 0..SIZE / PIECE {
        rand::rng().fill_bytes(&mut piece);
        file.write_all(&piece)?;
    }
    Ok(())
}

fn is_for_want_of_room(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_cut_piece_by_piece_and_made_whole_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::new(folder.path().join("a.db"));
        let reserve = Reserve::beside(&file);
        assert!(!reserve.cut(Share::All), "there is none yet");
        assert!(!reserve.lacks_room());
        let blocks = || reserve.path().metadata().unwrap().blocks() * BLOCK;
        assert!(blocks() >= SIZE);

        assert!(!reserve.cut(Share::Nothing));
        for count in 1..=SIZE / PIECE / 2 {
            assert!(reserve.cut(Share::Half));
            assert_eq!(reserve.length(), SIZE - count * PIECE);
        }
        assert!(!reserve.cut(Share::Half), "the rest is for revocations");
        for _ in 0..SIZE / PIECE / 2 {
            assert!(reserve.cut(Share::All));
        }
        assert!(!reserve.cut(Share::All));
        assert!(blocks() < PIECE);
        assert!(!reserve.lacks_room());
        assert!(blocks() >= SIZE);
    }

    #[test]
    fn it_never_follows_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::new(folder.path().join("a.db"));
        let reserve = Reserve::beside(&file);
        let other = folder.path().join("other");
        std::fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, reserve.path()).unwrap();
        assert!(!reserve.lacks_room(), "it is not for want of room");
        assert_eq!(std::fs::read(&other).unwrap(), b"kept");
    }
}
