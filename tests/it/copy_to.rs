//! From SQLite to PostgreSQL, with everything.

use std::process::Stdio;
use std::time::Duration;

use rand::RngExt;

use crate::support::*;

/// An empty PostgreSQL for a server that has the secret and the journal of this one.
fn target_of(database: &Database) -> Database {
    let mut target = Database::new(Backend::Postgres);
    target.journal = database.journal.clone();
    let secret = |of: &Database| of.folder.path().join("secret");
    std::fs::copy(secret(database), secret(&target)).unwrap();
    target
}

fn tables(database: &Database) -> Vec<String> {
    let names = "SELECT group_concat(name, ',') FROM sqlite_master
        WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '\\_\\_%' ESCAPE '\\'";
    let names = database.text(names);
    names.split(',').map(str::to_owned).collect()
}

/// A server with something in every table, and its owner. Keys: one that works, one that is paused,
/// one that was deleted.
fn furnished(database: &Database) -> (Dashboard, Visitor, [(i64, String); 3]) {
    let dashboard = Dashboard::start(database, &[]);
    let owner = dashboard.visitor();
    owner.sign_up();
    attest(database, "acme.test");
    attest(database, "other.test");
    let keys = ["Works 🔑 “quoted”", "Paused", "Gone"].map(|name| owner.create_key(name, ""));
    let edit = [
        "key",
        "edit",
        "--account",
        EMAIL,
        "--domain",
        "acme.test",
        "--recipient",
        "example.org",
    ];
    let number = keys[0].0.to_string();
    cli(database, &[&edit[..], &[&number]].concat(), "").unwrap();
    owner.post(&format!("/api-keys/{}/pause", keys[1].0), &[]);
    owner.delete_key(keys[2].0);
    let program = dashboard.program(&keys[0].1);
    let mut odd = email("ada@acme.test");
    odd["text"] = "NUL \0, \u{202e} and 🐌 \\u0000 \"\\\n".into();
    for body in [odd, email("ada@acme.test")] {
        assert_eq!(program.post(&body).status, 200);
    }
    let wrong = dashboard
        .visitor()
        .post("/login", &[("email", EMAIL), ("password", "wrong")]);
    assert_eq!(wrong.status, 422);
    until("uses are written", || {
        database.number("SELECT count(*) FROM api_key_calls") > 0
            && database.number("SELECT count(*) FROM email_totals") > 0
    });
    (dashboard, owner, keys)
}

#[test]
fn everything_moves_to_postgres() {
    let database = Database::with_journal(Backend::Sqlite);
    let (mut dashboard, owner, keys) = furnished(&database);
    let target = target_of(&database);
    let file = database.folder.path().join("url");
    std::fs::write(&file, format!("{}\n", target.url)).unwrap();
    let file = file.display().to_string();
    let copy = ["copy-to", "--url-file", &file];

    let listen = dashboard.base.strip_prefix("http://").unwrap().to_owned();
    let beside = cli(&database, &[&copy[..], &["--listen", &listen]].concat(), "").unwrap_err();
    assert!(
        beside.contains("is in use: stop the server first"),
        "{beside}"
    );
    assert!(dashboard.terminate());
    let told = cli(&database, &copy, "").unwrap();
    assert!(told.contains("the counts and sums agree"), "{told}");
    assert!(
        told.contains(&format!(
            "TOSEND_JOURNAL={}",
            database.journal.as_ref().unwrap().display()
        )),
        "{told}"
    );
    let mut filled = 0;
    for table in tables(&database) {
        let count = format!("SELECT count(*) FROM {table}");
        assert_eq!(database.number(&count), target.number(&count), "{table}");
        filled += usize::from(target.number(&count) > 0);
    }
    assert!(filled > 13, "{filled}");

    let dashboard = Dashboard::start(&target, &[]);
    for ((_, key), verdict) in keys.iter().zip([200, 403, 403]) {
        assert_eq!(dashboard.program(key).verdict(), verdict);
    }
    let outside = dashboard.program(&keys[0].1).email_from("ada@other.test");
    assert!(
        outside.body.contains("domain_not_allowed"),
        "{}",
        outside.body
    );
    owner.move_to(&dashboard.base);
    let page = owner.get("/api-keys").body;
    assert!(
        page.contains("Works 🔑 “quoted”") && !page.contains("An older copy"),
        "{page}"
    );
    assert!(!owner.get("/domains").body.contains("cannot be decrypted"));
    // Numbers go on behind those that were given.
    let (id, key) = owner.create_key("New", "");
    assert!(id > keys[2].0);
    assert_eq!(dashboard.program(&key).verdict(), 200);
    owner.add_domain("new.test");
    assert_eq!(
        target.number("SELECT count(*) FROM emails WHERE ended_at IS NULL"),
        2
    );
    let content = "SELECT count(*) FROM emails WHERE message LIKE '%🐌%'";
    assert_eq!(target.number(content), 1);

    let before = target.number("SELECT count(*) FROM events");
    let again = cli(&database, &copy, "").unwrap_err();
    assert!(
        again.contains("is not empty: there are rows in accounts"),
        "{again}"
    );
    assert_eq!(target.number("SELECT count(*) FROM events"), before);
}

