//! Emails that arrive together share a commit: each is answered for itself, counted exactly, and
//! waits for no other account.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use rand::RngExt;
use serde_json::{Value, json};

use crate::support::*;

const FROM: &str = "hello@acme.test";
const BATCH: &str = "/v2/emails/batch";
/// For what never comes, not for what is slow.
const LIMIT: Duration = Duration::from_secs(60);
/// Requests at a time: enough that some arrive during a commit.
const SENDERS: usize = 16;

/// What says how many emails there are says the same as the emails themselves.
pub fn totals_are_exact(database: &Database) {
    let of_emails = "SELECT count(*) FROM emails WHERE";
    for (table, of_key) in [
        ("email_totals", "emails.api_key_id = counted.api_key_id"),
        ("email_hours", "emails.api_key_id = counted.api_key_id"),
    ] {
        let sql = |which: &str, same: &str, kinds: &str| {
            format!(
                "SELECT count(*) FROM (SELECT {kinds}, sum(accepted) AS accepted FROM {table}
                 WHERE {which} GROUP BY {kinds}) AS counted
                 WHERE accepted <> ({of_emails} {same})"
            )
        };
        let key = sql("api_key_id <> 0", of_key, "api_key_id");
        let same = "emails.account_id = counted.account_id";
        let account = sql("api_key_id = 0", same, "account_id");
        for wrong in [key, account] {
            assert_eq!(database.number(&wrong), 0, "{wrong}");
        }
        for keys in ["api_key_id <> 0", "api_key_id = 0"] {
            let sum = format!("SELECT coalesce(sum(accepted), 0) FROM {table} WHERE {keys}");
            let (sum, emails) = (database.number(&sum), count(database, "1 = 1"));
            assert_eq!(sum, emails, "{table} {keys}");
        }
    }
    let of_domain = "SELECT count(*) FROM email_totals AS counted WHERE api_key_id <> 0 AND domain_id <> 0
        AND EXISTS (SELECT 1 FROM sending_domains WHERE id = counted.domain_id)
        AND (SELECT sum(accepted) FROM email_totals AS others WHERE others.api_key_id = counted.api_key_id
                AND others.domain_id = counted.domain_id)
            <> (SELECT count(*) FROM emails WHERE emails.api_key_id = counted.api_key_id
                AND emails.domain_id = counted.domain_id)";
    assert_eq!(database.number(of_domain), 0);
}

fn count(database: &Database, condition: &str) -> i64 {
    database.number(&format!("SELECT count(*) FROM emails WHERE {condition}"))
}

/// An email that is known by this.
fn known_by(hash: &str) -> Value {
    let mut email = email(FROM);
    email["message_hash"] = json!(hash);
    email
}

/// An email of the stranger's account.
fn strange() -> Value {
    email("hello@evil.test")
}

/// A key of the owner's that sends from acme.test, and one of a stranger's that sends from evil.test.
fn two_keys(app: &App) -> (String, String) {
    let owner = app.owner();
    attest(&app.database, "acme.test");
    let (_, key) = owner.create_key("Shop", "");
    let stranger = app.stranger();
    let add = [
        "domain",
        "add",
        "--account",
        "eve@evil.test",
        "evil.test",
        "--verified",
    ];
    cli(&app.database, &add, "").unwrap();
    let (_, strange) = stranger.create_key("Evil", "");
    (key, strange)
}

fn base(app: &App) -> String {
    format!("http://{}", app.address)
}

