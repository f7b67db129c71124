//! How many calls were made with a key, by the hour and by how they ended: written soon after,
//! never waited for.

use std::collections::BTreeMap;

use chrono::{DurationRound, NaiveDateTime, TimeDelta, Utc};
use serde_json::json;
use tosend_dashboard::accounts::email::Email;
use tosend_dashboard::accounts::store::{self as accounts_store, AccountId};
use tosend_dashboard::keys::expiry::Expiry;
use tosend_dashboard::keys::scope::NewScope;
use tosend_dashboard::keys::secret::PlainKey;
use tosend_dashboard::keys::store::{self, Rotation};
use tosend_dashboard::keys::usage::history::{History, Span};
use tosend_dashboard::keys::usage::outcome::Outcome;
use tosend_dashboard::keys::usage::store as usage_store;

use crate::last_used::{failures_to_write, has_failed_to_write};
use crate::support::*;

/// What is written about a key's calls, by outcome.
fn calls(database: &Database, id: i64) -> BTreeMap<&'static str, i64> {
    let sum = format!("SELECT coalesce(sum(calls), 0) FROM api_key_calls WHERE api_key_id = {id}");
    [
        "accepted",
        "paused",
        "account_paused",
        "expired",
        "stopped",
        "deleted",
        "domain_not_found",
        "domain_not_verified",
        "domain_not_allowed",
        "address_not_allowed",
        "recipient_not_allowed",
        "invalid_request",
    ]
    .into_iter()
    .map(|outcome| {
        let number = database.number(&format!("{sum} AND outcome = '{outcome}'"));
        (outcome, number)
    })
    .filter(|(_, number)| *number > 0)
    .collect()
}

