//! How many emails were accepted: exact, also of those from before they were counted as they are now.

use std::path::Path;

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

/// How many hours ago the version before had counted emails up to; `None`: it had not begun.
type CountedUpTo = Option<i64>;

/// Two accounts with keys that have sent, and a domain that was deleted since.
struct Scene {
    app: App,
    /// The new version.
    node: Option<App>,
    /// Ids of keys, and the keys: the first two are the owner's.
    keys: Vec<(i64, String)>,
}

impl Scene {
    /// As of the version before.
    fn of_before(app: App, counted: CountedUpTo) -> Self {
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
        let scene = Self {
            app,
            node: None,
            keys,
        };
        scene.go_back();
        if let Some(hours) = counted {
            scene.count_as_before(now() - TimeDelta::hours(hours));
        }
        scene
    }

    /// Undoes the migration.
    fn go_back(&self) {
        let backend = match self.app.database.backend() {
            Backend::Sqlite => "sqlite",
            Backend::Postgres => "postgres",
        };
        let path = format!("migrations/{backend}/2026-11-26-215500_email_totals/down.sql");
        let down = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        self.app.database.execute(&format!(
            "{}; DELETE FROM __diesel_schema_migrations WHERE version = '20261126215500'",
            std::fs::read_to_string(down).unwrap()
        ));
    }

    /// Counts whole hours, as the version before did.
    fn count_as_before(&self, until: NaiveDateTime) {
        let database = &self.app.database;
        let hour = match database.backend() {
            Backend::Sqlite => "substr(created_at, 1, 13) || ':00:00'",
            Backend::Postgres => "date_trunc('hour', created_at)",
        };
        let until = until.format("%Y-%m-%d %H:00:00");
        database.execute(&format!(
            "DELETE FROM email_counts_frontier; INSERT INTO email_counts_frontier VALUES (1, '{until}');
             INSERT INTO email_counts (account_id, api_key_id, domain_id, hour, accepted)
             SELECT account_id, api_key_id, coalesce(domain_id, 0), {hour}, count(*)
             FROM emails WHERE created_at < '{until}' GROUP BY 1, 2, 3, 4"
        ));
    }

    /// Starts the new version on it.
    fn migrate(mut self) -> Self {
        self.node = Some(App::on(self.app.database.again(), |_| {}));
        self
    }

    fn program(&self, key: &str) -> Program {
        self.node.as_ref().unwrap_or(&self.app).program(key)
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
        let info = self.program(key).info().json();
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
    }
}

both! {
    fn emails_of_a_version_that_had_counted_none_are_counted(app: App) {
        Scene::of_before(app, None).migrate().check();
    }

    fn what_the_version_before_had_counted_is_kept(app: App) {
        let scene = Scene::of_before(app, Some(5)).migrate();
        scene.check();
        // What comes later is added.
        attest(&scene.app.database, "acme.test");
        for (id, key) in &scene.keys[..2] {
            let before = scene.expected(*id)[3];
            assert_eq!(scene.program(key).email_from(FROM).status, 200);
            assert_eq!(scene.expected(*id)[3], before + 1);
        }
        scene.check();
    }

    fn emails_that_were_counted_and_deleted_stay_counted(app: App) {
        let scene = Scene::of_before(app, Some(1));
        let lasting = |of: Vec<i64>| [of[1], of[3], of[4]];
        let expected: Vec<_> = scene.keys.iter().map(|(id, _)| lasting(scene.expected(*id))).collect();
        let old = spelled(now() - TimeDelta::hours(50));
        scene.app.database.execute(&format!("DELETE FROM emails WHERE created_at < '{old}'"));
        let scene = scene.migrate();
        let told: Vec<_> = scene.keys.iter().map(|(_, key)| lasting(scene.told(key))).collect();
        assert_eq!(told, expected);
    }

    fn a_look_back_and_another_step_ahead_lose_nothing(app: App) {
        let scene = Scene::of_before(app, None).migrate();
        scene.go_back();
        let scene = scene.migrate();
        for (id, key) in &scene.keys {
            let (told, expected) = (scene.told(key), scene.expected(*id));
            // Of a day that is over, the hours are not known any more.
            assert_eq!((told[1], told[3], told[4]), (expected[1], expected[3], expected[4]));
        }
    }

    fn counts_of_hours_are_deleted_after_days_and_the_totals_stay(app: App) {
        let scene = Scene::of_before(app, Some(1)).migrate();
        let keys = KeyStore::of(&scene.app.database);
        let border = spelled(now() - TimeDelta::days(3) + TimeDelta::hours(1));
        let kept = || scene.number(&format!("SELECT count(*) FROM email_hours WHERE hour >= '{border}'"));
        scene.app.database.execute(
            "INSERT INTO email_hours (account_id, api_key_id, hour, accepted)
             SELECT account_id, api_key_id, '2020-01-01 00:00:00', 7 FROM email_hours
             GROUP BY account_id, api_key_id"
        );
        let before = kept();
        // The servers do the same.
        let forget = |conn: &mut _| outbox_store::forget_hours_of_any_account(conn, 2);
        while keys.db.write_blocking(forget).unwrap() > 0 {}
        let outdated = "SELECT count(*) FROM email_hours WHERE hour < '2021-01-01 00:00:00'";
        assert_eq!((scene.number(outdated), kept()), (0, before));
        scene.check();
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
