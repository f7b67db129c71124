//! The list of keys as people look for one in it, and what browsers remember of how it should look.

use crate::support::*;

/// The names of the keys that an address shows, in its order.
fn names(owner: &Visitor, query: &str) -> Vec<String> {
    let page = owner.get(&format!("/api-keys{query}"));
    assert_eq!(page.status, 200, "{query}");
    let rows = page.body.split("<tr id=\"key-").skip(1);
    let name = |row: &str| {
        let (_, rest) = row.split_once("<bdi>").unwrap();
        rest.split_once("</bdi>").unwrap().0.to_owned()
    };
    rows.map(name).collect()
}

/// Makes a key as old as that, and lets it be used then.
fn age(app: &App, id: i64, created: &str, used: Option<&str>) {
    let instant = |ago: &str| match app.database.backend() {
        Backend::Sqlite => format!("strftime('%F %R:%f', 'now', '-{ago}')"),
        Backend::Postgres => format!("(now() AT TIME ZONE 'UTC') - interval '{ago}'"),
    };
    let created = instant(created);
    app.database.execute(&format!(
        "UPDATE api_keys SET created_at = {created} WHERE id = {id}"
    ));
    if let Some(used) = used {
        let used = instant(used);
        app.database.execute(&format!(
            "INSERT INTO api_key_uses VALUES ({id}, {used}, '::1', '')"
        ));
    }
}

/// Five keys: by id, 1 Production for a verified domain, used and old; 2 Staging for a pending one;
/// 3 laptop, paused; 4 Newsletter, unused; 5 archive, fresh.
fn furnish(app: &App) -> Visitor {
    let owner = app.owner();
    let acme = owner.add_domain("acme.test");
    attest(&app.database, "acme.test");
    let pending = owner.add_domain("pending.test");
    owner.create("Production", &acme);
    owner.create("Staging", &pending);
    owner.create("laptop", "");
    owner.create("Newsletter", "");
    owner.create("archive", "");
    age(app, 1, "100 days", Some("2 hours"));
    age(app, 2, "20 days", Some("3 days"));
    age(app, 4, "40 days", None);
    owner.post("/api-keys/3/pause", &[]);
    owner
}

