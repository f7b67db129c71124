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

/// A server with an owner and keys, of which the first ones were deleted, that was stopped.
fn stopped_with_ends(database: &Database) -> (Vec<String>, Copy) {
    let mut dashboard = Dashboard::start(database, &[]);
    let owner = dashboard.visitor();
    owner.sign_up();
    let keys: Vec<_> = (0..4).map(|_| owner.create_key("Key", "")).collect();
    let copy = Copy::take(database);
    for (id, _) in &keys[..3] {
        assert_eq!(owner.delete_key(*id).status, 303);
    }
    assert!(dashboard.terminate());
    (keys.into_iter().map(|(_, key)| key).collect(), copy)
}

fn lines_of(journal: &str) -> Vec<String> {
    journal.lines().map(str::to_owned).collect()
}

fn is_change(line: &str) -> bool {
    line.starts_with("{\"change\"")
}

fn a_damaged_journal_is_not_used(backend: Backend) {
    let database = Database::with_journal(backend);
    let (keys, _copy) = stopped_with_ends(&database);
    let whole = std::fs::read_to_string(journal(&database)).unwrap();
    let lines = lines_of(&whole);
    let changes: Vec<usize> = (0..lines.len()).filter(|i| is_change(&lines[*i])).collect();
    let middle = changes[changes.len() / 2];
    let with = |text: &str| {
        std::fs::write(journal(&database), text).unwrap();
        let told = refused(&database);
        assert!(
            told.contains("restore --pause-keys") && told.contains("ends is damaged"),
            "{told}"
        );
        told
    };

    let told = with(&whole[..whole.len() / 2]);
    assert!(told.contains("it ends with the change"), "{told}");
    let mut garbled = lines.clone();
    garbled[middle] = "x".repeat(garbled[middle].len());
    let told = with(&(garbled.join("\n") + "\n"));
    assert!(
        told.contains(&format!("its line {} cannot be read", middle + 1)),
        "{told}"
    );
    let mut gap = lines.clone();
    gap.remove(middle);
    let told = with(&(gap.join("\n") + "\n"));
    assert!(told.contains("is missing before its line"), "{told}");

    // A crash cuts off what was not committed.
    std::fs::write(journal(&database), whole + "{\"change\":{\"n\":").unwrap();
    for _ in 0..2 {
        let mut dashboard = Dashboard::start(&database, &[]);
        assert_eq!(dashboard.program(&keys[0]).verdict(), 403);
        assert_eq!(dashboard.program(&keys[3]).verdict(), 200);
        dashboard.kill();
    }
}

#[test]
fn a_damaged_journal_is_not_used_on_sqlite() {
    a_damaged_journal_is_not_used(Backend::Sqlite);
}

#[test]
fn a_damaged_journal_is_not_used_on_postgres() {
    a_damaged_journal_is_not_used(Backend::Postgres);
}

/// The database that is replaced still knows how far the journal went.
#[test]
fn a_backup_is_not_restored_with_a_journal_that_was_cut_off() {
    let database = Database::with_journal(Backend::Sqlite);
    let (keys, copy) = stopped_with_ends(&database);
    let whole = std::fs::read_to_string(journal(&database)).unwrap();
    let lines = lines_of(&whole);
    let last = (0..lines.len()).rfind(|i| lines[*i].contains("mark"));
    let up_to_the_copy = lines[..=last.unwrap()].join("\n") + "\n";
    std::fs::write(journal(&database), up_to_the_copy).unwrap();
    let restore = ["restore", copy.0.to_str().unwrap()];
    let told = cli(&database, &restore, "").unwrap_err();
    assert!(told.contains("it ends with the change"), "{told}");
    assert!(traces(&database).is_empty());

    std::fs::write(journal(&database), whole).unwrap();
    cli(&database, &restore, "").unwrap();
    let dashboard = Dashboard::start(&database, &[]);
    assert_eq!(dashboard.program(&keys[0]).verdict(), 403);
    assert_eq!(dashboard.program(&keys[3]).verdict(), 200);
}

/// What a restore leaves beside the database.
fn traces(database: &Database) -> Vec<String> {
    let folder = database.file().parent().unwrap().to_owned();
    let names = std::fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let of_restore = |name: &String| name.contains(".before-") || name.contains(".restoring");
    names.filter(of_restore).collect()
}

#[test]
fn a_running_server_believes_no_damaged_journal_on_postgres() {
    let database = Database::with_journal(Backend::Postgres);
    let dashboard = Dashboard::start(&database, &[]);
    let owner = dashboard.visitor();
    owner.sign_up();
    let (id, gone) = owner.create_key("Gone", "");
    let copy = Copy::take(&database);
    let before = std::fs::read_to_string(journal(&database)).unwrap();
    owner.delete_key(id);
    std::fs::write(journal(&database), before).unwrap();
    copy.put_back(&database);
    until("the log says why", || {
        let verdict = dashboard.program(&gone).try_verify();
        assert!(verdict.is_none_or(|answer| matches!(answer.status, 403 | 503)));
        let log = std::fs::read_to_string(&dashboard.log).unwrap();
        log.contains("its journal of ends is damaged: it ends with the change")
    });
    let verdict = dashboard.program(&gone).try_verify().unwrap();
    assert_eq!(verdict.status, 503);
}

