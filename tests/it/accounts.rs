//! Sign-up, sign-in, sign-out, and what stands against guessing.

use std::collections::HashSet;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use argon2::password_hash::PasswordHasher;
use argon2::{Algorithm, Argon2, Params, Version};
use chrono::{TimeDelta, Utc};

use tosend_dashboard::accounts::email::Email;
use tosend_dashboard::accounts::store::{self, sessions as session_store};
use tosend_dashboard::db::{DatabaseUrl, Db};

use crate::support::*;

const WRONG: &str = "five unrelated blue chairs";
const OTHER: &str = "bob@acme.test";
const LOGIN: &str = "/login";
/// An address that was stopped has one guess more after so long.
const ONE_MORE: Duration = Duration::from_secs(5);
const WRONG_LOGIN: &str = "The email address or the password is wrong.";

fn sign_up(visitor: &Visitor, email: &str, password: &str) -> Answer {
    let form = [("title", TITLE), ("email", email), ("password", password)];
    visitor.post("/signup", &form)
}

fn log_in(visitor: &Visitor, email: &str, password: &str) -> Answer {
    visitor.post(LOGIN, &[("email", email), ("password", password)])
}

/// Signs in as if from another address, told by a proxy.
fn log_in_from(app: &App, address: &str, email: &str, password: &str) -> Answer {
    let visitor = app.visitor();
    let request = visitor.same_origin("POST", LOGIN);
    let form = [("email", email), ("password", password)];
    visitor.send(request.header("x-forwarded-for", address).form(&form))
}

/// How many guesses an address has before it is stopped. None of them runs argon2.
fn guesses_until_stopped(guess: impl Fn(usize) -> Answer) -> usize {
    let admitted = (0..100).take_while(|&i| guess(i).status == 422).count();
    assert!(admitted < 100, "never stopped");
    admitted
}

fn accounts(app: &App) -> i64 {
    app.database.number("SELECT COUNT(*) FROM accounts")
}

fn sessions(app: &App) -> i64 {
    app.database.number("SELECT COUNT(*) FROM sessions")
}

/// An instant as both databases take it.
fn ago(time: TimeDelta) -> String {
    let instant = Utc::now().naive_utc() - time;
    instant.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

fn is_signed_in(visitor: &Visitor) -> bool {
    let answer = visitor.get("/api-keys");
    match (answer.status, answer.location()) {
        (200, None) => true,
        (303, Some("/login?next=%2Fapi-keys")) => false,
        _ => panic!("{answer:?}"),
    }
}

/// Makes the database refuse to change the table of sessions in one way.
fn refuse_on_sessions(app: &App, operation: &str) {
    app.database.execute(&match app.database.backend() {
        Backend::Sqlite => format!(
            "CREATE TRIGGER no BEFORE {operation} ON sessions
             BEGIN SELECT RAISE(ABORT, 'no'); END;"
        ),
        Backend::Postgres => format!(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'no'; END $$;
             CREATE TRIGGER no BEFORE {operation} ON sessions
             FOR EACH ROW EXECUTE FUNCTION no();"
        ),
    });
}

fn assert_is_unavailable_page(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        answer
            .body
            .contains("<h1>The server cannot do this right now.</h1>")
    );
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert_eq!(answer.header("x-frame-options"), Some("DENY"));
    assert!(answer.headers.contains_key("content-security-policy"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

fn assert_is_closed_page(answer: &Answer) {
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.body.contains("Sign-up is closed here."));
    assert!(answer.body.contains("href=\"/login\""));
}

fn assert_is_shut(answer: &Answer) {
    assert_eq!(answer.status, 429, "{answer:?}");
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&seconds), "{seconds}");
    assert!(answer.body.contains("Too many attempts."));
}