both! {
    fn nodes_that_count_the_same_keys_lose_nothing_and_never_deadlock(app: App) {
        let (key, strange_key) = two_keys(&app);
        let owner = app.visitor();
        owner.sign_in(EMAIL);
        let (_, second) = owner.create_key("Second", "");
        if app.database.backend() == Backend::Postgres {
            // So that there is time for a deadlock, and it is found before the wait for a lock ends.
            app.database.execute(
                "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''20ms''',
                 current_database()); END $$;
                 CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM pg_sleep(0.003); RETURN NEW; END $$;
                 CREATE TRIGGER slowly BEFORE INSERT ON email_hours
                 FOR EACH ROW EXECUTE FUNCTION slowly()"
            );
        }
        let apps = [(); 2].map(|()| App::on(app.database.again(), |_| {}));
        let nodes = [base(&apps[0]), base(&apps[1])];
        const EACH: usize = 12;
        std::thread::scope(|scope| {
            for number in 0..SENDERS {
                let (node, keys) = (&nodes[number % 2], [&key, &second, &strange_key]);
                scope.spawn(move || {
                    let mut wire = Wire::to(node);
                    for n in 0..EACH {
                        let place = (n + number) % 3;
                        let email = if place == 2 { strange() } else { email(FROM) };
                        let answer = known(|| wire.post(keys[place], &email));
                        assert_eq!(answer.status, 200, "{}", answer.body);
                    }
                });
            }
        });
        assert_eq!(count(&app.database, "1 = 1"), (SENDERS * EACH) as i64);
        totals_are_exact(&app.database);
        let commits = app.database.number("SELECT count(DISTINCT created_at) FROM emails");
        assert!(commits < (SENDERS * EACH) as i64, "none shared a commit");
        // Which tells the statistics.
        drop(apps);
        if app.database.backend() == Backend::Postgres {
            let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
            assert_eq!(app.database.number(deadlocks), 0);
        }
        let info = app.program(&key).info().json();
        let sent = count(&app.database, "account_id = 1");
        assert_eq!(info["account"]["emails_sent_last_24hrs"], sent);
        assert_eq!(info["domains"][0]["total_sent"], sent);
    }

    fn an_email_that_cannot_be_stored_fails_alone(app: App) {
        let (key, _) = two_keys(&app);
        // A bug that nobody has found.
        app.database.on_insert(
            "emails",
            "INSERT INTO clock_seen (id, believed_at, steady_seconds)
             SELECT 2, '2026-01-01 00:00:00', 0 WHERE NEW.message_id LIKE 'wrong%'"
        );
        const EACH: usize = 8;
        std::thread::scope(|scope| {
            for number in 0..SENDERS {
                let (node, key) = (base(&app), &key);
                scope.spawn(move || {
                    let mut wire = Wire::to(&node);
                    for n in 0..EACH {
                        let is_wrong = (n + number) % 4 == 0;
                        let name = if is_wrong { "wrong" } else { "right" };
                        let email = known_by(&format!("{name} {number} {n}"));
                        let answer = known(|| wire.post(key, &email));
                        assert_eq!(answer.status, if is_wrong { 500 } else { 200 }, "{}", answer.body);
                    }
                });
            }
        });
        assert_eq!(count(&app.database, "message_id LIKE 'right%'"), (SENDERS * EACH * 3 / 4) as i64);
        assert_eq!(count(&app.database, "message_id LIKE 'wrong%'"), 0);
        totals_are_exact(&app.database);
        let commits = app.database.number("SELECT count(DISTINCT created_at) FROM emails");
        assert!(commits < count(&app.database, "1 = 1"), "none shared a commit");
    }

    fn emails_of_a_batch_are_due_one_after_the_other(app: App) {
        let (key, _) = two_keys(&app);
        let program = app.program(&key);
        let emails: Vec<Value> = (0..100).map(|n| known_by(&n.to_string())).collect();
        let answer = program.send(program.with_key("POST", BATCH).json(&emails));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let disorder = "SELECT count(*) FROM emails AS a JOIN emails AS b ON b.id = a.id + 1
            WHERE a.next_attempt_at >= b.next_attempt_at
            OR CAST(a.message_id AS BIGINT) + 1 <> CAST(b.message_id AS BIGINT)";
        assert_eq!(app.database.number(disorder), 0);
        totals_are_exact(&app.database);
    }

    fn emails_of_a_domain_that_is_deleted_meanwhile_are_accepted_or_not_found(app: App) {
        let owner = app.owner();
        attest(&app.database, "acme.test");
        let (_, key) = owner.create_key("Shop", "");
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _over = SetWhenDropped(&is_over);
            for number in 0..8 {
                let (node, key, is_over) = (base(&app), &key, &is_over);
                scope.spawn(move || {
                    let mut wire = Wire::to(&node);
                    let mut gone = email("hello@gone.test");
                    while !is_over.load(Ordering::SeqCst) {
                        // Nobody else is bothered.
                        if number % 2 == 0 {
                            assert_eq!(known(|| wire.post(key, &email(FROM))).status, 200);
                        }
                        gone["message_hash"] = json!("gone");
                        let answer = known(|| wire.post(key, &gone));
                        assert!(matches!(answer.status, 200 | 422), "{}", answer.body);
                    }
                });
            }
            for _ in 0..6 {
                attest(&app.database, "gone.test");
                until("some are accepted", || {
                    count(&app.database, "message_id = 'gone' AND domain_id IS NOT NULL") > 3
                });
                let id = app.database.number("SELECT id FROM sending_domains WHERE name = 'gone.test'");
                assert_eq!(owner.post(&format!("/domains/{id}/delete"), &[]).status, 303);
            }
        });
        totals_are_exact(&app.database);
    }
}

