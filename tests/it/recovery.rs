//! A backup never revives a key: what ended since is in the journal of ends.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use rand::RngExt;

use crate::support::*;

/// How an older copy of the database comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By the command.
    Restore,
    /// The copy alone takes the place of the database, and the server starts.
    PutBack,
    /// While the server runs.
    UnderTheServer,
}

/// A copy of a database.
struct Copy(PathBuf);

impl Copy {
    fn take(database: &Database) -> Self {
        let path = database.folder.path().join("copy");
        match database.backend() {
            Backend::Sqlite => {
                let made = cli(database, &["backup", path.to_str().unwrap()], "").unwrap();
                assert!(made.contains("Keep a copy of the secret"), "{made}");
            }
            Backend::Postgres => tool(
                "pg_dump",
                &["-Fc", "-f", path.to_str().unwrap(), database.direct()],
            ),
        }
        Self(path)
    }

    fn put_back(&self, database: &Database) {
        match database.backend() {
            Backend::Sqlite => {
                for end in ["-wal", "-shm"] {
                    let mut path = database.file().into_os_string();
                    path.push(end);
                    let _ = std::fs::remove_file(path);
                }
                std::fs::copy(&self.0, database.file()).unwrap();
            }
            Backend::Postgres => {
                let copy = self.0.to_str().unwrap();
                let how = [
                    "--clean",
                    "--if-exists",
                    "--single-transaction",
                    "-d",
                    database.direct(),
                    copy,
                ];
                tool("pg_restore", &how);
            }
        }
    }
}

