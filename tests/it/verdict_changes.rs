//! The database records every change that could alter a verdict, whoever makes it and how: what
//! verification remembers is believed only as long as nothing is recorded.

use std::sync::Barrier;
use std::thread;

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use tosend_dashboard::keys::expiry::Expiry;
use tosend_dashboard::keys::scope::NewScope;

use crate::support::*;

/// An account with a key that is restricted to a domain, and another account with a key. No server runs.
struct Scene {
    database: Database,
    account: i64,
    key: i64,
    domain: i64,
    other_account: i64,
    other_key: i64,
}

impl Scene {
    fn new(backend: Backend) -> Self {
        let database = Database::new(backend);
        std::fs::create_dir_all(database.folder.path().join("data")).unwrap();
        create_account(&database, EMAIL, TITLE);
        create_account(&database, "eve@evil.test", "Evil Corp");
        attest(&database, "acme.test");
        let account = database.number("SELECT min(id) FROM accounts");
        let other_account = database.number("SELECT max(id) FROM accounts");
        let domain = database.number("SELECT id FROM sending_domains");
        let scope = NewScope::Domains(vec![domain]);
        let key = KeyStore::of(&database)
            .create(scope, Expiry::NEVER)
            .unwrap();
        let scene = Self {
            key: key.id,
            account,
            domain,
            other_account,
            other_key: 0,
            database,
        };
        scene.execute(&scene.new_key(other_account, 1));
        let other_key = scene.database.number("SELECT max(id) FROM api_keys");
        Self { other_key, ..scene }
    }

    /// Adds so many keys to an account.
    fn new_key(&self, account: i64, count: i64) -> String {
        let hash = match self.database.backend() {
            Backend::Sqlite => "randomblob(32)",
            Backend::Postgres => "uuid_send(gen_random_uuid())",
        };
        format!(
            "WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {count})
             INSERT INTO api_keys (account_id, name, hash, first8, last4, all_domains, status, created_at)
             SELECT {account}, name, {hash}, first8, last4, all_domains, status, created_at
             FROM api_keys, numbers WHERE id = {}",
            self.key
        )
    }

    fn execute(&self, sql: &str) {
        self.database.execute(sql);
    }

    fn newest(&self) -> i64 {
        self.database.number("SELECT max(n) FROM verdict_changes")
    }

    /// The accounts whose changes this SQL makes the database record, each once, in order. Checks the
    /// numbers.
    fn recorded(&self, sql: &str) -> Vec<i64> {
        let before = self.newest();
        self.execute(sql);
        let after = self.newest();
        let account = |n: i64| {
            let account = format!("SELECT account_id FROM verdict_changes WHERE n = {n}");
            self.database.number(&account)
        };
        let mut accounts: Vec<i64> = (before + 1..=after).map(account).collect();
        accounts.sort_unstable();
        accounts.dedup();
        accounts
    }

    /// SQL with the ids in the place of their names.
    fn filled(&self, sql: &str) -> String {
        let names = [
            ("OTHER_ACCOUNT", self.other_account),
            ("OTHER_KEY", self.other_key),
            ("ACCOUNT", self.account),
            ("KEY", self.key),
            ("DOMAIN", self.domain),
        ];
        let fill = |sql: String, (name, id): (&str, i64)| sql.replace(name, &id.to_string());
        names.into_iter().fold(sql.to_owned(), fill)
    }

    fn assert_recorded(&self, sql: &str, accounts: &[i64]) {
        assert_eq!(self.recorded(&self.filled(sql)), accounts, "{sql}");
    }
}

fn on_both(test: impl Fn(&Scene)) {
    for backend in Backend::all() {
        test(&Scene::new(backend));
    }
}

