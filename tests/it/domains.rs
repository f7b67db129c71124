//! The Domains pages.

use crate::support::*;

fn add(visitor: &Visitor, name: &str) -> Answer {
    visitor.post("/domains", &[("name", name)])
}

/// The names in the list, in its order.
fn names(visitor: &Visitor) -> Vec<String> {
    let page = visitor.get("/domains").body;
    let rows = page.split("<th scope=\"row\"><a href=\"/domains/").skip(1);
    let name = |row: &str| row.split(['>', '<']).nth(1).unwrap().to_owned();
    rows.map(name).collect()
}

fn domains(app: &App) -> i64 {
    app.database.number("SELECT COUNT(*) FROM sending_domains")
}

both! {
    fn a_domain_is_added_shown_and_deleted(app: App) {
        let owner = app.owner();
        assert!(owner.get("/domains").body.contains("No domains yet."));
        let id = owner.add_domain("Acme.TEST.");
        owner.add_domain(" bücher.example ");
        owner.add_domain("a.acme.test");
        assert_eq!(names(&owner), ["a.acme.test", "acme.test", "xn--bcher-kva.example"]);
        let badge = "<span class=\"badge pending\">Pending</span>";
        assert_eq!(owner.get("/domains").body.matches(badge).count(), 3);

        let page = owner.get(&format!("/domains/{id}"));
        assert_eq!(page.status, 200);
        assert!(page.body.contains("<h1 tabindex=\"-1\">acme.test</h1>"));

        let path = format!("/domains/{id}/delete");
        let confirm = owner.get(&path);
        assert!(confirm.body.contains("Delete acme.test?"));
        for part in ["Its DNS record <code>tosend._domainkey.acme.test</code> is then no longer needed",
            "If you add the domain again, it gets a new key pair"]
        {
            assert!(confirm.body.contains(part), "{}", confirm.body);
        }
        assert!(confirm.body.contains(&format!("method=\"post\" action=\"{path}\"")));
        assert_eq!(domains(&app), 3);
        let deleted = owner.post(&path, &[]);
        assert_eq!((deleted.status, deleted.location()), (303, Some("/domains")));
        assert_eq!(names(&owner), ["a.acme.test", "xn--bcher-kva.example"]);
        for gone in [format!("/domains/{id}"), path.clone()].map(|path| owner.get(&path)) {
            assert_eq!(gone.status, 404);
        }
        assert_eq!(owner.post(&path, &[]).status, 404);
        assert_ne!(owner.add_domain("acme.test"), id);
    }

    fn what_is_no_domain_of_ones_own_is_refused(app: App) {
        let owner = app.owner();
        owner.add_domain("acme.test");
        owner.add_domain("xn--bcher-kva.example");
        let anyone = "Anyone can register names under this ending";
        let alone = "Enter only the domain";
        let (address, twice) = ("instead of an IP address", "is in your list already");
        for (given, why) in [
            ("", "Enter a domain, for example"),
            ("acme.test", twice),
            ("ACME.test.", twice),
            ("bücher.example", twice),
            ("com", "Enter the full domain with its ending"),
            ("localhost", "Enter the full domain with its ending"),
            ("co.uk", anyone),
            ("github.io", anyone),
            ("192.0.2.1", address),
            ("2001:db8::1", address),
            ("https://ada@acme.com", alone),
            ("ftp://acme.com", alone),
            ("https://acme.test/", twice),
            ("acme.com/mail", alone),
            ("ada@acme.com", alone),
            ("acme.com:25", alone),
            ("ac_me.com", "This is not a valid domain name."),
            (&format!("{}.com", "a".repeat(64)), "This is not a valid domain name."),
        ] {
            let answer = add(&owner, given);
            assert_eq!(answer.status, 422, "{given}");
            let beside = answer.body.split("id=\"name-error\">").nth(1).unwrap();
            assert!(beside.split("</p>").next().unwrap().contains(why), "{given}: {beside}");
            assert_eq!(answer.field("name"), given);
        }
        assert_eq!(domains(&app), 2);
    }

    fn a_pasted_web_address_means_its_domain(app: App) {
        let owner = app.owner();
        for (given, name) in [
            ("https://Acme.com/", "acme.com"),
            (" HTTP://shop.acme.com:8080/a?b#c ", "shop.acme.com"),
            ("https://bücher.example", "xn--bcher-kva.example"),
            ("mail.acme.com./", "mail.acme.com"),
        ] {
            let id = owner.add_domain(given);
            let page = owner.get(&format!("/domains/{id}")).body;
            assert!(page.contains(&format!("<h1 tabindex=\"-1\">{name}</h1>")), "{given}");
        }
        let add = ["domain", "add", "--account", EMAIL, "https://cli.test/"];
        let told = cli(&app.database, &add, "").unwrap();
        assert!(told.starts_with("cli.test is pending.\n"), "{told}");
    }

    fn a_domain_that_is_there_already_costs_no_key(app: App) {
        let owner = app.owner();
        owner.add_domain("acme.test");
        let made = app.checker.keys_made();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    let visitor = app.visitor();
                    visitor.set_cookie(owner.cookie());
                    assert_eq!(add(&visitor, "ACME.test").status, 422);
                });
            }
        });
        assert_eq!(app.checker.keys_made(), made);
        assert_eq!(domains(&app), 1);
    }

    fn a_domain_that_is_added_many_times_at_once_costs_one_key(app: App) {
        let owner = app.owner();
        let cookie = owner.cookie();
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let posts: Vec<_> = (0..20).map(|_| {
                let visitor = app.visitor();
                visitor.set_cookie(cookie.clone());
                scope.spawn(move || add(&visitor, "acme.test").status)
            }).collect();
            posts.into_iter().map(|post| post.join().unwrap()).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 303).count(), 1, "{statuses:?}");
        assert_eq!(app.checker.keys_made(), 1);
    }

    fn a_domain_without_a_key_gets_one_however_many_look_at_it(app: App) {
        let owner = app.owner();
        let path = format!("/domains/{}", owner.add_domain("acme.test"));
        let made = app.checker.keys_made();
        // As an older version left it; and the server itself does not look at it now.
        app.database.execute(
            "UPDATE sending_domains SET dkim_public = NULL, dkim_private = NULL,
                next_check_at = '9000-01-01 00:00:00'"
        );
        let cookie = owner.cookie();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                let visitor = app.visitor();
                visitor.set_cookie(cookie.clone());
                let path = &path;
                scope.spawn(move || assert_eq!(visitor.get(path).status, 200));
            }
        });
        assert_eq!(app.checker.keys_made(), made + 1);
    }

    fn an_account_has_no_more_domains_than_its_limit(
        app: App, with |settings| settings.domain_limit = "5".into()
    ) {
        let (owner, stranger) = (app.owner(), app.stranger());
        let second = App::on(app.database.again(), |settings| settings.domain_limit = "5".into());
        let cookie = owner.cookie();
        std::thread::scope(|scope| {
            for (app, n) in [&app, &second].into_iter().cycle().zip(0..20) {
                let cookie = cookie.clone();
                scope.spawn(move || {
                    let visitor = app.visitor();
                    visitor.set_cookie(cookie);
                    let answer = add(&visitor, &format!("acme{n}.test"));
                    assert!([303, 422].contains(&answer.status), "{}", answer.body);
                });
            }
        });
        assert_eq!(domains(&app), 5);
        // What was refused cost no key, but where both nodes were at it.
        assert!(app.checker.keys_made() + second.checker.keys_made() <= 10);

        let made = app.checker.keys_made();
        let refused = add(&owner, "more.test");
        assert_eq!(refused.status, 422);
        assert!(refused.body.contains("This account has 5 domains, which is its limit."));
        assert_eq!(refused.field("name"), "more.test");
        assert!(add(&owner, &names(&owner)[0]).body.contains("is in your list already"));
        assert_eq!(app.checker.keys_made(), made);
        stranger.add_domain("more.test");

        let limit = ["--domain-limit", "5"];
        let args = ["domain", "add", "--account", EMAIL, "more.test"];
        let refused = cli(&app.database, &[&limit[..], &args].concat(), "").unwrap_err();
        assert!(refused.contains("the account has 5 domains, which is its limit"), "{refused}");
        let known = ["domain", "add", "--account", EMAIL, &names(&owner)[0]];
        assert!(cli(&app.database, &[&limit[..], &known].concat(), "").is_ok());
        let file = app.database.folder.path().join("keys.toml");
        let declared = format!("account = \"{EMAIL}\"\n[[domain]]\nname = \"more.test\"\n");
        std::fs::write(&file, declared).unwrap();
        let args = [&limit[..], &["apply", file.to_str().unwrap()]].concat();
        let refused = cli(&app.database, &args, "").unwrap_err();
        assert!(refused.contains("line 2: the account has 5 domains"), "{refused}");
        assert_eq!(domains(&app), 6);

        let id = app.database.number("SELECT MIN(id) FROM sending_domains");
        assert_eq!(owner.post(&format!("/domains/{id}/delete"), &[]).status, 303);
        owner.add_domain("more.test");
    }

    fn a_domain_may_have_any_ending_and_be_in_two_accounts(app: App) {
        let (owner, stranger) = (app.owner(), app.stranger());
        for name in ["nas.lan", "acme.internal", "acme.unknown-ending", "mail.acme.co.uk"] {
            owner.add_domain(name);
            stranger.add_domain(name);
        }
        assert_eq!(names(&owner), names(&stranger));
        assert_eq!(domains(&app), 8);
    }

    fn the_operator_attests_a_domain_with_the_command_that_its_page_shows(app: App) {
        let owner = app.owner();
        let id = owner.add_domain("acme.test");
        let path = format!("/domains/{id}");
        let command = format!(" domain add --account={EMAIL} acme.test --verified</code>");
        assert!(owner.get(&path).body.contains(&command), "{}", owner.get(&path).body);

        let (_, key) = owner.create_key("x", "");
        let program = app.program(&key);
        let refused = program.email_from("ada@acme.test");
        assert_eq!(refused.status, 422);
        assert!(refused.body.contains("domain_not_verified"));
        for _ in 0..2 {
            assert_eq!(attest(&app.database, "ACME.test"), "acme.test is verified.\n");
            let page = owner.get(&path).body;
            assert!(page.contains("<span class=\"badge verified\">Verified</span>"));
            assert!(!page.contains("--verified"));
            assert_eq!(program.email_from("ada@acme.test").status, 200);
        }
        // To add it again, here or there, takes nothing back.
        assert_eq!(add(&owner, "acme.test").status, 422);
        let args = ["domain", "add", "--account", EMAIL, "acme.test"];
        assert_eq!(cli(&app.database, &args, "").unwrap(), "acme.test is verified.\n");
        assert_eq!(domains(&app), 1);
    }

    fn an_operator_attests_for_one_account_alone(app: App) {
        let (owner, stranger) = (app.owner(), app.stranger());
        let theirs = stranger.add_domain("acme.test");
        assert_eq!(attest(&app.database, "acme.test"), "acme.test is verified.\n");
        assert!(stranger.get(&format!("/domains/{theirs}")).body.contains("Pending"));
        assert_eq!(names(&owner), ["acme.test"]);
    }

    fn a_domain_that_keys_are_restricted_to_stays(app: App) {
        let owner = app.owner();
        let id = owner.add_domain("acme.test");
        attest(&app.database, "acme.test");
        let (first, key) = owner.create_key("Billing <b>", &id);
        let (second, _) = owner.create_key("Newsletter", &id);
        owner.create_key("Everything", "");
        owner.post(&format!("/api-keys/{second}/pause"), &[]);
        let path = format!("/domains/{id}/delete");
        let assert_is_in_use = |answer: Answer, status: u16, names: &[&str]| {
            assert_eq!(answer.status, status);
            assert!(answer.body.contains("acme.test is in use"));
            let list = answer.body.split("<li><a href=\"/api-keys/").skip(1);
            let list = list.map(|item| item.split("<bdi>").nth(1).unwrap());
            let list: Vec<_> = list.map(|item| item.split("</bdi>").next().unwrap()).collect();
            assert_eq!(list, names);
            assert!(!answer.body.contains(&format!("action=\"{path}\"")));
            assert_eq!(domains(&app), 1);
        };
        let both = ["Newsletter", "Billing &#60;b&#62;"];
        assert_is_in_use(owner.get(&path), 200, &both);
        assert_is_in_use(owner.post(&path, &[]), 422, &both);
        assert_eq!(app.program(&key).email_from("ada@acme.test").status, 200);

        owner.delete_key(first);
        assert_is_in_use(owner.post(&path, &[]), 422, &["Newsletter"]);
        owner.delete_key(second);
        assert!(owner.get(&path).body.contains("Delete acme.test?"));
        let page = owner.get(&path).body;
        assert!(page.contains("DNS record <code>tosend._domainkey.acme.test</code> is then no longer"));
        assert!(page.contains("it gets a new key pair and needs a new record"));
        assert_eq!(owner.post(&path, &[]).status, 303);
        assert_eq!(domains(&app), 0);
    }

    fn deleting_a_domain_and_restricting_a_key_to_it_at_once_never_widens_the_key(app: App) {
        let owner = app.owner();
        for round in 0..10 {
            let id = owner.add_domain(&format!("acme{round}.test"));
            let nonce = owner.nonce();
            let cookie = owner.cookie();
            let post = |path: &str, form: &[(&str, &str)]| {
                let visitor = app.visitor();
                visitor.set_cookie(cookie.clone());
                visitor.post(path, form).status
            };
            let path = format!("/domains/{id}/delete");
            let form = [&[("nonce", nonce.as_str()), ("name", "x")], &*scope(&id)].concat();
            let (deleted, created) = std::thread::scope(|scope| {
                let deleted = scope.spawn(|| post(&path, &[]));
                let created = scope.spawn(|| post("/api-keys", &form));
                (deleted.join().unwrap(), created.join().unwrap())
            });
            assert!([(303, 422), (422, 200)].contains(&(deleted, created)), "{deleted} {created}");
        }
        for (sql, count) in [
            ("SELECT COUNT(*) FROM api_keys WHERE all_domains", 0),
            ("SELECT COUNT(*) FROM api_keys WHERE id NOT IN
                (SELECT api_key_id FROM api_key_domains)", 0),
            ("SELECT COUNT(*) FROM sending_domains WHERE id NOT IN
                (SELECT domain_id FROM api_key_domains)", 0),
        ] {
            assert_eq!(app.database.number(sql), count, "{sql}");
        }
    }
}

/// On SQLite there is one writer at a time.
#[test]
fn a_domain_that_another_node_adds_at_the_same_time_counts() {
    let app = App::start(Backend::Postgres, |settings| {
        settings.domain_limit = "1".into();
    });
    let owner = app.owner();
    let mut other = app.database.lock("email_counts");
    other
        .batch_execute(
            "UPDATE accounts SET key_count = key_count;
             INSERT INTO sending_domains
                (account_id, name, status, created_at, pending_since, dkim_public)
             SELECT id, 'first.test', 'pending', now(), now(), 'none' FROM accounts",
        )
        .unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    std::thread::scope(|scope| {
        let second = scope.spawn(|| add(&owner, "second.test").status);
        until("it waits, or is through", || {
            second.is_finished() || app.database.number(waits) > 0
        });
        other.batch_execute("COMMIT").unwrap();
        assert_eq!(second.join().unwrap(), 422);
    });
    assert_eq!(domains(&app), 1);
}