fn tool(name: &str, args: &[&str]) {
    let output = Command::new(name).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn key(database: &Database, what: &[&str], id: i64) -> String {
    let id = id.to_string();
    let args = [&["key", what[0], "--account", EMAIL, &id], &what[1..]].concat();
    cli(database, &args, "").unwrap()
}

fn an_older_copy_is_brought_up_to_date(backend: Backend, way: Way) {
    let database = Database::with_journal(backend);
    let mut dashboard = Dashboard::start(&database, &[]);
    let owner = dashboard.visitor();
    owner.sign_up();
    attest(&database, "a.test");
    attest(&database, "b.test");
    let names = [
        "Deleted", "Paused", "Resumed", "Narrowed", "Rotated", "Kept",
    ];
    let [deleted, paused, resumed, narrowed, rotated, kept] =
        names.map(|name| owner.create_key(name, ""));
    assert_eq!(
        dashboard.program(&kept.1).email_from("ada@a.test").status,
        200
    );
    let gone = owner.add_domain("gone.test");
    let eve = "eve@evil.test";
    create_account(&database, eve, "Evil Corp");
    let args = ["key", "create", "--account", eve, "--name", "Eve"];
    let of_deleted = cli(&database, &args, "").unwrap();
    assert_eq!(dashboard.program(of_deleted.trim()).verdict(), 200);
    let copy = Copy::take(&database);

    assert_eq!(owner.delete_key(deleted.0).status, 303);
    key(&database, &["pause"], paused.0);
    key(&database, &["pause"], resumed.0);
    key(&database, &["resume"], resumed.0);
    key(
        &database,
        &["edit", "--domain", "a.test", "--recipient", "x.test"],
        narrowed.0,
    );
    key(&database, &["rotate", "--overlap", "now"], rotated.0);
    assert_eq!(
        owner.post(&format!("/domains/{gone}/delete"), &[]).status,
        303
    );

    let args = [
        "account",
        "delete",
        "--account",
        eve,
        "--title",
        "Evil Corp",
    ];
    cli(&database, &args, "").unwrap();

    match way {
        Way::UnderTheServer => {
            copy.put_back(&database);
            // From this moment on.
            for _ in 0..50 {
                let verdict = dashboard
                    .program(&deleted.1)
                    .try_verify()
                    .map(|answer| answer.status);
                assert!(matches!(verdict, None | Some(403 | 503)), "{verdict:?}");
            }
        }
        Way::Restore => {
            assert!(dashboard.terminate());
            let file = copy.0.display().to_string();
            let args = match backend {
                Backend::Sqlite => vec!["restore", &file],
                Backend::Postgres => {
                    copy.put_back(&database);
                    vec!["restore"]
                }
            };
            let told = cli(&database, &args, "").unwrap();
            assert!(
                told.contains("keys ended again: 2; keys paused or restricted again: 2; accounts paused or deleted again: 1;"),
                "{told}"
            );
            dashboard = Dashboard::start(&database, &[]);
        }
        Way::PutBack => {
            dashboard.kill();
            copy.put_back(&database);
            dashboard = Dashboard::start(&database, &[]);
        }
    }
    until("keys can be verified", || {
        dashboard.program(&kept.1).verdict() == 200
    });
    for ended in [&deleted, &paused, &rotated] {
        assert_eq!(dashboard.program(&ended.1).verdict(), 403);
    }
    assert_eq!(dashboard.program(of_deleted.trim()).verdict(), 403);
    let sign_in = [("email", eve), ("password", PASSWORD)];
    assert_eq!(dashboard.visitor().post("/login", &sign_in).status, 422);
    assert_eq!(dashboard.program(&resumed.1).verdict(), 200);
    let narrowed = dashboard.program(&narrowed.1);
    let outside = narrowed.email_from("ada@b.test").body;
    assert!(outside.contains("domain_not_allowed"), "{outside}");
    let beyond = narrowed.email_from("ada@a.test").body;
    assert!(beyond.contains("recipient"), "{beyond}");
    assert_eq!(
        database.number("SELECT count(*) FROM sending_domains WHERE name = 'gone.test'"),
        0
    );
    assert_eq!(
        database.number("SELECT count(*) FROM emails WHERE ended_at IS NULL"),
        0
    );

    owner.move_to(&dashboard.base);
    assert_eq!(
        owner.get("/api-keys").status,
        303,
        "everybody is signed out"
    );
    owner.sign_in(EMAIL);
    let activity = owner.get("/activity").body;
    assert!(
        activity.contains("after an older copy of the database was restored"),
        "{activity}"
    );
    let page = owner.get("/api-keys").body;
    assert!(
        page.contains("An older copy of the database was restored"),
        "{page}"
    );
    // It is done once.
    assert_eq!(
        owner
            .post(&format!("/api-keys/{}/resume", paused.0), &[])
            .status,
        303
    );
    assert!(dashboard.terminate());
    let dashboard = Dashboard::start(&database, &[]);
    assert_eq!(dashboard.program(&paused.1).verdict(), 200);
    assert_eq!(dashboard.program(&deleted.1).verdict(), 403);
}

#[test]
fn a_backup_that_is_restored_revives_no_key() {
    an_older_copy_is_brought_up_to_date(Backend::Sqlite, Way::Restore);
}

#[test]
fn a_file_that_is_put_back_revives_no_key() {
    an_older_copy_is_brought_up_to_date(Backend::Sqlite, Way::PutBack);
}

#[test]
fn a_dump_that_is_restored_revives_no_key_on_postgres() {
    an_older_copy_is_brought_up_to_date(Backend::Postgres, Way::Restore);
}

#[test]
fn a_dump_that_is_restored_without_the_command_revives_no_key_on_postgres() {
    an_older_copy_is_brought_up_to_date(Backend::Postgres, Way::PutBack);
}

#[test]
fn a_dump_that_is_restored_under_a_server_revives_no_key_on_postgres() {
    an_older_copy_is_brought_up_to_date(Backend::Postgres, Way::UnderTheServer);
}

fn refused(database: &Database) -> String {
    let output = command(database).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

fn journal(database: &Database) -> &Path {
    database.journal.as_deref().unwrap()
}

fn a_database_without_its_journal_is_not_used(backend: Backend) {
    let database = Database::with_journal(backend);
    let mut dashboard = Dashboard::start(&database, &[]);
    let owner = dashboard.visitor();
    owner.sign_up();
    let (id, first) = owner.create_key("First", "");
    let (_, second) = owner.create_key("Second", "");
    owner.delete_key(id);
    assert!(dashboard.terminate());

    let other = database.folder.path().join("other");
    std::fs::rename(journal(&database), &other).unwrap();
    let told = refused(&database);
    assert!(
        told.contains("is missing, so keys that were deleted"),
        "{told}"
    );
    assert!(
        told.contains("restore --pause-keys") && told.contains("restore --trust-backup"),
        "{told}"
    );
    std::fs::write(
        journal(&database),
        "{\"journal\":{\"id\":\"x\",\"from\":1}}\n",
    )
    .unwrap();
    assert!(refused(&database).contains("is not the one that this database is used with"));
    std::fs::write(journal(&database), "nonsense").unwrap();
    assert!(refused(&database).contains("it is not a journal of ends"));

    let told = cli(&database, &["restore", "--pause-keys"], "").unwrap();
    assert!(
        told.contains("nobody knows whether they ended: 1."),
        "{told}"
    );
    let mut dashboard = Dashboard::start(&database, &[]);
    assert_eq!(dashboard.program(&first).verdict(), 403);
    assert_eq!(dashboard.program(&second).verdict(), 403);
    assert!(dashboard.terminate());
    std::fs::remove_file(journal(&database)).unwrap();
    cli(&database, &["restore", "--trust-backup"], "").unwrap();
    let dashboard = Dashboard::start(&database, &[]);
    let owner = dashboard.visitor();
    owner.sign_in(EMAIL);
    let id = database.number("SELECT id FROM api_keys WHERE ended_at IS NULL");
    assert_eq!(
        owner.post(&format!("/api-keys/{id}/resume"), &[]).status,
        303
    );
    assert_eq!(dashboard.program(&second).verdict(), 200);
}

#[test]
fn a_database_without_its_journal_is_not_used_on_sqlite() {
    a_database_without_its_journal_is_not_used(Backend::Sqlite);
}

#[test]
fn a_database_without_its_journal_is_not_used_on_postgres() {
    a_database_without_its_journal_is_not_used(Backend::Postgres);
}

#[test]
fn a_journal_that_cannot_be_written_stops_no_revocation_and_catches_up() {
    let database = Database::with_journal(Backend::Sqlite);
    let mut dashboard = Dashboard::start(&database, &[]);
    let owner = dashboard.visitor();
    owner.sign_up();
    let (id, gone) = owner.create_key("Gone", "");
    let (_, kept) = owner.create_key("Kept", "");
    let copy = Copy::take(&database);
    let away = database.folder.path().join("away");
    std::fs::rename(journal(&database), &away).unwrap();
    assert_eq!(owner.delete_key(id).status, 303);
    assert_eq!(dashboard.program(&gone).verdict(), 403);
    let ready = dashboard.visitor().get("/readyz");
    assert_eq!(ready.status, 200);
    assert!(
        ready.body.contains("the journal of ends cannot be written"),
        "{}",
        ready.body
    );

    std::fs::rename(&away, journal(&database)).unwrap();
    until("the journal has caught up", || {
        dashboard.visitor().get("/readyz").body == "ready\n"
    });
    dashboard.kill();
    copy.put_back(&database);
    let dashboard = Dashboard::start(&database, &[]);
    assert_eq!(dashboard.program(&gone).verdict(), 403);
    assert_eq!(dashboard.program(&kept).verdict(), 200);
}

/// Whenever the process dies, an end that was answered holds after a restore, and a key that nobody
/// ended works.
#[test]
fn an_end_that_was_answered_holds_after_a_kill_and_a_restore() {
    let database = Database::with_journal(Backend::Sqlite);
    let mut dashboard = Dashboard::start(&database, &[]);
    let owner = dashboard.visitor();
    owner.sign_up();
    let (_, kept) = owner.create_key("Kept", "");
    for _ in 0..rounds("TOSEND_TEST_RESTORES", 4, 200) {
        let keys: Vec<(i64, String)> = (0..8).map(|_| owner.create_key("Key", "")).collect();
        let copy = Copy::take(&database);
        let answered = Mutex::new(Vec::new());
        let enough = rand::rng().random_range(1..=keys.len());
        std::thread::scope(|scope| {
            for part in keys.chunks(2) {
                let (owner, answered) = (&owner, &answered);
                scope.spawn(move || {
                    for (id, key) in part {
                        let path = format!("/api-keys/{id}/delete");
                        let answer = owner.try_post(&path, &[]);
                        if answer.is_some_and(|answer| answer.status == 303) {
                            answered.lock().unwrap().push(key.clone());
                        }
                    }
                });
            }
            until("some are deleted", || {
                answered.lock().unwrap().len() >= enough
            });
            dashboard.kill();
        });
        copy.put_back(&database);
        std::fs::remove_file(&copy.0).unwrap();
        dashboard = Dashboard::start(&database, &[]);
        for key in answered.into_inner().unwrap() {
            assert_eq!(dashboard.program(&key).verdict(), 403);
        }
        assert_eq!(dashboard.program(&kept).verdict(), 200);
        owner.move_to(&dashboard.base);
        owner.sign_in(EMAIL);
    }
}
