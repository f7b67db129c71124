//! The end of an account: what it takes along, what ends at once, and that nothing is left.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use serde_json::Value;
use tosend_dashboard::mail::store as mail_store;

use crate::support::*;

const EVE: &str = "eve@evil.test";

/// The rows that belong to the first account, in all tables.
fn rows_left(database: &Database) -> i64 {
    let of_account = [
        "users",
        "api_keys",
        "sending_domains",
        "emails",
        "events",
        "email_hours",
        "email_totals",
    ];
    let counts = of_account.iter().map(|table| {
        database.number(&format!(
            "SELECT count(*) FROM {table} WHERE account_id = 1"
        ))
    });
    let of_keys = ["api_key_calls", "api_key_uses", "api_key_domains"]
        .iter()
        .map(|table| {
            database.number(&format!(
                "SELECT count(*) FROM {table} WHERE api_key_id NOT IN (SELECT id FROM api_keys)"
            ))
        });
    let account = database.number("SELECT count(*) FROM accounts WHERE id = 1");
    account + counts.sum::<i64>() + of_keys.sum::<i64>()
}

/// Lets the time pass that servers have to write down how keys were used.
fn age(database: &Database) {
    database.execute(
        "UPDATE accounts SET deleted_at = '2001-01-01 00:00:00' WHERE deleted_at IS NOT NULL",
    );
}

fn account(database: &Database, args: &[&str]) -> Result<String, String> {
    cli(database, &[&["account"], args].concat(), "")
}

fn columns(csv: &str) -> BTreeSet<&str> {
    csv.lines().next().unwrap().split(',').collect()
}

