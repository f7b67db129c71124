//! What was accepted is delivered through a relay, whatever happens to it, to the nodes or on the way.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::dns::{self, check_until, dkim_name};
use crate::support::*;

pub const LONG_AGO: &str = "2020-01-01 00:00:00";

/// A program of the first account, which may send from acme.test.
pub fn sender(app: &App) -> (Visitor, Program) {
    let owner = app.owner();
    attest(&app.database, "acme.test");
    let (_, key) = owner.create_key("Shop", "");
    (owner, app.program(&key))
}

pub fn accept(program: &Program, email: &Value) {
    let answer = program.post(email);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

pub fn to(recipients: &[&str]) -> Value {
    let mut email = email("ada@acme.test");
    let mailbox = |email: &&str| json!({ "email": email });
    email["to"] = recipients.iter().map(mailbox).collect();
    email
}

/// A node on the same database that delivers.
pub fn delivering(app: &App, relay: &Relay) -> App {
    let url = relay.url();
    App::on(app.database.again(), |settings| {
        settings.smtp_url = Some(url)
    })
}

pub fn count(database: &Database, condition: &str) -> i64 {
    database.number(&format!("SELECT count(*) FROM emails WHERE {condition}"))
}

/// Waits until the only email, or all of them, are so.
pub fn until_all(database: &Database, condition: &str) {
    until_none_is_left(condition, || count(database, &format!("NOT ({condition})")));
}

/// As if the time for the next attempt had come. Those under way are left alone.
pub fn hasten(database: &Database) {
    database.execute(&format!(
        "UPDATE emails SET next_attempt_at = '{LONG_AGO}' WHERE ended_at IS NULL AND claim IS NULL"
    ));
}

/// As if the leases had ended of a node that is gone.
fn end_leases(database: &Database) {
    database.execute(&format!(
        "UPDATE emails SET next_attempt_at = '{LONG_AGO}' WHERE ended_at IS NULL"
    ));
}

/// Publishes the record of the domain, and waits until the server found it. Gives its text.
fn publish_record(app: &App) -> String {
    app.dns().publish(app, "acme.test");
    let is_found = "SELECT count(*) FROM sending_domains WHERE dkim_state = 'found'";
    let id = dns::first(app, "acme.test");
    check_until(app, id, || app.database.number(is_found) == 1);
    app.dns().texts(&dkim_name("acme.test")).concat()
}

fn header<'a>(mail: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = mail["headers"].as_array().unwrap().iter();
    headers
        .filter(|header| header[0].as_str().unwrap().eq_ignore_ascii_case(name))
        .map(|header| header[1].as_str().unwrap())
        .collect()
}

