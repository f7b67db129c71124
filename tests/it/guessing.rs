//! Who guesses passwords, whom that keeps out, and who hears of it.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use reqwest::header::HeaderValue;

use tosend_dashboard::accounts::store;

use crate::support::*;

const WRONG: &str = "five unrelated blue chairs";
const NEW: &str = "six unrelated red doors";
const STRANGER: &str = "eve@evil.test";

fn log_in(visitor: &Visitor, email: &str, password: &str) -> Answer {
    visitor.post("/login", &[("email", email), ("password", password)])
}

/// Shuts every counter of wrong passwords, for a minute after the next wrong one.
fn nearly_shut(app: &App) {
    let past = Utc::now().naive_utc() - TimeDelta::minutes(2);
    app.database.execute(&format!(
        "UPDATE login_attempts SET failures = 20, next_at = '{}'",
        past.format("%Y-%m-%d %H:%M:%S%.6f")
    ));
}

/// Strangers guess until neither the account nor their address is let in.
fn guess_as_a_stranger(app: &App) {
    assert_eq!(log_in(&app.visitor(), EMAIL, WRONG).status, 422);
    nearly_shut(app);
    assert_eq!(log_in(&app.visitor(), EMAIL, WRONG).status, 422);
    assert_eq!(log_in(&app.visitor(), EMAIL, PASSWORD).status, 429);
    let guess = || log_in(&app.visitor(), "nobody", WRONG).status;
    assert!(
        std::iter::repeat_with(guess)
            .take(100)
            .any(|status| status == 429)
    );
}

/// A browser without a session, that remembers who signed in.
fn signed_out(app: &App, device: Option<String>) -> Visitor {
    let visitor = app.visitor();
    visitor.set_device(device);
    visitor
}

/// The details of an account's failed sign-ins, newest first.
fn told(owner: &Visitor) -> Vec<String> {
    let answer = owner.get("/activity.csv?kind=session");
    let mut reader = csv::Reader::from_reader(answer.body.as_bytes());
    let lines = reader.records().map(Result::unwrap);
    lines
        .filter(|line| &line[1] == "session.refused")
        .map(|line| line[4].to_owned())
        .collect()
}