fn wait_for_calls<const N: usize>(
    database: &Database,
    id: i64,
    expected: [(&'static str, i64); N],
) {
    let expected = BTreeMap::from(expected);
    until(&format!("{expected:?}"), || calls(database, id) == expected);
    let all = format!("SELECT sum(calls) FROM api_key_calls WHERE api_key_id = {id}");
    assert_eq!(database.number(&all), expected.values().sum::<i64>());
}

/// What the page of a key has to show.
fn history(keys: &KeyStore, id: i64) -> History {
    history_of(keys, keys.account, id)
}

fn history_of(keys: &KeyStore, account: AccountId, id: i64) -> History {
    let read = |conn: &mut _| usage_store::history(conn, account, id);
    keys.db.write_blocking(read).unwrap()
}

fn totals(spans: &[Span]) -> (i64, i64) {
    let sum = |of: fn(&Span) -> i64| spans.iter().map(of).sum();
    (sum(|span| span.accepted), sum(|span| span.refused))
}

fn new_key(keys: &KeyStore) -> Made {
    keys.create(NewScope::AllDomains, Expiry::NEVER).unwrap()
}

/// Uses a key so often that all before is written: refusals are written after what was accepted.
fn wait_for_all_before(app: &App, keys: &KeyStore) {
    let marker = new_key(keys);
    for n in 1..3 {
        assert_eq!(app.program(&marker.key).verify().status, 200);
        wait_for_calls(&app.database, marker.id, [("accepted", n)]);
    }
}

both! {
    fn each_endpoint_counts_its_calls(app: App) {
        app.owner();
        attest(&app.database, "acme.test");
        let keys = KeyStore::of(&app.database);
        let Made { id, key } = new_key(&keys);
        let program = app.program(&key);
        for path in ["/v2/verify", "/v2/verify?domain=acme.test", "/v2/verify/a?b=c", "/v2/info"] {
            assert_eq!(program.send(program.with_key("GET", path)).status, 200, "{path}");
        }
        let in_query = format!("/v2/info?api_key={key}");
        assert_eq!(program.send(program.bare("GET", &in_query)).status, 200);
        assert_eq!(program.email_from("ada@acme.test").status, 200);
        let mut in_body = email("ada@acme.test");
        in_body["api_key"] = json!(key);
        let request = program.bare("POST", "/v2/emails").json(&in_body);
        assert_eq!(program.send(request).status, 200);
        wait_for_calls(&app.database, id, [("accepted", 7)]);
        let history = history(&keys, id);
        assert_eq!((totals(&history.hours), totals(&history.days)), ((7, 0), (7, 0)));
        assert_eq!(history.refusals, []);
    }

    fn a_refusal_is_counted_with_its_reason(app: App) {
        let owner = app.owner();
        attest(&app.database, "acme.test");
        let pending: i64 = owner.add_domain("pending.test").parse().unwrap();
        let keys = KeyStore::of(&app.database);
        let Made { id, key } = new_key(&keys);
        let program = app.program(&key);
        for from in ["ada@unknown.test", "ada@unknown.test", "ada@pending.test"] {
            assert_eq!(program.email_from(from).status, 422);
        }
        for (path, status) in [
            ("/v2/verify?domain=unknown.test", 403),
            ("/v2/verify?domain=no+domain", 403),
            ("/v2/verify?domain=a&domain=b", 400),
        ] {
            assert_eq!(program.send(program.with_key("GET", path)).status, status, "{path}");
        }
        assert_eq!(program.post(&json!({})).status, 422);
        for (media_type, status) in [("application/json", 400), ("text/plain", 415)] {
            let request = program.with_key("POST", "/v2/emails");
            let request = request.header("content-type", media_type).body("{");
            assert_eq!(program.send(request).status, status);
        }
        wait_for_calls(&app.database, id, [
            ("domain_not_found", 2),
            ("domain_not_verified", 1),
            ("domain_not_allowed", 2),
            ("invalid_request", 4),
        ]);
        let bound = keys.create(NewScope::Domains(vec![pending]), Expiry::NEVER).unwrap();
        assert_eq!(app.program(&bound.key).email_from("ada@acme.test").status, 422);
        wait_for_calls(&app.database, bound.id, [("domain_not_allowed", 1)]);
        assert_eq!(app.database.number("SELECT count(*) FROM api_key_uses"), 2, "the keys do work");
    }

    fn a_sender_or_a_recipient_that_is_not_allowed_is_counted(app: App) {
        let owner = app.owner();
        attest(&app.database, "acme.test");
        let (id, key) = owner.create_key("Bound", "");
        app.database.execute(&format!(
            "UPDATE api_keys SET senders = 'hello@acme.test', recipients = 'eve@example.org' WHERE id = {id}"
        ));
        for from in ["ada@acme.test", "hello@acme.test"] {
            assert_eq!(app.program(&key).email_from(from).status, 422);
        }
        wait_for_calls(&app.database, id, [("address_not_allowed", 1), ("recipient_not_allowed", 1)]);
    }

    fn calls_with_a_key_that_does_not_work_are_counted_with_the_reason(app: App) {
        app.owner();
        let keys = KeyStore::of(&app.database);
        let [paused, deleted, stopped, expiring, stopping] = [(); 5].map(|()| new_key(&keys));
        keys.change(paused.id, store::pause);
        keys.change(deleted.id, store::delete);
        let at_once = Rotation {
            overlap: Some(TimeDelta::zero()),
            stops_when_quiet: None,
            expiry: None,
        };
        keys.rotate(stopped.id, &at_once).unwrap();
        for (made, column) in [(&expiring, "expires_at"), (&stopping, "stops_at")] {
            let over = format!("{column} = '2020-01-01 00:00:00'");
            app.database.execute(&format!("UPDATE api_keys SET {over} WHERE id = {}", made.id));
        }
        let cases = [
            (paused, "paused"),
            (deleted, "deleted"),
            (stopped, "stopped"),
            (expiring, "expired"),
            (stopping, "stopped"),
        ];
        for (made, _) in &cases {
            let program = app.program(&made.key);
            let answers = [program.verify(), program.info(), program.email_from("ada@acme.test")];
            assert_eq!(answers.map(|answer| answer.status), [403; 3]);
        }
        for (Made { id, .. }, why) in &cases {
            wait_for_calls(&app.database, *id, [(*why, 3)]);
            let history = history(&keys, *id);
            assert_eq!((totals(&history.hours), totals(&history.days)), ((0, 3), (0, 3)));
            let told: Vec<_> = history.refusals.iter().map(|r| (r.why.as_str(), r.calls)).collect();
            assert_eq!(told, [(*why, 3)]);
        }
        assert_eq!(app.database.number("SELECT count(*) FROM api_key_uses"), 0, "that is no use");
    }

    fn a_paused_account_is_the_reason_until_it_is_resumed(app: App) {
        app.owner();
        let keys = KeyStore::of(&app.database);
        let [active, paused] = [(); 2].map(|()| new_key(&keys));
        keys.change(paused.id, store::pause);
        let account = |what| cli(&app.database, &["account", what, "--account", EMAIL], "").unwrap();
        account("pause");
        for made in [&active, &paused] {
            assert_eq!(app.program(&made.key).verify().status, 403);
        }
        wait_for_calls(&app.database, active.id, [("account_paused", 1)]);
        wait_for_calls(&app.database, paused.id, [("paused", 1)]);
        account("resume");
        assert_eq!(app.program(&active.key).verify().status, 200);
        wait_for_calls(&app.database, active.id, [("account_paused", 1), ("accepted", 1)]);
    }

    fn keys_that_never_were_leave_nothing(app: App) {
        app.owner();
        for _ in 0..20 {
            assert_eq!(app.program(PlainKey::generate().expose()).verify().status, 403);
        }
        assert_eq!(app.program("tsend_garbage").verify().status, 403);
        wait_for_all_before(&app, &KeyStore::of(&app.database));
        let keys = "SELECT count(DISTINCT api_key_id) FROM api_key_calls";
        assert_eq!(app.database.number(keys), 1, "the marker's");
    }

    fn the_calls_of_an_account_are_its_own(app: App) {
        app.owner();
        let keys = KeyStore::of(&app.database);
        let own = new_key(&keys);
        let (strange_id, strange) = app.stranger().create_key("Strange", "");
        assert_eq!(app.program(&own.key).verify().status, 200);
        assert_eq!(app.program(&strange).verify().status, 200);
        assert_eq!(app.program(&strange).email_from("ada@acme.test").status, 422);
        wait_for_calls(&app.database, own.id, [("accepted", 1)]);
        wait_for_calls(&app.database, strange_id, [("accepted", 1), ("domain_not_found", 1)]);
        let stranger = Email::parse("eve@evil.test").unwrap();
        let stranger = keys.db.write_blocking(|conn| accounts_store::find_id_by_email(conn, &stranger));
        let stranger = stranger.unwrap().unwrap();
        for (account, id, seen, refusals) in [
            (keys.account, own.id, (1, 0), 0),
            (stranger, strange_id, (1, 1), 1),
            (keys.account, strange_id, (0, 0), 0),
            (stranger, own.id, (0, 0), 0),
        ] {
            let history = history_of(&keys, account, id);
            assert_eq!((totals(&history.days), history.refusals.len()), (seen, refusals));
        }
    }

    fn calls_add_up_over_many_writes(app: App) {
        app.owner();
        let Made { id, key } = new_key(&KeyStore::of(&app.database));
        for round in 1..4 {
            for _ in 0..5 {
                assert_eq!(app.program(&key).verify().status, 200);
                assert_eq!(app.program(&key).email_from("ada@acme.test").status, 422);
            }
            wait_for_calls(&app.database, id, [("accepted", 5 * round), ("domain_not_found", 5 * round)]);
        }
    }

    fn history_has_the_last_24_hours_and_30_days(app: App) {
        app.owner();
        let keys = KeyStore::of(&app.database);
        let Made { id, .. } = new_key(&keys);
        let today = Utc::now().date_naive().and_time(Default::default());
        for (days, outcome) in [(29, "paused"), (29, "accepted"), (30, "accepted"), (29, "of a newer version")] {
            insert(&app.database, id, today - TimeDelta::days(days), outcome);
        }
        let history = history(&keys, id);
        assert_eq!((history.hours.len(), history.days.len()), (24, 30));
        assert_eq!((totals(&history.hours), totals(&history.days)), ((0, 0), (1, 1)));
    }
}

fn insert(database: &Database, id: i64, hour: NaiveDateTime, outcome: &str) {
    database.execute(&format!(
        "INSERT INTO api_key_calls (api_key_id, hour, outcome, calls)
         VALUES ({id}, '{}', '{outcome}', 1)",
        hour.format("%Y-%m-%d %H:%M:%S")
    ));
}

#[test]
fn what_is_older_than_90_days_is_forgotten_some_at_a_time() {
    for backend in Backend::all() {
        let database = Database::new(backend);
        let mut dashboard = Dashboard::start(&database, &[]);
        dashboard.visitor().sign_up();
        let keys = KeyStore::of(&database);
        let ids = [(); 2].map(|()| new_key(&keys).id);
        // Or it would forget them itself.
        assert!(dashboard.terminate());
        let this_hour = Utc::now().naive_utc();
        let this_hour = this_hour.duration_trunc(TimeDelta::hours(1)).unwrap();
        let limit = this_hour - TimeDelta::days(90);
        for hours in 1..=5 {
            for id in ids {
                insert(&database, id, limit - TimeDelta::hours(hours), "accepted");
                insert(&database, id, limit - TimeDelta::hours(hours), "paused");
            }
        }
        insert(&database, ids[0], limit + TimeDelta::hours(2), "accepted");
        insert(&database, ids[1], this_hour, "accepted");
        let forget = |most| {
            let forget = |conn: &mut _| usage_store::forget_calls_of_any_account(conn, most);
            keys.db.write_blocking(forget).unwrap()
        };
        let left = || database.number("SELECT count(*) FROM api_key_calls");
        assert_eq!((forget(8), left()), (8, 14));
        assert_eq!((forget(1_000), left()), (12, 2));
        assert_eq!((forget(1_000), left()), (0, 2));
    }
}

/// A server with a key that works and one that was deleted.
fn with_keys(database: &Database) -> (Dashboard, [Made; 2]) {
    let dashboard = Dashboard::start(database, &[]);
    dashboard.visitor().sign_up();
    let keys = KeyStore::of(database);
    let made = [(); 2].map(|()| new_key(&keys));
    keys.change(made[1].id, store::delete);
    (dashboard, made)
}

fn use_both(dashboard: &Dashboard, [good, deleted]: &[Made; 2]) {
    assert_eq!(dashboard.program(&good.key).verify().status, 200);
    assert_eq!(dashboard.program(&deleted.key).verify().status, 403);
}

#[test]
fn nothing_is_lost_or_counted_twice_while_nothing_can_be_written() {
    for backend in Backend::all() {
        let database = Database::new(backend);
        let (dashboard, made) = with_keys(&database);
        let lock = database.lock("api_key_calls");
        let mut rounds = 0;
        until("writing fails", || {
            use_both(&dashboard, &made);
            rounds += 1;
            has_failed_to_write(&dashboard)
        });
        use_both(&dashboard, &made);
        drop(lock);
        wait_for_calls(&database, made[0].id, [("accepted", rounds + 1)]);
        wait_for_calls(&database, made[1].id, [("deleted", rounds + 1)]);
    }
}

#[test]
fn calls_are_kept_while_the_database_is_away_on_postgres() {
    let mut cluster = Cluster::new();
    let database = Database::on(&cluster);
    let (dashboard, made) = with_keys(&database);
    // Until it is away.
    let lock = database.lock("api_key_calls");
    use_both(&dashboard, &made);
    cluster.stop(Stop::Immediate);
    drop(lock);
    until("writing fails", || has_failed_to_write(&dashboard));
    // That says nothing about a key.
    let unknown = dashboard.program(&made[0].key).try_verify().unwrap();
    assert_eq!(unknown.status, 503);
    cluster.start();
    wait_for_calls(&database, made[0].id, [("accepted", 1)]);
    wait_for_calls(&database, made[1].id, [("deleted", 1)]);
}

#[test]
fn a_server_that_is_told_to_stop_writes_what_it_counted() {
    for backend in Backend::all() {
        let database = Database::new(backend);
        let (mut dashboard, made) = with_keys(&database);
        use_both(&dashboard, &made);
        assert!(dashboard.terminate());
        assert_eq!(calls(&database, made[0].id), [("accepted", 1)].into());
        assert_eq!(calls(&database, made[1].id), [("deleted", 1)].into());
    }
}

#[test]
fn the_calls_of_two_nodes_add_up_on_postgres() {
    let database = Database::new(Backend::Postgres);
    let nodes = [(); 2].map(|()| Dashboard::start(&database, &[]));
    nodes[0].visitor().sign_up();
    let made = KeyStore::of(&database).create_many(10, &NewScope::AllDomains);
    std::thread::scope(|scope| {
        for node in &nodes {
            let made = &made;
            scope.spawn(move || {
                for Made { key, .. } in (0..20).flat_map(|_| made) {
                    assert_eq!(node.program(key).verify().status, 200);
                }
            });
        }
    });
    for mut node in nodes {
        assert!(node.terminate());
        assert_eq!(failures_to_write(&node), [""; 0]);
    }
    for Made { id, .. } in &made {
        assert_eq!(calls(&database, *id), [("accepted", 40)].into());
    }
}

/// Of so many keys the uses are written in pieces, while keys are verified and changed.
fn a_flush_of_many_keys_keeps_nobody_waiting(backend: Backend) {
    let many = rounds("TOSEND_TEST_FLUSH", 10_000, 20_000) as i64;
    let app = App::start(backend, |_| {});
    let owner = app.owner();
    let (id, key) = owner.create_key("Live", "");
    let hash = match backend {
        Backend::Sqlite => "randomblob(32)",
        Backend::Postgres => "sha256(CAST('key ' || i AS BYTEA))",
    };
    app.database.execute(&format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {many})
         INSERT INTO api_keys
             (account_id, name, hash, first8, last4, all_domains, status, created_at)
         SELECT 1, 'Key ' || i, {hash}, 'tsend_Zz', 'zzzz', CAST({is_true} AS {boolean}), 'active',
             '2026-01-15 10:30:00'
         FROM n",
        is_true = 1,
        boolean = match backend {
            Backend::Sqlite => "INTEGER",
            Backend::Postgres => "BOOLEAN",
        },
    ));
    let node = App::altered(app.database.again(), |state| {
        for key_id in id + 1..=id + many {
            let address = std::net::Ipv4Addr::LOCALHOST.into();
            state
                .usage
                .record(key_id, address, b"test", Some(Outcome::Accepted));
        }
    });
    let visitor = node.visitor();
    visitor.set_cookie(owner.cookie());
    let count = |table: &str| {
        app.database
            .number(&format!("SELECT count(*) FROM {table}"))
    };
    until_none_is_left("all is written", || {
        assert_eq!(node.program(&key).verdict(), 200);
        visitor.post(&format!("/api-keys/{id}/pause"), &[]);
        assert_eq!(node.program(&key).verdict(), 403);
        visitor.post(&format!("/api-keys/{id}/resume"), &[]);
        let left = |table| (many - count(table)).max(0);
        left("api_key_uses") + left("api_key_calls")
    });
    // Of SQLite nobody can tell afterwards.
    if backend == Backend::Postgres {
        for table in ["api_key_uses", "api_key_calls"] {
            let transactions = format!("SELECT count(DISTINCT CAST(xmin AS TEXT)) FROM {table}");
            assert!(
                app.database.number(&transactions) >= many / 5_000,
                "{table}"
            );
        }
    }
}

#[test]
fn a_flush_of_many_keys_keeps_nobody_waiting_on_sqlite() {
    a_flush_of_many_keys_keeps_nobody_waiting(Backend::Sqlite);
}

#[test]
fn a_flush_of_many_keys_keeps_nobody_waiting_on_postgres() {
    a_flush_of_many_keys_keeps_nobody_waiting(Backend::Postgres);
}
