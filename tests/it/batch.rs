//! `POST /v2/emails/batch`: a result for each email, in their order.

use serde_json::{Value, json};

use crate::api::told;
use crate::support::*;

const FROM: &str = "hello@acme.test";
const PATH: &str = "/v2/emails/batch";

/// The owner, and a program whose key sends from the verified acme.test.
fn ready(app: &App) -> (Visitor, Program) {
    let owner = app.owner();
    attest(&app.database, "acme.test");
    let (_, key) = owner.create_key("Production server", "");
    let program = app.program(&key);
    (owner, program)
}

fn post(program: &Program, body: &Value) -> Answer {
    program.send(program.with_key("POST", PATH).json(body))
}

/// What became of each email, in short.
fn results(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    let results = body["results"].as_array().unwrap().iter();
    let told = |result: &Value| match result["status"].as_str().unwrap() {
        "success" => {
            assert_eq!(result.as_object().unwrap().len(), 2, "{result}");
            result["message_id"].as_str().unwrap().to_owned()
        }
        "error" => {
            let errors = result["errors"].as_object().unwrap().iter();
            let codes = errors.flat_map(|(field, codes)| {
                let codes = codes.as_object().unwrap().keys();
                codes.map(move |code| format!("{field}.{code}"))
            });
            codes.collect::<Vec<_>>().join(" ")
        }
        other => panic!("{other}"),
    };
    results.map(told).collect()
}

/// An email that is known by this.
fn known_by(hash: &str) -> Value {
    let mut email = email(FROM);
    email["message_hash"] = json!(hash);
    email
}

fn count_emails(app: &App) -> i64 {
    app.database.number("SELECT count(*) FROM emails")
}

