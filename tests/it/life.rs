//! The life of a key on its pages: edited, paused, replaced, expired, looked back upon.

use crate::support::*;

/// The account's domains acme.test and shop.test, both verified: their ids.
fn two_domains(app: &App, owner: &Visitor) -> (String, String) {
    let ids = ["acme.test", "shop.test"].map(|name| {
        let id = owner.add_domain(name);
        attest(&app.database, name);
        id
    });
    let [acme, shop] = ids;
    (acme, shop)
}

/// The fields of a key's edit form as it is opened, to be changed by those given.
fn edit_form(owner: &Visitor, id: i64, changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let page = owner.get(&format!("/api-keys/{id}/edit"));
    assert_eq!(page.status, 200, "{}", page.body);
    let mut form = vec![
        ("version".to_owned(), page.field("version")),
        ("name".to_owned(), page.field("name")),
        ("expiry".to_owned(), "keep".to_owned()),
    ];
    form.extend(
        changes
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned())),
    );
    form
}

fn post(owner: &Visitor, path: &str, form: &[(String, String)]) -> Answer {
    let form: Vec<(&str, &str)> = form.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    owner.post(path, &form)
}

/// Saves, and confirms what that changes. Gives what was to be confirmed.
fn save(owner: &Visitor, id: i64, changes: &[(&str, &str)]) -> String {
    let path = format!("/api-keys/{id}/edit");
    let mut form = edit_form(owner, id, changes);
    let asked = post(owner, &path, &form);
    assert_eq!(asked.status, 200, "{}", asked.body);
    form.push(("confirmed".into(), "yes".into()));
    let saved = post(owner, &path, &form);
    let to = format!("/api-keys/{id}?notice=saved");
    assert_eq!(
        (saved.status, saved.location()),
        (303, Some(&*to)),
        "{}",
        saved.body
    );
    asked.body
}

fn rotate(owner: &Visitor, id: i64, form: &[(&str, &str)]) -> Answer {
    let mut all = vec![("quiet", ""), ("expiry", "keep")];
    all.retain(|(name, _)| !form.iter().any(|(given, _)| given == name));
    all.extend(form);
    owner.post(&format!("/api-keys/{id}/rotate"), &all)
}

