//! The API under `/v2`, as programs see it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::blocking::RequestBuilder;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use crate::support::*;

const FROM: &str = "hello@acme.test";
const JSON: &str = "application/json";
/// The right shape and checksum, and nobody's.
const UNKNOWN: &str = "tsend_abcdefghijklmnopqrstuvwxyzABCDEF4b12qQ";
const MISSING: &str = concat!(
    r#"{"status_code":401,"error_type":"unauthorized","message":"API Key is missing","#,
    r#""errors":{"api_key":{"required":"API key is required."}}}"#,
);
const INVALID: &str = concat!(
    r#"{"status_code":403,"error_type":"forbidden","message":"Invalid API Key","#,
    r#""errors":{"api_key":{"invalid":"The provided API key is invalid."}}}"#,
);

/// Adds a verified domain, or verifies one that is there; gives its id.
pub fn verify(app: &App, domain: &str) -> i64 {
    let said = attest(&app.database, domain);
    let name = said.split(' ').next().unwrap();
    let sql = format!("SELECT id FROM sending_domains WHERE name = '{name}'");
    app.database.number(&sql)
}

/// The owner, and a key that sends from the verified acme.test.
fn ready(app: &App) -> (Visitor, String) {
    let owner = app.owner();
    verify(app, "acme.test");
    let (_, key) = owner.create_key("Production server", "");
    (owner, key)
}

fn info(app: &App, authorization: impl AsRef<[u8]>) -> Answer {
    let anyone = app.program("");
    let value = HeaderValue::from_bytes(authorization.as_ref()).unwrap();
    anyone.send(
        anyone
            .bare("GET", "/v2/info")
            .header("authorization", value),
    )
}

fn info_by_query(app: &App, key: &str) -> Answer {
    let anyone = app.program("");
    anyone.send(anyone.bare("GET", &with_query("/v2/info", key)))
}

fn with_query(path: &str, key: &str) -> String {
    let key: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect();
    format!("{path}?api_key={key}")
}

/// An email without a key in its header, changed in one member.
fn post_with(app: &App, field: &str, value: Value) -> Answer {
    let anyone = app.program("");
    anyone.send(
        anyone
            .bare("POST", "/v2/emails")
            .json(&email_with(field, value)),
    )
}

