//! What the server holds against other sites, other accounts and odd requests.

use crate::support::*;

const OWN: &str = "own";
const SITES: [Option<&str>; 5] = [
    Some("same-origin"),
    Some("same-site"),
    Some("cross-site"),
    Some("none"),
    None,
];
const ORIGINS: [Option<&str>; 4] = [Some(OWN), Some("http://evil.test"), Some("null"), None];

/// What a browser says of where a request comes from.
#[derive(Debug, Clone, Copy)]
struct From<'a> {
    site: Option<&'a str>,
    origin: Option<&'a str>,
}

impl From<'_> {
    fn is_welcome(self) -> bool {
        matches!(
            (self.site, self.origin),
            (Some("same-origin"), _) | (None, Some(OWN))
        )
    }
}

/// Every way to send a request, with the server's own origin put in.
fn matrix(own: &str) -> impl Iterator<Item = (From<'_>, bool)> {
    let all = SITES
        .iter()
        .flat_map(|&site| ORIGINS.map(|origin| From { site, origin }));
    all.map(move |from| {
        let origin = from
            .origin
            .map(|origin| if origin == OWN { own } else { origin });
        (From { origin, ..from }, from.is_welcome())
    })
}

fn post_from(visitor: &Visitor, from: From, path: &str, form: &[(&str, &str)]) -> Answer {
    let mut request = visitor.request("POST", path).form(form);
    if let Some(site) = from.site {
        request = request.header("sec-fetch-site", site);
    }
    if let Some(origin) = from.origin {
        request = request.header("origin", origin);
    }
    visitor.send(request)
}

/// Everything that the forms could change.
fn everything(database: &Database) -> Vec<i64> {
    [
        "SELECT COUNT(*) FROM accounts",
        "SELECT COUNT(*) FROM accounts WHERE title <> 'x'",
        "SELECT COUNT(*) FROM events",
        "SELECT COUNT(*) FROM sessions",
        "SELECT COUNT(*) FROM login_attempts",
        "SELECT COUNT(*) FROM sending_domains",
        "SELECT COUNT(*) FROM sending_domains WHERE status = 'verified'",
        "SELECT COUNT(*) FROM api_keys",
        "SELECT COUNT(*) FROM api_keys WHERE status = 'active'",
        "SELECT COUNT(*) FROM api_keys WHERE ended_at IS NULL",
        "SELECT COUNT(*) FROM api_key_domains",
        "SELECT SUM(key_count) FROM accounts",
    ]
    .map(|sql| database.number(sql))
    .into()
}

const SECURITY_HEADERS: [(&str, &str); 7] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
         object-src 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    (
        "permissions-policy",
        "accelerometer=(), camera=(), clipboard-read=(), clipboard-write=(self), geolocation=(), \
         gyroscope=(), magnetometer=(), microphone=(), payment=(), usb=()",
    ),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-permitted-cross-domain-policies", "none"),
];

/// What answers of the API have of them. JSON sends no referrer, and nothing else of a page.
const OF_API: [(&str, &str); 2] = [
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
];

/// A plain-http answer of some status with all headers of a page, which nothing may keep.
fn assert_is_safe(answer: &Answer, status: u16) {
    assert_has(answer, status, &SECURITY_HEADERS);
}

