//! What is recorded of what happens, who sees it, and what the server does by itself.

use std::net::IpAddr;
use std::time::Duration;

use chrono::{Days, NaiveDateTime, TimeDelta, Utc};
use diesel::connection::SimpleConnection;

use tosend_dashboard::accounts::email::Email;
use tosend_dashboard::accounts::event::{Action, Actor};
use tosend_dashboard::accounts::store::{self as accounts_store, AccountId};
use tosend_dashboard::db::{self, Connection, DatabaseUrl, Db};
use tosend_dashboard::domains::name::DomainName;
use tosend_dashboard::domains::store::{self as domains_store, DomainStatus};
use tosend_dashboard::keys::expiry::Expiry;
use tosend_dashboard::keys::name::{Description, KeyName};
use tosend_dashboard::keys::rule::Rule;
use tosend_dashboard::keys::scope::NewScope;
use tosend_dashboard::keys::secret::PlainKey;
use tosend_dashboard::keys::store::{self as keys_store, Edit, Rotation};

use crate::support::*;

const NEW_PASSWORD: &str = "five unrelated blue chairs";
/// Where people are whose changes do not come by a page.
const ELSEWHERE: &str = "192.0.2.7";

/// A line of the download.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    time: String,
    action: String,
    subject_id: String,
    subject: String,
    detail: String,
    actor: String,
    address: String,
}

/// The download, newest first.
fn lines(visitor: &Visitor, query: &str) -> Vec<Line> {
    let answer = visitor.get(&format!("/activity.csv{query}"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut reader = csv::Reader::from_reader(answer.body.as_bytes());
    let header: Vec<String> = reader.headers().unwrap().iter().map(Into::into).collect();
    let names = [
        "time",
        "action",
        "subject_id",
        "subject",
        "detail",
        "actor",
        "address",
    ];
    assert_eq!(header, names);
    let line = |record: csv::Result<csv::StringRecord>| {
        let record = record.unwrap();
        let cell = |n: usize| record[n].to_owned();
        Line {
            time: cell(0),
            action: cell(1),
            subject_id: cell(2),
            subject: cell(3),
            detail: cell(4),
            actor: cell(5),
            address: cell(6),
        }
    };
    reader.records().map(line).collect()
}

fn actions(visitor: &Visitor, query: &str) -> Vec<String> {
    let lines = lines(visitor, query).into_iter();
    lines.map(|line| line.action).collect()
}

/// The labels on the page, in its order.
fn labels(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let cells = answer.body.split("<th scope=\"row\">").skip(1);
    let label = |cell: &str| cell.split(" <span").next().unwrap().to_owned();
    cells
        .map(|cell| label(cell.split("</th>").next().unwrap()))
        .collect()
}

fn events(app: &App, action: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) FROM events WHERE action = '{action}'");
    app.database.number(&sql)
}

/// Changes something of the owner's account, beside the server.
fn change<T>(
    app: &App,
    f: impl FnOnce(&mut Connection, AccountId, &Actor) -> db::Result<T>,
) -> db::Result<T> {
    let db = Db::open(&DatabaseUrl::parse(&app.database.url).unwrap()).unwrap();
    db.write_blocking(|conn| {
        let email = Email::parse(EMAIL).unwrap();
        let user = accounts_store::find_credentials(conn, &email)?.unwrap();
        let account = accounts_store::find_id_by_email(conn, &email)?.unwrap();
        let elsewhere: IpAddr = ELSEWHERE.parse().unwrap();
        f(conn, account, &Actor::user(user.user_id, EMAIL, elsewhere))
    })
}

fn set_domain(app: &App, name: &str, status: DomainStatus) -> db::Result<()> {
    let name = DomainName::parse(name).unwrap();
    change(app, |conn, account, actor| {
        domains_store::set_status(conn, account, &name, status, actor).map(|_| ())
    })
}

fn edit(app: &App, id: i64, name: &str) -> db::Result<()> {
    let edit = Edit {
        name: KeyName::parse(name).unwrap(),
        description: Description::default(),
        scope: NewScope::AllDomains,
        expiry: None,
        rule: Rule::default(),
    };
    change(app, |conn, account, actor| {
        keys_store::edit(conn, account, id, None, &edit, actor)
            .map(|_| ())
            .map_err(|error| db::Error::Unavailable(error.to_string()))
    })
}

/// Gives the new key.
fn rotate(app: &App, id: i64) -> db::Result<String> {
    let rotation = Rotation {
        overlap: None,
        stops_when_quiet: None,
        expiry: None,
    };
    let secret = PlainKey::generate();
    change(app, |conn, account, actor| {
        keys_store::rotate(conn, account, id, &rotation, &secret, 1_000, actor)
            .map_err(|error| db::Error::Unavailable(error.to_string()))
    })?;
    Ok(secret.expose().to_owned())
}

fn stop(app: &App, id: i64) -> db::Result<()> {
    change(app, |conn, account, actor| {
        keys_store::stop(conn, account, id, actor).map(drop)
    })
}

/// Many keys at once, by the operator.
fn create_keys(app: &App, number: usize) {
    let new = keys_store::NewKey {
        name: KeyName::parse("One of many").unwrap(),
        description: Description::default(),
        scope: NewScope::AllDomains,
        expiry: Expiry::NEVER,
        rule: Rule::default(),
    };
    let made = change(app, |conn, account, _| {
        for _ in 0..number {
            let (secret, operator) = (PlainKey::generate(), Actor::operator());
            keys_store::create(conn, account, &new, &secret, i64::MAX, &operator).unwrap();
        }
        Ok(())
    });
    made.unwrap();
}

/// Lets the time of keys be over.
fn expire(app: &App, which: &str, ago: TimeDelta) {
    let at = stored(Utc::now().naive_utc() - ago);
    app.database.execute(&format!(
        "UPDATE api_keys SET expires_at = '{at}' WHERE {which}"
    ));
}

/// An instant as both databases take it.
fn stored(at: NaiveDateTime) -> String {
    at.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

/// Events of the first account, as if they had happened.
fn insert(app: &App, number: usize, at: NaiveDateTime, actor: &str) {
    app.database.execute(&format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number})
         INSERT INTO events (account_id, at, actor, action, subject, detail)
         SELECT 1, '{}', '{actor}', 'account.paused', 'number ' || i, '' FROM n",
        stored(at)
    ));
}

