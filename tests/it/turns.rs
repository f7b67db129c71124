//! Accounts take turns at the relay: no account waits for all the emails of another one.

use serde_json::json;

use crate::delivery::{LONG_AGO, accept, count, delivering, sender, to};
use crate::support::*;

/// How many emails a node may have under way when another one is accepted, and some.
const FEW: usize = 12;
/// More than are delivered before a test ends, however long that takes.
const MANY: usize = 10_000;

/// A program of another account, which may send from other.test.
fn other_sender(app: &App) -> Program {
    let other = app.stranger();
    let args = [
        "domain",
        "add",
        "--account",
        "eve@evil.test",
        "other.test",
        "--verified",
    ];
    cli(&app.database, &args, "").unwrap();
    let (_, key) = other.create_key("Other", "");
    app.program(&key)
}

/// Accepts an email from this address.
fn accept_from(program: &Program, from: &str) {
    accept(program, &email(from));
}

/// As if the only email had been accepted so many times, a long time ago.
fn multiply(database: &Database) {
    database.execute(&format!(
        "UPDATE emails SET created_at = '{LONG_AGO}', next_attempt_at = '{LONG_AGO}';
         WITH RECURSIVE numbers (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < {MANY})
         INSERT INTO emails (account_id, api_key_id, domain_id, message_id, message, status,
             created_at, internet_id, next_attempt_at, sender, recipient, recipients)
         SELECT account_id, api_key_id, domain_id, message_id, message, status,
             created_at, internet_id || n, next_attempt_at, sender, recipient, recipients
         FROM emails, numbers"
    ));
    assert_eq!(count(database, "true"), MANY as i64);
}

/// Waits for an email from an address. Gives its place among those that the relay got.
fn place_of(relay: &Relay, from: &str) -> usize {
    let mut place = None;
    until(from, || {
        place = relay.got().iter().position(|got| got.from == from);
        place.is_some()
    });
    place.unwrap()
}

both! {
    fn the_one_email_of_another_account_is_among_the_next(app: App) {
        let (_, program) = sender(&app);
        let other = other_sender(&app);
        accept_from(&program, "ada@acme.test");
        multiply(&app.database);
        accept_from(&other, "eve@other.test");
        let mut relay = Relay::start();
        relay.order(&json!({"delay": 0.02}));
        let node = delivering(&app, &relay);
        assert!(place_of(&relay, "eve@other.test") < FEW);

        // Also what comes while the others are under way.
        accept_from(&other, "second@other.test");
        let before = relay.got().len();
        assert!(place_of(&relay, "second@other.test") < before + FEW);

        // Also on another node.
        drop(node);
        accept_from(&other, "third@other.test");
        let before = relay.got().len();
        let _nodes = [delivering(&app, &relay), delivering(&app, &relay)];
        assert!(place_of(&relay, "third@other.test") < before + 2 * FEW);
        assert!(count(&app.database, "status = 'held'") > 0, "all were sent");
    }

    fn retries_delay_neither_other_accounts_nor_new_emails_of_their_own(app: App) {
        let (_, program) = sender(&app);
        let other = other_sender(&app);
        accept_from(&program, "ada@acme.test");
        multiply(&app.database);
        app.database.execute("UPDATE emails SET status = 'deferred', attempts = 1");
        accept_from(&program, "new@acme.test");
        accept_from(&other, "eve@other.test");
        let mut relay = Relay::start();
        relay.order(&json!({"delay": 0.02}));
        let _node = delivering(&app, &relay);
        assert!(place_of(&relay, "eve@other.test") < FEW);
        assert!(place_of(&relay, "new@acme.test") < FEW);
        assert!(count(&app.database, "status = 'deferred'") > 0, "all were sent");
    }

    fn new_emails_of_an_account_do_not_delay_its_retries(app: App) {
        let (_, program) = sender(&app);
        accept_from(&program, "ada@acme.test");
        multiply(&app.database);
        accept_from(&program, "retry@acme.test");
        app.database.execute(
            "UPDATE emails SET status = 'deferred', attempts = 1 WHERE sender = 'retry@acme.test'"
        );
        let mut relay = Relay::start();
        relay.order(&json!({"delay": 0.02}));
        let _node = delivering(&app, &relay);
        assert!(place_of(&relay, "retry@acme.test") < FEW);
    }

    fn emails_that_hang_leave_room_for_those_of_other_accounts(app: App) {
        let (_, program) = sender(&app);
        let other = other_sender(&app);
        let mut relay = Relay::start();
        let hours = 3_600;
        relay.order(&json!({"slow": {"slow@example.org": hours}}));
        for _ in 0..20 {
            accept(&program, &to(&["slow@example.org"]));
        }
        let _node = delivering(&app, &relay);
        until("some hang", || count(&app.database, "claim IS NOT NULL") >= 4);
        for n in 0..4 {
            let from = format!("n{n}@other.test");
            accept_from(&other, &from);
            place_of(&relay, &from);
        }
        assert_eq!(count(&app.database, "claim IS NOT NULL AND sender = 'ada@acme.test'"), 4);
    }
}