both! {
    fn a_key_is_renamed_and_described_without_a_new_secret(app: App) {
        let owner = app.owner();
        let (id, key) = owner.create_key("Old name", "");
        let form = edit_form(&owner, id, &[
            ("name", "New <b>name"), ("description", "For the shop"), ("scope", "all"),
        ]);
        let saved = post(&owner, &format!("/api-keys/{id}/edit"), &form);
        assert_eq!(saved.status, 303, "{}", saved.body);
        assert_eq!(app.program(&key).verify().json()["key"]["name"], "New <b>name");
        let page = owner.get(saved.location().unwrap());
        for part in ["The changes are saved.", "<bdi>New &#60;b&#62;name</bdi>", "For the shop",
            "name: “Old name” → “New &#60;b&#62;name”"]
        {
            assert!(page.body.contains(part), "{part} in {}", page.body);
        }
        assert!(owner.get("/api-keys").body.contains("For the shop"));

        let same = edit_form(&owner, id, &[
            ("name", "New <b>name"), ("description", "For the shop"), ("scope", "all"),
        ]);
        let same = post(&owner, &format!("/api-keys/{id}/edit"), &same);
        assert_eq!(same.location(), Some(&*format!("/api-keys/{id}?notice=same")));
    }

    fn narrowing_and_widening_are_told_and_confirmed_and_hold_at_once(app: App) {
        let owner = app.owner();
        let (acme, shop) = two_domains(&app, &owner);
        let (id, key) = owner.create_key("Scoped", &acme);
        let program = app.program(&key);
        let from = |domain: &str| program.email_from(&format!("hello@{domain}")).status;
        assert_eq!((from("acme.test"), from("shop.test")), (200, 422));

        // Not before it is confirmed.
        let only = |id: &str| vec![("scope", "domains"), ("domain", id)]
            .into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect::<Vec<_>>();
        let mut form = edit_form(&owner, id, &[]);
        form.extend(only(&shop));
        let asked = post(&owner, &format!("/api-keys/{id}/edit"), &form);
        assert!(asked.body.contains("<strong>More access:</strong> It can also send from shop.test."));
        assert!(asked.body.contains("<strong>Less access:</strong> It can no longer send from acme.test:"));
        assert!(asked.body.contains(&format!("name=\"domain\" value=\"{shop}\"")));
        assert_eq!((from("acme.test"), from("shop.test")), (200, 422));

        save(&owner, id, &[("scope", "domains"), ("domain", &shop)]);
        assert_eq!((from("acme.test"), from("shop.test")), (422, 200));
        let told = save(&owner, id, &[("scope", "domains"), ("domain", &shop), ("domain", &acme)]);
        assert!(told.contains("It can also send from acme.test."), "{told}");
        assert_eq!((from("acme.test"), from("shop.test")), (200, 200));
        let told = save(&owner, id, &[("scope", "all")]);
        assert!(told.contains("every verified domain of the account"), "{told}");
        let told = save(&owner, id, &[("scope", "domains"), ("domain", &acme)]);
        assert!(told.contains("It can send from acme.test only."), "{told}");
        assert_eq!((from("acme.test"), from("shop.test")), (200, 422));
        assert!(owner.get(&format!("/api-keys/{id}")).body
            .contains("scope: All domains → acme.test"));
    }

    fn the_last_domain_of_a_key_cannot_be_deleted_and_the_page_says_which_keys(app: App) {
        let owner = app.owner();
        let (acme, shop) = two_domains(&app, &owner);
        let (id, key) = owner.create_key("Bound", &acme);
        let refused = owner.post(&format!("/domains/{acme}/delete"), &[]);
        assert_eq!(refused.status, 422);
        assert!(refused.body.contains("<bdi>Bound</bdi>"));
        assert_eq!(app.program(&key).email_from("hello@acme.test").status, 200);
        save(&owner, id, &[("scope", "domains"), ("domain", &shop)]);
        assert_eq!(owner.post(&format!("/domains/{acme}/delete"), &[]).status, 303);
    }

    fn an_edit_of_what_someone_else_changed_meanwhile_is_not_lost_nor_done(app: App) {
        let owner = app.owner();
        let (acme, shop) = two_domains(&app, &owner);
        let (id, key) = owner.create_key("Two browsers", "");
        let path = format!("/api-keys/{id}/edit");
        let mut mine = edit_form(&owner, id, &[("description", "Mine"), ("scope", "all"),
            ("confirmed", "yes")]);
        save(&owner, id, &[("scope", "domains"), ("domain", &acme)]);

        let conflict = post(&owner, &path, &mine);
        assert_eq!(conflict.status, 409);
        assert!(conflict.body.contains("Someone has changed this key since you opened the form."));
        assert!(conflict.body.contains("value=\"Mine\""));
        assert_eq!(app.program(&key).email_from("hello@shop.test").status, 422);

        // The form that came back can be saved; what it widens has to be confirmed again.
        mine[0].1 = conflict.field("version");
        assert_eq!(post(&owner, &path, &mine).status, 303);

        // A key that another browser deleted.
        let mine = edit_form(&owner, id, &[("scope", "domains"), ("domain", &shop)]);
        owner.delete_key(id);
        let gone = post(&owner, &path, &mine);
        assert_eq!(gone.location(), Some(&*format!("/api-keys/{id}?notice=ended")));
        let page = owner.get(gone.location().unwrap());
        assert!(page.body.contains("Nothing was changed: this key has ended."));
        assert!(page.body.contains(">Deleted</span> by ada@acme.test"));
        assert_eq!(app.program(&key).verdict(), 403);
    }

    fn wrong_edits_come_back_with_what_was_entered(app: App) {
        let owner = app.owner();
        let (acme, _) = two_domains(&app, &owner);
        let (id, _) = owner.create_key("Wrong", &acme);
        let many: String = (0..101).map(|n| format!("a{n}@acme.test\n")).collect();
        let long = "x".repeat(201);
        let scope = [("scope", "domains"), ("domain", acme.as_str())];
        for (field, value, error) in [
            ("name", "", "Enter a name"),
            ("description", &*long, "at most 200 characters"),
            ("senders", &*many, "at most 100"),
            ("senders", "hello@shop.test", "not at a domain that this key may send from"),
            ("senders", "<b>", "“&#60;b&#62;” is not an email address."),
            ("recipients", "not a domain", "neither an email address nor a domain"),
            ("expiry", "", "Choose when the key expires."),
        ] {
            let form = edit_form(&owner, id, &[&scope[..], &[(field, value)]].concat());
            let answer = post(&owner, &format!("/api-keys/{id}/edit"), &form);
            assert_eq!(answer.status, 422, "{field} {value:?}");
            assert!(answer.body.contains(error), "{error} in {}", answer.body);
        }
        for (date, error) in [
            ("2020-01-01", "This is in the past."),
            ("2100-01-01", "within the next 10 years"),
            ("soon", "Enter a day such as"),
        ] {
            let more = [("expiry", "date"), ("expires_on", date)];
            let form = edit_form(&owner, id, &[&scope[..], &more].concat());
            let answer = post(&owner, &format!("/api-keys/{id}/edit"), &form);
            assert_eq!(answer.status, 422, "{date}");
            assert!(answer.body.contains(error), "{error} in {}", answer.body);
            assert!(answer.body.contains(&format!("value=\"{date}\"")));
        }
        assert_eq!(app.database.number("SELECT count(*) FROM events WHERE action = 'key.edited'"), 0);
    }

    fn pausing_asks_first_and_the_status_says_by_whom(app: App) {
        let owner = app.owner();
        let (id, key) = owner.create_key("Switch", "");
        app.program(&key).info();
        let path = format!("/api-keys/{id}/pause");
        until("the use is written", || owner.get(&path).body.contains("last used"));
        let asked = owner.get(&path);
        assert!(asked.body.contains("get authentication errors until you resume it"));
        assert!(asked.body.contains("from 127.0.0.1"));
        assert_eq!(app.program(&key).verdict(), 200);

        owner.post(&path, &[]);
        for page in ["/api-keys", &*format!("/api-keys/{id}")] {
            assert!(owner.get(page).body.contains(">Paused</span>") && owner.get(page).body.contains("by ada@acme.test · just now"), "{page}");
        }
        assert_eq!(app.program(&key).verdict(), 403);
        let resumed = owner.post(&format!("/api-keys/{id}/resume"), &[]);
        assert_eq!(resumed.location(), Some(&*format!("/api-keys/{id}?notice=resumed")));
        assert!(owner.get(resumed.location().unwrap()).body.contains("role=\"status\">The key is resumed.</p>"));
        assert_eq!(app.program(&key).verdict(), 200);
    }

    fn the_status_says_why_a_key_does_not_send(app: App) {
        let owner = app.owner();
        let pending = owner.add_domain("pending.test");
        owner.create_key("Bound", &pending);
        owner.create_key("Free", "");
        let body = owner.get("/api-keys").body;
        assert_eq!(body.matches("Domain not verified</span>").count(), 1);
        assert_eq!(body.matches(">Active</span>").count(), 1);
        attest(&app.database, "pending.test");
        assert_eq!(owner.get("/api-keys").body.matches(">Active</span>").count(), 2);
        cli(&app.database, &["account", "pause", "--account", EMAIL], "").unwrap();
        let body = owner.get("/api-keys").body;
        assert_eq!(body.matches(">Account paused</span>").count(), 2);
        assert_eq!(body.matches(">Active</span>").count(), 0);
    }

    fn a_rotated_key_goes_on_beside_its_successor_until_it_is_stopped(app: App) {
        let owner = app.owner();
        let (acme, _) = two_domains(&app, &owner);
        let (id, old) = owner.create_key("Pair", &acme);
        save(&owner, id, &[("scope", "domains"), ("domain", &acme), ("description", "Both"),
            ("senders", "hello@acme.test"), ("recipients", "example.org"), ("expiry", "30")]);

        let shown = rotate(&owner, id, &[("overlap", "24h"), ("quiet", "1h")]);
        assert_eq!(shown.status, 200, "{}", shown.body);
        assert_eq!(shown.header("cache-control"), Some("no-store, no-transform"));
        let new = shown.key();
        assert_ne!(new, old);
        for key in [&old, &new] {
            let program = app.program(key);
            assert_eq!(program.email_from("hello@acme.test").status, 200);
            assert_eq!(program.email_from("other@acme.test").status, 422);
            assert_eq!(program.email_from("hello@shop.test").status, 422);
        }
        let new_id = owner.get("/api-keys").key_ids()[0];
        let page = owner.get(&format!("/api-keys/{new_id}")).body;
        for part in ["This key replaces", "Old key last used", "It stops in 24 hours",
            "once it has not been used for an hour", "Both", "In 30 days", "Stop the old key now"]
        {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(!page.contains(&new) && !owner.get("/api-keys").body.contains(&new));
        assert!(owner.get(&format!("/api-keys/{id}")).body.contains("This key is replaced by"));

        // Each of both can be paused and deleted without the other.
        owner.post(&format!("/api-keys/{new_id}/pause"), &[]);
        assert_eq!((app.program(&old).verdict(), app.program(&new).verdict()), (200, 403));
        owner.post(&format!("/api-keys/{new_id}/resume"), &[]);

        let kept = owner.post(&format!("/api-keys/{id}/keep?from={new_id}"), &[]);
        assert_eq!(kept.location(), Some(&*format!("/api-keys/{new_id}?notice=kept")));
        assert!(owner.get(kept.location().unwrap()).body.contains("The key no longer stops automatically."));
        assert!(owner.get(&format!("/api-keys/{new_id}")).body
            .contains("It keeps working until you stop it."));

        owner.post(&format!("/api-keys/{id}/stop"), &[]);
        assert_eq!((app.program(&old).verdict(), app.program(&new).verdict()), (403, 200));
        assert!(owner.get(&format!("/api-keys/{id}")).body.contains(">Stopped</span> by ada@acme.test"));
        assert!(!owner.get(&format!("/api-keys/{new_id}")).body.contains("This key replaces"));
        assert_eq!(app.database.number("SELECT key_count FROM accounts"), 1);
    }

    fn a_pair_stands_together_in_the_list(app: App) {
        let owner = app.owner();
        let (first, _) = owner.create_key("First", "");
        let (second, _) = owner.create_key("Second", "");
        let (third, _) = owner.create_key("Third", "");
        rotate(&owner, first, &[("overlap", "7d")]);
        rotate(&owner, 4, &[("overlap", "manual")]);
        assert_eq!(owner.get("/api-keys").key_ids(), [5, 4, first, third, second]);
    }

    fn a_rotation_that_cannot_be_is_told(app: App) {
        let owner = app.owner();
        let (id, old) = owner.create_key("Once", "");
        for (form, error) in [
            (&[][..], "Choose how long the old key keeps working."),
            (&[("overlap", "8d")], "Choose how long the old key keeps working."),
            (&[("overlap", "1h"), ("quiet", "2h")], "Choose one of these times."),
            (&[("overlap", "1h"), ("expiry", "9")], "Choose when the key expires."),
            (&[("overlap", "1h"), ("expires_on", "2030-01-01")], "or clear the date."),
            (&[("overlap", "1h"), ("expiry", "date"), ("expires_on", "2020-01-01")],
                "This is in the past."),
        ] {
            let answer = rotate(&owner, id, form);
            assert_eq!(answer.status, 422, "{form:?}");
            assert!(answer.body.contains(error), "{error} in {}", answer.body);
        }
        let new = rotate(&owner, id, &[("overlap", "1h")]).key();
        let again = rotate(&owner, id, &[("overlap", "1h")]);
        assert_eq!(again.find_key(), None);
        assert!(again.body.contains("This key has already been rotated"));
        assert!(owner.get(&format!("/api-keys/{id}/rotate")).body.contains("already been rotated"));

        // A successor that nobody copied: it is deleted, and there is another one. Meanwhile the old
        // key's page still says when it stops, and can take that back.
        let new_id = id + 1;
        assert!(again.body.contains(&format!("/api-keys/{new_id}/delete")));
        owner.delete_key(new_id);
        let page = owner.get(&format!("/api-keys/{id}")).body;
        assert!(page.contains("its replacement has ended since. It stops in 1 hour"));
        assert!(page.contains(&format!("/api-keys/{id}/keep")));
        assert!(owner.get("/api-keys").body.contains(">Stopping</span><span class=\"sub\">in 1 hour"));
        // Only a key that is replaced is stopped without a question.
        owner.post(&format!("/api-keys/{id}/stop"), &[]);
        assert_eq!((app.program(&old).verdict(), app.program(&new).verdict()), (200, 403));
        let newer = rotate(&owner, id, &[("overlap", "now")]).key();
        assert_eq!((app.program(&old).verdict(), app.program(&newer).verdict()), (403, 200));

        // The answer that showed the successor was lost: it says what to do.
        let ended = rotate(&owner, id, &[("overlap", "now")]);
        assert!(ended.body.contains("rotate the new key"), "{}", ended.body);
        let newest = id + 2;
        owner.delete_key(newest);
        let ended = rotate(&owner, id, &[("overlap", "1h")]);
        assert_eq!(ended.location(), Some(&*format!("/api-keys/{id}?notice=ended")));
        assert_eq!(rotate(&owner, 999, &[("overlap", "1h")]).status, 404);
    }

    fn ended_keys_are_shown_for_90_days_with_who_and_when(app: App) {
        let owner = app.owner();
        let (acme, _) = two_domains(&app, &owner);
        let (id, key) = owner.create_key("Gone", &acme);
        let (kept, _) = owner.create_key("Kept", "");
        assert!(owner.get("/api-keys?show=ended").body.contains("No keys have ended"));
        owner.delete_key(id);
        assert_eq!(owner.get("/api-keys").key_ids(), [kept]);
        let ended = owner.get("/api-keys?show=ended");
        assert_eq!(ended.key_ids(), [id]);
        assert!(ended.body.contains(">Deleted</span><span class=\"sub\">by ada@acme.test · just now"));
        assert!(ended.body.contains("acme.test"));
        let page = owner.get(&format!("/api-keys/{id}"));
        assert!(page.body.contains(">Deleted</span> by ada@acme.test") && page.body.contains("acme.test"));
        for gone in ["/edit", "/rotate", "/pause", "/delete"] {
            assert!(!page.body.contains(&format!("href=\"/api-keys/{id}{gone}")), "{gone}");
        }
        assert!(!page.body.contains(&key));

        app.database.execute("UPDATE api_keys SET ended_at = '2020-01-01 00:00:00.000000' WHERE id = 1");
        assert!(owner.get("/api-keys?show=ended").key_ids().is_empty());
        assert_eq!(owner.get(&format!("/api-keys/{id}")).status, 404);
    }

    fn an_expired_key_is_refused_told_and_makes_room(
        app: App, with |settings| settings.key_limit = "1".into()
    ) {
        let owner = app.owner();
        let form = [("name", "Brief"), ("scope", "all"), ("expiry", "7")];
        let nonce = owner.nonce();
        let key = owner.post("/api-keys", &[&form[..], &[("nonce", &nonce)]].concat()).key();
        assert!(owner.get("/api-keys").body.contains(">Expiring</span><span class=\"sub\">in 7 days"));
        assert!(owner.create("Second", "").body.contains("which is the limit"));
        assert_eq!(app.program(&key).verdict(), 200);

        let an_hour_ago = chrono::Utc::now() - chrono::TimeDelta::hours(1);
        let an_hour_ago = an_hour_ago.format("%Y-%m-%d %H:%M:%S%.6f");
        app.database.execute(&format!("UPDATE api_keys SET expires_at = '{an_hour_ago}'"));
        let refused = app.program(&key).verify();
        let unknown = app.program("tsend_abcdefghijklmnopqrstuvwxyzABCDEF4b12qQ").verify();
        assert_eq!((refused.status, refused.body), (403, unknown.body));
        // Nobody needs to wait until that is written down.
        assert!(owner.get("/api-keys/1").body.contains("Expired"));
        let answer = owner.get("/api-keys/1/edit");
        assert_eq!(answer.location(), Some("/api-keys/1?notice=ended"));
        assert_eq!(owner.create("Second", "").status, 200);
        assert_eq!(owner.get("/api-keys?show=ended").key_ids(), [1]);
        assert_eq!(owner.get("/api-keys").key_ids(), [2]);
    }

    fn a_pasted_key_leads_to_its_row_and_is_shown_nowhere(app: App) {
        let owner = app.owner();
        let (id, key) = owner.create_key("Leaked", "");
        let find = |visitor: &Visitor, pasted: &str| {
            let answer = visitor.post("/api-keys/find", &[("pasted", pasted)]);
            assert!(!answer.body.contains(&key), "{}", answer.body);
            assert_eq!(answer.location(), None);
            answer
        };
        let short = format!("{}…{}", &key[..8], &key[40..]);
        for pasted in [key.clone(), format!("export TOSEND_API_KEY='{key}' # prod"), short] {
            let found = find(&owner, &pasted);
            assert_eq!(found.status, 200);
            for part in ["<bdi>Leaked</bdi>", "It has never been used.",
                &format!("href=\"/api-keys/{id}/pause\""), &format!("href=\"/api-keys/{id}/delete\"")]
            {
                assert!(found.body.contains(part), "{part} in {}", found.body);
            }
        }

        let swapped = if key.ends_with('0') { "1" } else { "0" };
        let mistyped = format!("{}{swapped}", &key[..43]);
        let valid = "tsend_abcdefghijklmnopqrstuvwxyzABCDEF4b12qQ";
        for (pasted, told) in [
            ("", "Paste a key"),
            ("re_123456789", "those begin with tsend_"),
            (&*mistyped, "missing or mistyped"),
            (&key[..43], "too short"),
            ("tsend_admin_abcdefghijklmnop", "an admin key"),
            (valid, "not one of this account"),
            ("tsend_zz…0000", "No key of this account looks like this"),
        ] {
            let answer = find(&owner, pasted);
            assert_eq!(answer.status, 422, "{pasted}");
            assert!(answer.body.contains(told), "{told} in {}", answer.body);
            assert!(!answer.body.contains("id=\"found\""));
        }

        // Another account learns no more of it than of one that nobody has.
        let stranger = app.stranger();
        assert_eq!(find(&stranger, &key).body, find(&stranger, valid).body);

        owner.delete_key(id);
        let found = find(&owner, &key);
        assert!(found.body.contains(">Deleted</span><span class=\"sub\">by ada@acme.test"), "{}", found.body);
        assert!(found.body.contains("It has ended and no longer works."));
        assert!(!found.body.contains(&format!("/api-keys/{id}/delete")));
    }

    fn stopping_a_key_asks_first_with_its_last_use_and_calls(app: App) {
        let owner = app.owner();
        let (id, old) = owner.create_key("Shop", "");
        rotate(&owner, id, &[("overlap", "24h")]);
        let new_id = id + 1;
        assert_eq!(app.program(&old).verdict(), 200);
        let path = format!("/api-keys/{id}/stop");
        until("the call is counted", || owner.get(&path).body.contains("<strong>1 call</strong>"));
        let asked = owner.get(&path);
        for part in ["Stop “<bdi>Shop</bdi>”?", "It was last used", "stops working at once", "Cancel",
            "Stop key", &format!("action=\"{path}\"")]
        {
            assert!(asked.body.contains(part), "{part} in {}", asked.body);
        }
        // From the page of its successor it leads back there.
        let from = format!("{path}?from={new_id}");
        let dialog = owner.htmx_get(&from).body;
        assert!(dialog.contains(&format!("action=\"{from}\"")) && !dialog.contains("<html"));
        for page in [id, new_id] {
            let page = owner.get(&format!("/api-keys/{page}")).body;
            assert!(page.contains(&format!("href=\"{path}")), "{page}");
            assert!(!page.contains(&format!("action=\"{path}")), "{page}");
        }
        assert_eq!(app.program(&old).verdict(), 200);

        let stopped = owner.post(&from, &[]);
        assert_eq!(stopped.location(), Some(&*format!("/api-keys/{new_id}?notice=stopped")));
        assert!(owner.get(stopped.location().unwrap()).body.contains("The old key was stopped."));
        assert_eq!(app.program(&old).verdict(), 403);
        assert_eq!(owner.get(&path).location(), Some(&*format!("/api-keys/{id}?notice=ended")));
        let alone = owner.get(&format!("/api-keys/{new_id}/stop"));
        assert_eq!(alone.location(), Some(&*format!("/api-keys/{new_id}?notice=not-replaced")));
    }

    fn the_page_of_a_key_says_what_is_so_in_each_state(app: App) {
        let owner = app.owner();
        let pair = |name: &str, form: &[(&str, &str)]| {
            let (id, _) = owner.create_key(name, "");
            rotate(&owner, id, form);
            (id, id + 1)
        };
        let (going, successor) = pair("Going", &[("overlap", "24h"), ("quiet", "1h")]);
        let (stopped, _) = pair("Stopped", &[("overlap", "24h")]);
        owner.post(&format!("/api-keys/{stopped}/stop"), &[]);
        let (widow, deleted) = pair("Widow", &[("overlap", "24h"), ("quiet", "1h")]);
        owner.delete_key(deleted);
        let (expiring, of_expiring) = pair("Expiring", &[("overlap", "7d")]);
        let (alone, _) = owner.create_key("Alone", "");
        let (paused, _) = owner.create_key("Paused", "");
        owner.post(&format!("/api-keys/{paused}/pause"), &[]);
        let (expired, _) = owner.create_key("Expired", "");
        let at = |hours: i64| {
            let at = chrono::Utc::now() + chrono::TimeDelta::minutes(60 * hours + 15);
            at.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
        };
        for (id, hours) in [(expiring, 2), (expired, -2), (stopped, 90)] {
            app.database.execute(&format!("UPDATE api_keys SET expires_at = '{}' WHERE id = {id}", at(hours)));
        }
        // The new key was used, the old one was not.
        app.database.execute(&format!(
            "INSERT INTO api_key_uses VALUES ({successor}, '{}', '::1', '')", at(-5)));
        let flat = |html: &str| {
            let mut text = String::new();
            for (at, part) in html.split('<').enumerate() {
                let (tag, rest) = if at == 0 { ("", part) } else { part.split_once('>').unwrap() };
                if ["/dt", "/dd", "/p", "/a", "/span"].contains(&tag) {
                    text.push(' ');
                }
                text.push_str(rest);
            }
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let ahead = ["It stops", "It expires", "It keeps working", "Stop this key now", "In 3"];
        for (id, status, said, not_said) in [
            (alone, "Active", &["Expires Never"][..], &["Rotation", "It stops", "replace"][..]),
            (paused, "Paused by ada@acme.test", &["Resume", "Expires Never"], &["It stops"]),
            (going, "Stopping in 24 hours", &["This key is replaced by", "New key last used: 4 hours ago.",
                "Old key last used: never.", "It stops in 24 hours", "or once it has not been used for an hour",
                "Last used Never"], &["It keeps working"]),
            (successor, "Active", &["This key replaces", "Old key last used: never",
                "It stops in 24 hours", "Last used 4 hours ago"], &["It keeps working"]),
            (stopped, "Stopped by ada@acme.test", &["This key was replaced by"], &ahead),
            (widow, "Stopping in 24 hours", &["has ended since. It stops in 24 hours"], &["or once it has not been used"]),
            (deleted, "Deleted by ada@acme.test", &["This key replaced", "which has not ended", "It stops in 24 hours"],
                &["or once it has not been used", "Stop the old key now"]),
            (expiring, "Expiring in 2 hours", &["It expires in 2 hours"], &["It stops"]),
            (of_expiring, "Active", &["It expires in 2 hours"], &["It stops"]),
            (expired, "Expired", &["Could send from"], &ahead),
        ] {
            let page = owner.get(&format!("/api-keys/{id}")).body;
            let (_, main) = page.split_once("class=\"main\">").unwrap();
            let text = flat(main.split("<section class=\"card\" aria-labelledby=\"events-title\"").next().unwrap());
            for part in [&[status], said].concat() {
                assert!(text.contains(part), "{id}: {part} in {text}");
            }
            for part in not_said {
                assert!(!text.contains(part), "{id}: {part} in {text}");
            }
        }
    }

    fn all_keys_of_a_pasted_text_are_told_those_that_work_first(app: App) {
        let owner = app.owner();
        let (stopped, old) = owner.create_key("Old", "");
        let (paused, held) = owner.create_key("Held", "");
        let (active, new) = owner.create_key("New", "");
        owner.delete_key(stopped);
        owner.post(&format!("/api-keys/{paused}/pause"), &[]);
        let swapped = if new.ends_with('0') { "1" } else { "0" };
        let mistyped = format!("{}{swapped}", &new[..43]);
        let unknown = "tsend_abcdefghijklmnopqrstuvwxyzABCDEF4b12qQ";
        let text = format!("old={old} new={new}\nheld: {}…{}\n{unknown}\n{mistyped} {new}\n", &held[..8], &held[40..]);
        let answer = owner.post("/api-keys/find", &[("pasted", &text)]);
        assert_eq!(answer.status, 200, "{}", answer.body);
        for key in [&old[..], &new, &mistyped, unknown] {
            assert!(!answer.body.contains(&key[8..40]), "{}", answer.body);
        }
        let places = [active, paused, stopped].map(|id| {
            answer.body.find(&format!("<p><a href=\"/api-keys/{id}\">")).expect("a key of the text")
        });
        assert!(places.is_sorted(), "{}", answer.body);
        assert_eq!(answer.body.matches("<div class=\"found\">").count(), 3);
        for part in ["Line 3: This is a complete key, but not one", "Line 4: A character is missing or mistyped"] {
            assert!(answer.body.contains(part), "{part} in {}", answer.body);
        }
        assert!(answer.body.contains("<textarea"));
        let told = cli(&app.database, &["key", "find", "--account", EMAIL], &text).unwrap();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 4, "{told}");
        assert!(lines[0].contains("“New”") && lines[0].contains("which works"), "{told}");
        assert!(lines[1].starts_with("This looks like “Held”"), "{told}");
        assert!(lines[2].contains("“Old”") && lines[2].contains("was deleted"), "{told}");
        assert_eq!(lines[3], format!("Number: {active}, {paused}, {stopped}"));
        let in_vain = cli(&app.database, &["key", "find", "--account", EMAIL], &format!("{unknown}\n{mistyped}"));
        assert!(in_vain.unwrap_err().contains("Line 2:"));
    }

    fn a_status_has_one_word_in_badge_filter_page_and_command_line(app: App) {
        let owner = app.owner();
        let pending = owner.add_domain("pending.test");
        owner.create_key("active", "");
        owner.create_key("paused", &pending);
        owner.create_key("domain not verified", &pending);
        owner.create_key("deleted", "");
        owner.post("/api-keys/2/pause", &[]);
        owner.delete_key(4);
        let compare = || {
            let list = owner.get("/api-keys").body;
            let told = ["", "--ended"].map(|ended| {
                let mut list = vec!["key", "list", "--account", EMAIL];
                list.extend(Some(ended).filter(|flag| !flag.is_empty()));
                cli(&app.database, &list, "").unwrap()
            });
            for line in told.iter().flat_map(|text| text.lines()) {
                let cells: Vec<&str> = line.split('\t').collect();
                let (id, word) = (cells[0], cells[2]);
                let label = format!("{}{}", word[..1].to_uppercase(), &word[1..]);
                let page = owner.get(&format!("/api-keys/{id}")).body;
                assert!(page.contains(&format!(">{label}</span>")), "{label} in {page}");
                if cells.len() == 7 {
                    continue;
                }
                let (option, _) = list.split_once(&format!(">{label}</option>")).expect(&label);
                let value = option.rsplit('"').nth(1).unwrap();
                let found = owner.get(&format!("/api-keys?status={value}"));
                assert!(found.key_ids().contains(&id.parse().unwrap()), "{label}");
                let badges = found.body.matches(&format!(">{label}</span>")).count();
                assert_eq!(badges, found.key_ids().len(), "{label}");
            }
        };
        compare();
        cli(&app.database, &["account", "pause", "--account", EMAIL], "").unwrap();
        compare();
    }

    fn a_form_that_comes_back_begins_at_the_first_wrong_field(app: App) {
        let owner = app.owner();
        let (id, _) = owner.create_key("Shop", "");
        let version = owner.get(&format!("/api-keys/{id}/edit")).field("version");
        let edit = [("version", &*version), ("name", "Shop"), ("scope", "all"), ("expiry", "keep")];
        let edit_path = format!("/api-keys/{id}/edit");
        let rotate_path = format!("/api-keys/{id}/rotate");
        for (path, base, wrong, begins) in [
            (&*edit_path, &edit[..], &[("name", "")][..], "id=\"key-name\""),
            (&edit_path, &edit, &[("scope", "")], "name=\"scope\" value=\"all\""),
            (&edit_path, &edit, &[("expiry", "8"), ("senders", "<x>")], "id=\"key-expiry\""),
            (&edit_path, &edit, &[("expiry", "date"), ("expires_on", "2020-01-01")], "id=\"key-expires-on\""),
            (&edit_path, &edit, &[("senders", "<x>"), ("recipients", "<x>")], "id=\"key-senders\""),
            (&edit_path, &edit, &[("recipients", "<x>")], "id=\"key-recipients\""),
            ("/api-keys", &edit, &[("senders", "<x>")], "id=\"key-senders\""),
            (&rotate_path, &[], &[("overlap", "8d")], "name=\"overlap\" value=\"now\""),
            (&rotate_path, &[], &[("overlap", "1h"), ("quiet", "2h")], "id=\"quiet\""),
            (&rotate_path, &[], &[("overlap", "1h"), ("expiry", "9")], "id=\"key-expiry\""),
            ("/domains", &[], &[("name", "x y")], "id=\"name\""),
            ("/settings/title", &[], &[("title", "")], "id=\"account-title\""),
            ("/settings/password", &[], &[("current", PASSWORD), ("new", "short")], "id=\"new-password\""),
            ("/api-keys/find", &[], &[("pasted", "nothing")], "id=\"pasted\""),
        ] {
            let answer = owner.post(path, &[base, wrong].concat());
            assert_eq!(answer.status, 422, "{path} {wrong:?}");
            let focused: Vec<&str> = answer.body.split('<').filter(|tag| {
                tag.split('>').next().unwrap().contains(" autofocus")
            }).collect();
            let first = focused.first().expect("a field with the focus");
            assert!(first.contains(begins), "{path} {wrong:?}: {focused:?}");
        }
    }
}