#[test]
fn every_change_by_hand_is_recorded_for_its_accounts() {
    on_both(|scene| {
        let (own, both) = ([scene.account], [scene.account, scene.other_account]);
        for sql in [
            "UPDATE api_keys SET status = 'paused' WHERE id = KEY",
            "UPDATE api_keys SET expires_at = '2030-01-01 00:00:00' WHERE id = KEY",
            "UPDATE api_keys SET name = name WHERE id = KEY",
            "DELETE FROM api_key_domains WHERE api_key_id = KEY",
            "INSERT INTO api_key_domains (api_key_id, domain_id) VALUES (KEY, DOMAIN)",
            "UPDATE api_key_domains SET domain_id = DOMAIN",
            "UPDATE accounts SET status = 'paused' WHERE id = ACCOUNT",
            "UPDATE sending_domains SET status = 'failed' WHERE id = DOMAIN",
            "UPDATE sending_domains SET name = 'b.test' WHERE id = DOMAIN",
            "UPDATE sending_domains SET account_id = OTHER_ACCOUNT WHERE id = DOMAIN",
            // A domain of another account, to which a key is restricted all the same.
            "UPDATE sending_domains SET status = 'verified' WHERE id = DOMAIN",
        ] {
            scene.assert_recorded(sql, &own);
        }
        for sql in [
            "UPDATE api_keys SET account_id = OTHER_ACCOUNT WHERE id = KEY",
            "UPDATE api_keys SET account_id = ACCOUNT WHERE id = KEY",
            "UPDATE api_keys SET status = 'active'",
            "DELETE FROM api_key_domains; DELETE FROM api_keys",
        ] {
            scene.assert_recorded(sql, &both);
        }
    });
}

#[test]
fn what_alters_no_verdict_is_not_recorded() {
    on_both(|scene| {
        for sql in [
            "UPDATE accounts SET title = 'Other', key_count = 7",
            "UPDATE sending_domains SET checked_at = '2026-01-01 00:00:00', spf_state = 'found'",
            "UPDATE users SET password_hash = 'x'",
            "INSERT INTO sending_domains (account_id, name, status, created_at)
             VALUES (ACCOUNT, 'c.test', 'pending', '2026-01-01 00:00:00')",
        ] {
            scene.assert_recorded(sql, &[]);
        }
        assert!(scene.recorded(&scene.new_key(scene.account, 1)).is_empty());
    });
}

/// A row that takes the place of another one deletes it without a trigger for that.
#[test]
fn a_row_that_is_displaced_is_recorded_on_sqlite() {
    // Foreign keys are off, as in SQLite's own shell.
    let scene = Scene::new(Backend::Sqlite);
    let columns = "name, hash, first8, last4, all_domains, status, created_at";
    let (own, other) = ([scene.account], [scene.other_account]);
    let both = [own[0], other[0]];
    let insert = |id: &str, of: &str| {
        format!(
            "PRAGMA foreign_keys = OFF; INSERT OR REPLACE INTO api_keys (id, account_id, {columns})
             SELECT {id}, OTHER_ACCOUNT, {columns} FROM api_keys WHERE id = {of}"
        )
    };
    // By its id; by its hash; as an update.
    scene.assert_recorded(&insert("OTHER_KEY", "OTHER_KEY"), &other);
    scene.assert_recorded(&insert("9000", "KEY"), &own);
    scene.execute(&scene.filled(&insert("KEY", "9000")));
    scene.execute(&scene.filled("UPDATE api_keys SET account_id = ACCOUNT WHERE id = KEY"));
    scene.assert_recorded(
        "PRAGMA foreign_keys = OFF; UPDATE OR REPLACE api_keys SET hash = (SELECT hash FROM api_keys WHERE id = KEY) WHERE id = OTHER_KEY",
        &both,
    );
    scene.assert_recorded(
        "PRAGMA foreign_keys = OFF; INSERT OR REPLACE INTO accounts (id, title, status, created_at)
         VALUES (ACCOUNT, 'New', 'active', '2026-01-01 00:00:00')",
        &own,
    );
    scene.execute(
        &scene.filled("INSERT OR REPLACE INTO api_key_domains VALUES (OTHER_KEY, DOMAIN)"),
    );
    scene.assert_recorded(
        "PRAGMA foreign_keys = OFF; INSERT OR REPLACE INTO sending_domains (account_id, name, status, created_at)
         VALUES (ACCOUNT, 'acme.test', 'pending', '2026-01-01 00:00:00')",
        &other,
    );
}