both! {
    fn strangers_who_guess_do_not_keep_out_who_signed_in_before(app: App) {
        let owner = app.owner();
        let device = owner.device();
        guess_as_a_stranger(&app);
        for _ in 0..3 {
            assert_eq!(log_in(&signed_out(&app, device.clone()), EMAIL, PASSWORD).status, 303);
        }
        assert_eq!(log_in(&app.visitor(), EMAIL, PASSWORD).status, 429);
        // Who is signed in changes the password.
        let form = [("current", PASSWORD), ("new", NEW)];
        let changed = owner.post("/settings/password", &form);
        assert_eq!(changed.location(), Some("/settings?notice=password"), "{changed:?}");
        assert_eq!(log_in(&signed_out(&app, owner.device()), EMAIL, NEW).status, 303);
    }

    fn a_stolen_device_is_slowed_down_by_itself(app: App) {
        let owner = app.owner();
        let thief = signed_out(&app, owner.device());
        for _ in 0..5 {
            assert_eq!(log_in(&thief, EMAIL, WRONG).status, 422);
        }
        assert_eq!(app.database.number("SELECT failures FROM login_attempts"), 5);
        nearly_shut(&app);
        assert_eq!(log_in(&thief, EMAIL, WRONG).status, 422);
        let runs = app.hasher.runs();
        assert_eq!(log_in(&thief, EMAIL, PASSWORD).status, 429);
        assert_eq!(app.hasher.runs(), runs);
        // Others are not kept out by it.
        assert_eq!(log_in(&app.visitor(), EMAIL, PASSWORD).status, 303);

        // Nor does it have more tries than an address has.
        app.database.execute("DELETE FROM login_attempts");
        let tries = (0..100).take_while(|_| {
            app.database.execute("DELETE FROM login_attempts");
            log_in(&thief, EMAIL, WRONG).status == 422
        }).count();
        assert!((5..40).contains(&tries), "{tries}");
        assert_eq!(log_in(&app.visitor(), EMAIL, PASSWORD).status, 303);
    }

    fn a_device_means_nothing_to_others_and_with_another_password(app: App) {
        let owner = app.owner();
        let stranger = app.stranger();
        let device = owner.device().unwrap();
        let mut forged = device.clone().into_bytes();
        let last = forged.len() - 1;
        forged[last] = if forged[last] == b'0' { b'1' } else { b'0' };
        let name = device.split('=').next().unwrap();
        let odd = [stranger.device(), String::from_utf8(forged).ok(), Some(format!("{name}=x")),
            Some(format!("{name}={}", "a".repeat(5_000))), None];
        assert_eq!(log_in(&app.visitor(), EMAIL, WRONG).status, 422);
        nearly_shut(&app);
        assert_eq!(log_in(&app.visitor(), EMAIL, WRONG).status, 422);
        for device in odd {
            assert_eq!(log_in(&signed_out(&app, device.clone()), EMAIL, PASSWORD).status, 429, "{device:?}");
        }
        assert_eq!(log_in(&signed_out(&app, Some(device.clone())), EMAIL, PASSWORD).status, 303);

        let args = ["account", "password", "--account", EMAIL, "--password-stdin"];
        cli(&app.database, &args, NEW).unwrap();
        assert_eq!(log_in(&app.visitor(), EMAIL, WRONG).status, 422);
        nearly_shut(&app);
        assert_eq!(log_in(&app.visitor(), EMAIL, WRONG).status, 422);
        assert_eq!(log_in(&signed_out(&app, Some(device)), EMAIL, NEW).status, 429);
    }

    fn two_people_may_share_a_browser(app: App) {
        let owner = app.owner();
        app.stranger();
        assert_eq!(log_in(&owner, STRANGER, PASSWORD).status, 303);
        guess_as_a_stranger(&app);
        for email in [EMAIL, STRANGER] {
            assert_eq!(log_in(&signed_out(&app, owner.device()), email, PASSWORD).status, 303);
        }
    }

    fn with_a_device_too_unknown_addresses_are_as_known_ones(app: App) {
        let device = app.owner().device();
        let answers = [EMAIL, STRANGER].map(|email| {
            let runs = app.hasher.runs();
            let answer = log_in(&signed_out(&app, device.clone()), email, WRONG);
            let headers: HashSet<String> = answer.headers.keys().map(|n| n.to_string()).collect();
            (answer.status, answer.body.replace(email, ""), headers, app.hasher.runs() - runs)
        });
        assert_eq!(answers[0], answers[1]);
        assert_eq!((answers[0].0, answers[0].3), (422, 1));
        assert_eq!(app.database.number("SELECT COUNT(*) FROM login_attempts"), 2);
    }

    fn the_devices_cookie_is_kept_from_scripts(app: App) {
        let answer = app.visitor().post("/signup",
            &[("title", TITLE), ("email", EMAIL), ("password", PASSWORD)]);
        let cookies: Vec<&str> = answer.headers.get_all("set-cookie").iter()
            .map(|v| v.to_str().unwrap()).collect();
        assert_eq!(cookies.len(), 2);
        let device = cookies[1];
        assert!(device.starts_with("tosend_device="));
        let attributes: HashSet<&str> = device.split("; ").skip(1).collect();
        assert_eq!(attributes, HashSet::from(["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=31536000"]));
        // One that signs in wrongly is not remembered.
        let wrong = log_in(&app.visitor(), EMAIL, WRONG);
        assert_eq!(wrong.headers.get_all("set-cookie").iter().count(), 0);
    }

    fn on_https_the_devices_cookie_is_bound_to_the_host(
        app: App, with |s| s.public_url = Some("https://dash.acme.test".into())
    ) {
        let form = [("title", TITLE), ("email", EMAIL), ("password", PASSWORD),
            ("setup_code", &app.setup_code)];
        let answer = app.visitor().post("/signup", &form);
        let mut cookies = answer.headers.get_all("set-cookie").iter().map(|v| v.to_str().unwrap());
        let device = cookies.find(|cookie| cookie.contains("tosend_device=")).unwrap();
        assert!(device.starts_with("__Host-tosend_device=") && device.contains("; Secure"));
    }

    fn who_signs_in_hears_of_failed_sign_ins(app: App) {
        let owner = app.owner();
        app.stranger();
        for _ in 0..3 {
            assert_eq!(log_in(&app.visitor(), EMAIL, WRONG).status, 422);
        }
        assert_eq!(log_in(&app.visitor(), "nobody@acme.test", WRONG).status, 422);
        nearly_shut(&app);
        assert_eq!(log_in(&app.visitor(), EMAIL, WRONG).status, 422);
        assert_eq!(log_in(&app.visitor(), EMAIL, PASSWORD).status, 429);
        assert_eq!(told(&owner), [""; 0]);
        let owner = signed_out(&app, owner.device());
        assert_eq!(log_in(&owner, EMAIL, PASSWORD).status, 303);
        let expected = "4 failed sign-ins, and 1 more refused without looking at the password";
        assert_eq!(told(&owner), [expected]);
        let page = owner.get("/activity").body;
        assert!(page.contains("Sign-in failed") && page.contains(expected));
        // Once, and only to the account that it was about.
        assert_eq!(log_in(&owner, EMAIL, PASSWORD).status, 303);
        assert_eq!(told(&owner).len(), 1);
        let all = "SELECT COUNT(*) FROM events WHERE action = 'session.refused'";
        assert_eq!(app.database.number(all), 1);
    }

    fn an_address_with_a_port_is_an_address(
        app: App, with |s| s.trusted_proxies = "127.0.0.1, 10.0.0.0/8".into()
    ) {
        app.owner();
        let guess = |forwarded: &[u8]| {
            let visitor = app.visitor();
            let request = visitor.same_origin("POST", "/login");
            let request = request.header("x-forwarded-for", HeaderValue::from_bytes(forwarded).unwrap());
            visitor.send(request.form(&[("email", "nobody"), ("password", WRONG)])).status
        };
        for (address, again, another) in [
            (&b"203.0.113.7:49152"[..], &b"203.0.113.7:49153"[..], &b"203.0.113.8:49152"[..]),
            (b"\xff\xfe, 203.0.113.17", b"[[, 203.0.113.17, 10.0.0.1:3128", b"\xff\xfe, 203.0.113.18"),
            (b"[2001:db8:1:2::1]:443", b"\"[2001:db8:1:2::9]\"", b"[2001:db8:1:3::1]:443"),
        ] {
            // What is stopped has one guess more after six seconds.
            let refused = within(Duration::from_secs(5), |_| {
                let is_shut = std::iter::repeat_with(|| guess(address)).take(100).any(|s| s == 429);
                assert!(is_shut);
                guess(again)
            });
            assert_eq!(refused, 429);
            assert_eq!(guess(another), 422);
        }
        let events = app.visitor();
        let request = events.same_origin("POST", "/login").header("x-forwarded-for", "[2001:db8::5]:1234");
        assert_eq!(events.send(request.form(&[("email", EMAIL), ("password", PASSWORD)])).status, 303);
        assert!(events.get("/activity").body.contains("2001:db8::5"));
    }

    fn counters_and_sessions_are_so_many_and_no_more(app: App) {
        let owner = app.owner();
        assert_eq!(log_in(&app.visitor(), STRANGER, WRONG).status, 422);
        nearly_shut(&app);
        let series = |count: u32| format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
        );
        let blob = match app.database.backend() {
            Backend::Sqlite => "CAST('x' || i AS BLOB)",
            Backend::Postgres => "CAST('x' || i AS BYTEA)",
        };
        let now = Utc::now().naive_utc().format("%Y-%m-%d %H:%M:%S%.6f").to_string();
        app.database.execute(&format!(
            "{} INSERT INTO login_attempts (counter_hash, failures, next_at)
             SELECT {blob}, 1, '{now}' FROM n", series(101_500)
        ));
        let db = app.database.open();
        db.write_blocking(store::bound_attempts).unwrap();
        assert_eq!(app.database.number("SELECT COUNT(*) FROM login_attempts"), 100_000);
        assert_eq!(app.database.number("SELECT COUNT(*) FROM login_attempts WHERE failures = 20"), 1);

        app.database.execute(&format!(
            "{} INSERT INTO sessions (id_hash, user_id, created_at, last_seen_at)
             SELECT {blob}, 1, '{now}', '{now}' FROM n", series(120)
        ));
        let another = app.visitor();
        another.sign_in(EMAIL);
        assert_eq!(app.database.number("SELECT COUNT(*) FROM sessions"), 100);
        assert_eq!(another.get("/api-keys").status, 200);
        // The one that was not seen for longest.
        assert_eq!(owner.get("/api-keys").status, 303);
        let ended = another.get("/activity.csv").body;
        assert!(ended.contains("22 sessions of this person, not seen for longest: there can be 100"), "{ended}");
    }
}

