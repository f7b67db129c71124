//! What this process takes up, as the kernel knows it (proc(5)). What cannot be read is not known.

use std::path::Path;

use rustix::fs::statvfs;
use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};

/// Memory that is in RAM.
pub fn resident_bytes() -> Option<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some((pages * page_size() as u64) as f64)
}

pub fn open_files() -> Option<f64> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

/// `None`: no limit.
pub fn most_open_files() -> Option<f64> {
    getrlimit(Resource::Nofile)
        .current
        .map(|limit| limit as f64)
}

/// What this process may still write to the disk of a folder, and the size of that disk.
pub fn disk(folder: &Path) -> Option<(f64, f64)> {
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    let disk = statvfs(folder).ok()?;
    let bytes = |blocks: u64| (blocks * disk.f_frsize) as f64;
    Some((bytes(disk.f_bavail), bytes(disk.f_blocks)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells() {
        assert!(resident_bytes().unwrap() > 1_000_000.0);
        let before = open_files().unwrap();
        let _files: Vec<_> = (0..50)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        // Other tests open and close some, too.
        assert!(open_files().unwrap() > before + 10.0);
        let (free, all) = disk(Path::new("")).unwrap();
        assert!(free > 0.0 && free <= all);
        assert_eq!(disk(Path::new("/no/such/folder")), None);
    }
}