#[test]
fn what_ends_during_a_move_ends_on_postgres_too() {
    let database = Database::with_journal(Backend::Sqlite);
    let (mut dashboard, owner, keys) = furnished(&database);
    let other = owner.create_key("Ends later", "");
    let target = target_of(&database);
    let told = cli(&database, &["copy-to", &target.url, "--beside-server"], "").unwrap();
    assert!(
        told.contains("What changed since this command began is missing there"),
        "{told}"
    );
    // The server goes on meanwhile.
    assert_eq!(dashboard.program(&keys[0].1).verdict(), 200);
    assert_eq!(owner.delete_key(other.0).status, 303);
    assert!(dashboard.terminate());
    let dashboard = Dashboard::start(&target, &[]);
    assert_eq!(dashboard.program(&other.1).verdict(), 403);
    assert_eq!(dashboard.program(&keys[0].1).verdict(), 200);
    // They may have been sent by the other server.
    assert_eq!(
        target.number("SELECT count(*) FROM emails WHERE ended_at IS NULL"),
        0
    );
    // Without the journal, nobody could know.
    let mut without = target.again();
    without.journal = None;
    let refused = cli(&without, &["key", "list", "--account", EMAIL], "").unwrap_err();
    assert!(refused.contains("name it in TOSEND_JOURNAL"), "{refused}");
}

#[test]
fn a_move_that_fails_or_is_killed_leaves_postgres_empty() {
    let database = Database::with_journal(Backend::Sqlite);
    let (mut dashboard, ..) = furnished(&database);
    assert!(dashboard.terminate());
    let mut target = target_of(&database);
    let copy = ["copy-to", &target.url];

    target.execute("CREATE TABLE other (id BIGINT)");
    let refused = cli(&database, &copy, "").unwrap_err();
    assert!(
        refused.contains("is not empty: it has the table other"),
        "{refused}"
    );
    target.execute("DROP TABLE other");
    for _ in 0..rounds("TOSEND_TEST_COPIES", 4, 50) {
        let mut child = command(&database)
            .args(copy)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(rand::rng().random_range(1..400)));
        child.kill().unwrap();
        child.wait().unwrap();
        if target.number("SELECT count(*) FROM pg_tables WHERE tablename = 'accounts'") > 0
            && target.number("SELECT count(*) FROM accounts") > 0
        {
            // It was faster.
            target.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        }
    }
    let triggers =
        "SELECT string_agg(tgname::text || tgenabled::text, ',' ORDER BY tgname) FROM pg_trigger";
    // The sums tell when something is kept otherwise than it was.
    // An empty database beside a journal that is not empty would be refused.
    let journal = target.journal.take();
    cli(&target, &["migrate"], "").unwrap();
    target.journal = journal;
    let working = target.text(triggers);
    let exact = |places: u8| {
        target.execute(&format!(
            "ALTER TABLE events ALTER COLUMN at TYPE timestamp({places})"
        ));
    };
    exact(0);
    let refused = cli(&database, &copy, "").unwrap_err();
    assert!(
        refused.contains("the copy of events does not agree"),
        "{refused}"
    );
    assert_eq!(target.number("SELECT count(*) FROM accounts"), 0);
    exact(6);
    cli(&database, &copy, "").unwrap();
    assert_eq!(target.text(triggers), working);
    let to_sqlite = cli(&database, &["copy-to", "sqlite://other.db"], "").unwrap_err();
    assert!(to_sqlite.contains("begins with postgres://"), "{to_sqlite}");
}
