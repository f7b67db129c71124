//! How many emails were accepted: exact, whether they are counted already or not.

use chrono::{Datelike, NaiveDateTime, TimeDelta, Utc};
use serde_json::Value;
use tosend_dashboard::outbox::store as outbox_store;

use crate::support::*;

const FROM: &str = "hello@acme.test";

fn now() -> NaiveDateTime {
    Utc::now().naive_utc()
}

fn month() -> NaiveDateTime {
    let first = now().date().with_day(1).unwrap();
    first.and_time(Default::default())
}

fn spelled(at: NaiveDateTime) -> String {
    at.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

/// Two accounts with keys that have sent, and a domain that was deleted since.
struct Scene {
    app: App,
    /// Ids of keys, and the keys: the first two are the owner's.
    keys: Vec<(i64, String)>,
}

impl Scene {
    fn new(app: App) -> Self {
        let owner = app.owner();
        for domain in ["acme.test", "other.test"] {
            attest(&app.database, domain);
        }
        let gone: i64 = owner.add_domain("gone.test").parse().unwrap();
        let stranger = app.stranger();
        let evil: i64 = stranger.add_domain("evil.test").parse().unwrap();
        let mut keys = vec![
            owner.create_key("First", ""),
            owner.create_key("Second", ""),
        ];
        keys.push(stranger.create_key("Evil", ""));
        let id = |name: &str| {
            let sql = format!("SELECT id FROM sending_domains WHERE name = '{name}'");
            app.database.number(&sql)
        };
        let (acme, other) = (id("acme.test"), id("other.test"));
        // Every seven minutes, of changing keys and domains, back into the last month.
        let mut rows = Vec::new();
        let mut ages: Vec<TimeDelta> = (0..26 * 60).step_by(7).map(TimeDelta::minutes).collect();
        ages.extend((2..40).map(TimeDelta::days));
        ages.extend([now() - month(), now() - month() + TimeDelta::seconds(1)]);
        for (n, age) in ages.into_iter().enumerate() {
            let (key, _) = keys[n % 3];
            let domain = match n % 3 {
                2 => evil,
                _ => [acme, other, gone][n % 5 % 3],
            };
            let at = spelled(now() - age);
            rows.push(format!(
                "((SELECT account_id FROM api_keys WHERE id = {key}), {key}, {domain}, \
                 'm{n}', '{{}}', 'held', '{at}', 'i{n}', '{at}')"
            ));
        }
        app.database.execute(&format!(
            "INSERT INTO emails (account_id, api_key_id, domain_id, message_id, message, status,
             created_at, internet_id, next_attempt_at) VALUES {}",
            rows.join(", ")
        ));
        owner.post(&format!("/domains/{gone}/delete"), &[]);
        // As a database from before anything was counted.
        app.database
            .execute("DELETE FROM email_counts; DELETE FROM email_counts_frontier");
        Self { app, keys }
    }

    fn number(&self, sql: &str) -> i64 {
        self.app.database.number(sql)
    }

    /// What the emails themselves say.
    fn expected(&self, key: i64) -> Vec<i64> {
        let account = format!("account_id = (SELECT account_id FROM api_keys WHERE id = {key})");
        let day = format!("created_at >= '{}'", spelled(now() - TimeDelta::hours(24)));
        let month = format!("created_at >= '{}'", spelled(month()));
        let count =
            |what: String| self.number(&format!("SELECT count(*) FROM emails WHERE {what}"));
        vec![
            count(format!("{account} AND {day}")),
            count(format!("{account} AND {month}")),
            count(format!("api_key_id = {key} AND {day}")),
            count(format!("api_key_id = {key} AND {month}")),
            count(format!("{account} AND domain_id IS NOT NULL")),
        ]
    }

    fn told(&self, key: &str) -> Vec<i64> {
        let info = self.app.program(key).info().json();
        let number = |value: &Value| value.as_i64().unwrap();
        let domains = info["domains"].as_array().unwrap().iter();
        vec![
            number(&info["account"]["emails_sent_last_24hrs"]),
            number(&info["account"]["emails_usage_this_month"]),
            number(&info["key"]["emails_sent_last_24hrs"]),
            number(&info["key"]["emails_usage_this_month"]),
            domains.map(|domain| number(&domain["total_sent"])).sum(),
        ]
    }

    fn check(&self) {
        for (id, key) in &self.keys {
            // Time goes on: an email may leave the 24 hours while it is asked.
            until("what is told is what is there", || {
                let before = self.expected(*id);
                let told = self.told(key);
                let is_still = before == self.expected(*id);
                assert!(!is_still || told == before, "{told:?} {before:?}");
                is_still
            });
        }
        let counted = "SELECT coalesce(sum(accepted), 0) FROM email_counts";
        let over = "SELECT count(*) FROM emails WHERE created_at < coalesce(
            (SELECT counted_before FROM email_counts_frontier), '1970-01-01 00:00:00')";
        until("nothing is being counted", || {
            let before = self.number(over);
            let counted = self.number(counted);
            let is_still = before == self.number(over);
            assert!(!is_still || counted == before, "{counted} {before}");
            is_still
        });
    }
}

