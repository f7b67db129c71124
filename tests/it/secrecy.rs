//! Keys are kept as hashes: nowhere else may one be found.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;

fn number_of_keys() -> usize {
    rounds("TOSEND_TEST_SECRETS", 100, 1_000)
}

fn leaves_no_key(backend: Backend) {
    let database = Database::new(backend);
    let mut dashboard = Dashboard::start(&database, &["--log", "trace"]);
    let owner = dashboard.visitor();
    owner.sign_up();
    attest(&database, "acme.test");

    let mut keys = Vec::new();
    for n in 0..number_of_keys() {
        let key = owner.create(&format!("Key {n}"), "").key();
        let program = dashboard.program(&key);
        let mut body = email("ada@acme.test");
        body["api_key"] = key.as_str().into();
        let answer = match n % 3 {
            0 => program.email_from("ada@acme.test"),
            1 => program.send(program.bare("POST", "/v2/emails").json(&body)),
            _ => program.send(program.bare("GET", &format!("/v2/info?api_key={key}"))),
        };
        assert_eq!(answer.status, 200, "{}", answer.body);
        keys.push(key);
    }
    // Keys end in a checksum, so 16 characters from the middle are as good as all.
    let middles: Vec<&str> = keys.iter().map(|key| &key[10..26]).collect();
    let secrets = database.folder.path().join("secrets");
    std::fs::write(&secrets, format!("{}\n{PASSWORD}\n", middles.join("\n"))).unwrap();

    // Before the end of the process, while SQLite's WAL is still there, and after it.
    let before = everything_written(&database);
    assert!(dashboard.terminate());
    let after = everything_written(&database);
    for place in before.iter().chain(&after).chain([&dashboard.log]) {
        assert_eq!(lines_with_any(&secrets, place), 0, "{}", place.display());
    }
    let witness = database.folder.path().join("witness");
    std::fs::write(&witness, "TRACE\n").unwrap();
    assert!(
        lines_with_any(&witness, &dashboard.log) > 1_000,
        "the log is on"
    );
}

/// Copies of SQLite's files, or a dump of PostgreSQL. Each set holds what it may hold, or the
/// search would prove nothing.
fn everything_written(database: &Database) -> Vec<PathBuf> {
    let copies = tempfile::tempdir_in(database.folder.path()).unwrap().keep();
    match database.backend() {
        Backend::Sqlite => {
            for entry in std::fs::read_dir(database.file().parent().unwrap()).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), copies.join(entry.file_name())).unwrap();
            }
        }
        Backend::Postgres => {
            let dumped = Command::new("pg_dump")
                .args([&database.url, "--file"])
                .arg(copies.join("dump"))
                .status();
            assert!(dumped.unwrap().success());
        }
    }
    let places: Vec<PathBuf> = std::fs::read_dir(&copies)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let witnesses = copies.with_extension("witnesses");
    let last = format!("Key {}", number_of_keys() - 1);
    for witness in [&*last, "tsend_", "bob@example.org"] {
        std::fs::write(&witnesses, format!("{witness}\n")).unwrap();
        let found: usize = places
            .iter()
            .map(|place| lines_with_any(&witnesses, place))
            .sum();
        assert!(found > 0, "{witness}");
    }
    places
}

/// How many lines of a file hold one of the texts that stand in another.
fn lines_with_any(texts: &Path, file: &Path) -> usize {
    let output = Command::new("grep")
        .args(["--text", "--count", "--fixed-strings", "--file"])
        .args([texts, file])
        .output()
        .unwrap();
    let count = String::from_utf8(output.stdout).unwrap();
    count.trim().parse().expect("grep counts")
}

#[test]
fn many_keys_leave_no_trace_on_sqlite() {
    leaves_no_key(Backend::Sqlite);
}

#[test]
fn many_keys_leave_no_trace_on_postgres() {
    leaves_no_key(Backend::Postgres);
}