/// A commit is under way for as long as the test likes, on SQLite: others wait for the writer.
#[test]
fn a_full_queue_is_told_at_once_and_keeps_room_for_others() {
    let app = App::start(Backend::Sqlite, |_| {});
    let (key, strange_key) = two_keys(&app);
    let batch: Vec<Value> = (0..100).map(|_| email(FROM)).collect();
    until("a full queue", || {
        let mut writer = app.database.lock("emails");
        let is_full = AtomicBool::new(false);
        let (answers, other) = std::thread::scope(|scope| {
            let send = || {
                let program = app.program(&key);
                let begun = Instant::now();
                let answer = program.send(program.with_key("POST", BATCH).json(&batch));
                if answer.status == 503 {
                    assert_eq!(answer.header("retry-after"), Some("1"));
                    is_full.store(true, Ordering::SeqCst);
                }
                (begun, answer.status)
            };
            // One account has half of the room for 16,384.
            let senders: Vec<_> = (0..96).map(|_| scope.spawn(send)).collect();
            let end = Instant::now() + Duration::from_secs(3);
            while !is_full.load(Ordering::SeqCst) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            let other = scope.spawn(|| app.program(&strange_key).post(&strange()).status);
            let waits = Instant::now() + Duration::from_millis(100);
            while !other.is_finished() && Instant::now() < waits {
                std::thread::sleep(Duration::from_millis(5));
            }
            writer.batch_execute("ROLLBACK").unwrap();
            let answers: Vec<_> = senders
                .into_iter()
                .map(|sender| sender.join().unwrap())
                .collect();
            (answers, other.join().unwrap())
        });
        let first_stored = answers
            .iter()
            .filter(|(_, status)| *status == 200)
            .map(|(at, _)| *at)
            .min();
        let last_refused = answers
            .iter()
            .filter(|(_, status)| *status == 503)
            .map(|(at, _)| *at)
            .max();
        // One that came later was refused, and one that came before it was not: it was not too slow.
        let is_told = matches!((first_stored, last_refused), (Some(stored), Some(refused)) if stored < refused);
        is_told && other == 200
    });
    totals_are_exact(&app.database);
}

/// A client that was answered 503 may send its emails again.
#[test]
fn emails_that_were_not_stored_in_time_are_not_stored_later() {
    let app = App::start(Backend::Sqlite, |_| {});
    let (key, strange_key) = two_keys(&app);
    let mut writer = app.database.lock("emails");
    let send = |n: usize| {
        let (key, email) = match n % 2 {
            0 => (&key, email(FROM)),
            _ => (&strange_key, strange()),
        };
        Wire::to(&base(&app)).post(key, &email).status
    };
    let late = std::thread::scope(|scope| {
        let send = &send;
        let senders: Vec<_> = (0..6).map(|n| scope.spawn(move || send(n))).collect();
        let statuses = senders.into_iter().map(|sender| sender.join().unwrap());
        statuses.collect::<Vec<_>>()
    });
    assert_eq!(late, [503; 6]);
    writer.batch_execute("ROLLBACK").unwrap();
    for (key, email) in [(&key, email(FROM)), (&strange_key, strange())] {
        assert_eq!(
            known(|| Wire::to(&base(&app)).post(key, &email)).status,
            200
        );
    }
    assert_eq!(count(&app.database, "1 = 1"), 2);
    totals_are_exact(&app.database);
}