both! {
    fn all_emails_of_a_batch_are_accepted_in_order(app: App) {
        let (_, program) = ready(&app);
        let emails = json!([known_by("c"), known_by("a"), known_by("b")]);
        let wrapped = json!({"emails": emails, "unknown": [1]});
        for body in [&emails, &wrapped] {
            let answer = post(&program, body);
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(results(&answer), ["c", "a", "b"]);
        }
        for (place, hash) in ["c", "a", "b", "c", "a", "b"].iter().enumerate() {
            let sql = format!("SELECT message_id FROM emails ORDER BY id LIMIT 1 OFFSET {place}");
            assert_eq!(app.database.text(&sql), *hash);
        }
        // Each email without a hash has an id of its own.
        let ids = results(&post(&program, &json!([email(FROM), email(FROM)])));
        assert!(!ids[0].is_empty() && ids[0] != ids[1], "{ids:?}");
    }

    fn emails_of_a_batch_do_not_depend_on_each_other(app: App) {
        let (owner, program) = ready(&app);
        owner.add_domain("pending.test");
        let mut unfit = email(FROM);
        unfit["subject"] = json!("");
        unfit["headers"] = json!({"Bcc": "eve@evil.test"});
        let refused = [
            (json!(7), "content.required from.required subject.required to.required"),
            (email("a@nowhere.test"), "from.domain_not_found"),
            (unfit, "headers.not_allowed subject.required"),
            (email("a@pending.test"), "from.domain_not_verified"),
            (email("a@nowhere.test"), "from.domain_not_found"),
        ];
        let mut emails = vec![known_by("first")];
        emails.extend(refused.iter().map(|(email, _)| email.clone()));
        emails.push(known_by("last"));
        let answer = post(&program, &json!({ "emails": emails }));
        assert_eq!(answer.status, 207, "{answer:?}");
        let told_of = results(&answer);
        assert_eq!((told_of[0].as_str(), told_of[6].as_str()), ("first", "last"));
        for (place, (email, codes)) in (1..).zip(&refused) {
            assert_eq!(told_of[place], *codes);
            // The same as alone.
            let mut result = answer.json()["results"][place].clone();
            assert_eq!(result.as_object_mut().unwrap().remove("status"), Some(json!("error")));
            assert_eq!(result, program.post(email).json());
        }
        assert_eq!(count_emails(&app), 2);

        let none = post(&program, &json!([email("a@nowhere.test")]));
        assert_eq!(none.status, 207);
        assert_eq!(results(&none), ["from.domain_not_found"]);
        assert_eq!(count_emails(&app), 2);
    }

    fn the_key_of_a_batch_stands_beside_its_emails(app: App) {
        let (owner, _) = ready(&app);
        let (id, key) = owner.create_key("In the body", "");
        let anyone = app.program("");
        let post = |body: Value| anyone.send(anyone.bare("POST", PATH).json(&body));
        let beside = || post(json!({"emails": [known_by("x")], "api_key": key}));
        assert_eq!(results(&beside()), ["x"]);
        let stored = app.database.text("SELECT message FROM emails");
        assert!(!stored.contains(&key));
        let mut within = email(FROM);
        within["api_key"] = json!(key);
        for body in [json!([within]), json!({"emails": [within]}), json!([{"api_key": key}])] {
            assert_eq!(told(&post(body)), "401 api_key.required");
        }
        owner.delete_key(id);
        assert_eq!(told(&beside()), "403 api_key.invalid");
        assert_eq!(count_emails(&app), 1);
    }

    fn a_batch_has_1_to_100_emails(app: App) {
        let (_, program) = ready(&app);
        let required = "Emails data is required and must be an array";
        for body in [json!({}), json!([]), json!(null), json!(7), json!({"emails": []}),
            json!({"emails": {}}), json!({"emails": null}), json!({"email": [email(FROM)]})]
        {
            let answer = post(&program, &body);
            assert_eq!(told(&answer), "422 emails.required", "{body}");
            assert_eq!(answer.json()["message"], required);
            let sentence = format!("{required}.");
            assert_eq!(answer.json()["errors"]["emails"]["required"], sentence);
        }
        let nothing = program.send(program.with_key("POST", PATH));
        assert_eq!(told(&nothing), "422 emails.required");
        let most = vec![email(FROM); 100];
        let mut more = most.clone();
        more.push(email(FROM));
        for body in [json!(more), json!({"emails": more})] {
            let answer = post(&program, &body);
            assert_eq!(told(&answer), "422 emails.max_limit");
            let sentence = "Maximum 100 emails allowed per batch request.";
            assert_eq!(answer.json()["message"], sentence);
        }
        assert_eq!(count_emails(&app), 0);
        let answer = post(&program, &json!(most));
        assert_eq!((answer.status, results(&answer).len()), (200, 100));
        assert_eq!(count_emails(&app), 100);
    }

    fn a_batch_that_is_not_json_is_refused_as_a_whole(app: App) {
        let (_, program) = ready(&app);
        let good = email(FROM);
        let many = format!("[{}0]", "0,".repeat(30_000));
        for entry in ["{", "\"\\ud800\"", "1e999", &"[".repeat(200), &many] {
            for body in [format!("[{good},{entry}]"), format!("{{\"emails\":[{good},{entry}]}}")] {
                let request = program.with_key("POST", PATH);
                let request = request.header("content-type", "application/json").body(body);
                let what: String = entry.chars().take(10).collect();
                assert_eq!(told(&program.send(request)), "400", "{what}");
            }
        }
        let form = program.with_key("POST", PATH).form(&[("emails", "x")]);
        assert_eq!(told(&program.send(form)), "415");
        assert_eq!(count_emails(&app), 0);
    }

    fn a_batch_is_stored_whole_or_not_at_all(app: App) {
        let (_, program) = ready(&app);
        let batch = json!([known_by("a"), known_by("poison"), known_by("b")]);
        app.database.execute(match app.database.backend() {
            Backend::Sqlite => {
                "CREATE TRIGGER poison BEFORE INSERT ON emails WHEN NEW.message_id = 'poison'
                 BEGIN SELECT RAISE(ABORT, 'poison'); END"
            }
            Backend::Postgres => {
                "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN RAISE EXCEPTION 'poison'; END$$;
                 CREATE TRIGGER poison BEFORE INSERT ON emails FOR EACH ROW
                 WHEN (NEW.message_id = 'poison') EXECUTE FUNCTION fail()"
            }
        });
        let failed = post(&program, &batch);
        assert_eq!(failed.status, 503, "{failed:?}");
        assert!(failed.header("retry-after").is_some() && !failed.body.contains("poison"));
        assert_eq!(count_emails(&app), 0);
        app.database.execute(match app.database.backend() {
            Backend::Sqlite => "DROP TRIGGER poison",
            Backend::Postgres => "DROP TRIGGER poison ON emails",
        });
        assert_eq!(results(&post(&program, &batch)), ["a", "poison", "b"]);
    }

    fn a_batch_is_one_call(app: App) {
        let (owner, _) = ready(&app);
        let (id, key) = owner.create_key("Counted", "");
        let program = app.program(&key);
        let (good, bad) = (email(FROM), email("a@nowhere.test"));
        for (body, status) in [
            (json!([good, good]), 200),
            (json!([bad, good]), 207),
            (json!([bad, 7]), 207),
            (json!([]), 422),
        ] {
            assert_eq!(post(&program, &body).status, status);
        }
        let calls = |outcome: &str| {
            let sql = format!(
                "SELECT coalesce(sum(calls), 0) FROM api_key_calls
                 WHERE api_key_id = {id} AND outcome LIKE '{outcome}'"
            );
            app.database.number(&sql)
        };
        until("all calls are written", || calls("%") == 4);
        for (outcome, number) in [("accepted", 2), ("domain_not_found", 1), ("invalid_request", 1)] {
            assert_eq!(calls(outcome), number, "{outcome}");
        }
    }

    fn a_restricted_key_is_restricted_within_a_batch(app: App) {
        let owner = app.owner();
        attest(&app.database, "acme.test");
        attest(&app.database, "other.test");
        let other = app.database.number("SELECT id FROM sending_domains WHERE name = 'other.test'");
        let nonce = owner.nonce();
        let id = other.to_string();
        let mut form = vec![("nonce", nonce.as_str()), ("name", "Bound")];
        form.extend([("senders", "a@other.test"), ("recipients", "example.org")]);
        form.extend(scope(&id));
        let program = app.program(&owner.post("/api-keys", &form).key());
        let mut elsewhere = email("a@other.test");
        elsewhere["cc"] = json!([{"email": "eve@evil.test"}]);
        let batch = json!([email(FROM), email("b@other.test"), elsewhere, email("A@OTHER.test")]);
        let answer = post(&program, &batch);
        assert_eq!(answer.status, 207);
        assert_eq!(
            results(&answer)[..3],
            ["from.domain_not_allowed", "from.address_not_allowed", "cc.recipient_not_allowed"]
        );
        assert_eq!(count_emails(&app), 1);
    }
}