/// The same of an answer of the API, which has no other security headers.
fn assert_is_safe_json(answer: &Answer, status: u16) {
    assert_has(answer, status, &OF_API);
    for (name, _) in SECURITY_HEADERS {
        let is_of_api = OF_API.iter().any(|(of_api, _)| *of_api == name);
        assert_eq!(answer.headers.contains_key(name), is_of_api, "{answer:?}");
    }
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

fn assert_has(answer: &Answer, status: u16, headers: &[(&str, &str)]) {
    assert_eq!(answer.status, status, "{answer:?}");
    for (name, value) in headers {
        let all: Vec<_> = answer.headers.get_all(*name).iter().collect();
        assert_eq!(all, [value], "{name} {answer:?}");
    }
    for absent in ["server", "x-powered-by", "strict-transport-security"] {
        assert_eq!(answer.header(absent), None, "{answer:?}");
    }
    let cache = answer.header("cache-control").unwrap_or("none");
    assert!(
        cache.split(", ").any(|word| word == "no-store"),
        "{cache} {answer:?}"
    );
}

fn assert_is_error_page(answer: &Answer, status: u16) {
    assert_is_safe(answer, status);
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(answer.body.contains("<h1"), "{}", answer.body);
}

/// The address of the style sheet, as pages link it.
fn style_sheet(page: &Answer) -> String {
    let at = page.body.find("/static/").unwrap();
    let urls = page.body[at..]
        .split('"')
        .filter(|part| part.starts_with("/static/"));
    urls.into_iter()
        .find(|url| url.ends_with("/app.css"))
        .unwrap()
        .to_owned()
}

both! {
    fn forms_of_other_sites_are_refused(app: App) {
        let owner = app.owner();
        let (id, key) = owner.create_key("Production server", "");
        let nonce = owner.nonce();
        let delete = format!("/api-keys/{id}/delete");
        app.visitor().sign_in(EMAIL);
        let end = format!("/settings/sessions/{}/end", owner.get("/settings").session_ids()[1]);
        let forms: [(&str, &[(&str, &str)]); 10] = [
            ("/api-keys", &[("nonce", &nonce), ("name", "x"), ("scope", "all"), ("expiry", "none")]),
            ("/login", &[("email", EMAIL), ("password", PASSWORD)]),
            ("/domains", &[("name", "acme.test")]),
            ("/logout", &[]),
            (&delete, &[]),
            ("/settings/title", &[("title", "x")]),
            ("/settings/password", &[("current", PASSWORD), ("new", "five unrelated blue chairs")]),
            ("/settings/sessions/end-others", &[]),
            ("/settings/delete", &[("name", TITLE), ("password", PASSWORD)]),
            (&end, &[]),
        ];
        let (own, before) = (app.url(""), everything(&app.database));
        for (from, _) in matrix(&own).filter(|(_, is_welcome)| !is_welcome) {
            for (path, form) in forms {
                let answer = post_from(&owner, from, path, form);
                assert_is_error_page(&answer, 403);
                assert!(answer.body.contains("did not come from this site"), "{from:?} {path}");
                assert!(owner.cookie().is_some(), "{from:?} {path}");
            }
            assert_eq!(everything(&app.database), before, "{from:?}");
        }
        assert_eq!(app.program(&key).info().status, 200);
        assert_eq!(owner.get("/api-keys").status, 200);
    }

    fn forms_of_this_site_are_taken(app: App) {
        app.owner();
        let own = app.url("");
        for (i, (from, _)) in matrix(&own).filter(|(_, is_welcome)| *is_welcome).enumerate() {
            let browser = app.visitor();
            let send = |path: &str, form: &[(&str, &str)]| {
                let answer = post_from(&browser, from, path, form);
                (answer.status, answer.location().unwrap_or_default().to_owned())
            };
            let to = |path: &str| (303, path.to_owned());
            let credentials = [("email", EMAIL), ("password", PASSWORD)];
            assert_eq!(send("/login", &credentials), to("/api-keys"), "{from:?}");
            assert_eq!(send("/domains", &[("name", &format!("acme{i}.test"))]).0, 303, "{from:?}");
            let nonce = browser.nonce();
            let form = [("nonce", nonce.as_str()), ("name", "x"), ("scope", "all"), ("expiry", "none")];
            assert_eq!(send("/api-keys", &form).0, 200, "{from:?}");
            let id = browser.get("/api-keys").key_ids()[0];
            let deleted = send(&format!("/api-keys/{id}/delete"), &[]);
            assert_eq!(deleted, to("/api-keys?notice=deleted"), "{from:?}");
            assert_eq!(send("/logout", &[]), to("/login"), "{from:?}");
        }
        assert_eq!(app.database.number("SELECT COUNT(*) FROM api_keys"), 5);
    }

    fn behind_a_public_url_its_origin_is_the_own_one(
        app: App, with |s| s.public_url = Some("https://Dash.acme.test:443/".into())
    ) {
        let own = "https://dash.acme.test";
        let listener = app.url("");
        let foreign = [&listener, "http://dash.acme.test", "https://dash.acme.test.evil.test",
            "https://dash.acme.test:8443", "https://dash.acme.test/"];
        let foreign = foreign.map(|o| (From { site: None, origin: Some(o) }, false));
        for (from, is_welcome) in matrix(own).chain(foreign) {
            let answer = post_from(&app.visitor(), from, "/logout", &[]);
            assert_eq!(answer.status, if is_welcome { 303 } else { 403 }, "{from:?}");
        }
    }

    fn programs_need_not_say_where_they_come_from(app: App) {
        let owner = app.owner();
        let (_, key) = owner.create_key("x", "");
        owner.add_domain("acme.test");
        attest(&app.database, "acme.test");
        let program = app.program(&key);
        for (from, _) in matrix(&app.url("")) {
            let mut request = program.bare("POST", "/v2/emails").bearer_auth(&key)
                .json(&email("ada@acme.test"));
            for (name, value) in [("sec-fetch-site", from.site), ("origin", from.origin)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            assert_eq!(program.send(request).status, 200, "{from:?}");
        }
    }

    fn a_key_opens_no_page_and_a_cookie_no_endpoint(app: App) {
        let owner = app.owner();
        let (id, key) = owner.create_key("x", "");
        let program = app.program(&key);
        let visitor = app.visitor();
        for path in ["/api-keys", "/domains", "/api-keys/new", "/activity", "/activity.csv",
            "/settings"]
        {
            let answer = visitor.send(visitor.request("GET", path).bearer_auth(&key));
            assert_eq!(answer.status, 303, "{path}");
        }
        let delete = visitor.same_origin("POST", &format!("/api-keys/{id}/delete"));
        assert_eq!(visitor.send(delete.bearer_auth(&key)).location(), Some("/login?unsent=yes"));
        assert_eq!(owner.get("/v2/info").status, 401);
        let sent = owner.same_origin("POST", "/v2/emails").json(&email("ada@acme.test"));
        assert_eq!(owner.send(sent).status, 401);
        assert_eq!(program.info().status, 200);
    }

    fn every_answer_carries_the_security_headers(app: App) {
        let visitor = app.visitor();
        assert_is_safe(&visitor.get("/"), 303);
        assert_is_safe(&visitor.get("/signup"), 200);
        let owner = app.owner();
        let (_, key) = owner.create_key("x", "");
        let program = app.program(&key);

        for path in ["/api-keys", "/api-keys/new", "/domains", "/activity", "/activity.csv", "/settings",
            "/settings/delete", "/settings/export", "/settings/export/account.json",
            "/healthz", "/readyz"]
        {
            assert_is_safe(&owner.get(path), 200);
        }
        assert_is_safe(&owner.create("x", ""), 200);
        assert_is_safe(&owner.htmx_get("/api-keys/new"), 200);
        assert_is_safe(&visitor.htmx_get("/api-keys/new"), 200);
        assert_is_safe(&visitor.get("/login"), 200);
        assert_is_safe(&visitor.get("/api-keys"), 303);
        assert_is_safe(&owner.post("/domains", &[("name", "acme.test")]), 303);
        assert_is_safe(&owner.post("/domains", &[("name", "")]), 422);
        assert_is_error_page(&visitor.get("/signup"), 403);
        assert_is_error_page(&visitor.get("/nothing"), 404);
        assert_is_error_page(&owner.get("/api-keys/999/delete"), 404);
        assert_is_error_page(&visitor.get("/static/0/style/app.css"), 404);
        assert_is_error_page(&owner.send(owner.same_origin("PUT", "/api-keys")), 405);
        assert_is_safe(&owner.htmx_get("/nothing"), 404);

        assert_is_safe_json(&program.info(), 200);
        assert_is_safe_json(&app.program("").info(), 401);
        assert_is_safe_json(&app.program("x").info(), 403);
        assert_is_safe_json(&visitor.get("/v2/nothing"), 404);
        assert_is_safe_json(&visitor.get("/v2/emails"), 405);
        assert_is_safe_json(&program.email_from("ada@acme.test"), 422);

        let guess = || visitor.post("/login", &[("email", "nobody")]);
        let stopped = std::iter::repeat_with(guess).take(100).find(|a| a.status != 422);
        assert_is_error_page(&stopped.unwrap(), 429);

        app.database.execute("ALTER TABLE api_keys RENAME TO api_keys_gone");
        app.database.execute("ALTER TABLE __diesel_schema_migrations RENAME TO gone");
        assert_is_error_page(&owner.get("/api-keys"), 503);
        assert_is_safe(&owner.htmx_get("/api-keys"), 503);
        assert_is_safe_json(&program.info(), 503);
        assert_is_safe(&visitor.get("/readyz"), 503);
        assert_is_safe(&visitor.get("/healthz"), 200);
        app.database.execute("ALTER TABLE sessions RENAME TO sessions_gone");
        assert_is_error_page(&owner.get("/api-keys"), 503);
    }

    fn files_are_kept_for_good_under_the_hash_of_their_content(app: App) {
        let visitor = app.visitor();
        let url = style_sheet(&visitor.get("/signup"));
        let file = visitor.get(&url);
        assert_eq!((file.status, file.header("content-type")), (200, Some("text/css")));
        let cache = Some("public, max-age=31536000, immutable");
        assert_eq!(file.header("cache-control"), cache);
        for (name, value) in SECURITY_HEADERS {
            assert_eq!(file.header(name), Some(value), "{name}");
        }
        assert_eq!(file.header("server"), None);
        let hash = url.split('/').nth(2).unwrap();
        for wrong in [
            "/static/000000000000/style/app.css".to_owned(),
            format!("/static/{hash}/js/app.js"),
            format!("/static/{hash}/nothing.css"),
            format!("/static/{hash}/..%2f..%2fCargo.toml"),
            format!("/static/{hash}/README.md"),
            format!("/static/{hash}/"),
            format!("/static/{}/style/app.css", hash.to_uppercase()),
        ] {
            assert_is_error_page(&visitor.get(&wrong), 404);
        }
    }

    fn another_accounts_keys_and_domains_do_not_exist(app: App) {
        let owner = app.owner();
        let domain = owner.add_domain("acme.test");
        let (id, key) = owner.create_key("Payroll", &domain);
        let (paused, _) = owner.create_key("Staging", "");
        owner.post(&format!("/api-keys/{paused}/pause"), &[]);
        attest(&app.database, "acme.test");
        assert_eq!(app.program(&key).email_from("ada@acme.test").status, 200);
        app.database.execute("UPDATE emails SET status = 'failed', ended_at = created_at");
        let email = app.database.number("SELECT id FROM emails");
        let stranger = app.stranger();
        let nonce = stranger.nonce();
        let before = everything(&app.database);

        let key_paths = [id, paused].map(|id| ["delete", "pause", "resume", "stop", "keep", "edit", "rotate"].map(|what| {
            format!("/api-keys/{id}/{what}")
        }));
        for path in key_paths.iter().flatten() {
            assert_is_error_page(&stranger.post(path, &[]), 404);
            assert_is_safe(&stranger.htmx_post(path, &[]), 404);
        }
        for path in [format!("/domains/{domain}"), format!("/domains/{domain}/delete"),
            format!("/api-keys/{id}/delete"), format!("/api-keys/{id}"),
            format!("/api-keys/{id}/pause"), format!("/api-keys/{id}/edit"),
            format!("/api-keys/{id}/rotate")]
        {
            let answer = stranger.get(&path);
            assert_is_error_page(&answer, 404);
            assert!(!answer.body.contains("acme.test") && !answer.body.contains("Payroll"));
        }
        assert_is_error_page(&stranger.post(&format!("/domains/{domain}/delete"), &[]), 404);
        assert_is_error_page(&stranger.post(&format!("/activity/emails/{email}/retry"), &[]), 404);
        assert_eq!(app.database.number("SELECT count(*) FROM emails WHERE status = 'failed'"), 1);
        for path in ["/api-keys", "/domains", "/api-keys/new", "/activity", "/activity.csv"] {
            let body = stranger.get(path).body;
            assert!(!body.contains("acme.test") && !body.contains("Payroll"), "{path}");
        }

        let create = |domain: &str| {
            let mut form = vec![("nonce", nonce.as_str()), ("name", "x")];
            form.extend(scope(domain));
            stranger.post("/api-keys", &form)
        };
        let (theirs, unknown) = (create(&domain), create("999"));
        assert_eq!((theirs.status, unknown.status), (422, 422));
        assert_eq!(theirs.body, unknown.body);
        assert_eq!(theirs.find_key(), None);
        // A form of one account makes no key in another.
        let form = [("nonce", nonce.as_str()), ("name", "x"), ("scope", "all"), ("expiry", "none")];
        assert_eq!(owner.post("/api-keys", &form).status, 422);

        // The forms that were opened above are all that is new.
        assert_eq!(everything(&app.database), before);
        assert_eq!(app.program(&key).info().status, 200);
        assert_eq!(owner.get(&format!("/domains/{domain}")).status, 200);
    }

    fn fields_that_no_form_has_are_ignored(app: App) {
        let visitor = app.visitor();
        let more = [("account_id", "2"), ("id", "777"), ("user_id", "2"), ("hash", "00"),
            ("status", "paused"), ("verified", "true"), ("key_count", "9"), ("role", "admin"),
            ("all_domains", "1"), ("created_at", "2000-01-01"), ("domain_id", "1")];
        let with_more = |form: &[(&'static str, &'static str)]| [form, &more].concat();

        let form = with_more(&[("title", TITLE), ("email", EMAIL), ("password", PASSWORD)]);
        assert_eq!(visitor.post("/signup", &form).status, 303);
        app.stranger();
        let form: Vec<_> = with_more(&[("name", "acme.test")]).into_iter()
            .map(|(name, value)| (name, if name == "status" { "verified" } else { value }))
            .collect();
        assert_eq!(visitor.post("/domains", &form).location(), Some("/domains/1"));
        let nonce = visitor.nonce();
        let mut form = with_more(&[("name", "x"), ("scope", "domains"), ("domain", "1"), ("expiry", "none")]);
        form.push(("nonce", &nonce));
        let answer = visitor.post("/api-keys", &form);
        assert_eq!(answer.status, 200, "{answer:?}");

        for (sql, count) in [
            ("SELECT COUNT(*) FROM accounts WHERE id > 2 OR status <> 'active'", 0),
            ("SELECT key_count FROM accounts WHERE id = 1", 1),
            ("SELECT key_count FROM accounts WHERE id = 2", 0),
            ("SELECT COUNT(*) FROM users WHERE account_id = id AND role = 'owner'", 2),
            ("SELECT COUNT(*) FROM sending_domains WHERE account_id = 1 AND id = 1 AND
                status = 'pending' AND created_at > '2001-01-01'", 1),
            ("SELECT COUNT(*) FROM api_keys WHERE account_id = 1 AND id = 1 AND created_by = 1
                AND status = 'active' AND created_at > '2001-01-01' AND NOT all_domains", 1),
            ("SELECT COUNT(*) FROM api_key_domains WHERE api_key_id = 1 AND domain_id = 1", 1),
        ] {
            assert_eq!(app.database.number(sql), count, "{sql}");
        }
        assert_eq!(app.program(&answer.key()).info().status, 200);
    }

    fn odd_addresses_and_methods_get_a_page(app: App) {
        let owner = app.owner();
        let before = everything(&app.database);
        for id in ["-1", "0", "9e99", "%00", "abc", "1.5", "99999999999999999999", "%F0%9F%98%80",
            "1%20", "..%2f1", "1;DROP TABLE api_keys", "%FF"]
        {
            for path in [format!("/domains/{id}"), format!("/domains/{id}/delete"),
                format!("/api-keys/{id}/delete")]
            {
                assert_is_error_page(&owner.get(&path), 404);
            }
            for path in [format!("/domains/{id}/delete"), format!("/api-keys/{id}/delete"),
                format!("/api-keys/{id}/pause"), format!("/api-keys/{id}/resume"),
                format!("/api-keys/{id}/edit"), format!("/api-keys/{id}/rotate"),
                format!("/api-keys/{id}/stop"), format!("/api-keys/{id}/keep"),
                format!("/settings/sessions/{id}/end"), format!("/activity/emails/{id}/retry")]
            {
                assert_is_error_page(&owner.post(&path, &[]), 404);
            }
        }
        for path in ["/nothing", "/api-keys/", "/api-keys/1", "/index.php", "/.env", "//",
            "/static", "/%2e%2e/Cargo.toml", "/v2x"]
        {
            assert_is_error_page(&owner.get(path), 404);
        }
        for (method, path, allow) in [
            ("GET", "/logout", "POST"),
            ("GET", "/api-keys/1/resume", "POST"),
            ("GET", "/settings/password", "POST"),
            ("POST", "/settings", "GET"),
            ("POST", "/api-keys/1", "GET"),
            ("DELETE", "/api-keys/1/delete", "GET, POST"),
            ("PUT", "/api-keys", "GET, POST"),
            ("PATCH", "/domains/1", "GET"),
            ("DELETE", "/login", "GET, POST"),
            ("POST", "/", "GET"),
        ] {
            let answer = owner.send(owner.same_origin(method, path));
            assert_is_error_page(&answer, 405);
            assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
        }
        assert_eq!(everything(&app.database), before);
    }

    fn head_tells_of_every_page_without_its_body(app: App) {
        let owner = app.owner();
        for path in ["/api-keys", "/domains", "/activity", "/activity.csv", "/settings", "/healthz",
            "/readyz", "/nothing"]
        {
            let (head, get) = (owner.send(owner.request("HEAD", path)), owner.get(path));
            assert_eq!((head.status, head.body.as_str()), (get.status, ""), "{path}");
            assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        }
    }

    fn odd_forms_get_a_page(app: App) {
        let owner = app.owner();
        let before = everything(&app.database);
        let form = "application/x-www-form-urlencoded";
        for path in ["/api-keys", "/domains", "/login", "/signup", "/settings/title",
            "/settings/password"]
        {
            let send = |content_type: &str, body: &[u8]| owner.send(
                owner.same_origin("POST", path).header("content-type", content_type)
                    .body(body.to_vec())
            );
            assert_is_error_page(&send(form, &b"a".repeat(100 * 1024)), 413);
            for (content_type, body) in [
                (form, &b"name=%FF%FE&domain=%ZZ"[..]),
                (form, b"\xff\xfe\0=&&&=%"),
                (form, b""),
                (form, b"name=a&name=b&domain=1&domain=2&nonce=%00&email=a&email=b"),
                (form, b"name[]=a&domain[x]=1"),
                ("application/json", b"{\"name\":\"x\"}"),
                ("multipart/form-data; boundary=x", b"--x--"),
                ("text/plain", b"name=x"),
                ("", b"name=x"),
                ("application/x-www-form-urlencoded; charset=nonsense", b"name=x"),
            ] {
                let answer = send(content_type, body);
                assert!((400..500).contains(&answer.status), "{path} {content_type} {answer:?}");
                assert_is_error_page(&answer, answer.status);
            }
        }
        for path in ["/api-keys?page=%FF", "/api-keys?page=-5&notice=x", "/login?next=%FF",
            "/login?next=a&next=b", "/api-keys?page=99999999999999999999", "/?%00"]
        {
            assert!(owner.get(path).status < 500, "{path}");
        }
        assert_eq!(everything(&app.database), before);
    }

    fn markup_comes_out_as_text(app: App) {
        let evil = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>";
        let visitor = app.visitor();
        let assert_is_text = |answer: Answer, echoes: bool| {
            assert!(!answer.body.contains("<script>"), "{}", answer.body);
            assert!(!answer.body.contains("<img"), "{}", answer.body);
            assert_eq!(answer.body.contains("alert(1)"), echoes, "{}", answer.body);
        };
        let with = |email| [("title", evil), ("email", email), ("password", PASSWORD)];
        assert_is_text(visitor.post("/signup", &with(evil)), true);
        assert_eq!(visitor.post("/signup", &with(EMAIL)).status, 303);
        let domain = visitor.add_domain("acme.test");
        let (id, _) = visitor.create_key(evil, &domain);
        assert_is_text(visitor.create(evil, ""), true);
        for path in ["/api-keys", "/api-keys/new", "/domains", &format!("/api-keys/{id}/delete"),
            &format!("/domains/{domain}"), &format!("/domains/{domain}/delete"), "/activity"]
        {
            assert_is_text(visitor.get(path), true);
        }
        assert_is_text(visitor.htmx_get(&format!("/api-keys/{id}/delete")), true);
        assert_is_text(visitor.htmx_post(&format!("/api-keys/{id}/pause"), &[]), true);
        assert_is_text(visitor.post("/domains", &[("name", evil)]), true);
        assert_is_text(visitor.post("/settings/title", &[("title", &evil.repeat(2))]), true);
        assert_is_text(visitor.get("/settings"), true);
        let form = [("nonce", evil), ("name", evil), ("scope", evil), ("domain", evil),
            ("description", evil), ("expiry", evil), ("expires_on", evil), ("senders", evil),
            ("recipients", evil)];
        assert_is_text(visitor.post("/api-keys", &form), true);
        assert_is_text(visitor.htmx_post("/api-keys", &form), true);
        assert_is_text(visitor.htmx_post(&format!("/api-keys/{id}/delete"), &[]), true);
        let form = [("email", evil), ("password", evil), ("next", evil)];
        assert_is_text(app.visitor().post("/login", &form), true);
        let path = "/%3Cscript%3Ealert(1)%3C/script%3E";
        assert_is_text(app.visitor().get(path), false);
        assert_is_text(app.visitor().get(&format!("/login?next={path}")), true);
    }

    fn the_host_header_leads_nobody_astray(
        app: App, with |s| s.public_url = Some("https://dash.acme.test".into())
    ) {
        let visitor = app.visitor();
        let send = |method: &str, path: &str, form: &[(&str, &str)]| {
            let request = visitor.same_origin(method, path).header("host", "evil.test")
                .header("x-forwarded-host", "evil.test").header("forwarded", "host=evil.test");
            let answer = visitor.send(request.form(form));
            assert!(!format!("{answer:?}").contains("evil.test"), "{answer:?}");
            answer
        };
        let form = [("title", TITLE), ("email", EMAIL), ("password", PASSWORD),
            ("setup_code", &app.setup_code)];
        assert_eq!(send("GET", "/", &[]).location(), Some("/signup"));
        assert_eq!(send("POST", "/signup", &form).location(), Some("/api-keys"));
        let added = send("POST", "/domains", &[("name", "acme.test")]);
        assert_eq!(added.location(), Some("/domains/1"));
        for path in ["/api-keys", "/domains", "/domains/1", "/nothing"] {
            send("GET", path, &[]);
        }
        let nonce = visitor.nonce();
        let form = [("nonce", nonce.as_str()), ("name", "x"), ("scope", "all"), ("expiry", "none")];
        let created = send("POST", "/api-keys", &form);
        assert!(created.body.contains("curl https://dash.acme.test/v2/emails "), "{created:?}");
        assert_eq!(send("POST", "/logout", &[]).location(), Some("/login"));
        assert_eq!(send("GET", "/api-keys", &[]).location(), Some("/login?next=%2Fapi-keys"));
    }
}
