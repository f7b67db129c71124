//! A key may send from some addresses only, and to some: whatever else it is asked to send is
//! refused and not stored.

use serde_json::{Value, json};

use crate::support::*;

/// A program with a key that has a rule; its account has a domain that can be sent from.
fn with_rule(app: &App, senders: &str, recipients: &str) -> Program {
    let owner = app.owner();
    attest(&app.database, "acme.test");
    app.program(&key_with(&owner, senders, recipients))
}

fn key_with(owner: &Visitor, senders: &str, recipients: &str) -> String {
    let nonce = owner.nonce();
    let mut form = vec![("nonce", nonce.as_str()), ("name", "Bound")];
    form.extend([("senders", senders), ("recipients", recipients)]);
    form.extend(scope(""));
    owner.post("/api-keys", &form).key()
}

fn mailboxes(emails: &[&str]) -> Value {
    emails.iter().map(|email| json!({"email": email})).collect()
}

/// An email from the allowed sender.
fn to(field: &str, emails: &[&str]) -> Value {
    let mut email = email("hello@acme.test");
    email[field] = mailboxes(emails);
    email
}

fn stored(app: &App) -> i64 {
    app.database.number("SELECT count(*) FROM emails")
}

#[track_caller]
fn assert_refused(answer: &Answer, field: &str, code: &str) {
    assert_eq!(answer.status, 422, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["error_type"], "validation_error");
    let fields: Vec<&String> = body["errors"].as_object().unwrap().keys().collect();
    assert_eq!(fields, [field], "{body}");
    assert!(body["errors"][field][code].is_string(), "{body}");
}

