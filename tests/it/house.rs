//! The order of the house besides who uses whom, which is in `architecture`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::files::{files, root};

/// Every Rust file below `src`, with its path there and its text without tests.
pub fn sources() -> Vec<(String, String)> {
    let src = root().join("src");
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&src).unwrap().display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap().to_owned();
        (name, text)
    };
    let found: Vec<_> = files(&src).into_iter().map(read).collect();
    assert!(found.len() > 30);
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

fn names(folder: &str) -> Vec<String> {
    let paths = entries(&root().join(folder));
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    paths.into_iter().map(name).collect()
}

/// Whether a file has one of these names, or stands in a folder of that name (without `.rs`).
fn is_named(path: &str, names: &[&str]) -> bool {
    let mut parts = path.split('/');
    parts.any(|part| {
        names
            .iter()
            .any(|name| part == *name || Some(part) == name.strip_suffix(".rs"))
    })
}

/// Closing any descriptor of a file drops all the locks that SQLite holds on it.
#[test]
fn nothing_but_sqlite_opens_its_file() {
    let the_place = "db/sqlite_file.rs";
    // Files that are not the database, each opened where it is named: a new copy, which must not exist
    // before, and folders; the journal, which the configuration keeps apart from the database; the
    // reserve and the lock, whose names are never the database's, and which are not opened through a link.
    let others: [(&str, &[&str]); 4] = [
        (
            "db/backup.rs",
            &[
                ".open(to)",
                "File::open(to)",
                "File::open(folder.unwrap_or(Path::new(\".\")))",
            ],
        ),
        (
            "db/journal.rs",
            &[
                "let _ = Journal::open(path, journal_id, last).write_late(&rows);",
                ".open(path)?;",
                "pub fn open(path: &Path, id: String, known: i64) -> Arc<Self> {",
                ".open(&name)?;",
                ".open(&self.path)?;",
                "let file = File::open(path)?;",
                "File::open(folder.unwrap_or(Path::new(\".\")))?.sync_all()",
            ],
        ),
        (
            "db/presence.rs",
            &[
                "let lock = open(file)?;",
                "let lock = open(file)?;",
                "fn open(file: &SqliteFile) -> Result<File, String> {",
                ".open(file.beside(SUFFIX))",
            ],
        ),
        (
            "db/reserve.rs",
            &[
                "let cut = self.open(false).and_then(|file| file.set_len(shorter));",
                "let file = self.open(true)?;",
                "fn open(&self, makes: bool) -> Result<std::fs::File> {",
                ".open(&self.path)",
            ],
        ),
    ];
    for (path, text) in sources() {
        if path == the_place {
            // Nothing outside `db` sees the path, and it is opened once: where it is made.
            assert!(text.contains("pub struct SqliteFile(PathBuf);"));
            let uses = text.lines().filter(|line| line.contains("fs::"));
            let allowed = [
                "use std::fs::OpenOptions;",
                "use std::os::unix::fs::{MetadataExt, OpenOptionsExt};",
                "use rustix::fs::{Access, access};",
                // Which opens nothing.
                "let found = std::fs::metadata(&self.0)?;",
            ];
            let uses = uses.map(str::trim);
            assert_eq!(uses.collect::<Vec<_>>(), allowed);
            assert_eq!(text.matches("OpenOptions::new()").count(), 1);
            assert!(
                text.contains(".create_new(true)"),
                "else it opens what exists"
            );
        } else if let Some((_, opens)) = others.iter().find(|(other, _)| *other == path) {
            let opened: Vec<&str> = text
                .lines()
                .filter(|line| line.contains("open("))
                .map(str::trim)
                .collect();
            assert_eq!(opened, *opens, "{path}");
        } else if path.starts_with("db/") {
            assert!(
                !text.contains("fs::") && !text.contains("OpenOptions"),
                "{path}"
            );
        }
        if !["config.rs", the_place].contains(&path.as_str()) {
            assert!(!text.contains("database_url"), "{path}");
        }
    }
}

/// A request is let in when its head is there; the session may have ended when something is written.
#[test]
fn pages_write_by_way_of_the_session_only() {
    // Of those who sign up, and have no session yet.
    let exceptions = [("accounts/pages/mod.rs", 1)];
    for (path, text) in sources() {
        if !is_named(&path, &["pages.rs"]) {
            continue;
        }
        let plain: String = text.split_whitespace().collect();
        let writes = plain.matches("db.write").count();
        let known = exceptions.iter().find(|(name, _)| *name == path);
        assert_eq!(writes, known.map_or(0, |(_, count)| *count), "{path}");
    }
}

#[test]
fn every_statement_on_a_tenants_row_takes_the_account() {
    for (path, text) in sources() {
        if !is_named(&path, &["store.rs"]) || path.starts_with("accounts/") {
            continue;
        }
        for function in text.split("\npub fn ").skip(1) {
            let (name, rest) = function.split_once('(').unwrap();
            let arguments = rest.split(") ->").next().unwrap();
            let knows_whose = arguments.contains("AccountId")
                || arguments.contains("user_id")
                || arguments.contains("&LiveKey")
                || name.ends_with("_of_any_account");
            assert!(
                knows_whose || !arguments.contains("Connection"),
                "{path} {name}"
            );
        }
    }
}

#[test]
fn both_databases_have_the_same_migrations() {
    let sqlite = names("migrations/sqlite");
    assert_eq!(sqlite, names("migrations/postgres"));
    assert!(!sqlite.is_empty());
    for backend in ["sqlite", "postgres"] {
        for migration in &sqlite {
            let files = names(&format!("migrations/{backend}/{migration}"));
            assert_eq!(files, ["down.sql", "up.sql"], "{backend} {migration}");
        }
    }
}

/// The oldest Rust that all locked packages compile with is the one that is asked for everywhere.
#[test]
fn the_rust_that_is_asked_for_is_what_the_locked_packages_need() {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", &platform])
        .current_dir(root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let version = |text: &str| -> Vec<u32> {
        let numbers = text.split('.').map(|number| number.parse().unwrap());
        numbers.take(2).collect()
    };
    let (mut asked, mut needed) = (None, Vec::new());
    for package in metadata["packages"].as_array().unwrap() {
        let rust = package["rust_version"].as_str().map(version);
        match package["name"] == env!("CARGO_PKG_NAME") {
            true => asked = rust,
            false => needed.extend(rust.map(|rust| (rust, package["name"].to_string()))),
        }
    }
    let (highest, package) = needed.into_iter().max().unwrap();
    assert_eq!(asked.as_ref(), Some(&highest), "{package}");
    let [major, minor] = highest[..] else {
        panic!("{highest:?}")
    };
    for (file, text) in [
        (
            "rust-toolchain.toml",
            format!("channel = \"{major}.{minor}.0\""),
        ),
        ("README.md", format!("Rust ({major}.{minor} or later")),
    ] {
        let content = std::fs::read_to_string(root().join(file)).unwrap();
        assert!(content.contains(&text), "{file}: {text}");
    }
}

#[test]
fn vendored_assets_are_what_their_list_says() {
    use sha2::Digest;
    let list = std::fs::read_to_string(root().join("static/README.md")).unwrap();
    let script = std::fs::read(root().join("static/htmx.min.js")).unwrap();
    let sum: String = sha2::Sha256::digest(script)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(list.contains(&sum), "htmx.min.js is {sum}");
}
