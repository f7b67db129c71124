//! The API Keys page, and what becomes of its keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use diesel::connection::{Connection as _, InstrumentationEvent};
use tosend_dashboard::accounts::email::Email;
use tosend_dashboard::accounts::store::find_id_by_email;
use tosend_dashboard::db::{self, DatabaseUrl, Db};
use tosend_dashboard::keys::store as keys_store;
use tosend_dashboard::keys::view::Which;

use crate::support::*;

fn live_keys(app: &App) -> i64 {
    app.database
        .number("SELECT count(*) FROM api_keys WHERE ended_at IS NULL")
}

fn key_count(app: &App) -> i64 {
    app.database.number("SELECT sum(key_count) FROM accounts")
}

both! {
    fn a_key_works_until_it_is_deleted(app: App) {
        let owner = app.owner();
        let (id, key) = owner.create_key("Production server", "");
        let program = app.program(&key);
        assert_eq!(program.info().status, 200);

        let deleted = owner.delete_key(id);
        assert_eq!((deleted.status, deleted.location()), (303, Some("/api-keys?notice=deleted")));

        assert_eq!(program.info().status, 403);
        let list = owner.get("/api-keys?notice=deleted");
        assert!(list.key_ids().is_empty());
        assert!(list.body.contains("The key was deleted."));
    }

    fn a_key_is_shown_in_one_answer_only(app: App) {
        let owner = app.owner();
        let nonce = owner.nonce();
        let form = [("nonce", nonce.as_str()), ("name", "Staging"), ("scope", "all"), ("expiry", "none")];
        let request = owner.same_origin("POST", "/api-keys");
        let shown = owner.send(request.header("accept-encoding", "gzip, br, zstd").form(&form));

        assert_eq!(shown.status, 200);
        let key = shown.key();
        assert_eq!(shown.header("cache-control"), Some("no-store, no-transform"));
        for absent in ["content-encoding", "location", "refresh", "hx-redirect", "etag"] {
            assert_eq!(shown.header(absent), None, "{absent}");
        }
        assert!(!format!("{:?}", shown.headers).contains(&key));
        assert!(shown.body.contains("will not be shown again"));

        for path in ["/api-keys", "/api-keys/new", "/api-keys/1/delete", "/domains"] {
            assert!(!owner.get(path).body.contains(&key), "{path}");
        }
        let truncated = format!("{}…{}", &key[..8], &key[40..]);
        assert!(owner.get("/api-keys").body.contains(&truncated));
    }

    fn the_same_form_sent_again_makes_no_second_key(app: App) {
        let owner = app.owner();
        let nonce = owner.nonce();
        let form = [("nonce", nonce.as_str()), ("name", "Twice"), ("scope", "all"), ("expiry", "none")];
        let key = owner.post("/api-keys", &form).key();

        for again in [owner.post("/api-keys", &form), owner.htmx_post("/api-keys", &form)] {
            assert_eq!(again.status, 200);
            assert_eq!(again.find_key(), None);
            assert!(again.body.contains("already been created"));
            assert!(again.body.contains("<bdi>Twice</bdi>"));
            assert!(again.body.contains("/api-keys/1/delete"));
        }
        assert_eq!((live_keys(&app), key_count(&app)), (1, 1));
        assert_eq!(app.program(&key).info().status, 200);

        owner.delete_key(1);
        let after = owner.post("/api-keys", &form);
        assert!(after.body.contains("has been deleted since"), "{}", after.body);
        assert_eq!(live_keys(&app), 0);
    }

    fn a_hundred_clicks_make_one_key(app: App) {
        let owner = app.owner();
        let nonce = owner.nonce();
        let form = [("nonce", nonce.as_str()), ("name", "Click"), ("scope", "all"), ("expiry", "none")];
        let shown = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| {
                    let visitor = app.visitor();
                    visitor.set_cookie(owner.cookie());
                    let answer = until_available(|| visitor.post("/api-keys", &form));
                    assert_eq!(answer.status, 200);
                    shown.fetch_add(usize::from(answer.find_key().is_some()), Ordering::SeqCst);
                });
            }
        });
        assert_eq!(shown.load(Ordering::SeqCst), 1);
        assert_eq!((live_keys(&app), key_count(&app)), (1, 1));
    }

    fn an_account_has_no_more_keys_than_its_limit(
        app: App, with |settings| settings.key_limit = "50".into()
    ) {
        let owner = app.owner();
        let nonces: Vec<String> = (0..200).map(|_| owner.nonce()).collect();
        let shown = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for nonce in &nonces {
                scope.spawn(|| {
                    let visitor = app.visitor();
                    visitor.set_cookie(owner.cookie());
                    let form = [("nonce", nonce.as_str()), ("name", "Many"), ("scope", "all"), ("expiry", "none")];
                    let answer = until_available(|| visitor.post("/api-keys", &form));
                    match answer.find_key() {
                        Some(_) => drop(shown.fetch_add(1, Ordering::SeqCst)),
                        None => assert_eq!(answer.status, 422, "{}", answer.body),
                    }
                });
            }
        });
        assert_eq!(shown.load(Ordering::SeqCst), 50);
        assert_eq!((live_keys(&app), key_count(&app)), (50, 50));

        let refused = owner.create("One more", "");
        assert!(refused.body.contains("You have 50 keys, which is the limit."));
        assert!(refused.body.contains("value=\"One more\""));

        // The form that was refused is good for another try once there is room.
        let id = owner.get("/api-keys").key_ids()[0];
        owner.delete_key(id);
        let nonce = refused.field("nonce");
        let form = [&[("nonce", nonce.as_str()), ("name", "x")], &*scope("")].concat();
        assert_eq!(owner.post("/api-keys", &form).status, 200);
    }

    fn a_wrong_form_comes_back_with_its_input_and_can_be_sent_again(app: App) {
        let owner = app.owner();
        let domain = owner.add_domain("acme.test");
        let nonce = owner.nonce();
        let long = "x".repeat(10_000);
        for (name, error) in [
            ("", "Enter a name"),
            ("   ", "Enter a name"),
            (long.as_str(), "at most 64 characters"),
            ("a\0b", "invisible control characters"),
            ("a\u{202E}b", "invisible control characters"),
        ] {
            let form = [&[("nonce", nonce.as_str()), ("name", name)], &*scope(&domain)].concat();
            for answer in [owner.post("/api-keys", &form), owner.htmx_post("/api-keys", &form)] {
                assert_eq!(answer.status, 422, "{name:?}");
                assert!(answer.body.contains(error), "{name:?}");
                assert!(answer.body.contains("aria-invalid=\"true\""));
                assert_eq!(answer.field("nonce"), nonce);
                assert!(answer.body.contains("name=\"scope\" value=\"domains\" checked>"));
                assert!(answer.body.contains(&format!("value=\"{domain}\" checked>")));
            }
        }
        assert_eq!(live_keys(&app), 0);
        let form = [&[("nonce", nonce.as_str()), ("name", "Right")], &*scope(&domain)].concat();
        assert_eq!(owner.post("/api-keys", &form).status, 200);
    }

    fn a_lost_or_senseless_field_never_widens_a_key(app: App) {
        let owner = app.owner();
        let domain = owner.add_domain("acme.test");
        let nonce = owner.nonce();
        let choose = "Choose “All domains”, or select at least one domain.";
        let both = "You chose “All domains” and selected domains too.";
        let expiry = "Choose when the key expires.";
        let date = "Choose “At the end of a day”, or clear the date.";
        for (form, error) in [
            (vec![("expiry", "none")], choose),
            (vec![("expiry", "none"), ("scope", "everything")], choose),
            (vec![("expiry", "none"), ("domain", &domain)], choose),
            (vec![("expiry", "none"), ("scope", "domains")], choose),
            (vec![("expiry", "none"), ("scope", "domains"), ("domain", "999")], choose),
            (vec![("expiry", "none"), ("scope", "domains"), ("domain", "-1")], choose),
            (vec![("expiry", "none"), ("scope", "domains"), ("domain", " ")], choose),
            (vec![("expiry", "none"), ("scope", "domains"), ("domain", &domain), ("domain", "")],
                choose),
            (vec![("expiry", "none"), ("scope", "all"), ("domain", &domain)], both),
            (vec![("scope", "all")], expiry),
            (vec![("scope", "all"), ("expiry", "")], expiry),
            (vec![("scope", "all"), ("expiry", "8")], expiry),
            (vec![("scope", "all"), ("expiry", "none"), ("expires_on", "2030-01-01")], date),
        ] {
            let form = [vec![("nonce", nonce.as_str()), ("name", "Lost")], form].concat();
            let answer = owner.post("/api-keys", &form);
            assert_eq!(answer.status, 422, "{form:?}");
            assert!(answer.body.contains(error), "{form:?}");
        }
        assert_eq!((live_keys(&app), key_count(&app)), (0, 0));
    }

    fn a_domain_that_went_away_never_comes_back_as_all_domains(app: App) {
        let owner = app.owner();
        let domain = owner.add_domain("gone.test");
        owner.add_domain("other.test");
        let nonce = owner.nonce();
        owner.post(&format!("/domains/{domain}/delete"), &[]);
        for name in ["", "Right"] {
            let form = [&[("nonce", nonce.as_str()), ("name", name)], &*scope(&domain)].concat();
            let answer = owner.post("/api-keys", &form);
            assert_eq!(answer.status, 422);
            assert!(answer.body.contains("or select at least one domain."));
            assert!(answer.body.contains("name=\"scope\" value=\"domains\" checked>"));
            assert!(!answer.body.contains("value=\"all\" checked"));
        }
        assert_eq!(live_keys(&app), 0);
    }

    fn a_wrong_form_with_a_dead_nonce_comes_back_with_a_living_one(app: App) {
        let owner = app.owner();
        for nonce in ["", "forged"] {
            let form = [("nonce", nonce), ("name", ""), ("scope", "all"), ("expiry", "none")];
            let fresh = owner.post("/api-keys", &form).field("nonce");
            let form = [("nonce", fresh.as_str()), ("name", "Right"), ("scope", "all"), ("expiry", "none")];
            assert_eq!(owner.post("/api-keys", &form).status, 200);
        }
    }

    fn a_missing_foreign_or_old_nonce_is_answered_with_a_fresh_form(app: App) {
        let owner = app.owner();
        let stranger = app.stranger();
        let foreign = stranger.nonce();
        let old = owner.nonce();
        app.database.execute(
            "UPDATE form_nonces SET created_at = '2020-01-01 00:00:00.000000' WHERE user_id = 1",
        );
                // The old one first: any fresh form makes room by forgetting it.
        for nonce in [Some(old.as_str()), None, Some(""), Some("guess"), Some(foreign.as_str())] {
            let mut form = vec![("name", "Kept"), ("scope", "all"), ("expiry", "none")];
            form.extend(nonce.map(|nonce| ("nonce", nonce)));
            let answer = owner.post("/api-keys", &form);
            assert_eq!(answer.status, 422, "{nonce:?}");
            assert!(answer.body.contains("This form had expired."));
            assert!(answer.body.contains("value=\"Kept\""));
            let fresh = answer.field("nonce");
            assert!(fresh.len() == 32 && Some(fresh.as_str()) != nonce);
        }
        assert_eq!(live_keys(&app), 0);
        assert_eq!(stranger.post("/api-keys", &[
            ("nonce", &foreign), ("name", "Mine"), ("scope", "all"), ("expiry", "none"),
        ]).status, 200);
    }

    fn the_list_has_all_that_people_need_newest_first_25_a_page(app: App) {
        let owner = app.owner();
        assert!(owner.get("/api-keys").body.contains("No keys yet."));
        let acme = owner.add_domain("acme.test");
        owner.add_domain("other.test");
        for n in 0..25 {
            owner.create(&format!("Key {n}"), "");
        }
        let many = cli(&app.database, &[
            "key", "create", "--account", EMAIL, "--name", "Both",
            "--domain", "other.test", "--domain", "acme.test",
        ], "").unwrap();
        owner.create("<b>&\"newest\"", &acme);

        let first = owner.get("/api-keys");
        assert_eq!(first.key_ids(), (3..=27).rev().collect::<Vec<i64>>());
        assert!(first.body.contains("27 keys"));
        assert!(first.body.contains("Page 1 of 2"));
        assert!(first.body.contains("<bdi>&#60;b&#62;&#38;&#34;newest&#34;</bdi>"));
        assert!(first.body.contains(&format!("{}…{}", &many[..8], &many.trim()[40..])));
        assert!(first.body.contains("All domains"));
        assert!(first.body.contains("Not verified"));
        assert!(first.body.contains(">Active</span>"));
        assert!(first.body.contains("<time datetime=\"20"));
        assert_eq!(first.body.matches("Both</bdi>").count(), 1);
        let both = first.body.split("Both</bdi>").nth(1).unwrap();
        let both = both.split("</tr>").next().unwrap();
        assert!(both.find("acme.test").unwrap() < both.find("other.test").unwrap());

        assert_eq!(owner.get("/api-keys?page=2").key_ids(), [2, 1]);
        assert_eq!(owner.get("/api-keys?page=999").key_ids(), [2, 1]);
        for first_page in ["0", "-5", "x", "", "99999999999999999999"] {
            let ids = owner.get(&format!("/api-keys?page={first_page}")).key_ids();
            assert_eq!(ids[0], 27, "{first_page}");
        }
    }

    fn the_list_tells_when_a_key_was_last_used(app: App) {
        let owner = app.owner();
        let (_, key) = owner.create_key("Backup", "");
        let waits = || owner.get("/api-keys").body.contains(">Waiting for first use<");
        assert!(waits());

        assert_eq!(app.program(&key).verify().status, 200);
        until("the use is listed", || !waits());
        let list = owner.get("/api-keys").body;
        let (_, cell) = list.split_once("data-label=\"Last used\">").unwrap();
        assert!(cell.starts_with("<time datetime=\"20"), "{cell}");
        assert!(cell.contains(">just now<") || cell.contains(" ago<"), "{cell}");
    }

    fn many_keys_of_another_account_crowd_nothing_out(app: App) {
        let (owner, stranger) = (app.owner(), app.stranger());
        owner.create("Mine", "");
        for _ in 0..26 {
            stranger.create("Theirs", "");
        }
        assert_eq!(owner.get("/api-keys").key_ids(), [1]);
        assert_eq!(stranger.get("/api-keys?page=2").key_ids(), [2]);
    }

    fn a_list_takes_three_queries_however_many_rows(app: App) {
        let owner = app.owner();
        let domain = owner.add_domain("acme.test");
        for _ in 0..30 {
            owner.create("Many", &domain);
        }
        let db = Db::open(&DatabaseUrl::parse(&app.database.url).unwrap()).unwrap();
        let queries = Arc::new(AtomicUsize::new(0));
        let seen = queries.clone();
        let keys = db.write_blocking(|conn| {
            let account = find_id_by_email(conn, &Email::parse(EMAIL).unwrap())?.unwrap();
            conn.set_instrumentation(move |event: InstrumentationEvent<'_>| {
                if let InstrumentationEvent::StartQuery { .. } = event {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
            });
            let keys = keys_store::list(conn, account, Which::Live, 25, 0)?;
            conn.set_instrumentation(|_: InstrumentationEvent<'_>| {});
            Ok::<_, db::Error>(keys)
        });
        assert_eq!(keys.unwrap().len(), 25);
        assert_eq!(queries.load(Ordering::SeqCst), 3);
    }

    fn a_paused_key_is_refused_at_once_and_works_again_when_resumed(app: App) {
        let owner = app.owner();
        let (id, key) = owner.create_key("Switch", "");
        let program = app.program(&key);
        for _ in 0..3 {
            let paused = owner.post(&format!("/api-keys/{id}/pause"), &[]);
            let path = format!("/api-keys/{id}");
            let path = format!("{path}?notice=paused");
            assert_eq!((paused.status, paused.location()), (303, Some(&*path)));
            assert_eq!(program.info().status, 403);
            assert!(owner.get("/api-keys").body.contains(">Paused</span>"));

            let row = owner.htmx_post(&format!("/api-keys/{id}/resume"), &[]);
            assert_eq!(row.status, 200);
            assert!(row.body.trim_start().starts_with(&format!("<tr id=\"key-{id}\">")));
            assert!(row.body.contains(">Active</span>"));
            assert_eq!(program.info().status, 200);
        }
    }

    fn deleting_asks_first_and_a_second_time_says_so(app: App) {
        let owner = app.owner();
        let (id, key) = owner.create_key("Doomed", "");
        let path = format!("/api-keys/{id}/delete");

        let page = owner.get(&path);
        assert!(page.body.contains("<html") && page.body.contains("Delete “<bdi>Doomed</bdi>”?"));
        let dialog = owner.htmx_get(&path);
        assert!(!dialog.body.contains("<html") && dialog.body.contains("<bdi>Doomed</bdi>"));
        assert!(dialog.body.contains("stops working at once"));
        assert_eq!(app.program(&key).info().status, 200);

        let deleted = owner.htmx_post(&path, &[]);
        assert_eq!(deleted.status, 200);
        assert!(deleted.body.contains("The key “Doomed” was deleted."));
        assert!(deleted.body.contains("id=\"key-list\" hx-swap-oob=\"true\""));

        let again = owner.post(&path, &[]);
        assert_eq!((again.status, again.location()), (303, Some("/api-keys?notice=gone")));
        let again = owner.htmx_post(&path, &[]);
        assert_eq!(again.header("hx-redirect"), Some("/api-keys?notice=gone"));
        assert!(owner.get("/api-keys?notice=gone").body.contains("had ended already"));
        assert_eq!(key_count(&app), 0);
    }

    fn a_deleted_key_leaves_a_row_without_its_hash(app: App) {
        let owner = app.owner();
        let domain = owner.add_domain("acme.test");
        let (id, _) = owner.create_key("History", &domain);
        owner.delete_key(id);
        assert_eq!(app.database.number(
            "SELECT count(*) FROM api_keys WHERE hash IS NULL AND ended_at IS NOT NULL
             AND ended_domain_names = 'acme.test'",
        ), 1);
        assert_eq!(app.database.number("SELECT count(*) FROM api_key_domains"), 0);
    }

    fn deleting_keeps_the_page_that_the_browser_shows(app: App) {
        let owner = app.owner();
        for n in 0..27 {
            owner.create(&format!("Key {n}"), "");
        }
        let delete = |id: i64| {
            let request = owner.same_origin("POST", &format!("/api-keys/{id}/delete"));
            owner.send(request
                .header("HX-Request", "true")
                .header("HX-Current-URL", format!("http://{}/api-keys?page=2", app.address))
                .form(&[("name", "")]))
        };
        assert_eq!(delete(2).key_ids(), [1]);
        assert_eq!(delete(1).key_ids().len(), 25);
    }

    fn a_new_key_in_the_dialog_brings_the_list_along(app: App) {
        let owner = app.owner();
        let form = owner.htmx_get("/api-keys/new");
        assert!(!form.body.contains("<html"));
        let nonce = form.field("nonce");
        let shown = owner.htmx_post(
            "/api-keys",
            &[("nonce", &nonce), ("name", "Dialog"), ("scope", "all"), ("expiry", "none")],
        );
        assert!(shown.find_key().is_some());
        assert_eq!(shown.key_ids(), [1]);
        assert!(shown.body.contains("id=\"key-list\" hx-swap-oob=\"true\""));
    }

    fn the_command_of_a_new_key_is_safe_to_paste_and_goes_to_the_public_url(
        app: App, with |settings| settings.public_url = Some("https://dash.acme.test".into())
    ) {
        let visitor = app.visitor();
        let email = "o'brien@acme.test";
        create_account(&app.database, email, "Acme");
        visitor.sign_in(email);
        let shown = visitor.create("Quote", "");
        assert!(shown.body.contains("curl https://dash.acme.test/v2/emails"));
        let quoted = "o&#39;\\&#39;&#39;brien@acme.test";
        assert!(shown.body.contains(quoted), "{}", shown.body);
        assert!(shown.body.contains("can send as soon as a domain"));
    }

    fn without_a_public_url_the_command_goes_where_the_browser_went(app: App) {
        let owner = app.owner();
        let nonce = owner.nonce();
        let request = owner.request("POST", "/api-keys")
            .header("host", "dash.test:8080")
            .header("origin", "http://dash.test:8080");
        let form = [("nonce", nonce.as_str()), ("name", "LAN"), ("scope", "all"), ("expiry", "none")];
        let shown = owner.send(request.form(&form));
        assert!(shown.body.contains("curl http://dash.test:8080/v2/emails"));
    }

    fn a_paused_account_creates_and_sends_nothing_but_can_delete(app: App) {
        let owner = app.owner();
        let (id, key) = owner.create_key("Before", "");
        cli(&app.database, &["account", "pause", "--account", EMAIL], "").unwrap();
        let refused = owner.create("After", "");
        assert_eq!(refused.status, 403);
        assert!(refused.body.contains("This account is paused"));
        assert_eq!(app.program(&key).info().status, 403);
        assert_eq!(owner.delete_key(id).status, 303);
        cli(&app.database, &["account", "resume", "--account", EMAIL], "").unwrap();
        assert_eq!(owner.create("After", "").status, 200);
        assert_eq!(app.program(&key).info().status, 403);
    }
}

/// Asks again while the server says that it is too busy.
fn until_available(ask: impl Fn() -> Answer) -> Answer {
    loop {
        let answer = ask();
        if answer.status != 503 {
            return answer;
        }
    }
}