both! {
    fn an_email_arrives_as_it_was_sent_and_signed(app: App) {
        let (_, program) = sender(&app);
        let record = publish_record(&app);
        accept(&program, &json!({
            "from": {"email": "ada@acme.test", "name": "Ada, \"the\" Ünique <x@y.test>"},
            "to": [{"email": "bob@example.org", "name": "Bob"}, {"email": "bo@bücher.example"}],
            "cc": [{"email": "cy@example.org", "name": "Çy"}, {"email": "bob@example.org"}],
            "bcc": [{"email": "hidden@secret.test", "name": "Hidden"}],
            "reply_to": "Help <help@acme.test>",
            "subject": "Grüße & “quotes” 😀 in a subject that is so long that it needs another line",
            "text": ".\r\n..\nIt works: äöü\n".to_owned() + &"x".repeat(2_000),
            "html": "<p>It works: <img src=\"cid:logo\"> äöü</p>",
            "headers": {"X-Order": "№ 7", "List-Unsubscribe": "<https://acme.test/u>"},
            "attachments": [
                {"type": "image/png", "name": "logo.png", "content": "iVBORw0KGgo=", "content_id": "logo"},
                {"type": "text/plain", "name": "Größe.txt", "content": "YQpiDQo="},
            ],
        }));
        let relay = Relay::start();
        let _node = delivering(&app, &relay);
        until_all(&app.database, "status = 'delivered'");

        let got = relay.got();
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].from, "ada@acme.test");
        assert_eq!(got[0].to, [
            "bob@example.org", "bo@xn--bcher-kva.example", "cy@example.org", "hidden@secret.test",
        ]);
        assert!(!got[0].content.to_lowercase().contains("hidden") && got[0].content.is_ascii());

        let mail = read_mail(&got[0].content, "tosend._domainkey.acme.test", &record);
        assert_eq!(mail["defects"], json!([]));
        assert_eq!(mail["signature_holds"], true);
        assert_eq!(mail["altered_signature_holds"], false);
        for (name, value) in [
            ("From", "\"Ada, \\\"the\\\" Ünique <x@y.test>\" <ada@acme.test>"),
            ("To", "Bob <bob@example.org>, bo@xn--bcher-kva.example"),
            ("Cc", "Çy <cy@example.org>, bob@example.org"),
            ("Reply-To", "Help <help@acme.test>"),
            ("Subject", "Grüße & “quotes” 😀 in a subject that is so long that it needs another line"),
            ("X-Order", "№ 7"),
            ("List-Unsubscribe", "<https://acme.test/u>"),
        ] {
            assert_eq!(header(&mail, name), [value]);
        }
        assert!(header(&mail, "Bcc").is_empty());
        let id = app.database.text("SELECT internet_id FROM emails");
        assert_eq!(header(&mail, "Message-ID"), [format!("<{id}@acme.test>")]);
        assert_eq!(mail["structure"], json!([
            "multipart/mixed", "multipart/alternative", "text/plain", "multipart/related",
            "text/html", "image/png", "text/plain",
        ]));
        let parts = &mail["parts"];
        let text = parts[0]["text"].as_str().unwrap().replace("\r\n", "\n");
        assert_eq!(text.trim_end(), ".\n..\nIt works: äöü\n".to_owned() + &"x".repeat(2_000));
        let html = parts[1]["text"].as_str().unwrap();
        assert_eq!(html.trim_end(), "<p>It works: <img src=\"cid:logo\"> äöü</p>");
        assert_eq!(parts[2]["id"], "<logo>");
        assert_eq!(parts[2]["bytes"], json!(b"\x89PNG\r\n\x1a\n"));
        assert_eq!(parts[3]["name"], "Größe.txt");
        assert_eq!(parts[3]["disposition"], "attachment");
        assert_eq!(parts[3]["bytes"], json!(b"a\nb\r\n"));
    }

    fn the_signature_holds_whatever_the_spaces_are(app: App) {
        let (_, program) = sender(&app);
        let record = publish_record(&app);
        let mut spaces = email("ada@acme.test");
        spaces["subject"] = format!("Two  spaces   {}  and an end", "word  ".repeat(30)).into();
        spaces["to"][0]["name"] = "Bob  of  the \\ Shop".into();
        spaces["text"] = "\na  \n\n b\t \n\n\n".into();
        accept(&program, &spaces);
        let relay = Relay::start();
        let _node = delivering(&app, &relay);
        until_all(&app.database, "status = 'delivered'");
        let mail = read_mail(&relay.got()[0].content, "tosend._domainkey.acme.test", &record);
        assert_eq!(mail["structure"], json!(["text/plain"]));
        assert_eq!((&mail["defects"], &mail["signature_holds"]), (&json!([]), &json!(true)));
    }

    fn a_mailbox_that_is_named_twice_gets_one_copy(app: App) {
        let (_, program) = sender(&app);
        let mut twice = to(&["dup@x.test", "dup@X.TEST", "Dup@x.test"]);
        twice["cc"] = json!([{"email": "bo@bücher.test"}, {"email": "dup@x.test"}]);
        twice["bcc"] = json!([{"email": "bo@XN--bcher-kva.TEST"}]);
        accept(&program, &twice);
        let mut relay = Relay::start();
        relay.order(&json!({"rcpt": {"Dup@x.test": "450 4.2.0 Later"}}));
        let _node = delivering(&app, &relay);
        until_all(&app.database, "status = 'deferred'");
        relay.order(&json!({"rcpt": {}}));
        hasten(&app.database);
        until_all(&app.database, "status = 'delivered'");
        let to: Vec<Vec<String>> = relay.got().iter().map(|got| got.to.clone()).collect();
        // Only the relay knows whether the case before the @ matters.
        assert_eq!(to, [vec!["dup@x.test", "bo@xn--bcher-kva.test"], vec!["Dup@x.test"]]);
        assert_eq!(app.database.number("SELECT recipients FROM emails"), 6);
    }

    fn answers_go_to_all_who_are_named(app: App) {
        let (_, program) = sender(&app);
        let relay = Relay::start();
        let _node = delivering(&app, &relay);
        for (reply_to, named) in [
            (json!("ada@acme.test, bob@acme.test"), "ada@acme.test, bob@acme.test"),
            (
                json!("\"Love, Ada\" <ada@acme.test>, Bob (B, <x@y.test>) <bob@acme.test>, nobody"),
                "\"Love, Ada\" <ada@acme.test>, Bob <bob@acme.test>",
            ),
            (
                json!([{"email": "ada@acme.test", "name": "Ada, \"the\" Ü"}, "Team: bob@acme.test;", 7]),
                "\"Ada, \\\"the\\\" Ü\" <ada@acme.test>, bob@acme.test",
            ),
        ] {
            let before = relay.got().len();
            let mut email = email("ada@acme.test");
            email["reply_to"] = reply_to;
            accept(&program, &email);
            until("it is delivered", || relay.got().len() > before);
            let mail = read_mail(&relay.got()[before].content, "", "");
            assert_eq!(mail["defects"], json!([]));
            assert_eq!(header(&mail, "Reply-To"), [named]);
        }
    }

    fn no_header_that_matters_can_be_changed_or_added_on_the_way(app: App) {
        let (_, program) = sender(&app);
        let record = publish_record(&app);
        let mut email = email("ada@acme.test");
        email["reply_to"] = json!("help@acme.test");
        email["headers"] = json!({
            "References": "<1@example.org> <2@example.org>",
            "In-Reply-To": "<2@example.org>",
            "List-Unsubscribe": "<https://acme.test/u>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            "Auto-Submitted": "auto-generated",
            "X-Order": "7",
            // Providers of relays take these out, which must not break the signature.
            "X-SES-CONFIGURATION-SET": "main",
            "X-Mailgun-Tag": "welcome",
        });
        accept(&program, &email);
        let relay = Relay::start();
        let _node = delivering(&app, &relay);
        until_all(&app.database, "status = 'delivered'");
        let mail = read_mail(&relay.got()[0].content, "tosend._domainkey.acme.test", &record);
        assert_eq!(mail["signature_holds"], true);
        let mut alterable: Vec<&str> =
            mail["alterable"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        alterable.sort_unstable();
        assert_eq!(alterable, ["x-mailgun-tag", "x-ses-configuration-set"]);
        assert_eq!(mail["addable"], json!([]));
    }

    fn long_headers_are_folded(app: App) {
        let (_, program) = sender(&app);
        let record = publish_record(&app);
        let id = |n| format!("<{n:02}{}@mail.example.org>", "0123456789".repeat(4));
        let references: Vec<String> = (0..20).map(id).collect();
        let tabs = vec!["word"; 1_000].join("\t");
        let mut email = email("ada@acme.test");
        email["headers"] = json!({
            "References": references.join(" "),
            "X-Tabs": tabs,
            "X-Words": "x".repeat(900) + "  " + &"y".repeat(900),
            "X-Long": "Grüße ".repeat(200).trim_end(),
        });
        accept(&program, &email);
        let relay = Relay::start();
        let _node = delivering(&app, &relay);
        until_all(&app.database, "status = 'delivered'");
        let content = relay.got()[0].content.clone();
        assert!(content.lines().all(|line| line.len() <= 998));
        let is_of_reference = |line: &&str| line.starts_with(" <") && line.len() < 78;
        assert_eq!(content.lines().filter(is_of_reference).count(), 19, "{content}");
        // As it is, and not in encoded words, which have no place in headers that programs read.
        let lines_of_tabs = content.lines().filter(|line| line.starts_with("\tword\tword"));
        assert_eq!(lines_of_tabs.count(), 66, "{content}");
        let mail = read_mail(&content, "tosend._domainkey.acme.test", &record);
        assert_eq!((&mail["defects"], &mail["signature_holds"]), (&json!([]), &json!(true)));
        for (name, value) in email["headers"].as_object().unwrap() {
            assert_eq!(header(&mail, name), [value.as_str().unwrap()]);
        }
    }

    fn an_email_whose_record_is_not_published_is_not_signed(app: App) {
        let (_, program) = sender(&app);
        accept(&program, &email("ada@acme.test"));
        let relay = Relay::start();
        let _node = delivering(&app, &relay);
        until_all(&app.database, "status = 'delivered'");
        assert_eq!(read_mail(&relay.got()[0].content, "", "")["is_signed"], false);
    }

    fn emails_of_a_domain_whose_key_is_lost_wait_for_the_record_of_another(app: App) {
        let (_, program) = sender(&app);
        publish_record(&app);
        let relay = Relay::start();
        let url = relay.url();
        let other = app.database.folder.path().join("other-secret").display().to_string();
        cli(&app.database, &["--secret-file", &other, "adopt-secret"], "").unwrap();
        let node = App::on(app.database.again(), |settings| {
            settings.smtp_url = Some(url);
            settings.secret_file = Some(other);
        });
        let owner = node.visitor();
        owner.sign_in(EMAIL);
        accept(&program, &email("ada@acme.test"));
        until_all(&app.database, "status = 'deferred' AND claim IS NULL");
        let emails = || owner.get("/activity/emails").body;
        assert!(emails().contains("It waits to be signed: the key of its domain cannot be decrypted."));
        let id = dns::first(&app, "acme.test");
        let path = format!("/domains/{id}");
        let lost = "cannot be decrypted";
        for page in ["/domains", &path] {
            assert!(owner.get(page).body.contains(lost), "{page}");
        }

        let before = dns::dkim_text(&app, id);
        let replace = format!("{path}/replace-key");
        assert!(owner.get(&path).body.contains(&format!("action=\"{replace}\"")));
        let mut texts = BTreeSet::from([before]);
        for _ in 0..2 {
            assert_eq!(owner.post(&replace, &[]).location(), Some(&*path));
            texts.insert(dns::dkim_text(&app, id));
        }
        // Pressed twice, it makes one pair.
        assert_eq!(texts.len(), 2);
        let of_another = app.stranger().post(&replace, &[]).status;
        assert_eq!((of_another, app.visitor().post(&replace, &[]).status), (404, 303));
        let page = owner.get(&path).body;
        assert!(!page.contains(lost) && !page.contains(&replace));
        assert!(page.contains("Its emails wait until the DKIM record below is found"));
        assert!(owner.get("/domains").body.contains("emails wait"));
        until("the email is looked at again", || {
            hasten(&app.database);
            count(&app.database, "reply LIKE '%was not found yet%' AND claim IS NULL") == 1
        });
        assert!(relay.got().is_empty());

        let record = publish_record(&app);
        until("the email is delivered", || {
            hasten(&app.database);
            count(&app.database, "status = 'delivered'") == 1
        });
        let got = relay.got();
        assert_eq!(got.len(), 1);
        let mail = read_mail(&got[0].content, "tosend._domainkey.acme.test", &record);
        assert_eq!(mail["signature_holds"], true);
        assert!(!owner.get("/domains").body.contains("emails wait"));
    }

    fn a_lost_key_whose_record_is_gone_too_lets_no_email_go_unsigned(app: App) {
        let (owner, dns) = (app.owner(), app.dns());
        let id: i64 = owner.add_domain("acme.test").parse().unwrap();
        dns.verify(&app, "acme.test");
        let (_, key) = owner.create_key("Shop", "");
        dns.remove(&dkim_name("acme.test"));
        let missing = "SELECT count(*) FROM sending_domains WHERE dkim_state = 'missing'";
        check_until(&app, id, || app.database.number(missing) == 1);
        let relay = Relay::start();
        let url = relay.url();
        let other = app.database.folder.path().join("other-secret").display().to_string();
        let _node = App::on(app.database.again(), |settings| {
            settings.smtp_url = Some(url);
            settings.secret_file = Some(other);
        });
        accept(&app.program(&key), &email("ada@acme.test"));
        until_all(&app.database, "status = 'deferred' AND claim IS NULL");
        assert!(relay.got().is_empty());
    }

    fn without_a_relay_emails_are_held_for_any_time_and_go_out_once_there_is_one(app: App) {
        let (owner, program) = sender(&app);
        accept(&program, &email("ada@acme.test"));
        accept(&program, &email("ada@acme.test"));
        app.database.execute(&format!(
            "UPDATE emails SET created_at = '{LONG_AGO}', next_attempt_at = '{LONG_AGO}'"
        ));
        let keys = owner.get("/api-keys").body;
        assert!(keys.contains("nothing is delivered until the operator configures a mail relay"), "{keys}");
        assert!(keys.contains("2 emails are held."), "{keys}");
        assert!(owner.get("/activity/emails").body.contains("no mail relay is configured"));

        let mut relay = Relay::start();
        // They were not tried before: there is still time for another attempt.
        relay.order(&json!({"data": ["451 4.3.0 Later", "451 4.3.0 Later"]}));
        let node = delivering(&app, &relay);
        until_all(&app.database, "status = 'deferred' AND attempts = 1");
        owner.move_to(&node.url(""));
        let keys = owner.get("/api-keys").body;
        assert!(!keys.contains("nothing is delivered"), "{keys}");
        assert!(keys.contains("2 emails are waiting."), "{keys}");
        hasten(&app.database);
        until_all(&app.database, "status = 'delivered' AND attempts = 2");
        assert!(!owner.get("/api-keys").body.contains("emails are"));
        assert_eq!(relay.got().len(), 2);
    }

    fn what_was_accepted_goes_out_although_its_key_or_account_ended(app: App) {
        let (owner, program) = sender(&app);
        accept(&program, &email("ada@acme.test"));
        let id = owner.get("/api-keys").key_ids()[0];
        assert_eq!(owner.delete_key(id).status, 303);
        cli(&app.database, &["account", "pause", "--account", EMAIL], "").unwrap();
        let relay = Relay::start();
        let _node = delivering(&app, &relay);
        until_all(&app.database, "status = 'delivered'");
        assert_eq!(relay.got().len(), 1);
    }

    fn a_relay_that_is_down_costs_no_attempt(app: App) {
        let (owner, program) = sender(&app);
        let mut relay = Relay::stopped();
        let node = delivering(&app, &relay);
        owner.move_to(&node.url(""));
        for _ in 0..5 {
            accept(&program, &email("ada@acme.test"));
        }
        until("an email is deferred", || count(&app.database, "status = 'deferred'") > 0);
        let page = owner.get("/activity/emails").body;
        assert!(page.contains("The relay cannot be reached."), "{page}");
        assert!(!page.contains("os error"), "{page}");
        relay.run();
        until("all are delivered", || {
            hasten(&app.database);
            count(&app.database, "status <> 'delivered'") == 0
        });
        until_all(&app.database, "attempts = 1");
        assert_eq!(relay.got().len(), 5);
    }

    fn an_email_that_is_put_off_is_tried_again(app: App) {
        let (owner, program) = sender(&app);
        let mut relay = Relay::start();
        relay.order(&json!({
            "mail": ["451 4.7.1 Greylisted"],
            "data": ["452 4.3.1 <b>Full</b>"],
        }));
        let node = delivering(&app, &relay);
        owner.move_to(&node.url(""));
        accept(&program, &email("ada@acme.test"));
        until_all(&app.database, "attempts = 1 AND reply = '451 4.7.1 Greylisted'");
        assert_eq!(count(&app.database, "status = 'deferred' AND claim IS NULL"), 1);
        hasten(&app.database);
        until_all(&app.database, "attempts = 2 AND status = 'deferred'");
        let page = owner.get("/activity/emails?status=deferred").body;
        assert!(page.contains("452 4.3.1 &#60;b&#62;Full&#60;/b&#62;"), "{page}");
        assert!(page.contains("Next attempt <time"), "{page}");
        hasten(&app.database);
        until_all(&app.database, "attempts = 3 AND status = 'delivered'");
        assert_eq!(relay.got().len(), 1);
    }

    fn a_relay_that_refuses_this_server_fails_no_email(app: App) {
        let (owner, program) = sender(&app);
        let stranger = app.stranger();
        let mut relay = Relay::start();
        let node = delivering(&app, &relay);
        let told = |reply: &str| format!("The relay refuses this server: {reply}");
        accept(&program, &email("ada@acme.test"));
        owner.move_to(&node.url(""));
        stranger.move_to(&node.url(""));
        let mut takes = json!({"greeting": [], "hello": [], "mail": [], "rcpt": {}});
        for (place, reply) in [
            ("greeting", "554 5.7.1 Client host rejected: Access denied"),
            ("hello", "504 5.5.2 Helo command rejected: need fully-qualified hostname"),
            ("mail", "550 quota exceeded"),
            ("rcpt", "554 5.7.1 Relay access denied"),
        ] {
            let mut order = takes.clone();
            order[place] = match place {
                "rcpt" => json!({"bob@example.org": reply}),
                _ => json!(vec![reply; 1_000]),
            };
            relay.order(&order);
            until(place, || {
                hasten(&app.database);
                let is_told = format!("status = 'deferred' AND reply = '{}'", told(reply));
                count(&app.database, "status = 'failed'") == 1 || count(&app.database, &is_told) == 1
            });
            assert_eq!(count(&app.database, "status = 'deferred'"), 1, "{place}");
            for path in ["/activity/emails", "/api-keys"] {
                let page = owner.get(path).body;
                assert!(page.contains(&told(reply)), "{place}: {page}");
                assert!(!stranger.get(path).body.contains("The relay refuses"), "{place}");
            }
        }
        relay.order(&takes);
        until("it is delivered", || {
            hasten(&app.database);
            count(&app.database, "status = 'delivered'") == 1
        });
        assert_eq!(relay.got().len(), 1);
        assert!(!owner.get("/api-keys").body.contains("The relay refuses"));

        takes["rcpt"] = json!({"bob@example.org": "550 5.1.1 No such user"});
        relay.order(&takes);
        accept(&program, &email("ada@acme.test"));
        until("a refusal of the recipient is final", || count(&app.database, "status = 'failed'") == 1);
    }

    fn the_relay_is_greeted_by_a_whole_name(app: App) {
        let (_, program) = sender(&app);
        let relay = Relay::start();
        let node = delivering(&app, &relay);
        accept(&program, &email("ada@acme.test"));
        until_all(&app.database, "status = 'delivered'");
        let hellos = relay.hellos();
        assert!(hellos.iter().all(|name| name.starts_with('[') || name.contains('.')), "{hellos:?}");
        drop(node);
        let url = relay.url();
        let _node = App::on(app.database.again(), |settings| {
            settings.smtp_url = Some(url);
            settings.smtp_helo = Some("mail.acme.test".into());
        });
        accept(&program, &email("ada@acme.test"));
        until_all(&app.database, "status = 'delivered'");
        assert!(relay.hellos().contains(&"mail.acme.test".to_owned()));
    }

    fn a_delay_is_kept(app: App) {
        let (_, program) = sender(&app);
        let mut relay = Relay::start();
        relay.order(&json!({"data": ["451 Later"]}));
        let _node = delivering(&app, &relay);
        accept(&program, &email("ada@acme.test"));
        until_all(&app.database, "attempts = 1");
        // Another goes out meanwhile.
        accept(&program, &email("ada@acme.test"));
        until("the other is delivered", || count(&app.database, "status = 'delivered'") == 1);
        assert_eq!(count(&app.database, "status = 'deferred' AND attempts = 1"), 1);
    }

    fn an_email_that_is_refused_has_failed_with_the_relays_words(app: App) {
        let (owner, program) = sender(&app);
        let mut relay = Relay::start();
        relay.order(&json!({"data": ["554 5.7.1 No \u{1b}[31mspam\u{7} here"]}));
        let _node = delivering(&app, &relay);
        accept(&program, &email("ada@acme.test"));
        until_all(&app.database, "status = 'failed' AND ended_at IS NOT NULL");
        let page = owner.get("/activity/emails?status=failed").body;
        assert!(page.contains("554 5.7.1 No [31mspam here"), "{page}");
        // The connection is as good as before.
        accept(&program, &email("ada@acme.test"));
        until("the next is delivered", || count(&app.database, "status = 'delivered'") == 1);
        assert_eq!(relay.got().len(), 1);
    }

    fn a_reply_is_understood_whatever_its_bytes_are(app: App) {
        let (owner, program) = sender(&app);
        let mut relay = Relay::start();
        relay.order(&json!({"rcpt": {"nobody@example.org": "550 5.1.1 Empf\u{e4}nger unbekannt"}}));
        let _node = delivering(&app, &relay);
        accept(&program, &to(&["nobody@example.org", "bob@example.org"]));
        until_all(&app.database, "status = 'delivered' AND attempts = 1");
        let page = owner.get("/activity/emails").body;
        assert!(page.contains("550 5.1.1 Empf\u{e4}nger unbekannt"), "{page}");
        for reply in ["250 f\u{fc}r Sie", "250", "250 ok\n", "250-a\nb\n250\t\n"] {
            relay.order(&json!({"data": [reply]}));
            accept(&program, &email("ada@acme.test"));
            until_all(&app.database, "status <> 'held'");
            assert_eq!(count(&app.database, "status <> 'delivered' OR attempts <> 1"), 0, "{reply}");
        }
        assert!(app.database.text("SELECT max(reply) FROM emails WHERE id = 2").contains("f\u{fc}r"));
    }

    fn a_delivery_that_hangs_leaves_a_relay_in_doubt_to_others(app: App) {
        let (_, program) = sender(&app);
        let mut relay = Relay::start();
        relay.order(&json!({"slow": {"slow@example.org": 100_000}}));
        let _node = delivering(&app, &relay);
        accept(&program, &to(&["slow@example.org"]));
        until("it is under way", || relay.contents() == 1);
        relay.order(&json!({"mail": ["cut"]}));
        accept(&program, &email("ada@acme.test"));
        until("the other is delivered", || {
            hasten(&app.database);
            count(&app.database, "status = 'delivered'") == 1
        });
        assert_eq!(count(&app.database, "claim IS NOT NULL"), 1);
    }

    fn each_recipient_has_a_fate_of_its_own(app: App) {
        let (owner, program) = sender(&app);
        let mut relay = Relay::start();
        relay.order(&json!({"rcpt": {
            "nobody@example.org": "550 5.1.1 No such user",
            "later@example.org": "450 4.2.1 Busy",
        }}));
        let _node = delivering(&app, &relay);
        accept(&program, &to(&["nobody@example.org", "bob@example.org", "later@example.org"]));
        until_all(&app.database, "status = 'deferred' AND attempts = 1");
        assert_eq!(relay.got()[0].to, ["bob@example.org"]);
        assert_eq!(app.database.text("SELECT remaining FROM emails"), "[\"later@example.org\"]");

        relay.order(&json!({"rcpt": {}}));
        hasten(&app.database);
        until_all(&app.database, "status = 'delivered'");
        let got = relay.got();
        assert_eq!(got.len(), 2);
        assert_eq!(got[1].to, ["later@example.org"]);
        assert_eq!(got[0].header("Message-ID"), got[1].header("Message-ID"));
        let page = owner.get("/activity/emails").body;
        let told = "Not delivered to <bdi>nobody@example.org</bdi>: <bdi>550 5.1.1 No such user</bdi>";
        assert!(page.contains(told), "{page}");

        relay.order(&json!({"rcpt": {"nobody@example.org": "550 5.1.1 No such user"}}));
        accept(&program, &to(&["nobody@example.org"]));
        until("nobody gets the other", || count(&app.database, "status = 'failed'") == 1);
        assert_eq!(relay.got().len(), 2);
    }

    fn an_address_that_the_relay_cannot_take_fails(app: App) {
        let (_, program) = sender(&app);
        let relay = Relay::start();
        accept(&program, &to(&["bob@example.org"]));
        // As it may have been accepted before such addresses were refused.
        app.database.execute(
            "UPDATE emails SET message = replace(message, 'bob@example.org', 'jürgen@example.org')"
        );
        let _node = delivering(&app, &relay);
        until_all(&app.database, "status = 'failed'");
        assert!(app.database.text("SELECT reply FROM emails").contains("RFC 6531"));
    }

    fn a_connection_that_breaks_over_a_message_loses_nothing(app: App) {
        let (_, program) = sender(&app);
        let mut relay = Relay::start();
        relay.order(&json!({"cut": ["before", "after"]}));
        let _node = delivering(&app, &relay);
        accept(&program, &email("ada@acme.test"));
        until_all(&app.database, "attempts = 1 AND status = 'deferred'");
        assert_eq!(relay.got().len(), 0);
        hasten(&app.database);
        // It has it now, but did not say so.
        until_all(&app.database, "attempts = 2 AND status = 'deferred'");
        assert_eq!(relay.got().len(), 1);
        hasten(&app.database);
        until_all(&app.database, "attempts = 3 AND status = 'delivered'");
        let got = relay.got();
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].header("Message-ID"), got[1].header("Message-ID"));
        assert_eq!(got[0].header("Date"), got[1].header("Date"));
    }

    fn after_two_days_of_attempts_an_email_has_failed_with_the_reason(app: App) {
        let (_, program) = sender(&app);
        let mut relay = Relay::start();
        relay.order(&json!({"data": ["451 4.3.0 Later", "451 4.3.0 Later still"]}));
        let _node = delivering(&app, &relay);
        accept(&program, &email("ada@acme.test"));
        until_all(&app.database, "attempts = 1 AND status = 'deferred'");
        app.database.execute(&format!("UPDATE emails SET first_attempt_at = '{LONG_AGO}'"));
        hasten(&app.database);
        until_all(&app.database, "status = 'failed'");
        assert_eq!(app.database.text("SELECT reply FROM emails"), "451 4.3.0 Later still");
    }

    fn a_relay_with_a_certificate_that_nobody_knows_gets_nothing(app: App) {
        let (_, program) = sender(&app);
        let relay = Relay::with_tls();
        let login = app.database.folder.path().join("login");
        std::fs::write(&login, "ada\nfour grey lamps").unwrap();
        let _node = App::on(app.database.again(), |settings| {
            settings.smtp_url = Some(relay.url());
            settings.smtp_credentials_file = Some(login.display().to_string());
        });
        accept(&program, &email("ada@acme.test"));
        until_all(&app.database, "status = 'deferred' AND attempts = 0");
        assert_eq!(relay.logins(), Vec::<Value>::new());
        assert_eq!(relay.got().len(), 0);
    }

    fn a_relay_without_the_tls_that_is_asked_for_gets_nothing(app: App) {
        let (_, program) = sender(&app);
        let relay = Relay::start();
        let _node = App::on(app.database.again(), |settings| {
            settings.smtp_url = Some(format!("{}?tls=required", relay.url()));
        });
        accept(&program, &email("ada@acme.test"));
        until_all(&app.database, "status = 'deferred' AND attempts = 0");
        assert_eq!(relay.got().len(), 0);
    }

    fn contents_go_some_time_after_the_end(app: App) {
        let (owner, program) = sender(&app);
        for _ in 0..3 {
            accept(&program, &email("ada@acme.test"));
        }
        app.database.execute(&format!(
            "UPDATE emails SET status = 'delivered', reply = '250 OK', ended_at = '{LONG_AGO}'
             WHERE id = 1;
             UPDATE emails SET status = 'failed', reply = '550 No', ended_at = '2999-01-01 00:00:00'
             WHERE id = 2;
             UPDATE emails SET created_at = '{LONG_AGO}' WHERE id = 3"
        ));
        // The upkeep looks at its start.
        let _node = App::on(app.database.again(), |settings| settings.retention_days = "1".into());
        until("the content is gone", || count(&app.database, "message IS NULL") > 0);
        assert_eq!(count(&app.database, "id = 1 AND message IS NULL AND reply = '250 OK'"), 1);
        assert_eq!(count(&app.database, "message LIKE '%It works.%'"), 2);
        // What the page shows stays.
        let page = owner.get("/activity/emails?status=delivered").body;
        assert!(page.contains("<bdi>bob@example.org</bdi>"), "{page}");
    }

    fn emails_are_shown_to_their_account_alone(app: App) {
        let (owner, program) = sender(&app);
        accept(&program, &to(&["first@example.org", "second@example.org"]));
        app.database.execute(
            "UPDATE emails SET status = 'failed', ended_at = created_at, reply = '550 <i>\"No'"
        );
        for n in 0..51 {
            accept(&program, &to(&[&format!("n{n}@example.org")]));
        }
        let page = owner.get("/activity/emails").body;
        assert_eq!(page.matches("<th scope=\"row\">").count(), 50);
        assert!(page.contains("n50@example.org") && !page.contains("n0@example.org"));
        assert!(page.contains(">Held</span>") && page.contains("<bdi>Shop</bdi>"));
        let (_, older) = page.split_once("rel=\"next\" href=\"").unwrap();
        let older = owner.get(older.split('"').next().unwrap()).body;
        assert_eq!(older.matches("<th scope=\"row\">").count(), 2);
        assert!(older.contains("<bdi>first@example.org</bdi> and 1 more"), "{older}");
        assert!(older.contains("550 &#60;i&#62;&#34;No"), "{older}");
        assert!(older.contains("<bdi>ada@acme.test</bdi>") && !older.contains("Hello"), "{older}");

        let failed = owner.get("/activity/emails?status=failed").body;
        assert_eq!(failed.matches("<th scope=\"row\">").count(), 1);
        let delivered = owner.get("/activity/emails?status=delivered").body;
        assert!(delivered.contains("Nothing matches."));
        assert!(owner.get("/activity").body.contains("href=\"/activity/emails\""));

        let stranger = app.stranger();
        for path in ["", "?status=failed", "?before=2", "?before=50&status=held", "?before=x"] {
            let page = stranger.get(&format!("/activity/emails{path}")).body;
            assert!(!page.contains("example.org") && !page.contains("<th scope=\"row\">"), "{page}");
        }
        assert!(!stranger.get("/api-keys").body.contains("emails are held"));
        assert_eq!(app.visitor().get("/activity/emails").status, 303);
    }
}