/// Makes the database refuse every event.
pub fn refuse_events(app: &App) {
    app.database.execute(match app.database.backend() {
        Backend::Sqlite => {
            "CREATE TRIGGER no BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no'); END"
        }
        Backend::Postgres => {
            "CREATE OR REPLACE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'no'; END $$;
             CREATE TRIGGER no BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no()"
        }
    });
}

fn take_events_again(app: &App) {
    app.database.execute(match app.database.backend() {
        Backend::Sqlite => "DROP TRIGGER no",
        Backend::Postgres => "DROP TRIGGER no ON events",
    });
}

/// Everything that the changes below change.
fn everything(app: &App) -> Vec<String> {
    [
        "SELECT COUNT(*) FROM accounts",
        "SELECT COUNT(*) FROM accounts WHERE status = 'active'",
        "SELECT SUM(key_count) FROM accounts",
        "SELECT MIN(title) FROM accounts",
        "SELECT MIN(password_hash) FROM users",
        "SELECT COUNT(*) FROM users",
        "SELECT COUNT(*) FROM sessions",
        "SELECT COUNT(*) FROM sending_domains",
        "SELECT COUNT(*) FROM sending_domains WHERE status = 'verified'",
        "SELECT COUNT(*) FROM api_keys",
        "SELECT COUNT(*) FROM api_keys WHERE hash IS NOT NULL",
        "SELECT COUNT(*) FROM api_keys WHERE status = 'active'",
        "SELECT COUNT(*) FROM api_keys WHERE ended_at IS NULL",
        "SELECT COUNT(*) FROM api_keys WHERE replaces IS NULL",
        "SELECT MIN(name) || MAX(name) FROM api_keys",
        "SELECT COUNT(*) FROM events",
    ]
    .map(|sql| app.database.text(sql))
    .into()
}

