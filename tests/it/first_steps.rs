//! From an empty account to its first email: the steps on the list of keys, and what the page of a new
//! key says of the first request with it.

use crate::support::*;

/// What the page polls next; none if it does not.
fn poll(body: &str) -> Option<String> {
    let (_, rest) = body.split_once("hx-get=\"/api-keys/1/first-request")?;
    let path = rest.split('"').next().unwrap().replace("&amp;", "&");
    Some(format!("/api-keys/1/first-request{path}"))
}

/// Which steps are done, in their order.
fn steps(page: &str) -> Vec<&str> {
    let steps = page.split("<li class=\"step ").skip(1);
    steps.map(|step| step.split('"').next().unwrap()).collect()
}

both! {
    fn the_steps_to_the_first_email_tick_themselves_and_go(app: App) {
        let owner = app.owner();
        let list = || owner.get("/api-keys").body;
        assert_eq!(steps(&list()), ["now", "later", "later", "later"]);
        assert!(!list().contains("id=\"tips\""), "one thing at a time");
        let domain = owner.add_domain("acme.test");
        assert_eq!(steps(&list()), ["done", "now", "later", "later"]);

        // The page asks for changes by itself.
        let unchanged = owner.htmx_get("/api-keys/start?shown=1000&round=7");
        assert!(steps(&unchanged.body).is_empty() && unchanged.body.contains("round=8"));
        attest(&app.database, "acme.test");
        let changed = owner.htmx_get("/api-keys/start?shown=1000&round=7");
        assert_eq!(steps(&changed.body), ["done", "done", "now", "later"]);
        assert_eq!(changed.header("hx-retarget"), Some("#start"));
        assert_eq!(app.visitor().htmx_get("/api-keys/start?shown=1000").status, 286);

        // Each step offers the next one, filled in.
        let form = format!("/api-keys/new?domain={domain}");
        assert!(list().contains(&form));
        assert!(owner.get(&format!("/domains/{domain}")).body.contains(&form));
        let filled = owner.get(&form).body;
        assert!(filled.contains(&format!("name=\"domain\" value=\"{domain}\" checked")), "{filled}");
        let of_others = app.stranger().get(&form).body;
        assert!(!of_others.contains("acme.test") && of_others.contains("value=\"all\" checked"));
        let (_, key) = owner.create_key("Shop", &domain);
        assert_eq!(steps(&list()), ["done", "done", "done", "now"]);
        assert!(list().contains("Bearer $TOSEND_API_KEY") && list().contains("hello@acme.test"));

        assert_eq!(app.program(&key).email_from("hello@acme.test").status, 200);
        until("the steps are gone", || steps(&list()).is_empty());
        until("they are all done", || steps(&owner.get("/api-keys?start=1").body) == ["done"; 4]);
    }

    fn the_steps_can_be_hidden_and_asked_for_again(app: App) {
        let owner = app.owner();
        let hidden = format!("{}; tosend_start=off", owner.cookie().unwrap());
        owner.set_cookie(Some(hidden));
        assert!(steps(&owner.get("/api-keys").body).is_empty());
        assert_eq!(steps(&owner.get("/api-keys?start=1").body).len(), 4);
    }

    fn a_new_key_tells_what_came_of_its_first_request(app: App) {
        let owner = app.owner();
        let domain = owner.add_domain("acme.test");
        attest(&app.database, "acme.test");
        let created = owner.create("Shop", &domain);
        let key = created.key();
        assert!(created.body.contains("Waiting for the first request"));
        let first = poll(&created.body).unwrap();
        let nothing = owner.htmx_get(&first);
        assert!(!nothing.body.contains("id=\"first-request\"") && poll(&nothing.body).is_some());

        // Refused, with the reason and what to do; accepted, with the client.
        let program = app.program(&key);
        assert_eq!(program.email_from("hello@elsewhere.test").status, 422);
        let told = |what: &str| until(what, || owner.htmx_get(&first).body.contains(what));
        told("not one of the account");
        let refused = owner.htmx_get(&first).body;
        assert!(refused.contains("Add the domain to your domains"), "{refused}");
        assert_eq!(program.email_from("hello@acme.test").status, 200);
        told("✓ 200.");
        let accepted = owner.htmx_get(&first).body;
        assert!(accepted.contains("from 127.0.0.1"), "{accepted}");
        assert_eq!(poll(&accepted), None, "nothing more is awaited");
        assert!(!accepted.contains(&key));

        // Nobody else learns of it, and a page that was left open stops asking.
        assert_eq!(app.visitor().htmx_get(&first).status, 286);
        assert_eq!(app.stranger().htmx_get(&first).status, 286);
        let last = first.replace("round=0", "round=4000000000");
        assert_eq!(poll(&owner.htmx_get(&last).body), None);
    }

    fn both_keys_of_a_rotation_have_a_lane_and_it_says_when_the_old_one_can_go(app: App) {
        let owner = app.owner();
        let (old, _) = owner.create_key("Shop", "");
        let rotated = owner.post(&format!("/api-keys/{old}/rotate"), &[("overlap", "7d"), ("expiry", "keep")]);
        let new = old + 1;
        let at = |minutes: i64| {
            let at = chrono::Utc::now() - chrono::TimeDelta::minutes(minutes);
            at.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
        };
        let use_at = |id: i64, minutes: i64| {
            app.database.execute(&format!("DELETE FROM api_key_uses WHERE api_key_id = {id}"));
            app.database.execute(&format!("INSERT INTO api_key_uses VALUES ({id}, '{}', '::1', '')", at(minutes)));
        };
        let both_say = |said: &str| {
            for id in [old, new] {
                let page = owner.get(&format!("/api-keys/{id}")).body;
                assert_eq!(page.matches("class=\"lane\"").count(), 2);
                assert!(page.contains(said), "{id}: {said} in {page}");
            }
        };
        both_say("The new key has not been used yet");
        use_at(new, 1);
        both_say("The old key has never been used: it is safe to stop it.");
        use_at(old, 10);
        both_say("Both keys are in use");
        use_at(old, 180);
        both_say("The old key has been quiet for 3 hours, and the new one is in use: it is safe to stop");
        let hour = &at(0)[..13];
        app.database.execute(&format!("INSERT INTO api_key_calls VALUES ({old}, '{hour}:00:00', 'accepted', 1204)"));
        both_say("1,204 calls in 24 hours");
        owner.post(&format!("/api-keys/{old}/stop"), &[]);
        assert!(!owner.get(&format!("/api-keys/{new}")).body.contains("class=\"lane\""));
        assert_eq!(app.program(&rotated.key()).verdict(), 200);
    }

    fn the_list_warns_of_keys_that_expire_and_of_domains_that_cannot_send(app: App) {
        let owner = app.owner();
        let hidden = format!("{}; tosend_start=off", owner.cookie().unwrap());
        owner.set_cookie(Some(hidden));
        let (id, _) = owner.create_key("Brief", "");
        let list = || owner.get("/api-keys").body;
        assert!(!list().contains("expires in") && !list().contains("is not verified"));
        for (days, said) in [(15, None), (10, Some("quiet\">A key expires in 10 days.")), (2, Some("warning\">A key expires in 2 days."))] {
            let at = chrono::Utc::now() + chrono::TimeDelta::days(days);
            let at = at.format("%Y-%m-%d %H:%M:%S%.6f");
            app.database.execute(&format!("UPDATE api_keys SET expires_at = '{at}' WHERE id = {id}"));
            match said {
                Some(said) => assert!(list().contains(said), "{said}"),
                None => assert!(!list().contains("A key expires")),
            }
        }
        assert_eq!(owner.get("/api-keys?status=expiring").key_ids(), [id]);
        let domain = owner.add_domain("acme.test");
        assert!(list().contains(&format!("<a href=\"/domains/{domain}\">Show its DNS record</a>")));
        attest(&app.database, "acme.test");
        assert!(!list().contains("Show its DNS record"));
    }

    fn examples_in_the_docs_send_from_a_domain_of_the_reader(app: App) {
        let owner = app.owner();
        owner.add_domain("acme.test");
        assert!(owner.get("/docs/api").body.contains("hello@example.com"));
        attest(&app.database, "acme.test");
        let docs = owner.get("/docs/api").body;
        assert!(docs.contains("hello@acme.test") && !docs.contains("hello@example.com"));
        assert!(app.visitor().get("/docs/api").body.contains("hello@example.com"));
    }

    fn a_status_says_how_a_key_ends_wherever_it_stands(app: App) {
        let owner = app.owner();
        let (id, _) = owner.create_key("Old", "");
        owner.post(&format!("/api-keys/{id}/rotate"), &[("overlap", "7d"), ("expiry", "7")]);
        let arguments = ["key", "list", "--account", EMAIL];
        let told = cli(&app.database, &arguments, "").unwrap();
        for (id, status, detail) in [(id, "stopping", "in 7 days"), (id + 1, "expiring", "in 7 days")] {
            let found = owner.get(&format!("/api-keys?status={status}"));
            assert_eq!(found.key_ids(), [id], "{status}");
            assert!(found.body.contains(detail), "{detail}");
            assert!(owner.get(&format!("/api-keys/{id}")).body.contains(detail));
            let line = told.lines().find(|line| line.starts_with(&format!("{id}\t"))).unwrap();
            assert!(line.contains(&format!("\t{status}\t")), "{line}");
        }
        assert!(owner.get("/api-keys?status=active").key_ids().is_empty());
    }
}