/// PostgreSQL locks rows.
#[test]
fn an_account_whose_rows_are_locked_holds_up_no_other() {
    let app = App::start(Backend::Postgres, |_| {});
    let (key, strange_key) = two_keys(&app);
    assert_eq!(app.program(&key).email_from(FROM).status, 200);
    let mut other = app.database.lock("form_nonces");
    other
        .batch_execute("UPDATE email_totals SET accepted = accepted WHERE account_id = 1")
        .unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = SetWhenDropped(&is_over);
        for _ in 0..8 {
            let (key, app, is_over) = (&key, &app, &is_over);
            scope.spawn(move || {
                let mut wire = Wire::to(&base(app));
                while !is_over.load(Ordering::SeqCst) {
                    assert_eq!(wire.post(key, &email(FROM)).status, 503);
                }
            });
        }
        let mut wire = Wire::to(&base(&app));
        for _ in 0..12 {
            assert_eq!(known(|| wire.post(&strange_key, &strange())).status, 200);
        }
        drop(over);
    });
    other.batch_execute("ROLLBACK").unwrap();
    assert_eq!(
        known(|| Wire::to(&base(&app)).post(&key, &email(FROM))).status,
        200
    );
    totals_are_exact(&app.database);
}

/// What many senders were told by a server that may die over it.
#[derive(Default)]
struct Ledger {
    answered: Mutex<Vec<String>>,
    one_more: Condvar,
    sent: AtomicUsize,
}

impl Ledger {
    /// Sends until the blow has fallen, which it does right after an answer.
    fn until_struck(&self, server: &str, keys: &[String], blow: impl FnOnce()) {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _over = SetWhenDropped(&is_over);
            for number in 0..SENDERS {
                let program = Program::new(server.to_owned(), &keys[number % keys.len()]);
                let is_over = &is_over;
                scope.spawn(move || {
                    while !is_over.load(Ordering::SeqCst) {
                        self.send(&program);
                    }
                });
            }
            let answered = self.answered.lock().unwrap();
            let enough = answered.len() + rand::rng().random_range(20..=200);
            let too_few = |answered: &mut Vec<String>| answered.len() < enough;
            let wait = self.one_more.wait_timeout_while(answered, LIMIT, too_few);
            assert!(!wait.unwrap().1.timed_out(), "never: enough answers");
            blow();
        });
    }

    fn send(&self, program: &Program) {
        let name = format!("n{}", self.sent.fetch_add(1, Ordering::SeqCst));
        let Some(answer) = program.try_post(&known_by(&name)) else {
            return;
        };
        if answer.status == 503 {
            return;
        }
        assert_eq!(answer.status, 200, "{}", answer.body);
        self.answered.lock().unwrap().push(name);
        self.one_more.notify_one();
    }

    fn holds(&self, database: &Database) {
        let answered = self.answered.lock().unwrap();
        let ids = answered.join("', '");
        let there = count(database, &format!("message_id IN ('{ids}')"));
        assert_eq!(there, answered.len() as i64, "an answered email is gone");
        assert!(count(database, "1 = 1") <= self.sent.load(Ordering::SeqCst) as i64);
        totals_are_exact(database);
    }
}

fn survives_kills(backend: Backend) {
    let database = Database::new(backend);
    let mut dashboard = Dashboard::start(&database, &[]);
    let owner = dashboard.visitor();
    owner.sign_up();
    attest(&database, "acme.test");
    let keys = ["First", "Second", "Third"].map(|name| owner.create_key(name, "").1);
    let ledger = Ledger::default();
    for _ in 0..rounds("TOSEND_TEST_KILLS", 5, 40) {
        let server = dashboard.base.clone();
        ledger.until_struck(&server, &keys, || dashboard.kill());
        crate::durability::wait_for_orphans(&database);
        ledger.holds(&database);
        dashboard = Dashboard::start(&database, &[]);
    }
    assert!(ledger.answered.lock().unwrap().len() >= 100);
}

#[test]
fn every_answered_email_is_there_and_counted_after_kill_9_on_sqlite() {
    survives_kills(Backend::Sqlite);
}

#[test]
fn every_answered_email_is_there_and_counted_after_kill_9_on_postgres() {
    survives_kills(Backend::Postgres);
}