#[test]
fn bulk_and_replayed_changes_are_recorded_on_postgres() {
    let scene = Scene::new(Backend::Postgres);
    scene.assert_recorded(
        "SET session_replication_role = replica; UPDATE api_keys SET name = name WHERE id = KEY",
        &[scene.account],
    );
    scene.assert_recorded("TRUNCATE api_key_domains", &[0]);
    scene.assert_recorded(
        "COPY api_key_domains FROM PROGRAM 'echo KEY,DOMAIN' WITH (DELIMITER ',')",
        &[scene.account],
    );
    scene.assert_recorded(
        "MERGE INTO api_keys USING (SELECT 1) AS one ON id = KEY WHEN MATCHED THEN UPDATE SET name = 'Merged'",
        &[scene.account],
    );
    scene.assert_recorded(
        "SET search_path = ''; DELETE FROM public.api_keys WHERE id = OTHER_KEY",
        &[scene.other_account],
    );
    scene.assert_recorded("TRUNCATE accounts CASCADE", &[0]);
}

#[test]
fn what_was_rolled_back_is_not_recorded_and_leaves_no_gap() {
    on_both(|scene| {
        let immediate = match scene.database.backend() {
            Backend::Sqlite => "",
            Backend::Postgres => "SET CONSTRAINTS ALL IMMEDIATE;",
        };
        for begin in ["", immediate] {
            let change = "UPDATE api_keys SET name = name WHERE id";
            let sql = format!(
                "BEGIN; {begin} SAVEPOINT s; {change} = KEY; ROLLBACK TO s; {change} = OTHER_KEY; COMMIT"
            );
            scene.assert_recorded(&sql, &[scene.other_account]);
            let sql = format!("BEGIN; {begin} {change} = KEY; ROLLBACK");
            scene.assert_recorded(&sql, &[]);
            let sql = format!(
                "BEGIN; {begin} SAVEPOINT s; {change} = KEY; RELEASE s; SAVEPOINT t; {change} = OTHER_KEY; ROLLBACK TO t; {change} = KEY; COMMIT"
            );
            scene.assert_recorded(&sql, &[scene.account]);
        }
    });
}

#[test]
fn many_changes_in_one_transaction_are_recorded_once_for_each_account_on_postgres() {
    let scene = Scene::new(Backend::Postgres);
    scene.execute(&scene.new_key(scene.account, 20_000));
    let before = scene.newest();
    scene.execute("UPDATE api_keys SET name = name");
    assert_eq!(scene.newest(), before + 2);
}

#[test]
fn only_the_newest_10_000_are_kept() {
    on_both(|scene| {
        let before = scene.newest();
        let fill = format!(
            "DELETE FROM verdict_changes WHERE n < {before};
             WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < 9999)
             INSERT INTO verdict_changes (n, mark, account_id)
             SELECT {before} + i, mark, account_id FROM numbers, verdict_changes WHERE n = {before}"
        );
        scene.execute(&fill);
        for _ in 0..5 {
            scene.execute(&scene.filled("UPDATE api_keys SET name = name WHERE id = KEY"));
        }
        let count = "SELECT count(*) FROM verdict_changes";
        assert_eq!(scene.database.number(count), 10_000);
    });
}

/// Numbers are in the order in which changes can be seen.
#[test]
fn who_commits_later_gets_the_higher_number_on_postgres() {
    let scene = Scene::new(Backend::Postgres);
    let begin = |key: i64| {
        let mut conn = PgConnection::establish(&scene.database.url).unwrap();
        let sql = format!("BEGIN; UPDATE api_keys SET name = name WHERE id = {key}");
        conn.batch_execute(&sql).unwrap();
        conn
    };
    let before = scene.newest();
    let mut first = begin(scene.key);
    let mut second = begin(scene.other_key);
    // It does not wait for the first one.
    second.batch_execute("COMMIT").unwrap();
    first.batch_execute("COMMIT").unwrap();
    let account = |n: i64| {
        let account = format!("SELECT account_id FROM verdict_changes WHERE n = {n}");
        scene.database.number(&account)
    };
    let order = [account(before + 1), account(before + 2)];
    assert_eq!(order, [scene.other_account, scene.account]);
}