both! {
    fn all_that_happens_is_recorded_with_who_did_it_and_from_where(app: App) {
        let owner = app.owner();
        let mut cookies = vec![owner.cookie().unwrap()];
        owner.post("/logout", &[]);
        owner.post("/logout", &[]);
        owner.sign_in(EMAIL);
        cookies.push(owner.cookie().unwrap());

        owner.add_domain("acme.test");
        owner.post("/domains", &[("name", "acme.test")]);
        attest(&app.database, "acme.test");
        attest(&app.database, "acme.test");
        set_domain(&app, "acme.test", DomainStatus::Failed).unwrap();
        set_domain(&app, "acme.test", DomainStatus::Pending).unwrap();
        set_domain(&app, "acme.test", DomainStatus::Failed).unwrap();
        let replace = ["domain", "replace-key", "--account", EMAIL, "acme.test"];
        cli(&app.database, &replace, "").unwrap();
        let domain = owner.add_domain("gone.test");
        owner.post(&format!("/domains/{domain}/delete"), &[]);

        let (id, first) = owner.create_key("Payroll", "");
        for what in ["pause", "pause", "resume", "resume"] {
            owner.post(&format!("/api-keys/{id}/{what}"), &[]);
        }
        edit(&app, id, "Wages").unwrap();
        let second = rotate(&app, id).unwrap();
        stop(&app, id).unwrap();
        let successor = app.database.number("SELECT MAX(id) FROM api_keys");
        owner.delete_key(successor);
        let (_, third) = owner.create_key("Short", "");
        expire(&app, "name = 'Short'", TimeDelta::minutes(1));
        until("the key expires", || events(&app, "key.expired") == 1);

        app.database.execute(
            "INSERT INTO emails (account_id, api_key_id, message_id, message, status, created_at,
                 internet_id, next_attempt_at, ended_at, recipient)
             SELECT account_id, id, 'm', '{}', 'failed', '2020-01-01 00:00:00', 'i',
                 '2020-01-01 00:00:00', '2020-01-01 00:00:00', 'bob@example.org'
             FROM api_keys WHERE name = 'Short'"
        );
        let email = app.database.number("SELECT id FROM emails");
        for _ in 0..2 {
            owner.post(&format!("/activity/emails/{email}/retry"), &[]);
        }
        for what in ["cancel", "cancel", "purge", "purge"] {
            cli(&app.database, &["email", what, &email.to_string()], "").unwrap();
        }

        for what in ["pause", "pause", "resume", "resume"] {
            cli(&app.database, &["account", what, "--account", EMAIL], "").unwrap();
        }
        owner.post("/settings/title", &[("title", "Acme Ltd")]);
        owner.post("/settings/title", &[("title", " Acme Ltd ")]);
        owner.post("/settings/title", &[("title", "")]);
        let args = ["account", "password", "--account", EMAIL, "--password-stdin"];
        cli(&app.database, &args, NEW_PASSWORD).unwrap();
        owner.post("/login", &[("email", EMAIL), ("password", "wrong")]);
        let login = [("email", EMAIL), ("password", NEW_PASSWORD)];
        assert_eq!(owner.post("/login", &login).status, 303);

        let (here, there) = ((EMAIL, "127.0.0.1"), (EMAIL, ELSEWHERE));
        let (operator, server) = (("operator", ""), ("server", ""));
        let expected = [
            ("account.created", TITLE, here),
            ("session.started", "", here),
            ("session.ended", "", here),
            ("session.started", "", here),
            ("domain.added", "acme.test", here),
            ("domain.verified", "acme.test", operator),
            ("domain.lost", "acme.test", there),
            ("domain.failed", "acme.test", there),
            ("domain.key_replaced", "acme.test", operator),
            ("domain.added", "gone.test", here),
            ("domain.deleted", "gone.test", here),
            ("key.created", "Payroll (tsend_", here),
            ("key.paused", "Payroll (tsend_", here),
            ("key.resumed", "Payroll (tsend_", here),
            ("key.edited", "Wages (tsend_", there),
            ("key.rotated", "Wages (tsend_", there),
            ("key.created", "Wages (tsend_", there),
            ("key.stopped", "Wages (tsend_", there),
            ("key.deleted", "Wages (tsend_", here),
            ("key.created", "Short (tsend_", here),
            ("key.expired", "Short (tsend_", server),
            ("email.retried", "bob@example.org", here),
            ("email.retried", "bob@example.org", here),
            ("email.cancelled", "", operator),
            ("email.deleted", "", operator),
            ("account.paused", TITLE, operator),
            ("account.resumed", TITLE, operator),
            ("account.renamed", "Acme Ltd", here),
            ("account.password_changed", EMAIL, operator),
            ("session.refused", EMAIL, ("unknown", "127.0.0.1")),
            ("session.started", "", here),
        ];
        let mut told = lines(&owner, "");
        told.reverse();
        let all: Vec<_> = told.iter().map(|line| line.action.as_str()).collect();
        assert_eq!(all, expected.map(|(action, ..)| action));
        for (line, (_, subject, (actor, address))) in told.iter().zip(expected) {
            assert!(line.subject.starts_with(subject), "{line:?}");
            assert_eq!((line.actor.as_str(), line.address.as_str()), (actor, address), "{line:?}");
            assert!(line.time.ends_with('Z') && line.time.len() == 20, "{line:?}");
        }
        for action in Action::ALL {
            assert!(all.contains(&action.as_str()), "{action:?} is not in this test");
        }
        let mut shown = labels(&owner.get("/activity"));
        shown.reverse();
        let label = |line: &Line| Action::from_column(&line.action).unwrap().label().to_owned();
        assert_eq!(shown, told.iter().map(label).collect::<Vec<_>>());
        let page = owner.get("/activity").body;
        for text in ["the operator (command line)", "the server", "somebody not signed in", EMAIL,
            "127.0.0.1", ELSEWHERE, "name: “Payroll” → “Wages”", "aria-current=\"page\">Activity"]
        {
            assert!(page.contains(text), "{text}");
        }

        let whole = "actor || coalesce(address, '') || subject || detail";
        let whole = app.database.text(&match app.database.backend() {
            Backend::Sqlite => format!("SELECT group_concat({whole}) FROM events"),
            Backend::Postgres => format!("SELECT string_agg({whole}, ',') FROM events"),
        });
        assert!(whole.contains("Payroll (tsend_"), "{whole}");
        for key in [first, second, third] {
            assert!(!whole.contains(&key[10..26]));
        }
        for secret in [PASSWORD, NEW_PASSWORD, "wrong", "$argon2"] {
            assert!(!whole.contains(secret), "{secret}");
        }
        for cookie in cookies.iter().chain(&owner.cookie()) {
            let end = cookie.len() - 20;
            assert!(!whole.contains(&cookie[end..]) && !whole.contains("tosend_session"));
        }
    }

    fn what_the_operator_makes_is_the_operators(app: App) {
        let stranger = app.stranger();
        let told = lines(&stranger, "");
        assert_eq!((told[1].action.as_str(), told[1].actor.as_str()), ("account.created", "operator"));
        assert_eq!(told[1].detail, "first user: eve@evil.test");
        assert_eq!((told[0].action.as_str(), told[0].actor.as_str()), ("session.started", "eve@evil.test"));
        assert_eq!(told.len(), 2);
    }

    fn the_address_is_the_one_that_a_trusted_proxy_tells(
        app: App,
        with |settings| settings.trusted_proxies = "127.0.0.1".into()
    ) {
        app.owner();
        let visitor = app.visitor();
        let post = |path: &str, form: &[(&str, &str)]| {
            let request = visitor.same_origin("POST", path);
            visitor.send(request.header("x-forwarded-for", "203.0.113.9").form(form))
        };
        post("/login", &[("email", EMAIL), ("password", PASSWORD)]);
        post("/domains", &[("name", "acme.test")]);
        post("/logout", &[]);
        visitor.sign_in(EMAIL);
        let told = lines(&visitor, "");
        let addresses: Vec<_> = told.iter().map(|line| line.address.as_str()).collect();
        let (proxy, client) = ("127.0.0.1", "203.0.113.9");
        assert_eq!(addresses, [proxy, client, client, client, proxy, proxy]);
    }

    fn a_change_that_cannot_be_recorded_does_not_happen(app: App) {
        refuse_events(&app);
        let visitor = app.visitor();
        let form = [("title", TITLE), ("email", EMAIL), ("password", PASSWORD)];
        assert_eq!(visitor.post("/signup", &form).status, 503);
        assert_eq!(app.database.number("SELECT COUNT(*) FROM accounts"), 0);
        take_events_again(&app);

        let owner = app.owner();
        let (pending, verified) = (owner.add_domain("a.test"), owner.add_domain("b.test"));
        attest(&app.database, "b.test");
        let (active, key) = owner.create_key("Active", "");
        let (paused, _) = owner.create_key("Paused", "");
        owner.post(&format!("/api-keys/{paused}/pause"), &[]);
        let (replaced, _) = owner.create_key("Replaced", "");
        rotate(&app, replaced).unwrap();
        let nonce = owner.nonce();
        app.visitor().sign_in(EMAIL);
        let elsewhere = owner.get("/settings").session_ids()[1].clone();
        let cookie = owner.cookie();
        refuse_events(&app);
        let before = everything(&app);

        for (path, form) in [
            ("/api-keys".to_owned(), vec![("nonce", nonce.as_str()), ("name", "x"), ("scope", "all"),
                ("expiry", "none")]),
            (format!("/api-keys/{active}/pause"), vec![]),
            (format!("/api-keys/{paused}/resume"), vec![]),
            (format!("/api-keys/{active}/delete"), vec![]),
            ("/domains".to_owned(), vec![("name", "c.test")]),
            (format!("/domains/{pending}/delete"), vec![]),
            (format!("/domains/{verified}/delete"), vec![]),
            ("/settings/title".to_owned(), vec![("title", "Other")]),
            ("/settings/password".to_owned(), vec![("current", PASSWORD), ("new", NEW_PASSWORD)]),
            ("/settings/sessions/end-others".to_owned(), vec![]),
            (format!("/settings/sessions/{elsewhere}/end"), vec![]),
            ("/logout".to_owned(), vec![]),
            ("/login".to_owned(), vec![("email", EMAIL), ("password", PASSWORD)]),
        ] {
            owner.set_cookie(cookie.clone().filter(|_| path != "/login"));
            let answer = owner.post(&path, &form);
            assert_eq!(answer.status, 503, "{path} {}", answer.body);
            assert_eq!(everything(&app), before, "{path}");
        }
        for args in [
            &["account", "pause", "--account", EMAIL][..],
            &["account", "password", "--account", EMAIL, "--password-stdin"],
            &["account", "create", "--email", "x@y.test", "--title", "X", "--password-stdin"],
            &["domain", "add", "--account", EMAIL, "c.test"],
            &["domain", "add", "--account", EMAIL, "a.test", "--verified"],
            &["key", "create", "--account", EMAIL, "--name", "x"],
            &["key", "pause", "--account", EMAIL, &active.to_string()],
            &["key", "delete", "--account", EMAIL, &active.to_string()],
        ] {
            assert!(cli(&app.database, args, NEW_PASSWORD).is_err(), "{args:?}");
            assert_eq!(everything(&app), before, "{args:?}");
        }
        assert!(set_domain(&app, "b.test", DomainStatus::Failed).is_err());
        assert!(edit(&app, active, "Other").is_err());
        assert!(rotate(&app, active).is_err());
        assert!(stop(&app, replaced).is_err());
        assert_eq!(everything(&app), before);

        // The end of a time waits until it can be written down; the key does not work meanwhile.
        owner.set_cookie(cookie);
        expire(&app, "name = 'Active'", TimeDelta::minutes(1));
        assert_eq!(app.program(&key).verdict(), 403);
        assert_eq!(everything(&app), before);
        take_events_again(&app);
        until("the key expires", || events(&app, "key.expired") == 1);
        assert_eq!(owner.post(&format!("/api-keys/{paused}/resume"), &[]).status, 303);
        assert_eq!(owner.post("/logout", &[]).status, 303);
    }

    fn nobody_sees_the_activity_of_another_account(app: App) {
        let (owner, stranger) = (app.owner(), app.stranger());
        owner.add_domain("acme.test");
        stranger.add_domain("evil.test");
        let (id, _) = owner.create_key("Payroll", "");
        let (theirs, _) = stranger.create_key("Loot", "");
        for path in ["/activity", "/activity.csv"] {
            let both = |query: &str| [&owner, &stranger].map(|visitor| {
                let answer = visitor.get(&format!("{path}{query}"));
                assert_eq!(answer.status, 200, "{}", answer.body);
                answer.body
            });
            let (all, hers, his) = ("", format!("?key={id}"), format!("?key={theirs}"));
            for query in [all, "?before=9999", "?who=e", "?kind=key", &hers, &his] {
                let [owners, strangers] = both(query);
                for text in ["Loot", "evil.test"] {
                    assert!(!owners.contains(text), "{path}{query} {text}");
                }
                for text in ["Payroll", "acme.test"] {
                    assert!(!strangers.contains(text), "{path}{query} {text}");
                }
            }
            assert!(both(all)[0].contains("Payroll") && both(all)[1].contains("Loot"));
            let answer = app.visitor().get(path);
            assert_eq!(answer.status, 303);
            let login = format!("/login?next=%2F{}", &path[1..]);
            assert_eq!(answer.location(), Some(login.as_str()));
        }
        assert!(lines(&stranger, &format!("?key={id}")).is_empty());
        assert!(owner.get(&format!("/activity?key={theirs}")).body.contains("Nothing matches."));
    }

    fn what_is_recorded_stays_as_it_is(app: App) {
        let owner = app.owner();
        let before = lines(&owner, "");
        for sql in ["UPDATE events SET detail = 'x'", "UPDATE events SET actor = actor WHERE id = 1"] {
            let changed = change(&app, |conn, _, _| Ok(conn.batch_execute(sql)?));
            assert!(changed.unwrap_err().to_string().contains("events are append-only"), "{sql}");
        }
        assert_eq!(lines(&owner, ""), before);
    }

    fn the_activity_is_filtered_by_its_address(app: App) {
        let owner = app.owner();
        owner.add_domain("acme.test");
        let (id, _) = owner.create_key("Payroll", "");
        owner.create_key("Staging", "");
        owner.post(&format!("/api-keys/{id}/pause"), &[]);
        cli(&app.database, &["key", "resume", "--account", EMAIL, &id.to_string()], "").unwrap();
        let key = format!("?key={id}");
        let one = ["key.resumed", "key.paused", "key.created"];
        assert_eq!(actions(&owner, &key), one);
        assert_eq!(actions(&owner, &format!("{key}&who=OPERator")), ["key.resumed"]);
        assert_eq!(actions(&owner, &format!("{key}&kind=domain")), [""; 0]);
        assert_eq!(actions(&owner, "?kind=domain"), ["domain.added"]);
        assert_eq!(actions(&owner, "?kind=session"), ["session.started"]);
        assert_eq!(actions(&owner, "?kind=account"), ["account.created"]);
        assert_eq!(actions(&owner, "?kind=key").len(), 4);
        assert_eq!(actions(&owner, "?who=%20ada%40ACME").len(), 6);
        for nothing in ["%25", "_", "ada_acme", "a%25a", "%5C", "'"] {
            assert_eq!(actions(&owner, &format!("?who={nothing}")), [""; 0], "{nothing}");
        }
        let page = owner.get(&format!("/activity{key}&kind=key&who=ada")).body;
        for text in ["<option value=\"key\" selected>", "name=\"who\" value=\"ada\"",
            &format!("name=\"key\" value=\"{id}\""), "Only the activity of one key is shown: <bdi>Payroll (tsend_",
            &format!("href=\"/activity.csv?kind=key&#38;who=ada&#38;key={id}\"")]
        {
            assert!(page.contains(text), "{text} {page}");
        }
        assert_eq!(labels(&owner.get(&format!("/activity{key}"))), ["Key resumed", "Key paused", "Key created"]);
        assert!(owner.get("/activity").body.contains(&format!("href=\"/activity?key={id}\"")));
        let none = owner.get("/activity?who=nobody").body;
        assert!(none.contains("Nothing matches.") && !none.contains("<table"));
        for odd in ["kind=", "kind=x", "key=x", "key=-1", "key=99999999999999999999", "from=x",
            "to=2026-13-45", "from=-9999-01-01", "from=99999-01-01", "to=9999-12-31",
            "to=9998-12-31", "before=x", "before=-1", "who=%00", "who=%F0%9F%98%80", "x=y"]
        {
            assert_eq!(owner.get(&format!("/activity?{odd}")).status, 200, "{odd}");
            assert_eq!(owner.get(&format!("/activity.csv?{odd}")).status, 200, "{odd}");
        }
        assert_eq!(owner.get("/activity?kind=key&kind=key").status, 400);
        assert_eq!(actions(&owner, "?who=%00&kind=x&key=x&from=x&to=x").len(), 7);
    }

    fn a_filter_gives_what_the_whole_list_has_of_it(app: App) {
        let owner = app.owner();
        // With few actors each of them is looked up; with many the list is gone through.
        for (first, last) in [(1, 3), (4, 40)] {
            app.database.execute(&format!(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
                 INSERT INTO events (account_id, at, actor, action, subject, detail)
                 SELECT 1, '{}', 'robot' || ({first} + i % ({last} - {first} + 1)) || '@acme.test',
                     CASE i % 7 WHEN 0 THEN 'domain.added' WHEN 1 THEN 'later.thing' ELSE 'key.edited' END,
                     'number ' || i, ''
                 FROM n",
                stored(Utc::now().naive_utc())
            ));
            let all = lines(&owner, "");
            for (who, kind) in [("", "domain"), ("", "account"), ("", "email"), ("robot", ""), ("robot2@", ""),
                ("robot", "key"), ("robot2@", "domain"), ("robot1", "session"), ("nobody", ""), ("nobody", "key")]
            {
                let is_it = |line: &&Line| {
                    line.actor.contains(who) && (kind.is_empty() || line.action.starts_with(&format!("{kind}.")))
                };
                let expected: Vec<Line> = all.iter().filter(is_it).cloned().collect();
                let found = lines(&owner, &format!("?who={who}&kind={kind}"));
                assert!(found == expected, "{who} {kind} {} {}", found.len(), expected.len());
            }
        }
    }

    fn days_begin_and_end_at_midnight_utc(app: App) {
        let owner = app.owner();
        let day = Utc::now().date_naive() - Days::new(5);
        let (begin, end) = (day.and_hms_opt(0, 0, 0).unwrap(), (day + Days::new(1)).and_hms_opt(0, 0, 0).unwrap());
        let microsecond = TimeDelta::microseconds(1);
        for (at, who) in [
            (begin - microsecond, "before"), (begin, "begin"), (end - microsecond, "end"), (end, "after"),
        ] {
            insert(&app, 1, at, who);
        }
        let who = |query: &str| {
            let lines = lines(&owner, query).into_iter().filter(|line| line.actor != EMAIL);
            lines.map(|line| line.actor).collect::<Vec<_>>()
        };
        assert_eq!(who(&format!("?from={day}&to={day}")), ["end", "begin"]);
        assert_eq!(who(&format!("?from={day}")), ["after", "end", "begin"]);
        assert_eq!(who(&format!("?to={day}")), ["end", "begin", "before"]);
        assert!(owner.get(&format!("/activity?to={day}")).body.contains(&format!("value=\"{day}\"")));
    }

    fn long_activity_comes_in_pages_and_the_download_has_it_all(app: App) {
        let owner = app.owner();
        insert(&app, 2_120, Utc::now().naive_utc(), "robot@acme.test");
        let all = lines(&owner, "?who=robot");
        assert_eq!(all.len(), 2_120);
        let numbers = (1..=2_120).rev().map(|n| format!("number {n}"));
        assert!(all.iter().map(|line| line.subject.clone()).eq(numbers));

        let subjects = |answer: &Answer| {
            let cells = answer.body.split("<span class=\"subject\"><bdi>").skip(1);
            cells.map(|cell| cell.split('<').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let mut path = "/activity?who=robot".to_owned();
        let mut paged = Vec::new();
        for page in 0..43 {
            let answer = owner.get(&path);
            let found = subjects(&answer);
            assert_eq!(found.len(), if page < 42 { 50 } else { 20 });
            paged.extend(found);
            let newest = "<a class=\"button\" href=\"/activity?who=robot\">Newest</a>";
            assert_eq!(answer.body.contains(newest), page > 0);
            match answer.body.split_once("rel=\"next\" href=\"") {
                Some((_, rest)) => path = rest.split('"').next().unwrap().replace("&#38;", "&"),
                None => assert_eq!(page, 42),
            }
        }
        assert!(paged.into_iter().eq(all.into_iter().map(|line| line.subject)));
    }

    fn no_name_becomes_a_formula_or_a_tag(app: App) {
        let owner = app.owner();
        let names = [
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("+1+1", "'+1+1"),
            ("-2", "'-2"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\"=1\"", "'\"=1\""),
            ("x;=1", "x;'=1"),
            ("x\",=1", "x\",=1"),
            ("a, b", "a, b"),
            ("<b>\"bold\"</b>", "<b>\"bold\"</b>"),
        ];
        for (name, _) in names {
            owner.create_key(name, "");
        }
        let answer = owner.get("/activity.csv?kind=key");
        assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let name = answer.header("content-disposition").unwrap();
        let day = Utc::now().date_naive();
        assert!(name.starts_with("attachment; filename=\"activity-"), "{name} {day}");
        assert!(name.ends_with(".csv\""), "{name}");
        assert_eq!(answer.body.matches("\r\n").count(), names.len() + 1);
        let told = lines(&owner, "?kind=key");
        for (line, (_, cell)) in told.iter().rev().zip(names) {
            assert!(line.subject.starts_with(&format!("{cell} (tsend_")), "{line:?}");
        }
        let page = owner.get("/activity").body;
        assert!(page.contains("&#60;b&#62;&#34;bold&#34;&#60;/b&#62;"));
        assert!(!page.contains("<b>"));
    }

    fn a_long_list_is_cut_where_it_is_recorded(app: App) {
        let owner = app.owner();
        let addresses = |n: usize| -> String {
            let host = format!("{0}.{0}.{0}.test", "d".repeat(55));
            (0..100).map(|i| format!("{}{i}-{n}@{host}\n", "m".repeat(50))).collect()
        };
        let nonce = owner.nonce();
        let (first, second) = (addresses(1), addresses(2));
        let created = owner.post("/api-keys", &[("nonce", &nonce), ("name", "Payroll"), ("scope", "all"),
            ("expiry", "none"), ("recipients", &first)]);
        assert_eq!(created.status, 200, "{}", created.body);
        let id = owner.get("/api-keys").key_ids()[0];
        let path = format!("/api-keys/{id}/edit");
        let version = owner.get(&path).field("version");
        let edited = owner.post(&path, &[("version", &version), ("name", "Wages"), ("scope", "all"),
            ("expiry", "none"), ("recipients", &second), ("confirmed", "yes")]);
        assert_eq!(edited.status, 303, "{}", edited.body);
        let bytes = match app.database.backend() {
            Backend::Sqlite => "LENGTH(CAST(detail AS BLOB))",
            Backend::Postgres => "OCTET_LENGTH(detail)",
        };
        let longest = app.database.number(&format!("SELECT MAX({bytes}) FROM events"));
        assert!((3_000..=4_096).contains(&longest), "{longest}");
        let told = lines(&owner, "?kind=key");
        assert!(told[0].detail.starts_with("name: “Payroll” → “Wages”; recipients: mmm"));
        for line in &told {
            let (shown, more) = line.detail.strip_suffix(" more").unwrap().rsplit_once(" and ").unwrap();
            let last = shown.rsplit(" → ").next().unwrap();
            assert_eq!(last.split(", ").count() + more.parse::<usize>().unwrap(), 100, "{line:?}");
        }
    }

    fn a_long_question_is_part_of_no_name(app: App) {
        let owner = app.owner();
        for long in [255, 20_000] {
            let query = format!("?who={}", "a".repeat(long));
            assert_eq!(actions(&owner, &query), [""; 0]);
            let page = owner.get(&format!("/activity{query}"));
            assert!(page.body.len() < 20_000, "{}", page.body.len());
        }
        let nowhere = app.visitor().get(&format!("/login?next=/{}", "a".repeat(5_000)));
        assert!(!nowhere.body.contains("aaaa"));
        let nowhere = app.visitor().get(&format!("/api-keys?q={}", "a".repeat(5_000)));
        assert!(nowhere.location().unwrap().len() < 100);
    }

    fn old_activity_is_forgotten(app: App) {
        let owner = app.owner();
        let before = lines(&owner, "");
        let now = Utc::now().naive_utc();
        insert(&app, 2_500, now - TimeDelta::days(31), "old@acme.test");
        insert(&app, 3, now - TimeDelta::days(29), "young@acme.test");
        let (ended, _) = owner.create_key("Long ended", "");
        owner.delete_key(ended);
        let at = stored(now - TimeDelta::days(91));
        app.database.execute(&format!("UPDATE api_keys SET ended_at = '{at}'"));
        let (kept, _) = owner.create_key("Just ended", "");
        owner.delete_key(kept);

        // At its start, not an hour later.
        let _node = App::on(app.database.again(), |settings| settings.activity_days = "30".into());
        until_none_is_left("old activity goes", || lines(&owner, "?who=old").len() as i64);
        assert_eq!(lines(&owner, "?who=young").len(), 3);
        assert_eq!(lines(&owner, "?kind=account&who=ada").len(), 1);
        assert_eq!(lines(&owner, "").len(), before.len() + 3 + 4);
        let hashes = "SELECT COUNT(*) FROM api_keys WHERE ended_hash IS NOT NULL";
        until("the old hash is gone", || app.database.number(hashes) == 1);
    }

    fn the_server_ends_what_is_due_with_nobody_looking(app: App) {
        app.owner();
        create_keys(&app, 3);
        // As after a long time without any server.
        expire(&app, "id = 1", TimeDelta::days(200));
        expire(&app, "id = 2", TimeDelta::minutes(1));
        until("two keys expire", || events(&app, "key.expired") == 2);
        let live = "SELECT COUNT(*) FROM api_keys WHERE ended_at IS NULL AND hash IS NOT NULL";
        assert_eq!(app.database.number(live), 1);
        assert_eq!(app.database.number("SELECT SUM(key_count) FROM accounts"), 1);
        let actor = "SELECT COUNT(*) FROM events WHERE actor = 'server' AND address IS NULL";
        assert_eq!(app.database.number(actor), 2);
    }

    fn two_nodes_end_each_key_once(app: App) {
        app.owner();
        let _node = App::on(app.database.again(), |_| {});
        create_keys(&app, 200);
        expire(&app, "ended_at IS NULL", TimeDelta::minutes(1));
        let live = "SELECT COUNT(*) FROM api_keys WHERE ended_at IS NULL";
        until_none_is_left("all keys expire", || app.database.number(live));
        assert_eq!(events(&app, "key.expired"), 200);
        let keys = "SELECT COUNT(DISTINCT subject_id) FROM events WHERE action = 'key.expired'";
        assert_eq!(app.database.number(keys), 200);
        assert_eq!(app.database.number("SELECT SUM(key_count) FROM accounts"), 0);
    }

    fn an_outage_is_logged_once(app: App) {
        let dashboard = Dashboard::start(&app.database, &[]);
        let count = |text: &str| std::fs::read_to_string(&dashboard.log).unwrap().matches(text).count();
        for outage in 1..=2 {
            app.database.execute("ALTER TABLE api_keys RENAME TO api_keys_gone");
            until("it is logged", || count("the upkeep fails") == outage);
            // Some ticks more.
            std::thread::sleep(Duration::from_secs(3));
            assert_eq!(count("the upkeep fails"), outage);
            app.database.execute("ALTER TABLE api_keys_gone RENAME TO api_keys");
            until("it is over", || count("the upkeep works again") == outage);
        }
    }
}

/// How many bytes of memory a server takes.
fn memory(server: &Dashboard) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: i64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[test]
fn downloads_that_nobody_reads_hold_little() {
    use std::io::{Read, Write};
    for backend in Backend::all() {
        let database = Database::new(backend);
        let server = Dashboard::start(&database, &[]);
        let owner = server.visitor();
        owner.sign_up();
        database.execute(&format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8000)
             INSERT INTO events (account_id, at, actor, action, subject, detail)
             SELECT 1, '{}', 'x', 'account.paused', '', '{}' FROM n",
            stored(Utc::now().naive_utc()),
            "d".repeat(4_096)
        ));
        assert_eq!(
            owner.get("/activity.csv").body.matches("\r\n").count(),
            8_003
        );
        let before = memory(&server);
        let address = server.base.strip_prefix("http://").unwrap();
        let mut readers: Vec<_> = (0..20)
            .map(|_| {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                let head = format!(
                    "GET /activity.csv HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n\r\n",
                    owner.cookies()
                );
                stream.write_all(head.as_bytes()).unwrap();
                stream
            })
            .collect();
        let statuses: Vec<String> = readers
            .iter_mut()
            .map(|stream| {
                let mut line = [0; 12];
                stream.read_exact(&mut line).unwrap();
                String::from_utf8_lossy(&line[9..]).into_owned()
            })
            .collect();
        let running = statuses.iter().filter(|status| *status == "200").count();
        assert_eq!(running, 4, "{statuses:?}");
        assert!(
            statuses
                .iter()
                .all(|status| status == "200" || status == "429")
        );
        let more = memory(&server) - before;
        assert!(more < 50_000_000, "{more}");
        drop(readers);
        until("downloads run again", || {
            owner.get("/activity.csv?kind=session").status == 200
        });
    }
}