both! {
    fn the_first_visitor_signs_up_and_then_the_door_is_shut(app: App) {
        let visitor = app.visitor();
        for path in ["/", LOGIN] {
            let answer = visitor.get(path);
            assert_eq!((answer.status, answer.location()), (303, Some("/signup")), "{path}");
        }
        assert_eq!(visitor.get("/signup").status, 200);
        assert!(!is_signed_in(&visitor));

        let answer = sign_up(&visitor, EMAIL, PASSWORD);
        assert_eq!((answer.status, answer.location()), (303, Some("/api-keys")));
        assert!(is_signed_in(&visitor));
        assert_eq!(visitor.get("/").location(), Some("/api-keys"));

        let second = app.visitor();
        assert_is_closed_page(&second.get("/signup"));
        assert_is_closed_page(&sign_up(&second, OTHER, PASSWORD));
        assert_eq!(second.get(LOGIN).status, 200);
        assert!(!is_signed_in(&second));
        assert_eq!(accounts(&app), 1);
    }

    fn an_open_door_lets_a_second_account_in(app: App, with |s| s.signup = "open".into()) {
        app.owner();
        let second = app.visitor();
        assert!(second.get(LOGIN).body.contains("href=\"/signup\""));
        assert_eq!(sign_up(&second, OTHER, PASSWORD).status, 303);
        assert!(is_signed_in(&second));

        let third = app.visitor();
        let taken = sign_up(&third, &EMAIL.to_uppercase(), PASSWORD);
        assert_eq!(taken.status, 422);
        assert!(taken.body.contains("An account with this address already exists."));
        assert!(!is_signed_in(&third));
        assert_eq!(accounts(&app), 2);
    }

    fn an_open_door_lets_all_in_who_come_first_together(
        app: App, with |s| s.signup = "open".into()
    ) {
        thread::scope(|scope| {
            for n in 0..8 {
                let app = &app;
                scope.spawn(move || {
                    let answer = sign_up(&app.visitor(), &format!("n{n}@acme.test"), PASSWORD);
                    assert_eq!(answer.status, 303, "{}", answer.body);
                });
            }
        });
        assert_eq!(accounts(&app), 8);
    }

    fn behind_a_proxy_on_this_machine_the_set_up_code_is_asked_for(app: App) {
        for header in ["x-forwarded-for", "forwarded", "x-real-ip", "via"] {
            let visitor = app.visitor();
            let form = [("title", TITLE), ("email", EMAIL), ("password", PASSWORD)];
            let request = visitor.same_origin("POST", "/signup").header(header, "203.0.113.9");
            let answer = visitor.send(request.form(&form));
            assert_eq!(answer.status, 422, "{header}");
            assert!(answer.body.contains("Set-up code"));
        }
        assert_eq!(accounts(&app), 0);
    }

    fn a_closed_door_lets_nobody_in(app: App, with |s| s.signup = "closed".into()) {
        let visitor = app.visitor();
        assert_is_closed_page(&visitor.get("/signup"));
        assert_is_closed_page(&sign_up(&visitor, EMAIL, PASSWORD));
        assert_eq!(accounts(&app), 0);
        assert_eq!(visitor.get("/login").status, 200);
    }

    fn of_parallel_first_sign_ups_exactly_one_wins(app: App) {
        let statuses: Vec<u16> = thread::scope(|scope| {
            let app = &app;
            let one = |i| move || {
                sign_up(&app.visitor(), &format!("user{i}@acme.test"), PASSWORD).status
            };
            let all: Vec<_> = (0..20).map(|i| scope.spawn(one(i))).collect();
            all.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let count = |status| statuses.iter().filter(|&&s| s == status).count();
        assert_eq!((count(303), count(403)), (1, 19), "{statuses:?}");
        assert_eq!(accounts(&app), 1);
        assert_eq!(app.database.number("SELECT COUNT(*) FROM users"), 1);
        assert_eq!(sessions(&app), 1);
    }

    fn a_visitor_from_elsewhere_must_know_the_set_up_code(app: App) {
        let visitor = app.visitor();
        let send = |code: &str| {
            let form = [("title", TITLE), ("email", EMAIL), ("password", PASSWORD)];
            let mut form = form.to_vec();
            form.extend((!code.is_empty()).then_some(("setup_code", code)));
            visitor.send(visitor.same_origin("POST", "/signup").header("host", "dash.test")
                .form(&form))
        };
        assert!(!visitor.get("/signup").body.contains("name=\"setup_code\""));
        let form = visitor.send(visitor.request("GET", "/signup").header("host", "dash.test"));
        assert!(form.body.contains("name=\"setup_code\""));
        assert!(!form.body.contains(&app.setup_code));
        for wrong in ["", "-", "aaaa-aaaa-aaaa-aaaa"] {
            let answer = send(wrong);
            assert_eq!(answer.status, 422, "{wrong}");
            assert!(answer.body.contains("This is not the code"), "{}", answer.body);
            assert!(!answer.body.contains(&app.setup_code));
        }
        assert_eq!((accounts(&app), app.hasher.runs()), (0, 0));
        assert_eq!(send(&app.setup_code.to_uppercase()).status, 303);
        assert_eq!(accounts(&app), 1);
    }

    fn a_public_server_asks_everyone_for_the_set_up_code(
        app: App, with |s| s.public_url = Some("http://dash.example.test".into())
    ) {
        let visitor = app.visitor();
        for host in ["localhost", "127.0.0.1", "dash.example.test"] {
            let form = visitor.send(visitor.request("GET", "/signup").header("host", host));
            assert!(form.body.contains("name=\"setup_code\""), "{host}");
        }
        assert_eq!(sign_up(&visitor, EMAIL, PASSWORD).status, 422);
        assert_eq!(accounts(&app), 0);
    }

    fn a_weak_password_is_refused_beside_its_field(app: App) {
        let visitor = app.visitor();
        for (password, why) in [
            ("", "Use at least 15 characters."),
            ("fourteen chars", "Use at least 15 characters."),
            ("passwordpassword", "This password is easy to guess."),
            ("aaaaaaaaaaaaaaaaaaaa", "This password is easy to guess."),
            ("ada@acme.test ada@acme.test", "This password is easy to guess."),
            (&"long ".repeat(26), "Use at most 128 characters."),
        ] {
            let answer = sign_up(&visitor, EMAIL, password);
            assert_eq!(answer.status, 422, "{password}");
            let beside = answer.body.split("id=\"password-error\">").nth(1).unwrap();
            assert!(beside.starts_with(why), "{password}: {beside}");
            assert_eq!(answer.field("title"), TITLE);
            assert!(answer.body.contains(&format!("value=\"{EMAIL}\"")));
            let echo = answer.body.replace(EMAIL, "");
            assert!(password.is_empty() || !echo.contains(password), "{echo}");
        }
        for (title, email, field) in [
            ("", EMAIL, "title"),
            (&"x".repeat(65), EMAIL, "title"),
            ("a\0b", EMAIL, "title"),
            (TITLE, "ada", "email"),
        ] {
            let form = [("title", title), ("email", email), ("password", PASSWORD)];
            let answer = visitor.post("/signup", &form);
            assert_eq!(answer.status, 422, "{title} {email}");
            let beside = answer.body.split(&format!("id=\"{field}-error\">")).nth(1).unwrap();
            assert!(!beside.starts_with("</p>"), "{title} {email}");
            assert!(!answer.body.contains(PASSWORD));
        }
        assert_eq!((accounts(&app), app.hasher.runs()), (0, 0));
    }

    fn an_unknown_user_and_a_wrong_password_look_alike(app: App) {
        app.owner();
        let guess = |email: &str| {
            let runs = app.hasher.runs();
            let mut answer = log_in(&app.visitor(), email, WRONG);
            // These differ for each request.
            answer.headers.remove("date");
            answer.headers.remove("x-request-id");
            assert!(answer.body.contains(WRONG_LOGIN) && answer.body.contains(email), "{email}");
            (answer.status, answer.headers, answer.body.replace(email, "…"),
                app.hasher.runs() - runs)
        };
        let wrong = guess(EMAIL);
        assert_eq!(EMAIL.len(), OTHER.len());
        assert_eq!((wrong.0, wrong.3), (422, 1));
        assert_eq!(guess(OTHER), wrong);
        let (status, _, body, runs) = guess("no address at");
        assert_eq!((status, body, runs), (422, wrong.2, 0));
        assert_eq!(sessions(&app), 1);
    }

    fn the_email_to_sign_in_with_has_no_case(app: App) {
        app.owner();
        assert_eq!(log_in(&app.visitor(), " Ada@ACME.Test ", PASSWORD).status, 303);
    }

    fn wrong_passwords_shut_an_account_whether_it_exists_or_not(app: App) {
        app.owner();
        for email in [EMAIL, OTHER] {
            let shut = |since: &str| app.database.number(&format!(
                "SELECT COUNT(*) FROM login_attempts WHERE next_at >= '{since}'"
            ));
            for failure in 1..=5 {
                let a_second_later = ago(TimeDelta::seconds(-1));
                assert_eq!(log_in(&app.visitor(), email, WRONG).status, 422, "{failure}");
                if failure < 5 {
                    assert_eq!(shut(&ago(TimeDelta::zero())), 0, "{failure}");
                } else {
                    assert_eq!(shut(&a_second_later), 1);
                }
            }
            // Many failures later, and a minute after the last: a delay that a slow test outlasts.
            app.database.execute(&format!(
                "UPDATE login_attempts SET failures = 20, next_at = '{}'",
                ago(TimeDelta::minutes(1))
            ));
            assert_eq!(log_in(&app.visitor(), email, WRONG).status, 422);
            let runs = app.hasher.runs();
            assert_is_shut(&log_in(&app.visitor(), email, WRONG));
            assert_is_shut(&log_in(&app.visitor(), email, PASSWORD));
            assert_eq!(app.hasher.runs(), runs);
            app.database.execute("DELETE FROM login_attempts");
        }
        assert_eq!(log_in(&app.visitor(), EMAIL, PASSWORD).status, 303);
    }

    fn parallel_guesses_cost_few_argon2_runs(
        app: App, with |s| s.trusted_proxies = "127.0.0.1".into()
    ) {
        app.owner();
        let (runs, begun) = (app.hasher.runs(), Instant::now());
        let statuses: HashSet<u16> = thread::scope(|scope| {
            let app = &app;
            let one = |i| move || {
                log_in_from(app, &format!("203.0.113.{i}"), EMAIL, WRONG).status
            };
            let all: Vec<_> = (0..50).map(|i| scope.spawn(one(i))).collect();
            all.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(statuses, HashSet::from([422, 429]));
        // Five are free; the delays after them double from a second.
        let runs = app.hasher.runs() - runs;
        let doublings = u64::from(begun.elapsed().as_secs().max(1).ilog2());
        assert!((1..=8 + doublings).contains(&runs), "{runs} in {:?}", begun.elapsed());
    }

    fn the_right_password_forgets_failures(app: App) {
        app.owner();
        for _ in 0..2 {
            for _ in 0..4 {
                assert_eq!(log_in(&app.visitor(), EMAIL, WRONG).status, 422);
            }
            assert_eq!(log_in(&app.visitor(), EMAIL, PASSWORD).status, 303);
            assert_eq!(app.database.number("SELECT COUNT(*) FROM login_attempts"), 0);
        }
    }

    fn one_address_is_stopped_and_others_are_not(
        app: App, with |s| s.trusted_proxies = "127.0.0.1".into()
    ) {
        app.owner();
        for (address, neighbour, stranger) in [
            ("203.0.113.1", "203.0.113.1", "203.0.113.2"),
            ("evil, 203.0.113.3", "198.51.100.1, 203.0.113.3", "203.0.113.3, 203.0.113.4"),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"),
        ] {
            let guess = |address| log_in_from(&app, address, "nobody", WRONG);
            assert!(guesses_until_stopped(|_| guess(address)) >= 20, "{address}");
            assert_is_shut(&within(ONE_MORE, |_| {
                guesses_until_stopped(|_| guess(address));
                guess(neighbour)
            }));
            assert_eq!(guess(stranger).status, 422, "{stranger}");
        }
    }

    fn without_trusted_proxies_nobody_invents_addresses(
        app: App, with |s| s.signup = "open".into()
    ) {
        app.owner();
        let guess = |i| log_in_from(&app, &format!("203.0.113.{i}"), "nobody", WRONG);
        assert!(guesses_until_stopped(guess) >= 19);
        let refused = within(ONE_MORE, |_| {
            guesses_until_stopped(guess);
            [guess(200), sign_up(&app.visitor(), OTHER, PASSWORD)]
        });
        refused.iter().for_each(assert_is_shut);
    }

    fn the_session_changes_at_sign_in_and_ends_at_sign_out(app: App) {
        let browser = app.owner();
        let first = browser.cookie();
        browser.sign_in(EMAIL);
        let second = browser.cookie();
        assert_ne!(first, second);
        assert_eq!(sessions(&app), 1);

        let thief = app.visitor();
        thief.set_cookie(first);
        assert!(!is_signed_in(&thief));
        thief.set_cookie(second.clone());
        assert!(is_signed_in(&thief));

        let answer = browser.post("/logout", &[]);
        assert_eq!((answer.status, answer.location()), (303, Some(LOGIN)));
        assert_eq!(browser.cookie(), None);
        thief.set_cookie(second);
        assert!(!is_signed_in(&thief));
        assert_eq!(sessions(&app), 0);
    }

    fn browsers_sign_out_one_by_one_and_a_new_password_ends_them_all(app: App) {
        let browsers = [app.owner(), app.visitor(), app.visitor()];
        browsers[1].sign_in(EMAIL);
        browsers[2].sign_in(EMAIL);
        let stranger = app.stranger();
        browsers[0].post("/logout", &[]);
        assert_eq!(browsers.each_ref().map(is_signed_in), [false, true, true]);

        let args = ["account", "password", "--account", EMAIL, "--password-stdin"];
        cli(&app.database, &args, WRONG).unwrap();
        assert_eq!(browsers.each_ref().map(is_signed_in), [false; 3]);
        assert!(is_signed_in(&stranger));
        assert_eq!(log_in(&browsers[0], EMAIL, PASSWORD).status, 422);
        assert_eq!(log_in(&browsers[0], EMAIL, WRONG).status, 303);
        assert!(is_signed_in(&browsers[0]));
    }

    fn a_session_ends_after_12_idle_hours_or_7_days(app: App) {
        let minute = TimeDelta::minutes(1);
        for (column, limit) in [
            ("last_seen_at", TimeDelta::hours(12)),
            ("created_at", TimeDelta::days(7)),
        ] {
            let browser = if accounts(&app) == 0 { app.owner() } else { app.visitor() };
            browser.sign_in(EMAIL);
            let cookie = browser.cookie();
            for (age, lives) in [(limit - minute, true), (limit + minute, false)] {
                let age = ago(age);
                app.database.execute(&format!("UPDATE sessions SET {column} = '{age}'"));
                browser.set_cookie(cookie.clone());
                assert_eq!(is_signed_in(&browser), lives, "{column} {age}");
            }
        }
        // Use keeps it from being idle, but not from being old.
        let browser = app.visitor();
        browser.sign_in(EMAIL);
        let (idle, old) = (ago(TimeDelta::hours(11)), ago(TimeDelta::days(6)));
        app.database.execute(&format!(
            "UPDATE sessions SET last_seen_at = '{idle}', created_at = '{old}'"
        ));
        assert!(is_signed_in(&browser));
        let count = |instant: &str| app.database.number(&format!(
            "SELECT COUNT(*) FROM sessions WHERE last_seen_at = '{instant}' OR created_at = '{old}'"
        ));
        assert_eq!(count(&idle), 1);
        assert_eq!(app.database.number(&format!(
            "SELECT COUNT(*) FROM sessions WHERE last_seen_at = '{idle}'"
        )), 0);
    }

    fn signing_out_during_a_request_leaves_no_live_session(app: App) {
        let owner = app.owner();
        let cookie = owner.cookie();
        // After the request has found its session.
        app.database.on_insert("sending_domains", "DELETE FROM sessions");
        assert_eq!(owner.post("/domains", &[("name", "late.test")]).location(), Some("/domains/1"));
        assert_eq!(sessions(&app), 0);
        owner.set_cookie(cookie);
        assert!(!is_signed_in(&owner));
        assert_eq!(sessions(&app), 0);
    }

    fn a_broken_cookie_is_no_cookie(app: App) {
        let owner = app.owner();
        let cookie = owner.cookie().unwrap();
        let (name, value) = cookie.split_once('=').unwrap();
        let flipped = |at: usize| {
            let mut bytes = value.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            String::from_utf8(bytes).unwrap()
        };
        for broken in [
            String::new(),
            "x".into(),
            flipped(0),
            flipped(value.len() / 2),
            flipped(value.len() - 1),
            value[1..].to_owned(),
            format!("{value}x"),
            "%00%FF%".into(),
            "x".repeat(5 * 1024),
            format!("{value}{}", "x".repeat(5 * 1024)),
        ] {
            let visitor = app.visitor();
            visitor.set_cookie(Some(format!("{name}={broken}")));
            assert!(!is_signed_in(&visitor), "{broken}");
            assert_eq!(visitor.get(LOGIN).status, 200);
            visitor.set_cookie(Some(format!("{name}={broken}")));
            assert_eq!(log_in(&visitor, "nobody", WRONG).status, 422);
        }
        assert!(is_signed_in(&owner));
    }

    fn on_http_the_cookie_has_its_plain_name(app: App) {
        let cookie = sign_up(&app.visitor(), EMAIL, PASSWORD);
        let cookie = cookie.header("set-cookie").unwrap();
        assert!(cookie.starts_with("tosend_session="));
        let attributes: HashSet<&str> = cookie.split("; ").skip(1).collect();
        let expected = ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=604800"];
        assert_eq!(attributes, HashSet::from(expected));
    }

    fn on_https_the_cookie_is_bound_to_the_host(
        app: App, with |s| s.public_url = Some("https://dash.acme.test".into())
    ) {
        let visitor = app.visitor();
        let form = [("title", TITLE), ("email", EMAIL), ("password", PASSWORD),
            ("setup_code", &app.setup_code)];
        let answer = visitor.post("/signup", &form);
        let cookie = answer.header("set-cookie").unwrap();
        assert!(cookie.starts_with("__Host-tosend_session="));
        let attributes: HashSet<&str> = cookie.split("; ").skip(1).collect();
        let expected = ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=604800", "Secure"];
        assert_eq!(attributes, HashSet::from(expected));
        for path in ["/api-keys", "/nothing", "/healthz", "/v2/info"] {
            let answer = visitor.get(path);
            assert_eq!(
                answer.header("strict-transport-security"),
                Some("max-age=31536000; includeSubDomains"),
                "{path}"
            );
            let of_pages = (path != "/v2/info").then_some("same-origin");
            assert_eq!(answer.header("cross-origin-opener-policy"), of_pages);
        }
    }

    fn an_ended_session_leads_to_the_sign_in_and_back(app: App) {
        let owner = app.owner();
        app.database.execute("UPDATE sessions SET last_seen_at = '2020-01-01 00:00:00.000000'");
        let cookie = owner.cookie();
        let unsent = "/login?unsent=yes";
        for (answer, to) in [
            (owner.htmx_get("/api-keys/new"), LOGIN),
            (owner.htmx_post("/api-keys/1/pause", &[]), unsent),
            (owner.htmx_post("/api-keys", &[("name", "x")]), unsent),
        ] {
            assert_eq!((answer.status, answer.body.as_str()), (200, ""));
            assert_eq!(answer.header("hx-redirect"), Some(to));
            assert_eq!(answer.location(), None);
            owner.set_cookie(cookie.clone());
        }
        assert_eq!(owner.post("/domains", &[("name", "acme.test")]).location(), Some(unsent));
        assert!(owner.get(unsent).body.contains("nothing was changed"));

        let wanted = "/api-keys?page=2&notice=gone";
        let answer = owner.get(wanted);
        assert_eq!(answer.status, 303);
        assert_eq!(answer.location(), Some("/login?next=%2Fapi-keys%3Fpage%3D2%26notice%3Dgone"));
        let form = owner.get(answer.location().unwrap());
        let next = form.field("next").replace("&#38;", "&").replace("&amp;", "&");
        assert_eq!(next, wanted);
        let wrong = [("email", "nobody"), ("password", WRONG), ("next", &next)];
        assert_eq!(owner.post(LOGIN, &wrong).field("next"), form.field("next"));
        let right = [("email", EMAIL), ("password", PASSWORD), ("next", &next)];
        assert_eq!(owner.post(LOGIN, &right).location(), Some(wanted));
    }

    fn after_the_sign_in_nobody_is_led_to_another_site(app: App) {
        app.owner();
        for evil in [
            "//evil.test", "https://evil.test", "/\\evil.test", "\\\\evil.test", "/\t/evil.test",
            "javascript:alert(1)", "evil.test", "", "/a\r\nSet-Cookie: a=b",
        ] {
            let visitor = app.visitor();
            let next: String = url::form_urlencoded::byte_serialize(evil.as_bytes()).collect();
            let form = visitor.get(&format!("{LOGIN}?next={next}"));
            assert_eq!(form.field("next"), "/api-keys", "{evil:?}");
            let form = [("email", EMAIL), ("password", PASSWORD), ("next", evil)];
            assert_eq!(visitor.post(LOGIN, &form).location(), Some("/api-keys"), "{evil:?}");
        }
    }

    fn without_the_table_of_sessions_pages_say_so(app: App) {
        let owner = app.owner();
        let nonce = owner.nonce();
        app.database.execute("ALTER TABLE sessions RENAME TO sessions_gone");
        let form = [("nonce", nonce.as_str()), ("name", "x"), ("scope", "all"), ("expiry", "none")];
        assert_is_unavailable_page(&owner.get("/api-keys"));
        assert_is_unavailable_page(&owner.post("/api-keys", &form));
        assert_is_unavailable_page(&owner.post("/logout", &[]));
        let fragment = owner.htmx_post("/api-keys", &form);
        assert_eq!(fragment.status, 503);
        assert_eq!(fragment.header("content-type"), Some("text/plain; charset=utf-8"));
        assert!(fragment.body.starts_with("The server cannot do this right now."));

        let visitor = app.visitor();
        assert_is_unavailable_page(&log_in(&visitor, EMAIL, PASSWORD));
        assert_eq!(visitor.cookie(), None);
        assert_eq!(app.database.number("SELECT COUNT(*) FROM api_keys"), 0);

        app.database.execute("ALTER TABLE sessions_gone RENAME TO sessions");
        assert!(is_signed_in(&owner));
    }

    fn a_new_key_is_shown_though_the_session_cannot_be_touched(app: App) {
        let owner = app.owner();
        let nonce = owner.nonce();
        let seen = ago(TimeDelta::minutes(5));
        app.database.execute(&format!("UPDATE sessions SET last_seen_at = '{seen}'"));
        refuse_on_sessions(&app, "UPDATE");
        let form = [("nonce", nonce.as_str()), ("name", "x"), ("scope", "all"), ("expiry", "none")];
        let answer = owner.post("/api-keys", &form);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(app.program(&answer.key()).info().status, 200);
        let is_untouched = format!("SELECT COUNT(*) FROM sessions WHERE last_seen_at = '{seen}'");
        assert_eq!(app.database.number(&is_untouched), 1);
    }

    fn a_sign_in_without_a_session_is_none(app: App) {
        let owner = app.owner();
        refuse_on_sessions(&app, "INSERT");
        let visitor = app.visitor();
        assert_is_unavailable_page(&log_in(&visitor, EMAIL, PASSWORD));
        assert_eq!(visitor.cookie(), None);
        assert!(is_signed_in(&owner));
    }

    fn a_sign_out_that_the_database_refuses_says_so(app: App) {
        let owner = app.owner();
        refuse_on_sessions(&app, "DELETE");
        assert_is_unavailable_page(&owner.post("/logout", &[]));
        assert!(is_signed_in(&owner));
    }

    fn a_session_cannot_start_with_a_password_that_was_changed_meanwhile(app: App) {
        app.owner();
        let before = sessions(&app);
        let db = Db::open(&DatabaseUrl::parse(&app.database.url).unwrap()).unwrap();
        let start = |change: &str| {
            db.write_blocking(|conn| {
                let email = Email::parse(EMAIL).unwrap();
                let mut proven = store::find_credentials(conn, &email)?.unwrap();
                proven.password_hash.push_str(change);
                let here = IpAddr::from([192, 0, 2, 1]);
                let id = session_store::SessionId::of_key(change);
                session_store::insert(conn, id, &proven, here, "")
            })
            .unwrap()
        };
        assert!(!start("changed"));
        assert_eq!(sessions(&app), before);
        assert!(start(""));
        assert_eq!(sessions(&app), before + 1);
    }

    fn signed_in_visitors_need_no_form(app: App) {
        let owner = app.owner();
        assert_eq!(owner.get("/login").location(), Some("/api-keys"));
        assert_eq!(owner.get("/signup").location(), Some("/api-keys"));
        let next = owner.get("/login?next=%2Fdomains");
        assert_eq!(next.location(), Some("/domains"));
    }

    fn a_weak_hash_is_made_anew_at_the_sign_in(app: App) {
        app.owner();
        let params = Params::new(8, 1, 1, None).unwrap();
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password(PASSWORD.as_bytes())
            .unwrap()
            .to_string();
        let count = |begin: &str| app.database.number(&format!(
            "SELECT COUNT(*) FROM users WHERE password_hash LIKE '{begin}%'"
        ));
        app.database.execute(&format!("UPDATE users SET password_hash = '{weak}'"));
        assert_eq!(log_in(&app.visitor(), EMAIL, WRONG).status, 422);
        assert_eq!(count("$argon2id$v=19$m=8,t=1,p=1$"), 1);
        assert_eq!(log_in(&app.visitor(), EMAIL, PASSWORD).status, 303);
        assert_eq!(count("$argon2id$v=19$m=19456,t=2,p=1$"), 1);
        assert_eq!(log_in(&app.visitor(), EMAIL, PASSWORD).status, 303);
    }
}
