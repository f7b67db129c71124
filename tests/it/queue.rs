//! The operator's hands on the queue: whatever is retried, cancelled or deleted beside servers that
//! deliver, nobody gets an email twice, and no total changes.

use serde_json::{Value, json};
use tosend_dashboard::db::space;

use crate::delivery::{LONG_AGO, accept, count, delivering, hasten, sender, to, until_all};
use crate::support::*;

const FUTURE: &str = "2999-01-01 00:00:00";

fn ok(database: &Database, args: &[&str]) -> String {
    cli(database, args, "").unwrap_or_else(|why| panic!("{args:?}: {why}"))
}

/// The numbers of the emails that `email list` shows with these filters.
fn listed(database: &Database, filters: &[&str]) -> Vec<i64> {
    let json = ok(database, &[&["email", "list", "--json"], filters].concat());
    let emails: Vec<Value> =
        serde_json::from_str(&json).unwrap_or_else(|why| panic!("{why}: {json}"));
    let lines = ok(database, &[&["email", "list"], filters].concat());
    assert_eq!(lines.lines().count(), emails.len(), "{lines}");
    emails
        .iter()
        .map(|email| email["id"].as_i64().unwrap())
        .collect()
}

fn shown(database: &Database, id: i64) -> Value {
    let json = ok(database, &["email", "show", &id.to_string(), "--json"]);
    serde_json::from_str(&json).unwrap()
}

/// As after a year.
fn age_all(database: &Database) {
    database.execute(&format!(
        "UPDATE emails SET created_at = '{LONG_AGO}';
         UPDATE emails SET ended_at = '{LONG_AGO}' WHERE ended_at IS NOT NULL"
    ));
}

/// What the API and the pages tell of how many emails there were.
fn totals(program: &Program) -> [Value; 4] {
    let info = program.info().json();
    [
        info["account"]["emails_sent_last_24hrs"].clone(),
        info["account"]["emails_usage_this_month"].clone(),
        info["key"]["emails_usage_this_month"].clone(),
        info["domains"][0]["total_sent"].clone(),
    ]
}