/// A transaction whose number was given, and which has not committed, keeps others from getting one.
#[test]
fn nobody_gets_a_number_before_the_last_one_can_be_seen_on_postgres() {
    let scene = Scene::new(Backend::Postgres);
    let mut first = PgConnection::establish(&scene.database.url).unwrap();
    let change = |key: i64| format!("UPDATE api_keys SET name = name WHERE id = {key}");
    let sql = format!(
        "BEGIN; SET CONSTRAINTS ALL IMMEDIATE; {}",
        change(scene.key)
    );
    first.batch_execute(&sql).unwrap();
    let mut second = PgConnection::establish(&scene.database.url).unwrap();
    let sql = format!("SET lock_timeout = '200ms'; {}", change(scene.other_key));
    assert!(second.batch_execute(&sql).is_err(), "it did not wait");
    first.batch_execute("COMMIT").unwrap();
    second.batch_execute(&sql).unwrap();
}

const PARALLEL: i64 = 200;
const CREWS: i64 = 20;

/// The errors of many transactions that change a key of their own, and the row of one of two accounts: half
/// of them in the opposite order.
fn errors_in_opposite_order(scene: &Scene) -> Vec<String> {
    scene.execute(&scene.new_key(scene.account, PARALLEL));
    let last = scene.database.number("SELECT max(id) FROM api_keys");
    let accounts = [scene.account, scene.other_account];
    // PostgreSQL has 100 connections by default.
    let barrier = Barrier::new(CREWS as usize);
    let crew = |number: i64| {
        let mut conn = PgConnection::establish(&scene.database.url).unwrap();
        conn.batch_execute("SET deadlock_timeout = '20ms'").unwrap();
        let mut errors = Vec::new();
        for turn in 0..PARALLEL / CREWS {
            let key = last - number * (PARALLEL / CREWS) - turn;
            let account = accounts[(number / 2 % 2) as usize];
            let mut steps = [
                format!("UPDATE api_keys SET account_id = {account} WHERE id = {key}"),
                format!("UPDATE accounts SET key_count = key_count + 1 WHERE id = {account}"),
            ];
            if number % 2 == 1 {
                steps.reverse();
            }
            barrier.wait();
            let sql = format!(
                "BEGIN; {}; SELECT pg_sleep(0.005); {}; COMMIT",
                steps[0], steps[1]
            );
            if let Err(error) = conn.batch_execute(&sql) {
                errors.push(error.to_string());
                let _ = conn.batch_execute("ROLLBACK");
            }
        }
        errors
    };
    thread::scope(|scope| {
        let crew = &crew;
        let crews: Vec<_> = (0..CREWS).map(|n| scope.spawn(move || crew(n))).collect();
        let errors = crews.into_iter().flat_map(|crew| crew.join().unwrap());
        errors.collect()
    })
}

#[test]
fn two_hundred_changes_in_opposite_order_do_not_deadlock_on_postgres() {
    let scene = Scene::new(Backend::Postgres);
    assert_eq!(errors_in_opposite_order(&scene), [""; 0]);
}

/// The control: triggers that do not wait for the commit would deadlock.
#[test]
fn triggers_that_are_not_deferred_deadlock_on_postgres() {
    let scene = Scene::new(Backend::Postgres);
    scene.execute(
        "DROP TRIGGER verdict_key ON api_keys;
         CREATE TRIGGER verdict_key AFTER UPDATE OR DELETE ON api_keys
         FOR EACH ROW EXECUTE FUNCTION verdict_of_key()",
    );
    let errors = errors_in_opposite_order(&scene);
    assert!(
        errors.iter().any(|error| error.contains("deadlock")),
        "{errors:?}"
    );
}

/// A later migration changes keys, and then their table, in the transaction of all migrations.
#[test]
fn a_migration_may_change_rows_and_then_their_table_on_postgres() {
    let scene = Scene::new(Backend::Postgres);
    let change = "UPDATE api_keys SET name = name; ALTER TABLE api_keys ADD COLUMN more TEXT";
    let mut conn = PgConnection::establish(&scene.database.url).unwrap();
    let refused = conn.batch_execute(&format!("BEGIN; {change}; ROLLBACK"));
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("pending trigger events")
    );
    conn.batch_execute("ROLLBACK").unwrap();
    let sql = format!("BEGIN; SET CONSTRAINTS ALL IMMEDIATE; {change}; ROLLBACK");
    conn.batch_execute(&sql).unwrap();
}