/// As a server does every minute. Gives whether there was anything to count.
fn count_an_hour(keys: &KeyStore) -> bool {
    let hour = keys
        .db
        .read_blocking(outbox_store::find_hour_of_any_account);
    let Some(hour) = hour.unwrap() else {
        return false;
    };
    let write = |conn: &mut _| outbox_store::write_hour_of_any_account(conn, &hour);
    keys.db.write_blocking(write).unwrap();
    true
}

both! {
    fn numbers_are_exact_before_and_after_each_hour_is_counted(app: App) {
        let scene = Scene::new(app);
        scene.check();
        let keys = KeyStore::of(&scene.app.database);
        let mut hours = 0;
        while count_an_hour(&keys) {
            hours += 1;
            assert!(hours < 1_000, "it ends");
            if hours % 8 == 0 {
                scene.check();
            }
        }
        assert!(scene.number("SELECT sum(accepted) FROM email_counts") > 200);
        scene.check();
        // What comes later is counted where it is.
        attest(&scene.app.database, "acme.test");
        for (id, key) in &scene.keys[..2] {
            let before = scene.expected(*id)[3];
            assert_eq!(scene.app.program(key).email_from(FROM).status, 200);
            assert_eq!(scene.expected(*id)[3], before + 1);
        }
        scene.check();
    }

    fn each_hour_is_counted_once_by_any_number_of_nodes(app: App) {
        let scene = Scene::new(app);
        std::thread::scope(|threads| {
            for _ in 0..6 {
                threads.spawn(|| {
                    let keys = KeyStore::of(&scene.app.database);
                    while count_an_hour(&keys) {}
                });
            }
        });
        scene.check();
        assert_eq!(scene.number("SELECT count(*) FROM email_counts_frontier"), 1);

        // Who comes too late with the same hour changes nothing.
        scene.app.database.execute("DELETE FROM email_counts; DELETE FROM email_counts_frontier");
        let keys = KeyStore::of(&scene.app.database);
        for _ in 0..3 {
            let find = || keys.db.read_blocking(outbox_store::find_hour_of_any_account).unwrap();
            for hour in [find(), find()].iter().flatten() {
                let write = |conn: &mut _| outbox_store::write_hour_of_any_account(conn, hour);
                keys.db.write_blocking(write).unwrap();
            }
            scene.check();
        }
    }

    fn an_hour_is_counted_when_nothing_can_be_late_for_it(app: App) {
        let scene = Scene::new(app);
        let keys = KeyStore::of(&scene.app.database);
        while count_an_hour(&keys) {}
        let frontier = |from: TimeDelta| {
            let at = spelled(now() - from);
            scene.number(&format!(
                "SELECT count(*) FROM email_counts_frontier WHERE counted_before <= '{at}'"
            ))
        };
        assert_eq!(frontier(TimeDelta::minutes(10)), 1, "ten minutes after its end");
        assert_eq!(frontier(TimeDelta::hours(2)), 0, "and soon then");
        // One that was written down late by its node's clock.
        let (id, key) = &scene.keys[0];
        assert_eq!(scene.app.program(key).email_from(FROM).status, 200);
        let late = spelled(now() - TimeDelta::minutes(9));
        scene.app.database.execute(&format!(
            "UPDATE emails SET created_at = '{late}'
             WHERE id = (SELECT max(id) FROM emails WHERE api_key_id = {id})"
        ));
        while count_an_hour(&keys) {}
        scene.check();
    }

    fn a_server_counts_by_itself(app: App) {
        app.owner();
        // At its start, before anything was sent.
        until("the frontier stands", || {
            app.database.number("SELECT count(*) FROM email_counts_frontier") == 1
        });
    }

    fn pages_show_how_many_emails_keys_had(app: App) {
        let owner = app.owner();
        attest(&app.database, "acme.test");
        let (quiet, _) = owner.create_key("Quiet", "");
        let (busy, key) = owner.create_key("Busy", "");
        for _ in 0..2 {
            assert_eq!(app.program(&key).email_from(FROM).status, 200);
        }
        let cell = |page: &str, id: i64| {
            let (_, cell) = page.split_once(&format!("<td id=\"key-{id}-use\"")).unwrap();
            cell.split_once("</td>").unwrap().0.to_owned()
        };
        until("its use is written", || {
            !cell(&owner.get("/api-keys").body, busy).contains("Waiting for first use")
        });
        let shown = "2 emails in the last 24 hours";
        let list = owner.get("/api-keys").body;
        assert!(cell(&list, busy).contains(shown), "{list}");
        assert!(!cell(&list, quiet).contains("emails in"), "{list}");
        let all = "2 emails in the last 24 hours, 2 this month";
        assert!(list.contains(&format!("2 keys</span> · <span id=\"email-count\">{all}")), "{list}");

        // Wherever a row or a cell is shown anew.
        let path = |what: &str| format!("/api-keys/{busy}{what}");
        assert!(cell(&owner.get(&format!("/api-keys/first-uses?ids={busy}")).body, busy).contains(shown));
        let pause = owner.same_origin("POST", &path("/pause")).header("hx-request", "true");
        let paused = owner.send(pause.header("hx-current-url", app.url("/api-keys")));
        assert!(cell(&paused.body, busy).contains(shown), "{paused:?}");
        let resume = owner.same_origin("POST", &path("/resume")).header("hx-request", "true");
        let resumed = owner.send(resume.header("hx-current-url", app.url("/api-keys")));
        assert!(cell(&resumed.body, busy).contains(shown), "{resumed:?}");
        // What stands below the list is counted anew with the row, and said is what was done.
        for fresh in [&resumed.body, &owner.get(&format!("/api-keys/first-uses?ids={busy}")).body] {
            let foot = format!("<span id=\"email-count\" hx-swap-oob=\"innerHTML\">{all}");
            assert!(fresh.contains(&foot), "{fresh}");
        }
        assert!(resumed.body.contains("hx-swap-oob=\"innerHTML\">The key “Busy” is resumed."));
        until("the calls are counted", || {
            owner.get(&path("/delete")).body.contains("2 calls and 2 emails")
        });

        assert!(owner.get(&path("")).body.contains(&format!("<dd id=\"key-volume\">{all}")));
        let none = owner.get(&format!("/api-keys/{quiet}")).body;
        assert!(none.contains("<dd id=\"key-volume\">0 emails in the last 24 hours, 0 this month"));
        let stranger = app.stranger();
        stranger.create_key("Evil", "");
        assert!(stranger.get("/api-keys").body.contains("0 emails in the last 24 hours"));
    }
}