both! {
    fn a_retry_is_for_those_alone_who_did_not_get_it(app: App) {
        let (_, program) = sender(&app);
        let mut relay = Relay::start();
        relay.order(&json!({"rcpt": {
            "full@example.org": "552 5.2.2 Mailbox full",
            "late@example.org": "450 4.2.1 Busy",
        }}));
        let _node = delivering(&app, &relay);
        accept(&program, &to(&["full@example.org", "bob@example.org", "late@example.org"]));
        until_all(&app.database, "status = 'deferred' AND attempts = 1");
        accept(&program, &to(&["bob@example.org"]));
        until("the second is delivered", || count(&app.database, "status = 'delivered'") == 1);

        relay.order(&json!({"rcpt": {}}));
        let retry = ["email", "retry", "--all"];
        let dry = ok(&app.database, &[&retry[..], &["--dry-run"]].concat());
        assert!(dry.starts_with("Would put up 1 email for another attempt."), "{dry}");
        assert_eq!(count(&app.database, "status = 'deferred' AND attempts = 1"), 1);
        let told = ok(&app.database, &retry);
        assert_eq!(
            told,
            "1 email put up for another attempt.\n1 left alone: delivered to every recipient.\n"
        );
        until_all(&app.database, "status = 'delivered'");
        let got = relay.got();
        assert_eq!(got.len(), 3);
        assert_eq!(got[2].to, ["full@example.org", "late@example.org"]);
        assert_eq!(got[2].header("Message-ID"), got[0].header("Message-ID"));

        let told = ok(&app.database, &retry);
        assert!(told.starts_with("0 emails"), "{told}");
        assert_eq!(relay.got().len(), 3);
    }

    fn a_failed_email_that_is_retried_has_two_days_again(app: App) {
        let (owner, program) = sender(&app);
        let mut relay = Relay::start();
        relay.order(&json!({"data": ["451 Later"]}));
        let _node = delivering(&app, &relay);
        accept(&program, &to(&["bob@example.org"]));
        until_all(&app.database, "status = 'deferred' AND attempts = 1");
        relay.order(&json!({"data": ["451 Later", "451 Later"]}));
        app.database.execute(&format!("UPDATE emails SET first_attempt_at = '{LONG_AGO}'"));
        hasten(&app.database);
        until_all(&app.database, "status = 'failed'");
        ok(&app.database, &["email", "retry", "1"]);
        until_all(&app.database, "status = 'deferred' AND attempts = 3");
        hasten(&app.database);
        until_all(&app.database, "status = 'delivered'");
        assert_eq!(relay.got().len(), 1);
        let page = owner.get("/activity?kind=email").body;
        assert!(page.contains("Emails sent again") && page.contains("numbers 1"), "{page}");
    }

    fn a_person_sends_a_failed_email_again_from_the_page(app: App) {
        let (owner, program) = sender(&app);
        let mut relay = Relay::start();
        relay.order(&json!({"rcpt": {"full@example.org": "552 5.2.2 Mailbox full"}}));
        let node = delivering(&app, &relay);
        accept(&program, &to(&["bob@example.org", "full@example.org"]));
        accept(&program, &to(&["bob@example.org"]));
        until_all(&app.database, "status = 'delivered'");
        let page = owner.get("/activity/emails").body;
        // Only for the one that somebody did not get.
        assert_eq!(page.matches(">Send again</button>").count(), 1, "{page}");
        let path = "/activity/emails/1/retry";
        assert!(page.contains(&format!("<form method=\"post\" action=\"{path}\">")), "{page}");
        assert_eq!(owner.send(owner.request("POST", path)).status, 403, "from elsewhere");
        ok(&app.database, &["account", "pause", "--account", EMAIL]);
        assert!(!owner.get("/activity/emails").body.contains("Send again"));
        assert_eq!(owner.post(path, &[]).status, 403);
        ok(&app.database, &["account", "resume", "--account", EMAIL]);
        assert_eq!(count(&app.database, "status = 'delivered'"), 2);

        relay.order(&json!({"rcpt": {}}));
        owner.move_to(&node.url(""));
        let answer = owner.post(path, &[]);
        assert_eq!(answer.header("location"), Some("/activity/emails?retry=done"));
        until_all(&app.database, "status = 'delivered'");
        assert_eq!(relay.got().last().unwrap().to, ["full@example.org"]);
        assert_eq!(relay.got().len(), 3);
        assert!(owner.get("/activity/emails?retry=done").body.contains("is being sent again"));
        assert!(owner.get("/activity").body.contains("<bdi>bob@example.org</bdi>"));
        let answer = owner.post(path, &[]);
        assert_eq!(answer.header("location"), Some("/activity/emails?retry=not-needed"));
        assert_eq!(owner.post("/activity/emails/99/retry", &[]).status, 404);
    }

    fn a_cancelled_email_is_not_tried_and_one_under_way_is_left_alone(app: App) {
        let (_, program) = sender(&app);
        for n in 1..=5 {
            accept(&program, &to(&[&format!("n{n}@example.org")]));
        }
        app.database.execute(&format!(
            "UPDATE emails SET claim = 'x', next_attempt_at = '{FUTURE}' WHERE id = 2;
             UPDATE emails SET claim = 'x', next_attempt_at = '{LONG_AGO}' WHERE id = 3;
             UPDATE emails SET status = 'delivered', ended_at = created_at WHERE id = 4"
        ));
        let cancel = ["email", "cancel", "--account", EMAIL, "--newer-than", "1h"];
        let told = "cancelled: no more attempts are made for them.\n\
            1 may have been sent all the same: an attempt was cut off before its result was stored.\n\
            1 left alone: being sent right now (an attempt takes up to ten minutes).\n\
            1 left alone: delivered or failed already.\n";
        let dry = ok(&app.database, &[&cancel[..], &["--dry-run"]].concat());
        assert!(dry.contains("3 emails") && dry.contains("may have been sent"), "{dry}");
        assert_eq!(count(&app.database, "status = 'held'"), 4);
        assert_eq!(ok(&app.database, &cancel), format!("3 emails {told}"));
        assert_eq!(shown(&app.database, 2)["is_under_way"], true);
        for id in [1, 3, 5] {
            let email = shown(&app.database, id);
            assert_eq!(email["status"], "failed");
            assert_eq!(email["refused"][0]["email"], format!("n{id}@example.org"));
            let reply = email["reply"].as_str().unwrap();
            assert!(reply.starts_with("Cancelled by the operator") && !reply.contains("not sent"));
            assert_eq!(reply.contains("may have been sent"), id == 3, "{reply}");
        }

        // What the server that claimed it stores, late.
        app.database.execute(&format!("UPDATE emails SET next_attempt_at = '{LONG_AGO}' WHERE id = 2"));
        let relay = Relay::start();
        let node = delivering(&app, &relay);
        until("the one that was under way is delivered", || {
            count(&app.database, "id = 2 AND status = 'delivered'") == 1
        });
        assert_eq!(relay.got().len(), 1);
        // Nobody got those: they may have them after all.
        ok(&app.database, &["email", "retry", "1", "5"]);
        until("the retried are delivered", || count(&app.database, "status = 'delivered'") == 4);
        assert_eq!(relay.got().len(), 3);
        drop(node);
    }

    fn a_recipient_who_has_it_is_told_apart_when_the_rest_is_cancelled(app: App) {
        let (_, program) = sender(&app);
        let mut relay = Relay::start();
        relay.order(&json!({"rcpt": {"late@example.org": "450 Busy", "no@example.org": "550 No"}}));
        let _node = delivering(&app, &relay);
        accept(&program, &to(&["bob@example.org", "late@example.org", "no@example.org"]));
        accept(&program, &to(&["late@example.org"]));
        until_all(&app.database, "status = 'deferred' AND attempts = 1");
        ok(&app.database, &["email", "cancel", "--state", "deferred"]);
        let (some, none) = (shown(&app.database, 1), shown(&app.database, 2));
        assert_eq!((&some["status"], &none["status"]), (&json!("delivered"), &json!("failed")));
        let refused: Vec<&Value> = some["refused"].as_array().unwrap().iter().map(|r| &r["email"]).collect();
        assert_eq!(refused, ["no@example.org", "late@example.org"]);
    }

    fn emails_are_found_by_account_state_recipient_key_and_age(app: App) {
        let (owner, program) = sender(&app);
        let (other_key, plain) = owner.create_key("Other", "");
        let stranger = app.stranger();
        cli(&app.database, &["domain", "add", "--account", "eve@evil.test", "evil.test", "--verified"], "").unwrap();
        let (_, theirs) = stranger.create_key("Theirs", "");
        accept(&program, &to(&["bob@example.org"]));
        let mut hidden = to(&["first@example.org"]);
        hidden["bcc"] = json!([{"email": "Hid_den@Example.org"}]);
        hidden["html"] = json!("write to bob@example.org, or {\"email\":\"bob@example.org\"}");
        hidden["reply_to"] = json!({"email": "bob@example.org"});
        accept(&program, &hidden);
        accept(&app.program(&plain), &to(&["carol@example.org"]));
        let mut evil = to(&["bob@example.org"]);
        evil["from"] = json!({"email": "eve@evil.test"});
        accept(&app.program(&theirs), &evil);
        app.database.execute(&format!(
            "UPDATE emails SET status = 'failed', ended_at = created_at, message = NULL,
                 refused = '[{{\"email\":\"dora@example.org\",\"reply\":\"550 No\"}}]' WHERE id = 3;
             UPDATE emails SET created_at = '{LONG_AGO}' WHERE id = 1"
        ));
        let other_key = other_key.to_string();
        for (filters, expected) in [
            (&[][..], &[4, 3, 2, 1][..]),
            (&["--limit", "2"], &[4, 3]),
            (&["--account", EMAIL], &[3, 2, 1]),
            (&["--state", "failed"], &[3]),
            (&["--state", "failed", "--state", "held"], &[4, 3, 2, 1]),
            (&["--state", "delivered"], &[]),
            (&["--recipient", "BOB@example.org"], &[4, 1]),
            (&["--recipient", "hid_den@example.org"], &[2]),
            (&["--recipient", "hidXden@example.org"], &[]),
            (&["--recipient", "carol@example.org"], &[3]),
            (&["--recipient", "dora@example.org"], &[3]),
            (&["--key", &other_key], &[3]),
            (&["--older-than", "30d"], &[1]),
            (&["--newer-than", "1d"], &[4, 3, 2]),
            (&["--newer-than", "1d", "--account", EMAIL, "--state", "held"], &[2]),
        ] {
            assert_eq!(listed(&app.database, filters), expected, "{filters:?}");
        }
        let text = ok(&app.database, &["email", "show", "3"]);
        for line in ["Status       failed", "Not to       dora@example.org: 550 No", "Content      deleted"] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!ok(&app.database, &["email", "show", "2"]).contains("write to bob"));
        let why = cli(&app.database, &["email", "show", "9"], "").unwrap_err();
        assert_eq!(why, "error: there is no email 9\n");
    }

    fn what_is_purged_changes_no_total(app: App) {
        let (_, program) = sender(&app);
        for n in 0..6 {
            accept(&program, &to(&[&format!("n{n}@example.org")]));
        }
        let purge = ["email", "purge", "--all"];
        app.database.execute(&format!(
            "UPDATE emails SET status = 'failed', ended_at = created_at WHERE id > 2;
             UPDATE emails SET created_at = '{LONG_AGO}', ended_at = '{LONG_AGO}' WHERE id = 3"
        ));
        let before = totals(&program);
        assert_eq!(before[3], 6);
        let dry = ok(&app.database, &[&purge[..], &["--dry-run"]].concat());
        assert!(dry.starts_with("Would delete 1 email.") && dry.ends_with("nothing was changed.\n"), "{dry}");
        assert_eq!(count(&app.database, "TRUE"), 6);
        let told = ok(&app.database, &purge);
        assert_eq!(told, "1 email deleted.\n2 left alone: still to be delivered; cancel first.\n\
            3 left alone: accepted in the last two days (or while the clock is in doubt), and needed for the totals.\n");
        assert_eq!(listed(&app.database, &["--limit", "9"]), [6, 5, 4, 2, 1]);
        assert_eq!(totals(&program), before);
    }

    fn rows_go_some_time_after_the_end_and_the_totals_stay(app: App) {
        let (owner, program) = sender(&app);
        for n in 0..5 {
            accept(&program, &to(&[&format!("n{n}@example.org")]));
        }
        app.database.execute(
            "UPDATE emails SET status = 'delivered', ended_at = created_at WHERE id < 5;
             UPDATE emails SET message = NULL WHERE id < 3"
        );
        age_all(&app.database);
        app.database.execute(&format!("UPDATE emails SET ended_at = '{FUTURE}' WHERE id = 4"));
        let before = totals(&program);
        let node = App::on(app.database.again(), |settings| settings.email_days = "10".into());
        // With and without a content; neither the one that ended late nor the one that waits.
        until("old rows are gone", || count(&app.database, "id < 4") == 0);
        assert_eq!(count(&app.database, "id >= 4"), 2);
        assert_eq!(totals(&program), before);
        assert_eq!(before[3], 5);
        assert!(owner.get("/activity/emails").body.contains("n3@example.org"));
        drop(node);
    }

    fn nothing_is_deleted_while_the_clock_is_in_doubt(app: App) {
        let (_, program) = sender(&app);
        accept(&program, &to(&["bob@example.org"]));
        app.database.execute("UPDATE emails SET status = 'failed', ended_at = created_at");
        age_all(&app.database);
        app.database.execute(&format!(
            "DELETE FROM clock_seen; INSERT INTO clock_seen VALUES (1, '{LONG_AGO}', NULL, 0)"
        ));
        let _node = App::on(app.database.again(), |settings| settings.email_days = "1".into());
        // Written in the second round of the upkeep: the first one is over.
        let rounds = "SELECT count(*) FROM clock_seen WHERE steady_seconds > 0";
        until("a round is over", || app.database.number(rounds) == 1);
        let told = ok(&app.database, &["email", "purge", "--all"]);
        assert!(told.starts_with("0 emails deleted.\n1 left alone:"), "{told}");
        assert_eq!(count(&app.database, "TRUE"), 1);

        ok(&app.database, &["clock", "accept"]);
        let told = ok(&app.database, &["email", "purge", "--all"]);
        assert_eq!(told, "1 email deleted.\n");
    }
}