#[test]
fn what_failed_is_told_when_the_server_ends_too() {
    for backend in Backend::all() {
        let database = Database::new(backend);
        let app = App::on(database.again(), |_| {});
        app.owner();
        for email in [EMAIL, EMAIL, STRANGER] {
            assert_eq!(log_in(&app.visitor(), email, WRONG).status, 422);
        }
        drop(app);
        let again = App::on(database.again(), |_| {});
        let owner = again.visitor();
        owner.sign_in(EMAIL);
        assert_eq!(told(&owner), ["2 failed sign-ins"]);
    }
}

#[test]
fn refusals_are_in_the_log_without_what_was_entered() {
    let database = Database::new(Backend::Sqlite);
    let server = Dashboard::start(&database, &[]);
    let owner = server.visitor();
    owner.sign_up();
    let guesser = server.visitor();
    for _ in 0..30 {
        log_in(&guesser, "somebody@acme.test", WRONG);
    }
    let cross = guesser
        .request("POST", "/logout")
        .header("sec-fetch-site", "cross-site");
    assert_eq!(guesser.send(cross).status, 403);
    let log = || std::fs::read_to_string(&server.log).unwrap();
    let lines = |reason: &str| {
        let wanted = format!("reason=\"{reason}\"");
        log()
            .lines()
            .filter(|line| {
                line.contains("WARN")
                    && line.contains(&wanted)
                    && line.contains("address=127.0.0.1")
            })
            .count()
    };
    until("the refusals are logged", || {
        lines("not sent by this site") == 1
    });
    assert!((1..=10).contains(&lines("wrong password")), "{}", log());
    assert!((1..=10).contains(&lines("too many attempts")), "{}", log());
    for secret in ["somebody", WRONG, "five", "tosend_session"] {
        assert!(!log().contains(secret), "{secret}");
    }
}
