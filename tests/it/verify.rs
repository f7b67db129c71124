//! `GET /v2/verify`, as gateways ask it.

use reqwest::Method;
use reqwest::blocking::RequestBuilder;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use crate::api::{seen, told, verify as verify_domain};
use crate::support::*;

const OK: &str = "200";
const MISSING: &str = "401 api_key.required";
const INVALID: &str = "403 api_key.invalid";
const NOT_ALLOWED: &str = "403 domain.domain_not_allowed";
/// The right shape and checksum, and nobody's.
const UNKNOWN: &str = "tsend_abcdefghijklmnopqrstuvwxyzABCDEF4b12qQ";

/// Asks with this key.
fn ask(app: &App, key: &str, method: &str, path: &str) -> Answer {
    let program = app.program(key);
    program.send(program.with_key(method, path))
}

fn verify(app: &App, key: &str) -> Answer {
    ask(app, key, "GET", "/v2/verify")
}

/// Asks about a domain, as it is.
fn about(app: &App, key: &str, domain: &str) -> String {
    let domain: String = url::form_urlencoded::byte_serialize(domain.as_bytes()).collect();
    let answer = ask(app, key, "GET", &format!("/v2/verify?domain={domain}"));
    if answer.status == 403 {
        let message = "The domain is not allowed for this API key.";
        let errors = json!({"domain": {"domain_not_allowed": message}});
        assert_eq!(answer.json()["message"], message);
        assert_eq!(answer.json()["errors"], errors);
        assert_eq!(answer.header("x-tosend-account"), None);
    }
    told(&answer)
}

/// What a good key is told, in headers and in the body.
fn assert_verdict(app: &App, answer: &Answer, id: i64, key: &str, scope: (&str, Value)) {
    assert_eq!(told(answer), OK);
    let account = app
        .database
        .number(&format!("SELECT account_id FROM api_keys WHERE id = {id}"));
    let name = app
        .database
        .text(&format!("SELECT name FROM api_keys WHERE id = {id}"));
    assert_eq!(
        answer.json(),
        json!({
            "valid": true,
            "account": {"id": account},
            "key": {
                "id": id,
                "name": name,
                "truncated": format!("{}…{}", &key[..8], &key[40..]),
                "scope": scope.1,
            },
        })
    );
    for (header, value) in [
        ("x-tosend-account", account.to_string().as_str()),
        ("x-tosend-key", id.to_string().as_str()),
        ("x-tosend-scope", scope.0),
    ] {
        assert_eq!(answer.header(header), Some(value), "{header}");
        assert_eq!(answer.headers.get_all(header).iter().count(), 1, "{header}");
    }
}

fn delete(owner: &Visitor, id: i64) {
    assert_eq!(owner.delete_key(id).status, 303);
}