#[test]
fn edit_rotate_and_find_are_fragments_for_a_dialog_too() {
    let app = App::start(Backend::Sqlite, |_| {});
    let owner = app.owner();
    let (id, key) = owner.create_key("Shop", "");
    for path in ["edit", "rotate"] {
        let dialog = owner.htmx_get(&format!("/api-keys/{id}/{path}")).body;
        assert!(
            dialog.contains("id=\"dialog-title\"") && !dialog.contains("<html"),
            "{dialog}"
        );
    }
    let found = owner.htmx_post("/api-keys/find", &[("pasted", &key)]).body;
    assert!(found.contains("id=\"found\"") && !found.contains("<html"));
    assert!(!found.contains(&key));

    // On the list, a saved change replaces the list; elsewhere it leads to the key's page.
    let version = owner
        .htmx_get(&format!("/api-keys/{id}/edit"))
        .field("version");
    let form = [
        ("version", &*version),
        ("name", "Store"),
        ("scope", "all"),
        ("expiry", "keep"),
    ];
    let on_list = owner
        .same_origin("POST", &format!("/api-keys/{id}/edit"))
        .header("hx-request", "true")
        .header("hx-current-url", app.url("/api-keys"));
    let saved = owner.send(on_list.form(&form)).body;
    assert!(
        saved.contains("<bdi>Store</bdi>") && saved.contains("id=\"toast\""),
        "{saved}"
    );
    let rotated = owner.htmx_post(
        &format!("/api-keys/{id}/rotate"),
        &[("overlap", "1h"), ("expiry", "keep")],
    );
    assert!(
        rotated.find_key().is_some() && rotated.body.contains("Key rotated: this is the new one")
    );
}