fn what_the_journal_lacks_is_kept_in_the_database(backend: Backend) {
    let database = Database::with_journal(backend);
    let mut dashboard = Dashboard::start(&database, &[]);
    let owner = dashboard.visitor();
    owner.sign_up();
    let [deleted, paused, kept] = ["Deleted", "Paused", "Kept"].map(|n| owner.create_key(n, ""));
    let copy = Copy::take(&database);
    let away = database.folder.path().join("away");
    std::fs::rename(journal(&database), &away).unwrap();
    assert_eq!(owner.delete_key(deleted.0).status, 303);
    // Beside the server, and without the file.
    key(&database, &["pause"], paused.0);
    assert_eq!(dashboard.program(&paused.1).verdict(), 403);
    dashboard.kill();
    assert!(refused(&database).contains("is missing"));

    std::fs::rename(&away, journal(&database)).unwrap();
    dashboard = Dashboard::start(&database, &[]);
    until("the journal has caught up", || {
        database.number("SELECT count(*) FROM ends_unwritten") == 0
    });
    dashboard.kill();
    copy.put_back(&database);
    let dashboard = Dashboard::start(&database, &[]);
    assert_eq!(dashboard.program(&deleted.1).verdict(), 403);
    assert_eq!(dashboard.program(&paused.1).verdict(), 403);
    assert_eq!(dashboard.program(&kept.1).verdict(), 200);
}

#[test]
fn what_the_journal_lacks_is_kept_in_the_database_on_sqlite() {
    what_the_journal_lacks_is_kept_in_the_database(Backend::Sqlite);
}

#[test]
fn what_the_journal_lacks_is_kept_in_the_database_on_postgres() {
    what_the_journal_lacks_is_kept_in_the_database(Backend::Postgres);
}

#[test]
fn without_a_journal_nothing_is_restored_in_silence_on_postgres() {
    let database = Database::new(Backend::Postgres);
    let mut dashboard = Dashboard::start(&database, &[]);
    let warning = "there is no journal of ends";
    until("it warns once", || {
        let log = std::fs::read_to_string(&dashboard.log).unwrap();
        log.matches(warning).count() == 1
    });
    let owner = dashboard.visitor();
    owner.sign_up();
    attest(&database, "a.test");
    let (id, gone) = owner.create_key("Gone", "");
    let (_, kept) = owner.create_key("Kept", "");
    assert_eq!(
        dashboard.program(&kept).email_from("ada@a.test").status,
        200
    );
    let copy = Copy::take(&database);
    owner.delete_key(id);
    assert!(dashboard.terminate());

    copy.put_back(&database);
    let told = cli(&database, &["restore"], "").unwrap_err();
    assert!(
        told.contains(warning) && told.contains("--pause-keys"),
        "{told}"
    );
    let unsent = "SELECT count(*) FROM emails WHERE ended_at IS NULL";
    assert_eq!(database.number(unsent), 1);
    let told = cli(&database, &["restore", "--pause-keys"], "").unwrap();
    assert!(
        told.contains("may have been sent: 1.") && told.contains("whether they ended: 2."),
        "{told}"
    );
    assert_eq!(database.number(unsent), 0);
    assert_eq!(database.number("SELECT count(*) FROM sessions"), 0);
    let mut dashboard = Dashboard::start(&database, &[]);
    assert_eq!(dashboard.program(&gone).verdict(), 403);
    assert_eq!(dashboard.program(&kept).verdict(), 403);
    assert!(dashboard.terminate());

    copy.put_back(&database);
    let told = cli(&database, &["restore", "--trust-backup"], "").unwrap();
    assert!(told.contains("may have been sent: 1."), "{told}");
    let dashboard = Dashboard::start(&database, &[]);
    assert_eq!(dashboard.program(&kept).verdict(), 200);
}

#[test]
fn an_email_that_an_older_copy_does_not_know_was_sent_is_not_sent_again_on_postgres() {
    let database = Database::with_journal(Backend::Postgres);
    let relay = Relay::start();
    let mut dashboard = Dashboard::start(&database, &[]);
    let owner = dashboard.visitor();
    owner.sign_up();
    attest(&database, "a.test");
    let (id, _) = owner.create_key("Gone", "");
    let (_, kept) = owner.create_key("Kept", "");
    assert_eq!(
        dashboard.program(&kept).email_from("ada@a.test").status,
        200
    );
    let copy = Copy::take(&database);
    assert!(dashboard.terminate());
    let dashboard = Dashboard::start(&database, &["--smtp-url", &relay.url()]);
    until("the email is delivered", || {
        database.number("SELECT count(*) FROM emails WHERE status = 'delivered'") == 1
    });
    let owner = dashboard.visitor();
    owner.sign_in(EMAIL);
    owner.delete_key(id);

    // Nobody can bring the database up to date meanwhile.
    let held = database.hold_the_journal();
    copy.put_back(&database);
    until("no email is claimed", || {
        let log = std::fs::read_to_string(&dashboard.log).unwrap();
        log.contains("emails cannot be claimed for delivery")
    });
    drop(held);
    until("the email is withheld", || {
        database.number("SELECT count(*) FROM emails WHERE status = 'failed'") == 1
    });
    assert_eq!(relay.got().len(), 1);
}