/// A server that delivers, as a process, and someone who sends through it.
fn deliver_by_a_process(backend: Backend, relay: &Relay) -> (Database, Dashboard, Program) {
    let database = Database::new(backend);
    let dashboard = Dashboard::start(&database, &["--smtp-url", &relay.url()]);
    let owner = dashboard.visitor();
    owner.sign_up();
    attest(&database, "acme.test");
    let (_, key) = owner.create_key("Shop", "");
    let program = dashboard.program(&key);
    (database, dashboard, program)
}

fn message_ids(got: &[Got]) -> BTreeSet<String> {
    got.iter()
        .map(|got| got.header("Message-ID").to_owned())
        .collect()
}

/// How many emails a node has under way at most.
const UNDER_WAY: usize = 4;

fn a_node_that_is_killed_loses_no_email(backend: Backend) {
    let mut relay = Relay::start();
    relay.order(&json!({"delay": 0.05}));
    let (database, mut dashboard, program) = deliver_by_a_process(backend, &relay);
    let emails = 30;
    for _ in 0..emails {
        accept(&program, &email("ada@acme.test"));
    }
    let kills = 3;
    for kill in 1..=kills {
        until("some are delivered", || relay.got().len() >= kill * 6);
        dashboard.kill();
        end_leases(&database);
        dashboard = Dashboard::start(&database, &["--smtp-url", &relay.url()]);
    }
    until_all(&database, "status = 'delivered' AND claim IS NULL");
    let got = relay.got();
    assert_eq!(message_ids(&got).len(), emails);
    assert!(got.len() <= emails + kills * UNDER_WAY, "{}", got.len());
}