both! {
    fn a_key_sends_from_the_addresses_that_it_may(app: App) {
        let owner = app.owner();
        attest(&app.database, "acme.test");
        attest(&app.database, "bücher.test");
        let program = app.program(&key_with(&owner, "hello@acme.test, billing@bücher.test", ""));
        let allowed = [
            "hello@acme.test",
            "Hello@ACME.test",
            "HELLO@acme.test",
            "billing@bücher.test",
            "billing@xn--bcher-kva.test",
            "billing@XN--BCHER-KVA.test",
        ];
        for from in allowed {
            let answer = program.email_from(from);
            assert_eq!(answer.status, 200, "{from}: {answer:?}");
        }
        let mut named = email("hello@acme.test");
        named["from"]["name"] = json!("eve@acme.test");
        assert_eq!(program.post(&named).status, 200);
        assert_eq!(stored(&app), allowed.len() as i64 + 1);
    }

    fn a_key_sends_from_no_other_address(app: App) {
        let program = with_rule(&app, "hello@acme.test", "");
        attest(&app.database, "mail.acme.test");
        for from in [
            "eve@acme.test",
            "ello@acme.test",
            "hello2@acme.test",
            "hello+tag@acme.test",
            "hello@mail.acme.test",
            "acme.test@acme.test",
        ] {
            let mut message = email(from);
            message["from"]["name"] = json!("hello@acme.test");
            message["reply_to"] = json!({"email": "hello@acme.test"});
            let answer = program.post(&message);
            assert_refused(&answer, "from", "address_not_allowed");
            let sentence = "The from email address is not allowed for this API key.";
            assert_eq!(answer.json()["message"], sentence, "{from}");
        }
        assert_eq!(stored(&app), 0);
    }

    fn the_domain_is_asked_about_first(app: App) {
        let program = with_rule(&app, "hello@acme.test", "");
        assert_refused(&program.email_from("eve@evil.test"), "from", "domain_not_found");
    }

    fn a_pattern_is_refused_with_what_to_say_instead(app: App) {
        let owner = app.owner();
        for (field, told) in [("recipients", "say @x.test."), ("senders", "list the addresses")] {
            let nonce = owner.nonce();
            let mut form = vec![("nonce", nonce.as_str()), ("name", "Bound"), (field, "*@x.test")];
            form.extend(scope(""));
            let page = owner.post("/api-keys", &form);
            assert_eq!(page.status, 422, "{page:?}");
            assert!(page.body.contains(told) && page.find_key().is_none(), "{}", page.body);
        }
    }

    fn a_key_sends_to_the_addresses_and_domains_that_it_may(app: App) {
        let program = with_rule(&app, "", "bob@example.org @partner.test bücher.test");
        for emails in [
            &["bob@example.org"][..],
            &["BOB@Example.ORG", "anyone@partner.test", "Any.One+x@PARTNER.test"],
            &["x@bücher.test", "x@xn--bcher-kva.test"],
        ] {
            for field in ["to", "cc", "bcc"] {
                let answer = program.post(&to(field, emails));
                assert_eq!(answer.status, 200, "{field} {emails:?}: {answer:?}");
            }
        }
        assert_eq!(stored(&app), 9);
    }

    fn one_recipient_that_is_not_allowed_is_one_too_many(app: App) {
        let program = with_rule(&app, "", "bob@example.org @partner.test");
        for other in [
            "eve@example.org",
            "bob+tag@example.org",
            "bob@sub.example.org",
            "any@sub.partner.test",
            "partner.test@evil.test",
            "any@evilpartner.test",
        ] {
            for field in ["to", "cc", "bcc"] {
                let answer = program.post(&to(field, &["bob@example.org", other, "x@partner.test"]));
                assert_refused(&answer, field, "recipient_not_allowed");
                let body = answer.json();
                assert_eq!(body["message"], "A recipient is not allowed for this API key.");
                let sentence = format!("The recipient {other} is not allowed for this API key.");
                assert_eq!(body["errors"][field]["recipient_not_allowed"], sentence);
            }
        }
        let mut named = to("to", &["eve@example.org"]);
        named["to"][0]["name"] = json!("bob@example.org");
        assert_refused(&program.post(&named), "to", "recipient_not_allowed");
        assert_eq!(stored(&app), 0);
    }

    fn a_recipient_that_a_relay_may_read_otherwise_is_not_allowed(app: App) {
        let program = with_rule(&app, "", "bob@example.org acme.test");
        for other in [
            "customer%gmail.com@acme.test",
            "gmail.com!customer@acme.test",
            "\"customer@gmail.com\"@acme.test",
            "\"bob\"@acme.test",
            "/tmp/customer@acme.test",
            "|customer@acme.test",
            "-customer@acme.test",
            "bob%example.org@example.org",
        ] {
            for field in ["to", "cc", "bcc"] {
                let answer = program.post(&to(field, &["bob@acme.test", other]));
                assert_refused(&answer, field, "recipient_not_allowed");
                let sentence = answer.json()["errors"][field]["recipient_not_allowed"].clone();
                let sentence = sentence.as_str().unwrap().to_owned();
                assert!(sentence.contains("Before the @"), "{sentence}");
            }
        }
        for never in ["@acme.test:eve@gmail.com", "eve@gmail.com@acme.test", "eve@[127.0.0.1]"] {
            assert_eq!(program.post(&to("to", &[never])).status, 422, "{never}");
        }
        assert_eq!(stored(&app), 0);
        let plain = ["o'brien+x@acme.test", "a_b-c=d~e.f@ACME.test", "bob@example.org"];
        assert_eq!(program.post(&to("to", &plain)).status, 200);
    }

    fn all_fields_with_such_a_recipient_are_told(app: App) {
        let program = with_rule(&app, "", "bob@example.org");
        let mut message = to("cc", &["eve@example.org"]);
        message["bcc"] = mailboxes(&["mallory@example.org"]);
        let errors = &program.post(&message).json()["errors"];
        assert!(errors["cc"]["recipient_not_allowed"].is_string(), "{errors}");
        assert!(errors["bcc"]["recipient_not_allowed"].is_string(), "{errors}");
        assert_eq!(errors.as_object().unwrap().len(), 2);
        assert_eq!(stored(&app), 0);
    }

    fn a_rule_may_have_a_hundred_addresses(app: App) {
        let hundred = |domain| {
            let line = |n| format!("a{n}@{domain}\n");
            (0..100).map(line).collect::<String>()
        };
        let program = with_rule(&app, &hundred("acme.test"), &hundred("example.org"));
        let send = |from: &str, to: &str| {
            let mut message = email(from);
            message["to"] = mailboxes(&[to]);
            program.post(&message)
        };
        assert_eq!(send("a0@acme.test", "a99@example.org").status, 200);
        assert_eq!(send("a99@acme.test", "a0@example.org").status, 200);
        let answer = send("a100@acme.test", "a0@example.org");
        assert_refused(&answer, "from", "address_not_allowed");
        let answer = send("a0@acme.test", "a100@example.org");
        assert_refused(&answer, "to", "recipient_not_allowed");
        assert_eq!(stored(&app), 2);
    }

    fn a_rule_holds_for_its_key_alone(app: App) {
        let owner = app.owner();
        attest(&app.database, "acme.test");
        let bound = app.program(&key_with(&owner, "hello@acme.test", "bob@example.org"));
        let free = app.program(&key_with(&owner, "", ""));
        let mut message = email("eve@acme.test");
        message["to"] = mailboxes(&["anyone@anywhere.test"]);
        assert_eq!(bound.post(&message).status, 422);
        assert_eq!(free.post(&message).status, 200);
        // Whether it works, and who it is, is not the rule's matter.
        assert_eq!(bound.verify().status, 200);
        assert_eq!(bound.info().status, 200);
    }
}