both! {
    fn a_good_key_is_told_whose_it_is(app: App) {
        let owner = app.owner();
        let a = verify_domain(&app, "a.test").to_string();
        let b = verify_domain(&app, "b.test");
        let (id, key) = owner.create_key("Schlüssel 钥匙 \"🔑\"", "");
        let name = app.database.text(&format!("SELECT name FROM api_keys WHERE id = {id}"));
        assert_eq!(name, "Schlüssel 钥匙 \"🔑\"");
        assert_verdict(&app, &verify(&app, &key), id, &key, ("all", json!("all")));

        let (id, key) = owner.create_key("One", &a);
        assert_verdict(&app, &verify(&app, &key), id, &key, ("a.test", json!(["a.test"])));
        let both = json!(["a.test", "b.test"]);
        app.database.execute(&format!("INSERT INTO api_key_domains VALUES ({id}, {b})"));
        assert_verdict(&app, &verify(&app, &key), id, &key, ("a.test, b.test", both));
        // With none left it is for none, and says so.
        app.database.execute(&format!("DELETE FROM api_key_domains WHERE api_key_id = {id}"));
        assert_verdict(&app, &verify(&app, &key), id, &key, ("", json!([])));
        assert_eq!(about(&app, &key, "a.test"), NOT_ALLOWED);

        // Another account's key is that account's.
        let eve = app.stranger();
        let nonce = eve.nonce();
        let form = [("nonce", nonce.as_str()), ("name", "Eve"), ("scope", "all"), ("expiry", "none")];
        let evil = eve.post("/api-keys", &form).key();
        let evil_id = app.database.number("SELECT max(id) FROM api_keys");
        assert_verdict(&app, &verify(&app, &evil), evil_id, &evil, ("all", json!("all")));
        assert_ne!(verify(&app, &evil).header("x-tosend-account"),
            verify(&app, &key).header("x-tosend-account"));
    }

    fn head_is_answered_as_get_without_the_body(app: App) {
        let (_, key) = app.owner().create_key("Key", "");
        for (key, path) in [
            (key.as_str(), "/v2/verify"),
            (&key, "/v2/verify?domain=a.test"),
            (&key, "/v2/verify/original"),
            (UNKNOWN, "/v2/verify"),
        ] {
            let (get, head) = (ask(&app, key, "GET", path), ask(&app, key, "HEAD", path));
            let (status, headers, body) = seen(&get);
            assert!(!body.is_empty(), "{path}");
            assert_eq!(seen(&head), (status, headers, String::new()), "{path}");
        }
    }

    fn a_key_that_is_refused_is_refused_as_by_info(app: App) {
        let owner = app.owner();
        let (_, key) = owner.create_key("Key", "");
        let (deleted_id, deleted) = owner.create_key("Deleted", "");
        delete(&owner, deleted_id);
        let anyone = app.program("");
        let send = |path: &str, headers: &[&[u8]]| {
            let request = anyone.bare("GET", path);
            let request = headers.iter().fold(request, |request, value| {
                request.header("authorization", HeaderValue::from_bytes(value).unwrap())
            });
            anyone.send(request)
        };
        let bearer = |text: &str| format!("Bearer {text}");
        let good = bearer(&key);
        let mut high = good.clone().into_bytes();
        high[20] = 0xFF;
        let [unknown, checksum, deleted, two, padded] = [
            bearer(UNKNOWN),
            bearer(&format!("{}x", &UNKNOWN[..43])),
            bearer(&deleted),
            bearer(&format!("{key} {key}")),
            format!("bearer \t{key} "),
        ];
        let cases: [(&[&[u8]], &str); 15] = [
            (&[], MISSING),
            (&[b""], MISSING),
            (&[b"Bearer"], MISSING),
            (&[b"Basic dXNlcjpwYXNz"], MISSING),
            (&[key.as_bytes()], MISSING),
            (&[b"Bearer garbage"], INVALID),
            (&[unknown.as_bytes()], INVALID),
            (&[checksum.as_bytes()], INVALID),
            (&[deleted.as_bytes()], INVALID),
            (&[two.as_bytes()], INVALID),
            (&[&high], INVALID),
            (&[good.as_bytes(), good.as_bytes()], "400"),
            (&[good.as_bytes(), b"Basic dXNlcjpwYXNz"], "400"),
            (&[padded.as_bytes()], OK),
            (&[good.as_bytes()], OK),
        ];
        for (headers, expected) in cases {
            let what = headers.iter().map(|h| String::from_utf8_lossy(h)).collect::<Vec<_>>();
            let answer = send("/v2/verify", headers);
            assert_eq!(told(&answer), expected, "{what:?}");
            if expected == OK {
                continue;
            }
            let as_info = seen(&send("/v2/info", headers));
            assert_eq!(seen(&answer), as_info, "{what:?}");
            // Nothing that is asked besides is looked at before the key.
            for path in [
                "/v2/verify?domain=a.test",
                "/v2/verify?domain=a.test&domain=b.test",
                "/v2/verify/original",
            ] {
                assert_eq!(seen(&send(path, headers)), as_info, "{path} {what:?}");
            }
        }
    }

    fn a_key_is_taken_from_the_header_only(app: App) {
        let owner = app.owner();
        let (_, key) = owner.create_key("Key", "");
        let anyone = app.program("");
        let get = |path: &str| anyone.bare("GET", path);
        let by_query = format!("/v2/verify?api_key={key}");
        let envoy = format!("/v2/verify/original?api_key={key}");
        let requests: [(&str, RequestBuilder); 7] = [
            ("query", get(&by_query)),
            ("query of the original", get(&envoy)),
            ("path", get(&format!("/v2/verify/{key}"))),
            ("body", get("/v2/verify").json(&json!({"api_key": key}))),
            ("body of the original", anyone.bare("POST", "/v2/verify/x")
                .json(&json!({"api_key": key}))),
            ("x-api-key", get("/v2/verify").header("x-api-key", &key)),
            ("cookie", get("/v2/verify").header("cookie", format!("api_key={key}"))),
        ];
        for (what, request) in requests {
            assert_eq!(told(&anyone.send(request)), MISSING, "{what}");
        }
        // A session is no key.
        assert_eq!(told(&owner.get("/v2/verify")), MISSING);
        assert_eq!(told(&owner.get("/v2/verify/original")), MISSING);
    }

    fn the_very_next_request_is_refused(app: App) {
        let owner = app.owner();
        verify_domain(&app, "a.test");
        let (deleted_id, deleted) = owner.create_key("Deleted", "");
        let (paused_id, paused) = owner.create_key("Paused", "");
        let all = |key: &str| {
            let told = told(&verify(&app, key));
            for path in ["/v2/verify?domain=a.test", "/v2/verify/original"] {
                assert_eq!(self::told(&ask(&app, key, "GET", path)), told, "{path}");
            }
            told
        };
        assert_eq!((all(&deleted), all(&paused)), (OK.into(), OK.into()));

        delete(&owner, deleted_id);
        assert_eq!(all(&deleted), INVALID);
        owner.post(&format!("/api-keys/{paused_id}/pause"), &[]);
        assert_eq!(all(&paused), INVALID);
        owner.post(&format!("/api-keys/{paused_id}/resume"), &[]);
        assert_eq!(all(&paused), OK);
        cli(&app.database, &["account", "pause", "--account", EMAIL], "").unwrap();
        assert_eq!(all(&paused), INVALID);
        cli(&app.database, &["account", "resume", "--account", EMAIL], "").unwrap();
        assert_eq!(all(&paused), OK);
    }

    fn a_domain_must_be_verified_and_within_the_scope(app: App) {
        let owner = app.owner();
        let a = verify_domain(&app, "a.test").to_string();
        verify_domain(&app, "b.test");
        verify_domain(&app, "bücher.test");
        let pending = owner.add_domain("pending.test");
        let failed = owner.add_domain("failed.test");
        let fail = format!("UPDATE sending_domains SET status = 'failed' WHERE id = {failed}");
        app.database.execute(&fail);
        app.stranger().add_domain("evil.test");
        app.database.execute("UPDATE sending_domains SET status = 'verified'
            WHERE name = 'evil.test'");
        let (_, all) = owner.create_key("All", "");
        let (_, for_a) = owner.create_key("A", &a);
        let (_, for_pending) = owner.create_key("Pending", &pending);

        for (domain, by_all, by_a) in [
            ("a.test", OK, OK),
            ("A.Test", OK, OK),
            ("a.test.", OK, OK),
            (" a.test ", OK, OK),
            ("b.test", OK, NOT_ALLOWED),
            ("bücher.test", OK, NOT_ALLOWED),
            ("BÜCHER.test", OK, NOT_ALLOWED),
            ("xn--bcher-kva.test", OK, NOT_ALLOWED),
            ("pending.test", NOT_ALLOWED, NOT_ALLOWED),
            ("failed.test", NOT_ALLOWED, NOT_ALLOWED),
            ("evil.test", NOT_ALLOWED, NOT_ALLOWED),
            ("nowhere.test", NOT_ALLOWED, NOT_ALLOWED),
            ("sub.a.test", NOT_ALLOWED, NOT_ALLOWED),
            ("test", NOT_ALLOWED, NOT_ALLOWED),
            ("a.test..", NOT_ALLOWED, NOT_ALLOWED),
            (".a.test", NOT_ALLOWED, NOT_ALLOWED),
            ("*.test", NOT_ALLOWED, NOT_ALLOWED),
            ("%", NOT_ALLOWED, NOT_ALLOWED),
            ("a.test,b.test", NOT_ALLOWED, NOT_ALLOWED),
            ("a.test b.test", NOT_ALLOWED, NOT_ALLOWED),
            ("ada@a.test", NOT_ALLOWED, NOT_ALLOWED),
            ("https://a.test", NOT_ALLOWED, NOT_ALLOWED),
            ("a.test\0", NOT_ALLOWED, NOT_ALLOWED),
            ("127.0.0.1", NOT_ALLOWED, NOT_ALLOWED),
            ("all", NOT_ALLOWED, NOT_ALLOWED),
            ("' OR 1=1 --", NOT_ALLOWED, NOT_ALLOWED),
            (&"a.".repeat(2_000), NOT_ALLOWED, NOT_ALLOWED),
            (" ", NOT_ALLOWED, NOT_ALLOWED),
            ("", NOT_ALLOWED, NOT_ALLOWED),
        ] {
            assert_eq!(about(&app, &all, domain), by_all, "all: {domain:?}");
            assert_eq!(about(&app, &for_a, domain), by_a, "a.test: {domain:?}");
        }
        for query in ["domain", "domain=", "domain&x=1", "domain=%FF", "domain=a%FF.test"] {
            let answer = ask(&app, &all, "GET", &format!("/v2/verify?{query}"));
            assert_eq!(told(&answer), NOT_ALLOWED, "{query}");
        }
        for query in ["", "&", "x=1"] {
            assert_eq!(told(&ask(&app, &all, "GET", &format!("/v2/verify?{query}"))), OK);
        }

        // From the moment when it is verified, until the moment when it is deleted.
        for key in [&all, &for_pending] {
            assert_eq!(about(&app, key, "pending.test"), NOT_ALLOWED);
        }
        verify_domain(&app, "pending.test");
        for key in [&all, &for_pending] {
            assert_eq!(about(&app, key, "pending.test"), OK);
        }
        let gone = owner.add_domain("gone.test");
        verify_domain(&app, "gone.test");
        assert_eq!(about(&app, &all, "gone.test"), OK);
        assert_eq!(owner.post(&format!("/domains/{gone}/delete"), &[]).status, 303);
        assert_eq!(about(&app, &all, "gone.test"), NOT_ALLOWED);
    }

    fn a_domain_named_twice_or_misspelt_is_a_bad_request(app: App) {
        let owner = app.owner();
        let a = verify_domain(&app, "a.test").to_string();
        verify_domain(&app, "b.test");
        let (_, key) = owner.create_key("A", &a);
        for query in [
            "domain=a.test&domain=b.test",
            "domain=b.test&domain=a.test",
            "domain=a.test&domain=a.test",
            "domain=a.test&domain",
            "domain=a.test&x=1&%64omain=b.test",
            "Domain=b.test",
            "domain[]=b.test",
            "domain[0]=a.test",
            "DOMAIN",
            "_domain=a.test&domain=a.test",
        ] {
            let answer = ask(&app, &key, "GET", &format!("/v2/verify?{query}"));
            assert_eq!(told(&answer), "400", "{query}");
        }
    }

    fn other_methods_and_paths_are_refused(app: App) {
        let (_, key) = app.owner().create_key("Key", "");
        for (method, path, status) in [
            ("POST", "/v2/verify", "405"),
            ("PUT", "/v2/verify", "405"),
            ("DELETE", "/v2/verify", "405"),
            ("OPTIONS", "/v2/verify", "405"),
            ("BREW", "/v2/verify", "405"),
            ("GET", "/v2/verifying", "404"),
            ("GET", "/v2/Verify", "404"),
            ("GET", "/v2//verify", "404"),
            ("GET", "/v2/verify%2Foriginal", "404"),
            ("GET", "/v2/info/verify/original", "404"),
        ] {
            assert_eq!(told(&ask(&app, &key, method, path)), status, "{method} {path}");
        }
        assert_eq!(told(&app.program(&key).info()), OK);
    }

    fn envoy_asks_with_the_path_and_method_of_the_original(app: App) {
        let owner = app.owner();
        let (id, key) = owner.create_key("Key", "");
        let program = app.program(&key);
        // But that the connection may end with a body that nobody reads.
        let seen = |answer: &Answer| {
            let (status, mut headers, body) = seen(answer);
            headers.retain(|(name, _)| name != "connection");
            (status, headers, body)
        };
        let verdict = seen(&verify(&app, &key));
        let body = json!({"subject": "Hello"}).to_string();
        for path in [
            "/",
            "//",
            "/orders",
            "//orders",
            "/orders/7?domain=evil.test",
            "/?domain=evil.test&domain=",
            "/v2/verify?domain=",
            "/v2/info",
            "/%00%0A%FF",
            "/*",
            "/grüße",
        ] {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
                let request = program.with_key(method, &format!("/v2/verify{path}"));
                let request = match method {
                    "GET" => request,
                    _ => request.body(body.clone()),
                };
                assert_eq!(seen(&program.send(request)), verdict, "{method} {path}");
            }
        }
        let long = format!("/v2/verify/{}", "a/".repeat(4_000));
        assert_eq!(seen(&ask(&app, &key, "GET", &long)), verdict);
        let upload = program.with_key("POST", "/v2/verify/upload");
        assert_eq!(told(&program.send(upload.body(vec![0; 1024 * 1024]))), OK);

        // As it is, not as a path that leads elsewhere.
        for path in ["/../info", "/%2e%2e/%2e%2e/login", "/..%2Fnothing"] {
            let answer = raw(app.address, format!(
                "GET /v2/verify{path} HTTP/1.1\r\nHost: localhost\r\n\
                 Authorization: Bearer {key}\r\nConnection: close\r\n\r\n"
            ).as_bytes());
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&verdict.2), "{path}");
        }

        delete(&owner, id);
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let answer = ask(&app, &key, method.as_str(), "/v2/verify/orders");
            assert_eq!(told(&answer), INVALID, "{method}");
        }
    }
}