fn nothing_is_restored_under_a_server(backend: Backend) {
    let database = Database::with_journal(backend);
    let mut dashboard = Dashboard::start(&database, &[]);
    dashboard.visitor().sign_up();
    let copy = Copy::take(&database);
    let file = copy.0.display().to_string();
    let args = match backend {
        Backend::Sqlite => vec!["restore", &file],
        Backend::Postgres => vec!["restore"],
    };
    // The test's commands have another address than the server.
    let told = cli(&database, &args, "").unwrap_err();
    assert!(told.contains("a server uses the database"), "{told}");
    assert!(dashboard.terminate());
    until("the server's connections are closed", || {
        cli(&database, &args, "").is_ok()
    });
}

#[test]
fn nothing_is_restored_under_a_server_on_sqlite() {
    nothing_is_restored_under_a_server(Backend::Sqlite);
}

#[test]
fn nothing_is_restored_under_a_server_on_postgres() {
    nothing_is_restored_under_a_server(Backend::Postgres);
}

#[test]
fn a_restore_that_fails_changes_nothing() {
    let database = Database::with_journal(Backend::Sqlite);
    let (keys, copy) = stopped_with_ends(&database);
    let file = copy.0.display().to_string();
    let away = database.folder.path().join("away");
    std::fs::rename(journal(&database), &away).unwrap();
    let told = cli(&database, &["restore", &file], "").unwrap_err();
    assert!(told.contains("is missing"), "{told}");
    assert_eq!(traces(&database), Vec::<String>::new());

    std::fs::rename(&away, journal(&database)).unwrap();
    let newer = "INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')";
    tool("sqlite3", &[&file, newer]);
    let told = cli(&database, &["restore", &file], "").unwrap_err();
    assert!(told.contains("a newer version of this program"), "{told}");
    assert_eq!(traces(&database), Vec::<String>::new());
    let dashboard = Dashboard::start(&database, &[]);
    assert_eq!(dashboard.program(&keys[0]).verdict(), 403);
    assert_eq!(dashboard.program(&keys[3]).verdict(), 200);
    let owner = dashboard.visitor();
    owner.sign_in(EMAIL);
}

#[test]
fn a_journal_without_its_database_is_not_begun_with() {
    let database = Database::with_journal(Backend::Sqlite);
    let (keys, copy) = stopped_with_ends(&database);
    let away = database.folder.path().join("away");
    std::fs::rename(database.file(), &away).unwrap();
    let told = refused(&database);
    assert!(
        told.contains(
            "with “restore”; to begin anew, without any account or key, move the journal away"
        ),
        "{told}"
    );
    assert!(cli(&database, &["migrate"], "").is_err());
    assert!(cli(&database, &["check"], "").is_err());
    // As a failed attempt of another program may leave it.
    std::fs::write(database.file(), "").unwrap();
    assert!(refused(&database).contains("is empty, but its journal"));
    std::fs::remove_file(database.file()).unwrap();

    cli(&database, &["restore", copy.0.to_str().unwrap()], "").unwrap();
    let mut dashboard = Dashboard::start(&database, &[]);
    assert_eq!(dashboard.program(&keys[0]).verdict(), 403);
    assert_eq!(dashboard.program(&keys[3]).verdict(), 200);
    assert!(dashboard.terminate());
    std::fs::remove_file(database.file()).unwrap();
    std::fs::remove_file(journal(&database)).unwrap();
    let dashboard = Dashboard::start(&database, &[]);
    dashboard.visitor().sign_up();
}

#[test]
fn a_check_looks_at_the_journal() {
    let database = Database::with_journal(Backend::Sqlite);
    stopped_with_ends(&database);
    let check = || match cli(&database, &["check"], "") {
        Ok(told) => told,
        Err(_) => {
            let output = command(&database).arg("check").output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        }
    };
    assert!(check().contains("ok    journal of ends: "));
    let whole = std::fs::read_to_string(journal(&database)).unwrap();
    let other = "{\"journal\":{\"id\":\"x\",\"from\":1}}\n";
    for (text, why) in [
        (&whole[..whole.len() / 2], "is damaged"),
        (other, "is not the one that this database is used with"),
        ("nonsense", "it is not a journal of ends"),
    ] {
        std::fs::write(journal(&database), text).unwrap();
        let told = check();
        assert!(told.contains("wrong journal of ends: "), "{told}");
        assert!(told.contains(why), "{told}");
    }
    std::fs::remove_file(journal(&database)).unwrap();
    assert!(check().contains("is missing, so keys"));
}