/// A body as it is, from a program with this key, or without one.
fn post_raw(app: &App, key: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Answer {
    let program = app.program(key);
    let mut request = program.bare("POST", "/v2/emails").body(body.into());
    if !key.is_empty() {
        request = request.bearer_auth(key);
    }
    if !content_type.is_empty() {
        request = request.header("content-type", content_type);
    }
    program.send(request)
}

/// More than is taken of a body before it needs a place.
const BIG: usize = 2 * 1024 * 1024;

/// For how long the server waits for a body, less what ends it.
const BODY_DEADLINE: Duration = Duration::from_secs(28);

/// Sends until all places are taken, or it is too late for that. Gives the last answer: the refusal,
/// which is 503.
fn until_refused(is_late: &dyn Fn() -> bool, mut send: impl FnMut() -> Answer) -> Answer {
    loop {
        let answer = send();
        assert!(matches!(answer.status, 200 | 503), "{answer:?}");
        if answer.status == 503 || is_late() {
            return answer;
        }
    }
}

/// An email that is longer than that, also as text; with the key in it, if there is one.
fn big_email(key: Option<&str>) -> (Value, String) {
    let mut email = email_with("text", json!("x".repeat(BIG * 3 / 2)));
    if let Some(key) = key {
        email["api_key"] = json!(key);
    }
    let body = email.to_string();
    (email, body)
}

/// Begins to send an email, by a program with this key in the header, or with none.
fn begin(app: &App, key: &str, body: &str) -> Slow {
    let authorization = match key {
        "" => String::new(),
        key => format!("Authorization: Bearer {key}\r\n"),
    };
    let head = format!(
        "POST /v2/emails HTTP/1.1\r\nHost: localhost\r\n{authorization}Content-Type: {JSON}\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    Slow::begin(app.address, &(head + &body[..BIG]))
}

fn email_with(field: &str, value: Value) -> Value {
    let mut email = email(FROM);
    email[field] = value;
    email
}

fn last_message(app: &App) -> String {
    app.database
        .text("SELECT message FROM emails ORDER BY id DESC LIMIT 1")
}

fn count_emails(app: &App) -> i64 {
    app.database.number("SELECT count(*) FROM emails")
}

/// What an answer says in short, as in `422 subject.required`, once its form is the contract's.
pub fn told(answer: &Answer) -> String {
    for (name, value) in [
        ("content-type", JSON),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        (
            "content-security-policy",
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}: {answer:?}");
    }
    for of_pages in ["permissions-policy", "referrer-policy", "x-frame-options"] {
        assert_eq!(answer.header(of_pages), None, "{answer:?}");
    }
    assert_eq!(
        (answer.header("server"), answer.header("set-cookie")),
        (None, None)
    );
    let challenge = (answer.status == 401).then_some(r#"Bearer realm="tosend""#);
    assert_eq!(answer.header("www-authenticate"), challenge, "{answer:?}");

    let body = answer.json();
    if answer.status == 200 {
        assert!(body.is_object(), "{answer:?}");
        return "200".into();
    }
    let error_type = match answer.status {
        400 => "bad_request",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        405 => "method_not_allowed",
        413 => "payload_too_large",
        415 => "unsupported_media_type",
        422 => "validation_error",
        _ => panic!("{answer:?}"),
    };
    let message = body["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty(), "{answer:?}");
    assert_eq!(
        body,
        envelope(answer.status, error_type, message, body["errors"].clone())
    );
    let mut told = answer.status.to_string();
    for (field, codes) in body["errors"].as_object().unwrap() {
        for (code, sentence) in codes.as_object().unwrap() {
            assert!(!sentence.as_str().unwrap().is_empty(), "{answer:?}");
            told += &format!(" {field}.{code}");
        }
    }
    told
}

fn envelope(status: u16, error_type: &str, message: &str, errors: Value) -> Value {
    json!({
        "status_code": status,
        "error_type": error_type,
        "message": message,
        "errors": errors,
    })
}

/// All that a client can see but the hour.
pub fn seen(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let headers = answer.headers.iter().filter(|(name, _)| *name != "date");
    let mut headers: Vec<_> = headers
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    (answer.status, headers, answer.body.clone())
}

fn assert_missing(answer: &Answer, what: &str) {
    assert_eq!(told(answer), "401 api_key.required", "{what}");
    assert_eq!(answer.body, MISSING, "{what}");
}

fn assert_invalid(answer: &Answer, what: &str) {
    assert_eq!(told(answer), "403 api_key.invalid", "{what}");
    assert_eq!(answer.body, INVALID, "{what}");
}

both! {
    fn a_key_may_stand_in_the_header_the_body_or_the_query(app: App) {
        let (_, key) = ready(&app);
        for header in [
            format!("Bearer {key}"),
            format!("bearer {key}"),
            format!("BEARER {key}"),
            format!("Bearer  {key}"),
            format!("Bearer \t {key} \t "),
        ] {
            assert_eq!(told(&info(&app, &header)), "200");
        }
        assert_eq!(told(&app.program(&key).email_from(FROM)), "200");
        for padded in [key.clone(), format!(" {key}\r\n\t")] {
            assert_eq!(told(&post_with(&app, "api_key", json!(padded))), "200");
            assert_eq!(told(&info_by_query(&app, &padded)), "200");
        }
    }

    fn a_key_anywhere_else_is_none(app: App) {
        let (owner, key) = ready(&app);
        let anyone = app.program("");
        let info = || anyone.bare("GET", "/v2/info");
        let by_query = anyone.bare("POST", &with_query("/v2/emails", &key));
        let requests: [(&str, RequestBuilder); 8] = [
            ("query of a POST", by_query.json(&email(FROM))),
            ("body of a GET", info().json(&json!({"api_key": key}))),
            ("form", anyone.bare("POST", "/v2/emails").form(&[("api_key", &key)])),
            ("list", anyone.bare("POST", "/v2/emails").json(&json!([{"api_key": key}]))),
            ("cookie", info().header("cookie", format!("api_key={key}"))),
            ("x-api-key", info().header("x-api-key", &key)),
            ("bare header", info().header("authorization", &key)),
            ("password of Basic", info().basic_auth("api", Some(&key))),
        ];
        for (what, request) in requests {
            assert_missing(&anyone.send(request), what);
        }
        // A session is no key: /v2 reads no cookie.
        assert_missing(&owner.get("/v2/info"), "session");
        let post = owner.same_origin("POST", "/v2/emails").json(&email(FROM));
        assert_missing(&owner.send(post), "session");
        assert_eq!(count_emails(&app), 0);
    }

    fn a_key_opens_no_page(app: App) {
        let (_, key) = ready(&app);
        let program = app.program(&key);
        for path in ["/api-keys", "/api-keys/new", "/domains"] {
            let answer = program.send(program.bare("GET", path).bearer_auth(&key));
            assert_eq!(answer.status, 303, "{path}");
            assert!(answer.location().unwrap().starts_with("/login"), "{answer:?}");
        }
        let form = [("name", "another"), ("scope", "all"), ("expiry", "none"), ("nonce", "")];
        let post = program.bare("POST", "/api-keys").header("sec-fetch-site", "same-origin");
        let answer = program.send(post.bearer_auth(&key).form(&form));
        assert_eq!((answer.status, answer.location()), (303, Some("/login?unsent=yes")));
        assert_eq!(app.database.number("SELECT count(*) FROM api_keys"), 1);
    }

    fn the_header_wins(app: App) {
        let (_, key) = ready(&app);
        let anyone = app.program("");
        for (in_header, elsewhere, status) in
            [(key.as_str(), UNKNOWN, "200"), (UNKNOWN, key.as_str(), "403 api_key.invalid")]
        {
            let info = anyone.bare("GET", &with_query("/v2/info", elsewhere));
            let info = info.bearer_auth(in_header);
            assert_eq!(told(&anyone.send(info)), status);
            let body = email_with("api_key", json!(elsewhere));
            assert_eq!(told(&app.program(in_header).post(&body)), status);
        }
    }

    fn a_header_without_a_key_leaves_the_other_places(app: App) {
        let (_, key) = ready(&app);
        let anyone = app.program("");
        let headers = ["", "Bearer", "bearer \t ", "Basic dXNlcjpwYXNz", "Bearerx y", "Digest"];
        for header in headers.map(Some).into_iter().chain([None]) {
            let request = |method: &str, path: &str| {
                let request = anyone.bare(method, path);
                match header {
                    Some(value) => request.header("authorization", value),
                    None => request,
                }
            };
            let what = format!("{header:?}");
            let (info, post) = (request("GET", "/v2/info"), request("POST", "/v2/emails"));
            assert_missing(&anyone.send(info), &what);
            assert_missing(&anyone.send(post.json(&email(FROM))), &what);
            let info = request("GET", &with_query("/v2/info", &key));
            assert_eq!(told(&anyone.send(info)), "200", "{what}");
            let post = request("POST", "/v2/emails");
            let post = post.json(&email_with("api_key", json!(key)));
            assert_eq!(told(&anyone.send(post)), "200", "{what}");
        }
        for nothing in ["", " \t"] {
            assert_missing(&info_by_query(&app, nothing), "query");
            assert_missing(&post_with(&app, "api_key", json!(nothing)), "body");
        }
        assert_missing(&post_with(&app, "api_key", Value::Null), "null");
    }

    fn keys_that_do_not_work_cannot_be_told_apart(app: App) {
        let (owner, key) = ready(&app);
        let (deleted_id, deleted) = owner.create_key("deleted", "");
        let (paused_id, paused) = owner.create_key("paused", "");
        assert_eq!(told(&app.program(&deleted).info()), "200");
        assert_eq!(told(&app.program(&paused).info()), "200");
        owner.delete_key(deleted_id);
        owner.post(&format!("/api-keys/{paused_id}/pause"), &[]);
        let unknown = seen(&info(&app, format!("Bearer {UNKNOWN}")));
        assert_eq!((unknown.0, unknown.2.as_str()), (403, INVALID));

        let check = |key: &str, what: &str| {
            for answer in [
                app.program(key).info(),
                app.program(key).email_from(FROM),
                post_with(&app, "api_key", json!(key)),
                info_by_query(&app, key),
            ] {
                assert_invalid(&answer, what);
                assert_eq!(seen(&answer), unknown, "{what}");
            }
        };
        let wrong_checksum = format!("{}x", &UNKNOWN[..43]);
        let lower = key.to_ascii_lowercase();
        let (two, inner_tab) = (format!("{key} {key}"), format!("{}\t{}", &key[..9], &key[9..]));
        for (candidate, what) in [
            (UNKNOWN, "unknown"),
            (&deleted, "deleted"),
            (&paused, "paused"),
            (&wrong_checksum, "wrong checksum"),
            (&lower, "lower case"),
            (&key[..43], "cut"),
            (&format!("{key}0"), "longer"),
            (&two, "two tokens"),
            (&inner_tab, "tab"),
            (&format!("{key},"), "comma"),
            (&format!("tsend_admin_{}", &key[6..]), "another kind of key"),
            ("null", "word"),
            (&"a".repeat(8 * 1024), "8 KiB"),
        ] {
            check(candidate, what);
        }
        let mut bytes = format!("Bearer {key}").into_bytes();
        for byte in 0x80..=0xFF {
            bytes[20] = byte;
            assert_eq!(seen(&info(&app, &bytes)), unknown, "{byte:x}");
        }
        for odd in [format!("{key}\0"), format!("\0{key}"), format!("{key}\u{85}")] {
            assert_eq!(seen(&info_by_query(&app, &odd)), unknown, "{odd:?}");
            assert_eq!(seen(&post_with(&app, "api_key", json!(odd))), unknown, "{odd:?}");
        }
        for odd in [json!(7), json!(true), json!([key]), json!({"api_key": key})] {
            assert_eq!(seen(&post_with(&app, "api_key", odd.clone())), unknown, "{odd}");
        }

        assert_eq!(told(&app.program(&key).info()), "200");
        cli(&app.database, &["account", "pause", "--account", EMAIL], "").unwrap();
        check(&key, "paused account");
        cli(&app.database, &["account", "resume", "--account", EMAIL], "").unwrap();
        assert_eq!(told(&app.program(&key).info()), "200");
        assert_eq!(count_emails(&app), 0);
    }

    fn two_authorization_headers_are_a_bad_request(app: App) {
        let (_, key) = ready(&app);
        let (good, basic) = (format!("Bearer {key}"), "Basic dXNlcjpwYXNz".to_owned());
        let anyone = app.program("");
        for (first, second) in [(&good, &good), (&good, &basic), (&basic, &good), (&basic, &basic)]
        {
            let send = |request: RequestBuilder| {
                let request = request.header("authorization", first);
                anyone.send(request.header("authorization", second))
            };
            let info = anyone.bare("GET", &with_query("/v2/info", &key));
            assert_eq!(told(&send(info)), "400");
            let body = email_with("api_key", json!(key));
            assert_eq!(told(&send(anyone.bare("POST", "/v2/emails").json(&body))), "400");
        }
        assert_eq!(count_emails(&app), 0);
    }

    fn the_key_is_asked_for_before_the_body_is_complained_about(app: App) {
        let (_, key) = ready(&app);
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        let unfinished = format!("{{\"api_key\": \"{key}\", \"subject\": ");
        let unreadable: [&[u8]; 9] = [
            b"{",
            b"not json",
            b" ",
            b"{\"subject\": \"\\ud800\"}",
            b"{\"subject\": \"\xff\"}",
            b"{\"subject\": 1e999}",
            b"{} {}",
            deep.as_bytes(),
            unfinished.as_bytes(),
        ];
        for body in unreadable {
            let what = String::from_utf8_lossy(body);
            assert_missing(&post_raw(&app, "", JSON, body), &what);
            assert_invalid(&post_raw(&app, UNKNOWN, JSON, body), &what);
            assert_eq!(told(&post_raw(&app, &key, JSON, body)), "400", "{what}");
        }
        let body = serde_json::to_vec(&email(FROM)).unwrap();
        for content_type in [
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "text/plain",
            "application/json; charset=iso-8859-1",
            "application/json; charset=\"utf-16\"",
            "json",
        ] {
            let what = content_type;
            assert_missing(&post_raw(&app, "", what, body.clone()), what);
            assert_invalid(&post_raw(&app, UNKNOWN, what, body.clone()), what);
            assert_eq!(told(&post_raw(&app, &key, what, body.clone())), "415", "{what}");
        }
        assert_eq!(count_emails(&app), 0);
        for content_type in ["", "Application/JSON", "application/json; charset=UTF-8"] {
            assert_eq!(told(&post_raw(&app, &key, content_type, body.clone())), "200");
        }
        let nothing = "422 content.required from.required subject.required to.required";
        for content_type in ["", JSON, "application/x-www-form-urlencoded"] {
            assert_eq!(told(&post_raw(&app, &key, content_type, "")), nothing, "{content_type}");
        }
        assert_missing(&post_raw(&app, "", JSON, ""), "no body");
    }

    fn an_oversized_body_is_refused_before_any_key(app: App) {
        let (_, key) = ready(&app);
        let limit = 16 * 1024 * 1024;
        let keys = [UNKNOWN, &key].map(|key| format!("Authorization: Bearer {key}\r\n"));
        for authorization in ["", &keys[0], &keys[1]] {
            let head = format!(
                "POST /v2/emails HTTP/1.1\r\nHost: localhost\r\n{authorization}\
                 Content-Type: {JSON}\r\nConnection: close\r\n"
            );
            // Told by its length, and found out while it is read.
            let declared = format!("{head}Content-Length: {}\r\n\r\n{{", 17 * 1024 * 1024);
            let chunked = format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
                limit + 1,
                " ".repeat(limit + 1)
            );
            for request in [declared, chunked] {
                let answer = raw(app.address, request.as_bytes());
                assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
                let body = answer.split_once("\r\n\r\n").unwrap().1;
                let body: Value = serde_json::from_str(body).unwrap();
                let message = body["message"].as_str().unwrap();
                assert_eq!(body, envelope(413, "payload_too_large", message, json!({})));
            }
        }
        assert_eq!(told(&app.program(&key).info()), "200");
    }

    fn a_head_that_cannot_be_read_has_a_status_alone(app: App) {
        let (_, key) = ready(&app);
        let get = |authorization: &[u8]| {
            let head = b"GET /v2/info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
            let lines = [&head[..], b"Authorization: Bearer ", authorization, b"\r\n\r\n"];
            raw(app.address, &lines.concat())
        };
        assert!(get(key.as_bytes()).starts_with("HTTP/1.1 200 "));
        for broken in [format!("{key}\0"), format!("{}\x01{}", &key[..9], &key[9..])] {
            let answer = get(broken.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        }
        // Its answer may be lost, since the server closes while there is more to read.
        let answer = get("a".repeat(1024 * 1024).as_bytes());
        let refused = ["HTTP/1.1 431 ", "HTTP/1.1 400 "].iter().any(|s| answer.starts_with(s));
        assert!(refused || answer.is_empty(), "{answer}");
        assert_eq!(told(&app.program(&key).info()), "200");
    }

    fn each_case_has_its_own_envelope(app: App) {
        let (owner, key) = ready(&app);
        owner.add_domain("pending.test");
        let other = verify(&app, "other.test").to_string();
        let (_, restricted) = owner.create_key("restricted", &other);
        let without = |field: &str| email_with(field, Value::Null);
        let many = vec![json!({"email": "bob@example.org"}); 51];
        let subject = "Subject and either html or text content are required.";
        let recipients = "Maximum 50 recipient email addresses are allowed.";
        let unverified = "The from email domain is not verified.";
        let not_allowed = "The from email domain is not allowed for this API key.";
        let cases = [
            (&key, without("subject"), subject, json!({
                "subject": {"required": "Subject is required."},
            })),
            (&key, without("text"), subject, json!({
                "content": {"required": "Either html or text content is required."},
            })),
            (&key, email_with("to", json!(many)), recipients, json!({
                "to": {"max_limit": recipients},
            })),
            (&key, email_with("cc", json!(many)), recipients, json!({
                "cc": {"max_limit": recipients},
            })),
            (&key, email_with("bcc", json!(many)), recipients, json!({
                "bcc": {"max_limit": recipients},
            })),
            (&key, email("a@nowhere.test"), "The from email domain is not found.", json!({
                "from": {
                    "domain_not_found": "The from email domain is not found in your account.",
                },
            })),
            (&key, email("a@pending.test"), unverified, json!({
                "from": {"domain_not_verified": unverified},
            })),
            (&restricted, email(FROM), not_allowed, json!({
                "from": {"domain_not_allowed": not_allowed},
            })),
        ];
        for (key, body, message, errors) in cases {
            let answer = app.program(key).post(&body);
            assert_eq!(answer.json(), envelope(422, "validation_error", message, errors));
            assert!(told(&answer).starts_with("422 "));
        }
        // What is missing or malformed is said by name.
        let nothing = app.program(&key).post(&json!({})).json();
        assert_eq!(nothing["errors"]["subject"], json!({"required": "Subject is required."}));
        assert_eq!(count_emails(&app), 0);
    }

    fn a_bad_email_is_refused_field_by_field(app: App) {
        let (_, key) = ready(&app);
        let program = app.program(&key);
        let nothing = "422 content.required from.required subject.required to.required";
        for body in [json!({}), json!([]), json!(null), json!(7), json!("x"), json!([email(FROM)])]
        {
            assert_eq!(told(&program.post(&body)), nothing, "{body}");
        }
        let file = |content: &str| {
            json!([{"type": "text/plain", "name": "a.txt", "content": content}])
        };
        let inject = "x\r\nBcc: eve@evil.test";
        let someone = |name: &str| json!({"email": "bob@example.org", "name": name});
        for (field, value, what) in [
            ("from", json!("hello@acme.test"), "from.email_required"),
            ("from", json!({"name": "Acme"}), "from.email_required"),
            ("from", json!({"email": 7}), "from.email_required"),
            ("from", json!({"email": "hello"}), "from.email_invalid"),
            ("from", json!({"email": "Acme <hello@acme.test>"}), "from.email_invalid"),
            ("from", json!({"email": FROM, "name": inject}), "from.name_invalid"),
            ("from", json!({"email": format!("{FROM}\r\nBcc: e@evil.test")}), "from.email_invalid"),
            ("from", json!({"email": "\"a\r\nBcc: b\"@acme.test"}), "from.email_invalid"),
            ("from", json!({"email": "a\0b@acme.test"}), "from.email_invalid"),
            ("to", json!([]), "to.required"),
            ("to", json!("bob@example.org"), "to.invalid"),
            ("to", json!(["bob@example.org"]), "to.invalid"),
            ("to", json!([{"email": "bob"}]), "to.invalid"),
            ("to", json!([{"email": "bob@example.org\nBcc: e@evil.test"}]), "to.invalid"),
            ("to", json!([{"email": "\"b\r\nBcc: e\"@example.org"}]), "to.invalid"),
            ("to", json!([someone(inject)]), "to.invalid"),
            ("cc", json!([someone("x\n")]), "cc.invalid"),
            ("bcc", json!([someone("x\r")]), "bcc.invalid"),
            ("bcc", json!({"email": "bob@example.org"}), "bcc.invalid"),
            ("subject", json!(7), "subject.invalid"),
            ("subject", json!(["Hello"]), "subject.invalid"),
            ("subject", json!(" \t "), "subject.required"),
            ("subject", json!(inject), "subject.invalid"),
            ("subject", json!("a\0b"), "subject.invalid"),
            ("subject", json!("x".repeat(999)), "subject.max_length"),
            ("text", json!(7), "text.invalid"),
            ("html", json!({}), "html.invalid"),
            ("headers", json!("X-A: b"), "headers.invalid"),
            ("headers", json!({"X-A": 7}), "headers.invalid"),
            ("headers", json!({"X-A": inject}), "headers.invalid"),
            ("headers", json!({"X-A\r\nBcc": "b"}), "headers.invalid"),
            ("headers", json!({"X-A: b": "c"}), "headers.invalid"),
            ("headers", json!({"": "c"}), "headers.invalid"),
            ("headers", json!({"Bcc": "eve@evil.test"}), "headers.not_allowed"),
            ("headers", json!({"FROM": "eve@evil.test"}), "headers.not_allowed"),
            ("headers", json!({"dkim-Signature": "v=1"}), "headers.not_allowed"),
            ("headers", json!({"Return-Path": "a", "X-A": "a\nb"}),
                "headers.invalid headers.not_allowed"),
            ("headers", json!({"X-A": "x".repeat(998)}), "headers.invalid"),
            ("from", json!({"email": FROM, "name": "x".repeat(256)}), "from.name_invalid"),
            ("attachments", json!("a.txt"), "attachments.invalid"),
            ("attachments", json!(["a.txt"]), "attachments.invalid"),
            ("attachments", file("no base64!"), "attachments.invalid"),
            ("attachments", file("SGVsbG8"), "attachments.invalid"),
            ("attachments", file(&STANDARD.encode(vec![0; 11_000_000])), "attachments.max_size"),
            ("tags", json!({"k": "v".repeat(257)}), "tags.max_length"),
            ("tags", json!(["k"]), "tags.invalid"),
            ("tags", json!({"k": inject}), "tags.invalid"),
            ("message_hash", json!("h".repeat(256)), "message_hash.invalid"),
            ("message_hash", json!(inject), "message_hash.invalid"),
        ] {
            let answer = program.post(&email_with(field, value.clone()));
            let sent: String = value.to_string().chars().take(60).collect();
            assert_eq!(told(&answer), format!("422 {what}"), "{field}: {sent}");
        }
        assert_eq!(count_emails(&app), 0);

        // Exactly as much as is allowed.
        let fifty = json!(vec![json!({"email": "bob@example.org"}); 50]);
        let mut full = email_with("subject", json!("x".repeat(998)));
        for field in ["to", "cc", "bcc"] {
            full[field] = fifty.clone();
        }
        full["attachments"] = file(&STANDARD.encode(vec![0; 10 * 1024 * 1024]));
        assert_eq!(told(&program.post(&full)), "200");
    }

    fn of_a_repeated_member_the_last_counts(app: App) {
        let (_, key) = ready(&app);
        let body = |key: &str, [first, last]: [&str; 2]| {
            let email = email(FROM).to_string();
            let repeated = format!(
                r#""api_key":"{UNKNOWN}","api_key":"{key}","subject":"{first}","subject":"{last}""#
            );
            format!("{},{repeated}}}", email.strip_suffix('}').unwrap())
        };
        let last = "SELECT message FROM emails ORDER BY id DESC LIMIT 1";
        assert_eq!(told(&post_raw(&app, "", JSON, body(&key, ["", "Last"]))), "200");
        let stored: Value = serde_json::from_str(&app.database.text(last)).unwrap();
        assert_eq!(stored["subject"], "Last");
        let refused = post_raw(&app, "", JSON, body(&key, ["First", ""]));
        assert_eq!(told(&refused), "422 subject.required");
        assert_invalid(&post_raw(&app, "", JSON, body(UNKNOWN, ["First", "Last"])), "last key");
    }

    fn an_accepted_email_is_stored_whole_and_without_the_key(app: App) {
        let (_, key) = ready(&app);
        let mut fields = json!({
            "from": {"email": FROM, "name": "Acme"},
            "to": [
                {"email": "bob@example.org", "name": "Bob, \"B.\" Müller"},
                {"email": "bob@example.org", "name": null},
            ],
            "cc": [{"email": "carol@example.org", "name": null}],
            "bcc": [{"email": "dave@example.org", "name": "Dave"}],
            "reply_to": {"email": "ada@acme.test", "name": "Ada"},
            "subject": "Grüße 👋",
            "html": "<p>It works.</p>",
            "text": "It works.\r\n\0",
            "headers": {"X-Campaign": "spring"},
            "attachments": [{
                "type": "text/plain",
                "name": "a.txt",
                "content": "SGVsbG8=",
                "content_id": "a1",
            }],
            "tags": {"kind": "welcome"},
            "message_hash": "order-1",
        });
        let stored = fields.clone();
        fields["api_key"] = json!(key);
        fields["status"] = json!("sent");
        fields["account_id"] = json!(7);
        fields["reply_to"] = json!("Ada <ada@acme.test>");
        fields["attachments"][0]["content"] = json!("SGVs\r\nbG8=");
        let anyone = app.program("");
        let answer = anyone.send(anyone.bare("POST", "/v2/emails").json(&fields));
        assert_eq!(told(&answer), "200");
        assert_eq!(answer.json(), json!({"message_id": "order-1"}));
        let message = app.database.text("SELECT message FROM emails");
        assert_eq!(serde_json::from_str::<Value>(&message).unwrap(), stored);
        let whose = app.database.number(
            "SELECT count(*) FROM emails
             JOIN api_keys ON api_keys.id = emails.api_key_id
             JOIN sending_domains ON sending_domains.id = emails.domain_id
             JOIN accounts ON accounts.id = emails.account_id
             WHERE emails.message_id = 'order-1' AND emails.status = 'held'
             AND api_keys.name = 'Production server' AND sending_domains.name = 'acme.test'
             AND accounts.title = 'Acme Inc'",
        );
        assert_eq!(whose, 1);

        // Each email without a hash has an id of its own.
        let send = || app.program(&key).email_from(FROM).json();
        let ids = [send(), send()].map(|body| {
            assert_eq!(body.as_object().unwrap().len(), 1);
            body["message_id"].as_str().unwrap().to_owned()
        });
        assert!(!ids[0].is_empty() && ids[0] != ids[1], "{ids:?}");
        for id in ids {
            let sql = format!("SELECT count(*) FROM emails WHERE message_id = '{id}'");
            assert_eq!(app.database.number(&sql), 1);
        }
    }

    fn requests_of_fluentsmtp_are_taken_as_it_makes_them(app: App) {
        let (_, key) = ready(&app);
        let anyone = app.program("");
        let send = |request: RequestBuilder| {
            anyone.send(request.header("accept", JSON).header("content-type", JSON))
        };
        // How it finds out whether a key works.
        let checked = send(anyone.bare("GET", &format!("/v2/info?api_key={key}")));
        assert_eq!(checked.status, 200);
        assert_eq!(checked.json()["account"]["title"], TITLE);
        let wrong = send(anyone.bare("GET", &format!("/v2/info?api_key={UNKNOWN}")));
        assert_eq!((wrong.status, &*wrong.body), (403, INVALID));

        let body = json!({
            "from": {"name": "", "email": FROM},
            "to": [{"name": "", "email": "bob@example.org"}],
            "subject": "[Shop] Your order",
            "api_key": key,
            "reply_to": "Müller, Zoë <zoe@example.org>",
            "cc": [{"name": "Carol", "email": "carol@example.org"}],
            "html": "<p>It is on its way.</p>",
            "attachments": [
                {"type": "text/plain", "name": "a.txt", "content": "SGVs\nbG8="},
            ],
            "headers": [{"X-Auto-Response-Suppress": "All"}, {"List-Unsubscribe": "<https://a.test>"}],
        });
        let sent = send(anyone.bare("POST", "/v2/emails").body(body.to_string()));
        assert_eq!(sent.status, 200, "{sent:?}");
        assert!(!sent.json()["message_id"].as_str().unwrap().is_empty());
        let stored: Value = serde_json::from_str(&last_message(&app)).unwrap();
        assert_eq!(stored["reply_to"], json!({"email": "zoe@example.org", "name": "Müller, Zoë"}));
        assert_eq!(stored["headers"]["List-Unsubscribe"], "<https://a.test>");
        assert!(!last_message(&app).contains(&key));
        // As its newer versions do: an object, whose name is left out if there is none.
        let mut newer = body.clone();
        newer["reply_to"] = json!({"email": "zoe@example.org"});
        newer["text"] = json!("");
        let sent = send(anyone.bare("POST", "/v2/emails").body(newer.to_string()));
        assert_eq!(told(&sent), "200");
        let stored: Value = serde_json::from_str(&last_message(&app)).unwrap();
        assert_eq!(stored["reply_to"], json!({"email": "zoe@example.org", "name": null}));
        // What it shows when it failed.
        let mut refused = body.clone();
        refused["from"]["email"] = json!("a@nowhere.test");
        let refused = send(anyone.bare("POST", "/v2/emails").body(refused.to_string()));
        assert_eq!(refused.json()["message"], "The from email domain is not found.");
    }

    /// curl, and so every program in PHP, asks before it sends more than 1 MiB, and waits a second if
    /// it hears nothing.
    fn who_asks_before_a_big_body_is_told_to_send_it(app: App) {
        let (_, key) = ready(&app);
        let (_, body) = big_email(None);
        let head = format!(
            "POST /v2/emails HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: {JSON}\r\nConnection: close\r\nExpect: 100-continue\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let mut client = Slow::begin(app.address, &head);
        assert!(client.interim().starts_with("HTTP/1.1 100 "));
        let end = client.end(&body);
        assert!(end.starts_with("HTTP/1.1 200 "), "{end}");
    }

    fn requests_of_the_php_sdk_are_taken_as_it_makes_them(app: App) {
        let (_, key) = ready(&app);
        let program = app.program(&key);
        let email = json!({
            "from": {"email": FROM, "name": "Your App"},
            "to": [{"email": "user@example.com"}, {"email": "another@example.com", "name": "John"}],
            "reply_to": {"email": "support@acme.test", "name": "Support"},
            "subject": "Welcome!",
            "html": "<h1>Hello</h1>",
            "headers": [],
            "attachments": [{"type": "text/plain", "name": "a.txt", "content": "SGVsbG8="}],
        });
        let post = |path: &str, body: &Value| {
            let request = program.with_key("POST", path).header("content-type", JSON);
            program.send(request.header("accept", JSON).body(body.to_string()))
        };
        assert_eq!(told(&post("/v2/emails", &email)), "200");
        assert_eq!(told(&post("/v2/emails/batch", &json!({"emails": [email, email]}))), "200");
        let typed = program.with_key("GET", "/v2/info").header("content-type", JSON);
        assert_eq!(program.send(typed).json()["account"]["emails_usage_this_month"], 3);
    }

    fn an_email_of_html_alone_gets_a_text(app: App) {
        let (_, key) = ready(&app);
        let mut email = email_with("html", json!("<h1>Hello</h1><p>It <b>works</b> &amp; runs.</p>"));
        email["text"] = Value::Null;
        assert_eq!(told(&app.program(&key).post(&email)), "200");
        let stored: Value = serde_json::from_str(&last_message(&app)).unwrap();
        assert_eq!(stored["html"], email["html"]);
        let text = stored["text"].as_str().unwrap();
        assert!(text.contains("Hello") && text.contains("& runs.") && !text.contains('<'), "{text}");
    }

    fn addresses_are_stored_as_mail_servers_take_them(app: App) {
        let (_, key) = ready(&app);
        verify(&app, "bücher.test");
        let mut email = email("a@bücher.test");
        email["to"] = json!([{"email": "b@müller.example"}]);
        email["reply_to"] = json!("Zoë <c@müller.example>");
        assert_eq!(told(&app.program(&key).post(&email)), "200");
        let stored: Value = serde_json::from_str(&last_message(&app)).unwrap();
        assert_eq!(stored["from"]["email"], "a@xn--bcher-kva.test");
        assert_eq!(stored["to"][0]["email"], "b@xn--mller-kva.example");
        assert_eq!(stored["reply_to"]["email"], "c@xn--mller-kva.example");
        for (field, code, value) in [
            ("from", "email_invalid", json!({"email": "zoë@bücher.test"})),
            ("to", "invalid", json!([{"email": "zoë@example.org"}])),
        ] {
            let answer = app.program(&key).post(&email_with(field, value));
            assert_eq!(told(&answer), format!("422 {field}.{code}"));
            let sentence = answer.json()["errors"][field][code].as_str().unwrap().to_owned();
            assert!(sentence.contains("ASCII"), "{sentence}");
        }
    }

    fn few_big_bodies_are_held_at_a_time(app: App) {
        let (_, key) = ready(&app);
        let (big, body) = big_email(None);
        let (first, rest) = body.split_at(BIG);
        let program = app.program(&key);
        // A body has so long to come.
        let (refused, ended) = within(BODY_DEADLINE, |is_late| {
            let mut held: Vec<Slow> = (0..5).map(|_| begin(&app, &key, &body)).collect();
            assert_eq!(program.post(&big).status, 200, "there is a place left");
            // Without a length, as it comes.
            let head = format!(
                "POST /v2/emails HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\
                 Content-Type: {JSON}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {BIG:x}\r\n{first}\r\n"
            );
            let mut last = Slow::begin(app.address, &head);
            let refused = until_refused(is_late, || program.try_post(&big).unwrap());
            // Whoever sends little is not concerned.
            assert_eq!(told(&program.email_from(FROM)), "200");
            assert_eq!(told(&program.info()), "200");

            let end = last.end(&format!("{:x}\r\n{rest}\r\n0\r\n\r\n", rest.len()));
            until("a place is free again", || {
                is_late() || program.try_post(&big).unwrap().status == 200
            });
            held.iter_mut().for_each(|slow| slow.try_send(rest));
            (refused, (end, held))
        });
        let (last, mut held) = ended;
        let ends = std::iter::once(last).chain(held.iter_mut().map(|slow| slow.end("")));
        let ended: Vec<String> = ends.map(|end| end.split("\r\n").next().unwrap().to_owned()).collect();
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        assert_eq!(refused.json()["error_type"], "service_unavailable");
        assert_eq!(ended, ["HTTP/1.1 200 OK"; 6]);
    }

    fn one_account_cannot_keep_the_room_for_big_bodies(app: App) {
        let (_, key) = ready(&app);
        let other = app.stranger();
        let theirs = ["domain", "add", "--account", "eve@evil.test", "evil.test", "--verified"];
        cli(&app.database, &theirs, "").unwrap();
        let (_, of_other) = other.create_key("Shop", "");
        let head = format!(
            "POST /v2/emails HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: {JSON}\r\nContent-Length: 1200000\r\n\r\n"
        );
        let begin = head + &" ".repeat(200_000);
        let big = |from: &str| {
            let mut big = email_with("text", json!("x".repeat(1_200_000)));
            big["from"]["email"] = json!(from);
            big
        };
        let mut in_body = big("a@evil.test");
        in_body["api_key"] = json!(of_other);
        let (ours, theirs) = (big(FROM), big("a@evil.test"));
        let (program, other) = (app.program(&key), app.program(&of_other));
        // A body has so long to come.
        within(BODY_DEADLINE, |is_late| {
            let _held: Vec<Slow> = (0..40).map(|_| Slow::begin(app.address, &begin)).collect();
            until_refused(is_late, || program.try_post(&ours).unwrap());
            // Whoever sends little is not concerned, nor is anybody else.
            assert_eq!(told(&program.email_from(FROM)), "200");
            assert_eq!(told(&post_raw(&app, "", JSON, in_body.to_string())), "200");
            assert_eq!(told(&other.post(&theirs)), "200");
        });
        until("there is room again", || program.try_post(&ours).unwrap().status == 200);
    }

    fn twelve_at_once_with_10_mb_of_attachments_get_their_turn(app: App) {
        let (_, key) = ready(&app);
        let content = "AAAA".repeat(10 * 1024 * 1024 / 3);
        let file = json!({"type": "image/png", "name": "a.png", "content": content});
        let body = email_with("attachments", json!([file])).to_string();
        std::thread::scope(|scope| {
            let send = || {
                // Where the machine is slow, some are told to try again.
                let answer = post_raw(&app, &key, JSON, body.clone());
                assert_eq!(answer.status, 200, "{answer:?}");
            };
            for _ in 0..12 {
                scope.spawn(send);
            }
        });
        assert_eq!(count_emails(&app), 12);
    }

    fn html_costs_what_its_length_does(app: App) {
        let (_, key) = ready(&app);
        let program = app.program(&key);
        let rows: String = (0..11_000).map(|n| format!("<tr><td colspan={n}>a")).collect();
        for html in [format!("<table>{rows}"), "<b>x".repeat(100_000), "<table>".repeat(100_000)] {
            let mut email = email_with("html", json!(html));
            email["text"] = Value::Null;
            assert_eq!(told(&program.post(&email)), "200");
            let stored: Value = serde_json::from_str(&last_message(&app)).unwrap();
            assert_eq!(stored["text"].is_string(), !html.ends_with('>'));
        }
    }

    fn what_is_no_json_is_told_where_and_why(app: App) {
        let (_, key) = ready(&app);
        let post = |path: &str, body: &[u8]| {
            let program = app.program(&key);
            let request = program.with_key("POST", path).header("content-type", JSON);
            let answer = program.send(request.body(body.to_vec()));
            assert_eq!(told(&answer), "400");
            answer.json()["message"].as_str().unwrap().to_owned()
        };
        for (body, why) in [
            (&b"{\"subject\": \"secret\",\n  \"to\" []}"[..], "a colon is missing (line 2, column 8)."),
            (b"{\"subject\": \"secret", "it ends too early (line 1, column 19)."),
            (b"{\"subject\": \"\xfc\"}", "it is not UTF-8 from byte 14 on."),
        ] {
            for path in ["/v2/emails", "/v2/emails/batch"] {
                let message = post(path, body);
                assert!(message.contains(why), "{path}: {message}");
                assert!(!message.contains("secret"), "{message}");
            }
        }
        let batch = b"{\"emails\": [\n  {},\n  {\"subject\": \"\\ude00\"}\n]}";
        let message = post("/v2/emails/batch", batch);
        assert!(message.contains("surrogate pair") && message.contains("(line 3, column 21)"), "{message}");
    }

    fn a_byte_order_mark_is_no_trouble(app: App) {
        let (_, key) = ready(&app);
        let marked = |email: &Value| format!("\u{FEFF}{email}");
        assert_eq!(told(&post_raw(&app, &key, JSON, marked(&email(FROM)))), "200");
        let with_key = email_with("api_key", json!(key));
        assert_eq!(told(&post_raw(&app, "", JSON, marked(&with_key))), "200");
        let program = app.program(&key);
        let batch = program.with_key("POST", "/v2/emails/batch").header("content-type", JSON);
        let batch = program.send(batch.body(marked(&json!([email(FROM)]))));
        assert_eq!(batch.status, 200, "{batch:?}");
        assert_eq!(count_emails(&app), 3);
    }

    fn strangers_take_no_place_of_who_has_a_key(app: App) {
        let (owner, key) = ready(&app);
        let (gone_id, gone) = owner.create_key("Gone", "");
        owner.delete_key(gone_id);
        let (big, body) = big_email(None);
        let program = app.program(&key);
        let (with_key, _) = big_email(Some(&key));
        let without_header = || {
            let anyone = app.program("");
            anyone.bare("POST", "/v2/emails").json(&with_key)
        };
        let send_without_header = || app.program("").send(without_header());
        assert_eq!(told(&send_without_header()), "200");
        // A body has so long to come.
        let [keyless, with_gone] = within(BODY_DEADLINE, |is_late| {
            let held = [begin(&app, "", &body), begin(&app, &gone, &body)];
            until_refused(is_late, || Answer::once(without_header()).unwrap());
            assert_eq!(told(&program.post(&big)), "200");
            held.map(|mut slow| slow.end(&body[BIG..]))
        });
        assert!(keyless.starts_with("HTTP/1.1 401 "), "{keyless}");
        assert!(with_gone.starts_with("HTTP/1.1 403 "), "{with_gone}");
        assert_eq!(told(&send_without_header()), "200");
    }

    fn a_body_that_would_grow_in_memory_is_refused(app: App) {
        let (owner, key) = ready(&app);
        let many = format!(r#"{{"x": [{}0]}}"#, "0,".repeat(20_000));
        assert_eq!(told(&post_raw(&app, &key, JSON, many.clone())), "400");
        assert_missing(&post_raw(&app, "", JSON, many), "without a key");
        let program = app.program(&key);
        let body = serde_json::to_vec(&email(FROM)).unwrap();
        let packed = program.with_key("POST", "/v2/emails").header("content-type", JSON);
        let packed = packed.header("content-encoding", "gzip").body(body);
        assert_eq!(told(&program.send(packed)), "415");
        let form = owner.same_origin("POST", "/domains").header("content-encoding", "gzip");
        assert_eq!(owner.send(form.form(&[("name", "acme.example")])).status, 415);
        assert_eq!(count_emails(&app), 0);
    }

    fn what_clients_get_slightly_wrong_is_tolerated(app: App) {
        let (_, key) = ready(&app);
        let program = app.program(&key);
        for (field, value) in [
            ("reply_to", json!("nobody")),
            ("reply_to", json!({"email": "x\r\nBcc: e@evil.test"})),
            ("headers", json!([])),
            ("tags", json!([])),
            ("cc", json!([])),
            ("bcc", Value::Null),
            ("attachments", json!([])),
            ("html", json!("")),
            ("message_hash", json!("")),
            ("unknown", json!({"a": [1]})),
        ] {
            let answer = program.post(&email_with(field, value.clone()));
            assert_eq!(told(&answer), "200", "{field}: {value}");
        }
        let dropped = "SELECT count(*) FROM emails WHERE message LIKE '%\"reply_to\":null%'";
        assert_eq!(app.database.number(dropped), count_emails(&app));
    }

    fn info_tells_the_account_its_domains_and_the_key(app: App) {
        let (owner, key) = ready(&app);
        owner.add_domain("pending.test");
        let failed = owner.add_domain("failed.test");
        let fail = format!("UPDATE sending_domains SET status = 'failed' WHERE id = {failed}");
        app.database.execute(&fail);
        let acme = app.database.number("SELECT id FROM sending_domains WHERE name = 'acme.test'");
        let (_, restricted) = owner.create_key("Restricted", &acme.to_string());
        app.stranger().add_domain("evil.test");

        let domain = |name: &str, status: &str, sent: i64| {
            let column = |column: &str| {
                format!("SELECT {column} FROM sending_domains WHERE name = '{name}'")
            };
            json!({
                "id": app.database.number(&column("id")),
                "domain_name": name,
                "verification_status": status,
                "is_default": i32::from(name == "acme.test"),
                "total_sent": sent,
                "total_delivered": 0,
                "total_bounced": 0,
                "total_complained": 0,
                "created_at": app.database.text(&column("created_at"))[..19],
            })
        };
        let account_id = app.database.number(&format!(
            "SELECT account_id FROM users WHERE email = '{EMAIL}'"
        ));
        let expected = |sent: i64, of_key: i64, name: &str, key: &str, scope: Value| {
            json!({
                "account": {
                    "id": account_id,
                    "title": TITLE,
                    "status": "active",
                    "plan_type": "self_hosted",
                    "credit_balance": null,
                    "monthly_email_limit": null,
                    "limit_per_second": null,
                    "ses_region": "",
                    "bounce_rate": 0.0,
                    "complaint_rate": 0.0,
                    "ses_status": "healthy",
                    "emails_usage_this_month": sent,
                    "emails_sent_last_24hrs": sent,
                },
                "domains": [
                    domain("acme.test", "verified", sent),
                    domain("failed.test", "failed", 0),
                    domain("pending.test", "pending", 0),
                ],
                "key": {
                    "name": name,
                    "truncated": format!("{}…{}", &key[..8], &key[40..]),
                    "scope": scope,
                    "emails_usage_this_month": of_key,
                    "emails_sent_last_24hrs": of_key,
                },
            })
        };
        let all = |sent: i64, of_key: i64| {
            expected(sent, of_key, "Production server", &key, json!("all"))
        };
        let program = app.program(&key);
        assert_eq!(told(&program.info()), "200");
        assert_eq!(program.info().json(), all(0, 0));
        assert_eq!(
            app.program(&restricted).info().json(),
            expected(0, 0, "Restricted", &restricted, json!(["acme.test"]))
        );
        // As PHP clients ask: a type, and no body.
        let typed = program.bare("GET", "/v2/info").bearer_auth(&key).header("content-type", JSON);
        assert_eq!(program.send(typed).json(), all(0, 0));
        assert_eq!(info_by_query(&app, &key).json(), all(0, 0));

        // Of accepted emails: the account's by whichever key, and the key's own.
        for (sender, from, sent, of_key) in [
            (&program, FROM, 1, 1),
            (&app.program(&restricted), FROM, 2, 1),
            (&program, "a@pending.test", 2, 1),
        ] {
            sender.email_from(from);
            assert_eq!(program.info().json(), all(sent, of_key));
        }
    }

    fn a_key_sends_from_verified_domains_of_its_account_and_scope(app: App) {
        let (owner, key) = ready(&app);
        let other = verify(&app, "other.test").to_string();
        verify(&app, "bücher.test");
        let pending = owner.add_domain("pending.test");
        let failed = owner.add_domain("failed.test");
        let fail = format!("UPDATE sending_domains SET status = 'failed' WHERE id = {failed}");
        app.database.execute(&fail);
        app.stranger().add_domain("evil.test");
        app.database.execute("UPDATE sending_domains SET status = 'verified'
            WHERE name = 'evil.test'");
        let (_, for_other) = owner.create_key("other", &other);
        let (_, for_pending) = owner.create_key("pending", &pending);

        let ok = "200";
        let not_found = "422 from.domain_not_found";
        let not_verified = "422 from.domain_not_verified";
        let not_allowed = "422 from.domain_not_allowed";
        for (key, from, what) in [
            (&key, FROM, ok),
            (&key, "HELLO@ACME.TEST", ok),
            (&key, "a@other.test", ok),
            (&key, "a@bücher.test", ok),
            (&key, "a@BÜCHER.test", ok),
            (&key, "a@xn--bcher-kva.test", ok),
            (&key, "a@XN--BCHER-KVA.TEST", ok),
            (&key, "a@nowhere.test", not_found),
            (&key, "a@mail.acme.test", not_found),
            (&key, "a@notacme.test", not_found),
            (&key, "a@test", not_found),
            (&key, "a@bucher.test", not_found),
            (&key, "a@evil.test", not_found),
            (&key, "\"hello@acme.test\"@evil.test", not_found),
            (&key, "a@[127.0.0.1]", not_found),
            (&key, "a@pending.test", not_verified),
            (&key, "a@failed.test", not_verified),
            (&for_other, "a@other.test", ok),
            (&for_other, FROM, not_allowed),
            (&for_other, "a@bücher.test", not_allowed),
            (&for_other, "a@sub.other.test", not_found),
            (&for_other, "a@nowhere.test", not_found),
            (&for_other, "a@pending.test", not_verified),
            (&for_pending, "a@pending.test", not_verified),
            (&for_pending, FROM, not_allowed),
        ] {
            let before = count_emails(&app);
            assert_eq!(told(&app.program(key).email_from(from)), what, "{from}");
            assert_eq!(count_emails(&app) - before, i64::from(what == ok), "{from}");
        }

        // The fields come before the domain, and a domain counts from when it is verified.
        let mut bad = email("a@nowhere.test");
        bad["subject"] = json!("");
        assert_eq!(told(&app.program(&key).post(&bad)), "422 subject.required");
        verify(&app, "pending.test");
        assert_eq!(told(&app.program(&for_pending).email_from("a@pending.test")), ok);
        assert_eq!(told(&app.program(&key).email_from("a@pending.test")), ok);
        let gone = owner.post(&format!("/domains/{failed}/delete"), &[]);
        assert_eq!(gone.status, 303);
        assert_eq!(told(&app.program(&key).email_from("a@failed.test")), not_found);
    }

    fn what_is_not_there_is_said_to_programs_in_their_shape(app: App) {
        let (owner, key) = ready(&app);
        let program = app.program(&key);
        let big = serde_json::to_vec(&json!({"text": "x".repeat(200_000)})).unwrap();
        for path in ["/v1/emails", "/v1", "//v2/emails", "/V2/emails", "/api/v2/emails", "/emails",
            "/v2emails", "/v2x/emails", "/api/emails", "/api-keys/1/nothing", "/%2Fv2/emails", "/static"]
        {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
                let ask = || program.bare(method, path);
                for (request, who) in [
                    (ask().bearer_auth(&key), "with a key"),
                    (ask().bearer_auth("x").header("accept", "text/html"), "with a wrong key"),
                    (ask().header("content-type", "application/json; charset=utf-8"), "with JSON"),
                    (ask().header("accept", "application/json"), "for JSON"),
                    (ask().bearer_auth(&key).header("sec-fetch-site", "cross-site"), "of a site"),
                ] {
                    let answer = program.send(request);
                    assert_eq!(told(&answer), "404", "{method} {path} {who} {answer:?}");
                    assert_eq!(answer.json()["errors"], json!({}), "{method} {path} {who}");
                    assert_eq!(answer.header("content-type"), Some("application/json"));
                    assert_eq!(answer.header("cache-control"), Some("no-store"));
                }
                // Of browsers, whatever site sent them.
                for site in ["same-origin", "cross-site"] {
                    let request = owner.request(method, path).header("accept", "text/html, */*;q=0.8");
                    let answer = owner.send(request.header("sec-fetch-site", site));
                    assert_eq!(answer.status, 404, "{method} {path} {site}");
                    assert!(answer.body.contains("There is nothing here."), "{method} {path}");
                }
            }
            let sent = program.bare("POST", path).bearer_auth(&key);
            let sent = sent.header("content-type", "application/json").body(big.clone());
            assert_eq!(told(&program.send(sent)), "404", "{path}");
        }
        // Spelled otherwise, it is there.
        assert_eq!(owner.get("/api%2Dkeys").status, 200);
        assert_eq!(count_emails(&app), 0);
    }

    fn an_answer_of_the_router_has_the_envelope_too(app: App) {
        let (_, key) = ready(&app);
        let program = app.program(&key);
        for (method, path, status) in [
            ("GET", "/v2", "404"),
            ("GET", "/v2/", "404"),
            ("GET", "/v2/nothing", "404"),
            ("POST", "/v2/nothing", "404"),
            ("GET", "/v2/emails/batch", "405"),
            ("GET", "/v2/info/", "404"),
            ("GET", "/v2//info", "404"),
            ("GET", "/v2/INFO", "404"),
            ("GET", "/v2/%00", "404"),
            ("GET", "/v2/%FF", "404"),
            ("GET", "/v2/%2e%2e%2fapi-keys", "404"),
            ("GET", "/v2/emails", "405"),
            ("PUT", "/v2/emails", "405"),
            ("PATCH", "/v2/emails", "405"),
            ("DELETE", "/v2/emails", "405"),
            ("OPTIONS", "/v2/emails", "405"),
            ("POST", "/v2/info", "405"),
            ("DELETE", "/v2/info", "405"),
            ("BREW", "/v2/info", "405"),
        ] {
            let with_key = program.send(program.bare(method, path).bearer_auth(&key));
            assert_eq!(told(&with_key), status, "{method} {path}");
            assert_eq!(with_key.json()["errors"], json!({}), "{method} {path}");
            let without = program.send(program.bare(method, path));
            assert_eq!(seen(&without), seen(&with_key), "{method} {path}");
        }
        assert_eq!(count_emails(&app), 0);
    }
}
