//! The clock jumps, and nothing is lost by it.

use std::process::Stdio;

use chrono::{NaiveDateTime, TimeDelta, Utc};
use tosend_dashboard::accounts::store::events;
use tosend_dashboard::db::{self, Connection};
use tosend_dashboard::keys::store;
use tosend_dashboard::keys::usage::store as usage_store;
use tosend_dashboard::mail::{store as mail_store, worker};

use crate::support::*;

const DOUBT: &str = "ready\nthe clock is in doubt: it says ";

fn ago(span: TimeDelta) -> String {
    let at: NaiveDateTime = Utc::now().naive_utc() - span;
    at.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

/// As if the clock had jumped ahead by that much since the database saw it last.
fn jump(database: &Database, span: TimeDelta) {
    let at = ago(span);
    database.execute(&format!(
        "DELETE FROM clock_seen; INSERT INTO clock_seen VALUES (1, '{at}', NULL, 0)"
    ));
}

/// A program with a clock that is wrong by so many days.
fn start_with_clock(database: &Database, days: i64) -> Dashboard {
    Dashboard::run(database, |mut command| {
        let library = std::env::var("TOSEND_TEST_FAKETIME");
        command
            .env("LD_PRELOAD", library.expect("run the tests with tests/run"))
            .env("FAKETIME", format!("{days:+}d"))
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .stderr(Stdio::null());
        command
    })
}

/// The first account with a key that sends from acme.test.
fn sign_up(server: &Dashboard, database: &Database) -> (Visitor, String) {
    let owner = server.visitor();
    owner.sign_up();
    attest(database, "acme.test");
    let (_, key) = owner.create_key("Shop", "");
    (owner, key)
}

fn until_in_doubt(server: &Dashboard) {
    until("the clock is in doubt", || {
        let ready = server.visitor().get("/readyz");
        assert_eq!(ready.status, 200);
        ready.body.starts_with(DOUBT)
    });
}

/// In the first round of the upkeep, before the rest of it.
fn until_doubt_is_written(database: &Database) {
    let doubts = "SELECT count(*) FROM clock_seen WHERE odd_at IS NOT NULL";
    until("the doubt is written down", || database.number(doubts) == 1);
}

both! {
    fn nothing_is_deleted_or_ended_by_age_while_the_clock_is_in_doubt(app: App) {
        let owner = app.owner();
        let (old, _) = owner.create_key("Old", "");
        owner.delete_key(old);
        let (over, key) = owner.create_key("Over", "");
        let (other, _) = owner.create_key("Other", "");
        app.visitor().sign_in(EMAIL);
        let old_time = ago(TimeDelta::days(730));
        let database = &app.database;
        database.execute(&format!(
            "INSERT INTO events (account_id, at, actor, action, subject, detail)
                SELECT id, '{old_time}', 'server', 'key.created', 'Old', '' FROM accounts;
             UPDATE api_keys SET ended_at = '{old_time}' WHERE ended_at IS NOT NULL;
             UPDATE form_nonces SET created_at = '{old_time}';
             INSERT INTO api_key_calls VALUES ({other}, '{old_time}', 'accepted', 1);
             INSERT INTO login_attempts SELECT hash, 1, '{old_time}' FROM api_keys WHERE id = {other};
             INSERT INTO emails (account_id, api_key_id, message_id, message, status, created_at,
                internet_id, next_attempt_at, ended_at)
             SELECT account_id, id, 'm', '{{}}', 'failed', '{old_time}', 'i', '{old_time}',
                '{old_time}' FROM api_keys WHERE id = {other}"
        ));
        database.execute(&format!(
            "UPDATE sessions SET created_at = '{old_time}' WHERE created_at =
             (SELECT max(created_at) FROM sessions)"
        ));
        jump(database, TimeDelta::days(730));
        database.execute(&format!(
            "UPDATE api_keys SET expires_at = '{}' WHERE id = {over}", ago(TimeDelta::minutes(1))
        ));
        let ready = app.visitor().get("/readyz");
        assert_eq!(ready.status, 200);
        assert!(ready.body.starts_with(DOUBT), "{}", ready.body);

        let keys = KeyStore::of(database);
        let forget = || -> Vec<usize> {
            let run = |forget: fn(&mut Connection) -> db::Result<usize>| {
                keys.db.write_blocking(forget).unwrap()
            };
            vec![
                run(|conn| events::forget_of_any_account(conn, 365, 1_000)),
                run(|conn| store::forget_ended_of_any_account(conn, 1_000)),
                run(|conn| usage_store::forget_calls_of_any_account(conn, 1_000)),
                run(|conn| mail_store::forget_content_of_any_account(conn, 30, 1_000)),
            ]
        };
        assert_eq!(forget(), [0; 4]);
        // Pages take the occasion to remove what is old.
        app.visitor().sign_in(EMAIL);
        owner.get("/api-keys/new");
        let count = |sql: &str| database.number(&format!("SELECT count(*) FROM {sql}"));
        let old = [
            format!("sessions WHERE created_at = '{old_time}'"),
            format!("form_nonces WHERE created_at = '{old_time}'"),
            format!("login_attempts WHERE next_at = '{old_time}'"),
        ];
        for old in &old {
            assert!(count(old) > 0, "{old}");
        }
        // An expired key is refused, and its end is not written down.
        assert_eq!(app.program(&key).verdict(), 403);
        let due = keys.db.read_blocking(|conn| store::find_due_of_any_account(conn, 10));
        assert_eq!(due.unwrap(), []);
        owner.post(&format!("/api-keys/{over}/pause"), &[]);
        let ended = format!("api_keys WHERE id = {over} AND ended_at IS NOT NULL");
        assert_eq!(count(&ended), 0);

        let told = cli(database, &["clock", "show"], "").unwrap();
        assert!(told.starts_with("the clock is in doubt"), "{told}");
        let told = cli(database, &["clock", "accept"], "").unwrap();
        assert!(told.starts_with("The clock is trusted now: "), "{told}");
        assert_eq!(app.visitor().get("/readyz").body, "ready\n");
        until("the key's end is written down", || count(&ended) == 1);
        let forgotten = forget();
        assert!(forgotten.iter().all(|count| *count > 0), "{forgotten:?}");
        app.visitor().sign_in(EMAIL);
        owner.get("/api-keys/new");
        for old in &old {
            assert_eq!(count(old), 0, "{old}");
        }
    }

    fn what_happens_while_the_clock_is_behind_does_not_count_as_old(app: App) {
        let owner = app.owner();
        attest(&app.database, "acme.test");
        let (id, key) = owner.create_key("Shop", "");
        // As if it were two years behind what was seen already.
        jump(&app.database, -TimeDelta::days(730));
        let since = ago(-TimeDelta::days(700));
        assert_eq!(app.program(&key).email_from("ada@acme.test").status, 200);
        owner.delete_key(id);
        app.visitor().sign_in(EMAIL);
        for what in [
            "emails WHERE created_at > ",
            "events WHERE action = 'key.deleted' AND at > ",
            "api_keys WHERE ended_at > ",
            "sessions WHERE created_at > ",
        ] {
            let sql = format!("SELECT count(*) FROM {what} '{since}'");
            assert_eq!(app.database.number(&sql), 1, "{what}");
        }
    }

    fn what_a_wrong_clock_put_off_goes_on(app: App) {
        let owner = app.owner();
        attest(&app.database, "acme.test");
        let (_, key) = owner.create_key("Shop", "");
        for _ in 0..2 {
            assert_eq!(app.program(&key).email_from("ada@acme.test").status, 200);
        }
        // As it was written by a clock that was eight days ahead.
        let ahead = ago(-TimeDelta::days(8));
        app.database.execute(&format!(
            "UPDATE emails SET next_attempt_at = '{ahead}', created_at = '{ahead}';
             UPDATE emails SET claim = 'x' WHERE id = (SELECT max(id) FROM emails);
             UPDATE login_attempts SET failures = 20, next_at = '{ahead}'"
        ));
        let keys = KeyStore::of(&app.database);
        keys.db.write_blocking(worker::pull_back).unwrap();
        let now = ago(TimeDelta::zero());
        let due = format!("SELECT count(*) FROM emails WHERE next_attempt_at <= '{now}'");
        assert_eq!(app.database.number(&due), 1, "one is claimed for ten minutes more");
        let soon = ago(-TimeDelta::minutes(11));
        let due = format!("SELECT count(*) FROM emails WHERE next_attempt_at <= '{soon}'");
        assert_eq!(app.database.number(&due), 2);

        let wrong = [("email", EMAIL), ("password", "not this one")];
        app.visitor().post("/login", &wrong);
        app.database.execute(&format!("UPDATE login_attempts SET next_at = '{ahead}'"));
        app.visitor().sign_in(EMAIL);
    }
}

#[test]
fn eight_days_ahead_for_a_while_makes_no_email_uncounted() {
    let database = Database::new(Backend::Sqlite);
    let mut server = Dashboard::start(&database, &[]);
    let (owner, key) = sign_up(&server, &database);
    let send = |server: &Dashboard| {
        let answer = server.program(&key).email_from("ada@acme.test");
        assert_eq!(answer.status, 200);
    };
    send(&server);
    let cookie = owner.cookie();
    assert!(server.terminate());

    let mut ahead = start_with_clock(&database, 8);
    until_in_doubt(&ahead);
    until_doubt_is_written(&database);
    send(&ahead);
    ahead.visitor().sign_in(EMAIL);
    let soon = ago(-TimeDelta::days(3));
    let written_ahead = [
        "api_key_uses WHERE used_at",
        "sessions WHERE created_at",
        "sessions WHERE last_seen_at",
        "sending_domains WHERE next_check_at",
        "emails WHERE next_attempt_at",
    ];
    let count_ahead = |of: &str| database.number(&format!("SELECT count(*) FROM {of} > '{soon}'"));
    for of in written_ahead {
        until(of, || count_ahead(of) > 0);
    }
    assert!(ahead.terminate());

    let server = Dashboard::start(&database, &[]);
    until("the clock is trusted again", || {
        server.visitor().get("/readyz").body == "ready\n"
    });
    for of in written_ahead {
        until(&format!("no {of} is ahead"), || count_ahead(of) == 0);
    }
    send(&server);
    let info = server.program(&key).info().json();
    assert_eq!(info["key"]["emails_sent_last_24hrs"], 3);
    assert_eq!(info["key"]["emails_usage_this_month"], 3);
    owner.move_to(&server.base);
    owner.set_cookie(cookie);
    assert_eq!(owner.get("/api-keys").status, 200);
}

#[test]
fn two_years_ahead_at_a_start_deletes_no_activity() {
    let database = Database::new(Backend::Sqlite);
    let mut server = Dashboard::start(&database, &[]);
    let (owner, _) = sign_up(&server, &database);
    let cookie = owner.cookie();
    let events = || database.number("SELECT count(*) FROM events");
    let before = events();
    assert!(before > 2);
    assert!(server.terminate());
    for days in [730, -730] {
        let mut wrong = start_with_clock(&database, days);
        until_in_doubt(&wrong);
        until_doubt_is_written(&database);
        assert!(wrong.terminate());
        assert_eq!(events(), before, "{days}");
    }
    let server = Dashboard::start(&database, &[]);
    owner.move_to(&server.base);
    owner.set_cookie(cookie);
    assert_eq!(owner.get("/activity").status, 200);
}
