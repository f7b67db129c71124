//! Settings: the account's name, the password, and where its person is signed in.

use std::thread;
use std::time::Duration;

use chrono::{NaiveDateTime, TimeDelta, Utc};

use tosend_dashboard::accounts::email::Email;
use tosend_dashboard::accounts::event::Actor;
use tosend_dashboard::accounts::store::sessions::{Renewal, SessionId};
use tosend_dashboard::accounts::store::{self, PasswordError};
use tosend_dashboard::db::{DatabaseUrl, Db};

use crate::activity::refuse_events;
use crate::support::*;

const SETTINGS: &str = "/settings";
const NEW: &str = "five unrelated blue chairs";
const OTHER: &str = "six unrelated red doors";
const STRANGER: &str = "eve@evil.test";

const LAPTOP: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const PHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 \
                     (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1";

/// Where a form leads that nobody who is signed in has sent.
const SIGNED_OUT: &str = "/login?unsent=yes";

fn log_in(visitor: &Visitor, password: &str) -> Answer {
    visitor.post("/login", &[("email", EMAIL), ("password", password)])
}

/// The owner, signed in on one more device.
fn sign_in_on(app: &App, user_agent: &str, address: &str) -> Visitor {
    let visitor = app.visitor();
    let request = visitor.same_origin("POST", "/login");
    let request = request
        .header("user-agent", user_agent)
        .header("x-forwarded-for", address);
    let form = [("email", EMAIL), ("password", PASSWORD)];
    assert_eq!(visitor.send(request.form(&form)).status, 303);
    visitor
}

fn rename(visitor: &Visitor, title: &str) -> Answer {
    visitor.post("/settings/title", &[("title", title)])
}

fn change(visitor: &Visitor, current: &str, new: &str) -> Answer {
    let form = [("current", current), ("new", new)];
    visitor.post("/settings/password", &form)
}

fn end(visitor: &Visitor, id: &str) -> Answer {
    visitor.post(&format!("/settings/sessions/{id}/end"), &[])
}

fn end_others(visitor: &Visitor) -> Answer {
    visitor.post("/settings/sessions/end-others", &[])
}

/// The id of the session that a visitor uses.
fn this_session(visitor: &Visitor) -> String {
    visitor.get(SETTINGS).session_ids().remove(0)
}

fn is_signed_in(visitor: &Visitor) -> bool {
    visitor.get("/api-keys").status == 200
}

fn assert_leads(answer: &Answer, to: &str) {
    assert_eq!(
        (answer.status, answer.location()),
        (303, Some(to)),
        "{answer:?}"
    );
}

/// What a page shows beside a field.
fn beside<'a>(answer: &'a Answer, field: &str) -> &'a str {
    let from = format!("id=\"{field}-error\">");
    let text = answer.body.split(&from).nth(1).expect("the field");
    text.split("</p>").next().unwrap()
}

/// The devices in the list, in its order.
fn devices(answer: &Answer) -> Vec<String> {
    let cells = answer.body.split("<th scope=\"row\">").skip(1);
    let text = |cell: &str| cell.split("</th>").next().unwrap().to_owned();
    let badge = " <span class=\"badge active\">This device</span>";
    cells.map(|cell| text(cell).replace(badge, " *")).collect()
}

fn notice(visitor: &Visitor, answer: &Answer) -> String {
    let page = visitor.get(answer.location().unwrap());
    assert_eq!(page.status, 200);
    let text = page.body.split("<p class=\"note\" role=\"status\">").nth(1);
    let text = text.unwrap_or_else(|| panic!("no notice in {}", page.body));
    text.split("</p>").next().unwrap().to_owned()
}

fn sessions(app: &App) -> i64 {
    app.database.number("SELECT COUNT(*) FROM sessions")
}

fn title(app: &App, account: i64) -> String {
    app.database
        .text(&format!("SELECT title FROM accounts WHERE id = {account}"))
}

fn password_hash(app: &App) -> String {
    app.database.text(&format!(
        "SELECT password_hash FROM users WHERE email = '{EMAIL}'"
    ))
}