#[test]
fn a_node_that_is_killed_loses_no_email_on_sqlite() {
    a_node_that_is_killed_loses_no_email(Backend::Sqlite);
}

#[test]
fn a_node_that_is_killed_loses_no_email_on_postgres() {
    a_node_that_is_killed_loses_no_email(Backend::Postgres);
}

#[test]
fn two_nodes_deliver_each_email_once_on_postgres() {
    let relay = Relay::start();
    let app = App::start(Backend::Postgres, |_| {});
    let (_, program) = sender(&app);
    let emails = 60;
    for _ in 0..emails {
        accept(&program, &email("ada@acme.test"));
    }
    let nodes = [delivering(&app, &relay), delivering(&app, &relay)];
    until_all(&app.database, "status = 'delivered'");
    drop(nodes);
    let got = relay.got();
    assert_eq!((got.len(), message_ids(&got).len()), (emails, emails));
}

#[test]
fn a_node_that_is_told_to_stop_ends_what_is_under_way_and_keeps_no_claim() {
    let mut relay = Relay::start();
    relay.order(&json!({"delay": 1}));
    let (database, mut dashboard, program) = deliver_by_a_process(Backend::Sqlite, &relay);
    // More than are delivered until it is told to stop, however long that takes.
    let emails = 100;
    for _ in 0..emails {
        accept(&program, &email("ada@acme.test"));
    }
    until("some are under way", || {
        count(&database, "claim IS NOT NULL") > 0
    });
    assert!(dashboard.terminate());
    assert_eq!(count(&database, "claim IS NOT NULL"), 0);
    // What the relay got is known to be delivered, and nothing else is.
    let delivered = count(&database, "status = 'delivered'") as usize;
    assert_eq!(relay.got().len(), delivered);
    assert!(delivered < emails, "it went on");
    assert_eq!(
        count(&database, "status = 'held' AND attempts = 0") as usize,
        emails - delivered
    );

    relay.order(&json!({"delay": 0}));
    let _again = Dashboard::start(&database, &["--smtp-url", &relay.url()]);
    until_all(&database, "status = 'delivered'");
    assert_eq!(
        (relay.got().len(), message_ids(&relay.got()).len()),
        (emails, emails)
    );
}