both! {
    fn an_account_is_deleted_by_its_owner(app: App) {
        let owner = app.owner();
        let second = app.visitor();
        second.sign_in(EMAIL);
        attest(&app.database, "acme.test");
        let (_, key) = owner.create_key("Shop", "");
        owner.create_key("Restricted", &dns::first(&app, "acme.test").to_string());
        let program = app.program(&key);
        assert_eq!(program.email_from("ada@acme.test").status, 200);
        // More than are removed in one step.
        app.database.execute("INSERT INTO emails (account_id, api_key_id, domain_id, message_id, message, status, created_at, internet_id, next_attempt_at)
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250)
            SELECT account_id, api_key_id, domain_id, message_id, message, status, created_at, internet_id, next_attempt_at
            FROM emails CROSS JOIN n;
            UPDATE emails SET status = 'deferred', attempts = 1 WHERE id % 2 = 0");
        let eve = app.stranger();
        let (_, of_eve) = eve.create_key("Other", "");

        let page = owner.get("/settings/delete").body;
        for words in ["2 live keys are refused", "251 waiting emails are not sent", "Its domain is free", "Nobody can undo this"] {
            assert!(page.contains(words), "{words}: {page}");
        }
        for (name, password, why) in [
            ("", PASSWORD, "This is not the name of the account."),
            ("Acme", PASSWORD, "This is not the name of the account."),
            (TITLE, "", "This is not the password you have now."),
            (TITLE, "wrong", "This is not the password you have now."),
        ] {
            let answer = owner.post("/settings/delete", &[("name", name), ("password", password)]);
            assert_eq!(answer.status, 422);
            assert!(answer.body.contains(why), "{}", answer.body);
        }
        assert_eq!(program.verdict(), 200);

        let answer = owner.post("/settings/delete", &[("name", TITLE), ("password", PASSWORD)]);
        assert_eq!((answer.status, answer.location()), (303, Some("/login?deleted")));
        assert_eq!(program.verdict(), 403);
        assert!(owner.get("/login?deleted").body.contains("The account is deleted."));
        for session in [&owner, &second] {
            assert_eq!(session.get("/api-keys").status, 303);
        }
        let again = app.visitor().post("/login", &[("email", EMAIL), ("password", PASSWORD)]);
        assert_eq!(again.status, 422);
        assert!(account(&app.database, &["resume", "--account", EMAIL]).is_err());
        assert_eq!(app.program(&of_eve).verdict(), 200);

        // The domain and the address are free.
        let free = ["domain", "add", "--account", EVE, "--verified", "acme.test"];
        assert_eq!(cli(&app.database, &free, "").unwrap(), "acme.test is verified.\n");
        create_account(&app.database, EMAIL, "Another");
        assert_eq!(app.program(&of_eve).email_from("eve@acme.test").status, 200);

        // What waited is not sent, and others wait for nothing.
        let relay = Relay::start();
        let url = relay.url();
        let node = App::on(app.database.again(), |settings| settings.smtp_url = Some(url));
        until("the email of the other account is delivered", || !relay.got().is_empty());
        drop(node);
        let senders: BTreeSet<String> = relay.got().into_iter().map(|mail| mail.from).collect();
        assert_eq!(senders, BTreeSet::from(["eve@acme.test".to_owned()]));
        assert!(rows_left(&app.database) > 250);

        age(&app.database);
        let _node = App::on(app.database.again(), |_| {});
        until("nothing is left", || rows_left(&app.database) == 0);
        assert_eq!(app.database.number("SELECT count(*) FROM accounts"), 2);
        assert_eq!(app.program(&of_eve).verdict(), 200);
        assert_eq!(app.database.number("SELECT count(*) FROM emails"), 1);
    }

    fn an_email_that_was_claimed_before_is_not_sent(app: App) {
        let owner = app.owner();
        attest(&app.database, "acme.test");
        let (_, key) = owner.create_key("Shop", "");
        app.program(&key).email_from("ada@acme.test");
        let ends = account(&app.database, &["delete", "--account", EMAIL]).unwrap_err();
        assert!(ends.contains("1 domains, and 1 emails") && ends.contains(TITLE), "{ends}");
        assert!(account(&app.database, &["delete", "--account", EMAIL, "--title", "Other"]).is_err());
        assert_eq!(app.program(&key).verdict(), 200);
        let db = app.database.open();
        let claimed = || db.read_blocking(|conn| mail_store::find_claimed_of_any_account(conn, 1, "ours")).unwrap();
        let claim = |conn: &mut _| mail_store::claim_of_any_account(conn, &[1], "ours", TimeDelta::minutes(9));
        assert_eq!(db.write_blocking(claim).unwrap(), [1]);
        assert!(claimed().is_some());
        let told = account(&app.database, &["delete", "--account", EMAIL, "--title", TITLE]).unwrap();
        assert!(told.contains("its keys are refused"), "{told}");
        assert_eq!(app.program(&key).verdict(), 403);
        assert!(account(&app.database, &["delete", "--account", EMAIL, "--title", TITLE]).is_err());
        assert!(claimed().is_none());
        age(&app.database);
        let _node = App::on(app.database.again(), |_| {});
        until("nothing is left", || rows_left(&app.database) == 0);
    }

    fn an_account_is_exported_without_any_secret(app: App) {
        let owner = app.owner();
        attest(&app.database, "acme.test");
        let (id, key) = owner.create_key("=Shop", &dns::first(&app, "acme.test").to_string());
        let (gone, _) = owner.create_key("Gone", "");
        assert_eq!(app.program(&key).email_from("ada@acme.test").status, 200);
        owner.delete_key(gone);
        for name in 0..130 {
            owner.post("/settings/title", &[("title", &format!("Acme {name}"))]);
        }
        let eve = app.stranger();
        eve.create_key("Of Eve", "");

        let page = owner.get("/settings/export").body;
        assert!(page.contains("/settings/export/account.json") && page.contains("/settings/export/keys.csv"));
        let answer = owner.get("/settings/export/account.json");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.header("content-disposition").unwrap().contains("-account.json"));
        let all: Value = serde_json::from_str(&answer.body).unwrap();
        let by_operator = account(&app.database, &["export", "--account", EMAIL]).unwrap();
        let by_operator: Value = serde_json::from_str(&by_operator).unwrap();
        for table in ["account", "people", "domains", "keys", "emails"] {
            assert_eq!(all[table], by_operator[table], "{table}");
        }
        assert_eq!(all["account"][0]["title"], "Acme 129");
        assert_eq!(all["people"][0]["email"], EMAIL);
        assert_eq!(all["domains"][0]["name"], "acme.test");
        let keys = all["keys"].as_array().unwrap();
        assert_eq!((keys.len(), &keys[0]["name"], &keys[1]["status"]), (2, &"=Shop".into(), &"deleted".into()));
        assert_eq!((&keys[0]["id"], &keys[0]["truncated"]), (&id.into(), &format!("{}…{}", &key[..8], &key[40..]).into()));
        assert_eq!(all["emails"][0]["sender"], "ada@acme.test");
        assert_eq!(all["sessions"].as_array().unwrap().len(), 1);
        let events = all["activity"].as_array().unwrap();
        let numbers: BTreeSet<i64> = events.iter().map(|e| e["id"].as_i64().unwrap()).collect();
        assert_eq!((events.len(), numbers.len() as i64), (numbers.len(),
            app.database.number("SELECT count(*) FROM events WHERE account_id = 1")));
        assert!(events.len() > 130);

        let secrets = [&key[10..26], "argon2", "hash", "It works.", PASSWORD, "Of Eve", EVE];
        let mut texts = vec![answer.body];
        for table in ["account", "people", "sessions", "domains", "keys", "emails", "activity"] {
            let answer = owner.get(&format!("/settings/export/{table}.csv"));
            assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
            let of_json = all[table][0].as_object().unwrap().keys().map(String::as_str);
            assert_eq!(columns(&answer.body), of_json.collect(), "{table}");
            texts.push(answer.body);
        }
        let of_cli = account(&app.database, &["export", "--account", EMAIL, "--csv", "keys"]).unwrap();
        assert!(texts.contains(&of_cli), "{of_cli}");
        assert!(of_cli.contains(",'=Shop,"), "{of_cli}");
        for text in &texts {
            for secret in secrets {
                assert!(!text.contains(secret), "{secret}: {text}");
            }
        }
        for nothing in ["x.csv", "account.csv.json", "keys.json", "keys"] {
            assert_eq!(owner.get(&format!("/settings/export/{nothing}")).status, 404);
        }
        assert_eq!(app.visitor().get("/settings/export/account.json").status, 303);
    }
}