both! {
    fn keys_are_found_by_name_status_and_domain(app: App) {
        let owner = furnish(&app);
        let truncated = app.database.text("SELECT first8 || '...' || last4 FROM api_keys WHERE id = 2");
        for (query, found) in [
            ("", &["archive", "Newsletter", "laptop", "Staging", "Production"][..]),
            ("?q=STAG", &["Staging"]),
            (&format!("?q={truncated}"), &["Staging"]),
            ("?q=%25", &[]),
            ("?q=p_oduction", &[]),
            ("?status=active", &["archive", "Newsletter", "Production"]),
            ("?status=paused", &["laptop"]),
            ("?status=not-verified", &["Staging"]),
            ("?status=unused", &["Newsletter"]),
            ("?status=old", &["Production"]),
            ("?domain=all", &["archive", "Newsletter", "laptop"]),
            ("?domain=1", &["Production"]),
            ("?domain=2&status=active", &[]),
            ("?domain=999", &[]),
            ("?q=r&domain=all&status=active", &["archive", "Newsletter"]),
            ("?q=nothing%20like%20it", &[]),
        ] {
            assert_eq!(names(&owner, query), found, "{query}");
        }
        let none = owner.get("/api-keys?q=nothing").body;
        assert!(none.contains("No keys match.") && none.contains("href=\"/api-keys\""));
        assert!(!none.contains("No keys yet."));
    }

    fn the_list_is_sorted_as_its_address_says(app: App) {
        let owner = furnish(&app);
        for (query, sorted, column, order) in [
            ("?sort=name", &["archive", "laptop", "Newsletter", "Production", "Staging"], "name", "ascending"),
            ("?sort=-name", &["Staging", "Production", "Newsletter", "laptop", "archive"], "name", "descending"),
            ("?sort=created", &["Production", "Staging", "laptop", "Newsletter", "archive"], "created", "ascending"),
            ("?sort=-used", &["Production", "Staging", "archive", "Newsletter", "laptop"], "used", "descending"),
            ("?sort=used", &["laptop", "Newsletter", "archive", "Staging", "Production"], "used", "ascending"),
        ] {
            assert_eq!(names(&owner, query), sorted, "{query}");
            let page = owner.get(&format!("/api-keys{query}")).body;
            assert_eq!(page.matches("aria-sort=").count(), 1, "{query}");
            let header = format!("<th scope=\"col\" aria-sort=\"{order}\"><a class=\"sorter\" id=\"sort-{column}\"");
            assert!(page.contains(&header), "{query}");
        }
    }

    fn an_address_of_the_list_can_be_shared(app: App) {
        let owner = furnish(&app);
        for n in 0..26 {
            owner.create(&format!("Shop {n:02}"), "");
        }
        let shared = "/api-keys?q=shop&domain=all&sort=name";
        let page = owner.get(shared).body;
        assert!(page.contains("26 keys found"));
        assert!(page.contains("value=\"shop\""));
        assert!(page.contains("<option value=\"all\" selected>"));
        let next = "href=\"/api-keys?q=shop&#38;domain=all&#38;sort=name&#38;page=2\"";
        assert!(page.contains(next), "{page}");
        assert_eq!(names(&owner, "?q=shop&domain=all&sort=name&page=2"), ["Shop 25"]);

        // htmx gets the list alone, and the address without what was not chosen.
        let asked = owner.htmx_get("/api-keys?q=shop&status=&domain=all&sort=name");
        assert!(!asked.body.contains("<html"));
        assert_eq!(asked.header("hx-replace-url"), Some(shared));
        assert!(asked.body.contains("id=\"status\" hx-swap-oob=\"innerHTML\">26 keys found<"));
        assert_eq!(owner.htmx_get("/api-keys?q=&status=").header("hx-replace-url"), Some("/api-keys"));
    }

    fn a_search_finds_nothing_of_others(app: App) {
        let (owner, stranger) = (furnish(&app), app.stranger());
        stranger.create("Production of another", "");
        assert_eq!(names(&stranger, "?q=production"), ["Production of another"]);
        assert_eq!(names(&owner, "?q=another"), [""; 0]);
        assert_eq!(names(&stranger, "?domain=1"), [""; 0]);
    }

    fn a_whole_key_that_is_searched_for_goes_nowhere(app: App) {
        let owner = app.owner();
        let (_, key) = owner.create_key("Shop", "");
        owner.create("Other", "");
        let query = format!("?q={key}");
        assert_eq!(names(&owner, &query), ["Shop"]);
        assert!(!owner.get(&format!("/api-keys{query}")).body.contains(&key));
        let asked = owner.htmx_get(&format!("/api-keys{query}"));
        assert!(!format!("{:?}{}", asked.headers, asked.body).contains(&key));
    }

    fn keys_that_nobody_looks_after_carry_a_hint(app: App) {
        let owner = furnish(&app);
        let page = owner.get("/api-keys").body;
        let hint = |id: i64| {
            let (_, row) = page.split_once(&format!("<tr id=\"key-{id}\">")).unwrap();
            let row = row.split("</tr>").next().unwrap();
            row.split_once("class=\"advice\">").map(|(_, rest)| rest.split('<').next().unwrap().trim())
        };
        let hints = [1, 2, 3, 4, 5].map(hint);
        assert_eq!(hints, [Some("Older than 90 days."), None, None, Some("Unused for 30 days."), None]);
        assert!(page.contains("href=\"/api-keys/1/rotate\" hx-get=\"/api-keys/1/rotate\" hx-target=\"#dialog\" id=\"key-1-advice\""));
        assert!(page.contains("id=\"key-4-advice\">Delete it?"));
    }

    fn the_first_use_is_asked_for_without_keeping_anybody_signed_in(app: App) {
        let owner = app.owner();
        let (id, key) = owner.create_key("Shop", "");
        let path = format!("/api-keys/first-uses?ids={id}");
        let list = owner.get("/api-keys").body;
        assert!(list.contains(&format!("data-awaits-use=\"{id}\"")) && list.contains("Waiting for first use"));
        let waiting = owner.get(&path);
        assert_eq!((waiting.status, &*waiting.body), (200, ""));

        // An old sign of life stays as old as it is; a page renews it.
        let seen = "SELECT last_seen_at FROM sessions";
        let old = "2026-01-01 00:00:00.000000";
        let now = app.database.text(seen);
        let shift = |instant: &str| app.database.execute(&format!("UPDATE sessions SET last_seen_at = '{instant}'"));
        let idle = match app.database.backend() {
            Backend::Sqlite => app.database.text("SELECT strftime('%F %R:%f', 'now', '-2 hours')"),
            Backend::Postgres => app.database.text("SELECT (now() AT TIME ZONE 'UTC') - interval '2 hours'"),
        };
        shift(&idle);
        let before = app.database.text(seen);
        assert_ne!(before, now);
        assert_eq!(owner.htmx_get(&path).status, 200);
        assert_eq!(app.database.text(seen), before);
        assert_eq!(owner.get("/api-keys").status, 200);
        assert_ne!(app.database.text(seen), before);

        // Used, the cell says so, once, and asks no more.
        assert_eq!(app.program(&key).verify().status, 200);
        until("the use is told", || owner.htmx_get(&path).body.contains("just now"));
        let used = owner.htmx_get(&path).body;
        assert!(!used.contains("data-awaits-use"));
        assert!(used.contains("The key “Shop” was used for the first time."));

        // Of a key that is gone, of another's and without a session, the asking stops.
        let gone = owner.create_key("Gone", "").0;
        owner.delete_key(gone);
        let gone = owner.get(&format!("/api-keys/first-uses?ids={gone}")).body;
        assert!(!gone.contains("data-awaits-use") && !gone.contains("for the first time"), "{gone}");
        let stranger = app.stranger();
        let of_another = stranger.htmx_get(&path);
        assert_eq!((of_another.status, &*of_another.body), (200, ""));
        for odd in ["", "x", "x,,-1", "99999999999999999999"] {
            assert_eq!(stranger.get(&format!("/api-keys/first-uses?ids={odd}")).body, "");
        }
        shift(old);
        let ended = owner.htmx_get(&path);
        assert_eq!((ended.status, ended.header("hx-redirect")), (204, None));
        assert_eq!(app.visitor().htmx_get(&path).status, 204);
    }

    fn a_browser_remembers_how_pages_should_look(app: App) {
        let visitor = app.visitor();
        let save = |form: &[(&str, &str)]| {
            let request = visitor.same_origin("POST", "/preferences").form(form);
            request.header("referer", app.url("/login")).send().unwrap()
        };
        let looks = |cookie: &str| {
            let request = visitor.request("GET", "/signup").header("cookie", cookie);
            request.send().unwrap().text().unwrap()
        };
        let system = looks("");
        assert!(system.contains("data-theme=\"system\"") && system.contains("content=\"light dark\""));
        assert!(system.contains("<body data-shortcuts"));

        let saved = save(&[("theme", "dark"), ("shortcuts", "off")]);
        assert_eq!((saved.status().as_u16(), saved.headers()["location"].to_str().unwrap()), (303, "/login"));
        let cookies: Vec<String> = saved.headers().get_all("set-cookie").iter()
            .map(|cookie| cookie.to_str().unwrap().to_owned()).collect();
        assert_eq!(cookies.len(), 2);
        for (cookie, begin) in cookies.iter().zip(["tosend_theme=dark; ", "tosend_shortcuts=off; "]) {
            assert!(cookie.starts_with(begin), "{cookie}");
            for attribute in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=34560000"] {
                assert!(cookie.contains(attribute), "{cookie}");
            }
        }
        let dark = looks("tosend_theme=dark; tosend_shortcuts=off");
        assert!(dark.contains("data-theme=\"dark\"") && dark.contains("content=\"dark\""));
        assert!(!dark.contains("data-shortcuts"));

        // What is no theme changes nothing, and never reaches a page.
        let wrong = save(&[("theme", "\"><script>")]);
        assert_eq!(wrong.headers().get_all("set-cookie").iter().count(), 0);
        assert!(looks("tosend_theme=\"><script>").contains("data-theme=\"system\""));
        // Back to the system's, the cookie goes.
        let back = save(&[("theme", "system")]);
        assert!(back.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
        // Nobody is led to another site.
        let request = visitor.same_origin("POST", "/preferences").form(&[("theme", "dark")]);
        let led = request.header("referer", "https://evil.test//evil.test").send().unwrap();
        assert_eq!(led.headers()["location"], "/api-keys");
        // As for every change, a stranger's page cannot send it.
        let foreign = visitor.request("POST", "/preferences").header("sec-fetch-site", "cross-site");
        assert_eq!(foreign.form(&[("theme", "dark")]).send().unwrap().status(), 403);
    }

    fn best_practices_are_shown_until_they_are_hidden(app: App) {
        let owner = app.owner();
        let cookie = format!("{}; tosend_start=off", owner.cookie().unwrap());
        owner.set_cookie(Some(cookie.clone()));
        let page = owner.get("/api-keys").body;
        assert!(page.contains("Best practices") && page.contains("environment variable"));
        let cookie = format!("{cookie}; tosend_tips=off");
        owner.set_cookie(Some(cookie));
        assert!(!owner.get("/api-keys").body.contains("Best practices"));
        assert!(owner.get("/settings").body.contains("name=\"tips\" value=\"off\" checked"));
    }
}