#[test]
fn a_node_that_ends_over_a_slow_relay_gives_its_emails_back() {
    let mut relay = Relay::start();
    let hours = 3_600;
    relay.order(&json!({"delay": hours}));
    let (database, mut dashboard, program) = deliver_by_a_process(Backend::Sqlite, &relay);
    for _ in 0..UNDER_WAY {
        accept(&program, &email("ada@acme.test"));
    }
    until_all(&database, "claim IS NOT NULL");
    assert!(dashboard.terminate());

    relay.order(&json!({"delay": 0}));
    let _again = Dashboard::start(&database, &["--smtp-url", &relay.url()]);
    // No lease has to end first.
    until_all(&database, "status = 'delivered'");
    assert_eq!(message_ids(&relay.got()).len(), UNDER_WAY);
}

#[test]
fn a_login_is_sent_over_tls_alone_and_a_wrong_one_fails_no_email() {
    let mut relay = Relay::with_tls();
    relay.order(&json!({"password": "four grey lamps"}));
    let database = Database::new(Backend::Sqlite);
    let login = database.folder.path().join("login");
    let (login, certificate) = (login.display().to_string(), relay.certificate());
    let start = |password: &str| {
        std::fs::write(&login, format!("ada\n{password}\n")).unwrap();
        let url = relay.url();
        let args = [
            "--smtp-url",
            &url,
            "--smtp-credentials-file",
            &login,
            "--log",
            "trace",
        ];
        let known = [("SSL_CERT_FILE", certificate.to_str().unwrap())];
        Dashboard::start_with(&database, &args, &known)
    };
    let mut dashboard = start("five wrong grey lamps");
    let owner = dashboard.visitor();
    owner.sign_up();
    attest(&database, "acme.test");
    let (_, key) = owner.create_key("Shop", "");
    accept(&dashboard.program(&key), &email("ada@acme.test"));
    until_all(&database, "status = 'deferred'");
    let page = owner.get("/activity/emails").body;
    assert!(
        page.contains("The relay does not let this server in."),
        "{page}"
    );
    // However long it takes.
    database.execute(&format!(
        "UPDATE emails SET first_attempt_at = '{LONG_AGO}'"
    ));
    hasten(&database);
    until_all(
        &database,
        "status = 'deferred' AND claim IS NULL AND next_attempt_at > '2021'",
    );
    assert!(dashboard.terminate());
    assert_eq!(relay.got().len(), 0);

    let dashboard = start("four grey lamps");
    hasten(&database);
    until_all(&database, "status = 'delivered'");
    assert!(relay.got()[0].is_encrypted);
    let logins = relay.logins();
    assert!(logins.len() >= 2);
    for login in logins {
        assert_eq!(login, json!({"user": "ada", "is_encrypted": true}));
    }
    let log = std::fs::read_to_string(&dashboard.log).unwrap();
    assert!(
        log.contains("the relay does not let this server in: check the user"),
        "{log}"
    );
    for secret in ["grey lamps", "It works.", "bob@example.org"] {
        assert!(!log.contains(secret), "{secret}");
    }
}