#[test]
fn nothing_is_done_with_all_emails_by_mistake() {
    let database = Database::new(Backend::Sqlite);
    for task in ["retry", "cancel", "purge"] {
        for (rest, why) in [
            (&[][..], "say which emails"),
            (&["--dry-run"], "say which emails"),
            (&["--all", "1"], "--all cannot be used"),
            (&["--all", "--state", "held"], "--all cannot be used"),
            (
                &["--state", "sent"],
                "say held, deferred, delivered or failed",
            ),
            (&["--older-than", "1w"], "such as 30m, 12h or 7d"),
            (&["one"], "invalid digit"),
        ] {
            let args = [&["email", task], rest].concat();
            let output = command(&database).args(&args).output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{args:?} {stderr}");
            assert!(stderr.contains(why), "{args:?} {stderr}");
        }
    }
    assert!(!database.file().exists());
}

#[test]
fn space_of_deleted_emails_is_given_back() {
    let app = App::start(Backend::Sqlite, |_| {});
    let (_, program) = sender(&app);
    let mut long = to(&["bob@example.org"]);
    long["text"] = json!("x".repeat(100_000));
    for _ in 0..100 {
        accept(&program, &long);
    }
    app.database
        .execute("UPDATE emails SET status = 'failed', ended_at = created_at");
    age_all(&app.database);
    let bytes = || {
        // Of the file alone, without what stands in its WAL.
        app.database.execute("PRAGMA wal_checkpoint(TRUNCATE)");
        app.database.file().metadata().unwrap().len()
    };
    assert!(bytes() > 10_000_000);
    let _node = App::on(app.database.again(), |settings| {
        settings.email_days = "10".into()
    });
    until("the file is small", || bytes() < 3_000_000);
    assert_eq!(count(&app.database, "TRUE"), 0);
    let db = app.database.open();
    until("only a reserve stays free", || {
        db.read_blocking(space::count_spare).unwrap() == 0
    });
}