/// The subject and detail of the latest event, with how many there are of its kind.
fn latest(app: &App, action: &str) -> (String, String, i64) {
    let of_kind = format!("FROM events WHERE action = '{action}'");
    let newest = format!("{of_kind} AND id = (SELECT MAX(id) {of_kind})");
    let text = |column: &str| app.database.text(&format!("SELECT {column} {newest}"));
    let count = app.database.number(&format!("SELECT COUNT(*) {of_kind}"));
    (text("subject"), text("detail"), count)
}

fn events(app: &App) -> i64 {
    app.database.number("SELECT COUNT(*) FROM events")
}

/// An instant as both databases take it.
fn ago(time: TimeDelta) -> String {
    let instant: NaiveDateTime = Utc::now().naive_utc() - time;
    instant.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

/// Changes the owner's password beside the server, as a request does that is late.
fn change_late(app: &App, outdated: bool, from: &str) -> Result<(), PasswordError> {
    let db = Db::open(&DatabaseUrl::parse(&app.database.url).unwrap()).unwrap();
    db.write_blocking(|conn| {
        let email = Email::parse(EMAIL).unwrap();
        let mut proven = store::find_credentials(conn, &email)?.unwrap();
        if outdated {
            proven.password_hash.push('x');
        }
        let user = store::find_user(conn, proven.user_id)?.unwrap();
        let renewal = Renewal {
            from: SessionId::parse(from).unwrap(),
            to: SessionId::of_key("next"),
        };
        let actor = Actor::user(user.id, &user.email, [192, 0, 2, 1].into());
        store::change_password(conn, &user, &proven, "$argon2id$other", renewal, &actor)
    })
}

both! {
    fn the_page_has_a_form_for_each_setting(app: App) {
        let owner = app.owner();
        let page = owner.get(SETTINGS);
        assert_eq!((page.status, page.header("cache-control")), (200, Some("no-store")));
        assert_eq!(page.field("title"), TITLE);
        assert_eq!(page.field("username"), EMAIL);
        for text in [
            "<title>Settings · ToSend</title>",
            "<a href=\"/settings\" aria-current=\"page\">Settings</a>",
            "<form class=\"form\" method=\"post\" action=\"/settings/title\">",
            "<form class=\"form\" method=\"post\" action=\"/settings/password\">",
            "autocomplete=\"organization\"",
            "autocomplete=\"username\" readonly hidden>",
            "name=\"current\" type=\"password\" autocomplete=\"current-password\"",
            "name=\"new\" type=\"password\" autocomplete=\"new-password\"",
            "aria-label=\"Sign out Unknown device at 127.0.0.1 (this device)\"",
        ] {
            assert!(page.body.contains(text), "{text} {}", page.body);
        }
        // With one device there are no others.
        for text in ["end-others", "role=\"status\">You", "aria-invalid"] {
            assert!(!page.body.contains(text), "{text}");
        }
        let ids: Vec<_> = page.body.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let unique: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len(), "{ids:?}");
        for name in page.body.split("<label for=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(ids.contains(&name), "{name}");
        }
        assert!(!owner.get("/settings?notice=nothing").body.contains("class=\"note\""));
        assert_leads(&app.visitor().get(SETTINGS), "/login?next=%2Fsettings");
    }

    fn an_account_gets_another_name(app: App) {
        let (owner, stranger) = (app.owner(), app.stranger());
        let answer = rename(&owner, "  Bühne & Söhne ");
        assert_leads(&answer, "/settings?notice=renamed");
        assert_eq!(notice(&owner, &answer), "The name is saved.");
        assert_eq!(title(&app, 1), "Bühne & Söhne");
        let detail = "name: “Acme Inc” → “Bühne & Söhne”";
        let renamed = ("Bühne & Söhne".to_owned(), detail.to_owned(), 1);
        assert_eq!(latest(&app, "account.renamed"), renamed);
        assert!(owner.get("/api-keys").body.contains("<bdi>Bühne &#38; Söhne</bdi>"));
        assert!(owner.get("/activity").body.contains("Account renamed"));

        let answer = rename(&owner, " Bühne & Söhne");
        assert_leads(&answer, "/settings?notice=same");
        assert_eq!(notice(&owner, &answer), "Nothing was changed.");
        assert_eq!(latest(&app, "account.renamed"), renamed);

        assert_eq!(title(&app, 2), "Evil Corp");
        let more = [("title", "Eve Inc"), ("account_id", "1"), ("id", "1"), ("status", "paused")];
        assert_leads(&stranger.post("/settings/title", &more), "/settings?notice=renamed");
        assert_eq!((title(&app, 1), title(&app, 2)), ("Bühne & Söhne".into(), "Eve Inc".into()));
        assert_leads(&rename(&app.visitor(), "x"), SIGNED_OUT);
    }

    fn a_name_that_is_none_comes_back_with_its_reason(app: App) {
        let owner = app.owner();
        let (count, long) = (events(&app), "x".repeat(65));
        for (name, why) in [
            ("", "Enter the name of your company or project."),
            ("  ", "Enter the name of your company or project."),
            (&long, "Use at most 64 characters."),
            ("a\tb", "Remove the invisible control characters."),
        ] {
            let answer = rename(&owner, name);
            assert_eq!(answer.status, 422, "{name:?}");
            assert_eq!(beside(&answer, "account-title"), why);
            assert_eq!(answer.field("title"), name);
            assert!(answer.body.contains("aria-describedby=\"account-title-error\" aria-invalid=\"true\""));
            // What it is called still stands at the top.
            assert!(answer.body.contains(&format!("<bdi>{TITLE}</bdi>")));
        }
        assert_eq!(owner.post("/settings/title", &[]).status, 422);
        assert_eq!((title(&app, 1), events(&app)), (TITLE.to_owned(), count));
    }

    fn a_new_password_ends_all_sessions_but_this_one(app: App) {
        let owner = app.owner();
        let others = [app.visitor(), app.visitor()];
        for other in &others {
            other.sign_in(EMAIL);
        }
        let stranger = app.stranger();
        // One that has ended is not among those that end now.
        app.visitor().sign_in(EMAIL);
        app.database.execute(&format!(
            "UPDATE sessions SET last_seen_at = '{}' WHERE created_at =
             (SELECT MAX(created_at) FROM sessions)", ago(TimeDelta::hours(13))
        ));
        let (old, id) = (owner.cookie(), this_session(&owner));
        let day = ago(TimeDelta::days(1));
        app.database.execute(&format!("UPDATE sessions SET created_at = '{day}'"));

        let answer = change(&owner, PASSWORD, NEW);
        assert_leads(&answer, "/settings?notice=password");
        let cookie = answer.header("set-cookie").unwrap();
        assert!(cookie.ends_with("; HttpOnly; SameSite=Lax; Path=/; Max-Age=604800"), "{cookie}");
        assert_eq!(others.each_ref().map(is_signed_in), [false, false]);
        assert!(is_signed_in(&owner) && is_signed_in(&stranger));
        assert_eq!(notice(&owner, &answer), "Your password is changed. Your other devices are signed out.");
        assert_ne!(owner.cookie(), old);
        assert_ne!(this_session(&owner), id);
        assert_eq!(sessions(&app), 2);
        // It is as old as it was: it ends when it would have ended.
        let aged = format!("SELECT COUNT(*) FROM sessions WHERE created_at = '{day}'");
        assert_eq!(app.database.number(&aged), 2);

        let thief = app.visitor();
        thief.set_cookie(old);
        assert!(!is_signed_in(&thief));
        assert_eq!(log_in(&thief, PASSWORD).status, 422);
        assert_eq!(log_in(&thief, NEW).status, 303);

        let detail = "2 other sessions of this person ended".to_owned();
        let count = "SELECT COUNT(*) FROM events WHERE address = '127.0.0.1' AND subject_id = 1
            AND actor = 'ada@acme.test' AND action = 'account.password_changed'";
        assert_eq!(app.database.number(count), 1);
        assert_eq!(latest(&app, "account.password_changed"), (EMAIL.to_owned(), detail, 1));
        // Nobody signed out, and the session did not start anew: two at the start, three others, and
        // one right now.
        assert_eq!(app.database.number("SELECT COUNT(*) FROM events WHERE action = 'session.ended'"), 0);
        assert_eq!(latest(&app, "session.started").2, 6);
        assert_eq!(app.database.number("SELECT COUNT(*) FROM login_attempts WHERE failures > 0"), 0);
    }

    fn a_password_is_changed_again_and_again(app: App) {
        let owner = app.owner();
        let mut cookies = vec![owner.cookie()];
        for (current, new) in [(PASSWORD, NEW), (NEW, OTHER), (OTHER, PASSWORD)] {
            assert_leads(&change(&owner, current, new), "/settings?notice=password");
            cookies.push(owner.cookie());
            let detail = latest(&app, "account.password_changed").1;
            assert_eq!(detail, "no other session of this person ended");
            assert_eq!(sessions(&app), 1);
        }
        let last = cookies.pop().unwrap();
        for cookie in cookies {
            let thief = app.visitor();
            thief.set_cookie(cookie);
            assert!(!is_signed_in(&thief));
        }
        assert_eq!(owner.cookie(), last);
        assert!(is_signed_in(&owner));
    }

    fn no_secret_is_written_down_when_a_password_changes(app: App) {
        let owner = app.owner();
        let first = owner.cookie().unwrap();
        change(&owner, "wrong wrong wrong", NEW);
        change(&owner, PASSWORD, NEW);
        let whole = "actor || coalesce(address, '') || subject || detail";
        let whole = app.database.text(&match app.database.backend() {
            Backend::Sqlite => format!("SELECT group_concat({whole}) FROM events"),
            Backend::Postgres => format!("SELECT string_agg({whole}, ',') FROM events"),
        });
        assert!(whole.contains("of this person ended"), "{whole}");
        let key = |cookie: &str| cookie[cookie.len() - 32..].to_owned();
        for secret in [PASSWORD, NEW, "wrong wrong", "$argon2", &key(&first),
            &key(&owner.cookie().unwrap()), &this_session(&owner)]
        {
            assert!(!whole.contains(secret), "{secret}");
        }
        assert!(password_hash(&app).starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    }

    fn a_wrong_current_password_changes_nothing(app: App) {
        let owner = app.owner();
        let other = app.visitor();
        other.sign_in(EMAIL);
        let (hash, count, cookie) = (password_hash(&app), events(&app), owner.cookie());
        for (current, why) in [
            ("", "Enter the password you have now."),
            ("wrong", "This is not the password you have now."),
            ("Four unrelated grey lamps", "This is not the password you have now."),
            (NEW, "This is not the password you have now."),
        ] {
            let answer = change(&owner, current, NEW);
            assert_eq!(answer.status, 422, "{current}");
            assert_eq!((beside(&answer, "current-password"), beside(&answer, "new-password")), (why, ""));
            assert!(answer.body.contains("aria-describedby=\"current-password-error\" aria-invalid=\"true\""));
            for echo in [NEW, "Four unrelated", "value=\"wrong"] {
                assert!(!answer.body.contains(echo), "{echo}");
            }
        }
        assert_eq!((password_hash(&app), events(&app), owner.cookie()), (hash, count, cookie));
        assert!(is_signed_in(&owner) && is_signed_in(&other));
        assert_leads(&change(&app.visitor(), PASSWORD, NEW), SIGNED_OUT);
        assert_eq!(log_in(&app.visitor(), PASSWORD).status, 303);
    }

    fn a_new_password_must_be_strong_and_new(app: App) {
        let owner = app.owner();
        let (hash, runs) = (password_hash(&app), app.hasher.runs());
        for (new, why) in [
            ("", "Use at least 15 characters. A few unrelated words are easy to remember."),
            ("fourteen chars", "Use at least 15 characters. A few unrelated words are easy to remember."),
            ("passwordpassword", "This password is easy to guess. A few unrelated words are better."),
            ("ada@acme.test ada@acme.test", "This password is easy to guess. A few unrelated words are better."),
            ("Acme Inc acme inc", "This password is easy to guess. A few unrelated words are better."),
            (&"long ".repeat(26), "Use at most 128 characters."),
        ] {
            let answer = change(&owner, PASSWORD, new);
            assert_eq!(answer.status, 422, "{new}");
            assert_eq!((beside(&answer, "new-password"), beside(&answer, "current-password")), (why, ""));
            assert!(answer.body.contains("aria-describedby=\"new-password-hint new-password-error\" aria-invalid=\"true\""));
        }
        // Nobody guesses by these, so they cost nothing.
        assert_eq!(app.hasher.runs(), runs);
        let answer = change(&owner, PASSWORD, PASSWORD);
        assert_eq!(answer.status, 422);
        assert_eq!(beside(&answer, "new-password"), "This is the password you have now. Choose another one.");
        assert_eq!(password_hash(&app), hash);
        // Whether it is the one they have, only who knows it hears.
        let answer = change(&owner, NEW, NEW);
        assert_eq!(beside(&answer, "current-password"), "This is not the password you have now.");
    }

    fn guesses_on_the_page_count_against_the_session(app: App) {
        let owner = app.owner();
        for failure in 1..=4 {
            assert_eq!(change(&owner, "wrong", NEW).status, 422, "{failure}");
        }
        assert_eq!(app.database.number("SELECT failures FROM login_attempts"), 4);
        app.database.execute(&format!(
            "UPDATE login_attempts SET failures = 20, next_at = '{}'", ago(TimeDelta::minutes(1))
        ));
        assert_eq!(change(&owner, "wrong", NEW).status, 422);
        let runs = app.hasher.runs();
        for answer in [change(&owner, "wrong", NEW), change(&owner, PASSWORD, NEW)] {
            assert_eq!(answer.status, 429);
            let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=61).contains(&seconds), "{seconds}");
        }
        assert_eq!(app.hasher.runs(), runs);
        assert!(is_signed_in(&owner));
        // Whoever guesses in a stolen session keeps nobody out.
        let elsewhere = app.visitor();
        assert_eq!(log_in(&elsewhere, PASSWORD).status, 303);
        assert_eq!(change(&elsewhere, "wrong", NEW).status, 422);
        app.database.execute("DELETE FROM login_attempts");
        assert_leads(&change(&owner, PASSWORD, NEW), "/settings?notice=password");
    }

    fn a_session_that_guesses_is_stopped(app: App) {
        let owner = app.owner();
        let tries = (0..100).take_while(|_| change(&owner, "wrong", "short").status == 422).count();
        assert!((15..40).contains(&tries), "{tries}");
        // A session that was stopped has one try more after six seconds.
        let refused = within(Duration::from_secs(5), |_| {
            let mut tries = (0..100).map(|_| change(&owner, "wrong", "short").status);
            assert!(tries.any(|status| status == 429));
            change(&owner, PASSWORD, NEW).status
        });
        assert_eq!(refused, 429);
        assert_eq!(log_in(&app.visitor(), PASSWORD).status, 303);
        assert!(is_signed_in(&owner));
    }

    fn of_parallel_changes_exactly_one_wins(app: App) {
        app.owner();
        for round in 0..2 {
            let start = if round % 2 == 0 { PASSWORD } else { NEW };
            // What this round made of it is set back by the operator.
            let args = ["account", "password", "--account", EMAIL, "--password-stdin"];
            cli(&app.database, &args, start).unwrap();
            app.database.execute("DELETE FROM login_attempts");
            let shared = app.visitor();
            assert_eq!(log_in(&shared, start).status, 303);
            let visitors: Vec<Visitor> = (0..3).map(|n| {
                let visitor = app.visitor();
                // Two of them in one browser.
                match n {
                    0 => assert_eq!(log_in(&visitor, start).status, 303),
                    _ => visitor.set_cookie(shared.cookie()),
                }
                visitor
            }).collect();
            let news = ["seven unrelated pink boats", "eight unrelated gold spoons", OTHER];
            let won: Vec<usize> = thread::scope(|scope| {
                let one = |(n, visitor)| scope.spawn(move || {
                    let answer = change(visitor, start, news[n]);
                    match (answer.status, answer.location()) {
                        (303, Some("/settings?notice=password")) => Some(n),
                        // Its session ended before it, the password was another one already, or two
                        // counted at the same instant, which shuts the account for a moment.
                        (303, Some(SIGNED_OUT)) | (422 | 429, None) => None,
                        _ => panic!("{answer:?}"),
                    }
                });
                let all: Vec<_> = visitors.iter().enumerate().map(one).collect();
                all.into_iter().filter_map(|one| one.join().unwrap()).collect()
            });
            assert_eq!(won.len(), 1, "{won:?}");
            let signed_in: Vec<bool> = visitors.iter().map(is_signed_in).collect();
            assert_eq!(signed_in, [0, 1, 2].map(|n| n == won[0]));
            assert_eq!(sessions(&app), 1);
            app.database.execute("DELETE FROM login_attempts");
            assert_eq!(log_in(&app.visitor(), news[won[0]]).status, 303);
            assert_eq!(log_in(&app.visitor(), start).status, 422);
        }
        let changed = "SELECT COUNT(*) FROM events WHERE action = 'account.password_changed'
            AND actor <> 'operator'";
        assert_eq!(app.database.number(changed), 2);
    }

    fn a_password_that_was_changed_meanwhile_stays(app: App) {
        let owner = app.owner();
        let other = app.visitor();
        other.sign_in(EMAIL);
        let (hash, count, id) = (password_hash(&app), events(&app), this_session(&owner));
        assert!(matches!(change_late(&app, true, &id), Err(PasswordError::Outdated)));
        let gone = SessionId::of_key("gone").to_string();
        for outdated in [true, false] {
            assert!(matches!(change_late(&app, outdated, &gone), Err(PasswordError::SignedOut)));
        }
        let stranger = app.stranger();
        let theirs = this_session(&stranger);
        assert!(matches!(change_late(&app, false, &theirs), Err(PasswordError::SignedOut)));
        assert_eq!((password_hash(&app), this_session(&owner)), (hash, id.clone()));
        // The stranger's own two.
        assert_eq!((events(&app), sessions(&app)), (count + 2, 3));
        assert!(is_signed_in(&other) && is_signed_in(&stranger));
        change_late(&app, false, &id).unwrap();
        assert_eq!(password_hash(&app), "$argon2id$other");
        assert!(!is_signed_in(&other) && !is_signed_in(&owner) && is_signed_in(&stranger));
    }

    fn a_session_that_ends_meanwhile_changes_no_password(app: App) {
        let owner = app.owner();
        let (hash, runs) = (password_hash(&app), app.hasher.runs());
        // After the request has found its session, and before it compares and hashes.
        app.database.on_insert("login_attempts", "DELETE FROM sessions");
        assert_leads(&change(&owner, PASSWORD, NEW), SIGNED_OUT);
        assert_eq!((password_hash(&app), sessions(&app)), (hash, 0));
        assert_eq!(app.hasher.runs(), runs + 2);
    }

    fn what_cannot_be_recorded_does_not_happen(app: App) {
        let owner = app.owner();
        let other = app.visitor();
        other.sign_in(EMAIL);
        let ids = owner.get(SETTINGS).session_ids();
        let (hash, count, cookie) = (password_hash(&app), events(&app), owner.cookie());
        refuse_events(&app);
        for answer in [change(&owner, PASSWORD, NEW), rename(&owner, "Other"), end(&owner, &ids[1]),
            end(&owner, &ids[0]), end_others(&owner)]
        {
            assert_eq!(answer.status, 503, "{answer:?}");
        }
        assert_eq!((password_hash(&app), title(&app, 1)), (hash, TITLE.to_owned()));
        assert_eq!((events(&app), owner.cookie()), (count, cookie));
        assert_eq!(owner.get(SETTINGS).session_ids(), ids);
        assert!(is_signed_in(&owner) && is_signed_in(&other));
    }

    fn devices_are_listed_with_where_and_when(
        app: App, with |s| s.trusted_proxies = "127.0.0.1".into()
    ) {
        app.owner();
        let laptop = sign_in_on(&app, LAPTOP, "203.0.113.1");
        let phone = sign_in_on(&app, PHONE, "2001:db8::1");
        let odd = sign_in_on(&app, &format!("curl/8 {}é", "x".repeat(192)), "203.0.113.3");
        sign_in_on(&app, "curl/8 tsend_abc", "203.0.113.4");
        app.stranger();
        let set = |column: &str, agent: &str, time| app.database.execute(&format!(
            "UPDATE sessions SET {column} = '{}' WHERE user_agent LIKE '{agent}'", ago(time)
        ));
        set("last_seen_at", "%Firefox%", TimeDelta::minutes(30));
        set("last_seen_at", "curl%", TimeDelta::hours(2));
        set("last_seen_at", "", TimeDelta::hours(3));
        app.database.execute(&format!(
            "UPDATE sessions SET last_seen_at = '{}' WHERE address = '127.0.0.1' AND user_id = 1",
            ago(TimeDelta::hours(5))
        ));
        let page = phone.get(SETTINGS);
        let unknown = "Unknown device";
        assert_eq!(devices(&page), ["Safari on iPhone *", "Firefox on Linux", unknown, unknown, unknown]);
        for text in ["<span class=\"mono\">2001:db8::1</span>", "30 minutes ago", "2 hours ago",
            "5 hours ago", "just now", "aria-label=\"Sign out Firefox on Linux at 203.0.113.1\"",
            "aria-label=\"Sign out Safari on iPhone at 2001:db8::1 (this device)\"", "end-others"]
        {
            assert!(page.body.contains(text), "{text} {}", page.body);
        }
        assert_eq!(page.body.matches("This device").count(), 1);
        // Whichever asks comes first, though others were seen later.
        assert_eq!(devices(&laptop.get(SETTINGS))[..2], ["Firefox on Linux *", "Safari on iPhone"]);
        assert_eq!(page.session_ids()[0], laptop.get(SETTINGS).session_ids()[1]);
        let ids = page.session_ids();
        assert!(ids.iter().all(|id| id.len() == 64));

        let kept = "SELECT user_agent FROM sessions WHERE address = '203.0.113.3'";
        assert_eq!(app.database.text(kept), format!("curl/8 {}", "x".repeat(192)));
        let kept = "SELECT user_agent FROM sessions WHERE address = '203.0.113.4'";
        assert_eq!(app.database.text(kept), "");

        // One that was there before devices were written down.
        app.database.execute("UPDATE sessions SET address = '', user_agent = ''
            WHERE address = '203.0.113.3'");
        let page = odd.get(SETTINGS);
        assert!(page.body.contains("<td data-label=\"Address\">Unknown</td>"));
        assert!(page.body.contains("aria-label=\"Sign out Unknown device (this device)\""));

        // What has ended is not there.
        set("last_seen_at", "%Firefox%", TimeDelta::hours(13));
        set("created_at", "%iPhone%", TimeDelta::days(8));
        assert_eq!(devices(&odd.get(SETTINGS)), ["Unknown device *", unknown, unknown]);
        assert!(!is_signed_in(&laptop) && !is_signed_in(&phone));
    }

    fn a_device_is_signed_out_from_another(
        app: App, with |s| s.trusted_proxies = "127.0.0.1".into()
    ) {
        let owner = app.owner();
        let laptop = sign_in_on(&app, LAPTOP, "203.0.113.1");
        let phone = sign_in_on(&app, PHONE, "203.0.113.2");
        let id = this_session(&phone);
        assert!(owner.get(SETTINGS).session_ids().contains(&id));

        let answer = end(&owner, &id);
        assert_leads(&answer, "/settings?notice=ended");
        assert!(!is_signed_in(&phone));
        assert!(is_signed_in(&owner) && is_signed_in(&laptop));
        assert_eq!(notice(&owner, &answer), "The device is signed out.");
        let ended = (String::new(), "Safari on iPhone at 203.0.113.2".to_owned(), 1);
        assert_eq!(latest(&app, "session.ended"), ended);
        assert!(owner.get("/activity").body.contains("Safari on iPhone at 203.0.113.2"));

        for gone in [&id, &id.to_uppercase(), &"0".repeat(64)] {
            let answer = end(&owner, gone);
            assert_leads(&answer, "/settings?notice=gone");
            assert_eq!(notice(&owner, &answer), "That device was already signed out.");
        }
        app.database.execute(&format!("UPDATE sessions SET last_seen_at = '{}' WHERE
            address = '203.0.113.1'", ago(TimeDelta::hours(13))));
        let idle = SessionId::parse(&app.database.text(match app.database.backend() {
            Backend::Sqlite => "SELECT hex(id_hash) FROM sessions WHERE address = '203.0.113.1'",
            Backend::Postgres => "SELECT encode(id_hash, 'hex') FROM sessions
                WHERE address = '203.0.113.1'",
        })).unwrap();
        assert_leads(&end(&owner, &idle.to_string()), "/settings?notice=gone");
        assert_eq!(latest(&app, "session.ended"), ended);
    }

    fn this_device_is_signed_out_as_by_the_button_at_the_top(app: App) {
        let owner = app.owner();
        let other = app.visitor();
        other.sign_in(EMAIL);
        let cookie = owner.cookie();
        assert_leads(&end(&owner, &this_session(&owner)), "/login");
        assert_eq!(owner.cookie(), None);
        owner.set_cookie(cookie);
        assert!(!is_signed_in(&owner) && is_signed_in(&other));
        assert_eq!((sessions(&app), latest(&app, "session.ended").2), (1, 1));
    }

    fn all_other_devices_are_signed_out(app: App) {
        let (owner, stranger) = (app.owner(), app.stranger());
        let answer = end_others(&owner);
        assert_leads(&answer, "/settings?notice=alone");
        assert_eq!(notice(&owner, &answer), "You are not signed in on any other device.");
        let ended = "SELECT COUNT(*) FROM events WHERE action = 'session.ended'";
        assert_eq!(app.database.number(ended), 0);

        let cookie = owner.cookie();
        for (count, detail) in [(1, "1 other session"), (3, "3 other sessions")] {
            let others: Vec<Visitor> = (0..count).map(|_| app.visitor()).collect();
            for other in &others {
                other.sign_in(EMAIL);
            }
            let answer = end_others(&owner);
            assert_leads(&answer, "/settings?notice=others");
            assert_eq!(notice(&owner, &answer), "Your other devices are signed out.");
            assert!(!others.iter().any(is_signed_in));
            assert_eq!(latest(&app, "session.ended").1, detail);
        }
        assert_eq!((app.database.number(ended), sessions(&app)), (2, 2));
        assert_eq!(owner.cookie(), cookie);
        assert!(is_signed_in(&owner) && is_signed_in(&stranger));
        assert_leads(&end_others(&app.visitor()), SIGNED_OUT);
    }

    fn nobody_ends_the_sessions_of_others(app: App) {
        let (owner, stranger) = (app.owner(), app.stranger());
        let count = events(&app);
        let id = this_session(&owner);
        assert_eq!(end(&stranger, &id).status, 404);
        assert_eq!(end(&stranger, &id.to_uppercase()).status, 404);
        assert!(!stranger.get(SETTINGS).session_ids().contains(&id));
        assert!(!stranger.get(SETTINGS).body.contains(EMAIL));
        assert_leads(&end_others(&stranger), "/settings?notice=alone");
        assert_leads(&end(&app.visitor(), &id), SIGNED_OUT);
        for odd in ["", "x", "-1", "%00", &id[1..], &format!("{id}0"), &"g".repeat(64), "%F0%9F%98%80"] {
            assert_eq!(end(&owner, odd).status, 404, "{odd}");
        }
        assert_eq!((events(&app), sessions(&app)), (count, 2));

        // A password of theirs is theirs.
        let hash = password_hash(&app);
        let form = [("current", PASSWORD), ("new", NEW), ("email", EMAIL), ("username", EMAIL),
            ("user_id", "1")];
        assert_leads(&stranger.post("/settings/password", &form), "/settings?notice=password");
        assert_eq!(password_hash(&app), hash);
        assert_eq!(latest(&app, "account.password_changed").0, STRANGER);
        assert!(is_signed_in(&owner) && is_signed_in(&stranger));
    }
}
